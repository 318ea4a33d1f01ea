"""The SQLite backend: one file, one writer, readers beside it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import aiosqlite

from orchestr8d.clock import Clock
from orchestr8d.events import Bus
from orchestr8d.store.sqlite import schema, upkeep
from orchestr8d.store.sqlite.follow import Follower
from orchestr8d.store.sqlite.schema import (
    backup_file,
    corrupts_wal,
    latest_version,
    migrate_file,
    restore_file,
    schema_version,
)
from orchestr8d.store.sqlite.store import SqliteStore, last_queued_at
from orchestr8d.store.sqlite.writer import OnCommit, Writer, in_thread, raw
from orchestr8d.store.types import Limits

__all__ = [
    "SqliteStore", "backup_file", "corrupts_wal", "latest_version", "migrate_file", "open_store", "restore_file",
    "schema_version",
]  # fmt: skip
_READERS = 2
# 16 MB of log between two checkpoints (SQLite by itself: 4): pages that are written again and again, as those of the
# indexes are, goes to the file once.
_CHECKPOINT_PAGES = 4000
# The writer's own page cache: the ends of a dozen indexes over a million tasks do not fit into SQLite's usual 2 MB.
_CACHE_KIB = 16_000


async def open_store(
    path: Path,
    *,
    clock: Clock,
    bus: Bus,
    limits: Limits | None = None,
    synchronous: str = "FULL",
    on_commit: OnCommit | None = None,
) -> SqliteStore:
    """Opens (and makes, and migrates) the database at `path`. `on_commit` is told (units, seconds) of each commit."""
    db = await _hand_over(schema.connect(path))
    readers: list[aiosqlite.Connection] = []
    try:
        await in_thread(db, schema.migrate, raw(db))
        await in_thread(db, raw(db).execute, f"PRAGMA synchronous = {synchronous}")
        await in_thread(db, raw(db).execute, f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        await in_thread(db, raw(db).execute, f"PRAGMA cache_size = -{_CACHE_KIB}")
        follower = Follower()
        follower.last_queued_at = await in_thread(db, last_queued_at, raw(db))
        steps = await in_thread(db, upkeep.watch_steps, raw(db), clock)
        for _ in range(_READERS):
            readers.append(await _hand_over(schema.connect(path, readonly=True)))
    except BaseException:
        for connection in (db, *readers):
            await connection.close()
        raise
    writer = Writer(db, clock, steps, bus, follower, on_commit)
    return SqliteStore(path, writer, follower, readers, clock, limits or Limits())


async def _hand_over(db: sqlite3.Connection) -> aiosqlite.Connection:
    """Gives an open connection to a thread. Had the thread to open it and failed, it would outlive the event loop."""
    return await aiosqlite.Connection(lambda: db, iter_chunk_size=64)
