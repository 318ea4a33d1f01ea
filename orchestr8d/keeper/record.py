"""The exit file of a command: who it is, in which boot, and in the end how it ended and what that took.

It is filled before the command starts, and what comes later is written over that: on a full disk there is room to
overwrite, none to write. Lines of a fixed width: status, pid, CPU seconds and peak bytes, boot.
"""

from __future__ import annotations

import os

_UNWRITTEN = "..."
_PID_AT, _PID = 4, 10
_USAGE_AT, _USAGE = 15, 40
LONGEST = 256


def fill(path: str, boot: str) -> None:
    """Make the file, closed to others. FileExistsError when anything is in its place."""
    text = f"{_UNWRITTEN}\n{'':{_PID}}\n{'':{_USAGE}}\n{boot}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def begun(path: str, pid: int) -> None:
    _over(path, f"{pid:{_PID}}", _PID_AT)


def ended(path: str, status: int) -> None:
    """`status` as a shell has it."""
    _over(path, f"{status:03}", 0)


def used(path: str, cpu_seconds: float, max_rss_bytes: int) -> None:
    _over(path, f"{cpu_seconds:.6f} {max_rss_bytes}".ljust(_USAGE)[:_USAGE], _USAGE_AT)


def parse(text: bytes) -> tuple[int | None, int | None, tuple[float, int] | None, str]:
    """Status, pid, usage and boot; None (or empty) is what nobody wrote, or what somebody made illegible."""
    status, pid, usage, boot = [*text.decode(errors="replace").split("\n"), "", "", "", ""][:4]
    cpu, _, rss = usage.strip().partition(" ")
    whole, _, part = cpu.partition(".")
    return (
        _number(status) if len(status) == 3 else None,
        _number(pid.strip()),
        None if _number(whole) is None or _number(part) is None or _number(rss) is None else (float(cpu), int(rss)),
        boot,
    )


def _number(word: str) -> int | None:
    """None for what is none, or too long to be one of ours."""
    return int(word) if word.isdecimal() and word.isascii() and len(word) < 18 else None


def _over(path: str, text: str, position: int) -> None:
    # The command may have put something else in its place: that is not waited for and not made longer.
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.pwrite(fd, text.encode(), position)
    finally:
        os.close(fd)
