"""The daemon is killed, or stopped, again and again while work comes in."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.torture.audit import Records, faults, wait_all_final
from tests.torture.journal import Journal
from tests.torture.load import CONFIG, Load, Memory

pytestmark = [pytest.mark.slow, pytest.mark.torture]
ROUNDS = int(os.environ.get("ORCHESTR8_TORTURE_ROUNDS", "50"))
SEED = int(os.environ.get("ORCHESTR8_TORTURE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)


def test_killed_at_any_moment(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """kill -9: between two tasks, in the middle of a commit, of a start, of an adoption."""
    chance = random.Random(SEED)
    daemon, journal = make_daemon(CONFIG), Journal(tmp_path / "journal")
    daemon.start()
    with Load(daemon.state, journal, SEED) as load:
        for number in range(ROUNDS):
            if number % 5 == 4:
                # Before it is ready, with what an earlier one left in its hands.
                with suppress(AssertionError):
                    daemon.start(chance.uniform(0.05, 0.6))
                assert daemon.process is not None and daemon.process.poll() is None, daemon.tail()
            else:
                if number:
                    daemon.start()
                time.sleep(chance.uniform(0.02, 0.9))
            daemon.kill()
            if chance.random() < 0.3:
                # Tasks end while nobody looks.
                time.sleep(chance.uniform(0.05, 0.4))
        daemon.start()
        memory = load.stop()
    settle(daemon)
    conclude(f"{ROUNDS} kills", daemon, memory, journal, interruptions=False)


@pytest.mark.parametrize("children", ["keep", "stop"])
def test_stopped_under_load(make_daemon: Callable[..., Daemon], tmp_path: Path, children: str) -> None:
    """SIGTERM: children are left and found again, or ended and queued again at no cost."""
    chance = random.Random(SEED + 1)
    rounds = max(10, ROUNDS // 5)
    daemon, journal = make_daemon(CONFIG), Journal(tmp_path / "journal")
    daemon.env["ORCHESTR8D_EXECUTOR__CHILDREN"] = children
    daemon.start()
    with Load(daemon.state, journal, SEED + 1) as load:
        for number in range(rounds):
            time.sleep(chance.uniform(0.02, 0.9))
            if number % 3 == 2:
                # It does not live to finish it.
                os.kill(daemon.pid, signal.SIGTERM)
                time.sleep(chance.uniform(0, 0.05))
                daemon.kill()
            else:
                started = time.monotonic()
                assert daemon.stop() == 0, daemon.tail()
                took = time.monotonic() - started
                assert took < 5, f"a stop took {took:.1f} s: {daemon.tail()}"
            daemon.start()
        memory = load.stop()
    settle(daemon)
    conclude(f"{rounds} stops", daemon, memory, journal, interruptions=children == "stop")


def settle(daemon: Daemon) -> None:
    wait_all_final(daemon)
    assert daemon.stop() == 0


def conclude(what: str, daemon: Daemon, memory: Memory, journal: Journal, *, interruptions: bool) -> None:
    records = Records(daemon.state / "orchestr8d.db")
    kinds = [a["status"] for a in records.attempts]
    print(
        f"seed {SEED}: {what}, {len(records.tasks)} tasks, {len(kinds)} attempts "
        f"({kinds.count('interrupted')} interrupted), {len(memory.cancelled)} cancels, "
        f"{memory.resent} sent again, {memory.replayed} replayed"
    )
    found = faults(daemon.state, memory, journal, interruptions=interruptions)
    assert not found, f"{len(found)} faults, seed {SEED}:\n" + "\n".join(found[:20]) + f"\nlog: {daemon.log}"
    assert len(records.tasks) > 3 * ROUNDS
