"""A SQLite store and its file, for what only this backend promises."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.events import Bus
from orchestr8d.store.sqlite import SqliteStore, open_store
from orchestr8d.store.sqlite.schema import connect, migrate
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.sqlite.writer import Writer
from tests.store.conftest import LIMITS
from tests.store.helpers import Hand


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def commits() -> list[int]:
    """How many transactions each commit held."""
    return []


@pytest.fixture
async def store(path: Path, clock: FakeClock, bus: Bus, commits: list[int]) -> AsyncIterator[SqliteStore]:
    made = await open_store(
        path, clock=clock, bus=bus, limits=LIMITS, synchronous="OFF", on_commit=lambda units, _: commits.append(units)
    )
    yield made
    await made.close()


@pytest.fixture
def hand(store: SqliteStore, clock: FakeClock) -> Hand:
    return Hand(store, clock)


@pytest.fixture
def db(path: Path) -> Any:
    """A plain connection to a migrated file that nobody else has open."""
    made = connect(path)
    migrate(made)
    yield made
    made.close()


@pytest.fixture
def do(store: SqliteStore) -> Callable[[Callable[[Tx], Any]], Any]:
    """Runs a transaction of one's own in the writer."""
    return writer_of(store).do


def writer_of(store: SqliteStore) -> Writer:
    return store._writer


def statements(db: sqlite3.Connection) -> list[str]:
    """The statements that the connection runs from now on, with their values."""
    seen: list[str] = []
    db.set_trace_callback(seen.append)
    return seen
