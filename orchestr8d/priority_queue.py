"""The queue's loop: moves what is due, claims by rank for the free slots, and sleeps until there is a reason not to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from orchestr8d.clock import Clock
from orchestr8d.core.errors import Problem
from orchestr8d.events import Event
from orchestr8d.store.types import Claim, Claimed

# What may let a task run but brings no due time nearer, and what does neither.
_FREES = frozenset({"task.queued", "task.completed", "task.failed", "task.cancelled", "task.skipped"})
_NEVER = frozenset({"task.started", "task.progress"})
# Seconds until the next try when the store cannot write.
STORE_PAUSE = 1.0
# A due time is reached by a timer that may be early by a tick.
_TICK = 0.005


class Claims(Protocol):
    """What the loop needs of the store."""

    async def claim(self, executor_id: str, free: int) -> Claimed: ...


class PriorityQueue:
    """Hands claims to the pool over `claimed`. `free` tells how many more it takes."""

    def __init__(
        self, store: Claims, clock: Clock, executor_id: str, free: Callable[[], int], claimed: asyncio.Queue[Claim]
    ) -> None:
        self._store = store
        self._clock = clock
        self._executor_id = executor_id
        self._free = free
        self._claimed = claimed
        self._hint = asyncio.Event()
        # Whether a due time may be nearer than it was: that matters even while no slot is free.
        self._nearer = True
        self._closed = False

    def hint(self) -> None:
        """Something may have changed: a task was queued, a slot is free, the clock was set."""
        self._nearer = True
        self._hint.set()

    def freed(self) -> None:
        """A task might run if a slot is free, or one is."""
        self._hint.set()

    def observe(self, events: Sequence[Event]) -> None:
        """A bus observer: a commit after which more may run, or a due time may be nearer. None: see Bus.publish."""
        kinds = {event.type for event in events} - _NEVER
        if kinds <= _FREES and events:
            if kinds:
                self.freed()
        else:
            self.hint()

    def close(self) -> None:
        """Nothing is claimed from now on."""
        self._closed = True
        self._hint.set()

    async def run(self) -> None:
        while not self._closed:
            delay = await self.run_once()
            try:
                async with asyncio.timeout(delay):
                    await self._reason()
            except TimeoutError:
                pass

    async def _reason(self) -> None:
        """Returns when there is a reason to claim: with no slot free, one less is none."""
        while True:
            await self._hint.wait()
            if self._nearer or self._closed or self._free() > 0:
                return
            self._hint.clear()

    async def run_once(self) -> float | None:
        """One claim; seconds until the next one is due without a hint, None when nothing is."""
        self._hint.clear()
        self._nearer = False
        try:
            claimed = await self._store.claim(self._executor_id, max(0, self._free()))
        except Problem as problem:
            structlog.get_logger().warning("cannot claim", reason=problem.detail)
            return STORE_PAUSE
        for claim in claimed.claims:
            self._claimed.put_nowait(claim)
        if claimed.next_due is None:
            return None
        return max(0.0, (claimed.next_due - self._clock.now()) / 1000) + _TICK
