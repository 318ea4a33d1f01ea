"""The talk with systemd: over real sockets, and of listings as systemctl prints them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestr8d import systemd

ME = str(os.getpid())


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """What listens at the other end, and its NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        name = str(tmp_path / "n") if request.param == "path" else f"@orchestr8d-test-{os.getpid()}"
        s.bind(name.replace("@", "\0", 1))
        s.settimeout(5)
        yield s, name


def test_messages(manager: tuple[socket.socket, str]) -> None:
    listener, name = manager
    notifier = systemd.Notifier({"NOTIFY_SOCKET": name}, time.monotonic)
    assert notifier.active

    def heard() -> list[str]:
        return listener.recv(4096).decode().split("\n")

    notifier.ready("serving\nwell")
    assert heard() == ["READY=1", f"MAINPID={ME}", "STATUS=serving well"]
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.reloading()
    reloading, at = heard()
    assert reloading == "RELOADING=1"
    assert before <= int(at.removeprefix("MONOTONIC_USEC=")) <= before + 5_000_000
    notifier.watchdog()
    assert heard() == ["WATCHDOG=1"]
    notifier.status("3 running")
    assert heard() == ["STATUS=3 running"]
    notifier.stopping()
    assert heard() == ["STOPPING=1"]


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_nobody_listens(environ: dict[str, str]) -> None:
    notifier = systemd.Notifier(environ | {"WATCHDOG_USEC": "10"}, time.monotonic)
    assert not notifier.active and notifier.watchdog_interval is None
    notifier.ready()


def test_a_manager_that_went_away_is_no_error(tmp_path: Path) -> None:
    systemd.Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}, time.monotonic).ready()


def test_a_manager_that_does_not_read_blocks_nobody(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "n"))
        notifier = systemd.Notifier({"NOTIFY_SOCKET": str(tmp_path / "n")}, time.monotonic)
        for _ in range(2000):
            notifier.watchdog()


@pytest.mark.parametrize(("environ", "seconds"), [
    ({}, None),
    ({"WATCHDOG_USEC": "30000000"}, 15.0),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ME}, 15.0),
    ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ({"WATCHDOG_USEC": "0"}, None),
    ({"WATCHDOG_USEC": "soon"}, None),
])  # fmt: skip
def test_watchdog_interval(environ: dict[str, str], seconds: float | None) -> None:
    notifier = systemd.Notifier(environ | {"NOTIFY_SOCKET": "/run/notify"}, time.monotonic)
    assert notifier.watchdog_interval == seconds


@pytest.mark.parametrize(("cgroup", "unit"), [
    ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/orchestr8d.service",
     ("orchestr8d.service", True)),
    ("0::/system.slice/system-orchestr8d.slice/orchestr8d@me.service", ("orchestr8d@me.service", False)),
    ("12:pids:/x.service\n1:name=systemd:/system.slice/orchestr8d@me.service\n0::/",
     ("orchestr8d@me.service", False)),
    ("0::/user.slice/user-1000.slice/user@1000.service", None),
    ("0::/user.slice/user-1000.slice/session-2.scope", None),
    ("0::/", None),
])  # fmt: skip
def test_own_unit(cgroup: str, unit: tuple[str, bool] | None) -> None:
    assert systemd.own_unit({"SYSTEMD_EXEC_PID": ME}, cgroup) == unit
    # Started by hand inside somebody's service.
    assert systemd.own_unit({"SYSTEMD_EXEC_PID": "1"}, cgroup) is None
    assert systemd.own_unit({}, cgroup) is None


LISTING = """\
 91 foo.service                start   waiting
101 orchestr8d.service         {job} running
102 orchestr8d@me.service      stop    running
"""


@pytest.mark.parametrize(("job", "answer"), [("restart", "restart"), ("stop   ", "stop"), ("reload ", None)])
def test_job_of(job: str, answer: str | None) -> None:
    assert systemd.job_of("orchestr8d.service", LISTING.format(job=job)) == answer
    assert systemd.job_of("orchestr8d@me.service", LISTING) == "stop"
    assert systemd.job_of("other.service", LISTING) is None
    assert systemd.job_of("orchestr8d.service", "No jobs running.\n") is None


async def test_pending_job_asks_systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "own_unit", lambda environ: ("orchestr8d.service", True))
    program = tmp_path / "systemctl"
    program.write_text('#!/bin/sh\n[ "$1 $2" = "--user list-jobs" ] && echo "7 orchestr8d.service restart running"\n')
    program.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert await systemd.pending_job(environ) == "restart"
    program.write_text("#!/bin/sh\necho 'Failed to connect to bus' >&2; exit 1\n")
    assert await systemd.pending_job(environ) is None
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    assert await systemd.pending_job(environ, timeout=0.1) is None
    program.unlink()
    assert await systemd.pending_job({"PATH": str(tmp_path)}) is None


async def test_no_service_no_job() -> None:
    assert await systemd.pending_job({}) is None
