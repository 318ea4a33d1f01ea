"""The disk fails now and then: what could not be written was not acknowledged, what was acknowledged is there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.torture.audit import Records, wait_all_final
from tests.torture.journal import Journal

pytestmark = [pytest.mark.slow, pytest.mark.torture]
# -D: the daemon stays our child, the tracer is a process apart. -b: the daemon's threads are followed, what it runs is
# not: a disk that could not take how a task ended would have to forget that it ran.
TRACER = ["strace", "-D", "-f", "-b", "execve", "-qq", "-o", "/dev/null"]


@pytest.mark.parametrize(
    "fault", ["fdatasync:error=EIO:when=25+9", "pwrite64:error=EIO:when=90+61", "pwrite64:error=ENOSPC:when=90+61"]
)
def test_writes_fail(make_daemon: Callable[..., Daemon], tmp_path: Path, fault: str) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is missing; on Debian: apt-get install strace")
    if subprocess.run([*TRACER, "true"], check=False).returncode:
        pytest.skip("nobody may trace here")
    tracer = [*TRACER, f"--trace={fault.partition(':')[0]}", f"--inject={fault}", "--seccomp-bpf"]
    daemon, journal = make_daemon("[store]\nmin_free_disk = 0\n").start(), Journal(tmp_path / "journal")
    # The database is there, whatever it takes to make it.
    daemon.stop()
    daemon.wrap = tracer
    daemon.start()
    acknowledged: dict[str, str] = {}
    refusals = 0
    for number in range(150):
        label = f"t{number}"
        body = {"command": journal.command(label, "true"), "options": {"title": label}}
        status, answer = daemon.request("POST", "/api/v1/tasks", body)
        if status == 202:
            acknowledged[label] = answer["task_id"]
        else:
            assert (status, answer["type"]) == (503, "urn:orchestr8d:unavailable"), answer
            refusals += 1
    assert refusals, "no write has failed: this showed nothing"
    assert daemon.process is not None and daemon.process.poll() is None, daemon.tail()
    daemon.kill()
    daemon.wrap = []
    daemon.start()
    wait_all_final(daemon)
    assert daemon.stop() == 0
    records = Records(daemon.state / "orchestr8d.db")
    assert records.integrity == "ok"
    for label, task_id in acknowledged.items():
        assert records.tasks[task_id]["status"] == "completed"
        attempts = [a["id"] for a in records.attempts_of[task_id]]
        assert set(journal.starts(label)) <= set(attempts)
        assert journal.starts(label) == journal.ends(label) == attempts[-1:]
