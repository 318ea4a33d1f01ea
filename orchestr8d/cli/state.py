"""The lock of the state directory: whether a daemon runs there, and keeping one from starting meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from orchestr8d.cli import exits


def daemon_pid(state: Path) -> int | None:
    """The pid of the daemon that holds the state directory; None when nobody does."""
    try:
        with (state / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read().strip() or 0)
    except (OSError, ValueError):
        return None
    return None


@contextlib.contextmanager
def no_daemon(state: Path) -> Iterator[None]:
    """Holds the state directory as a daemon does. Exits when one runs there."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read().strip()
            exits.fail(exits.WRONG_STATE, f"a daemon (pid {pid}) serves {state}: stop it first")
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield
