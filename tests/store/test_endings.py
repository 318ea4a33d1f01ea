"""What a task asked for its end: notices, callbacks and tasks that follow, in the transaction of the end, and once."""

from __future__ import annotations

import msgspec
import pytest

from orchestr8d.core.errors import Problem
from orchestr8d.core.model import NewTask, Spec, Task
from orchestr8d.core.outcome import Outcome
from orchestr8d.events import Bus
from orchestr8d.store.types import NoticeFilter, Retention
from tests.store.conftest import LIMITS, Make
from tests.store.helpers import DAY, Hand, agent, ids, new

NEXT = {"submit": {"command": ["echo", "{{ task.result }}"]}}


async def told(hand: Hand) -> list[tuple[str, str | None]]:
    """The notices so far: type and task."""
    events = [event for event in await hand.events() if event.type == "notification.created"]
    return [(msgspec.json.decode(event.data)["notification_type"], event.task_id) for event in events]


def due(task: Task, new_task: NewTask | None = None) -> NewTask:
    return new_task or NewTask(spec=Spec(command=["echo", "x"], metadata={"a": 1}), user_id="else")


@pytest.mark.parametrize(
    ("said", "outcome", "expected"),
    [
        ([], "completed", []),
        (["notification"], "completed", ["task_complete"]),
        ([], "not_found", ["task_failure"]),
        (["notification", NEXT], "not_found", ["task_failure"]),
        (["notification", NEXT], "cancelled", []),
    ],
)
async def test_who_is_told_of_an_end(hand: Hand, said: list[object], outcome: str, expected: list[str]) -> None:
    task = await hand.finished(outcome=outcome, on_completion=said)
    assert await told(hand) == [(kind, task.id) for kind in expected]
    assert await hand.store.followups(0, 10) == []


async def test_what_is_told_of_an_end_has_no_secrets(hand: Hand) -> None:
    command = ["curl", "-H", "Authorization: Bearer abcdefgh", "https://me:hunter2@a.org/"]
    await hand.end(await hand.start(await hand.add(*command, max_retries=0)), "exit")
    [notice] = await hand.store.notices(NoticeFilter(), 10, None)
    assert notice.title == "curl -H Authorization: Bearer [redacted] https://me:[redacted]@a.org/ failed"
    assert notice.message.startswith(f"{notice.title}: ")


async def test_only_what_there_is_to_do_is_hinted(hand: Hand, bus: Bus) -> None:
    hints: list[str] = []
    bus.observe_work("followups", lambda: hints.append("followup"))
    bus.observe_work("notices", lambda: hints.append("notice"))
    await hand.finished()
    assert hints == []
    await hand.finished(on_completion=[NEXT])
    assert hints == ["followup"]
    await hand.finished(outcome="not_found", on_completion=[NEXT])
    assert hints == ["followup", "notice"]


async def test_a_retry_is_no_end(hand: Hand, *, seconds: float = 5) -> None:
    task = await hand.add(max_retries=1)
    await hand.end(await hand.start(task), "exit")
    assert (await hand.status(task), await told(hand)) == ("retrying", [])
    hand.clock.advance(seconds)
    await hand.end(await hand.start(task), "exit")
    assert await told(hand) == [("task_failure", task.id)]


async def test_on_failure_callback_does_not_retry(hand: Hand) -> None:
    options = {"max_retries": 5, "on_failure": "callback", "callback_url": "http://localhost:1/"}
    assert (await hand.finished(outcome="exit", **options)).status == "failed"


async def test_every_way_to_fail_is_told_once(hand: Hand) -> None:
    first = await hand.add("a")
    second = await hand.add("b", depends_on=[first.id])
    third = await hand.add("c", depends_on=[second.id])
    late = await hand.add("d", deadline=5.0, delay=100.0)
    await hand.end(await hand.start(first), "exit")
    born = await hand.add("e", depends_on=[first.id])
    assert await hand.status(born) == "failed"
    hand.clock.advance(10)
    await hand.claim(0)
    expected = [("task_failure", task.id) for task in (first, second, third, late, born)]
    assert sorted(await told(hand)) == sorted(expected)


