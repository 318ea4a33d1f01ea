"""Tasks that wait for others."""

from __future__ import annotations

import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.store import Store
from tests.store.helpers import Hand, new


async def test_a_dependency_is_waited_for_by_name(hand: Hand) -> None:
    first, second = await hand.add(), await hand.add()
    third = await hand.add("third", depends_on=[first.id, second.id])
    view = await hand.store.view(third.id)
    assert (third.status, third.blockers) == ("pending", 2)
    assert [(r.kind, r.id) for r in view.waiting_for] == sorted([("task", first.id), ("task", second.id)])
    claims = await hand.claim()
    assert len(claims) == 2
    await hand.end(claims[0])
    assert await hand.status(third) == "pending"
    assert len((await hand.store.view(third.id)).waiting_for) == 1
    await hand.end(claims[1])
    assert await hand.names() == ["third"]
    assert await hand.story(third) == ["created", "queued", "started"]


async def test_one_that_is_over_is_not_waited_for(hand: Hand) -> None:
    first = await hand.finished()
    assert (await hand.add(depends_on=[first.id])).status == "queued"


@pytest.mark.parametrize("how", ["failed", "cancelled"])
async def test_one_that_did_not_succeed_cuts_off_what_depends_on_it(hand: Hand, how: str) -> None:
    first = await hand.add()
    second = await hand.add(depends_on=[first.id])
    tolerant = await hand.add(depends_on=[first.id], allow_failed=True)
    third = await hand.add(depends_on=[second.id])
    if how == "failed":
        await hand.end(await hand.start(first), "exit")
    else:
        await hand.store.cancel(first.id)
    assert await hand.statuses(second, third, tolerant) == ["failed", "failed", "queued"]
    error = (await hand.store.task(second.id)).read_error()
    assert error is not None
    assert error.kind == "dependency_failed"
    assert first.id in error.message
    late = await hand.add(depends_on=[first.id])
    assert (late.status, (late.read_error() or error).kind, late.attempt) == ("failed", "dependency_failed", 0)
    assert await hand.story(late) == ["created", "failed"]
    assert (await hand.add(depends_on=[first.id], allow_failed=True)).status == "queued"
    assert (await hand.add(depends_on=[late.id])).status == "failed"


async def test_a_retry_does_not_cut_off(hand: Hand, clock: FakeClock) -> None:
    first = await hand.add(max_retries=1)
    second = await hand.add(depends_on=[first.id])
    await hand.end(await hand.start(first), "exit")
    assert await hand.statuses(first, second) == ["retrying", "pending"]
    clock.advance(2)
    await hand.end(await hand.start(first))
    assert await hand.status(second) == "queued"


async def test_a_diamond(hand: Hand) -> None:
    top = await hand.add("top")
    left, right = await hand.add("left", depends_on=[top.id]), await hand.add("right", depends_on=[top.id])
    bottom = await hand.add("bottom", depends_on=[left.id, right.id])
    await hand.end(await hand.start(top))
    claims = await hand.claim()
    assert [c.task.id for c in claims] == [left.id, right.id]
    await hand.end(claims[0])
    assert await hand.status(bottom) == "pending"
    await hand.end(claims[1])
    assert await hand.status(bottom) == "queued"


async def test_a_diamond_that_fails_on_both_sides_ends_once(hand: Hand) -> None:
    top = await hand.add()
    sides = [await hand.add(depends_on=[top.id]) for _ in range(2)]
    bottom = await hand.add(depends_on=[side.id for side in sides])
    await hand.store.cancel(top.id)
    assert await hand.statuses(*sides, bottom) == ["failed"] * 3
    assert await hand.story(bottom) == ["created", "failed"]


async def test_a_dependency_and_a_time_and_a_pause(hand: Hand, clock: FakeClock) -> None:
    first = await hand.add()
    second = await hand.add(depends_on=[first.id], delay=60.0)
    await hand.store.pause(second.id)
    assert sorted(await hand.waits(second)) == ["paused", "task", "time"]
    await hand.end(await hand.start(first))
    assert sorted(await hand.waits(second)) == ["paused", "time"]
    clock.advance(60)
    assert await hand.claim() == []
    assert await hand.waits(second) == ["paused"]
    await hand.store.resume(second.id)
    await hand.start(second)


async def test_the_time_comes_first(hand: Hand, clock: FakeClock) -> None:
    first = await hand.add()
    second = await hand.add(depends_on=[first.id], run_at=clock.now() + 1000)
    claim = await hand.start(first)
    clock.advance(1)
    await hand.claim()
    assert await hand.waits(second) == ["task"]
    await hand.end(claim)
    await hand.start(second)


async def test_a_removed_dependency_is_over(hand: Hand) -> None:
    first = await hand.finished()
    second = await hand.add(depends_on=[first.id])
    await hand.store.remove([first.id])
    await hand.end(await hand.start(second), "exit")
    again = (await hand.store.retry(second.id, lambda tasks: b"")).tasks[0]
    assert again.read_spec().depends_on == []
    assert again.status == "queued"


@pytest.mark.slow
async def test_a_chain_of_a_thousand(hand: Hand) -> None:
    chain = [await hand.add()]
    for _ in range(999):
        chain.append((await hand.add_all(new(depends_on=[chain[-1].id])))[0])
    await hand.end(await hand.start(chain[0]))
    assert await hand.statuses(*chain[:3]) == ["completed", "queued", "pending"]
    await hand.store.cancel(chain[1].id)
    assert (await hand.store.counts()) == dict.fromkeys(await hand.store.counts(), 0)
    assert await hand.status(chain[-1]) == "failed"


async def test_a_fan_of_many(hand: Hand, store: Store) -> None:
    top = await hand.add()
    fan = await hand.add_all(*[new(depends_on=[top.id]) for _ in range(500)])
    await hand.add_all(new(depends_on=[task.id for task in fan]))
    await hand.end(await hand.start(top))
    assert await store.counts() == {**await store.counts(), "queued": 500, "pending": 1}
