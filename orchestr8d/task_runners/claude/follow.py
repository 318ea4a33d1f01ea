"""Follows what the CLI writes while it runs: each record to the evidence, progress to whoever shows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import msgspec

from orchestr8d.clock import Clock
from orchestr8d.core.model import Progress
from orchestr8d.task_runners.claude.evidence import Evidence
from orchestr8d.task_runners.claude.progress import Steps
from orchestr8d.task_runners.claude.records import decode
from orchestr8d.task_runners.claude.stream import Tail

# Seconds between two looks at the output, and between two tellings of progress.
LOOK = 0.5
TELL = 2.0
# How often the rest is tried to be read when descriptors are short.
_TRIES = 50


@asynccontextmanager
async def following(
    path: str, evidence: Evidence, tell: Callable[[Progress], None], clock: Clock, known_start: bool
) -> AsyncIterator[None]:
    """Within, the file is read as it grows; afterwards `evidence` has all of it, unless it was left by an exception.

    `known_start`: the CLI was started now, so what is left can be told from the time that it took so far.
    """
    follower = _Follower(path, evidence, tell, clock, clock.monotonic() if known_start else None)
    over = asyncio.Event()
    looking = asyncio.create_task(follower.run(over), name="follow")
    try:
        yield
    except BaseException:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        raise
    over.set()
    await looking


class _Follower:
    def __init__(
        self, path: str, evidence: Evidence, tell: Callable[[Progress], None], clock: Clock, start: float | None
    ) -> None:
        self._tail = Tail(path)
        self._evidence = evidence
        self._steps = Steps()
        self._tell = tell
        self._clock = clock
        self._start = start
        self._told: Progress | None = None
        self._told_at = -TELL

    async def run(self, over: asyncio.Event) -> None:
        while not over.is_set():
            # Without a descriptor there is nothing to see now.
            with suppress(OSError):
                if self._tail.behind():
                    await asyncio.to_thread(self._look)
            self._show()
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), LOOK)
        for tries in range(_TRIES):
            try:
                await asyncio.to_thread(self._look)
                break
            except OSError:
                if tries == _TRIES - 1:
                    raise
                await asyncio.sleep(0.1)
        self._feed(self._tail.rest())

    def _look(self) -> None:
        for line in self._tail.lines():
            self._feed(line)

    def _feed(self, line: bytes) -> None:
        record = decode(line)
        if record is not None:
            self._evidence.feed(record)
            self._steps.feed(record)

    def _show(self) -> None:
        now = self._clock.monotonic()
        progress = self._steps.now()
        if progress is None or progress == self._told or now - self._told_at < TELL:
            return
        self._told, self._told_at = progress, now
        left = None
        if self._start is not None and progress.percent:
            left = round((now - self._start) * (100 - progress.percent) / progress.percent, 1)
        self._tell(msgspec.structs.replace(progress, estimated_time_remaining=left))
