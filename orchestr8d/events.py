"""The event log's types, and the bus that tells those who wait that something was committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final, Literal

import msgspec

TYPES: Final[frozenset[str]] = frozenset(
    [f"task.{t}" for t in (
        "created", "queued", "started", "progress", "retrying", "parked", "needs_input",
        "completed", "failed", "cancelled", "skipped")]
    + [f"workflow.{t}" for t in (
        "created", "started", "phase_started", "phase_completed", "phase_failed", "blocked", "paused", "resumed",
        "completed", "failed", "cancelled", "milestone")]
    + [f"schedule.{t}" for t in ("fired", "missed", "skipped")]
    + [f"webhook.{t}" for t in ("delivered", "failed", "dead", "paused", "resumed")]
    + ["notification.created"]
    + [f"executor.{t}" for t in ("started", "stopped", "lost")]
    + [f"alert.{t}" for t in ("raised", "cleared")]
)  # fmt: skip

# What a commit may leave for a loop to do.
Work = Literal["deliveries", "followups", "notices", "schedules", "workflows"]


class Event(msgspec.Struct, frozen=True):
    """One row of the log. `id` is its place in the one order; `at` is wall-clock milliseconds; `data` is JSON."""

    id: int
    type: str
    at: int
    task_id: str | None
    workflow_id: str | None
    user_id: str | None
    data: msgspec.Raw


class Bus:
    """Tells of commits, in the order of the log. A hint only: whoever waits reads the store for the truth."""

    def __init__(self) -> None:
        self._observers: list[Callable[[Sequence[Event]], None]] = []
        self._cancels: list[Callable[[Sequence[str]], None]] = []
        self._work: dict[Work, Callable[[], None]] = {}
        self._any: set[asyncio.Future[None]] = set()
        self._by_id: dict[str, set[asyncio.Future[None]]] = {}

    def observe(self, observer: Callable[[Sequence[Event]], None]) -> None:
        """Call `observer` with each commit's events (none: see `publish`). It must be quick and must not raise."""
        self._observers.append(observer)

    def publish(self, events: Sequence[Event], quiet: Sequence[str] = ()) -> None:
        """Tells of a commit's events; or, with none, that tasks (`quiet`, ids) or queues changed in a way that the log
        has no word for: a pause, an edit, a queue's limit."""
        for observer in self._observers:
            observer(events)
        if events:
            waiting, self._any = self._any, set()
            for future in waiting:
                _wake(future)
        if self._by_id:
            for event in events:
                if event.task_id is not None:
                    self._wake_those_of(event.task_id)
                if event.workflow_id is not None:
                    self._wake_those_of(event.workflow_id)
            for task_id in quiet:
                self._wake_those_of(task_id)

    def _wake_those_of(self, one: str) -> None:
        for future in self._by_id.pop(one, ()):
            _wake(future)

    def observe_cancels(self, observer: Callable[[Sequence[str]], None]) -> None:
        """Call `observer` with the ids of running tasks whose cancellation was just committed."""
        self._cancels.append(observer)

    def publish_cancels(self, task_ids: Sequence[str]) -> None:
        for observer in self._cancels:
            observer(task_ids)

    def observe_work(self, work: Work, observer: Callable[[], None]) -> None:
        """Call `observer` when there may be some of this work that was not there before."""
        self._work[work] = observer

    def publish_work(self, works: Collection[Work]) -> None:
        for work in works:
            if work in self._work:
                self._work[work]()

    def next(self) -> asyncio.Future[None]:
        """Done at the next commit that has events. Ask for it before reading the store, so that nothing is missed."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._any.add(future)
        future.add_done_callback(self._any.discard)
        return future

    def next_of(self, one: str) -> asyncio.Future[None]:
        """Done at the next commit that has an event of this task or workflow."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._by_id.setdefault(one, set())
        waiting.add(future)

        def forget(done: asyncio.Future[None]) -> None:
            waiting.discard(done)
            if not waiting and self._by_id.get(one) is waiting:
                del self._by_id[one]

        future.add_done_callback(forget)
        return future


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
