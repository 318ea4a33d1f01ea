"""The file: made from numbered steps, refused when it is not ours, copied and put back whole, read by readers only."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core.errors import Problem
from orchestr8d.events import Bus
from orchestr8d.store.sqlite import (
    SqliteStore,
    backup_file,
    corrupts_wal,
    latest_version,
    migrate_file,
    open_store,
    restore_file,
    schema,
    schema_version,
)
from orchestr8d.store.sqlite.schema import connect
from orchestr8d.store.sqlite.writer import in_thread, raw
from tests.store.conftest import LIMITS
from tests.store.helpers import Hand, every, ids, new
from tests.store.sqlite.conftest import writer_of


async def opened(path: Path, clock: FakeClock) -> SqliteStore:
    return await open_store(path, clock=clock, bus=Bus(), limits=LIMITS)


def tampered(path: Path, *statements: str) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()


# -- versions


def test_a_file_from_nothing(path: Path) -> None:
    assert migrate_file(path) == (0, latest_version())
    assert migrate_file(path) == (latest_version(), latest_version())
    assert schema_version(path) == latest_version()
    db = connect(path)
    assert db.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_the_steps_are_numbered_without_a_gap() -> None:
    assert [number for number, _ in schema._migrations()] == list(range(1, latest_version() + 1))


def test_a_step_is_taken_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate_file(path)
    bad = "CREATE TABLE half (x);\nCREATE TABLE half (x);\n"
    latest = latest_version()
    steps = [*schema._migrations(), (latest + 1, "CREATE TABLE good (x);"), (latest + 2, bad)]
    monkeypatch.setattr(schema, "_migrations", lambda: steps)
    with pytest.raises(sqlite3.OperationalError):
        migrate_file(path)
    assert schema_version(path) == latest + 1
    db = connect(path)
    tables = {row[0] for row in db.execute("SELECT name FROM sqlite_schema")}
    db.close()
    assert "good" in tables
    assert "half" not in tables


async def test_a_file_from_the_future_is_refused(path: Path, clock: FakeClock) -> None:
    migrate_file(path)
    tampered(path, f"PRAGMA user_version = {latest_version() + 1}")
    with pytest.raises(Problem, match="newer"):
        migrate_file(path)
    with pytest.raises(Problem, match="newer"):
        await opened(path, clock)


@pytest.mark.parametrize("what", ["other program", "not a database", "damaged"])
async def test_a_file_of_something_else_is_refused_and_left_alone(path: Path, clock: FakeClock, what: str) -> None:
    if what == "other program":
        tampered(path, "CREATE TABLE mine (x)")
    elif what == "not a database":
        path.write_text("dear diary\n" * 1000)
    else:
        migrate_file(path)
        path.write_bytes(b"\0" * 50 + path.read_bytes()[50:])
    before = path.read_bytes()
    with pytest.raises(Problem, match="not a database of orchestr8d"):
        await opened(path, clock)
    with pytest.raises(Problem):
        schema_version(path)
    assert path.read_bytes() == before


async def test_a_place_that_cannot_be_written(tmp_path: Path, clock: FakeClock) -> None:
    with pytest.raises((Problem, sqlite3.Error)):
        await opened(tmp_path / "missing" / "store.db", clock)


async def test_names_that_mean_something_in_a_uri(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "a ?mode=memory#b%20&c" / "store.db"
    path.parent.mkdir()
    store = await opened(path, clock)
    await Hand(store, clock).add()
    await store.close()
    assert path.exists()
    assert schema_version(path) == latest_version()


# -- readers and the writer


async def test_readers_cannot_write(store: SqliteStore) -> None:
    assert store._readers
    for reader in store._readers:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await in_thread(reader, raw(reader).execute, "DELETE FROM tasks")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            await in_thread(reader, raw(reader).execute, "CREATE TABLE x (y)")


async def test_an_acknowledged_write_is_on_disk(path: Path, clock: FakeClock) -> None:
    store = await opened(path, clock)
    db = writer_of(store)._db
    assert await in_thread(db, lambda: raw(db).execute("PRAGMA synchronous").fetchone()) == (2,)
    assert await in_thread(db, lambda: raw(db).execute("PRAGMA journal_mode").fetchone()) == ("wal",)
    # What another process sees without any help of ours.
    await store.submit([new()], ids)
    other = sqlite3.connect(path)
    assert other.execute("SELECT count(*) FROM tasks").fetchone() == (1,)
    other.close()
    await store.close()


async def test_a_log_that_was_left_behind_is_read(path: Path, clock: FakeClock, tmp_path: Path) -> None:
    """What a killed daemon leaves: the file and the log beside it."""
    store = await opened(path, clock)
    await Hand(store, clock).add()
    (tmp_path / "killed").mkdir()
    for part in ("", "-wal"):
        source = path.with_name(path.name + part)
        (tmp_path / "killed" / source.name).write_bytes(source.read_bytes())
    await store.close()
    again = await opened(tmp_path / "killed" / path.name, clock)
    assert len(await every(again)) == 1
    await again.close()


# -- copies


async def test_a_backup_can_be_put_back(path: Path, clock: FakeClock, tmp_path: Path) -> None:
    store = await opened(path, clock)
    hand = Hand(store, clock)
    kept = await hand.add("kept", tags=["t"])
    copy = tmp_path / "copy.db"
    await store.backup(copy)
    await hand.add("later")
    await store.close()
    assert {p.name for p in tmp_path.iterdir()} == {path.name, copy.name}
    assert copy.stat().st_mode & 0o777 == 0o600
    # A log that a killed daemon left is not replayed into what is put back.
    path.with_name(path.name + "-wal").write_bytes(os.urandom(5000))
    restore_file(copy, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert {p.name for p in tmp_path.iterdir()} == {path.name, copy.name}
    again = await opened(path, clock)
    assert [view.task.id for view in await every(again)] == [kept.id]
    await Hand(again, clock).start(kept)
    await again.close()


@pytest.mark.parametrize("what", ["empty", "text", "damaged", "from the future", "other program"])
def test_a_backup_that_is_not_sound_changes_nothing(path: Path, tmp_path: Path, what: str) -> None:
    migrate_file(path)
    before = path.read_bytes()
    copy = tmp_path / "copy.db"
    if what == "other program":
        tampered(copy, "CREATE TABLE mine (x)")
    else:
        backup_file(path, copy)
    if what == "empty":
        copy.write_bytes(b"")
    elif what == "text":
        copy.write_text("x" * 10_000)
    elif what == "damaged":
        data = bytearray(copy.read_bytes())
        data[4096 : 4096 * 6] = b"\xff" * 4096 * 5
        copy.write_bytes(bytes(data))
    elif what == "from the future":
        tampered(copy, f"PRAGMA user_version = {latest_version() + 1}")
    with pytest.raises(Problem):
        restore_file(copy, path)
    assert path.read_bytes() == before


def test_a_backup_that_cannot_be_written_leaves_nothing(path: Path, tmp_path: Path) -> None:
    migrate_file(path)
    target = tmp_path / "there"
    target.mkdir()
    with pytest.raises(OSError):
        backup_file(path, target)
    with pytest.raises(OSError):
        backup_file(path, tmp_path / "missing" / "copy.db")
    assert [p for p in tmp_path.rglob("*") if "copy" in p.name or p.suffix == ".part"] == []


# -- SQLite itself


@pytest.mark.parametrize(
    ("version", "corrupts"),
    [
        ((3, 6, 23), False), ((3, 7, 0), True), ((3, 40, 1), True), ((3, 44, 5), True), ((3, 44, 6), False),
        ((3, 45, 0), True), ((3, 49, 2), True), ((3, 50, 6), True), ((3, 50, 7), False), ((3, 51, 0), True),
        ((3, 51, 2), True), ((3, 51, 3), False), ((3, 52, 0), False), ((4, 0, 0), False),
    ],
)  # fmt: skip
def test_which_versions_can_corrupt_a_log(version: tuple[int, int, int], corrupts: bool) -> None:
    assert corrupts_wal(version) is corrupts
