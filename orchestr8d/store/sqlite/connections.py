"""What the store's verbs stand on: one writer, readers that are taken in turns, the limits, and a look at the disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import aiosqlite

from orchestr8d.clock import Clock
from orchestr8d.core.errors import Problem
from orchestr8d.store.sqlite import reads, submitting
from orchestr8d.store.sqlite.follow import Follower
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.sqlite.writer import Writer, in_thread, raw
from orchestr8d.store.types import Limits

T = TypeVar("T")


class Connections:
    """The verbs are in its subclasses, by what they are about; SqliteStore is all of them."""

    def __init__(
        self, path: Path, writer: Writer, follower: Follower, readers: Sequence[aiosqlite.Connection], clock: Clock,
        limits: Limits,
    ) -> None:  # fmt: skip
        self._path = path
        self._writer = writer
        self._follower = follower
        self._readers = list(readers)
        self._free: asyncio.LifoQueue[aiosqlite.Connection] = asyncio.LifoQueue()
        for reader in readers:
            self._free.put_nowait(reader)
        self._clock = clock
        self.limits = limits

    @property
    def limits(self) -> Limits:
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        self._follower.limits = limits
        self._writer.users = limits.users

    async def close(self) -> None:
        # The writer last: the last connection folds the write-ahead log into the file, and readers cannot.
        try:
            for reader in self._readers:
                await reader.close()
        finally:
            await self._writer.close()

    async def watch(self) -> None:
        """Returns when the store was closed; raises when its writer died."""
        await self._writer.watch()

    async def _read(self, fn: Callable[..., T], *args: object) -> T:
        reader = await self._free.get()
        try:
            return await in_thread(reader, reads.snapshot, raw(reader), fn, *args)
        except sqlite3.OperationalError as e:
            raise Problem("unavailable", f"the store cannot read now: {e}", retry_after=5) from e
        finally:
            self._free.put_nowait(reader)

    def _check_space(self, tx: Tx) -> None:
        """Raises Problem; the disk is looked at once a transaction, not by each unit of it."""
        if not tx.has_space:
            submitting.check_space(self._path, self._limits.min_free_disk)
            tx.has_space = True

    def _has_space(self, tx: Tx) -> bool:
        try:
            self._check_space(tx)
        except Problem:
            return False
        return True
