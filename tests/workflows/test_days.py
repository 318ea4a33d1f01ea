"""A research of eight days, with the daemon's store and engine begun anew on each of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core import definition
from orchestr8d.core.definition import Bounds
from orchestr8d.core.outcome import Outcome
from orchestr8d.core.workflow import FINAL, NewWorkflow
from orchestr8d.store.types import Claim, NoticeFilter
from orchestr8d.templates import Templates
from tests.workflows.lives import ME, POLICY, World

pytestmark = pytest.mark.slow

DAY = 86_400
HOUR = 3600


def answer(schema: Mapping[str, Any]) -> Any:
    """The least that a schema takes; of lists two items."""
    kind = schema.get("type", "string")
    if kind == "object":
        return {name: answer(of) for name, of in schema["properties"].items()}
    if kind == "array":
        return [answer(schema["items"])] * 2
    return {"string": "a text", "integer": 234, "number": 1.5, "boolean": True}[kind]


def said(claim: Claim) -> Outcome:
    """How an agent ends that does what it is asked."""
    agent = claim.task.read_spec().agent
    schema = None if agent is None else agent.json_schema
    if schema is None:
        return Outcome(status="completed", result=b"done", result_type="summary", exit_code=0)
    return Outcome(status="completed", result=json.dumps(answer(schema)).encode(), result_type="json", exit_code=0)


async def settle(world: World) -> None:
    """Everything that can happen at this moment does."""
    while True:
        await world.engine.run_once(world.clock.now())
        claims = (await world.store.claim(ME, 100)).claims
        if not claims:
            return
        for claim in claims:
            await world.store.finish(claim.task.id, claim.attempt.id, ME, said(claim))


async def test_updates_come_on_the_days_one_three_seven_and_eight(tmp_path: Path) -> None:
    params = {"question": "Which agents will there be?", "pace": "days"}
    raw = Templates(lambda: (), None).get("research")
    found = definition.check(raw, params, POLICY, Bounds())
    assert found.faults == []
    new = NewWorkflow(name="research", definition=found.definition, drafts=found.drafts, params=found.params)
    clock = FakeClock()
    world = await World.open(tmp_path, clock)
    workflow_id = (await world.store.add_workflow(new, lambda w: w.id.encode()))[0].decode()
    for _ in range(9):
        for _ in range(0, DAY, 6 * HOUR):
            await settle(world)
            clock.advance(6 * HOUR)
        await world.close()
        world = await World.open(tmp_path, clock)
    ended = await world.store.workflow(workflow_id)
    assert (ended.status in FINAL, ended.status) == (True, "completed")
    assert ended.started_at is not None and ended.completed_at is not None

    def day(at: int) -> int:
        return (at - (ended.started_at or 0)) // (DAY * 1000) + 1

    milestones = [(day(one["at"]), one["text"]) for one in json.loads(ended.milestones)]
    assert milestones == [
        (1, "Literature review started (234 sources found)"),
        (3, "Initial analysis complete (key trends identified)"),
        (7, "Draft report ready for review"),
        (8, "Research complete, ready for presentation"),
    ]
    assert day(ended.completed_at) == 8
    told = await world.store.notices(NoticeFilter(types=["milestone", "update"]), 100, None)
    assert [(day(n.created_at), n.message) for n in reversed(told) if n.type == "milestone"] == milestones
    # The periodic word comes once a day, however often the daemon was begun anew.
    assert [day(n.created_at) for n in reversed(told) if n.type == "update"] == [2, 3, 4, 5, 6, 7, 8]
    assert len(await world.store.archive("agents", 10, None)) == 1
    await world.close()
