"""Somebody sets the wall clock by a day: due times follow it, durations do not, and nobody alive is rescued."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon
from tests.torture.journal import Journal, left_alive
from tests.torture.test_adoption import until

pytestmark = [pytest.mark.slow, pytest.mark.torture]
CONFIG = """\
[executor]
grace = "1s"
[queues.paced]
rate = "1/2s"
"""
LIBRARIES = [
    *Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"),
    *Path("/usr/lib").glob("faketime/libfaketimeMT.so.1"),
]
# Seconds by which a busy machine may be late.
LATE = 15.0
# What the daemon's heartbeat adds when the clock alone has changed.
HEARTBEAT = 10.0


def uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Clock:
    """The wall clock of one daemon, set with `set`; its children have the real one."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self.set("+0")
        self.env = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, offset: str) -> None:
        part = self._file.with_suffix(".part")
        part.write_text(offset + "\n")
        part.replace(self._file)


class Runs:
    """Commands that note when they ran, on a clock that nobody sets."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "runs"
        self._directory.mkdir()

    def command(self, name: str, then: str = "exit 0") -> list[str]:
        script = f'read up rest </proc/uptime; echo "$up" >>"$0"; {then}'
        return ["sh", "-c", script, str(self._directory / name)]

    def of(self, name: str) -> list[float]:
        path = self._directory / name
        return [float(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    if not LIBRARIES:
        pytest.skip("libfaketime is missing; on Debian: apt-get install faketime")
    return Clock(tmp_path)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


@pytest.fixture
def faked(make_daemon: Callable[..., Daemon], clock: Clock) -> Daemon:
    return make_daemon(CONFIG, env=clock.env).start()


def wall(seconds: float) -> str:
    """The real wall clock's time in so many seconds, as the API takes it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def submit(daemon: Daemon, command: list[str], **options: Any) -> str:
    return daemon.submit(*command, options=options)


def waited(runs: Runs, name: str, since: float) -> float:
    """Seconds from `since` until the command ran for the first time."""
    return float(until(lambda: runs.of(name), 40)[0]) - since


def test_a_day_ahead(faked: Daemon, clock: Clock, runs: Runs, tmp_path: Path) -> None:
    flag, start = tmp_path / "flag", uptime()
    wait = f"while ! [ -e {flag} ]; do sleep 0.02; done"
    running = submit(faked, runs.command("running", wait), timeout="1h", stall_timeout="1h")
    timing_out = submit(faked, runs.command("timing out", "sleep 60"), timeout=4)
    retrying = submit(
        faked, runs.command("retrying", "exit 1"), max_retries=1,
        retry_backoff={"kind": "fixed", "base": 4, "jitter": False},
    )  # fmt: skip
    faked.wait_until(retrying, "retrying")
    soon = submit(faked, runs.command("soon"), delay=4)
    later = submit(faked, runs.command("later"), delay="1h")
    patient = submit(faked, runs.command("patient"), delay="1h", deadline="2h")
    due = submit(faked, runs.command("due"), run_at=wall(2 * 3600))
    not_due = submit(faked, runs.command("not due"), run_at=wall(2 * 86400))
    paced = [submit(faked, runs.command("paced"), queue="paced") for _ in range(3)]
    until(lambda: runs.of("running") and runs.of("timing out") and runs.of("paced"))
    jump = uptime()
    clock.set("+1d")

    assert faked.wait(submit(faked, runs.command("new")), 10)["status"] == "completed"
    assert 4 <= waited(runs, "soon", start) <= 4 + (jump - start) + LATE
    assert faked.wait(timing_out)["error"]["kind"] == "timeout"
    assert 4 <= uptime() - runs.of("timing out")[0] <= 4 + LATE
    assert faked.wait(retrying)["error"]["kind"] == "exit"
    first, second = runs.of("retrying")
    assert 4 <= second - first <= 4 + LATE
    for task in paced:
        faked.wait(task)
    ran = runs.of("paced")
    assert all(1 <= b - a <= 2 + LATE for a, b in pairwise(ran)), ran
    assert -0.1 <= waited(runs, "due", jump) <= HEARTBEAT + LATE
    assert faked.wait(due)["status"] == "completed"

    # Nothing of the rest has moved, and who was alive is the same.
    assert {faked.task(task)["status"] for task in (later, patient, not_due)} == {"pending"}
    assert len(faked.task(running)["attempts"]) == 1
    faked.kill()
    faked.start()
    assert faked.wait_until(running, "running")["attempts"][0]["status"] == "running"
    flag.touch()
    assert [a["status"] for a in faked.wait(running)["attempts"]] == ["completed"]
    assert runs.of("later") == runs.of("patient") == runs.of("not due") == []
    assert len(runs.of("running")) == 1
    faked.wait(soon)


