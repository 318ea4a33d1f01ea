"""What a task has spent of its own budgets is kept as long as the task, and a day as long as it can be asked for."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec

from orchestr8d.clock import FakeClock
from orchestr8d.core.budgets import Budget
from orchestr8d.core.model import Usage
from orchestr8d.core.outcome import Outcome
from orchestr8d.store.sqlite import SqliteStore
from orchestr8d.store.types import Retention
from tests.store.conftest import LIMITS
from tests.store.helpers import DAY, Hand, agent


def rows(path: Path, table: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(f"SELECT * FROM {table}").fetchall()
    finally:
        db.close()


async def test_nothing_is_left_of_what_is_over(store: SqliteStore, hand: Hand, clock: FakeClock, path: Path) -> None:
    budgets = (Budget("task", 1.0, per="task"), Budget("day", 1.0, per="day"))
    store.limits = msgspec.structs.replace(LIMITS, budgets=budgets)
    created = await hand.add_all(agent())
    (claim,) = await hand.claim()
    assert len(rows(path, "reservations")) == 2
    await hand.end(claim, Outcome(status="completed", usage=Usage(cost_usd=0.5)))
    assert rows(path, "reservations") == []
    assert {(row[0], row[3], row[4]) for row in rows(path, "funds")} == {("task", 0.5, 0.0), ("day", 0.5, 0.0)}
    await store.remove([created[0].id])
    assert [row[0] for row in rows(path, "funds")] == ["day"]
    clock.advance(40 * DAY)
    await store.prune_log(Retention())
    assert rows(path, "funds") == []
