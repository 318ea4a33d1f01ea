"""What random lives came upon: each once more, step by step, a real store beside the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestr8d.store.sqlite import graph
from tests.workflows.lives import Life, World, come_by, follow
from tests.workflows.making import complete


def phase(name: str, *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": name, "tasks": list(tasks), **more}


def task(name: str, *needs: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "command": ["true"], "depends_on": list(needs), **more}


def again(name: str, most: int = 1) -> dict[str, Any]:
    return {"retry_phase": name, "max": most}


def fan(name: str, *needs: str, items: str = "params.two", **more: Any) -> dict[str, Any]:
    return task(name, *needs, for_each=items, **more)


ROLLBACK = {"on_failure": [{"id": "r", "command": ["true"]}]}
NOT_TO_BE_TOLD = "params.text.nothing"

# phases, more of the definition, events, the status at the end.
STORIES: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str, str]] = {
    "cut off by two ways at once": (
        [phase("p", task("a")), phase("q", task("z", "p"), depends_on=["p"])], {}, "a failed", "failed",
    ),
    "a cancel cuts nobody off": (
        [phase("p", task("a"), task("b", wait_for=["go"]), task("c", "b"))], {}, "cancel\na cancelled", "cancelled",
    ),
    "nor does one that comes while a task waits to have its phase run again": (
        [phase("p", task("a", on_failure=again("p")), task("b", "a"), task("c"))], {},
        "a failed\ncancel\nc cancelled", "cancelled",
    ),
    "a fan that is tried again is cancelled before it begins": (
        [phase("p", task("a", on_failure="continue"), fan("f", "a"))], {},
        "a failed\nf.0 failed\nf.1 completed\nretry\ncancel\na cancelled", "cancelled",
    ),
    "no phase begins after a cancel": (
        [phase("p", task("a")), phase("q", task("b"), depends_on=["p"]), phase("x", task("c"))], {},
        "cancel\na completed\nc cancelled", "cancelled",
    ),
    "rollback is not cancelled with the rest": (
        [phase("p", task("a"), task("b", "a"), task("c", "b"), fan("f"))], {**ROLLBACK, "on_cancel": "rollback"},
        "cancel\na cancelled\nf.0 completed\nf.1 cancelled\nr completed", "cancelled",
    ),
    "what waited for the end of a pause runs after it": (
        [phase("p", task("a"), task("b", "a"))], {}, "pause\na completed\nresume\nb completed", "completed",
    ),
    "rollback runs after the cancel of what is paused": (
        [phase("p", task("a", wait_for=["go"]))], {**ROLLBACK, "on_cancel": "rollback"},
        "pause\ncancel\nr completed", "cancelled",
    ),
    "what has ended in a pause runs when it is retried": (
        [phase("p", task("a"))], ROLLBACK, "a failed\npause\nr completed\nretry\na completed", "completed",
    ),
    "an approval waits for no room": (
        [phase("p", task("a"), task("b", "a"), {"id": "c", "approval": "?", "depends_on": ["a"]}, max_parallel=1)], {},
        "pause\na completed\nresume\nc approved\nb completed", "completed",
    ),
    "who asks for a phase that comes before another's has it run again": (
        [phase("q", task("c", on_failure=again("q")), task("d", "a", on_failure=again("p"))), phase("p", task("a"))],
        {}, "a completed\nc failed\nd failed\na completed\nc completed\nd completed", "completed",
    ),
    "who asks for something else waits for nobody": (
        [phase("p", task("a", on_failure=again("p")), task("b")), phase("q", task("c", on_failure=again("q")))], {},
        "a failed\nc failed\nc completed\nb completed\na completed\nb completed", "completed",
    ),
    "a phase that has not begun does not begin by another's round": (
        [phase("p", task("a"), task("b", on_failure=again("p"))), phase("r", task("slow")),
         phase("q", task("c", "a"), depends_on=["r"])], {},
        "a completed\nb failed\na completed\nb completed\nslow completed\nc completed", "completed",
    ),
    "what is skipped with its phase is not run by another's round": (
        [phase("p", task("a"), task("b", on_failure=again("p"))), phase("q", task("c", "a"), when="params.no")], {},
        "a completed\nb failed\na completed\nb completed", "completed",
    ),
    "a phase that is about to begin has its run before the next round": (
        [phase("p", task("a")), phase("q", task("b", on_failure=again("p")), depends_on=["p"]),
         phase("x", task("c")), phase("r", task("d"), depends_on=["p", "x"], when="params.yes")], {},
        "a completed\nc completed; b failed\nd completed\na completed\nb completed\nd completed", "completed",
    ),
    "a fan that is about to begin has its run before the next round": (
        [phase("p", task("a", on_failure=again("p")), task("b"), fan("f", "b"))], {},
        "b completed; a failed\nf.0 completed\nf.1 completed\na completed\nb completed\nf.0 completed\nf.1 completed",
        "completed",
    ),
    "the last of a fan's children ends when its fan is to run again": (
        [phase("p", task("a", on_failure=again("p")), task("b"), fan("f", "b", when=NOT_TO_BE_TOLD)),
         phase("q", task("c"), depends_on=["p"])], {},
        "a failed\nb completed\na completed\nb completed", "failed",
    ),
    "a retry keeps the order of phases": (
        [phase("p", task("a", on_failure="continue")), phase("q", task("b"), depends_on=["p"])], {},
        "a failed\nb failed\nretry\na completed\nb completed", "completed",
    ),
    "a phase whose tasks were cut off before it began is failed": (
        [phase("p", task("a")), phase("r", task("b")), phase("q", task("c", "a"), depends_on=["r"], when="params.yes")],
        {}, "a failed\nb completed", "failed",
    ),
    "a phase without tasks is skipped, where its condition says so": (
        [phase("p", task("a")), phase("q", depends_on=["p"], when="params.no")], {}, "a completed", "completed",
    ),
    "a condition that cannot be told is a failure": (
        [phase("p", task("a"), when=NOT_TO_BE_TOLD), phase("q", task("b"))], {"fail_fast": True}, "", "failed",
    ),
    "the first failure cuts off before it cancels": (
        [phase("p", task("a"), task("b", "a"), task("c")), phase("q", task("d"), depends_on=["p"])],
        {"fail_fast": True}, "a failed\nc cancelled", "failed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("step", [graph.STEP, 1])
async def test_stories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """`step`: how much is done in one transaction, as in a workflow of thousands."""
    monkeypatch.setattr(graph, "STEP", step)
    world = await World.open(tmp_path)
    try:
        for name, (phases, more, story, end) in STORIES.items():
            try:
                model = await follow(world, {"phases": phases, **more}, story)
            except Exception as error:
                raise AssertionError(f"{name}: {error}") from error
            assert model.status == end, name
    finally:
        await world.close()


async def test_what_a_fan_gives(tmp_path: Path) -> None:
    """In the order of the items, null where a child failed, whatever that had said."""
    world = await World.open(tmp_path)
    try:
        raw = {"phases": [phase("p", fan("f", items="params.four", when="index != 2", on_failure="continue"))]}
        model = await follow(world, raw, 'f.3 completed [3]\nf.0 failed [0]\nf.1 completed ["1"]')
        assert model.tasks["f"].output == [None, ["1"], None, [3]]
        (body,) = world.db.execute(
            "SELECT r.body FROM results r JOIN tasks t ON t.id = r.task_id WHERE t.local_id = 'f'"
        ).fetchone()
        assert json.loads(body) == [None, ["1"], None, [3]]
    finally:
        await world.close()


async def test_a_report_that_comes_late(tmp_path: Path) -> None:
    """One of a workflow that was retried meanwhile takes nobody else's place."""
    world = await World.open(tmp_path)
    try:
        one, other = (Life(world, complete({"phases": [phase("p", task("a"))]}), seed) for seed in (1, 2))
        for life in (one, other):
            await life.begin()
        await come_by(world, [one, other], {one.id: one, other.id: other})
        await one.told("a failed")
        (late,) = await world.store.marks(0, 10)
        await one.told("retry")
        await other.told("a failed")
        left = await world.store.marks(0, 10)
        await world.store.keep_report(late, "of a workflow that runs again")
        assert [mark.workflow_id for mark in left] == [other.id]
        assert await world.store.marks(0, 10) == left
    finally:
        await world.close()
