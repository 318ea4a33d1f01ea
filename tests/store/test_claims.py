"""Which task runs next: rank with ageing, limits and rates of queues, concurrency keys, pauses."""

from __future__ import annotations

import msgspec
import pytest

from orchestr8d.clock import FakeClock
from tests.store.conftest import LIMITS, Make
from tests.store.helpers import Hand, check, new


async def test_in_order_of_submission(hand: Hand) -> None:
    await hand.add_all(*[new(str(i)) for i in range(20)])
    assert await hand.names(5) == list("01234")
    assert await hand.names(0) == []
    assert await hand.names() == [str(i) for i in range(5, 20)]


async def test_a_claim_makes_an_attempt(hand: Hand, clock: FakeClock) -> None:
    task = await hand.add()
    clock.advance(2)
    claim = await hand.start(task)
    assert (claim.task.status, claim.task.attempt, claim.task.executor_id) == ("running", 1, "executor-1")
    assert claim.task.started_at == clock.now()
    assert await hand.store.attempts(task.id) == [claim.attempt]
    assert [c.attempt for c in await hand.store.running()] == [claim.attempt]
    started = (await hand.events(task))[-1]
    said = msgspec.json.decode(started.data)
    assert started.type == "task.started"
    assert (said["attempt"], said["attempt_id"], said["wait_seconds"]) == (1, claim.attempt.id, 2.0)


async def test_priority_with_ageing(hand: Hand, clock: FakeClock) -> None:
    """A point is worth 15 minutes of waiting."""
    await hand.add("low", priority=-10)
    await hand.add("normal")
    await hand.add("high", priority=10)
    clock.advance(3600)
    await hand.add("one point, an hour later", priority=1)
    await hand.add("four points, an hour later", priority=4)
    await hand.add("five points, an hour later", priority=5)
    order = ["high", "five points, an hour later", "normal", "four points, an hour later",
             "one point, an hour later", "low"]  # fmt: skip
    assert await hand.names() == order


async def test_the_worth_of_a_point_is_a_setting(make_store: Make, clock: FakeClock) -> None:
    store = await make_store(limits=msgspec.structs.replace(LIMITS, head_start=1.0))
    hand = Hand(store, clock)
    await hand.add("first")
    clock.advance(5)
    await hand.add("later", priority=4)
    await hand.add("best", priority=6)
    assert await hand.names() == ["best", "first", "later"]


async def test_across_queues_by_rank(hand: Hand, clock: FakeClock) -> None:
    for i in range(6):
        await hand.add(str(i), queue="ab"[i % 2])
        clock.advance(1)
    assert await hand.names(3) == ["0", "1", "2"]
    assert await hand.names() == ["3", "4", "5"]


async def test_a_limit(hand: Hand) -> None:
    await hand.store.put_queue("q", {"limit": 2})
    tasks = await hand.add_all(*[new(str(i), queue="q") for i in range(4)], new("free"))
    claims = await hand.claim()
    assert [c.task.id for c in claims] == [tasks[0].id, tasks[1].id, tasks[4].id]
    assert await hand.waits(tasks[2]) == ["queue"]
    await hand.end(claims[0])
    assert await hand.waits(tasks[2]) == ["slot"]
    assert await hand.names() == ["2"]
    await hand.store.put_queue("q", {"limit": None})
    assert await hand.names() == ["3"]


async def test_a_limit_that_is_lowered_ends_nothing(hand: Hand) -> None:
    await hand.add_all(*[new(queue="q") for _ in range(3)])
    claims = await hand.claim(2)
    await hand.store.put_queue("q", {"limit": 1})
    await hand.end(claims[0])
    assert await hand.claim() == []
    await hand.end(claims[1])
    assert len(await hand.claim()) == 1


async def test_a_paused_queue(hand: Hand) -> None:
    task = await hand.add(queue="q")
    queue = await hand.store.put_queue("q", {"paused": True})
    assert (queue.name, queue.paused, queue.depth, queue.running) == ("q", True, 1, 0)
    assert await hand.claim() == []
    assert await hand.waits(task) == ["queue_paused"]
    assert await hand.next_due() is None
    await hand.store.put_queue("q", {"paused": False})
    await hand.start(task)


