"""Keepers are killed, or stopped for a while, again and again while work comes in; the daemon lives."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from orchestr8d.keeper import is_keeper
from orchestr8d.processes import table
from orchestr8d.processes.table import Proc
from tests.daemon import Daemon
from tests.torture.journal import Journal
from tests.torture.load import CONFIG, Load
from tests.torture.test_kill import SEED, conclude, settle

pytestmark = [pytest.mark.slow, pytest.mark.torture]
SECONDS = float(os.environ.get("ORCHESTR8_TORTURE_SECONDS", "10"))


def test_keepers_are_killed_at_any_moment(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """Each task comes to one end, each attempt is run once, and the daemon reaps what becomes its own."""
    chance = random.Random(SEED)
    daemon, journal = make_daemon(CONFIG), Journal(tmp_path / "journal")
    daemon.start()
    killed: set[int] = set()
    end = time.monotonic() + SECONDS
    with Load(daemon.state, journal, SEED) as load:
        while time.monotonic() < end:
            time.sleep(chance.uniform(0, 0.4))
            keepers = [p.pid for p in children(daemon) if p.alive and is_keeper(table.command_line(p.pid))]
            for pid in keepers:
                with suppress(ProcessLookupError):
                    if chance.random() < 0.3:
                        # Requests pile up in the meantime, and are lost with it.
                        os.kill(pid, signal.SIGSTOP)
                        time.sleep(chance.uniform(0, 0.2))
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        memory = load.stop()
    assert len(killed) > SECONDS
    try:
        zombies = [p for p in children(daemon) if not p.alive]
        assert len(zombies) < 20, zombies
    finally:
        settle(daemon)
    conclude(f"{len(killed)} keepers killed", daemon, memory, journal, interruptions=True)


def children(daemon: Daemon) -> list[Proc]:
    return [p for p in table.snapshot().values() if p.ppid == daemon.pid]
