"""A started command as the event loop sees it: a process and the future of its end."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass

from orchestr8d.core.model import Resources
from orchestr8d.keeper import record
from orchestr8d.processes import table
from orchestr8d.processes.files import Files, read

# Seconds between two looks at a dead process that its keeper has not taken in yet, and until that is given up.
_FIRST_PAUSE, _LONGEST_PAUSE, _GIVE_UP = 0.001, 0.1, 30.0


@dataclass(frozen=True)
class Record:
    """A command's exit file: None is what was not written (yet). `boot` names the one in which it was started."""

    status: int | None = None
    pid: int | None = None
    resources: Resources | None = None
    boot: str = ""


@dataclass(frozen=True)
class Exit:
    """How a command ended: its status as a shell has it (128 + n: ended by signal n), None when nobody recorded it.

    `left` is False when it is certain that no process of its attempt is left.
    """

    status: int | None
    resources: Resources | None = None
    left: bool = True


@dataclass(frozen=True)
class Child:
    """The running command of an attempt, the leader of a session of its own; `exited` is done when it has ended.

    `age` is how many seconds it ran before we knew it; None when it is our own.
    """

    attempt_id: str
    pid: int
    files: Files
    exited: asyncio.Future[Exit]
    age: float | None = None


class Watch:
    """Sees the end of a process through a pidfd: of one that no keeper of ours tells us about."""

    def __init__(self, pid: int, files: Files, exited: asyncio.Future[Exit]) -> None:
        """Raises OSError when there is no descriptor to watch it by, ProcessLookupError when it is gone."""
        self._pid = pid
        self._files = files
        self._exited = exited
        self._loop = asyncio.get_running_loop()
        self._fd: int | None = os.pidfd_open(pid)
        self._loop.add_reader(self._fd, self._dead)

    def release(self) -> None:
        """Stop watching; the process goes on."""
        if self._fd is not None:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def _dead(self) -> None:
        self.release()
        collect(self._pid, self._files, self._exited)


def collect(pid: int, files: Files, exited: asyncio.Future[Exit]) -> None:
    """The status of a dead command: its own if it is ours, as its keeper was killed; else what that (soon) recorded."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _GIVE_UP

    def look(pause: float) -> None:
        if exited.done():
            return
        late = loop.time() >= until
        try:
            result = _ending(pid, files, late)
        except OSError:
            # No descriptor to look with.
            result = Exit(None) if late else None
        # What it took is recorded a moment after it was taken in.
        unmeasured = result is not None and result.status is not None and result.resources is None
        if result is None or (unmeasured and pause < _LONGEST_PAUSE):
            loop.call_later(pause, look, min(pause * 2, _LONGEST_PAUSE))
        else:
            exited.set_result(result)

    look(_FIRST_PAUSE)


def _ending(pid: int, files: Files, late: bool) -> Exit | None:
    """None when its keeper has not taken it in yet, unless it is too late to wait for that."""
    try:
        ours, status, usage = os.wait4(pid, os.WNOHANG)
    except ChildProcessError:
        ours = 0
    if ours:
        resources = Resources(round(usage.ru_utime + usage.ru_stime, 6), usage.ru_maxrss * 1024)
        code = os.waitstatus_to_exitcode(status)
        return Exit(code if code >= 0 else 128 - code, resources)
    proc = table.read(pid)
    if proc is not None and not proc.alive and not late:
        return None
    found = recorded(files)
    return Exit(found.status, found.resources)


def recorded(files: Files) -> Record:
    """What the keeper wrote of the command that these files are of."""
    status, pid, usage, boot = record.parse(read(files.exit, record.LONGEST))
    return Record(status, pid, None if usage is None else Resources(*usage), boot)


def signal_of(status: int) -> str | None:
    """The signal's name in a shell's status: `SIGSEGV` for 139; None when it is an exit code."""
    if not 128 < status <= 192:
        return None
    try:
        return signal.Signals(status - 128).name
    except ValueError:
        return f"SIG{status - 128}"