async def test_a_held_queue_does_not_delay_the_rank(hand: Hand, clock: FakeClock) -> None:
    await hand.store.put_queue("q", {"paused": True})
    await hand.add("held", queue="q")
    clock.advance(60)
    await hand.add("later")
    await hand.store.put_queue("q", {"paused": False})
    assert await hand.names() == ["held", "later"]


async def test_a_rate_is_an_exact_window(hand: Hand, clock: FakeClock) -> None:
    await hand.store.put_queue("q", {"rate": "3/10s"})
    tasks = await hand.add_all(*[new(queue="q") for _ in range(20)])
    first = clock.now()
    starts: list[float] = []
    for _ in range(60):
        for claim in await hand.claim(2):
            starts.append((clock.now() - first) / 1000)
            await hand.end(claim)
        clock.advance(1)
    assert starts == [0, 0, 1, 10, 10, 11, 20, 20, 21, 30, 30, 31, 40, 40, 41, 50, 50, 51]
    view = await hand.store.view(tasks[-1].id)
    assert view.waiting_for == [] or view.waiting_for[0].kind in ("slot", "queue")


async def test_a_rate_says_when_it_goes_on(hand: Hand, clock: FakeClock) -> None:
    await hand.store.put_queue("q", {"rate": "1/m"})
    await hand.add(queue="q")
    task = await hand.add(queue="q")
    opens = clock.now() + 60_000
    claimed = await hand.store.claim("executor-1", 10)
    assert len(claimed.claims) == 1
    assert claimed.next_due == opens
    (reason,) = (await hand.store.view(task.id)).waiting_for
    assert (reason.kind, reason.name) == ("queue", "q")
    assert reason.until is not None
    clock.advance(59.999)
    assert await hand.claim() == []
    clock.advance(0.001)
    assert await hand.waits(task) == ["slot"]
    await hand.start(task)
    assert await hand.next_due() is None


async def test_a_rate_counts_only_its_own_queue_from_when_it_was_set(hand: Hand, clock: FakeClock) -> None:
    await hand.add_all(*[new(queue="q") for _ in range(5)], *[new() for _ in range(5)])
    assert len(await hand.claim(2)) == 2
    await hand.store.put_queue("q", {"rate": "1/m"})
    assert len(await hand.claim()) == 1 + 5
    await hand.store.put_queue("q", {"rate": None})
    assert len(await hand.claim()) == 2


async def test_one_of_a_key_at_a_time(hand: Hand) -> None:
    tasks = await hand.add_all(*[new(str(i), concurrency_key="k") for i in range(3)], new("free"))
    claims = await hand.claim()
    assert [c.task.id for c in claims] == [tasks[0].id, tasks[3].id]
    (reason,) = (await hand.store.view(tasks[1].id)).waiting_for
    assert (reason.kind, reason.name, reason.id) == ("concurrency_key", "k", tasks[0].id)
    assert await hand.claim() == []
    await hand.end(claims[0], "exit")
    assert await hand.names() == ["1"]


async def test_a_key_spans_queues(hand: Hand) -> None:
    await hand.add_all(*[new(str(i), queue=f"q{i % 3}", concurrency_key="k") for i in range(9)])
    for i in range(9):
        claims = await hand.claim()
        assert [c.task.read_spec().command for c in claims] == [[str(i)]]
        await hand.end(claims[0])


async def test_a_paused_or_full_queue_does_not_hold_a_key_for_others(hand: Hand) -> None:
    await hand.store.put_queue("paused", {"paused": True})
    await hand.store.put_queue("full", {"limit": 1})
    await hand.add("filling", queue="full")
    await hand.claim()
    held = await hand.add_all(
        *[new(queue="paused", concurrency_key="k") for _ in range(3)],
        *[new(queue="full", concurrency_key="k") for _ in range(3)],
    )
    await hand.add("free", concurrency_key="k")
    claims = await hand.claim()
    assert [c.task.read_spec().command for c in claims] == [["free"]]
    assert sorted(await hand.waits(held[0])) == ["concurrency_key", "queue_paused"]
    await hand.end(claims[0])
    await hand.store.put_queue("paused", {"paused": False})
    assert [c.task.id for c in await hand.claim()] == [held[0].id]


