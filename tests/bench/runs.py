"""Tasks that run /bin/true to a stored result: against the same runs with no store, and against task-spooler."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

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
        ids = _submit(daemon, runs)
        started = time.perf_counter()
        call(daemon, "POST", f"/api/v1/queues/{QUEUE}/resume")
        _wait(daemon, ids)
        return runs / (time.perf_counter() - started)

    return measure


def from_submits(daemon: Daemon, runs: int) -> Callable[[], float]:
    """Tasks a second, from the first submit to the last stored result."""

    def measure() -> float:
        started = time.perf_counter()
        _wait(daemon, _submit(daemon, runs))
        return runs / (time.perf_counter() - started)

    return measure


def _submit(daemon: Daemon, count: int) -> list[str]:
    task = {"command": [TRUE], "cwd": "/", "options": {"queue": QUEUE}}
    ids: list[str] = []
    while len(ids) < count:
        answer = call(daemon, "POST", "/api/v1/tasks:batch", {"tasks": [task] * min(1000, count - len(ids))})
        ids += [one["task_id"] for one in answer["tasks"]]
    return ids


def _wait(daemon: Daemon, ids: list[str]) -> None:
    # They start in their order, so that the last to end is among the last that were submitted.
    for task_id in ids[-4 * SLOTS :]:
        status = call(daemon, "GET", f"/api/v1/tasks/{task_id}/status?until=final&wait=60")["status"]
        assert status == "completed", status


def bare_runs(setting: Setting, runs: int) -> float:
    directory = setting.directory("bare")
    return helper("bare", bare.Plan(str(directory), [TRUE], runs, SLOTS), float)


def run(setting: Setting) -> list[Line]:
    count = setting.size.runs
    with setting.daemon() as daemon:
        ours_in_turn = running(daemon, count)
        ours_in_turn()
        ours, reference = in_turns(setting.size.rounds, ours_in_turn, lambda: bare_runs(setting, count))
    what = f"tasks that run {TRUE} to a stored result, {SLOTS} at a time"
    return [Line(what, median(ours), "/s", median(reference), "the same keeper and files, with no store", 0.6)]


def spooler(setting: Setting) -> list[Line]:
    what = "  the same, from the first submit on"
    program = shutil.which("tsp")
    if program is None:
        return [Line(what, 0, "/s", note="not measured: task-spooler is not installed (Debian package task-spooler)")]
    count = setting.size.runs
    with setting.daemon() as daemon:
        ours, reference = in_turns(
            setting.size.rounds,
            from_submits(daemon, count),
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
