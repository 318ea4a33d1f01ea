"""What the daemon says to systemd over its notify socket, and what it asks: is this a restart or a stop?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

Job = Literal["restart", "stop"]


class Notifier:
    """The sd_notify protocol (sd_notify(3)). Without a socket in the environment every verb does nothing.

    A message that cannot be sent is dropped: systemd then decides by its timeouts, as for a daemon that hangs.
    """

    def __init__(self, environ: Mapping[str, str], monotonic: Callable[[], float]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self._monotonic = monotonic
        self.watchdog_interval = _watchdog_interval(environ) if self._address else None

    @property
    def active(self) -> bool:
        """Whether a service manager listens."""
        return self._address is not None

    def ready(self, status: str = "") -> None:
        self._send("READY=1", f"MAINPID={os.getpid()}", status=status)

    def reloading(self) -> None:
        """To be followed by `ready` when the reload is done."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(self._monotonic() * 1_000_000)}")

    def stopping(self, status: str = "") -> None:
        self._send("STOPPING=1", status=status)

    def watchdog(self) -> None:
        """To be sent at least every `watchdog_interval` seconds, when that is not None."""
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line that `systemctl status` shows."""
        self._send(status=text)

    def _send(self, *fields: str, status: str = "") -> None:
        if self._address is None:
            return
        if status:
            fields = (*fields, "STATUS=" + " ".join(status.split()))
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as s,
        ):
            s.sendto("\n".join(fields).encode(), self._address)


def _address(name: str) -> str | None:
    """A path, or an abstract name, which is written with `@` for the NUL that it begins with."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Half of what systemd allows between two signs of life, in seconds; None when it watches nobody or another."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        allowed = int(environ["WATCHDOG_USEC"])
    except (KeyError, ValueError):
        return None
    return allowed / 2_000_000 if allowed > 0 else None


def own_unit(environ: Mapping[str, str], cgroup: str | None = None) -> tuple[str, bool] | None:
    """Our unit's name and whether it is a user's; None when this process is not the main process of a service.

    `cgroup` is the text of /proc/self/cgroup, read when it is not given. SYSTEMD_EXEC_PID tells a service's main
    process from what was started by hand within a service's cgroup.
    """
    if environ.get("SYSTEMD_EXEC_PID") != str(os.getpid()):
        return None
    if cgroup is None:
        cgroup = Path("/proc/self/cgroup").read_text()
    for line in cgroup.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" or controllers == "name=systemd":
            parts = [part for part in path.split("/") if part.endswith(".service")]
            if parts and not (len(parts) == 1 and parts[0].startswith("user@")):
                return parts[-1], any(part.startswith("user@") for part in parts[:-1])
    return None


async def pending_job(environ: Mapping[str, str], timeout: float = 2.0) -> Job | None:  # noqa: ASYNC109 (it answers None)
    """What systemd is doing with our unit: a `restart` (children stay), a `stop` (also at shutdown), or neither.

    None as well when we are no service or systemctl gives no answer within `timeout` seconds.
    """
    unit = own_unit(environ)
    if unit is None:
        return None
    name, user = unit
    argv = ["systemctl", *(["--user"] if user else []), "list-jobs", "--no-legend", "--no-pager", "--plain", "--full"]

    def ask() -> str:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(argv, env=dict(environ), capture_output=True, text=True, timeout=timeout, check=False)
            return done.stdout
        return ""

    # A thread, so that a slow bus does not hold up the loop while it drains.
    return job_of(name, await asyncio.to_thread(ask))


def job_of(unit: str, listing: str) -> Job | None:
    """The unit's job in the output of `systemctl list-jobs --no-legend`: JOB UNIT TYPE STATE."""
    for line in listing.splitlines():
        columns = line.split()
        if len(columns) >= 3 and columns[1] == unit:
            if columns[2] in ("restart", "try-restart"):
                return "restart"
            if columns[2] == "stop":
                return "stop"
    return None
