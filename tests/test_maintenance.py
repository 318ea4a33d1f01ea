"""Upkeep on a real store: what is old goes with its files, words become searchable, beats go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestr8d import maintenance
from orchestr8d.clock import FakeClock
from orchestr8d.core.errors import Problem
from orchestr8d.events import Bus
from orchestr8d.maintenance import Pruner, TextIndexer
from orchestr8d.processes.files import attempt_files
from orchestr8d.store import Store
from orchestr8d.store.sqlite import open_store
from orchestr8d.store.types import Limits, Retention, TaskFilter
from tests.running import until
from tests.store.helpers import Hand, every, new

WEEK = Retention(dict.fromkeys(("completed", "failed", "cancelled", "skipped"), 604_800.0), 604_800.0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def bus() -> Bus:
    return Bus()


@pytest.fixture
async def store(tmp_path: Path, clock: FakeClock, bus: Bus) -> AsyncIterator[Store]:
    limits = Limits(min_free_disk=0)
    made = await open_store(tmp_path / "store.db", clock=clock, bus=bus, limits=limits, synchronous="OFF")
    yield made
    await made.close()


@pytest.fixture
def hand(store: Store, clock: FakeClock) -> Hand:
    return Hand(store, clock)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("HEARTBEAT", "TEXT_DELAY", "STEP_PAUSE", "FIRST_PRUNE", "PRUNE"):
        monkeypatch.setattr(maintenance, pause, 0.005)


async def test_what_is_past_its_keep_goes_with_its_files(hand: Hand, clock: FakeClock, tmp_path: Path) -> None:
    old, waiting = await hand.finished("old"), await hand.add("waiting", delay=1e7)
    clock.advance(604_800)
    fresh = await hand.finished("fresh")
    paths = {}
    for task in (old, fresh):
        (attempt,) = await hand.store.attempts(task.id)
        paths[task.id] = [Path(path) for path in attempt_files(tmp_path, attempt.id).all()]
        # What an attempt may have put in a file's place; and the last one is missing.
        (paths[task.id][0] / "in it").mkdir(parents=True)
        for path in paths[task.id][1:-1]:
            path.write_text("out")
    clock.advance(1)
    pruner = Pruner(hand.store, lambda: WEEK, lambda attempt_id: attempt_files(tmp_path, attempt_id), tmp_path)
    assert await pruner.run_once() == 1
    assert [view.task.id for view in await every(hand.store)] == [waiting.id, fresh.id]
    assert not any(path.exists() for path in paths[old.id])
    assert all(path.exists() for path in paths[fresh.id][:-1])
    assert (await hand.store.event_bounds())[0] > 1
    assert await pruner.run_once() == 0


async def test_everything_goes_however_much_it_is(hand: Hand, clock: FakeClock, tmp_path: Path) -> None:
    for task in await hand.add_all(*[new() for _ in range(1000)], *[new() for _ in range(100)]):
        await hand.store.cancel(task.id)
    clock.advance(604_801)
    assert await Pruner(hand.store, lambda: WEEK, lambda a: attempt_files(tmp_path, a), tmp_path).run_once() == 1100
    assert await every(hand.store) == []
    assert await hand.events() == []


async def test_the_pruner_goes_on_after_a_store_that_could_not_write(
    hand: Hand, clock: FakeClock, tmp_path: Path
) -> None:
    await hand.finished()
    clock.advance(604_801)
    fails = iter([Problem("unavailable", "full"), OSError("too many open files")])

    def retention() -> Retention:
        for error in fails:
            raise error
        return WEEK

    loop = asyncio.create_task(Pruner(hand.store, retention, lambda a: attempt_files(tmp_path, a), tmp_path).run())
    while await every(hand.store):
        await asyncio.sleep(0.005)
        assert not loop.done()
    loop.cancel()


async def test_new_tasks_are_indexed_behind_the_submits(hand: Hand, bus: Bus) -> None:
    await hand.add("before")
    indexer = TextIndexer(hand.store)
    bus.observe(indexer.observe)
    loop = asyncio.create_task(indexer.run())
    for _ in range(3):
        await hand.add_all(*[new("word") for _ in range(600)])
        while await hand.store._read(_waits):  # type: ignore[attr-defined]
            await asyncio.sleep(0.005)
            assert not loop.done()
    loop.cancel()
    assert len(await hand.store.views(TaskFilter(q="word"), 10_000, None)) == 1800


def _waits(db: object) -> bool:
    from orchestr8d.store.sqlite import upkeep

    return upkeep.text_waits(db)  # type: ignore[arg-type]


async def test_a_beat_goes_on_after_a_store_that_could_not_write() -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == 2:
            raise Problem("unavailable", "full")

    loop = asyncio.create_task(maintenance.heartbeat(beat))
    await until(lambda: beats >= 4)
    assert not loop.done()
    loop.cancel()


async def test_a_defect_in_a_beat_is_not_hidden() -> None:
    async def beat() -> None:
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        await asyncio.wait_for(maintenance.heartbeat(beat), 5)


async def test_the_watchdog_is_told_at_once_and_again() -> None:
    told = 0

    def alive() -> None:
        nonlocal told
        told += 1

    loop = asyncio.create_task(maintenance.watchdog(0.005, alive))
    await until(lambda: told >= 3)
    loop.cancel()
