"""What schedules cost that are not due, and how late those are that are due in the same second."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from orchestr8d.clock import SystemClock
from orchestr8d.core.durations import iso
from orchestr8d.core.schedules import NewSchedule
from orchestr8d.events import Bus
from orchestr8d.store.sqlite import open_store
from tests.bench.idle import SETTLE
from tests.bench.lines import Line
from tests.bench.runs import TRUE
from tests.bench.setting import Setting

DUE = 500
# Schedules that are made in one transaction.
STEP = 1000
# Seconds before the first are due (the daemon has to start), and between them.
FIRST, APART = 8, 3


def _database(setting: Setting, count: int, rule: Callable[[int], Any]) -> Path:
    path = setting.directory("schedules") / "orchestr8d.db"
    task = {"command": [TRUE], "cwd": "/"}

    async def fill() -> None:
        store = await open_store(path, clock=SystemClock(), bus=Bus(), synchronous="OFF")
        for first in range(0, count, STEP):
            some = [
                NewSchedule(name=f"s{n}", rule=rule(n), task=task) for n in range(first, min(count, first + STEP))
            ]
            await store.add_schedules(some, lambda _: b"")
        await store.close()

    asyncio.run(fill())
    return path


def _idle(setting: Setting) -> Line:
    many = setting.size.schedules
    databases = [_database(setting, count, lambda _: "@yearly") for count in (1, many)]
    with setting.daemon(databases[0]) as one, setting.daemon(databases[1]) as all_:
        time.sleep(SETTLE)
        # Side by side: whatever else the machine does, it does to both.
        before = [_cpu(daemon.pid) for daemon in (one, all_)]
        time.sleep(setting.size.idle)
        reference, ours = (_cpu(daemon.pid) - begin for daemon, begin in zip((one, all_), before, strict=True))
    what = f"idle with {many} schedules: CPU in {setting.size.idle:g} s"
    return Line(what, ours, "ms", reference, "a single one", 2.0, "at most")


def _cpu(pid: int) -> float:
    """Milliseconds of all threads."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in threads) / 1e6


def _late(setting: Setting) -> list[Line]:
    rounds = setting.size.rounds
    begin = (time.time_ns() // 1_000_000_000 + FIRST) * 1000
    times = [begin + n * APART * 1000 for n in range(rounds)]
    database = _database(setting, DUE * rounds, lambda n: {"at": iso(times[n % rounds])})
    with setting.daemon(database) as daemon:
        assert time.time() < begin / 1000, "the daemon took too long to start"
        time.sleep(max(0.0, times[-1] / 1000 - time.time()) + APART)
        path = f"file:{daemon.state}/orchestr8d.db?mode=ro"
        with closing(sqlite3.connect(path, uri=True)) as db:
            late = [ms / 1000 for (ms,) in db.execute("SELECT at - time FROM firings WHERE state = 'fired'")]
    assert len(late) == DUE * rounds, f"{len(late)} of {DUE * rounds} were fired"
    what = f"{DUE} due in one second"
    return [
        Line(f"{what}: lateness p50", statistics.median(late), "s"),
        Line(f"{what}: lateness p99", statistics.quantiles(late, n=100)[98], "s", bar=1.0, sense="at most"),
    ]


def schedules(setting: Setting) -> list[Line]:
    return [_idle(setting), *_late(setting)]
