"""The one writer: group commit, units that fail alone, a disk that fails them all, callers that go away."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core.errors import Problem
from orchestr8d.events import Bus
from orchestr8d.store.sqlite import SqliteStore, open_store
from orchestr8d.store.sqlite import writer as writer_module
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.sqlite.writer import in_thread, raw
from orchestr8d.store.types import EventFilter
from tests.store.conftest import LIMITS
from tests.store.helpers import Hand, check, every, ids, new
from tests.store.sqlite.conftest import writer_of

Do = Callable[[Callable[[Tx], Any]], Any]


def put(key: str) -> Callable[[Tx], None]:
    def unit(tx: Tx) -> None:
        tx.db.execute("INSERT INTO meta (key, value) VALUES (?, '')", (f"test {key}",))

    return unit


async def keys(store: SqliteStore) -> set[str]:
    return await writer_of(store).do(
        lambda tx: {row[0][5:] for row in tx.db.execute("SELECT key FROM meta WHERE key LIKE 'test %'")}
    )


class Gate:
    """A unit that holds the writer until it is opened."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, tx: Tx) -> None:
        self.entered.set()
        assert self.opened.wait(10)

    async def closed_in(self, do: Do) -> asyncio.Task[None]:
        """The gate at work: from now on units wait together."""
        task = asyncio.create_task(do(self))
        await asyncio.to_thread(self.entered.wait)
        return task


async def test_what_waits_is_committed_together(store: SqliteStore, do: Do, commits: list[int]) -> None:
    gate = Gate()
    first = await gate.closed_in(do)
    rest = [asyncio.create_task(do(put(str(i)))) for i in range(300)]
    await asyncio.sleep(0)
    gate.opened.set()
    await asyncio.gather(first, *rest)
    assert commits == [1, 256, 44]
    assert len(await keys(store)) == 300


async def test_a_bad_unit_fails_alone(store: SqliteStore, do: Do, commits: list[int]) -> None:
    def broken(tx: Tx) -> None:
        put("half")(tx)
        tx.tell("task.created", {})
        tx.next_seq()
        tx.cancels.append("x")
        raise ValueError("broken")

    def wrong(tx: Tx) -> None:
        put("half")(tx)
        tx.db.execute("INSERT INTO meta (key, value) VALUES ('test half', NULL)")

    gate = Gate()
    first = await gate.closed_in(do)
    units = [put("a"), broken, put("b"), wrong, put("c")]
    tasks = [asyncio.create_task(do(unit)) for unit in units]
    await asyncio.sleep(0)
    gate.opened.set()
    await first
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(r) for r in results] == [type(None), ValueError, type(None), sqlite3.IntegrityError, type(None)]
    assert await keys(store) == {"a", "b", "c"}
    assert await store.event_bounds() == (1, 0)
    assert commits[:2] == [1, 5]


