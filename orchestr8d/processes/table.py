"""What /proc tells about processes: one read of the table, and the marks that an attempt leaves on its own."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from typing import NamedTuple

from orchestr8d.keeper import RLIMIT_LOCKS

TICKS = os.sysconf("SC_CLK_TCK")
_GONE = (FileNotFoundError, ProcessLookupError)


class Proc(NamedTuple):
    """A process as its `stat` shows it. `start` counts clock ticks since boot: with the pid it names the process."""

    pid: int
    alive: bool
    ppid: int
    pgrp: int
    sid: int
    start: int


def read(pid: int) -> Proc | None:
    """The process, or None when we see none. OSError when it cannot be told (no file descriptor left)."""
    try:
        text = _read(pid, "stat")
    except PermissionError:
        # A /proc that hides other users' processes.
        return None
    if not text:
        return None
    # The name before it may hold spaces and parentheses.
    f = text[text.rindex(b")") + 2 :].split(None, 20)
    # A process whose first thread has ended shows Z while the other threads go on.
    alive = f[0] not in (b"Z", b"X") or int(f[17]) > 1
    return Proc(pid, alive, int(f[1]), int(f[2]), int(f[3]), int(f[19]))


def ancestors(pid: int) -> Iterator[int]:
    while pid > 1 and (proc := read(pid)) is not None:
        pid = proc.ppid
        yield pid


def snapshot() -> dict[int, Proc]:
    """All processes by pid; those that come and go meanwhile may be missing."""
    found = {}
    with os.scandir("/proc") as entries:
        pids = [int(entry.name) for entry in entries if entry.name.isdigit()]
    for pid in pids:
        if (proc := read(pid)) is not None:
            found[pid] = proc
    return found


def environment(pid: int) -> bytes | None:
    """What it was started with, `name=value` and NUL each; empty while it is being started; None if we may not see."""
    try:
        return _read(pid, "environ")
    except PermissionError:
        return None


def variable(environment: bytes | None, name: str) -> str | None:
    """The value of one variable in it."""
    text = b"\0" + (environment or b"")
    at = text.find(b"\0" + name.encode() + b"=")
    if at < 0:
        return None
    at += len(name) + 2
    return text[at : text.find(b"\0", at)].decode(errors="replace")


def command_line(pid: int) -> list[str]:
    return _read(pid, "cmdline").decode(errors="replace").split("\0")[:-1]


def locks_limits(pid: int) -> tuple[int, int]:
    """The process's soft and hard limit of file locks, where the tag is; -1 for unlimited, and where we may not ask."""
    try:
        return resource.prlimit(pid, RLIMIT_LOCKS)
    except (ProcessLookupError, PermissionError):
        return -1, -1


def _read(pid: int, name: str) -> bytes:
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
    except _GONE:
        return b""
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
            if name == "stat":
                break
        return b"".join(parts)
    except _GONE:
        return b""
    finally:
        os.close(fd)
