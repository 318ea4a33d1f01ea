"""Workflows in a store: what holds them up, what they wait for, how they end, what they cost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core import workflow_progress
from orchestr8d.core.errors import Problem
from orchestr8d.core.outcome import Outcome
from orchestr8d.events import Bus
from orchestr8d.store.types import WorkflowFilter
from tests.store.conftest import Make
from tests.store.flows import Flows, check_flows, phase
from tests.store.helpers import Hand, check
from tests.store.test_budgets import cost, short

SUBS = {
    "sub": "phases: [{id: p, tasks: [{id: x, command: [x]}, {id: ask, approval: ok?, depends_on: [x]}]}]",
    "mid": "phases: [{id: p, tasks: [{id: y, workflow: sub}]}]",
    "agent": "phases: [{id: p, tasks: [{id: paid, agent: a, prompt: go}]}]",
}


@pytest.fixture
async def flows(make_store: Make, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Flows]:
    """Whatever a test does to it, what holds always is checked at the end."""
    store = await make_store()
    yield Flows(Hand(store, clock), tmp_path, SUBS)
    await check_flows(store)
    await check(store)


def chain(length: int) -> dict[str, Any]:
    tasks = [{"id": f"t{n}", "command": ["x"], "depends_on": [f"t{n - 1}"] if n else []} for n in range(length)]
    return {"phases": [{"id": "p", "tasks": tasks}]}


async def statuses(flows: Flows) -> list[str]:
    """Of all workflows, the first one first."""
    return [w.status for w in await flows.store.workflows(WorkflowFilter(), 100, None)][::-1]


# -- ends


async def test_a_cancel_cancels_what_waits_and_cuts_nobody_off(flows: Flows) -> None:
    first = phase("id: s, approval: ok?", *[f"id: {n}, command: [x], depends_on: [{m}]" for m, n in ("sa", "ab")])
    w = await flows.add(f"{first}\n  - {{id: q, depends_on: [p], tasks: [{{id: c, command: [x]}}]}}")
    await flows.store.cancel_workflow(w)
    await flows.turn()
    assert set((await flows.states(w)).values()) == {await flows.status(w)} == {"cancelled"}


async def test_a_cancel_waits_for_what_runs_in_sub_workflows(flows: Flows) -> None:
    w = await flows.add(phase("id: a, workflow: mid", "id: b, command: [x], depends_on: [a]"))
    assert await flows.claim() == ["x"]
    await flows.store.cancel_workflow(w)
    await flows.turn()
    assert await statuses(flows) == ["running"] * 3
    await flows.end("x", "cancelled")
    assert await statuses(flows) == ["cancelled"] * 3
    assert await flows.error(w, "a") == "cancelled"


async def test_a_sub_workflow_that_is_cancelled_by_itself_fails_its_task(flows: Flows) -> None:
    w = await flows.add(phase("id: a, workflow: sub"))
    (sub, _) = await flows.store.workflows(WorkflowFilter(), 2, None)
    await flows.store.cancel_workflow(sub.id)
    await flows.turn()
    assert (await statuses(flows), await flows.error(w, "a")) == (["failed", "cancelled"], "dependency_failed")


async def test_two_that_are_late_at_once_end_once(flows: Flows, clock: FakeClock) -> None:
    w = await flows.add(phase(*[f"id: {n}, approval: ok?, timeout: 10s" for n in "ab"], fail_fast="true"))
    clock.advance(20)
    await flows.turn()
    assert await flows.states(w) == {"p": "cancelled", "a": "failed", "b": "cancelled"}


async def test_only_a_tasks_own_failure_is_told(flows: Flows) -> None:
    """And a long way of those that it cuts off is no deep one."""
    w = await flows.add(chain(400))
    await flows.claim()
    await flows.end("t0", "exit")
    assert await flows.error(w, "t399") == "dependency_failed"
    assert (await flows.notices()).count("task_failure") == 2


async def test_a_retry_after_the_deadline_has_none(flows: Flows, clock: FakeClock) -> None:
    w = await flows.add(phase("id: a, command: [x]"), deadline=60.0)
    clock.advance(60)
    await flows.claim()
    assert await flows.error(w, "a") == "deadline"
    await flows.store.retry_workflow(w, None)
    assert (await flows.run(), await flows.status(w)) == (["a"], "completed")


# -- room, signals, time


async def test_what_is_about_to_run_takes_room(flows: Flows) -> None:
    """Templates are rendered meanwhile."""
    w = await flows.add(phase("id: a, for_each: '[1, 2, 3, 4, 5]', max_parallel: 2, command: [x, '{{ item }}']"))
    assert await flows.claim() == ["a.0", "a.1"]
    await flows.store.pause_workflow(w)
    await flows.end("a.0")
    assert await flows.claim() == []
    await flows.store.resume_workflow(w)
    assert await flows.claim() == ["a.2"]
    await flows.run()
    assert await flows.status(w) == "completed"


async def test_the_end_of_a_task_is_a_signal(flows: Flows) -> None:
    w = await flows.add(phase(
        "id: a, command: [x], callback_url: /internal/one", "id: b, command: [x], on_completion: two",
        "id: f, for_each: '[1, 2]', command: [x, '{{ item }}'], callback_url: /webhook/three",
        "id: z, wait_for: [one, two, three], "
        "command: [x, '{{ signals.one.status }} {{ signals.two.result }} {{ signals.three.output }}'], "
        "depends_on: [b], on_failure: continue",
    ))  # fmt: skip
    await flows.claim()
    await flows.end("b", b"said\n")
    await flows.end("f.0", b"1")
    await flows.end("f.1", b"2")
    await flows.end("a", "exit")
    assert await flows.claim() == ["z"]
    assert flows.running["z"].task.read_spec().command == ["x", "failed said [1,2]"]
    await flows.end("z")
    # It never waited for a person.
    assert "blocker" not in await flows.notices()
    assert await flows.status(w) == "failed"


async def test_signals_are_kept_and_the_last_one_counts(flows: Flows, clock: FakeClock) -> None:
    w = await flows.add(phase(
        "id: a, wait_for: [x, y], command: [x, '{{ signals.x }}']",
        "id: late, depends_on: [a], wait_for: [x], command: [x, '{{ signals.x }}']",
        "id: t, wait_for: [z], wait_timeout: 10s, command: [x], on_failure: continue",
        "id: w, wait_for: [x], when: signals.x == 2, command: [x]",
    ))  # fmt: skip
    assert await flows.status(w) == "blocked"
    for name, payload in (("x", 1), ("x", 2), ("y", None)):
        await flows.store.send_signal(w, name, payload)
        await flows.turn()
    assert (await flows.states(w))["w"] == "skipped"
    assert await flows.claim() == ["a"]
    await flows.store.send_signal(w, "x", "three")
    await flows.end("a")
    assert await flows.claim() == ["late"]
    commands = [c.task.read_spec().command for c in flows.running.values()]
    assert commands == [["x", "three"]]
    clock.advance(10)
    await flows.run()
    assert (await flows.error(w, "t"), await flows.status(w)) == ("timeout", "completed")


async def test_an_approval_is_answered_once(flows: Flows, clock: FakeClock) -> None:
    w = await flows.add(phase(
        "id: a, approval: go?", "id: b, approval: ok?, depends_on: [a]", "id: r, approval: ok?",
        "id: c, approval: ok?, timeout: 10s, on_timeout: approve", "id: e, command: [x]",
        "id: d, command: [x, '{{ tasks.a.result }}, {{ tasks.c.result }}'], depends_on: [a, c]",
    ))  # fmt: skip
    for name, why in (("b", "not asked for yet"), ("e", "no approval"), ("nope", "there is no task")):
        with pytest.raises(Problem, match=why):
            await flows.store.answer_approval(w, name, True, None)
    await flows.store.answer_approval(w, "a", True, "fine")
    await flows.store.answer_approval(w, "r", False, "no")
    for name in ("a", "r"):
        with pytest.raises(Problem, match="already"):
            await flows.store.answer_approval(w, name, True, None)
    await flows.turn()
    assert (await flows.store.answer_approval(w, "b", True, None)).result is None
    clock.advance(10)
    await flows.claim()
    assert flows.running["d"].task.read_spec().command == ["x", "fine, null"]
    await flows.run()
    assert (await flows.error(w, "r"), await flows.status(w)) == ("rejected", "failed")


async def test_a_fan_of_the_rollback(flows: Flows) -> None:
    """It is over like any other, and the workflow with it; after a retry once more."""
    rollback = "[{id: f, for_each: workflow.failed, command: [x]}, {id: z, command: [x]}]"
    w = await flows.add(phase("id: a, command: [x]", "id: b, command: [x]", on_failure=rollback))
    for _ in range(2):
        await flows.claim()
        await flows.end("a", "exit")
        if "b" in flows.running:
            await flows.end("b", "exit")
        assert (await flows.run(), await flows.status(w)) == (["f.0", "f.1", "z"], "failed")
        await flows.store.retry_workflow(w, None)
    assert (await flows.run(), await flows.status(w)) == (["a", "b"], "completed")


async def test_a_cancel_stops_a_long_rollback(flows: Flows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it takes several transactions."""
    monkeypatch.setattr("orchestr8d.store.sqlite.graph.STEP", 2)
    monkeypatch.setattr("orchestr8d.store.sqlite.closing._STEP", 2)
    rollback = "[{id: f, for_each: '[1, 2, 3, 4, 5, 6, 7, 8]', command: [x]}]"
    w = await flows.add(phase("id: a, command: [x]", on_failure=rollback))
    await flows.claim()
    await flows.end("a", "exit")
    await flows.store.cancel_workflow(w)
    assert (await flows.run(), await flows.status(w)) == ([], "cancelled")


