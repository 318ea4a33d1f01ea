"""Executors, queues, tokens; what is old goes; a backup of a store that is in use."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core.errors import Problem
from orchestr8d.core.model import Token
from orchestr8d.store import Store
from orchestr8d.store.types import EventFilter, Retention, TaskFilter
from tests.store.conftest import Make
from tests.store.helpers import ME, Hand, every, executor, ids, new, once

ALL = ("completed", "failed", "cancelled", "skipped")


def keep(seconds: float | None, events: float | None = None) -> Retention:
    return Retention(dict.fromkeys(ALL, seconds), events)


# -- executors


async def test_an_executor_registers_beats_and_stops(hand: Hand, store: Store, clock: FakeClock) -> None:
    await store.register(executor(started_at=clock.now()))
    assert await store.executors() == [executor(started_at=clock.now())]
    clock.advance(10)
    await store.heartbeat(ME, 4, 3, "draining")
    (row,) = await store.executors()
    assert (row.running, row.state, row.heartbeat_at) == (3, "draining", clock.now())
    await store.heartbeat(ME, 4, 0, "stopped")
    await store.heartbeat(ME, 4, 0, "stopped")
    assert [e.type for e in await hand.events()] == ["executor.started", "executor.stopped"]
    assert msgspec.json.decode((await hand.events())[0].data)["executor_id"] == ME


async def test_one_that_was_left_behind_is_lost(hand: Hand, store: Store) -> None:
    for name, host in (("a", "here"), ("b", "there"), ("c", "here")):
        await store.register(executor(name, host, started_at=ord(name)))
    assert [(e.id, e.state) for e in await store.executors()] == [("c", "running"), ("b", "lost"), ("a", "lost")]
    await store.heartbeat("c", 4, 0, "stopped")
    await store.register(executor("d", "here", started_at=1000))
    assert {e.id: e.state for e in await store.executors()}["c"] == "stopped"
    told = [msgspec.json.decode(e.data)["executor_id"] for e in await hand.events() if e.type == "executor.lost"]
    assert told == ["a", "b"]


# -- queues


async def test_queues_come_with_tasks_and_settings(hand: Hand, store: Store) -> None:
    assert await store.queues() == []
    made = await store.put_queue("b", {"limit": 2, "rate": "30/m"})
    assert (made.name, made.limit, made.rate, made.paused, made.depth) == ("b", 2, "30/m", False, 0)
    await hand.add(queue="c")
    await hand.add(queue="a", delay=5.0)
    assert [(q.name, q.depth, q.running) for q in await store.queues()] == [("a", 1, 0), ("b", 0, 0), ("c", 1, 0)]
    await hand.claim()
    assert [(q.name, q.depth, q.running) for q in await store.queues()] == [("a", 1, 0), ("b", 0, 0), ("c", 0, 1)]


async def test_settings_change_one_by_one(store: Store) -> None:
    await store.put_queue("q", {"limit": 2, "rate": "1/s", "paused": True})
    queue = await store.put_queue("q", {"limit": None})
    assert (queue.limit, queue.rate, queue.paused) == (None, "1/s", True)
    queue = await store.put_queue("q", {"rate": None, "paused": False})
    assert (queue.limit, queue.rate, queue.paused) == (None, None, False)
    assert (await store.put_queue("q", {})) == queue


# -- tokens


def token(token_id: str, **more: object) -> Token:
    row = Token(token_id, "name", f"hash-{token_id}", "submit", None, None, None, 1, None)
    return msgspec.structs.replace(row, **more)


async def test_tokens(store: Store) -> None:
    rows = [
        token("a", created_at=1),
        token("b", created_at=2, user_id="ann", runners=["command"], agents=[], expires_at=9, scope="admin"),
    ]
    for row in rows:
        assert await store.add_token(row, b"shown once") == (b"shown once", False)
    assert await store.tokens() == rows[::-1]
    await store.revoke_token("a")
    assert await store.tokens() == [rows[1]]
    with pytest.raises(Problem) as caught:
        await store.revoke_token("a")
    assert caught.value.kind == "not-found"


async def test_a_token_may_be_asked_for_twice(store: Store) -> None:
    assert await store.add_token(token("a"), b"first", once("k")) == (b"first", False)
    assert await store.add_token(token("b"), b"second", once("k")) == (b"first", True)
    assert [row.id for row in await store.tokens()] == ["a"]


# -- retention


async def test_what_is_final_expires_by_its_state(hand: Hand, store: Store, clock: FakeClock) -> None:
    done, failed = await hand.finished(), await hand.finished(outcome="exit")
    cancelled = await store.cancel((await hand.add()).id)
    waiting = await hand.add(delay=1e6)
    running = await hand.start(await hand.add())
    clock.advance(100)
    fresh = await hand.finished()
    assert await store.expired(keep(None)) == []
    assert await store.expired(keep(101)) == []
    expired = await store.expired(Retention({"completed": 99, "failed": None, "cancelled": 100.5}))
    assert [e.task_id for e in expired] == [done.id]
    assert expired[0].attempt_ids == [a.id for a in await store.attempts(done.id)]
    assert {e.task_id for e in await store.expired(keep(99))} == {done.id, failed.id, cancelled.id}
    assert {v.task.id for v in await every(store)} >= {waiting.id, running.task.id, fresh.id}


async def test_a_removed_task_is_gone_with_all_that_belongs_to_it(hand: Hand, store: Store) -> None:
    task = await hand.finished("word", tags=["t"], unique_key="u")
    await store.index_text()
    await store.remove([task.id, "no such"])
    for gone in (store.task(task.id), store.view(task.id), store.attempts(task.id), store.result(task.id)):
        with pytest.raises(Problem) as caught:
            await gone
        assert caught.value.kind == "not-found"
    for wanted in (TaskFilter(), TaskFilter(tags=("t",)), TaskFilter(q="word"), TaskFilter(status=("completed",))):
        assert await store.views(wanted, 10, None) == []
    assert len(await hand.events(task)) == 4
    assert (await hand.add(unique_key="u")).seq == 2


async def test_only_what_is_final_can_be_removed(hand: Hand, store: Store) -> None:
    done, waiting = await hand.finished(), await hand.add()
    with pytest.raises(RuntimeError):
        await store.remove([done.id, waiting.id])
    assert len(await every(store)) == 2


async def test_a_lot_goes_in_steps(hand: Hand, store: Store, clock: FakeClock) -> None:
    tasks = await hand.add_all(*[new() for _ in range(1100)])
    for task in tasks:
        await store.cancel(task.id)
    clock.advance(100)
    steps = 0
    while expired := await store.expired(keep(50)):
        await store.remove([e.task_id for e in expired])
        steps += 1
    assert steps > 1
    assert await every(store) == []


async def test_the_log_goes_in_steps(hand: Hand, store: Store, clock: FakeClock) -> None:
    for _ in range(5):
        await hand.add_all(*[new() for _ in range(1000)])
    clock.advance(100)
    last = await hand.add()
    steps = 0
    while await store.prune_log(keep(None, 50)):
        steps += 1
    assert steps >= 2
    assert [e.task_id for e in await hand.events()] == [last.id] * 2
    assert not await store.prune_log(keep(None, None))


async def test_an_idempotency_key_is_kept_for_a_day(hand: Hand, store: Store, clock: FakeClock) -> None:
    await store.submit([new()], ids, once("k"))
    clock.advance(24 * 3600)
    await store.prune_log(keep(None))
    assert (await store.submit([new()], ids, once("k"))).replayed
    clock.advance(1)
    await store.prune_log(keep(None))
    assert not (await store.submit([new()], ids, once("k"))).replayed


async def test_pruning_leaves_a_rate_alone(hand: Hand, store: Store, clock: FakeClock) -> None:
    await store.put_queue("q", {"rate": "2/m"})
    await hand.add_all(*[new(queue="q") for _ in range(6)])
    assert len(await hand.claim(1)) == 1
    clock.advance(30)
    assert len(await hand.claim()) == 1
    for left in (30, 0):
        clock.advance(left)
        await store.prune_log(keep(None))
        assert len(await hand.claim()) == (1 if left else 0)


# -- counts and backups


async def test_counts(hand: Hand, store: Store) -> None:
    await hand.add(delay=60.0)
    await hand.finished(outcome="exit", max_retries=1)
    await hand.start(await hand.add())
    await hand.add_all(new(), new())
    counts = {"pending": 1, "queued": 2, "running": 1, "retrying": 1, "parked": 0, "needs_input": 0}
    assert await store.counts() == counts


async def test_a_backup_while_writing_is_one_moment(make_store: Make, clock: FakeClock, tmp_path: Path) -> None:
    store = await make_store()
    hand = Hand(store, clock)
    await hand.add_all(*[new(str(i), tags=["t"]) for i in range(300)])
    stop = asyncio.Event()

    async def write() -> None:
        while not stop.is_set():
            task = await hand.add("while", "writing")
            await store.cancel(task.id)

    writer = asyncio.create_task(write())
    try:
        while len(await hand.events()) < 700:
            await asyncio.sleep(0)
        await store.backup(tmp_path / "copy.db")
    finally:
        stop.set()
        await writer
    copy = await make_store("copy")
    views = await every(copy)
    events = (await copy.events(EventFilter(), 0, 1_000_000))[0]
    assert len(views) >= 300
    assert len([e for e in events if e.type == "task.created"]) == len(views)
    assert [v.task for v in await every(store)][: len(views) - 1] == [v.task for v in views][:-1]
    await Hand(copy, clock).add("goes on")
