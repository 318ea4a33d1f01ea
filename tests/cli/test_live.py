"""What goes on for a while: `watch`, a daemon that restarts under those who wait; terminals; how quick a status is."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests.cli.conftest import Box, until_it_waits

pytestmark = pytest.mark.slow
REPORT = """
from orchestr8d.client import Client
with Client() as client:
    client.progress(40, "compiling")
"""


def on_terminal(box: Box, *args: str, **env: str) -> str:
    """What the command line draws on a terminal."""
    ours, theirs = pty.openpty()
    environ = box.env | {"TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"} | env
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestr8d", *args], env=environ, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    drawn = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while piece := os.read(ours, 65536):
            drawn += piece
    os.close(ours)
    process.wait(30)
    return drawn.decode()


def test_watch_tells_a_line_an_event(box: Box) -> None:
    script = f"sleep 1; {sys.executable} -c '{REPORT}'; exit 3"
    task = box.out("submit", "-e", "PYTHONPATH", "--", "sh", "-c", script)
    done = box.run("watch", task, code=1)
    assert f"{task[-8:]}  progress  40 % compiling" in done.stdout
    assert f"{task[-8:]}  failed  attempt 1  exit_code 3" in done.stdout
    assert f"{task[-8:]}  failed" in box.run("watch", task[-8:], code=1).stdout


def test_watch_gives_events_as_json(box: Box) -> None:
    task = box.out("submit", "--", "sleep", "1")
    events = [json.loads(line) for line in box.out("watch", "--json", task).splitlines()]
    assert events[-1]["type"] == "task.completed"
    assert {event["task_id"] for event in events} == {task}


def test_watch_everything_until_ctrl_c(box: Box) -> None:
    watching = box.popen("watch")
    assert watching.stdout is not None
    seen = ""
    while "completed" not in seen:
        task = box.out("submit", "--wait", "--", "true")
        if seen := _take(watching.stdout.fileno()):
            assert "created" in seen or "queued" in seen or task[-8:] in seen
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=30)
    assert watching.returncode == 130


def _take(fd: int) -> str:
    import select

    return os.read(fd, 65536).decode() if select.select([fd], [], [], 0.5)[0] else ""


@pytest.mark.parametrize("end", [Box.stop, Box.kill])
def test_who_waits_goes_on_over_a_restart_of_the_daemon(fresh: Box, end: Callable[[Box], object]) -> None:
    fresh.start()
    go = fresh.state.parent / "go"
    script = f"echo 1; until [ -e {go} ]; do sleep 0.05; done; for i in 2 3 4; do echo $i; sleep 0.1; done"
    following = fresh.popen("submit", "--follow", "--", "sh", "-c", script)
    assert following.stdout is not None
    assert following.stdout.readline() == "1\n"
    task = json.loads(fresh.out("list", "--json"))["tasks"][0]["id"]
    waiting, watching = fresh.popen("wait", task), fresh.popen("watch", task)
    assert watching.stdout is not None and watching.stdout.readline()
    until_it_waits(waiting)
    end(fresh)
    fresh.run("status", task, code=3)
    fresh.start()
    go.touch()
    assert following.communicate(timeout=60)[0].split() == ["2", "3", "4"]
    assert waiting.communicate(timeout=60)[0] == f"{task[-8:]}  completed\n"
    assert "completed" in watching.communicate(timeout=60)[0]
    assert [p.returncode for p in (following, waiting, watching)] == [0, 0, 0]


def test_tables_and_colours_on_a_terminal_only(box: Box) -> None:
    box.run("submit", "--wait", "-o", "tags=wide", "--", "echo", "x" * 300)
    drawn = on_terminal(box, "list", "-t", "wide")
    assert "\x1b[32mcompleted\x1b[0m" in drawn
    assert "…" in drawn
    assert "\x1b[3" not in on_terminal(box, "list", "-t", "wide", NO_COLOR="1")
    assert "\x1b" not in on_terminal(box, "list", "-t", "wide", TERM="dumb")
    assert "\x1b" not in box.out("list", "-t", "wide")
    assert "\x1b[31mfailed\x1b[0m" in on_terminal(box, "status", _failed(box))


def _failed(box: Box) -> str:
    return json.loads(box.run("submit", "--wait", "--json", "--", "false", code=1).stdout)["task_id"]


def test_watch_draws_progress_on_a_terminal(box: Box) -> None:
    script = f"{sys.executable} -c '{REPORT}'; sleep 4"
    task = box.out("submit", "-e", "PYTHONPATH", "--", "sh", "-c", script)
    drawn = on_terminal(box, "watch", task)
    assert "████░░░░░░ 40 % compiling" in drawn
    assert "completed" in drawn


def test_status_is_quick(box: Box) -> None:
    """A status may take 1.5 times what `import aiohttp` takes: so it must not import it."""
    task = box.out("submit", "--wait", "--", "true")

    def seconds(*args: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, *args], env=box.env, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun

    status = min(seconds("-m", "orchestr8d", "status", task) for _ in range(5))
    assert status <= 1.5 * min(seconds("-c", "import aiohttp") for _ in range(5))


def test_nothing_heavy_is_imported_for_a_status(box: Box) -> None:
    task = box.out("submit", "--wait", "--", "true")
    imports = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "orchestr8d", "status", task],
        env=box.env, capture_output=True, text=True, check=True,
    ).stderr  # fmt: skip
    names = {line.rpartition("|")[2].strip() for line in imports.splitlines()}
    assert "orchestr8d.client.sync" in names
    assert not names & {
        "aiohttp",
        "asyncio",
        "rich",
        "aiosqlite",
        "sqlite3",
        "structlog",
        "uvloop",
        "prometheus_client",
    }