async def test_one_passed_over_for_its_key_does_not_cost_its_queue_the_slot(hand: Hand) -> None:
    await hand.store.put_queue("q", {"limit": 1})
    await hand.add("key", concurrency_key="k")
    await hand.add("same key", concurrency_key="k", queue="q")
    await hand.add("no key", queue="q")
    assert await hand.names() == ["key", "no key"]


async def test_a_key_follows_rank(hand: Hand) -> None:
    await hand.add_all(new("low", concurrency_key="k", priority=-5), new("mid", concurrency_key="k"))
    high = (await hand.add_all(new("high", concurrency_key="k", priority=5)))[0]
    (claim,) = await hand.claim()
    assert claim.task.id == high.id
    await hand.end(claim)
    (claim,) = await hand.claim()
    assert claim.task.read_spec().command == ["mid"]


@pytest.mark.parametrize("per_key", [2, 3])
async def test_more_than_one_of_a_key(make_store: Make, clock: FakeClock, per_key: int) -> None:
    store = await make_store(limits=msgspec.structs.replace(LIMITS, per_key=per_key))
    hand = Hand(store, clock)
    await hand.add_all(*[new(queue="ab"[i % 2], concurrency_key="k") for i in range(10)])
    claims = await hand.claim()
    assert len(claims) == per_key
    await hand.end(claims[0])
    assert len(await hand.claim()) == 1
    await check(store)


async def test_a_changed_number_of_a_key(make_store: Make, clock: FakeClock) -> None:
    store = await make_store()
    hand = Hand(store, clock)
    await hand.add_all(*[new(queue="ab"[i % 2], concurrency_key="k") for i in range(10)])
    claims = await hand.claim()
    assert len(claims) == 1
    store.limits = msgspec.structs.replace(LIMITS, per_key=3)
    await store.rewindow()
    claims += await hand.claim()
    assert len(claims) == 3
    store.limits = msgspec.structs.replace(LIMITS, per_key=1)
    await store.rewindow()
    for claim in claims[:2]:
        await hand.end(claim)
        assert await hand.claim() == []
    await hand.end(claims[2])
    assert len(await hand.claim()) == 1
    await check(store)


async def test_a_key_of_one_that_waits_for_its_retry_is_free(hand: Hand, clock: FakeClock) -> None:
    first = await hand.add("first", concurrency_key="k", max_retries=1)
    await hand.add("second", concurrency_key="k")
    await hand.end(await hand.start(first), "exit")
    (claim,) = await hand.claim()
    assert claim.task.read_spec().command == ["second"]
    clock.advance(10)
    assert await hand.claim() == []
    assert await hand.waits(first) == ["concurrency_key"]
    await hand.end(claim)
    await hand.start(first)


@pytest.mark.parametrize("leave", ["cancel", "pause", "deadline", "edit"])
async def test_the_first_of_a_key_goes_away(hand: Hand, clock: FakeClock, leave: str) -> None:
    first = await hand.add("first", concurrency_key="k", deadline=60.0 if leave == "deadline" else None)
    second = await hand.add("second", concurrency_key="k")
    if leave == "cancel":
        await hand.store.cancel(first.id)
    elif leave == "pause":
        await hand.store.pause(first.id)
    elif leave == "deadline":
        clock.advance(60)
    else:
        from tests.store.test_steering import to

        await hand.store.edit(first.id, to(concurrency_key="other", delay=60.0))
    (claim,) = await hand.claim()
    assert claim.task.id == second.id


async def test_rank_holds_over_queues_when_a_key_passes_some_over(hand: Hand) -> None:
    await hand.store.put_queue("q", {"limit": 1})
    await hand.add("1", concurrency_key="k")
    await hand.add("2", concurrency_key="k", queue="q")
    await hand.add("3", queue="q")
    await hand.add("4")
    assert await hand.names(2) == ["1", "3"]
    assert await hand.names() == ["4"]


async def test_one_that_starts_twice_in_a_moment_counts_twice(hand: Hand) -> None:
    await hand.store.put_queue("q", {"rate": "2/m"})
    task = await hand.add(queue="q")
    for _ in range(2):
        await hand.end(await hand.start(task), "interrupted")
    assert await hand.claim() == []
