"""The pool on a real store: from a claim to its stored outcome, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestr8d import task_pool
from orchestr8d.clock import FakeClock
from orchestr8d.core.errors import Problem
from orchestr8d.core.model import Task
from orchestr8d.core.outcome import Outcome, failed
from orchestr8d.events import Bus
from orchestr8d.store import Store
from orchestr8d.store.sqlite import open_store
from orchestr8d.store.types import Claim, Limits
from orchestr8d.task_pool import TaskPool
from orchestr8d.task_runners import Limits as RunLimits
from tests.loops import ToldRunner
from tests.running import until
from tests.store.helpers import ME, Hand

DONE = Outcome(status="completed", exit_code=0)


class Bench:
    """A pool over a store, with a runner that does as it is told."""

    def __init__(self, store: Store, clock: FakeClock, root: Path) -> None:
        self.store = store
        self.hand = Hand(store, clock)
        self.runner = ToldRunner()
        self.freed = 0
        self.broken = False
        self.pool = TaskPool(
            self, clock, ME, {"command": self.runner}, lambda attempt_id: root / attempt_id,
            lambda claim: {"ORCHESTR8_TASK_ID": claim.task.id}, RunLimits, lambda: 3, self._free,
        )  # fmt: skip

    def _free(self) -> None:
        self.freed += 1

    async def finish(self, task_id: str, attempt_id: str, executor_id: str, outcome: Outcome) -> Task:
        if self.broken:
            raise Problem("unavailable", "the disk is full")
        return await self.store.finish(task_id, attempt_id, executor_id, outcome)

    async def started(self, **options: object) -> Claim:
        claim = await self.hand.start(await self.hand.add(**options))
        self.pool.start(claim)
        await until(lambda: claim.task.id in self.runner.runs)
        return claim

    async def over(self, claim: Claim) -> Task:
        await until(lambda: self.pool.attempt_task(claim.attempt.id) is None)
        return await self.store.task(claim.task.id)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(task_pool, "STORE_PAUSE", 0.01)
    monkeypatch.setattr(task_pool, "SHORTAGE_PAUSE", 0.01)
    clock, bus = FakeClock(), Bus()
    limits = Limits(min_free_disk=0)
    store = await open_store(tmp_path / "store.db", clock=clock, bus=bus, limits=limits, synchronous="OFF")
    made = Bench(store, clock, tmp_path)
    bus.observe_cancels(made.pool.cancel)
    yield made
    made.broken = False
    await made.pool.stop()
    await store.close()


async def test_from_a_claim_to_its_outcome(bench: Bench) -> None:
    claim = await bench.started(deadline=60.0)
    run = bench.runner.runs[claim.task.id]
    assert (run.attempt_id, run.time_left, run.adopted) == (claim.attempt.id, 60.0, False)
    assert run.env == {"ORCHESTR8_TASK_ID": claim.task.id}
    assert (bench.pool.running, bench.pool.free(), bench.pool.slots) == (1, 2, 3)
    assert bench.pool.attempt_task(claim.attempt.id) == claim.task.id
    bench.runner.end(claim.task.id, DONE)
    assert (await bench.over(claim)).status == "completed"
    assert (bench.pool.running, bench.pool.free(), bench.freed) == (0, 3, 1)


async def test_claims_come_over_the_queue_and_count_already(bench: Bench) -> None:
    loop = asyncio.create_task(bench.pool.run())
    claim = await bench.hand.start(await bench.hand.add())
    bench.pool.claimed.put_nowait(claim)
    assert bench.pool.free() == 2
    await until(lambda: bench.runner.runs)
    assert bench.pool.free() == 2
    bench.runner.end(claim.task.id, DONE)
    await bench.over(claim)
    loop.cancel()


async def test_a_cancel_reaches_the_run(bench: Bench) -> None:
    claim, other = await bench.started(), await bench.started()
    await bench.store.cancel(claim.task.id)
    assert (await bench.over(claim)).status == "cancelled"
    assert bench.pool.attempt_task(other.attempt.id) == other.task.id


async def test_a_cancel_that_is_committed_with_the_claim_is_not_lost(bench: Bench) -> None:
    task = await bench.hand.add()
    claimed, _ = await asyncio.gather(bench.store.claim(ME, 1), bench.store.cancel(task.id))
    (claim,) = claimed.claims
    bench.pool.start(claim)
    assert (await bench.over(claim)).status == "cancelled"
    assert bench.runner.runs == {}


async def test_one_that_was_cancelled_before_a_restart(bench: Bench) -> None:
    claim = await bench.hand.start(await bench.hand.add())
    await bench.store.cancel(claim.task.id)
    (left,) = await bench.store.running()
    bench.pool.start(left, adopted=True)
    assert (await bench.over(left)).status == "cancelled"


async def test_an_outcome_is_kept_until_it_can_be_stored(bench: Bench) -> None:
    claim = await bench.started(max_retries=1)
    bench.broken = True
    bench.runner.end(claim.task.id, failed("exit", "1"))
    await until(lambda: not bench.runner.runs)
    await asyncio.sleep(0.05)
    assert await bench.hand.status(claim.task) == "running"
    assert bench.pool.running == 1
    bench.broken = False
    assert (await bench.over(claim)).status == "retrying"


async def test_an_outcome_of_a_lost_lease_is_dropped(bench: Bench) -> None:
    claim = await bench.started()
    await bench.hand.end(claim)
    bench.runner.end(claim.task.id, failed("exit", "1"))
    assert (await bench.over(claim)).status == "completed"


async def test_a_kind_without_a_runner(bench: Bench) -> None:
    claim = await bench.hand.start(await bench.hand.add(kind="robot", max_retries=3))
    bench.pool.start(claim)
    task = await bench.over(claim)
    error = task.read_error()
    assert error is not None
    assert (task.status, error.kind) == ("failed", "not_found")


async def test_a_shortage_goes_back_to_the_queue(bench: Bench) -> None:
    claim = await bench.started()
    bench.runner.end(claim.task.id, Outcome(status="interrupted"))
    task = await bench.over(claim)
    assert (task.status, task.retry_count) == ("queued", 0)


async def test_stop_interrupts_what_runs_and_what_was_claimed(bench: Bench) -> None:
    running = await bench.started()
    waiting = await bench.hand.start(await bench.hand.add())
    bench.pool.claimed.put_nowait(waiting)
    await bench.pool.stop()
    assert await bench.hand.statuses(running.task, waiting.task) == ["queued", "queued"]
    assert await bench.store.running() == []


async def test_detach_leaves_children_and_stores_what_is_known(bench: Bench) -> None:
    running, ended = await bench.started(), await bench.started()
    bench.broken = True
    bench.runner.end(ended.task.id, DONE)
    await until(lambda: ended.task.id not in bench.runner.runs)
    detaching = asyncio.create_task(bench.pool.detach(5.0))
    await asyncio.sleep(0.02)
    bench.broken = False
    await detaching
    assert await bench.hand.statuses(running.task, ended.task) == ["running", "completed"]


async def test_a_detached_attempt_is_adopted(bench: Bench) -> None:
    claim = await bench.started()
    await bench.pool.detach(0.1)
    (left,) = await bench.store.running()
    bench.pool.start(left, adopted=True)
    await until(lambda: claim.task.id in bench.runner.runs)
    assert bench.runner.runs[claim.task.id].adopted
    bench.runner.end(claim.task.id, DONE)
    assert (await bench.over(claim)).status == "completed"
