"""No file descriptor is left: clients wait, work goes on; nothing is lost, nothing spins."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.torture.audit import Records, wait_all_final
from tests.torture.journal import Journal, doubled, left_alive

pytestmark = [pytest.mark.slow, pytest.mark.torture]
CONFIG = "[executor]\nconcurrency = 16\n"


def limited(make_daemon: Callable[..., Daemon], descriptors: int) -> Daemon:
    """A daemon whose hard limit it cannot raise."""
    return make_daemon(CONFIG, wrap=["sh", "-c", f'ulimit -n {descriptors} && exec "$@"', "sh"])


def used(daemon: Daemon) -> int:
    return len(os.listdir(f"/proc/{daemon.pid}/fd"))


def cpu_seconds(daemon: Daemon) -> float:
    fields = Path(f"/proc/{daemon.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def crowd(daemon: Daemon, size: int) -> Iterator[list[socket.socket]]:
    """Connections that say nothing."""
    sockets: list[socket.socket] = []
    try:
        for _ in range(size):
            connection = socket.socket()
            connection.settimeout(2)
            with suppress(OSError):
                connection.connect(("127.0.0.1", daemon.port))
            sockets.append(connection)
        yield sockets
    finally:
        for connection in sockets:
            connection.close()


def check_runs(daemon: Daemon, journal: Journal, labels: list[str]) -> Records:
    """All have completed at no cost, and ran as recorded attempts only; nothing of them is left."""
    records = Records(daemon.state / "orchestr8d.db")
    assert records.integrity == "ok"
    by_title = {records.title(task_id): task_id for task_id in records.tasks}
    for label in labels:
        task, attempts = records.tasks[by_title[label]], records.attempts_of[by_title[label]]
        assert (task["status"], task["retry_count"]) == ("completed", 0), (label, task["error"])
        assert [a["status"] for a in attempts[:-1]] == ["interrupted"] * (len(attempts) - 1)
        starts, ends = journal.starts(label), journal.ends(label)
        assert not doubled(starts)
        assert set(starts) <= {a["id"] for a in attempts}
        assert attempts[-1]["id"] in starts
        # What has run to its end is not run again.
        assert ends in ([attempts[-1]["id"]], [*ends[:-1], attempts[-1]["id"]])
    assert not left_alive(a["id"] for a in records.attempts)
    return records


def test_connections_take_them_all(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """A crowd of connections, while tasks run, end and wait."""
    idle = used(make_daemon().start())
    daemon, journal = limited(make_daemon, idle + 40).start(), Journal(tmp_path / "journal")
    flag = tmp_path / "flag"
    labels = [f"t{i}" for i in range(40)]
    tasks = [
        {"command": journal.command(label, "until", str(flag)), "options": {"title": label, "max_retries": 0}}
        for label in labels
    ]
    status, answer = daemon.request("POST", "/api/v1/tasks:batch", {"tasks": tasks})
    assert status == 202, answer
    while sum(len(journal.starts(label)) for label in labels) < 10:
        time.sleep(0.01)
    with crowd(daemon, 120):
        flag.touch()
        before = cpu_seconds(daemon)
        time.sleep(2)
        assert cpu_seconds(daemon) - before < 1.0, "it spins: " + daemon.tail()
        assert daemon.process is not None and daemon.process.poll() is None, daemon.tail()
    # Who comes while the crowd is still leaving may be turned away.
    wait_all_final_patiently(daemon)
    assert daemon.wait(daemon.submit("true", options={"title": "after"}))["status"] == "completed"
    wait_all_final(daemon)
    assert daemon.stop() == 0
    check_runs(daemon, journal, labels)


def test_too_few_for_the_slots(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    """More slots than descriptors: what runs needs none, as it is the keeper's to watch."""
    idle = used(make_daemon().start())
    daemon = limited(make_daemon, idle + 8)
    daemon.start()
    journal, labels = Journal(tmp_path / "journal"), [f"t{i}" for i in range(40)]
    tasks = [
        {"command": journal.command(label, "sleep", "0.3"), "options": {"title": label, "max_retries": 0}}
        for label in labels
    ]
    status, answer = daemon.request("POST", "/api/v1/tasks:batch", {"tasks": tasks})
    assert status == 202, answer
    wait_all_final_patiently(daemon)
    assert daemon.stop() == 0
    records = check_runs(daemon, journal, labels)
    assert {a["status"] for a in records.attempts} == {"completed"}


def wait_all_final_patiently(daemon: Daemon) -> None:
    """As wait_all_final, by a client that may be turned away meanwhile."""
    end = time.monotonic() + 60
    path = "/api/v1/tasks?status=pending,queued,running,retrying&limit=1"
    while True:
        assert time.monotonic() < end, daemon.tail()
        assert daemon.process is not None and daemon.process.poll() is None, daemon.tail()
        with suppress(OSError):
            status, answer = daemon.request("GET", path, timeout=2)
            if status == 200 and not answer["tasks"]:
                return
        time.sleep(0.1)


def test_start_with_too_few(make_daemon: Callable[..., Daemon]) -> None:
    """It says so, as a sentence."""
    daemon = limited(make_daemon, 14)
    with pytest.raises(AssertionError, match="ended with 1: ") as caught:
        daemon.start()
    assert "orchestr8d: cannot start" in str(caught.value)
    assert "Traceback" not in str(caught.value)
