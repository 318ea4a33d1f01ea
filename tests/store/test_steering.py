"""What a person does with a task: pause, resume, edit, cancel, retry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core import admission
from orchestr8d.core.errors import Problem
from orchestr8d.core.model import NewTask, Task
from orchestr8d.core.states import FINAL
from tests.store.conftest import LIMITS, Make
from tests.store.helpers import Hand, ids, once


def to(**fields: Any) -> Callable[[Task], NewTask]:
    """An edit; fields of Spec and of NewTask alike."""

    def change(task: Task) -> NewTask:
        made = admission.as_new(task)
        spec = {name: fields[name] for name in fields if hasattr(made.spec, name)}
        head = {name: fields[name] for name in fields if name not in spec}
        return msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, **spec), **head)

    return change


async def in_state(hand: Hand, state: str) -> Task:
    """A task that is in `state`."""
    if state == "pending":
        return await hand.add(delay=60.0)
    if state == "queued":
        return await hand.add()
    if state == "running":
        return (await hand.start(await hand.add())).task
    if state == "retrying":
        return await hand.finished(outcome="exit", max_retries=1)
    if state == "cancelled":
        return await hand.store.cancel((await hand.add()).id)
    return await hand.finished(outcome={"completed": "completed", "failed": "exit"}[state])


STATES = ["pending", "queued", "running", "retrying", "completed", "failed", "cancelled"]


async def refused(call: Any) -> None:
    with pytest.raises(Problem) as caught:
        await call
    assert caught.value.kind == "conflict"


# -- pause and resume


@pytest.mark.parametrize("state", STATES)
async def test_only_what_is_pending_or_queued_can_be_paused(hand: Hand, state: str) -> None:
    task = await in_state(hand, state)
    if state not in ("pending", "queued"):
        await refused(hand.store.pause(task.id))
        assert await hand.status(task) == state
        return
    paused = await hand.store.pause(task.id)
    assert (paused.status, paused.paused) == ("pending", 1)
    assert "paused" in await hand.waits(task)
    await refused(hand.store.pause(task.id))
    assert await hand.claim() == []
    resumed = await hand.store.resume(task.id)
    assert resumed.status == state
    await refused(hand.store.resume(task.id))


@pytest.mark.parametrize("state", STATES)
async def test_only_what_is_paused_can_be_resumed(hand: Hand, state: str) -> None:
    await refused(hand.store.resume((await in_state(hand, state)).id))


async def test_a_time_that_passes_during_a_pause_has_passed(hand: Hand, clock: FakeClock) -> None:
    task = await hand.add(delay=60.0)
    await hand.store.pause(task.id)
    clock.advance(59)
    assert (await hand.store.resume(task.id)).status == "pending"
    await hand.store.pause(task.id)
    clock.advance(1)
    await hand.claim()
    clock.advance(100)
    assert (await hand.store.resume(task.id)).status == "queued"
    await hand.start(task)


async def test_resumed_just_when_its_time_came(hand: Hand, clock: FakeClock) -> None:
    task = await hand.add(delay=60.0)
    await hand.store.pause(task.id)
    clock.advance(60)
    resumed = await hand.store.resume(task.id)
    assert (resumed.status, resumed.wake_at, resumed.queued_at) == ("queued", None, clock.now())


async def test_a_resumed_task_goes_to_the_end_of_its_line(hand: Hand, clock: FakeClock) -> None:
    first = await hand.add("first")
    await hand.add("second")
    await hand.store.pause(first.id)
    clock.advance(1)
    await hand.store.resume(first.id)
    assert await hand.names() == ["second", "first"]


async def test_an_interrupted_task_can_be_paused(hand: Hand) -> None:
    task = await hand.end(await hand.start(await hand.add(concurrency_key="k")), "interrupted")
    await hand.store.pause(task.id)
    assert await hand.claim() == []
    await hand.store.resume(task.id)
    assert (await hand.start(task)).attempt.number == 2


# -- edit


@pytest.mark.parametrize("state", STATES)
async def test_only_what_waits_can_be_edited(hand: Hand, state: str) -> None:
    task = await in_state(hand, state)
    if state not in ("pending", "queued", "retrying"):
        await refused(hand.store.edit(task.id, to(priority=5)))
        return
    assert (await hand.store.edit(task.id, to(priority=5))).priority == 5
    if state == "retrying":
        assert (await hand.store.edit(task.id, to(max_retries=3))).read_spec().max_retries == 3
        for used in ({"command": ["b"]}, {"queue": "b"}, {"delay": 5.0}, {"run_at": 1 << 42}, {"concurrency_key": "b"}):
            await refused(hand.store.edit(task.id, to(**used)))
    else:
        assert (await hand.store.edit(task.id, to(command=["b"]))).read_spec().command == ["b"]


@pytest.mark.parametrize(
    "fields",
    [
        {"command": ["other", "words"]}, {"cwd": "/tmp"}, {"env": {"A": "1"}}, {"stdin": "x"}, {"title": "T"},
        {"timeout": 5.0}, {"stall_timeout": 5.0}, {"max_retries": 3}, {"on_failure": "fail"}, {"check": ["c"]},
        {"tags": ["x", "y"]}, {"metadata": {"a": 1}}, {"priority": -3}, {"queue": "b"}, {"concurrency_key": "k"},
        {"backoff": admission.Spec().backoff}, {"deadline": 60.0},
    ],
    ids=lambda fields: next(iter(fields)),
)  # fmt: skip
async def test_each_field_can_be_edited(hand: Hand, fields: dict[str, Any]) -> None:
    task = await hand.add()
    await hand.store.edit(task.id, to(**fields))
    edited = await hand.store.task(task.id)
    made = admission.as_new(edited)
    for name, value in fields.items():
        assert getattr(made.spec if hasattr(made.spec, name) else made, name) == value
    # Whatever else it says is as it was.
    assert admission.as_new(task) == msgspec.structs.replace(
        made,
        spec=task.read_spec(), queue=task.queue, priority=task.priority, concurrency_key=task.concurrency_key,
    )  # fmt: skip
    assert (await hand.start(task)).task.read_spec() == made.spec


async def test_what_an_edit_refuses_changes_nothing(hand: Hand) -> None:
    task = await hand.add()

    def change(row: Task) -> NewTask:
        raise Problem("invalid", "no")

    with pytest.raises(Problem, match="no"):
        await hand.store.edit(task.id, change)
    assert await hand.store.task(task.id) == task


async def test_priority_and_queue_move_it_in_line(hand: Hand, clock: FakeClock) -> None:
    for name in "abc":
        clock.advance(1)
        await hand.add(name)
    third = await hand.add("d")
    await hand.store.edit(third.id, to(priority=1))
    assert await hand.names(1) == ["d"]
    await hand.store.put_queue("slow", {"paused": True})
    moved = await hand.add("e", queue="slow")
    assert await hand.waits(moved) == ["queue_paused"]
    await hand.store.edit(moved.id, to(queue="default"))
    assert await hand.names() == ["a", "b", "c", "e"]
    depths = {queue.name: queue.depth for queue in await hand.store.queues()}
    assert depths == {"default": 0, "slow": 0}


async def test_a_full_queue_takes_no_edited_task(make_store: Make, clock: FakeClock) -> None:
    hand = Hand(await make_store(limits=msgspec.structs.replace(LIMITS, queue_depth=1)), clock)
    await hand.add(queue="full")
    task = await hand.add()
    with pytest.raises(Problem) as caught:
        await hand.store.edit(task.id, to(queue="full"))
    assert caught.value.kind == "rate-limited"
    assert (await hand.store.edit(task.id, to(priority=3))).queue == "default"


async def test_a_changed_key_frees_and_takes(hand: Hand) -> None:
    first, second = await hand.add("first", concurrency_key="k"), await hand.add("second", concurrency_key="k")
    other = await hand.add("other")
    assert await hand.waits(second) == ["concurrency_key"]
    await hand.store.edit(first.id, to(concurrency_key="l"))
    assert await hand.waits(second) == ["slot"]
    await hand.store.edit(other.id, to(concurrency_key="l"))
    assert await hand.waits(other) == ["concurrency_key"]
    await hand.store.edit(other.id, to(concurrency_key=None))
    assert sorted(await hand.names()) == ["first", "other", "second"]


async def test_a_time_can_be_moved_set_and_taken_away(hand: Hand, clock: FakeClock) -> None:
    task = await hand.add(run_at=clock.now() + 60_000)
    sooner = await hand.store.edit(task.id, to(run_at=clock.now() + 5_000))
    assert (sooner.status, sooner.wake_at, sooner.wake_is_delay) == ("pending", clock.now() + 5_000, 0)
    assert await hand.next_due() == clock.now() + 5_000
    delayed = await hand.store.edit(task.id, to(delay=10.0))
    assert (delayed.wake_at, delayed.wake_is_delay) == (clock.now() + 10_000, 1)
    clock.advance(5)
    # Another edit leaves it alone; a delay counts from its own edit.
    assert (await hand.store.edit(task.id, to(title="t"))).wake_at == delayed.wake_at
    assert (await hand.store.edit(task.id, to(delay=10.0))).wake_at == clock.now() + 10_000
    gone = await hand.store.edit(task.id, to(run_at=None))
    assert (gone.status, gone.wake_at) == ("queued", None)
    back = await hand.store.edit(task.id, to(delay=1.0))
    assert (back.status, back.queued_at, await hand.waits(task)) == ("pending", None, ["time"])
    assert (await hand.store.edit(task.id, to(delay=0.0))).status == "queued"
    past = await hand.store.edit(task.id, to(run_at=clock.now() - 1))
    assert past.status == "queued"
    await hand.start(task)


async def test_a_deadline_counts_from_the_submit(hand: Hand, clock: FakeClock) -> None:
    task = await hand.add(deadline=60.0)
    clock.advance(30)
    assert (await hand.store.edit(task.id, to(deadline=90.0))).deadline_at == clock.now() + 60_000
    assert (await hand.store.edit(task.id, to(deadline=None))).deadline_at is None
    await hand.store.edit(task.id, to(deadline=20.0))
    await hand.claim()
    assert (await hand.store.task(task.id)).read_error() is not None
    assert await hand.status(task) == "failed"


async def test_an_edit_keeps_a_pause(hand: Hand) -> None:
    task = await hand.add(delay=60.0)
    await hand.store.pause(task.id)
    edited = await hand.store.edit(task.id, to(delay=0.0, title="t"))
    assert (edited.status, edited.paused) == ("pending", 1)
    assert await hand.waits(task) == ["paused"]


# -- cancel


@pytest.mark.parametrize("state", STATES)
async def test_cancel_in_each_state(hand: Hand, state: str) -> None:
    task = await in_state(hand, state)
    if state in FINAL:
        await refused(hand.store.cancel(task.id))
        assert await hand.store.task(task.id) == task
        return
    cancelled = await hand.store.cancel(task.id)
    if state != "running":
        assert cancelled.status == "cancelled"
        assert (await hand.story(task))[-1] == "cancelled"
        return
    assert cancelled.cancel_requested_at is not None
    assert cancelled.status == "running"
    assert (await hand.store.cancel(task.id)).cancel_requested_at == cancelled.cancel_requested_at
    (claim,) = await hand.store.running()
    ended = await hand.end(claim, "signal")
    assert (ended.status, (await hand.store.attempts(task.id))[0].status) == ("cancelled", "cancelled")


async def test_a_running_one_is_told_of(hand: Hand, bus: Any) -> None:
    told: list[str] = []
    bus.observe_cancels(told.extend)
    waiting, claim = await hand.add(delay=1.0), await hand.start(await hand.add())
    await hand.store.cancel(waiting.id)
    await hand.store.cancel(claim.task.id)
    await hand.store.cancel(claim.task.id)
    assert told == [claim.task.id] * 2


@pytest.mark.parametrize("outcome", ["exit", "interrupted", "timeout", "cancelled"])
async def test_a_cancel_that_was_asked_for_wins_over_retries(hand: Hand, outcome: str) -> None:
    claim = await hand.start(await hand.add(max_retries=5))
    await hand.store.cancel(claim.task.id)
    assert (await hand.end(claim, outcome)).status == "cancelled"


async def test_unknown_tasks_are_not_found(hand: Hand) -> None:
    store = hand.store
    for call in (
        store.cancel("no"), store.pause("no"), store.resume("no"), store.edit("no", to()), store.retry("no", ids),
        store.task("no"), store.view("no"), store.attempts("no"), store.result("no"),
    ):  # fmt: skip
        with pytest.raises(Problem) as caught:
            await call
        assert caught.value.kind == "not-found"


# -- retry


@pytest.mark.parametrize("state", STATES)
async def test_a_failed_or_cancelled_task_can_be_made_again(hand: Hand, state: str) -> None:
    task = await in_state(hand, state)
    if state not in ("failed", "cancelled"):
        await refused(hand.store.retry(task.id, ids))
        return
    created = await hand.store.retry(task.id, ids)
    again = await hand.store.task(created.tasks[0].id)
    assert again.id != task.id
    assert (again.retry_of, again.retry_count, again.attempt, again.status) == (task.id, 0, 0, "queued")
    assert again.read_spec() == task.read_spec()
    assert await hand.store.task(task.id) == task
    await hand.end(await hand.start(again))


async def test_a_retry_is_admitted_like_a_submit(hand: Hand, clock: FakeClock) -> None:
    task = await hand.add(
        "x", unique_key="u", concurrency_key="c", queue="q", priority=3, user_id="ann", tags=["t", "t"], deadline=60.0
    )
    await hand.store.cancel(task.id)
    holder = await hand.add(unique_key="u")
    await refused(hand.store.retry(task.id, ids, once("k")))
    await hand.store.cancel(holder.id)
    clock.advance(3600)
    again = (await hand.store.retry(task.id, ids, once("k"))).tasks[0]
    assert again.deadline_at == clock.now() + 60_000
    for name in ("unique_key", "concurrency_key", "queue", "priority", "user_id"):
        assert getattr(again, name) == getattr(task, name)


async def test_a_retry_waits_for_what_is_not_over(hand: Hand) -> None:
    failed, running = await hand.add("failed"), await hand.add("running")
    task = await hand.add(depends_on=[failed.id, running.id])
    claims = await hand.claim()
    await hand.end(claims[0], "exit")
    assert await hand.status(task) == "failed"
    again = (await hand.store.retry(task.id, ids)).tasks[0]
    assert again.read_spec().depends_on == [running.id]
    await hand.end(claims[1])
    assert await hand.status(again) == "queued"
