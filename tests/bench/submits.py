"""Submits: one by one against requests that do nothing, by the thousand against one executemany of the same rows."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench import executemany
from tests.bench.lines import Line, in_turns, median
from tests.bench.load import Load
from tests.bench.server import NOOP
from tests.bench.setting import PAUSED, Setting, helper, put_load
from tests.daemon import Daemon

CONNECTIONS = 64
BATCH = 1000
TASK = {
    "command": ["make", "test"],
    "cwd": "/home/me/app",
    "env": {"CI": "1"},
    "options": {"queue": PAUSED, "priority": "high", "timeout": "2h", "tags": ["review"], "metadata": {"pr": 12}},
}
# No tags: their rows would be a third table, and the reference is to be simple.
PLAIN = {"command": ["make", "test"], "cwd": "/home/me/app", "options": {"queue": PAUSED}}


def submitting(daemon: Daemon, requests: int) -> Callable[[], Load]:
    return lambda: put_load(daemon, "/api/v1/tasks", TASK, requests, CONNECTIONS)


def bulk(daemon: Daemon, batches: int) -> Callable[[], float]:
    """Tasks a second, one request after the other."""
    body = {"tasks": [PLAIN] * BATCH}
    return lambda: put_load(daemon, "/api/v1/tasks:batch", body, batches, 1).per_second * BATCH


def submit(setting: Setting) -> list[Line]:
    size = setting.size
    with setting.daemon() as daemon:
        noop, ours = in_turns(
            size.rounds,
            lambda: put_load(daemon, NOOP, TASK, size.requests * 2, CONNECTIONS),
            submitting(daemon, size.requests),
        )
    p50, p99 = (median([getattr(x, name) * 1000 for x in ours]) for name in ("p50", "p99"))
    cpu = max(x.cpu for x in noop)
    return [
        Line(
            f"durable POST /api/v1/tasks, {CONNECTIONS} connections",
            median([x.per_second for x in ours]), "/s", median([x.per_second for x in noop]),
            "a no-op POST through the same gate and decoding", 0.4,
            note=f"the client took {cpu:.0%} of a core at most",
        ),
        Line("  its p99", p99, "ms", p50, "its own p50", 20, "at most"),
    ]  # fmt: skip


def batch(setting: Setting) -> list[Line]:
    size = setting.size
    with setting.daemon() as daemon:
        bulk(daemon, 1)()
        database = daemon.state / "orchestr8d.db"
        plan = executemany.Plan(str(database), str(setting.directory("executemany")), PAUSED, BATCH, size.batches)
        ours, reference = in_turns(
            size.rounds, bulk(daemon, size.batches), lambda: helper("executemany", plan, float)
        )
    return [
        Line(
            f"bulk submit, {BATCH:,} a request", median(ours), "/s", median(reference),
            "executemany of the same rows, one fsync each thousand", 0.35,
        )
    ]  # fmt: skip
