"""The loop that makes the tasks that follow: what their templates see, what is refused, and what is tried again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from orchestr8d.clock import FakeClock
from orchestr8d.core import endings
from orchestr8d.core.errors import Problem
from orchestr8d.core.model import NewTask, Spec
from orchestr8d.core.outcome import Outcome
from orchestr8d.core.template_work import TemplateError
from orchestr8d.events import Bus
from orchestr8d.followups import STEP, Followups
from orchestr8d.store import Store
from orchestr8d.store.sqlite import open_store
from orchestr8d.store.types import Followup, Limits
from tests.store.helpers import Hand


class Box:
    """The loop over a real store."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.store = store
        self.hand = Hand(store, clock)
        self.loop = Followups(store, self.submit)
        self.asked: list[dict[str, Any]] = []
        self.error: Exception | None = None

    async def submit(self, due: Followup, asked: dict[str, Any]) -> str | None:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        made = await self.store.follow_up(due, NewTask(spec=Spec(command=asked["command"])))
        return None if made is None else made.id

    async def end(self, task: dict[str, Any], outcome: Outcome | None = None) -> str:
        """Ends a task that asks for `task` to follow; answers its id."""
        ended = outcome or Outcome(status="completed", result=b"one\ntwo\n", result_type="text")
        return (await self.hand.finished(outcome=ended, on_completion=[{"submit": task}])).id

    async def alerts(self) -> list[str]:
        found = [event for event in await self.hand.events() if event.type == "notification.created"]
        return [msgspec.json.decode(event.data)["message"] for event in found]


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    clock = FakeClock()
    path = tmp_path / "store.db"
    store = await open_store(path, clock=clock, bus=Bus(), limits=Limits(min_free_disk=0), synchronous="OFF")
    yield Box(store, clock)
    await store.close()


def completed(body: bytes | None, kind: Any = "text") -> Outcome:
    return Outcome(status="completed", result=body, result_type=kind)


@pytest.mark.parametrize(
    ("outcome", "text", "expected"),
    [
        (completed(b"a b; rm *\n"), "{{ task.result }}", "a b; rm *"),
        (completed(b"x\n\n"), "<{{ task.result }}>", "<x\n>"),
        (completed(b'{"n": [1, "{{ task }}"]}', "json"), "{{ task.output.n }}", '[1,"{{ task }}"]'),
        (completed(b'{"n": 7}', "json"), "{{ task.output.n }}", "7"),
        (completed(b'{"n": 7}', "json"), "{{ task.result }}", '{"n": 7}'),
        (completed(b"x"), "{{ task.output }}", "null"),
        (completed(None, "file"), "{{ task.result }}", "null"),
        (completed(b"x"), "{{ task.status }} {{ task.error }}", "completed null"),
        (completed(b"\xff"), "{{ task.result }}", "�"),
    ],
)
async def test_what_templates_see(box: Box, outcome: Outcome, text: str, expected: str) -> None:
    task_id = await box.end(
        {"command": ["echo", text], "env": {"A": text}, "stdin": text, "cwd": "/{{ task.result }}",
         "options": {"title": "{{ task.result }}", "on_completion": {"submit": {"command": ["{{ task.task_id }}"]}}}},
        outcome,
    )  # fmt: skip
    assert await box.loop.run_once()
    assert box.asked == [
        {"command": ["echo", expected], "env": {"A": expected}, "stdin": expected, "cwd": "/{{ task.result }}",
         "options": {"title": "{{ task.result }}", "on_completion": {"submit": {"command": ["{{ task.task_id }}"]}}}},
    ]  # fmt: skip
    [claim] = await box.hand.claim()
    assert claim.task.read_spec().metadata == {"followup_of": task_id}
    assert await box.store.followups(0, 10) == []


async def test_a_megabyte_goes_through_and_no_more_is_seen(box: Box) -> None:
    await box.end({"command": ["cat"], "stdin": "{{ task.result }}"}, completed(b"x" * (1 << 20)))
    assert await box.loop.run_once()
    assert len(box.asked[0]["stdin"]) == 1 << 20
    await box.end({"command": ["cat"], "stdin": "{{ task.result }}{{ task.result }}!"}, completed(b"x" * (1 << 20)))
    assert await box.loop.run_once()
    assert len(box.asked) == 1
    assert len(await box.alerts()) == 1


async def test_a_template_that_fails_is_told_and_the_mark_is_gone(box: Box) -> None:
    task_id = await box.end({"command": ["echo", "{{ task.output.version }}"]})
    await box.end({"command": ["echo", "good"]})
    with capture_logs() as logs:
        assert await box.loop.run_once()
    assert [asked["command"][1] for asked in box.asked] == ["good"]
    [alert] = await box.alerts()
    assert task_id in alert
    assert "command[1]" in alert
    assert [log["log_level"] for log in logs if log.get("task_id") == task_id] == ["warning"]
    assert await box.store.followups(0, 10) == []


@pytest.mark.parametrize("error", [Problem("unprocessable", "there is no agent 'x'"), ValueError("a defect")])
async def test_one_that_is_refused_is_told_and_the_mark_is_gone(box: Box, error: Exception) -> None:
    await box.end({"command": ["true"]})
    box.error = error
    with capture_logs():
        assert await box.loop.run_once()
    [alert] = await box.alerts()
    assert str(error.detail if isinstance(error, Problem) else error) in alert
    assert await box.store.followups(0, 10) == []


@pytest.mark.parametrize("kind", ["unavailable", "rate-limited"])
async def test_what_passes_is_waited_for(box: Box, kind: Any) -> None:
    for _ in range(3 * STEP):
        await box.end({"command": ["true"]})
    await box.end({"command": ["true"], "options": {"queue": "other"}})
    box.error = Problem(kind, "not now")
    assert not await box.loop.run_once()
    # Each queue is tried, and a full one not for all that wait for it.
    assert len(box.asked) == STEP + 1
    box.error = None
    assert await box.loop.run_once()
    assert len(await box.hand.claim()) == 3 * STEP + 1
    assert await box.alerts() == []


def test_templates_of_what_follows_fail_with_their_place() -> None:
    with pytest.raises(TemplateError) as caught:
        endings.rendered({"command": ["a"], "env": {"X": "{{ task.nope }}"}}, {"result": "x"})
    assert caught.value.path == "env.X"
