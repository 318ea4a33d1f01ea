"""From a submit to its child's first act on an idle daemon, against one bare spawn.

The child writes to a named pipe on which we wait: that is the moment.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from orchestr8d.clock import SystemClock
from orchestr8d.core.ids import uuid7
from orchestr8d.keeper import record
from orchestr8d.keeper.spawn import spawn
from orchestr8d.processes.files import attempt_files
from tests.bench.lines import Line, in_turns, percentile
from tests.bench.setting import Setting, call
from tests.daemon import Daemon

# So long everything is left to come to rest before the next one.
REST = 0.03


class Pipe:
    """A named pipe, and the command that writes to it."""

    def __init__(self, directory: Path) -> None:
        path = directory / "pipe"
        os.mkfifo(path)
        # Open for writing too, or the first reader's end would be the end of the pipe.
        self._fd = os.open(path, os.O_RDWR)
        self.command = ["/bin/sh", "-c", f"echo > '{path}'"]

    def wait(self) -> float:
        """When something was written."""
        os.read(self._fd, 64)
        return time.perf_counter()

    def close(self) -> None:
        os.close(self._fd)


@contextlib.contextmanager
def pipe(setting: Setting) -> Iterator[Pipe]:
    made = Pipe(setting.directory("pipe"))
    try:
        yield made
    finally:
        made.close()


def from_submit(daemon: Daemon, pipe: Pipe) -> Callable[[], float]:
    """Seconds from the request's first byte to the child's."""
    body = msgspec.json.encode({"command": pipe.command, "cwd": "/"})
    headers = {"Authorization": f"Bearer {daemon.token}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port)

    def measure() -> float:
        time.sleep(REST)
        started = time.perf_counter()
        connection.request("POST", "/api/v1/tasks", body, headers)
        seconds = pipe.wait() - started
        task_id = msgspec.json.decode(connection.getresponse().read())["task_id"]
        call(daemon, "GET", f"/api/v1/tasks/{task_id}/status?until=final&wait=20")
        return seconds

    return measure


def from_spawn(directory: Path, pipe: Pipe) -> Callable[[], float]:
    """Seconds from the spawn's begin to the child's first byte, with the attempt's files and nothing else."""
    boot, env = SystemClock().boot(), dict(os.environ)
    out = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND

    def measure() -> float:
        attempt_id = uuid7(int(time.time() * 1000))
        files = attempt_files(directory, attempt_id)
        time.sleep(REST)
        started = time.perf_counter()
        os.makedirs(os.path.dirname(files.exit), exist_ok=True)
        record.fill(files.exit, boot)
        opens = [(0, "/dev/null", os.O_RDONLY, 0), (1, files.stdout, out, 0o600), (2, files.stderr, out, 0o600)]
        spawn(pipe.command[0], pipe.command, env, "/", opens, frozenset())
        seconds = pipe.wait() - started
        os.wait()
        return seconds

    return measure


def latency(setting: Setting) -> list[Line]:
    with setting.daemon() as daemon, pipe(setting) as ours_at, pipe(setting) as bare_at:
        ours_in_turn, bare_in_turn = from_submit(daemon, ours_at), from_spawn(setting.directory("bare"), bare_at)
        for _ in range(5):
            ours_in_turn()
            bare_in_turn()
        ours, bare = in_turns(setting.size.latencies, ours_in_turn, bare_in_turn)
    lines = []
    for percent, bar in ((50, 4.0), (99, 8.0)):
        what = "submit → child started, idle daemon, p50" if percent == 50 else f"  its p{percent}"
        mine, its = percentile(ours, percent) * 1000, percentile(bare, percent) * 1000
        lines.append(Line(what, mine, "ms", its, f"one bare spawn, p{percent}", bar, "at most"))
    strict = percentile(ours, 99) / percentile(bare, 50)
    lines[-1].note = f"{strict:.1f} times the bare spawn's p50"
    return lines
