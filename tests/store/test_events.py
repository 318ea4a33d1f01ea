"""The log: one order, filters, bounds that survive pruning; and the bus that tells of commits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from orchestr8d.clock import FakeClock
from orchestr8d.events import TYPES, Bus, Event
from orchestr8d.store import Store
from orchestr8d.store.types import EventFilter, Retention
from tests.store.conftest import Make
from tests.store.helpers import ME, Hand, executor, ids, new


async def types(store: Store, wanted: EventFilter) -> list[str]:
    return [event.type for event in (await store.events(wanted, 0, 1000))[0]]


async def test_one_order_without_gaps(hand: Hand, clock: FakeClock) -> None:
    async def life(i: int) -> None:
        task = await hand.add(str(i), user_id="ann")
        await hand.store.cancel(task.id)

    await asyncio.gather(*[life(i) for i in range(50)])
    events = await hand.events()
    assert [event.id for event in events] == list(range(1, 151))
    assert {event.at for event in events} == {clock.now()}
    assert {event.user_id for event in events} == {"ann"}
    assert {event.type for event in events} <= TYPES


async def test_pages(hand: Hand) -> None:
    await hand.add_all(*[new() for _ in range(10)])
    seen: list[Event] = []
    after = 0
    while True:
        page, after = await hand.store.events(EventFilter(), after, 7)
        if not page:
            break
        seen += page
    assert [event.id for event in seen] == list(range(1, 21))
    assert after == 20
    assert await hand.store.events(EventFilter(), 20, 7) == ([], 20)


async def test_a_filtered_read_says_how_far_it_went(hand: Hand) -> None:
    task = (await hand.add_all(*[new() for _ in range(10)]))[9]
    found, upto = await hand.store.events(EventFilter(types=("task.cancelled",)), 0, 5)
    assert (found, upto) == ([], 20)
    found, upto = await hand.store.events(EventFilter(types=("task.created",)), 0, 5)
    assert [event.id for event in found] == [1, 3, 5, 7, 9]
    assert upto == 9
    found, upto = await hand.store.events(EventFilter(task_id=task.id), 0, 5)
    assert ([event.id for event in found], upto) == ([19, 20], 20)


async def test_filters(hand: Hand, store: Store) -> None:
    await store.register(executor())
    ann = await hand.add(user_id="ann", max_retries=1)
    await hand.end(await hand.start(ann), "exit")
    bob = await hand.add(user_id="bob")
    all_of_ann = ["task.created", "task.queued", "task.started", "task.retrying"]
    assert await types(store, EventFilter(user_id="ann")) == all_of_ann
    assert await types(store, EventFilter(task_id=bob.id)) == ["task.created", "task.queued"]
    assert await types(store, EventFilter(types=("task.*",), user_id="ann")) == all_of_ann
    assert await types(store, EventFilter(types=("executor.*", "task.retrying"))) == [
        "executor.started", "task.retrying",
    ]  # fmt: skip
    assert len(await types(store, EventFilter(types=("*",)))) == 7
    assert await types(store, EventFilter(types=("task.created",), task_id=bob.id, user_id="ann")) == []
    assert await types(store, EventFilter(workflow_id="none")) == []


async def test_bounds(hand: Hand, store: Store, clock: FakeClock) -> None:
    assert await store.event_bounds() == (1, 0)
    await hand.add()
    assert await store.event_bounds() == (1, 2)
    clock.advance(100)
    await hand.add()
    assert not await store.prune_log(Retention(events=50))
    assert await store.event_bounds() == (3, 4)
    clock.advance(100)
    assert not await store.prune_log(Retention(events=50))
    assert await store.event_bounds() == (5, 4)
    assert await store.events(EventFilter(), 0, 10) == ([], 4)


async def test_an_id_is_never_given_twice(make_store: Make, clock: FakeClock) -> None:
    store = await make_store()
    await Hand(store, clock).add()
    clock.advance(100)
    await store.prune_log(Retention(events=50))
    await store.close()
    store = await make_store()
    assert await store.event_bounds() == (3, 2)
    task = await Hand(store, clock).add()
    assert [event.id for event in await Hand(store, clock).events()] == [3, 4]
    assert task.seq == 2


async def test_the_data_of_an_end(hand: Hand) -> None:
    task = await hand.finished(outcome="exit", queue="q")
    [event] = [event for event in await hand.events(task) if event.type == "task.failed"]
    said = msgspec.json.decode(event.data)
    assert (said["status"], said["queue"], said["kind"]) == ("failed", "q", "command")
    assert (said["attempt"], said["executor_id"], said["exit_code"]) == (1, ME, 1)
    assert said["error"] == {"kind": "exit", "message": "it was exit"}


async def test_what_is_told_is_what_is_in_the_log(hand: Hand, bus: Bus) -> None:
    told: list[Event] = []

    def observe(events: Sequence[Event]) -> None:
        told.extend(events)

    bus.observe(observe)
    await asyncio.gather(*[hand.add(str(i)) for i in range(10)])
    await hand.claim(5)
    assert told == await hand.events()


async def test_who_waits_for_a_task_is_told(hand: Hand, bus: Bus) -> None:
    task, other = await hand.add(), await hand.add()
    ready, not_ready = bus.next_of(task.id), bus.next_of(other.id)
    await hand.store.cancel(task.id)
    assert ready.done()
    assert not not_ready.done()


async def test_a_change_without_an_event_is_told_to_who_waits(hand: Hand, bus: Bus) -> None:
    """A pause takes a task to another state, a resumed queue lets others run: the log has no word for these."""
    hints: list[int] = []
    bus.observe(lambda events: hints.append(len(events)))
    task = await hand.add(delay=60.0)
    for change in (hand.store.pause, hand.store.resume):
        ready = bus.next_of(task.id)
        hints.clear()
        await change(task.id)
        assert ready.done()
        assert hints == [0]
    hints.clear()
    await hand.store.put_queue("default", {"paused": True})
    assert hints == [0]


async def test_nothing_is_told_of_what_was_refused(hand: Hand, bus: Bus) -> None:
    told: list[Event] = []
    await hand.add(unique_key="k")
    bus.observe(told.extend)
    results = await asyncio.gather(
        hand.store.submit([new(), new(unique_key="k")], ids), hand.add("good"), return_exceptions=True
    )
    assert isinstance(results[0], Exception)
    assert [event.type for event in told] == ["task.created", "task.queued"]
    assert told == (await hand.events())[-2:]