async def test_a_failed_submit_among_others(hand: Hand) -> None:
    await hand.add(unique_key="k")
    calls = [
        hand.store.submit([new(queue="q", concurrency_key="k"), *([new(unique_key="k")] if i % 3 == 0 else [])], ids)
        for i in range(30)
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [isinstance(r, Problem) for r in results] == [i % 3 == 0 for i in range(30)]
    views = await every(hand.store)
    assert [view.task.seq for view in views] == list(range(1, 22))
    await check(hand.store)


async def test_a_caller_that_goes_away_leaves_no_transaction_open(store: SqliteStore, do: Do) -> None:
    gate = Gate()
    first = await gate.closed_in(do)
    waiting = [asyncio.create_task(do(put(str(i)))) for i in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    waiting[1].cancel()
    gate.opened.set()
    results = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [isinstance(r, asyncio.CancelledError) for r in results] == [True, False, True, False]
    # Only the answer is lost: the transaction went on.
    assert await keys(store) == {"0", "1", "2"}
    db = writer_of(store)._db
    assert not await in_thread(db, lambda: raw(db).in_transaction)


async def test_too_much_waiting_is_unavailable(store: SqliteStore, do: Do) -> None:
    gate = Gate()
    first = await gate.closed_in(do)
    calls = [asyncio.create_task(do(put(str(i)))) for i in range(writer_module.MAX_WAITING + 3)]
    await asyncio.sleep(0)
    gate.opened.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    await first
    refused = [r for r in results if isinstance(r, Problem)]
    assert [r.kind for r in refused] == ["unavailable"] * 3
    assert all(r.retry_after for r in refused)
    assert len(await keys(store)) == writer_module.MAX_WAITING


async def test_a_full_disk_fails_the_whole_batch_and_nothing_else(hand: Hand, do: Do, bus: Bus) -> None:
    store = hand.store
    await hand.add("before")
    told: list[object] = []
    bus.observe(told.extend)

    def fill(tx: Tx) -> None:
        pages = tx.db.execute("PRAGMA page_count").fetchone()[0]
        tx.db.execute(f"PRAGMA max_page_count = {pages + 2}")

    gate = Gate()
    await do(fill)
    before = await hand.events()
    first = await gate.closed_in(do)
    calls = [asyncio.create_task(store.submit([new("x" * 5000) for _ in range(5)], ids)) for _ in range(5)]
    small = asyncio.create_task(store.pause((await store.views(_all(), 1, None))[0].task.id))
    await asyncio.sleep(0)
    gate.opened.set()
    await first
    results = await asyncio.gather(*calls, small, return_exceptions=True)
    assert [getattr(r, "kind", r) for r in results] == ["unavailable"] * 6
    assert all(getattr(r, "retry_after", None) for r in results)
    assert told == []
    assert await hand.events() == before
    assert [v.task.status for v in await every(store)] == ["queued"]
    await do(lambda tx: tx.db.execute("PRAGMA max_page_count = 1000000").fetchone())
    task = await hand.add("after")
    assert task.seq == 2
    await hand.end(await hand.start(task))
    await check(store)


def _all() -> Any:
    from orchestr8d.store.types import TaskFilter

    return TaskFilter()


async def test_a_unit_that_ends_the_transaction_does_not_leave_it_half(store: SqliteStore, do: Do) -> None:
    """What SQLite does by itself after an I/O error: the transaction is gone, with the savepoints."""

    def broken(tx: Tx) -> None:
        put("lost")(tx)
        tx.db.execute("ROLLBACK")
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
        raise error

    gate = Gate()
    first = await gate.closed_in(do)
    tasks = [asyncio.create_task(do(unit)) for unit in (put("a"), broken, put("b"))]
    await asyncio.sleep(0)
    gate.opened.set()
    await first
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [getattr(r, "kind", r) for r in results] == ["unavailable"] * 3
    assert await keys(store) == set()


async def test_a_defect_stops_the_store_loudly_and_nobody_waits_for_ever(
    path: Path, clock: FakeClock, bus: Bus
) -> None:
    def observer(events: object) -> None:
        raise KeyError("a defect")

    store = await open_store(path, clock=clock, bus=bus, limits=LIMITS)
    watch = asyncio.create_task(store.watch())
    bus.observe(observer)
    results = await asyncio.wait_for(
        asyncio.gather(*[store.submit([new()], ids) for _ in range(3)], return_exceptions=True), 10
    )
    assert all(isinstance(r, Exception) or r.tasks for r in results)
    with pytest.raises(KeyError):
        await watch
    with pytest.raises(Problem):
        await store.submit([new()], ids)
    before = threading.active_count()
    with pytest.raises(KeyError):
        await store.close()
    # Its connections are closed all the same: an open one would keep the process alive.
    assert threading.active_count() < before


async def test_close_commits_what_was_accepted(path: Path, clock: FakeClock, bus: Bus) -> None:
    store = await open_store(path, clock=clock, bus=bus, limits=LIMITS)
    watch = asyncio.create_task(store.watch())
    calls = [asyncio.create_task(store.submit([new()], ids)) for _ in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert all(created.tasks for created in await asyncio.gather(*calls))
    with pytest.raises(Problem):
        await store.submit([new()], ids)
    await watch
    await store.close()
    # All of it is in the one file: the log beside it was folded in and is gone.
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    again = await open_store(path, clock=clock, bus=bus, limits=LIMITS)
    assert len((await again.events(EventFilter(types=("task.created",)), 0, 100))[0]) == 50
    await again.close()


# -- the contract of aiosqlite's `_execute`, the one private call that is used of it


async def test_in_thread_runs_where_the_connection_lives() -> None:
    db = await aiosqlite.connect(":memory:", isolation_level=None)
    try:
        assert isinstance(raw(db), sqlite3.Connection)
        threads = {await in_thread(db, threading.get_ident) for _ in range(3)}
        assert len(threads) == 1
        assert threads != {threading.get_ident()}
        assert await in_thread(db, lambda a, b: a + b, 1, 2) == 3
        with pytest.raises(ZeroDivisionError):
            await in_thread(db, lambda: 1 // 0)
        assert await in_thread(db, lambda: raw(db).execute("SELECT 1").fetchone()) == (1,)
    finally:
        await db.close()


async def test_in_thread_goes_on_when_its_caller_goes_away() -> None:
    db = await aiosqlite.connect(":memory:", isolation_level=None)
    try:
        entered, opened, done = threading.Event(), threading.Event(), threading.Event()

        def work() -> None:
            entered.set()
            assert opened.wait(10)
            done.set()

        call = asyncio.create_task(in_thread(db, work))
        await asyncio.to_thread(entered.wait)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        opened.set()
        assert await in_thread(db, lambda: 1) == 1
        assert done.is_set()
    finally:
        await db.close()


def test_the_minor_version_that_this_was_tried_with() -> None:
    assert aiosqlite.__version__.startswith("0.22.")