def test_a_day_back(faked: Daemon, clock: Clock, runs: Runs, tmp_path: Path) -> None:
    flag, start = tmp_path / "flag", uptime()
    wait = f"while ! [ -e {flag} ]; do sleep 0.02; done"
    running = submit(faked, runs.command("running", wait))
    before = submit(faked, runs.command("before"), delay=2)
    timing_out = submit(faked, runs.command("timing out", "sleep 60"), timeout=3)
    retrying = submit(
        faked, runs.command("retrying", "exit 1"), max_retries=1,
        retry_backoff={"kind": "fixed", "base": 3, "jitter": False},
    )  # fmt: skip
    faked.wait_until(retrying, "retrying")
    expiring = submit(faked, runs.command("expiring"), delay="1h", deadline=3)
    at = submit(faked, runs.command("at"), run_at=wall(60))
    at_before = faked.task(at)["waiting_for"]
    paced = [submit(faked, runs.command("paced"), queue="paced") for _ in range(3)]
    until(lambda: runs.of("running") and runs.of("timing out") and runs.of("paced"))
    jump = uptime()
    clock.set("-1d")

    new = submit(faked, runs.command("new"))
    assert faked.wait(new, 10)["status"] == "completed"
    assert waited(runs, "new", jump) <= LATE
    after_start = uptime()
    after = submit(faked, runs.command("after"), delay=2)
    assert 2 <= waited(runs, "before", start) <= 2 + (jump - start) + LATE
    assert 1.9 <= waited(runs, "after", after_start) <= 2 + LATE
    assert faked.wait(timing_out)["error"]["kind"] == "timeout"
    assert faked.wait(expiring, 10)["error"]["kind"] == "deadline"
    assert uptime() - start <= 8 + LATE
    assert faked.wait(retrying)["error"]["kind"] == "exit"
    first, second = runs.of("retrying")
    assert 3 <= second - first <= 3 + LATE
    for task in (*paced, after, before):
        assert faked.wait(task)["status"] == "completed"
    ran = runs.of("paced")
    assert all(1 <= b - a <= 2 + LATE for a, b in pairwise(ran)), ran
    # Its time is a day and a minute away now.
    assert faked.task(at)["waiting_for"] == at_before
    assert len(faked.task(running)["attempts"]) == 1
    faked.kill()
    faked.start()
    flag.touch()
    assert [a["status"] for a in faked.wait(running)["attempts"]] == ["completed"]
    assert faked.stop() == 0


@pytest.mark.parametrize("offset", ["+1d", "-1d"])
def test_set_while_it_was_down(
    make_daemon: Callable[..., Daemon], clock: Clock, runs: Runs, tmp_path: Path, offset: str
) -> None:
    """The living are adopted, the ended finished; delays mean what they meant."""
    # Files bear the time at which they were written, which was before.
    faked = make_daemon(CONFIG, env=clock.env | {"NO_FAKE_STAT": "1"}).start()
    journal = Journal(tmp_path / "journal")
    flag, other = tmp_path / "flag", tmp_path / "other"
    alive = submit(faked, journal.command("alive", "until", str(flag)))
    ended = submit(faked, journal.command("ended", "until", str(other)))
    shot = submit(faked, ["sh", "-c", f"while ! [ -e {other} ]; do sleep 0.02; done; kill -SEGV $$"])
    until(lambda: journal.starts("alive") and journal.starts("ended"))
    later = submit(faked, runs.command("later"), delay="1h")
    soon_from = uptime()
    soon = submit(faked, runs.command("soon"), delay=4)
    attempts = [faked.wait_until(task, "running")["attempts"][0]["attempt_id"] for task in (ended, shot)]
    faked.kill()
    other.touch()
    until(lambda: not left_alive(attempts))
    clock.set(offset)
    faked.start()
    assert faked.wait(ended)["status"] == "completed"
    assert faked.wait(shot)["error"]["kind"] == "signal"
    assert faked.task(alive)["status"] == "running"
    assert 4 <= waited(runs, "soon", soon_from) <= 4 + LATE
    flag.touch()
    done = [faked.wait(alive), faked.wait(ended), faked.wait(shot)]
    assert [len(task["attempts"]) for task in done] == [1, 1, 1]
    assert faked.wait(soon)["status"] == "completed"
    assert faked.task(later)["status"] == "pending"
    assert faked.wait(submit(faked, ["true"]), 10)["status"] == "completed"
