"""The pool of task runners: a coroutine for each attempt, from its claim to its stored outcome."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog

from orchestr8d.clock import Clock
from orchestr8d.core.errors import LeaseLost, Problem
from orchestr8d.core.model import Progress, Task
from orchestr8d.core.outcome import Outcome, failed
from orchestr8d.processes import Files
from orchestr8d.store.types import Claim
from orchestr8d.task_runners import Limits, Run, Runner, Stop, Why

# Seconds until an outcome that could not be stored is tried again, and before a run that the machine had no room for
# goes back to the queue: else it would be claimed again at once.
STORE_PAUSE = 1.0
SHORTAGE_PAUSE = 1.0
# How often an outcome is tried to be stored when the daemon stops: after that it is the next one's to settle.
LAST_TRIES = 3


class Finishes(Protocol):
    """What the pool needs of the store."""

    async def finish(self, task_id: str, attempt_id: str, executor_id: str, outcome: Outcome) -> Task: ...
    async def progress(self, task_id: str, attempt_id: str, progress: Progress) -> Task: ...


class Active:
    """An attempt that runs here."""

    def __init__(self, claim: Claim, stop: Stop) -> None:
        self.claim = claim
        self.stop = stop
        # Set once the outcome is known: from then on only storing it is left, which a shutdown waits for.
        self.ended = False
        self.coroutine: asyncio.Task[None] | None = None


class TaskPool:
    """Runs claims. `env` makes an attempt's ORCHESTR8_* variables; `on_free` is called when a slot becomes free."""

    def __init__(
        self,
        store: Finishes,
        clock: Clock,
        executor_id: str,
        runners: Mapping[str, Runner],
        files: Callable[[str], Files],
        env: Callable[[Claim], Mapping[str, str]],
        limits: Callable[[], Limits],
        slots: Callable[[], int],
        on_free: Callable[[], None],
    ) -> None:
        self._store = store
        self._clock = clock
        self._executor_id = executor_id
        self._runners = runners
        self._files = files
        self._env = env
        self._limits = limits
        self._slots = slots
        self._on_free = on_free
        self._by_task: dict[str, Active] = {}
        self._by_attempt: dict[str, Active] = {}
        self._cancelled_early: set[str] = set()
        self._telling: set[asyncio.Task[None]] = set()
        # Attempts whose processes are gone and whose outcome is being stored: they need no slot any more.
        self._storing = 0
        self._stopping: Why | None = None
        self.claimed: asyncio.Queue[Claim] = asyncio.Queue()
        self._defect: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def slots(self) -> int:
        return self._slots()

    @property
    def running(self) -> int:
        return len(self._by_attempt)

    def free(self) -> int:
        return self.slots - (self.running - self._storing) - self.claimed.qsize()

    def cancel(self, task_ids: Iterable[str]) -> None:
        """Ends the attempts of running tasks (an observer of cancels). A claim may be on its way here still: a cancel
        can be committed together with it."""
        for task_id in task_ids:
            active = self._by_task.get(task_id)
            if active is None or active.ended:
                self._cancelled_early.add(task_id)
            else:
                active.stop.ask("cancelled")

    def attempt_task(self, attempt_id: str) -> str | None:
        active = self._by_attempt.get(attempt_id)
        return None if active is None else active.claim.task.id

    async def run(self) -> None:
        """Takes claims until it is cancelled; the attempts themselves go on."""
        while True:
            self.start(await self.claimed.get())

    async def watch(self) -> None:
        """Raises when an attempt's outcome was lost to a defect of ours: the task would stay `running` for ever, and a
        daemon that starts anew settles it."""
        await self._defect

    def start(self, claim: Claim, *, adopted: bool = False) -> None:
        """Runs an attempt, or goes on with one that an earlier daemon started."""
        active = Active(claim, Stop())
        early = claim.task.id in self._cancelled_early
        self._cancelled_early.discard(claim.task.id)
        if early or claim.task.cancel_requested_at is not None:
            active.stop.ask("cancelled")
        elif self._stopping is not None:
            active.stop.ask(self._stopping)
        self._by_task[claim.task.id] = self._by_attempt[claim.attempt.id] = active
        active.coroutine = asyncio.create_task(self._attempt(active, adopted), name=f"attempt-{claim.attempt.id}")
        active.coroutine.add_done_callback(lambda done: self._gone(active, done))

    async def stop(self) -> None:
        """Ends every attempt as interrupted; returns when their processes are gone and it is stored, if it can be."""
        self._stopping = "interrupted"
        while not self.claimed.empty():
            self.start(self.claimed.get_nowait())
        for active in list(self._by_attempt.values()):
            active.stop.ask("interrupted")
        await self._wait(list(self._by_attempt.values()), None)

    async def detach(self, patience: float) -> None:
        """Leaves the children alone: their attempts stay running in the store, for the next daemon to adopt. Outcomes
        that are known already are stored first, within `patience` seconds."""
        for active in self._by_attempt.values():
            if not active.ended and active.coroutine is not None:
                active.coroutine.cancel()
        await self._wait(list(self._by_attempt.values()), patience)
        for active in self._by_attempt.values():
            if active.coroutine is not None:
                active.coroutine.cancel()

    @staticmethod
    async def _wait(actives: Iterable[Active], seconds: float | None) -> None:
        coroutines = [a.coroutine for a in actives if a.coroutine is not None]
        if coroutines:
            await asyncio.wait(coroutines, timeout=seconds)

    def _gone(self, active: Active, done: asyncio.Task[None]) -> None:
        claim = active.claim
        self._by_attempt.pop(claim.attempt.id, None)
        if self._by_task.get(claim.task.id) is active:
            del self._by_task[claim.task.id]
        if not done.cancelled() and (error := done.exception()) is not None and not self._defect.done():
            self._defect.set_exception(error)

    async def _attempt(self, active: Active, adopted: bool) -> None:
        outcome = await self._outcome(active, adopted)
        if outcome.status == "interrupted" and active.stop.why is None and not adopted:
            await asyncio.sleep(SHORTAGE_PAUSE)
        active.ended = True
        # The next claim shares the commit that stores this outcome.
        self._storing += 1
        self._on_free()
        try:
            await self._keep(active, outcome)
        finally:
            self._storing -= 1

    async def _keep(self, active: Active, outcome: Outcome) -> None:
        """Stores an outcome, however often that takes."""
        claim = active.claim
        tries = 0
        while self._stopping is None or tries < LAST_TRIES:
            try:
                task = await self._store.finish(claim.task.id, claim.attempt.id, self._executor_id, outcome)
                if task.completed_at is not None:
                    self._cancelled_early.discard(task.id)
                return
            except LeaseLost as e:
                structlog.get_logger().warning("outcome was not taken", reason=str(e), task_id=claim.task.id)
                return
            except Problem as problem:
                # It has run and shall not run again: the outcome is kept until it can be written.
                structlog.get_logger().warning("cannot store an outcome", reason=problem.detail, task_id=claim.task.id)
                await asyncio.sleep(STORE_PAUSE)
                tries += self._stopping is not None

    def _tell(self, claim: Claim, progress: Progress) -> None:
        telling = asyncio.create_task(self._progress(claim, progress))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)

    async def _progress(self, claim: Claim, progress: Progress) -> None:
        # One that comes too late, or cannot be stored now, is no loss.
        with contextlib.suppress(Problem, LeaseLost):
            await self._store.progress(claim.task.id, claim.attempt.id, progress)

    async def _outcome(self, active: Active, adopted: bool) -> Outcome:
        claim = active.claim
        runner = self._runners.get(claim.task.kind)
        if runner is None:
            return failed("not_found", f"no runner for tasks of kind {claim.task.kind!r} is installed")
        if not adopted and active.stop.why is not None:
            return Outcome(status=active.stop.why)
        deadline = claim.task.deadline_at
        run = Run(
            task_id=claim.task.id,
            attempt_id=claim.attempt.id,
            spec=claim.task.read_spec(),
            session=claim.session,
            files=self._files(claim.attempt.id),
            env=self._env(claim),
            limits=self._limits(),
            time_left=None if deadline is None else max(0.0, (deadline - self._clock.now()) / 1000),
            adopted=adopted,
            stop=active.stop,
            progress=lambda progress: self._tell(claim, progress),
        )
        try:
            return await runner.run(run)
        except Exception as e:
            structlog.get_logger().exception("a runner has raised", kind=claim.task.kind, attempt_id=claim.attempt.id)
            return failed("crashed", f"the runner failed: {type(e).__name__}: {e}")