async def test_a_long_cascade_is_told_once_of_each(hand: Hand) -> None:
    first = await hand.add("a")
    others = await hand.add_all(*[new(depends_on=[first.id]) for _ in range(1500)])
    await hand.end(await hand.start(first), "exit")
    while await hand.next_due() is not None:
        pass
    found = [task_id for _, task_id in await told(hand)]
    assert sorted(found) == sorted([first.id, *[task.id for task in others]])  # type: ignore[type-var]


async def test_what_follows_is_made_once_with_its_user(hand: Hand) -> None:
    task = await hand.finished(on_completion=[NEXT, "notification", NEXT], user_id="ann")
    first, second = await hand.store.followups(0, 10)
    assert [(f.task_id, f.position, f.asked) for f in (first, second)] == [
        (task.id, 0, NEXT["submit"]), (task.id, 1, NEXT["submit"]),
    ]  # fmt: skip
    assert await hand.store.followups(first.seq, 10) == [second]
    made = await hand.store.follow_up(first, due(task))
    assert made is not None
    assert (made.user_id, made.read_spec().metadata) == ("ann", {"a": 1, "followup_of": task.id})
    assert await hand.store.follow_up(first, due(task)) is None
    assert await hand.store.followups(0, 10) == [second]
    assert len(await hand.store.queues()) == 1
    assert (await hand.store.queues())[0].depth == 1


async def test_one_that_is_refused_keeps_its_mark_until_it_is_dropped(hand: Hand) -> None:
    task = await hand.finished(on_completion=[NEXT], user_id="ann")
    [mark] = await hand.store.followups(0, 10)
    with pytest.raises(Problem):
        await hand.store.follow_up(mark, due(task, new(depends_on=["nope"])))
    assert await hand.store.followups(0, 10) == [mark]
    await hand.store.drop_followup(mark, "no such task")
    await hand.store.drop_followup(mark, "no such task")
    assert await hand.store.followups(0, 10) == []
    assert await told(hand) == [("alert", task.id)]


async def test_a_chain_ends_with_an_alert(hand: Hand) -> None:
    task = await hand.finished(on_completion=[NEXT], follows=99)
    [mark] = await hand.store.followups(0, 10)
    last = await hand.store.follow_up(mark, due(task, new(on_completion=[NEXT])))
    assert last is not None
    assert last.read_spec().follows == 100
    await hand.end(await hand.start(last))
    assert await hand.store.followups(0, 10) == []
    assert await told(hand) == [("alert", last.id)]


async def test_a_task_is_kept_while_something_is_to_follow(hand: Hand) -> None:
    task = await hand.finished(on_completion=[NEXT])
    hand.clock.advance(2 * DAY)
    retention = Retention(tasks={"completed": DAY})
    assert await hand.store.expired(retention) == []
    [mark] = await hand.store.followups(0, 10)
    await hand.store.follow_up(mark, due(task))
    assert [one.task_id for one in await hand.store.expired(retention)] == [task.id]


async def test_marks_are_there_after_a_restart(make_store: Make) -> None:
    from orchestr8d.clock import FakeClock

    store = await make_store("a", LIMITS)
    hand = Hand(store, FakeClock())
    task = await hand.finished(on_completion=[NEXT])
    await store.close()
    store = await make_store("a", LIMITS)
    [mark] = await store.followups(0, 10)
    assert mark.task_id == task.id


async def test_an_end_that_is_undone_leaves_nothing(hand: Hand) -> None:
    """A finish by somebody else fails after whatever it did."""
    task = await hand.add(on_completion=["notification", NEXT])
    claim = await hand.start(task)
    with pytest.raises(Exception, match="not other's"):
        await hand.end(claim, executor_id="other")
    assert (await told(hand), await hand.store.followups(0, 10)) == ([], [])
    await hand.end(claim, Outcome(status="completed", result=b"x", result_type="text"))
    assert await told(hand) == [("task_complete", task.id)]


async def test_retry_and_continue_keep_what_was_asked(hand: Hand) -> None:
    one = agent(on_completion=["notification", NEXT], callback_url="http://localhost:1/", callback_method="PUT")
    [task] = (await hand.store.submit([one], ids)).tasks
    await hand.end(await hand.start(task), "denied")
    again = (await hand.store.retry(task.id, ids)).tasks[0].read_spec()
    assert (again.on_completion, again.callback_url, again.callback_method) == (
        ["notification", NEXT], "http://localhost:1/", "PUT",
    )  # fmt: skip
