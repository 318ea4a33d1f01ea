"""The disk of the state directory is full: nothing that was acknowledged is lost, nothing that ended runs again."""

from __future__ import annotations

import errno
import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon
from tests.torture.audit import Records, wait_all_final
from tests.torture.journal import Journal

pytestmark = [pytest.mark.slow, pytest.mark.torture]
MB = 1 << 20
# Holds a small file system in a mount namespace of its own: no privilege is needed for that, and it goes with it.
HOLD = 'mount -t tmpfs -o size=24m tmpfs "$1" && echo mounted && exec cat'


@dataclass(frozen=True)
class Disk:
    """A file system of 24 MB: its path in the namespace and from outside, and what runs a program in there."""

    inside: Path
    outside: Path
    enter: list[str]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    point = tmp_path / "disk"
    point.mkdir()
    holder = subprocess.Popen(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", HOLD, "sh", str(point)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    if holder.stdout.readline() != b"mounted\n":
        pytest.skip(f"no mount namespace to be had here: {holder.communicate()[1].decode()}")
    enter = ["nsenter", f"--target={holder.pid}", "--user", "--mount", "--preserve-credentials", f"--wd={Path.cwd()}"]
    yield Disk(point, Path(f"/proc/{holder.pid}/root{point}"), enter)
    holder.communicate(b"")


class Filler:
    """A file that takes what space is left, or gives it back."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "filler"

    def fill(self, leave: int = 0) -> None:
        with self._path.open("ab", buffering=0) as f:
            for step in (MB, 4096):
                while (free := self.free()) > leave:
                    try:
                        f.write(bytes(min(step, max(4096, free - leave))))
                    except OSError as e:
                        assert e.errno == errno.ENOSPC
                        break

    def free(self) -> int:
        at = os.statvfs(self._path.parent)
        return at.f_bavail * at.f_frsize

    def give_back(self) -> None:
        self._path.unlink()


def post(daemon: Daemon, body: dict[str, Any]) -> tuple[int, http.client.HTTPMessage, dict[str, Any]]:
    """Status, headers and document of a submit."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    try:
        headers = {"Authorization": f"Bearer {daemon.token}", "Content-Type": "application/json"}
        connection.request("POST", "/api/v1/tasks", json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, response.headers, json.loads(response.read())
    finally:
        connection.close()


def refused(daemon: Daemon, body: dict[str, Any]) -> bool:
    """Whether a submit was refused, in the way it has to be."""
    status, headers, document = post(daemon, body)
    if status == 202:
        return False
    assert (status, headers["Content-Type"]) == (503, "application/problem+json"), document
    assert int(headers["Retry-After"]) > 0
    assert (document["type"], document["status"]) == ("urn:orchestr8d:unavailable", 503)
    assert document["detail"]
    return True


def daemon_on(make_daemon: Callable[..., Daemon], disk: Disk, min_free: int) -> Daemon:
    config = f"[store]\nmin_free_disk = {min_free}\n[executor]\nconcurrency = 6\n[queues.held]\npaused = true\n"
    # Its log stays where there is room.
    daemon = make_daemon(config, wrap=disk.enter, env={"ORCHESTR8D_STATE": str(disk.inside / "state")})
    daemon.state = disk.outside / "state"
    return daemon


def copied(state: Path, target: Path) -> Path:
    """The database where SQLite can open it by its path."""
    for path in state.glob("orchestr8d.db*"):
        shutil.copy(path, target)
    return target / "orchestr8d.db"


def check_runs(records: Records, journal: Journal) -> None:
    """Each task that was acknowledged has completed, and ran once."""
    for task_id, task in records.tasks.items():
        label = records.title(task_id)
        assert task["status"] == "completed", (label, task["error"])
        assert len(journal.starts(label)) == len(journal.ends(label)) == 1, (label, records.attempts_of[task_id])


def test_no_space_at_all(disk: Disk, make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """Real ENOSPC, in the log of the database and in the attempts' files."""
    daemon = daemon_on(make_daemon, disk, 0).start()
    journal, filler = Journal(tmp_path / "journal"), Filler(disk.outside)
    flag = tmp_path / "flag"

    def body(label: str, *what: str, queue: str = "default", ballast: int = 0) -> dict[str, Any]:
        options = {"title": label, "queue": queue, "metadata": {"ballast": "x" * ballast}}
        return {"command": journal.command(label, *what), "options": options}

    acknowledged = {"held": 0}
    for i in range(6):
        assert not refused(daemon, body(f"running{i}", "until", str(flag)))
    for i in range(10):
        assert not refused(daemon, body(f"queued{i}", "true"))
    while not all(journal.starts(f"running{i}") for i in range(6)):
        time.sleep(0.01)
    filler.fill()
    # What the log of the database has room for is still taken, and counts.
    refusals = 0
    for i in range(400):
        filler.fill()
        if refused(daemon, body(f"held{i}", "true", queue="held", ballast=50_000)):
            refusals += 1
            if refusals == 5:
                break
        else:
            acknowledged["held"] += 1
    assert refusals == 5
    assert daemon.request("GET", "/healthz")[0] == 200
    # Tasks end, and others would start, while nothing can be written.
    flag.touch()
    while not all(journal.ends(f"running{i}") for i in range(6)):
        time.sleep(0.01)
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        filler.fill()
        assert refused(daemon, body("never", "true", queue="held", ballast=200_000))
        assert daemon.request("GET", "/api/v1/tasks?limit=5")[0] == 200
        time.sleep(0.1)
    filler.give_back()
    assert daemon.process is not None and daemon.process.poll() is None
    assert not refused(daemon, body("after", "true"))
    assert daemon.request("POST", "/api/v1/queues/held/resume")[0] == 200
    wait_all_final(daemon, 60)
    assert daemon.stop() == 0
    records = Records(copied(daemon.state, tmp_path))
    assert records.integrity == "ok"
    assert len(records.tasks) == 6 + 10 + acknowledged["held"] + 1
    check_runs(records, journal)


def test_killed_on_a_full_disk(disk: Disk, make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """It dies while outcomes wait for space: what ended is known by its exit file, and does not run again."""
    daemon = daemon_on(make_daemon, disk, 0).start()
    journal, filler = Journal(tmp_path / "journal"), Filler(disk.outside)
    flag = tmp_path / "flag"
    tasks = [daemon.submit(*journal.command(f"t{i}", "until", str(flag)), options={"title": f"t{i}"}) for i in range(6)]
    while not all(journal.starts(f"t{i}") for i in range(6)):
        time.sleep(0.01)
    for i in range(400):
        filler.fill()
        ballast = {"title": f"x{i}", "queue": "held", "metadata": {"ballast": "x" * 50_000}}
        if refused(daemon, {"command": journal.command(f"x{i}", "true"), "options": ballast}):
            break
    filler.fill()
    flag.touch()
    while not all(journal.ends(f"t{i}") for i in range(6)):
        time.sleep(0.01)
    time.sleep(0.3)
    daemon.kill()
    # There may be no room to start either; then it says so, and its service manager tries again.
    try:
        daemon.start(10)
        daemon.kill()
    except AssertionError as error:
        assert "ended with 1: " in str(error)
        assert "Traceback" not in str(error)
        assert "cannot start" in str(error)
    filler.give_back()
    daemon.start()
    assert daemon.request("POST", "/api/v1/queues/held/resume")[0] == 200
    wait_all_final(daemon, 60)
    assert {daemon.task(task)["status"] for task in tasks} == {"completed"}
    assert daemon.stop() == 0
    records = Records(copied(daemon.state, tmp_path))
    assert records.integrity == "ok"
    check_runs(records, journal)


def test_little_space(disk: Disk, make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """Below `min_free_disk` nothing is admitted or started; what runs ends as always, and is stored."""
    daemon = daemon_on(make_daemon, disk, 8 * MB).start()
    journal, filler = Journal(tmp_path / "journal"), Filler(disk.outside)
    flag = tmp_path / "flag"
    tasks = [daemon.submit(*journal.command(f"t{i}", "until", str(flag)), options={"title": f"t{i}"}) for i in range(9)]
    while sum(len(journal.starts(f"t{i}")) for i in range(9)) < 6:
        time.sleep(0.01)
    filler.fill(leave=6 * MB)
    assert refused(daemon, {"command": ["true"]})
    _, _, document = post(daemon, {"command": ["true"]})
    assert "min_free_disk" in document["detail"]
    assert daemon.request("POST", "/api/v1/tasks:batch", {"tasks": [{"command": ["true"]}]})[0] == 503
    flag.touch()
    for task in tasks[:6]:
        assert daemon.wait(task)["status"] == "completed"
    # Six slots are free, three tasks wait.
    assert [daemon.task(task)["status"] for task in tasks[6:]] == ["queued"] * 3
    assert daemon.request("POST", f"/api/v1/tasks/{tasks[8]}/cancel")[1]["status"] == "cancelled"
    filler.give_back()
    # Nobody has to nudge it.
    for task in tasks[6:8]:
        assert daemon.wait(task)["status"] == "completed"
    assert daemon.wait(daemon.submit("true"))["status"] == "completed"
    assert all(len(journal.starts(f"t{i}")) == (i < 8) for i in range(9))


def test_stopped_on_a_full_disk(disk: Disk, make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """It ends in time also when it has to end children and cannot store that; they run again at no cost."""
    daemon = daemon_on(make_daemon, disk, 0)
    daemon.env |= {"ORCHESTR8D_EXECUTOR__CHILDREN": "stop", "ORCHESTR8D_EXECUTOR__GRACE": "1s"}
    daemon.start()
    journal, filler, flag = Journal(tmp_path / "journal"), Filler(disk.outside), tmp_path / "flag"
    task = daemon.submit(*journal.command("t", "until", str(flag)), options={"title": "t"})
    while not journal.starts("t"):
        time.sleep(0.01)
    for _ in range(400):
        filler.fill()
        if refused(daemon, {"command": ["true"], "options": {"queue": "held", "metadata": {"ballast": "x" * 50_000}}}):
            break
    filler.fill()
    began = time.monotonic()
    assert daemon.stop() == 0, daemon.tail()
    assert time.monotonic() - began < 10
    filler.give_back()
    daemon.start()
    flag.touch()
    done = daemon.wait(task)
    assert (done["status"], done["retry_count"]) == ("completed", 0)
    assert [a["status"] for a in done["attempts"]] == ["interrupted", "completed"]
