"""Submits: all or none, once only, one per key, not before their time."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core.errors import Problem
from orchestr8d.store import Store
from tests.store.conftest import LIMITS, Make
from tests.store.helpers import Hand, check, every, ids, new, once


async def test_a_task_is_stored_as_it_was_submitted(hand: Hand, clock: FakeClock) -> None:
    given = new(
        "make", "test", cwd="/srv", env={"CI": "1"}, stdin="in", title="Tests", timeout=60.0, deadline=3600.0,
        stall_timeout=5.0, max_retries=2, tags=["a", "b"], metadata={"pr": [1, None]}, check=["true"],
        priority=7, user_id="ann", concurrency_key="repo", queue="builds",
    )  # fmt: skip
    created = await hand.store.submit([given], ids)
    task = await hand.store.task(created.tasks[0].id)
    assert task.read_spec() == given.spec
    assert (task.kind, task.status, task.queue, task.priority) == ("command", "queued", "builds", 7)
    assert (task.user_id, task.concurrency_key, task.attempt, task.retry_count) == ("ann", "repo", 0, 0)
    assert task.created_at == task.updated_at == task.queued_at == clock.now()
    assert task.deadline_at == clock.now() + 3_600_000
    assert created.body == task.id.encode()
    assert not created.replayed
    assert not created.existing
    assert await hand.story(task) == ["created", "queued"]


async def test_ids_are_of_the_time_and_lists_are_of_the_order(hand: Hand, clock: FakeClock) -> None:
    tasks = await hand.add_all(*[new() for _ in range(20)])
    assert len({task.id for task in tasks}) == 20
    assert {int(task.id.replace("-", "")[:12], 16) for task in tasks} == {clock.now()}
    assert [view.task.id for view in await every(hand.store)] == [task.id for task in tasks]


async def test_a_batch_is_stored_whole_or_not_at_all(hand: Hand) -> None:
    await hand.add(unique_key="k")
    with pytest.raises(Problem) as caught:
        await hand.add_all(new(), new(queue="other", tags=["x"]), new(unique_key="k"), new())
    assert caught.value.kind == "conflict"
    assert [fault.path for fault in caught.value.faults] == ["tasks[2]"]
    assert len(await every(hand.store)) == 1
    assert len(await hand.events()) == 2
    after = await hand.add()
    assert [view.task.id for view in await every(hand.store)][1:] == [after.id]


async def test_a_failed_batch_replaces_nobody(hand: Hand) -> None:
    holder = await hand.add(unique_key="k")
    with pytest.raises(Problem):
        await hand.add_all(new(unique_key="k", on_conflict="replace"), new(unique_key="k"))
    assert await hand.store.task(holder.id) == holder


async def test_all_unknown_dependencies_are_named(hand: Hand) -> None:
    known = await hand.add()
    with pytest.raises(Problem) as caught:
        await hand.add(depends_on=["nope", known.id, "neither"])
    assert (caught.value.kind, caught.value.status) == ("unprocessable", 422)
    assert [fault.path for fault in caught.value.faults] == ["options.depends_on[0]", "options.depends_on[2]"]
    with pytest.raises(Problem) as caught:
        await hand.add_all(new(), new(depends_on=["nope"]), new(depends_on=[known.id, "neither"]))
    assert [fault.path for fault in caught.value.faults] == [
        "tasks[1].options.depends_on[0]", "tasks[2].options.depends_on[1]",
    ]  # fmt: skip


async def test_a_full_queue_refuses(make_store: Make, clock: FakeClock) -> None:
    hand = Hand(await make_store(limits=msgspec.structs.replace(LIMITS, queue_depth=3)), clock)
    first = await hand.add()
    await hand.add(delay=60.0, unique_key="k")
    with pytest.raises(Problem) as caught:
        await hand.add_all(new(), new())
    assert (caught.value.kind, caught.value.status) == ("rate-limited", 429)
    assert caught.value.retry_after is not None
    assert caught.value.faults[0].path == "tasks[1]"
    await hand.add_all(new(), new(queue="other"))
    with pytest.raises(Problem):
        await hand.add()
    # What stands for an existing task adds nothing.
    assert (await hand.store.submit([new(unique_key="k", on_conflict="existing")], ids)).existing
    await hand.start(first)
    await hand.add()
    await check(hand.store)


async def test_a_full_disk_refuses_and_claims_nothing(make_store: Make, clock: FakeClock) -> None:
    store = await make_store()
    hand = Hand(store, clock)
    task = await hand.add()
    store.limits = msgspec.structs.replace(LIMITS, min_free_disk=1 << 60)
    with pytest.raises(Problem) as caught:
        await hand.add()
    assert (caught.value.kind, caught.value.status) == ("unavailable", 503)
    assert await hand.claim() == []
    store.limits = LIMITS
    await hand.start(task)


# -- idempotency


async def test_the_same_request_gets_the_first_answer(hand: Hand) -> None:
    first = await hand.store.submit([new()], ids, once("k"))
    again = await hand.store.submit([new()], lambda tasks: b"another", once("k"))
    assert again.replayed
    assert again.body == first.body
    assert len(await every(hand.store)) == 1


async def test_another_body_under_the_same_key_is_refused(hand: Hand) -> None:
    await hand.store.submit([new()], ids, once("k"))
    with pytest.raises(Problem) as caught:
        await hand.store.submit([new("other")], ids, once("k", "another digest"))
    assert caught.value.kind == "conflict"
    assert len(await every(hand.store)) == 1


async def test_keys_are_per_scope(hand: Hand) -> None:
    await hand.store.submit([new()], ids, once("k"))
    assert not (await hand.store.submit([new()], ids, once("k", scope="another"))).replayed
    assert len(await every(hand.store)) == 2


async def test_twins_in_flight_make_one_task(hand: Hand) -> None:
    created = await asyncio.gather(*[hand.store.submit([new()], ids, once("k")) for _ in range(20)])
    assert len({c.body for c in created}) == 1
    assert sum(not c.replayed for c in created) == 1
    assert len(await every(hand.store)) == 1


async def test_a_request_that_failed_may_be_tried_again(hand: Hand) -> None:
    holder = await hand.add(unique_key="k")
    with pytest.raises(Problem):
        await hand.store.submit([new(unique_key="k")], ids, once("key"))
    await hand.store.cancel(holder.id)
    assert not (await hand.store.submit([new(unique_key="k")], ids, once("key"))).replayed


async def test_a_failing_answer_leaves_nothing(hand: Hand) -> None:
    def answer(tasks: object) -> bytes:
        raise ValueError("cannot be rendered")

    with pytest.raises(ValueError, match="cannot be rendered"):
        await hand.store.submit([new(), new()], answer, once("k"))
    assert await every(hand.store) == []
    assert await hand.events() == []
    assert not (await hand.store.submit([new()], ids, once("k"))).replayed


async def test_a_retry_may_be_sent_twice(hand: Hand) -> None:
    task = await hand.finished(outcome="exit")
    first = await hand.store.retry(task.id, ids, once("r"))
    again = await hand.store.retry(task.id, ids, once("r"))
    assert (first.replayed, again.replayed) == (False, True)
    assert again.body == first.body


# -- unique keys


async def test_one_unfinished_task_per_unique_key(hand: Hand) -> None:
    holder = await hand.add(unique_key="k", delay=10.0)
    for state in ("pending", "queued", "running"):
        assert await hand.status(holder) == state
        with pytest.raises(Problem) as caught:
            await hand.add(unique_key="k")
        assert caught.value.kind == "conflict"
        assert holder.id in caught.value.detail
        if state == "pending":
            hand.clock.advance(10)
            await hand.claim(0)
        elif state == "queued":
            claim = await hand.start(holder)
    await hand.add(unique_key="another")
    await hand.end(claim)
    assert (await hand.add(unique_key="k")).unique_slot == "k"


async def test_existing_stands_for_the_new_one(hand: Hand) -> None:
    holder = await hand.add("first", unique_key="k")
    created = await hand.store.submit([new("second", unique_key="k", on_conflict="existing")], ids)
    assert created.existing
    assert [task.id for task in created.tasks] == [holder.id]
    assert len(await every(hand.store)) == 1
    await hand.store.cancel(holder.id)
    created = await hand.store.submit([new("third", unique_key="k", on_conflict="existing")], ids)
    assert not created.existing


async def test_a_batch_may_meet_its_own_keys(hand: Hand) -> None:
    same = new(unique_key="k", on_conflict="existing")
    first, second, third = await hand.add_all(same, new(), same)
    assert first.id == third.id != second.id
    tasks = await hand.add_all(*[new(unique_key="r", on_conflict="replace") for _ in range(3)])
    assert await hand.statuses(*tasks) == ["cancelled", "cancelled", "queued"]


async def test_replacing_one_that_waits(hand: Hand) -> None:
    old = await hand.add(unique_key="k")
    created = await hand.store.submit([new(unique_key="k", on_conflict="replace")], ids)
    assert created.tasks[0].status == "queued"
    assert await hand.statuses(old, created.tasks[0]) == ["cancelled", "queued"]


async def test_replacing_one_that_runs_waits_for_its_processes(hand: Hand) -> None:
    old = await hand.add(unique_key="k")
    claim = await hand.start(old)
    young = await hand.add(unique_key="k", on_conflict="replace")
    assert (await hand.store.task(old.id)).cancel_requested_at is not None
    assert (young.status, await hand.waits(young)) == ("pending", ["unique"])
    assert await hand.claim() == []
    assert (await hand.end(claim, "cancelled")).status == "cancelled"
    await hand.start(young)


async def test_replaced_twice_while_the_first_still_ends(hand: Hand) -> None:
    first = await hand.start(await hand.add(unique_key="k"))
    second = await hand.add(unique_key="k", on_conflict="replace")
    third = await hand.add(unique_key="k", on_conflict="replace")
    assert await hand.statuses(second, third) == ["cancelled", "pending"]
    assert await hand.claim() == []
    # Nobody overtakes the processes of the first by taking the replacement away.
    await hand.store.cancel(third.id)
    fourth = await hand.add(unique_key="k")
    assert await hand.claim() == []
    await hand.end(first, "cancelled")
    await hand.start(fourth)


async def test_what_was_replaced_may_complete_all_the_same(hand: Hand) -> None:
    claim = await hand.start(await hand.add(unique_key="k"))
    young = await hand.add(unique_key="k", on_conflict="replace")
    assert (await hand.end(claim, "completed")).status == "completed"
    assert await hand.status(young) == "queued"


# -- time


async def test_a_delay_and_a_time_hold_a_task_back(hand: Hand, clock: FakeClock) -> None:
    later = await hand.add("delayed", delay=60.0)
    at = await hand.add("timed", run_at=clock.now() + 30_000)
    past = await hand.add("past", run_at=clock.now() - 1)
    assert await hand.statuses(later, at, past) == ["pending", "pending", "queued"]
    assert await hand.waits(later) == ["time"]
    assert await hand.next_due() == clock.now() + 30_000
    assert await hand.names() == ["past"]
    clock.advance(29.999)
    assert await hand.names() == []
    clock.advance(0.001)
    assert await hand.names() == ["timed"]
    clock.advance(30)
    assert await hand.names() == ["delayed"]
    assert await hand.next_due() is None


async def test_many_come_due_at_once(hand: Hand, clock: FakeClock) -> None:
    await hand.add_all(*[new(delay=5.0) for _ in range(1000)], *[new(delay=5.0) for _ in range(200)])
    clock.advance(5)
    seen = 0
    while True:
        claimed = await hand.store.claim("executor-1", 0)
        seen += 1
        if claimed.next_due != clock.now():
            break
    assert seen > 1
    assert (await hand.store.counts())["queued"] == 1200
    assert len(await hand.claim(2000)) == 1200


async def test_the_store_keeps_everything_over_a_restart(make_store: Make, clock: FakeClock) -> None:
    store = await make_store()
    hand = Hand(store, clock)
    waiting = await hand.add("w", delay=60.0, tags=["t"])
    claim = await hand.start(await hand.add("r"))
    await store.put_queue("default", {"limit": 5, "rate": "1/s"})
    before, events = await every(store), await hand.events()
    await store.close()
    store = await make_store()
    hand = Hand(store, clock)
    assert [v.task for v in await every(store)] == [v.task for v in before]
    assert await hand.events() == events
    assert [c.attempt for c in await store.running()] == [claim.attempt]
    clock.advance(60)
    await hand.start(waiting)
    await hand.end(claim)
    await check(store)


async def test_a_store_of_this_protocol(store: Store) -> None:
    """Every verb of the protocol is there."""
    verbs = [name for name in vars(Store) if not name.startswith("_") and callable(getattr(Store, name))]
    assert [name for name in verbs if not callable(getattr(store, name, None))] == []
