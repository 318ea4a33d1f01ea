"""The daemon is killed while tasks end that others are to follow: each makes exactly what it asked for."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.daemon import Daemon

pytestmark = [pytest.mark.slow, pytest.mark.torture]
ROUNDS = int(os.environ.get("ORCHESTR8_TORTURE_ROUNDS", "50")) // 5
SEED = int(os.environ.get("ORCHESTR8_TORTURE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
EACH = 8


def asking(number: int) -> dict[str, Any]:
    """Two tasks are to follow, of which the first is to be followed by one more."""
    last = {"command": ["echo", "last {{ task.result }}"], "options": {"tags": ["third"]}}
    options: dict[str, Any] = {"tags": ["second"], "on_completion": {"submit": last}}
    first = {"command": ["echo", "{{ task.result }} a"], "options": options}
    second = {"command": ["echo", "{{ task.result }} b"], "options": {"tags": ["second"]}}
    options = {"tags": ["first"], "on_completion": [{"submit": first}, {"submit": second}]}
    return {"command": ["echo", str(number)], "options": options}


def test_each_follows_exactly_once(make_daemon: Callable[..., Daemon]) -> None:
    chance = random.Random(SEED)
    daemon = make_daemon()
    number = 0
    for _ in range(ROUNDS):
        daemon.start()
        body = {"tasks": [asking(number + n) for n in range(EACH)]}
        status, answer = daemon.request("POST", "/api/v1/tasks:batch", body)
        assert status == 202, answer
        number += EACH
        time.sleep(chance.uniform(0, 0.4))
        daemon.kill()
    daemon.start()
    tasks = settled(daemon, 4 * number)
    made = Counter(task["metadata"].get("followup_of") for task in tasks)
    said = Counter((task["tags"][0], " ".join(task["command"][1:])) for task in tasks)
    expected: Counter[tuple[str, str]] = Counter()
    for n in range(number):
        expected += Counter(
            [("first", str(n)), ("second", f"{n} a"), ("second", f"{n} b"), ("third", f"last {n} a")]
        )  # fmt: skip
    assert said == expected, f"seed {SEED}: {(said - expected, expected - said)}"
    assert {task["status"] for task in tasks} == {"completed"}, f"seed {SEED}"
    for task in tasks:
        wanted = {"first": 2, "second": 1 if task["command"][-1].endswith("a") else 0, "third": 0}[task["tags"][0]]
        assert made[task["id"]] == wanted, f"seed {SEED}: {task['id']}"
    assert "Traceback" not in daemon.log.read_text()


def settled(daemon: Daemon, count: int, seconds: float = 120) -> list[dict[str, Any]]:
    """All tasks, once there are so many and none is on its way; and a moment later, so that one too many would show."""
    end = time.monotonic() + seconds
    while True:
        tasks = listed(daemon)
        if len(tasks) >= count and all(task["completed_at"] for task in tasks):
            break
        assert time.monotonic() < end, f"seed {SEED}: {len(tasks)} of {count} tasks"
        time.sleep(0.1)
    assert daemon.stop() == 0
    daemon.start()
    time.sleep(0.5)
    return listed(daemon)


def listed(daemon: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        status, page = daemon.request("GET", f"/api/v1/tasks?limit=1000{cursor}")
        assert status == 200, page
        found += page["tasks"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"
