"""Upkeep beside the queue: heartbeat, watchdog, the full-text index, retention."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import structlog

from orchestr8d.core.errors import Problem
from orchestr8d.events import Event
from orchestr8d.processes import Files
from orchestr8d.store import Store
from orchestr8d.store.types import Retention

HEARTBEAT = 10.0
# New tasks are indexed together once there were none for so long, or after so many times that.
TEXT_DELAY = 1.0
TEXT_PATIENCE = 10
# Between two steps of a longer work others get their turn: at least this long, and this many times what the step took.
STEP_PAUSE, STEP_SHARE = 0.02, 6
FIRST_PRUNE, PRUNE = 60.0, 3600.0


async def heartbeat(beat: Callable[[], object]) -> None:
    """Calls `beat` (a coroutine function) every HEARTBEAT seconds; a store that cannot write is tried again."""
    while True:
        await asyncio.sleep(HEARTBEAT)
        try:
            done = beat()
            if asyncio.iscoroutine(done):
                await done
        except Problem as problem:
            structlog.get_logger().warning("no heartbeat", reason=problem.detail)


async def watchdog(interval: float, alive: Callable[[], None]) -> None:
    """Tells the service manager that the event loop turns."""
    while True:
        alive()
        await asyncio.sleep(interval)


class TextIndexer:
    """Brings the full-text index up to date behind the submits."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._new = asyncio.Event()
        # What an earlier daemon left undone.
        self._new.set()

    def observe(self, events: Sequence[Event]) -> None:
        if not self._new.is_set() and any(event.type == "task.created" for event in events):
            self._new.set()

    async def run(self) -> None:
        while True:
            await self._new.wait()
            # Not into a burst of submits, which share the writer; but not for ever either.
            for _ in range(TEXT_PATIENCE):
                self._new.clear()
                await asyncio.sleep(TEXT_DELAY)
                if not self._new.is_set():
                    break
            self._new.clear()
            try:
                await _steps(self._store.index_text)
            except Problem as problem:
                structlog.get_logger().warning("cannot index", reason=problem.detail)


class Pruner:
    """Removes what is past its keep, in small steps: files first, so that nothing is left that no row names. `values`
    has a directory for each workflow that needed one."""

    def __init__(
        self, store: Store, retention: Callable[[], Retention], files: Callable[[str], Files], values: Path
    ) -> None:  # fmt: skip
        self._values = values
        self._store = store
        self._retention = retention
        self._files = files

    async def run(self) -> None:
        pause = FIRST_PRUNE
        while True:
            await asyncio.sleep(pause)
            pause = PRUNE
            try:
                await self.run_once()
            except (Problem, OSError) as error:
                structlog.get_logger().warning("cannot prune", reason=str(error))

    async def run_once(self) -> int:
        """Everything that is past its keep now; answers how many tasks went."""
        retention = self._retention()
        removed = 0

        async def remove_some() -> bool:
            nonlocal removed
            expired = await self._store.expired(retention)
            await asyncio.to_thread(_remove, [self._files(a) for e in expired for a in e.attempt_ids])
            await self._store.remove([e.task_id for e in expired])
            removed += len(expired)
            return bool(expired)

        async def remove_workflow() -> bool:
            expired = await self._store.expired_workflow(retention)
            if expired is not None:
                await asyncio.to_thread(_remove, [self._files(a) for a in expired.attempt_ids])
                await asyncio.to_thread(shutil.rmtree, self._values / expired.workflow_id, ignore_errors=True)
                await self._store.remove_workflow(expired.workflow_id)
            return expired is not None

        await _steps(remove_some)
        await _steps(remove_workflow)
        await _steps(lambda: self._store.prune_log(retention))
        if removed:
            structlog.get_logger().info("old tasks were removed", tasks=removed)
        return removed


async def _steps(step: Callable[[], Awaitable[bool]]) -> None:
    """Calls `step` until it says that there is no more to do."""
    loop = asyncio.get_running_loop()
    more = True
    while more:
        started = loop.time()
        more = await step()
        await asyncio.sleep(max(STEP_PAUSE, STEP_SHARE * (loop.time() - started)))


def _remove(attempts: Sequence[Files]) -> None:
    for path in (path for files in attempts for path in files.all()):
        try:
            Path(path).unlink(missing_ok=True)
        except OSError:  # an attempt may have put a directory there
            shutil.rmtree(path, ignore_errors=True)
