"""The wall clock is set by a day, either way: what came from a duration still means that duration."""

from __future__ import annotations

import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core.model import Backoff
from tests.store.conftest import Make
from tests.store.helpers import DAY, Hand, new

both_ways = pytest.mark.parametrize("step", [DAY, -DAY], ids=["forward", "back"])


@both_ways
async def test_a_delay_keeps_its_length(hand: Hand, clock: FakeClock, step: int) -> None:
    task = await hand.add(delay=60.0)
    clock.advance(30)
    clock.step(step)
    assert await hand.claim() == []
    assert (await hand.store.task(task.id)).wake_at == clock.now() + 30_000
    clock.advance(29.9)
    assert await hand.claim() == []
    clock.advance(0.1)
    await hand.start(task)


@both_ways
async def test_a_backoff_keeps_its_length(hand: Hand, clock: FakeClock, step: int) -> None:
    backoff = Backoff("fixed", base=60.0, jitter=False)
    task = await hand.finished(outcome="exit", max_retries=1, backoff=backoff)
    clock.step(step)
    clock.advance(59.9)
    assert await hand.claim() == []
    clock.advance(0.1)
    await hand.start(task)


@both_ways
async def test_a_deadline_keeps_its_length(hand: Hand, clock: FakeClock, step: int) -> None:
    task = await hand.add(deadline=60.0, delay=100.0)
    running = await hand.start(await hand.add(deadline=60.0))
    clock.step(step)
    clock.advance(59.9)
    await hand.claim()
    assert await hand.status(task) == "pending"
    assert (await hand.store.task(running.task.id)).deadline_at == clock.now() + 100
    clock.advance(0.1)
    await hand.claim()
    assert await hand.status(task) == "failed"


@both_ways
async def test_a_rate_keeps_its_window(hand: Hand, clock: FakeClock, step: int) -> None:
    await hand.store.put_queue("q", {"rate": "2/m"})
    await hand.add_all(*[new(queue="q") for _ in range(5)])
    assert len(await hand.claim()) == 2
    clock.advance(30)
    clock.step(step)
    assert await hand.claim() == []
    assert await hand.next_due() == clock.now() + 30_000
    clock.advance(29.9)
    assert await hand.claim() == []
    clock.advance(0.1)
    assert len(await hand.claim()) == 2


async def test_a_time_that_was_named_is_that_time(hand: Hand, clock: FakeClock) -> None:
    task = await hand.add(run_at=clock.now() + 1000 * DAY)
    clock.step(-DAY)
    clock.advance(DAY)
    assert await hand.claim() == []
    clock.step(DAY)
    await hand.start(task)


@both_ways
async def test_the_line_keeps_its_order(hand: Hand, clock: FakeClock, step: int) -> None:
    await hand.add("before")
    clock.step(step)
    await hand.add("after")
    clock.advance(1)
    await hand.add("last")
    assert await hand.names() == ["before", "after", "last"]


@both_ways
async def test_steps_are_noticed_by_whatever_comes_first(hand: Hand, clock: FakeClock, step: int) -> None:
    task = await hand.add(delay=60.0)
    clock.step(step)
    await hand.add("another")
    assert (await hand.store.task(task.id)).wake_at == clock.now() + 60_000
    clock.step(-step)
    await hand.claim(0)
    assert (await hand.store.task(task.id)).wake_at == clock.now() + 60_000


async def test_a_little_slewing_moves_nothing(hand: Hand, clock: FakeClock) -> None:
    task = await hand.add(delay=60.0)
    clock.step(0.5)
    await hand.claim()
    assert (await hand.store.task(task.id)).wake_at == task.wake_at


async def test_a_suspend_is_time_that_passed(hand: Hand, clock: FakeClock) -> None:
    task = await hand.add(delay=60.0)
    clock.advance(8 * 3600)
    await hand.start(task)


@both_ways
async def test_a_step_while_nobody_looked(make_store: Make, clock: FakeClock, step: int) -> None:
    store = await make_store()
    task = await Hand(store, clock).add(delay=60.0)
    await store.close()
    clock.advance(30)
    clock.step(step)
    hand = Hand(await make_store(), clock)
    assert await hand.claim() == []
    clock.advance(29.9)
    assert await hand.claim() == []
    clock.advance(0.1)
    await hand.start(task)
