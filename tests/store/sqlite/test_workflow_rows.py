"""What becomes of the rows of workflows: long cascades go in steps, and what is past its keep goes as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core.outcome import Outcome
from orchestr8d.maintenance import Pruner
from orchestr8d.processes.files import attempt_files
from orchestr8d.store.sqlite import SqliteStore, closing, graph
from orchestr8d.store.types import Retention
from tests.store.flows import Flows, check_flows, phase
from tests.store.helpers import Hand, check
from tests.store.sqlite.conftest import writer_of

TABLES = (
    "workflows", "workflow_texts", "workflow_nodes", "workflow_edges", "signals", "signal_waits", "workflow_marks",
    "workflow_tags", "tasks", "task_tags", "attempts", "results", "funds", "reservations", "archive",
)  # fmt: skip
SUBS = {"agent": "phases: [{id: p, tasks: [{id: paid, agent: a, prompt: go}]}]"}


@pytest.fixture
async def flows(hand: Hand, tmp_path: Path) -> AsyncIterator[Flows]:
    yield Flows(hand, tmp_path, SUBS)
    await check_flows(hand.store)
    await check(hand.store)


@pytest.mark.parametrize("end", ["completed", "exit", "cancel"])
async def test_long_cascades_go_in_steps(flows: Flows, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(graph, "STEP", 4)
    monkeypatch.setattr(closing, "_STEP", 4)
    names = [f"t{n}" for n in range(20)]
    tasks = [{"id": n, "command": ["x", "{{ item }}"], "for_each": "[1, 2]", "depends_on": ["first"]} for n in names]
    later = {"id": "q", "depends_on": ["p"], "tasks": [{"id": f"u{n}", "command": ["x"]} for n in range(10)]}
    w = await flows.add({"phases": [{"id": "p", "tasks": [{"id": "first", "command": ["x"]}, *tasks]}, later]})
    (claim,) = await flows.hand.claim()
    if end == "cancel":
        await flows.store.cancel_workflow(w)
    await flows.hand.end(claim, "cancelled" if end == "cancel" else end)
    done = [state for name, state in (await flows.states(w)).items() if name[0] in "tu" and state != "waiting"]
    assert len(done) < 30
    # Whoever comes in between changes nothing.
    await flows.store.send_signal(w, "hello", None)
    ran = await flows.run()
    assert len(ran) == (50 if end == "completed" else 0)
    wanted = {"completed": "completed", "exit": "cut", "cancel": "cancelled"}[end]
    assert {state for name, state in (await flows.states(w)).items() if name[0] in "tu"} == {wanted}


async def test_it_goes_with_all_that_belongs_to_it(
    flows: Flows, clock: FakeClock, tmp_path: Path, store: SqliteStore
) -> None:
    parts = ("id: a, workflow: agent", "id: b, command: [x], tags: [t], wait_for: [go]", "id: held, wait_for: [never], "
             "command: [x], on_failure: continue, wait_timeout: 5s")  # fmt: skip
    w = await flows.add(phase(*parts), max_cost_usd=9.0, tags=["t"])
    await flows.store.send_signal(w, "go", 1)
    keep = Retention({"completed": 100.0, "failed": 0.0})
    await flows.run({"paid": Outcome(status="completed", result_type="text", result=b"x")})
    clock.advance(200)
    # Neither what is not over, nor a part of that, nor a task of either.
    assert (await flows.store.expired_workflow(keep), await flows.store.expired(keep)) == (None, [])
    await flows.turn()
    assert await flows.status(w) == "completed"
    clock.advance(100)
    assert await flows.store.expired_workflow(keep) is None
    clock.advance(1)
    found = await flows.store.expired_workflow(keep)
    assert found is not None
    assert (found.workflow_id, len(found.attempt_ids)) == (w, 1)
    (tmp_path / "values" / w).mkdir(parents=True)
    (tmp_path / "values" / w / "long.txt").write_text("…")
    await Pruner(flows.store, lambda: keep, lambda a: attempt_files(tmp_path, a), tmp_path / "values").run_once()
    assert not (tmp_path / "values" / w).exists()
    left = await writer_of(store).do(
        lambda tx: {table: tx.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}
    )
    assert left == dict.fromkeys(TABLES, 0) | {"archive": 2}
    assert (await flows.store.archived(w)).status == "completed"
