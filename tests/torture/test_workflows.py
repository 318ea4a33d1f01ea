"""The daemon is killed again and again while random workflows run: they come to the ends that the model says, each task
ran as often as it should, and nothing is doubled or left behind."""

from __future__ import annotations

import http.client
import os
import random
import sqlite3
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.torture.audit import Records
from tests.torture.journal import left_alive
from tests.torture.nursery import Nursery
from tests.workflows.live import Live, wait

pytestmark = [pytest.mark.slow, pytest.mark.torture]
KILLS = max(100, int(os.environ.get("ORCHESTR8_TORTURE_ROUNDS", "0")))
SEED = int(os.environ.get("ORCHESTR8_TORTURE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
# What a round takes, about, and how many workflows start in one.
ROUND = 0.12
STARTS = 1.0


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


def test_killed_at_any_moment(make_daemon: Callable[..., Daemon], nursery: Nursery, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    daemon = make_daemon("[executor]\nconcurrency = 8\n").start()
    lives = [Live(tmp_path, SEED + number) for number in range(int(KILLS * STARTS))]
    starter = threading.Thread(target=start_all, args=(daemon, lives))
    starter.start()
    for number in range(KILLS):
        if number % 5 == 4:
            # While it starts, maybe.
            nursery.start(daemon, chance.uniform(0.01, 0.1))
        else:
            if number:
                assert nursery.start(daemon, 30), daemon.tail()
            time.sleep(chance.uniform(0, 0.1))
        daemon.kill()
        if chance.random() < 0.1:
            time.sleep(chance.uniform(0, 0.1))  # tasks end while nobody looks
    daemon.start()
    starter.join()
    wait(daemon, lives)
    faults = [fault for live in lives for fault in live.faults(daemon, kills=True)]
    assert daemon.stop() == 0
    faults += kept(daemon, lives)
    assert not faults, f"{len(faults)} faults, seed {SEED}:\n" + "\n".join(faults[:10]) + f"\nlog: {daemon.log}"
    assert "Traceback" not in daemon.log.read_text()


def start_all(daemon: Daemon, lives: list[Live]) -> None:
    """Each is sent until there is an answer."""
    for live in lives:
        while not live.id:
            try:
                status, answer = daemon.request(
                    "POST", "/api/v1/workflows", live.body, {"Idempotency-Key": f"once-{live.seed}"}, timeout=10
                )  # fmt: skip
            except (OSError, http.client.HTTPException, ValueError):
                time.sleep(0.01)
                continue
            if status in (200, 202):
                live.id = answer["workflow_id"]
            elif status != 503:
                raise AssertionError(answer)
        time.sleep(ROUND / STARTS)


def kept(daemon: Daemon, lives: list[Live]) -> list[str]:
    """What is wrong with the rows: one of each workflow, one task for each round that ran, an attempt for each run."""
    path = daemon.state / "orchestr8d.db"
    records = Records(path)
    db = sqlite3.connect(path)
    found = [] if records.integrity == "ok" else [f"database: {records.integrity}"]
    ids = [row[0] for row in db.execute("SELECT id FROM workflows ORDER BY id")]
    if ids != sorted(live.id for live in lives):
        found.append(f"{len(ids)} workflows, and {len(lives)} were started")
    left = db.execute("SELECT count(*) FROM workflow_marks").fetchone()[0]
    archived = db.execute("SELECT count(*) FROM archive").fetchone()[0]
    if left or archived != len(lives):
        found.append(f"{left} marks are left, {archived} workflows are in the archive of {len(lives)}")
    db.close()
    attempts: dict[str, Counter[str]] = defaultdict(Counter)
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for task in records.tasks.values():
        attempts[task["workflow_id"]][task["local_id"]] += task["attempt"]
        rows[task["workflow_id"]][task["local_id"]] += task["attempt"] > 0
    for live in lives:
        rounds = Counter(name for name, _ in live.expected().runs)
        ran = Counter(name for what, name, _ in live.lines() if what == "S")
        if +rows[live.id] != rounds:
            found.append(f"seed {live.seed}: tasks that ran: {+rows[live.id]}, and should be {rounds}")
        found += [
            f"seed {live.seed}: {name} ran {ran[name]} times in {attempts[live.id][name]} attempts"
            for name in ran if ran[name] > attempts[live.id][name]
        ]  # fmt: skip
    alive = left_alive(attempt["id"] for attempt in records.attempts)
    return found + [f"process {pid} is left: {command}" for pid, command in alive.items()]