async def test_a_result_that_is_in_a_file_only(flows: Flows, tmp_path: Path) -> None:
    seen = "command: [x, '{{ tasks.a.result|length }}', '{{ tasks.a.result_file }}']"
    await flows.add(phase("id: a, command: [x]", f"id: b, depends_on: [a], {seen}"))
    await flows.claim()
    file = tmp_path / flows.running["a"].attempt.id
    file.write_text("a long text\n")
    await flows.end("a", Outcome(status="completed", exit_code=0, result_type="file"))
    await flows.claim()
    assert flows.running["b"].task.read_spec().command == ["x", "11", str(file)]
    await flows.run()


async def test_the_engine_is_told_when_reports_begin_to_be_due(flows: Flows, bus: Bus) -> None:
    """Though nothing of the workflow is to be decided."""
    told: list[None] = []
    bus.observe_work("workflows", lambda: told.append(None))
    w = await flows.add(phase("id: a, command: [x]", report_every="1s"))
    assert len(told) == 1
    await flows.claim()
    await flows.end("a", "exit")
    told.clear()
    await flows.store.retry_workflow(w, None)
    assert told


async def test_what_is_counted_from_survives_a_set_clock(flows: Flows, clock: FakeClock) -> None:
    w = await flows.add(phase(
        "id: a, command: [x], not_before: +6d", "id: s, command: [x]",
        "id: b, command: [x], depends_on: [s], not_before: s+2h", "id: ask, approval: ok?",
        "id: late, command: [x], depends_on: [ask], not_before: +1d",
    ))  # fmt: skip
    assert await flows.run() == ["s"]
    clock.step(86_400 * 7)
    assert await flows.claim() == []
    clock.advance(7199)
    clock.step(-86_400 * 9)
    assert await flows.claim() == []
    clock.advance(1)
    assert await flows.run() == ["b"]
    # Told after the clock was set: a day after a start that is as long ago as it is.
    await flows.store.answer_approval(w, "ask", True, None)
    clock.advance(86_400 - 7200 - 1)
    assert await flows.run() == []
    clock.advance(1)
    assert await flows.run() == ["late"]
    clock.advance(86_400 * 5)
    assert await flows.run() == ["a"]


