"""Where the benchmarks run and how large they are: a directory on a real disk, daemons in it, helper processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tests.bench import load
from tests.daemon import Daemon

T = TypeVar("T")
# Beside the code, not in /tmp: where that lives in memory an fsync costs nothing.
CACHE = Path(__file__).parents[2] / ".cache" / "bench"
# Slots for what is measured. A few more are taken for good: see Seed.holders.
SLOTS = 8
HOLDERS = 4
# A queue that is paused, for submits that shall not run.
PAUSED = "bench-paused"
CONFIG = f"""
[executor]
concurrency = {SLOTS + HOLDERS}
children = "stop"
grace = "1s"
[limits]
queue_depth = 10000000
[queues.{PAUSED}]
paused = true
# What the seeds hold is old, and must not begin to go while we measure.
[retention]
completed = "forever"
failed = "forever"
cancelled = "forever"
events = "forever"
"""


class Size(msgspec.Struct, frozen=True):
    """How much is measured: rounds of each side, and how much a round holds."""

    rounds: int
    requests: int
    batches: int
    runs: int
    latencies: int
    starts: int
    idle: float
    # (finished, waiting) tasks of the databases beside the empty one.
    growth: tuple[tuple[int, int], ...]
    to_settle: int
    # Tasks of a workflow.
    workflow: int
    # That are not due.
    schedules: int


FULL = Size(
    rounds=7, requests=10_000, batches=20, runs=600, latencies=400, starts=15, idle=25.0,
    growth=((100_000, 10_000), (1_000_000, 100_000)), to_settle=1000,
    workflow=500, schedules=100_000,
)  # fmt: skip
QUICK = Size(
    rounds=3, requests=2_000, batches=5, runs=100, latencies=40, starts=3, idle=11.0,
    growth=((20_000, 2_000),), to_settle=100,
    workflow=100, schedules=5_000,
)  # fmt: skip


class Setting:
    """A run of the benchmarks: its size, and a directory that is removed afterwards."""

    def __init__(self, size: Size, root: Path) -> None:
        self.size = size
        self._root = root
        self._made = 0

    def directory(self, name: str) -> Path:
        self._made += 1
        path = self._root / f"{name}-{self._made}"
        path.mkdir(mode=0o700)
        return path

    @contextlib.contextmanager
    def daemon(self, database: Path | None = None, config: str = "") -> Iterator[Daemon]:
        """A daemon of its own, with the no-op route; it begins with a copy of `database`."""
        state = self.directory("state")
        if database is not None:
            shutil.copyfile(database, state / "orchestr8d.db")
            # Else the machine would go on writing a gigabyte while we measure.
            os.sync()
        daemon = Daemon(state, CONFIG + config, module="tests.bench.server")
        daemon.start()
        try:
            yield daemon
        finally:
            daemon.stop(60)
            # Only the large file: a file system that has just given up many is slow to make new ones (ext4 looks for an
            # inode that was not freed a moment ago), and that would be measured.
            for path in state.glob("orchestr8d.db*"):
                path.unlink()


@contextlib.contextmanager
def setting(size: Size) -> Iterator[Setting]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=CACHE, ignore_cleanup_errors=True) as root:
        yield Setting(size, Path(root))


def helper(module: str, plan: object, answer: type[T]) -> T:
    """What the helper process `python -m tests.bench.MODULE` makes of a plan."""
    argv: Sequence[str] = [sys.executable, "-m", f"tests.bench.{module}"]
    done = subprocess.run(argv, input=msgspec.json.encode(plan), stdout=subprocess.PIPE, check=True)
    return msgspec.json.decode(done.stdout, type=answer)


def put_load(
    daemon: Daemon, path: str, body: object, requests: int, connections: int, method: str = "POST", status: int = 202
) -> load.Load:
    text = "" if body is None else msgspec.json.encode(body).decode()
    warmup = max(2, requests // 20)
    plan = load.Plan(daemon.port, daemon.token, path, text, requests, connections, warmup, method, status)
    answer = helper("load", plan, load.Load)
    assert answer.refused == 0, f"{answer.refused} of {requests} requests to {path} were refused"
    return answer


def call(daemon: Daemon, method: str, path: str, body: Any = None) -> Any:
    """The answer of a request that must succeed."""
    status, answer = daemon.request(method, path, body)
    assert status < 300, (method, path, status, answer)
    return answer
