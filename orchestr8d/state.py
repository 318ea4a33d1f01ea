"""The state directory and the database in it are held by one program at a time, and closed to other users."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

_TRIES = 10
# Seconds.
_PAUSE = 0.03


class Held(Exception):
    """Another program holds `what`; `pid` is what it wrote into the lock."""

    def __init__(self, what: Path, pid: str) -> None:
        super().__init__(f"a daemon (pid {pid}) holds {what}")
        self.what = what
        self.pid = pid


@contextlib.contextmanager
def hold(state: Path, database: Path) -> Iterator[None]:
    """Holds both until the end of the block; the kernel gives them back however we end. Raises Held.

    The database has a lock of its own: another state directory's configuration may name the same file.
    """
    state.mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    with _lock(state / "lock", state), _lock(database.with_name(database.name + ".lock"), database):
        yield


@contextlib.contextmanager
def _lock(path: Path, what: Path) -> Iterator[None]:
    with path.open("a+") as f:
        if not _taken(f.fileno()):
            f.seek(0)
            raise Held(what, f.read().strip() or "unknown")
        f.truncate(0)
        f.write(f"{os.getpid()}\n")
        f.flush()
        yield


def _taken(fd: int) -> bool:
    """Tried for a moment: a child of a killed daemon that is about to become its program holds what that held."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_PAUSE)
    return False


def holder(state: Path) -> int | None:
    """The pid of the program that holds the state directory; None when nobody does."""
    try:
        with (state / "lock").open() as f:
            try:
                fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(f.read().strip() or 0)
    except (OSError, ValueError):
        return None
    return None