async def test_a_workflow_is_blocked_by_what_blocks_its_parts(flows: Flows) -> None:
    w = await flows.add(phase("id: a, workflow: mid", "id: b, command: [x]"))
    await flows.claim()
    await flows.end("x")
    assert await statuses(flows) == ["running", "blocked", "blocked"]
    await flows.end("b")
    assert await statuses(flows) == ["blocked"] * 3
    await flows.store.pause_workflow(w)
    assert await statuses(flows) == ["paused"] * 3
    await flows.store.resume_workflow(w)
    assert await statuses(flows) == ["blocked"] * 3
    inner, middle, _ = await flows.store.workflows(WorkflowFilter(), 3, None)
    told = [workflow_progress.waiting_for(await flows.view(one)) for one in (w, middle.id, inner.id)]
    assert [why.name for (why,) in told] == ["a", "y", "ask"]
    assert [(why.kind, why.id) for (why,) in told[:2]] == [("workflow_task", middle.id), ("workflow_task", inner.id)]
    await flows.store.answer_approval(inner.id, "ask", True, "yes")
    await flows.turn()
    assert await statuses(flows) == ["completed"] * 3
    result = next(v.result for v in (await flows.view(w)).tasks if v.node.id == "a")
    assert result == b'{"y":{"x":null,"ask":"yes"}}'


