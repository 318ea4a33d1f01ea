"""The tables hold by themselves: no statement takes a task a way that the states do not have."""

from __future__ import annotations

import itertools
import sqlite3
from typing import Any, get_args

import msgspec
import pytest

from orchestr8d.core import admission, states
from orchestr8d.core.model import Task
from orchestr8d.core.states import BUSY, FINAL, TRANSITIONS, WAITING
from orchestr8d.store.sqlite.transaction import TASK_COLUMNS
from tests.store.helpers import new

ALL = sorted(TRANSITIONS)
MARKS = ", ".join("?" * len(Task.__struct_fields__))


def row(state: str, **more: Any) -> Task:
    """A task as it is in a state."""
    made = admission.admit(new(), admission.Facts(), f"id-{state}", 1, 1000)
    assert isinstance(made, admission.Admitted)
    return msgspec.structs.replace(made.task, **{"status": state, **needed(state), **more})


def needed(status: str) -> dict[str, Any]:
    """What a row needs in a state, and what it must not have."""
    return {
        "queued_at": 1000 if status in BUSY | {"queued", "retrying"} else None,
        "started_at": 1000 if status in BUSY | {"retrying"} else None,
        "executor_id": "x" if status in BUSY else None,
        "attempt": 1 if status in BUSY | {"retrying"} else 0,
        "completed_at": 1000 if status in FINAL else None,
        "wake_at": 2000 if status == "retrying" else None,
        "error": "{}" if status == "failed" else None,
    }


def insert(db: sqlite3.Connection, task: Task) -> None:
    db.execute(f"INSERT INTO tasks ({TASK_COLUMNS}) VALUES ({MARKS})", msgspec.structs.astuple(task))


def move(db: sqlite3.Connection, status: str, columns: dict[str, Any]) -> None:
    names = ", ".join(f"{name} = ?" for name in columns)
    db.execute(f"UPDATE tasks SET status = ?, {names}", (status, *columns.values()))


def test_the_words_are_all_in_the_table() -> None:
    assert set(get_args(states.TaskStatus)) == set(TRANSITIONS) == FINAL | WAITING | BUSY
    assert {to for ways in TRANSITIONS.values() for to in ways} <= set(TRANSITIONS)


@pytest.mark.parametrize("old", ALL)
def test_every_pair_of_states(db: sqlite3.Connection, old: str) -> None:
    for new_status in ALL:
        insert(db, row(old))
        if new_status == old or new_status in TRANSITIONS[old]:
            move(db, new_status, needed(new_status))
            assert db.execute("SELECT status FROM tasks").fetchone() == (new_status,)
        else:
            with pytest.raises(sqlite3.IntegrityError, match="no such transition"):
                move(db, new_status, needed(new_status))
            assert db.execute("SELECT status FROM tasks").fetchone() == (old,)
        db.execute("DELETE FROM tasks")


@pytest.mark.parametrize(("old", "new_status"), list(itertools.product(ALL, ALL)))
def test_core_says_the_same(old: str, new_status: str) -> None:
    if new_status in TRANSITIONS[old]:
        states.check(old, new_status)
    else:
        with pytest.raises(states.IllegalTransition):
            states.check(old, new_status)


def test_there_is_no_other_trigger(db: sqlite3.Connection) -> None:
    (sql,) = db.execute("SELECT sql FROM sqlite_schema WHERE type = 'trigger'").fetchone()
    listed = {part for part in sql.replace("'", " ").replace(",", " ").split() if ">" in part and part[0].isalpha()}
    assert listed == {f"{a}>{b}" for a, ways in TRANSITIONS.items() for b in ways}


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("queued", {"status": "unheard of"}),
    ("queued", {"queued_at": None}),
    ("queued", {"completed_at": 5}),
    ("queued", {"priority": 101}),
    ("queued", {"priority": -101}),
    ("queued", {"blockers": 1}),
    ("queued", {"paused": 1}),
    ("queued", {"wake_at": 5}),
    ("queued", {"retry_count": 1}),
    ("queued", {"attempt": -1}),
    ("queued", {"queue": None}),
    ("queued", {"created_at": "yesterday"}),
    ("pending", {"hold": "concurrency_key"}),
    ("pending", {"blockers": -1}),
    ("pending", {"paused": 2}),
    ("running", {"executor_id": None}),
    ("running", {"started_at": None}),
    ("running", {"hold": "concurrency_key"}),
    ("retrying", {"wake_at": None}),
    ("retrying", {"retry_count": 2}),
    ("failed", {"error": None}),
    ("completed", {"unique_slot": "k"}),
    *[(status, {"completed_at": None}) for status in sorted(FINAL)],
    *[(status, {"completed_at": 5}) for status in sorted(WAITING | BUSY)],
]


@pytest.mark.parametrize(("status", "wrong"), WRONG, ids=lambda value: str(value))
def test_a_row_that_cannot_be_is_refused(db: sqlite3.Connection, status: str, wrong: dict[str, Any]) -> None:
    insert(db, row(status))
    db.execute("DELETE FROM tasks")
    with pytest.raises(sqlite3.IntegrityError):
        insert(db, row(status, **wrong))


def test_a_unique_key_has_one_holder(db: sqlite3.Connection) -> None:
    insert(db, row("queued", unique_slot="k"))
    with pytest.raises(sqlite3.IntegrityError):
        insert(db, row("queued", unique_slot="k", seq=2, id="other"))


def test_an_attempt_that_ended_has_a_time(db: sqlite3.Connection) -> None:
    sql = "INSERT INTO attempts (id, task_id, number, executor_id, status, started_at, ended_at) VALUES (?,?,?,?,?,?,?)"
    db.execute(sql, ("a", "t", 1, "x", "running", 1, None))
    for wrong in (("b", "t", 1, "x", "running", 1, None), ("b", "t", 2, "x", "running", 1, 2),
                  ("b", "t", 2, "x", "failed", 1, None), ("b", "t", 0, "x", "running", 1, None),
                  ("b", "t", 2, "x", "gone", 1, 2)):  # fmt: skip
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(sql, wrong)


def test_every_table_is_strict(db: sqlite3.Connection) -> None:
    tables = [
        (name, strict)
        for _, name, kind, _, _, strict in db.execute("PRAGMA table_list")
        if kind == "table" and not name.startswith("sqlite_")
    ]
    assert len(tables) > 8
    assert [name for name, strict in tables if not strict] == []
