"""The real daemon with schedules: killed at any moment, and with a clock that is set; each due time counts once."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestr8d.clock import SystemClock
from orchestr8d.core.schedules import Firing, NewSchedule
from orchestr8d.events import Bus
from orchestr8d.store.sqlite import open_store
from tests.daemon import Daemon
from tests.torture.test_adoption import until
from tests.torture.test_clock import LIBRARIES, Clock

pytestmark = [pytest.mark.slow, pytest.mark.torture]
ROUNDS = int(os.environ.get("ORCHESTR8_TORTURE_ROUNDS", "50")) // 12
SEED = int(os.environ.get("ORCHESTR8_TORTURE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
S, H, DAY = 1000, 3_600_000, 86_400_000
FIRED = "SELECT * FROM firings f JOIN schedules s ON s.id = f.schedule_id WHERE s.name = ? ORDER BY f.time"


def put(daemon: Daemon, *new: NewSchedule) -> None:
    """Schedules in the store of a daemon that does not run."""

    async def add() -> None:
        daemon.state.mkdir(mode=0o700, exist_ok=True)
        store = await open_store(daemon.state / "orchestr8d.db", clock=SystemClock(), bus=Bus())
        await store.add_schedules(new, lambda _: b"")
        await store.close()

    asyncio.run(add())


def read(daemon: Daemon, sql: str, *args: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(f"file:{daemon.state}/orchestr8d.db?mode=ro", uri=True)) as db:
        return db.execute(sql, args).fetchall()


def rows(daemon: Daemon, name: str) -> list[Firing]:
    return [Firing(*row[: len(Firing.__struct_fields__)]) for row in read(daemon, FIRED, name)]


def made(name: str, rule: Any, **more: Any) -> NewSchedule:
    return NewSchedule(name=name, rule=rule, task={"command": ["true"], "cwd": "/"}, overlap="allow", **more)


def each_has_one_task(daemon: Daemon, names: Sequence[str]) -> Iterator[list[Firing]]:
    """The rows of each schedule, whose fired ones have exactly one task each."""
    tasks = Counter(
        (schedule_id, due)
        for schedule_id, due in read(
            daemon, "SELECT schedule_id, spec ->> '$.env.ORCHESTR8_DUE_AT' FROM tasks WHERE schedule_id IS NOT NULL"
        )
    )
    assert set(tasks.values()) == {1}
    fired = 0
    for name in names:
        found = rows(daemon, name)
        started = [row.task_id for row in found if row.state == "fired"]
        assert len({*started}) == len(started) and None not in started
        fired += len(started)
        yield found
    assert sum(tasks.values()) == fired
    alone = "SELECT time FROM firings WHERE state = 'fired' AND task_id NOT IN (SELECT id FROM tasks)"
    assert read(daemon, alone) == []


def test_each_due_time_once_whatever_dies(make_daemon: Callable[..., Daemon]) -> None:
    chance = random.Random(SEED)
    daemon = make_daemon()
    names = [f"s{n}" for n in range(10)]
    put(daemon, *[made(name, "* * * * * *", catch_up="all") for name in names])
    begin = read(daemon, "SELECT min(next_at) FROM schedules")[0][0]
    for _ in range(ROUNDS):
        daemon.start()
        time.sleep(chance.uniform(0, 1))
        daemon.kill()
    daemon.start()
    end = time.time_ns() // 1_000_000
    until(lambda: read(daemon, "SELECT min(next_at) FROM schedules")[0][0] > end)
    assert daemon.stop() == 0
    for found in each_has_one_task(daemon, names):
        times = [row.time for row in found]
        assert times == list(range(begin, times[-1] + 1, S)) and times[-1] + S > end, f"seed {SEED}"
        assert {row.state for row in found} == {"fired"}
    assert "Traceback" not in daemon.log.read_text()


def test_the_clock_is_set(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    if not LIBRARIES:
        pytest.skip("libfaketime is missing; on Debian: apt-get install faketime")
    clock = Clock(tmp_path)
    daemon = make_daemon(env=clock.env)
    policies = ("none", "one", "all")
    put(daemon, made("seconds", "* * * * * *"), *[made(name, "@hourly", catch_up=name) for name in policies])
    daemon.start()
    until(lambda: rows(daemon, "seconds"))
    before = rows(daemon, "seconds")
    clock.set("-1h")
    # Whatever is written notices it, else the heartbeat does.
    daemon.submit("true")
    until(lambda: any(row.time < before[0].time for row in rows(daemon, "seconds")))
    back = [row for row in rows(daemon, "seconds") if row.time < before[0].time]
    # Counted from the new now: nothing is caught up with, nothing is fired again.
    assert 0 <= back[0].time - (before[-1].time - H) <= 10 * S
    assert {row.trigger for row in back} == {"due"}
    assert [row.time for row in back] == list(range(back[0].time, back[-1].time + 1, S))
    clock.set("+1d")
    daemon.submit("true")
    until(lambda: len(rows(daemon, "all")) >= 24 and rows(daemon, "one") and rows(daemon, "none"))
    until(lambda: rows(daemon, "seconds")[-1].time > before[-1].time + DAY - H)
    daemon.stop()
    seconds, none, one, all_ = each_has_one_task(daemon, ("seconds", *policies))
    assert {(row.state, row.reason) for row in none} == {("missed", "late")}
    assert [(row.state, row.reason, row.trigger) for row in one] == [
        ("missed", "superseded", "due"), ("fired", None, "catch_up")
    ]  # fmt: skip
    assert {(row.state, row.trigger) for row in all_} == {("fired", "catch_up")}
    assert len(all_) == none[0].count == one[0].count + 1 == (one[1].time - all_[0].time) // H + 1
    missed = [row for row in seconds if row.state == "missed"]
    # It was fired for those of the hour before already.
    assert sum(row.count for row in missed) > 23 * 3600
    assert sum(row.count for row in seconds) == (seconds[-1].time - seconds[0].time) // S + 1


# A line when it starts and one when it ends, SIGTERM or not; each run is longer than its schedule's interval.
SLOW = """\
echo "S $ORCHESTR8_SCHEDULE $ORCHESTR8_TASK_ID" >>"$1"
finish() { echo "E $ORCHESTR8_SCHEDULE $ORCHESTR8_TASK_ID" >>"$1"; exit 0; }
trap 'finish "$1"' TERM
sleep 1.7 & wait
finish "$1"
"""


def test_overlaps_by_the_tasks_own_journal(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = make_daemon("[executor]\nconcurrency = 40\n")
    journal = tmp_path / "journal"
    task = {"command": ["sh", "-c", SLOW, "sh", str(journal)], "cwd": "/"}
    policies = ("skip", "queue", "allow", "replace")
    put(daemon, *[NewSchedule(name=p, rule="* * * * * *", task=task, overlap=p) for p in policies])
    daemon.start()
    until(lambda: all(len(rows(daemon, policy)) >= 5 for policy in policies))
    for policy in policies:
        assert daemon.request("POST", f"/api/v1/schedules/{policy}/pause")[0] == 200
    until(lambda: read(daemon, "SELECT count(*) FROM tasks WHERE completed_at IS NULL") == [(0,)])
    daemon.stop()
    runs: dict[str, list[str]] = {policy: [] for policy in policies}
    together, most = Counter[str](), Counter[str]()
    for kind, policy, task_id in (line.split() for line in journal.read_text().splitlines()):
        together[policy] += 1 if kind == "S" else -1
        most[policy] = max(most[policy], together[policy])
        runs[policy] += [task_id] if kind == "S" else []
    assert not +together and dict(most, allow=2) == dict.fromkeys(policies, 1) | {"allow": 2}
    assert most["allow"] >= 2
    fired = {policy: [row.task_id for row in rows(daemon, policy) if row.state == "fired"] for policy in policies}
    # One that was replaced before it began has written nothing.
    assert {p: runs[p] for p in ("skip", "queue")} == {p: fired[p] for p in ("skip", "queue")}
    assert sorted(runs["allow"]) == sorted(fired["allow"]) and set(runs["replace"]) <= set(fired["replace"])
    assert runs["replace"][-1] == fired["replace"][-1]
    assert {row.reason for row in rows(daemon, "skip") if row.state == "skipped"} == {"overlap"}