# -- a person and single tasks


async def test_single_tasks_of_a_workflow(flows: Flows) -> None:
    w = await flows.add(phase(
        "id: a, command: [x]", "id: q, approval: ok?", "id: b, command: [x], depends_on: [q]",
        "id: f, for_each: '[1]', command: [x, '{{ item }}'], depends_on: [q]",
    ))  # fmt: skip
    tasks = {v.node.id: v.task.id for v in (await flows.view(w)).tasks if v.task is not None}
    for name in ("q", "f"):
        with pytest.raises(Problem, match="runs nothing itself"):
            await flows.store.pause(tasks[name])
    with pytest.raises(Problem, match="definition says what"):
        await flows.store.edit(tasks["b"], lambda task: pytest.fail("it is not asked"))
    await flows.store.pause(tasks["b"])
    assert await flows.run({"a": "exit"}) == ["a"]
    with pytest.raises(Problem, match=f"{w}/retry"):
        await flows.store.retry(tasks["a"], lambda _: b"")
    await flows.store.answer_approval(w, "q", True, None)
    assert await flows.run() == ["f.0"]
    await flows.store.resume(tasks["b"])
    assert (await flows.run(), await flows.status(w)) == (["b"], "failed")


# -- money


async def test_a_maximum_over_all_agents(flows: Flows) -> None:
    w = await flows.add(phase(
        "id: a, agent: a, prompt: go", "id: s, workflow: agent, depends_on: [a]",
        "id: b, agent: a, prompt: go, depends_on: [s]", "id: c, agent: a, prompt: go, depends_on: [b]",
    ), max_cost_usd=4.0)  # fmt: skip
    await flows.add(phase("id: other, agent: a, prompt: go"))
    assert set(await flows.claim()) == {"a", "other"}
    assert flows.running["other"].attempt.cap_usd is None
    await flows.end("other", cost(100.0))
    for name in ("a", "paid", "b"):
        assert 0 < flows.running[name].attempt.cap_usd <= 4
        await flows.end(name, cost(4 / 3))
        await flows.claim()
    assert (await flows.error(w, "c"), await flows.status(w)) == ("budget", "failed")


async def test_those_at_once_share_the_maximum(flows: Flows) -> None:
    """And go on where what was set aside for them was too little."""
    w = await flows.add(phase("id: a, for_each: '[1, 2, 3]', agent: a, prompt: '{{ item }}'"), max_cost_usd=1.0)
    spent = 0.0
    while await flows.claim() or flows.running:
        caps = {name: claim.attempt.cap_usd for name, claim in flows.running.items()}
        assert spent + sum(caps.values()) <= 1 + 1e-9
        spent += sum(caps.values())
        for name, cap in caps.items():
            await flows.end(name, short(cap))
    assert spent == pytest.approx(1.0)
    assert {await flows.error(w, f"a.{n}") for n in range(3)} == {"budget"}


# -- what is kept


async def test_what_a_daemon_left_is_done_by_the_next(make_store: Make, clock: FakeClock, tmp_path: Path) -> None:
    first = await make_store()
    new = Flows(Hand(first, clock), tmp_path).new(phase("id: a, command: [x, '{{ workflow.name }}'], milestone: there"))
    body, _ = await first.add_workflow(new, lambda made: made.id.encode())
    assert len(await first.due_nodes(10)) == 1  # evaluated, but the answer is lost
    await first.close()
    second = await make_store()
    flows = Flows(Hand(second, clock), tmp_path)
    assert await flows.claim() == ["a"]
    await flows.hand.end(flows.running.pop("a"))
    await second.close()
    third = await make_store()
    flows = Flows(Hand(third, clock), tmp_path)
    await flows.turn()
    await flows.turn()
    assert '"text":"there"' in (await flows.head(body.decode())).milestones
    assert (await flows.notices()).count("milestone") == 1
    assert (await third.archived(body.decode())).status == "completed"
