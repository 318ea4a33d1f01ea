"""Counters and histograms in Prometheus' format, fed by events and by whoever measures; one registry, no globals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from orchestr8d.core.model import Error, Queue
from orchestr8d.core.standing import Standing
from orchestr8d.events import Event

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# Names of queues come from users: past this many, the rest are counted together.
MAX_QUEUES: Final = 1000
_SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600)
_COMMIT: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_BATCH: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


_COUNTED: Final = frozenset(
    f"task.{what}"
    for what in ("created", "started", "queued", "retrying", "completed", "failed", "cancelled", "skipped", "parked")
)


_DELIVERIES: Final = frozenset({"webhook.delivered", "webhook.failed", "webhook.dead"})


class _Told(msgspec.Struct):
    """What is counted of an event's data."""

    kind: str = ""
    queue: str = ""
    wait_seconds: float | None = None
    run_seconds: float | None = None
    error: Error | None = None


class Metrics:
    """All that is measured. Labels are few and bounded."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        ProcessCollector(registry=r)
        of = ["kind", "queue"]
        self._submitted = Counter("orchestr8d_submitted_total", "Tasks that were accepted", of, registry=r)
        self._tasks = Counter("orchestr8d_tasks_total", "Tasks that reached a final state", ["status", *of], registry=r)
        self._starts = Counter("orchestr8d_attempts_total", "Attempts that were started", of, registry=r)
        self._retries = Counter("orchestr8d_retries_total", "Retries that were waited for", of, registry=r)
        self._failures = Counter(
            "orchestr8d_failures_total", "Failed tasks by what went wrong", ["error", "kind"], registry=r
        )
        self._wait = Histogram(
            "orchestr8d_queue_wait_seconds", "From queued to started", ["queue"], buckets=_SECONDS, registry=r
        )
        self._run = Histogram("orchestr8d_run_seconds", "How long attempts ran", ["kind"], buckets=_SECONDS, registry=r)
        self._commits = Counter("orchestr8d_commits_total", "Commits of the store's writer", registry=r)
        self._batch = Histogram(
            "orchestr8d_commit_batch_size", "Transactions that shared a commit", buckets=_BATCH, registry=r
        )
        self._commit = Histogram(
            "orchestr8d_commit_seconds", "From begin to the end of the fsync", buckets=_COMMIT, registry=r
        )
        self._requests = Counter(
            "orchestr8d_http_requests_total", "Requests by route", ["method", "route", "status"], registry=r
        )
        self._hooks = Counter("orchestr8d_hooks_total", "What became of hooks", ["outcome"], registry=r)
        self._deliveries = Counter(
            "orchestr8d_deliveries_total", "What became of attempts at deliveries, and deliveries given up",
            ["outcome"], registry=r,
        )  # fmt: skip
        self._depth = Gauge("orchestr8d_queue_depth", "Tasks that wait in a queue", ["queue"], registry=r)
        self._in_queue = Gauge("orchestr8d_queue_running", "Tasks of a queue that run", ["queue"], registry=r)
        self._running = Gauge("orchestr8d_running", "Attempts that this daemon runs", registry=r)
        self._slots = Gauge("orchestr8d_slots", "Attempts that this daemon may run at once", registry=r)
        self._accounts = Gauge(
            "orchestr8d_account_open", "Whether agents' tasks start on an account", ["account"], registry=r
        )
        self._breaker = Gauge("orchestr8d_breaker_closed", "Whether the provider is not overloaded", registry=r)
        self._parked = Gauge("orchestr8d_parked", "Tasks that wait for an account, the breaker or a budget", registry=r)
        self._decode = msgspec.json.Decoder(_Told).decode
        # Finding the one to count in by its labels is most of what counting costs.
        self._found: dict[tuple[object, tuple[str, ...]], Any] = {}
        self._queues: set[str] = set()

    def observe(self, events: Sequence[Event]) -> None:
        """Counts what was committed (an observer of the bus)."""
        for event in events:
            if event.type in _COUNTED:
                self._count(event.type[5:], self._decode(event.data))
            elif event.type in _DELIVERIES:
                self._of(self._deliveries, event.type[8:]).inc()

    def _count(self, what: str, told: _Told) -> None:
        queue = self._queue(told.queue)
        if told.run_seconds is not None:
            self._of(self._run, told.kind).observe(told.run_seconds)
        if what == "created":
            self._of(self._submitted, told.kind, queue).inc()
        elif what == "started":
            self._of(self._starts, told.kind, queue).inc()
            if told.wait_seconds is not None:
                self._of(self._wait, queue).observe(told.wait_seconds)
        elif what == "retrying":
            self._of(self._retries, told.kind, queue).inc()
        elif what in ("completed", "failed", "cancelled", "skipped"):
            self._of(self._tasks, what, told.kind, queue).inc()
            if what == "failed":
                self._of(self._failures, told.error.kind if told.error else "", told.kind).inc()

    def commit(self, batch: int, seconds: float) -> None:
        """One commit of `batch` transactions took so long."""
        self._commits.inc()
        self._batch.observe(batch)
        self._commit.observe(seconds)

    def request(self, method: str, route: str, status: int) -> None:
        """One request was answered; `route` is the template, never the path."""
        self._of(self._requests, method, route, str(status)).inc()

    def hook(self, outcome: str) -> None:
        """A hook matched no rule or was dropped; a rule submitted its task or failed."""
        self._of(self._hooks, outcome).inc()

    def update(self, queues: Sequence[Queue], running: int, slots: int) -> None:
        """Sets the gauges, just before they are shown."""
        self._depth.clear()
        self._in_queue.clear()
        for queue in queues[:MAX_QUEUES]:
            self._depth.labels(queue.name).set(queue.depth)
            self._in_queue.labels(queue.name).set(queue.running)
        self._running.set(running)
        self._slots.set(slots)

    def stand(self, seen: Standing) -> None:
        """Sets the gauges of accounts, just before they are shown."""
        self._accounts.clear()
        for account in seen.accounts:
            self._accounts.labels(account.name).set(account.state == "open")
        self._breaker.set(seen.breaker.state == "closed")
        self._parked.set(seen.parked)

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def _of(self, metric: Counter | Histogram, *labels: str) -> Any:
        key = (metric, labels)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = metric.labels(*labels)
        return found

    def _queue(self, name: str) -> str:
        if name not in self._queues:
            if len(self._queues) >= MAX_QUEUES:
                return "other"
            self._queues.add(name)
        return name
