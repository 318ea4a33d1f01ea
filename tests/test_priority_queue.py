"""The queue's loop on a real store: it claims when there is a reason, and sleeps until then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestr8d import priority_queue
from orchestr8d.clock import FakeClock
from orchestr8d.core.errors import Problem
from orchestr8d.events import Bus
from orchestr8d.priority_queue import PriorityQueue
from orchestr8d.store import Store
from orchestr8d.store.sqlite import open_store
from orchestr8d.store.types import Claim, Claimed, Limits
from tests.running import until
from tests.store.helpers import ME, Hand


class Bench:
    """A queue's loop over a store; `slots` says how many it may claim."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.clock = clock
        self.store = store
        self.hand = Hand(store, clock)
        self.slots = 10
        self.claimed: asyncio.Queue[Claim] = asyncio.Queue()
        self.claims = 0
        self.queue = PriorityQueue(self, clock, ME, lambda: self.slots, self.claimed)

    async def claim(self, executor_id: str, free: int) -> Claimed:
        self.claims += 1
        return await self.store.claim(executor_id, free)

    def names(self) -> list[str]:
        found = []
        while not self.claimed.empty():
            found.append(self.claimed.get_nowait().task.read_spec().command[0])  # type: ignore[index]
        return found


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock, bus = FakeClock(), Bus()
    store = await open_store(
        tmp_path / "store.db", clock=clock, bus=bus, limits=Limits(min_free_disk=0), synchronous="OFF"
    )
    made = Bench(store, clock)
    bus.observe(made.queue.observe)
    yield made
    await store.close()


async def test_one_round_hands_over_what_is_free(bench: Bench) -> None:
    for name in "abc":
        await bench.hand.add(name)
    bench.slots = 2
    assert await bench.queue.run_once() is None
    assert bench.names() == ["a", "b"]
    bench.slots = -1
    assert await bench.queue.run_once() is None
    assert bench.names() == []


async def test_a_round_tells_when_the_next_is_due(bench: Bench) -> None:
    assert await bench.queue.run_once() is None
    await bench.hand.add(delay=60.0)
    delay = await bench.queue.run_once()
    assert delay is not None
    assert 60 <= delay < 60.1
    bench.clock.advance(120)
    assert await bench.queue.run_once() is None
    assert len(bench.names()) == 1


async def test_a_store_that_cannot_write_is_tried_again(bench: Bench) -> None:
    class Broken:
        async def claim(self, executor_id: str, free: int) -> Claimed:
            raise Problem("unavailable", "the disk is full")

    queue = PriorityQueue(Broken(), bench.clock, ME, lambda: 1, bench.claimed)
    assert await queue.run_once() == priority_queue.STORE_PAUSE


async def test_the_loop_wakes_for_a_submit_and_sleeps_otherwise(bench: Bench) -> None:
    loop = asyncio.create_task(bench.queue.run())
    await until(lambda: bench.claims)
    await bench.hand.add("a")
    await until(lambda: bench.claimed.qsize() == 1)
    before = bench.claims
    # A start is not a reason to look again.
    await asyncio.sleep(0.05)
    assert bench.claims - before <= 1
    bench.queue.close()
    await loop


@pytest.mark.parametrize("reason", ["resume", "edit", "queue resumed", "queue limit", "cancel", "finish", "key"])
async def test_the_loop_wakes_for_every_reason(bench: Bench, reason: str) -> None:
    """Nothing waits for the next heartbeat: each change that lets a task run is a reason to look."""
    from tests.store.test_steering import to

    hand, store = bench.hand, bench.store
    await store.put_queue("q", {"limit": 1})
    await store.put_queue("paused", {"paused": True})
    first = await hand.add("first", queue="q", concurrency_key="k")
    claim = await hand.start(first)
    same_queue = await hand.add("second", queue="q")
    same_key = await hand.add("third", concurrency_key="k")
    held = await hand.add("fourth", queue="paused")
    stopped = await store.pause((await hand.add("fifth")).id)
    loop = asyncio.create_task(bench.queue.run())
    await until(lambda: bench.claims)
    await bench.queue.run_once()
    assert bench.names() == []
    if reason == "resume":
        await store.resume(stopped.id)
    elif reason == "edit":
        await store.edit(held.id, to(queue="default"))
    elif reason == "queue resumed":
        await store.put_queue("paused", {"paused": False})
    elif reason == "queue limit":
        await store.put_queue("q", {"limit": 2})
    elif reason == "key":
        await store.edit(same_key.id, to(concurrency_key=None))
    elif reason == "cancel":
        await store.cancel(first.id)
        await hand.end(claim, "cancelled")
    else:
        await hand.end(claim)
    await until(lambda: not bench.claimed.empty())
    expected = {"resume": "fifth", "edit": "fourth", "queue resumed": "fourth", "queue limit": "second", "key": "third"}
    assert bench.names()[0] == expected.get(reason, same_queue.read_spec().command[0])  # type: ignore[index]
    bench.queue.close()
    await loop


async def test_the_loop_wakes_at_the_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.hand.add("timed", delay=60.0)
    loop = asyncio.create_task(bench.queue.run())
    await until(lambda: bench.claims)
    bench.clock.advance(59.99)
    bench.queue.hint()
    # Now 10 ms are left by the clock that is moved by hand; the timer runs on the real one.
    await until(lambda: bench.claims >= 2)
    bench.clock.advance(0.01)
    await until(lambda: bench.claimed.qsize() == 1)
    bench.queue.close()
    await loop


async def test_a_closed_queue_claims_no_more(bench: Bench) -> None:
    loop = asyncio.create_task(bench.queue.run())
    await until(lambda: bench.claims)
    bench.queue.close()
    await loop
    await bench.hand.add("late")
    assert bench.claimed.empty()


@pytest.mark.parametrize("reason", ["edit", "cascade"])
async def test_a_due_time_that_came_nearer_is_met_while_no_slot_is_free(bench: Bench, reason: str) -> None:
    """Neither has an event that says so: a deadline set with what queues the task, a cascade that goes on in steps."""
    from orchestr8d.store.sqlite.follow import CASCADE_STEP
    from tests.store.helpers import new
    from tests.store.test_steering import to

    hand = bench.hand
    bench.slots = 0
    first = await hand.add("first", delay=3600.0)
    if reason == "cascade":
        await hand.add_all(*[new(depends_on=[first.id]) for _ in range(CASCADE_STEP)])
        await hand.add(depends_on=[first.id])
    loop = asyncio.create_task(bench.queue.run())
    await until(lambda: bench.claims)
    before = bench.claims
    if reason == "edit":
        await bench.store.edit(first.id, to(run_at=None, deadline=60.0))
    else:
        await bench.store.cancel(first.id)
    await until(lambda: bench.claims > before)
    bench.queue.close()
    await loop
