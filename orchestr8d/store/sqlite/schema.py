"""The database file: numbered SQL files bring it from version to version; a file from the future is refused."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from orchestr8d.core.errors import Problem

# "o8d1": lets `file` and us tell our databases from others.
APPLICATION_ID = 0x6F386431


def _migrations() -> list[tuple[int, str]]:
    """(version, SQL) in order, from the numbered files of the package."""
    folder = files("orchestr8d.store.sqlite") / "sql"
    found = [(int(f.name[:4]), f.read_text("utf-8")) for f in folder.iterdir() if f.name.endswith(".sql")]
    return sorted(found)


def latest_version() -> int:
    return _migrations()[-1][0]


def _statements(script: str) -> Iterator[str]:
    text = ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            yield text
            text = ""


def connect(path: Path, *, readonly: bool = False) -> sqlite3.Connection:
    """A connection without implicit transactions. Readers are `mode=ro`: with `query_only` they would checkpoint."""
    mode = "ro" if readonly else "rwc"
    uri = f"file:{_quoted(path)}?mode={mode}"
    # Safe without the check: a connection is used by one thread at a time, aiosqlite's.
    db = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=512)
    db.execute("PRAGMA temp_store = MEMORY")
    return db


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path.absolute()))


def version(db: sqlite3.Connection) -> int:
    """The schema's version; 0 for an empty database. Problem when the file is not ours."""
    try:
        number: int = db.execute("PRAGMA user_version").fetchone()[0]
        application: int = db.execute("PRAGMA application_id").fetchone()[0]
        tables = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    except sqlite3.DatabaseError as e:
        raise Problem("unprocessable", f"not a database of orchestr8d: {e}") from e
    if application != APPLICATION_ID and (tables or number):
        raise Problem("unprocessable", "not a database of orchestr8d (another program made it)")
    return number


def migrate(db: sqlite3.Connection) -> tuple[int, int]:
    """Brings the schema to the latest version, each step in a transaction of its own; answers (from, to)."""
    old = version(db)
    steps = _migrations()
    if old > steps[-1][0]:
        raise Problem(
            "unprocessable",
            f"the database has schema version {old}, this orchestr8d knows versions up to {steps[-1][0]}: "
            "it was written by a newer one. Install that again, or restore an older backup.",
        )
    db.execute("PRAGMA journal_mode = WAL")
    for number, script in steps:
        if number <= old:
            continue
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(script):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {number}")
            db.execute("COMMIT")
        except BaseException:
            # SQLite has undone it already where the disk failed: the reason is what counts then.
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
    return old, steps[-1][0]


def corrupts_wal(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite can corrupt a WAL that two connections write or checkpoint at once (fixed in 3.51.3, and in
    3.44.6 and 3.50.7). We have one writer; another program on the same file would be the second."""
    if version[:2] == (3, 44):
        return version < (3, 44, 6)
    if version[:2] == (3, 50):
        return version < (3, 50, 7)
    return (3, 7, 0) <= version < (3, 51, 3)


def schema_version(path: Path) -> int:
    db = connect(path, readonly=True)
    try:
        return version(db)
    finally:
        db.close()


def migrate_file(path: Path) -> tuple[int, int]:
    """(from, to) version of the file at `path`, which is made if it does not exist."""
    db = connect(path)
    try:
        return migrate(db)
    finally:
        db.close()


def backup_file(path: Path, target: Path) -> None:
    """A consistent copy of a database that may be in use. `target` appears whole or not at all."""
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    source = connect(path, readonly=True)
    try:
        part.touch(mode=0o600)
        copy = sqlite3.connect(part)
        try:
            source.backup(copy)
            # One file, without a journal beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
        finally:
            copy.close()
        with part.open("rb") as f:
            os.fsync(f.fileno())
        part.replace(target)
    finally:
        source.close()
        part.unlink(missing_ok=True)


def restore_file(backup: Path, path: Path) -> None:
    """Puts a backup in the place of the database at `path`; nothing changes when the backup is not sound.

    No daemon may have the database open. Problem says what is wrong with the backup.
    """
    source = connect(backup, readonly=True)
    try:
        found = version(source)
        if not 0 < found <= latest_version():
            raise Problem("unprocessable", f"{backup} has schema version {found}, known are 1 to {latest_version()}")
        verdict = source.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise Problem("unprocessable", f"{backup} is damaged: {verdict}")
    finally:
        source.close()
    fresh = path.with_name(path.name + ".restore")
    backup_file(backup, fresh)
    # A log of the old database must not be replayed into the new one, nor be lost before that is there: fold it in.
    if path.exists():
        with contextlib.suppress(sqlite3.Error, Problem):
            old = connect(path)
            try:
                old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                old.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    fresh.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
