"""A started command as the event loop sees it: a pid whose end is awaited through a pidfd."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from orchestr8d.core.model import Resources
from orchestr8d.processes.files import Files
from orchestr8d.processes.shim import recorded


@dataclass(frozen=True)
class Exit:
    """How a command ended: its status as a shell has it (128 + n: ended by signal n), None when nobody recorded it.

    `resources` are unknown (None) for a child of an earlier daemon.
    """

    status: int | None
    resources: Resources | None = None


class Child:
    """The shim of a running attempt; `exited` is done when it has ended. Made by Processes.

    `age` is how many seconds it ran before we knew it; None when it is our own.
    """

    def __init__(
        self, attempt_id: str, pid: int, files: Files, on_exit: Callable[[], None], age: float | None = None
    ) -> None:
        """Raises OSError when there is no descriptor to watch it by, ProcessLookupError when it is gone."""
        self.attempt_id = attempt_id
        self.pid = pid
        self.files = files
        self.age = age
        self._loop = asyncio.get_running_loop()
        self._on_exit = on_exit
        self._fd: int | None = os.pidfd_open(pid)
        self.exited: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._fd, self._readable)

    def release(self) -> None:
        """Stop watching; the process goes on."""
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def collect(self) -> Exit:
        """Its status, after `exited`. Until then the dead shim keeps its pid, so nobody else can have it."""
        try:
            _, status, usage = os.wait4(self.pid, 0)
        except ChildProcessError:
            return Exit(recorded(self.files))
        resources = Resources(round(usage.ru_utime + usage.ru_stime, 6), usage.ru_maxrss * 1024)
        if os.WIFEXITED(status):
            return Exit(os.WEXITSTATUS(status), resources)
        # The shell itself was killed: the command's own status if it came to that, else the same as the command's.
        own = recorded(self.files)
        return Exit(128 + os.WTERMSIG(status) if own is None else own, resources)

    def _readable(self) -> None:
        self.release()
        if not self.exited.done():
            self.exited.set_result(None)
        self._on_exit()


def signal_of(status: int) -> str | None:
    """The signal's name in a shell's status: `SIGSEGV` for 139; None when it is an exit code."""
    if not 128 < status <= 192:
        return None
    try:
        return signal.Signals(status - 128).name
    except ValueError:
        return f"SIG{status - 128}"
