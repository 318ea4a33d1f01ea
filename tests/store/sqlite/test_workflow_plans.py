"""What a workflow does at each of its steps costs what it touches: no statement walks through all of a large workflow,
or through all workflows."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.events import Bus
from orchestr8d.store.sqlite import SqliteStore, open_store
from orchestr8d.store.sqlite.writer import raw
from orchestr8d.store.types import Retention, WorkflowFilter
from tests.store.conftest import LIMITS
from tests.store.flows import Flows
from tests.store.helpers import Hand
from tests.store.sqlite.conftest import statements, writer_of

pytestmark = pytest.mark.slow

LARGE = {
    "max_parallel": 50,
    "phases": [
        {"id": "p", "tasks": [{"id": f"t{n}", "command": ["x"]} for n in range(4000)]},
        {"id": "q", "tasks": [
            {"id": "ask", "approval": "ok?", "timeout": "1d"}, {"id": "wait", "command": ["x"], "wait_for": ["go"]},
            {"id": "show", "command": ["x", "{{ tasks.t0.result }}"], "depends_on": ["t0"]},
            {"id": "fan", "command": ["x", "{{ item }}"], "for_each": "[1, 2]", "depends_on": ["ask"]}]},
    ],
}  # fmt: skip
SMALL = {"phases": [{"id": "p", "tasks": [{"id": "a", "command": ["x"]}, {"id": "b", "approval": "ok?"}]}]}
# These hold what is due or was left, and nothing else.
FEW = ("workflow_marks", "loose_ends", "valves", "queues", "json_each", "CONSTANT ROW", "tasks_busy", "nodes_due")


class Watched:
    """A store whose statements are seen, on whichever connection."""

    def __init__(self, store: SqliteStore) -> None:
        self._dbs = [raw(writer_of(store)._db), *map(raw, store._readers)]

    async def scans(self, work: Awaitable[object], path: Path) -> list[str]:
        """The walks over something whole, in what `work` does."""
        seen = [statements(db) for db in self._dbs]
        await work
        for db in self._dbs:
            db.set_trace_callback(None)
        found = []
        with sqlite3.connect(path) as plain:
            for statement in dict.fromkeys(s for one in seen for s in one):
                if not statement.startswith(("SELECT", "WITH", "UPDATE", "DELETE", "INSERT")):
                    continue
                steps = [row[3] for row in plain.execute(f"EXPLAIN QUERY PLAN {statement}")]
                found += [f"{step}: {statement}" for step in steps
                          if step.startswith(("SCAN", "USE TEMP")) and not any(few in step for few in FEW)]  # fmt: skip
        return found


@pytest.fixture
async def store(path: Path, clock: FakeClock, bus: Bus) -> AsyncIterator[SqliteStore]:
    made = await open_store(path, clock=clock, bus=bus, limits=LIMITS, synchronous="OFF")
    yield made
    await made.close()


async def test_no_statement_walks_through_everything(
    store: SqliteStore, path: Path, clock: FakeClock, tmp_path: Path
) -> None:
    f = Flows(Hand(store, clock), tmp_path)
    for _ in range(200):
        await f.add(SMALL)
    large = await f.add(LARGE)
    watched = Watched(store)
    await f.claim()

    async def steps() -> Any:
        yield "ends", f.end("t0")
        yield "fails", f.end("t1", "exit")
        yield "claims", f.claim()
        yield "signal", store.send_signal(large, "go", 1)
        yield "approval", store.answer_approval(large, "ask", True, "yes")
        yield "fan", f.turn()
        clock.advance(1)
        yield "turn", f.turn()
        yield "node", store.node_of(f.running["t2"].task.id)
        yield "pause", store.pause_workflow(large)
        yield "resume", store.resume_workflow(large)
        for wanted in (WorkflowFilter(status=("running",)), WorkflowFilter(name="w"), WorkflowFilter(user_id="u")):
            yield "list", store.workflows(wanted, 20, None)
        yield "expired", store.expired_workflow(Retention({"completed": 1.0}))

    found = {name: seen async for name, work in steps() if (seen := await watched.scans(work, path))}
    assert found == {}
