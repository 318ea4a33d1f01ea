"""The states of a task and the only ways between them, as data; stores enforce the same table in SQL."""

from __future__ import annotations

from typing import Final, Literal

TaskStatus = Literal[
    "pending", "queued", "running", "needs_input", "retrying", "parked", "completed", "failed", "cancelled", "skipped"
]
AttemptStatus = Literal["running", "completed", "failed", "interrupted", "parked", "cancelled"]

FINAL: Final[frozenset[str]] = frozenset({"completed", "failed", "cancelled", "skipped"})
WAITING: Final[frozenset[str]] = frozenset({"pending", "queued", "retrying", "parked"})
BUSY: Final[frozenset[str]] = frozenset({"running", "needs_input"})

# from -> to; `pending`, `queued` and the final states are also where a new task may begin (see START).
TRANSITIONS: Final[dict[str, frozenset[str]]] = {
    "pending": frozenset({"queued", "skipped", "failed", "completed", "cancelled"}),
    "queued": frozenset({"running", "pending", "parked", "failed", "cancelled"}),
    "running": frozenset({"completed", "failed", "cancelled", "retrying", "parked", "needs_input", "queued"}),
    "needs_input": frozenset({"running", "parked", "failed", "cancelled"}),
    "retrying": frozenset({"queued", "failed", "cancelled"}),
    "parked": frozenset({"queued", "failed", "cancelled"}),
    "completed": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
    "skipped": frozenset(),
}
START: Final[frozenset[str]] = frozenset({"pending", "queued"})


class IllegalTransition(Exception):
    """A programming error: a decision asked for a way that the table does not have."""


def check(old: str, new: str) -> None:
    if new not in TRANSITIONS[old]:
        raise IllegalTransition(f"{old} -> {new}")
