"""Fires what schedules are due for: sleeps until the next due time, and is told when schedules or the clock change."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from orchestr8d.clock import Clock
from orchestr8d.core import firings
from orchestr8d.core.cron import BadRule
from orchestr8d.core.errors import Problem
from orchestr8d.core.firings import LATE
from orchestr8d.core.schedules import Due, Firing, Made, NewSchedule, Schedule, Step
from orchestr8d.store import Store
from orchestr8d.store.types import Idempotency, Reconciled, Stale

# Schedules that are looked at side by side: they share commits.
STEP: Final = 100
# Of one that is late, so many firings before others get their turn.
MOST: Final = 10
# What cannot be fired for now (the disk is full) is tried again after so many seconds.
AGAIN: Final = 1.0
# So many times MOST are caught up with before a change.
_TRIES: Final = 10
_START: Final = (-1, 0)
_END: Final = 1 << 62

Make = Callable[[Schedule], Awaitable[Made]]


class CronTicker:
    """`make` turns the body of a schedule into what it starts, anew each time; it raises Problem."""

    def __init__(self, store: Store, clock: Clock, make: Make) -> None:
        self._store = store
        self._clock = clock
        self._make = make
        self._hint = asyncio.Event()
        # How far the round over those that are late has come.
        self._behind = _START

    def hint(self) -> None:
        """Schedules have changed, or the clock may have been set."""
        self._hint.set()

    async def run(self) -> None:
        while True:
            self._hint.clear()
            delay = await self.run_once()
            try:
                async with asyncio.timeout(delay):
                    await self._hint.wait()
            except TimeoutError:
                pass

    async def run_once(self) -> float | None:
        """Fires all that is due; answers the seconds until more is, None when nothing ever is."""
        try:
            while (next_at := await self._store.next_schedule()) is not None and next_at <= self._clock.now():
                await self._in_time()
                await self._late()
        except Problem:
            # The disk is full, or the daemon is about to stop.
            return AGAIN
        return None if next_at is None else max(0.0, (next_at - self._clock.now()) / 1000)

    async def _in_time(self) -> None:
        """Whoever is due just now does not wait for those that are late."""
        now = self._clock.now()
        after = (now - LATE - 1, _END)
        while due := await self._store.due_schedules(after, now, STEP):
            await self._settle(due)
            # One that is due again by now comes in the next round.
            after = _place(due[-1])

    async def _late(self) -> None:
        """Some of those that are late, each in its turn: one that has much to catch up with holds nobody up."""
        due = await self._store.due_schedules(self._behind, self._clock.now() - LATE - 1, STEP)
        await self._settle(due)
        self._behind = _place(due[-1]) if due else _START

    async def _settle(self, due: Sequence[Schedule]) -> None:
        again = [row for row in due if row.recheck]
        if again:
            now = self._clock.now()
            await self._store.rechecked([(row, _next(row, now)) for row in again])
        await asyncio.gather(*[self._settle_one(row) for row in due if not row.recheck])

    async def _settle_one(self, schedule: Schedule) -> None:
        """Does what is due of a schedule, up to MOST firings."""
        try:
            steps = firings.steps(schedule, firings.plan(schedule, schedule.read_rule(), self._clock.now(), MOST))
        except BadRule as error:
            steps = [self._end(schedule, str(error))]
        except Exception as error:
            structlog.get_logger().exception("a schedule cannot be read", schedule=schedule.name)
            steps = [self._end(schedule, f"{type(error).__name__}: {error}")]
        if any(step.due is not None and step.reason is None for step in steps):
            made, reason = await self._try_to_make(schedule)
            for step in steps:
                step.made, step.reason = made, step.reason or reason
        for step in steps:
            if not await self._take(step):
                break

    def _end(self, schedule: Schedule, why: str) -> Step:
        """Nobody can tell when it is due: it is not, until somebody has looked at it."""
        assert schedule.next_at is not None
        reason = f"its rule cannot be read any more: {why}"
        return Step(schedule, None, due=Due(schedule.next_at, "due"), reason=reason)

    async def _try_to_make(self, schedule: Schedule) -> tuple[Made | None, str | None]:
        """What it starts, or why it cannot."""
        try:
            return await self._make(schedule), None
        except Problem as problem:
            if problem.kind == "unavailable":
                raise
            return None, _why(problem)
        except Exception as error:
            structlog.get_logger().exception("what a schedule starts cannot be made", schedule=schedule.name)
            return None, f"{type(error).__name__}: {error}"

    async def _take(self, step: Step) -> bool:
        """False when somebody else was first."""
        try:
            _, done = await self._store.advance(step)
        except Problem as problem:
            if problem.kind == "unavailable":
                raise
            step.made, step.reason = None, _why(problem)
            _, done = await self._store.advance(step)
        return done

    # -- for people

    async def trigger(
        self, name: str, answer: Callable[[Firing], bytes], once: Idempotency | None = None
    ) -> tuple[bytes, bool]:
        """Fires a schedule now, by its id or name, whether it is active or not; the first answer, and whether it is an
        earlier request's. Raises Problem when nothing can be started; what its overlap policy does not let start is
        `skipped`."""
        while True:
            schedule = await self._store.schedule(name)
            due = Due(self._clock.now(), "manual")
            step = Step(schedule, schedule.next_at, due=due, made=await self._make(schedule))
            with contextlib.suppress(Stale):
                return await self._store.trigger(step, answer, once)

    async def change(self, name: str, decide: Callable[[Schedule], Schedule]) -> Schedule:
        """As the store's, but what is due by then is settled first, as it was before."""
        tries: Counter[str] = Counter()
        while True:
            try:
                return await self._store.change_schedule(name, decide)
            except Stale as stale:
                await self._make_way(str(stale), tries)

    async def reconcile(self, said: Sequence[NewSchedule]) -> Reconciled:
        """As the store's, but what is due by then is settled first, as it was before."""
        tries: Counter[str] = Counter()
        while True:
            try:
                return await self._store.reconcile_schedules(said)
            except Stale as stale:
                await self._make_way(str(stale), tries)

    async def _make_way(self, schedule_id: str, tries: Counter[str]) -> None:
        """Settles a schedule that is to be changed. Whoever changes one that has very much to catch up with may want
        it to stop: the rest is missed."""
        schedule, now = await self._store.schedule(schedule_id), self._clock.now()
        tries[schedule_id] += 1
        if schedule.next_at is None or schedule.next_at > now:
            return
        if tries[schedule_id] <= _TRIES:
            await self._settle([schedule])
        else:
            await self._store.advance(firings.give_up(schedule, schedule.read_rule(), now))


def _place(schedule: Schedule) -> tuple[int, int]:
    return schedule.next_at or 0, schedule.seq


def _next(schedule: Schedule, now: int) -> int | None:
    try:
        return schedule.read_rule().next(now, schedule.created_at)
    except BadRule:
        # It is told when that is due.
        return now + LATE


def _why(problem: Problem) -> str:
    return "; ".join(f"{fault.path}: {fault.message}" for fault in problem.faults) or problem.detail
