"""Random workflows against the model: without processes in a real store, and in a real daemon with tasks that write
down themselves when they run."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.workflows.live import Live, wait
from tests.workflows.lives import Life, World, lead, new_definition

pytestmark = pytest.mark.slow
# `ORCHESTR8_WORKFLOW_LIVES` of them at a time; others with another seed.
LIVES = int(os.environ.get("ORCHESTR8_WORKFLOW_LIVES", "150"))
RUNS = 24
SEED = int(os.environ.get("ORCHESTR8_TORTURE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)


async def test_random_lives(tmp_path: Path) -> None:
    """States, rounds, counts and who may run, after each event: ends, answers, signals, time, pause, cancel, retry."""
    world = await World.open(tmp_path)
    try:
        seeds = [SEED + number for number in range(LIVES)]
        lives = [Life(world, new_definition(random.Random(seed)), seed) for seed in seeds]
        await lead(world, lives)
    finally:
        await world.close()
    again = sum(task.round > 0 for life in lives for task in life.model.tasks.values())
    states = {task.state for life in lives for task in life.model.tasks.values()}
    assert again and states >= {"completed", "failed", "cut", "skipped", "cancelled"}, "the lives are too tame"


def test_tasks_that_write_down_when_they_run(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """States, how often each ran in each round, and in what order, by a journal."""
    daemon = make_daemon("[executor]\nconcurrency = 16\n").start()
    lives = [Live(tmp_path, SEED + number) for number in range(RUNS)]
    for live in lives:
        status, answer = daemon.request("POST", "/api/v1/workflows", live.body)
        assert status == 202, answer
        live.id = answer["workflow_id"]
    wait(daemon, lives)
    faults = [fault for live in lives for fault in live.faults(daemon)]
    assert not faults, f"{len(faults)} faults: " + "\n".join(faults[:5])
