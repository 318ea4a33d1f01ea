"""The one writer: takes whole transactions from a queue and commits what waits together (group commit)."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import aiosqlite
import structlog

from orchestr8d.clock import Clock, StepWatch
from orchestr8d.core.errors import Problem
from orchestr8d.core.notices import User
from orchestr8d.events import Bus
from orchestr8d.store.sqlite import upkeep
from orchestr8d.store.sqlite.deliveries import Subscriptions
from orchestr8d.store.sqlite.transaction import Numbers, Tx

T = TypeVar("T")
Unit = Callable[[Tx], Any]
OnCommit = Callable[[int, float], None]

# After these SQLite has rolled the whole transaction back, savepoints included (https://sqlite.org/lang_transaction.html).
_FATAL = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CORRUPT,
                    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY})  # fmt: skip
MAX_WAITING = 4096
MAX_BATCH = 256
# Turns of the event loop that the first of a batch waits: what became ready together gets here within a few of them,
# and a commit costs more than they do.
TURNS = 4


async def in_thread(db: aiosqlite.Connection, fn: Callable[..., T], *args: object) -> T:
    """Runs `fn(*args)` on the connection's thread, in one hop.

    aiosqlite has no public call for this: the only use of its `_execute`, whose minor version is pinned.
    """
    result: T = await db._execute(fn, *args)  # type: ignore[no-untyped-call]
    return result


def raw(db: aiosqlite.Connection) -> sqlite3.Connection:
    """The sqlite3 connection; to be used on its thread only."""
    return db._conn


class Writer:
    """Owns the write connection. `do` is answered after the commit is on disk, or with the unit's own exception."""

    def __init__(
        self,
        db: aiosqlite.Connection,
        clock: Clock,
        steps: StepWatch,
        bus: Bus,
        follow: Callable[[Tx], None],
        on_commit: OnCommit | None = None,
    ) -> None:
        self._db = db
        self._follow = follow
        self._clock = clock
        self._steps = steps
        self._bus = bus
        self._on_commit = on_commit
        self._queue: asyncio.Queue[tuple[Unit, asyncio.Future[Any]] | None] = asyncio.Queue(MAX_WAITING)
        self._closing = False
        self._subscriptions = Subscriptions()
        self.users: Mapping[str, User] = {}
        # What the last transaction gave out; unknown after one that failed.
        self._numbers: Numbers | None = None
        self._loop_task = asyncio.get_running_loop().create_task(self._run(), name="store-writer")

    async def do(self, unit: Callable[[Tx], T]) -> T:
        """Runs `unit` in a savepoint of its own. Problem(unavailable) when too much waits or the disk is full.

        A caller that is cancelled meanwhile loses the answer, never the transaction.
        """
        if self._closing:
            raise Problem("unavailable", "the store is closing", retry_after=5)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((unit, future))
        except asyncio.QueueFull:
            raise Problem("unavailable", "too many writes wait for the store", retry_after=1) from None
        return await future

    async def close(self) -> None:
        """What was accepted is committed first."""
        if not self._closing:
            self._closing = True
            await self._queue.put(None)
        try:
            await self._loop_task
        finally:
            await self._db.close()

    async def watch(self) -> None:
        """Returns when the writer was closed; raises what killed it, which never should."""
        await asyncio.shield(self._loop_task)

    async def _run(self) -> None:
        try:
            await self._serve()
        finally:
            # Only after a defect is anybody left here; they must not wait for ever.
            self._closing = True
            while not self._queue.empty():
                item = self._queue.get_nowait()
                if item is not None and not item[1].done():
                    item[1].set_exception(Problem("unavailable", "the store has stopped"))

    async def _serve(self) -> None:
        last = False
        while not last:
            batch = []
            item = await self._queue.get()
            for _ in range(TURNS):
                await asyncio.sleep(0)
            while item is not None:
                batch.append(item)
                if len(batch) == MAX_BATCH or self._queue.empty():
                    break
                item = self._queue.get_nowait()
            last = item is None
            if batch:
                await self._commit(batch)

    async def _commit(self, batch: Sequence[tuple[Unit, asyncio.Future[Any]]]) -> None:
        started = self._clock.monotonic()
        try:
            results, tx = await in_thread(self._db, self._transact, [unit for unit, _ in batch])
        except Exception as e:
            problem = Problem("unavailable", f"the store cannot write now: {e}", retry_after=5)
            for _, future in batch:
                if not future.done():
                    future.set_exception(problem)
            if not isinstance(e, sqlite3.Error):
                raise
            return
        try:
            # Before the answers: whoever asked may read at once, and what it started may have been told already.
            self._tell(tx)
            if self._on_commit is not None:
                self._on_commit(len(batch), self._clock.monotonic() - started)
        finally:
            # It is on disk, whatever an observer makes of it.
            self._answer(batch, results)

    def _tell(self, tx: Tx) -> None:
        for said, fields in tx.warnings:
            structlog.get_logger().warning(said, **fields)
        if tx.events:
            self._bus.publish(tx.events)
        if tx.quiet:
            self._bus.publish((), tx.quiet)
        if tx.cancels:
            self._bus.publish_cancels(tx.cancels)
        self._bus.publish_work(tx.work)

    @staticmethod
    def _answer(
        batch: Sequence[tuple[Unit, asyncio.Future[Any]]], results: Sequence[tuple[Any, BaseException | None]]
    ) -> None:
        for (_, future), (value, error) in zip(batch, results, strict=True):
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _transact(self, units: Sequence[Unit]) -> tuple[list[tuple[Any, BaseException | None]], Tx]:
        db = raw(self._db)
        db.execute("BEGIN IMMEDIATE")
        try:
            # Before anything is decided by the new time.
            step = self._steps.step()
            tx = Tx(db, self._clock.now(), self._follow, self._subscriptions, self._numbers)
            tx.users = self.users
            self._numbers = None
            if step:
                upkeep.shift(tx, step, self._steps.mark(step))
            results = [_savepoint(db, tx, unit) for unit in units]
            tx.flush()
            db.execute("COMMIT")
            self._numbers = tx.numbers
            if step:
                self._steps.accept(step)
                structlog.get_logger().warning("the wall clock was set", by_seconds=round(step, 3))
        except BaseException:
            self._subscriptions.forget()
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return results, tx


def _savepoint(db: sqlite3.Connection, tx: Tx, unit: Unit) -> tuple[Any, BaseException | None]:
    """The unit's value, or its exception with all that it wrote undone."""
    db.execute("SAVEPOINT unit")
    mark = tx.mark()
    try:
        value = unit(tx)
        tx.follow_up()
    except Exception as e:
        if isinstance(e, sqlite3.Error) and (getattr(e, "sqlite_errorcode", 0) & 0xFF) in _FATAL:
            raise
        db.execute("ROLLBACK TO unit")
        db.execute("RELEASE unit")
        tx.back_to(mark)
        return None, e
    db.execute("RELEASE unit")
    return value, None
