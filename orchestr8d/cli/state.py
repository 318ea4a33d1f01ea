"""Keeping a daemon from running while the database is worked on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from orchestr8d.cli import exits


@contextlib.contextmanager
def no_daemon(state: Path, database: Path) -> Iterator[None]:
    """Holds both as a daemon does. Exits when one runs there."""
    from orchestr8d.state import Held, hold

    try:
        with hold(state, database):
            yield
    except Held as held:
        exits.fail(exits.WRONG_STATE, f"{held}: stop it first")
