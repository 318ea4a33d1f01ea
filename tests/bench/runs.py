"""Tasks that run /bin/true to a stored result: against the same runs with no store, and against task-spooler."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.bench import bare
from tests.bench.lines import Line, in_turns, median
from tests.bench.setting import SLOTS, Setting, call, helper
from tests.daemon import Daemon

QUEUE = "bench-runs"
TRUE = "/bin/true"


def running(daemon: Daemon, runs: int) -> Callable[[], float]:
    """Tasks a second, from the moment that a queue full of them is opened to the last stored result."""

    def measure() -> float:
        call(daemon, "POST", f"/api/v1/queues/{QUEUE}/pause")
        ids: list[str] = []
        while len(ids) < runs:
            tasks = [{"command": [TRUE], "cwd": "/", "options": {"queue": QUEUE}}] * min(1000, runs - len(ids))
            answer = call(daemon, "POST", "/api/v1/tasks:batch", {"tasks": tasks})
            ids += [task["task_id"] for task in answer["tasks"]]
        started = time.perf_counter()
        call(daemon, "POST", f"/api/v1/queues/{QUEUE}/resume")
        _wait(daemon, ids)
        return runs / (time.perf_counter() - started)

    return measure


def one_by_one(daemon: Daemon, runs: int) -> Callable[[], float]:
    """Tasks a second, from the first of as many submits to the last stored result."""

    def measure() -> float:
        body = msgspec.json.encode({"command": [TRUE], "cwd": "/", "options": {"queue": QUEUE}})
        headers = {"Authorization": f"Bearer {daemon.token}", "Content-Type": "application/json"}
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", daemon.port)) as connection:
            started = time.perf_counter()
            ids = []
            for _ in range(runs):
                connection.request("POST", "/api/v1/tasks", body, headers)
                ids.append(msgspec.json.decode(connection.getresponse().read())["task_id"])
            _wait(daemon, ids)
            return runs / (time.perf_counter() - started)

    return measure


def _wait(daemon: Daemon, ids: list[str]) -> None:
    # They start in their order, so that the last to end is among the last that were submitted.
    for task_id in ids[-4 * SLOTS :]:
        status = call(daemon, "GET", f"/api/v1/tasks/{task_id}/status?until=final&wait=60")["status"]
        assert status == "completed", status


def bare_runs(setting: Setting, runs: int) -> float:
    directory = setting.directory("bare")
    rate = helper("bare", bare.Plan(str(directory), [TRUE], runs, SLOTS), float)
    shutil.rmtree(directory)
    return rate


def run(setting: Setting) -> list[Line]:
    count = setting.size.runs
    with setting.daemon() as daemon:
        ours_in_turn = running(daemon, count)
        ours_in_turn()
        ours, reference = in_turns(setting.size.rounds, ours_in_turn, lambda: bare_runs(setting, count))
    what = f"tasks that run {TRUE} to a stored result, {SLOTS} at a time"
    return [Line(what, median(ours), "/s", median(reference), "the same shim and files, with no store", 0.6)]


def spooler(setting: Setting) -> list[Line]:
    what = "  the same, submitted one by one meanwhile"
    program = shutil.which("tsp")
    if program is None:
        return [Line(what, 0, "/s", note="not measured: task-spooler is not installed (Debian package task-spooler)")]
    count = setting.size.runs
    with setting.daemon() as daemon:
        ours, reference = in_turns(
            setting.size.rounds,
            one_by_one(daemon, count),
            lambda: _Spooler(program, setting.directory("tsp")).measure(count),
        )
    return [Line(what, median(ours), "/s", median(reference), "task-spooler", 1.0)]


class _Spooler:
    """A task-spooler of its own, with as many slots as we have."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._env = {**os.environ, "TMPDIR": str(directory), "TS_SOCKET": str(directory / "socket")}

    def _do(self, *args: str) -> str:
        done = subprocess.run([self._program, *args], env=self._env, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    def measure(self, count: int) -> float:
        """Tasks a second, from the first submit to the last result."""
        self._do("-S", str(SLOTS))
        try:
            started = time.perf_counter()
            ids = [self._do(TRUE) for _ in range(count)]
            for task_id in ids[-4 * SLOTS :]:
                self._do("-w", task_id)
            return count / (time.perf_counter() - started)
        finally:
            self._do("-K")
