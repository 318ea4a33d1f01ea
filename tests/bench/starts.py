"""Starts: of a daemon that finds much to settle, of one on an empty database, of the command line; and searches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from orchestr8d.processes.files import attempt_files
from tests.bench import seed
from tests.bench.lines import Line, in_turns, median
from tests.bench.setting import CONFIG, Setting, call
from tests.daemon import Daemon

READY_BAR, SEARCH_BAR, SERVE_BAR, STATUS_BAR = 3.0, 100.0, 3.0, 1.5
REPOSITORY = Path(__file__).parents[2]


def restart(setting: Setting) -> list[Line]:
    """Ready with a long history and attempts to settle, and the first page of searches on it."""
    size = setting.size
    finished, waiting = size.growth[-1]
    state = setting.directory("state")
    shutil.copyfile(seed.seeded(finished, waiting), state / "orchestr8d.db")
    os.sync()
    daemon = Daemon(state, CONFIG)
    settled: list[float] = []

    def full() -> float:
        seed.add_running(state / "orchestr8d.db", size.to_settle, lambda i: attempt_files(state / "attempts", i))
        seed.flush()
        started = time.perf_counter()
        daemon.start()
        ready = time.perf_counter() - started
        while call(daemon, "GET", f"/api/v1/tasks?limit=1&queue={seed.SETTLING}&status=running")["tasks"]:
            time.sleep(0.01)
        settled.append(time.perf_counter() - started)
        daemon.stop(60)
        return ready

    def empty() -> float:
        fresh = setting.directory("state")
        other = Daemon(fresh, CONFIG)
        seed.flush()
        started = time.perf_counter()
        other.start()
        ready = time.perf_counter() - started
        other.stop()
        return ready

    ours, reference = in_turns(size.rounds, full, empty)
    lines = [
        Line(
            f"ready with {finished:,} tasks and {size.to_settle:,} attempts to settle", median(ours) * 1000, "ms",
            median(reference) * 1000, "an empty start", READY_BAR, "at most",
            note=f"all are settled after {median(settled):.2f} s",
        )
    ]  # fmt: skip
    daemon.start()
    try:
        lines += _searches(daemon, size.rounds * 3)
    finally:
        daemon.stop(60)
    return lines


def _searches(daemon: Daemon, rounds: int) -> list[Line]:
    queries = {
        "a rare word": seed.RARE,
        "a word of every task": seed.COMMON,
        "two words": f"{seed.COMMON} host42",
        "a beginning": "mod",
        "no match": seed.MISSING,
    }

    def search(q: str) -> Callable[[], float]:
        def measure() -> float:
            started = time.perf_counter()
            call(daemon, "GET", f"/api/v1/tasks?q={quote(q)}")
            return time.perf_counter() - started

        return measure

    found = in_turns(rounds, *(search(q) for q in queries.values()))
    return [
        Line(f"first page of q= with {name}", max(times[1:]) * 1000, "ms", bar=SEARCH_BAR, sense="at most",
             note=f"the slowest of {rounds - 1}; the first took {times[0] * 1000:.1f} ms")
        for name, times in zip(queries, found, strict=True)
    ]  # fmt: skip


def cli(setting: Setting) -> list[Line]:
    """What a user waits for at the prompt, from an installed wheel where one can be made."""
    size = setting.size
    state = setting.directory("state")
    program, env, how = _installed(setting)
    daemon = Daemon(state, CONFIG, env=env)
    daemon.start()
    try:
        task_id = daemon.submit("/bin/true")
        daemon.wait(task_id)
        status = [*program, "status", task_id]
        there = {**env, "ORCHESTR8D_STATE": str(state)}
        imports = [sys.executable, "-c", "import aiohttp"]
        serve_in_turn = lambda: _serve(setting, program, env)  # noqa: E731 (a side of the turns)
        sides = [serve_in_turn, lambda: _took(status, there), lambda: _took(imports, env)]
        in_turns(2, *sides)
        serving, asking, importing = (median(times) * 1000 for times in in_turns(size.starts, *sides))
    finally:
        daemon.stop()
    against = 'python -c "import aiohttp"'
    return [
        Line("orchestr8d serve to ready, empty database", serving, "ms", importing, against, SERVE_BAR, "at most", how),
        Line("orchestr8d status ID", asking, "ms", importing, against, STATUS_BAR, "at most", how),
    ]


def _installed(setting: Setting) -> tuple[Sequence[str], Mapping[str, str], str]:
    """The program, the environment it needs, and where it is from."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ORCHESTR8", "NOTIFY_"))}
    wheels, target = setting.directory("wheel"), setting.directory("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    made = subprocess.run([*pip, "wheel", "--no-deps", "-w", str(wheels), str(REPOSITORY)], capture_output=True)
    if made.returncode:
        return [sys.executable, "-m", "orchestr8d"], env, "from the source: no wheel could be made"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), *map(str, wheels.iterdir())], check=True)
    return [str(target / "bin" / "orchestr8d")], {**env, "PYTHONPATH": str(target)}, "from a wheel"


def _took(argv: Sequence[str], env: Mapping[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(argv, env=env, check=True, stdout=subprocess.DEVNULL, cwd="/")
    return time.perf_counter() - started


def _serve(setting: Setting, program: Sequence[str], env: Mapping[str, str]) -> float:
    state = setting.directory("state")
    read, write = os.pipe()
    own = {**env, "ORCHESTR8D_STATE": str(state), "ORCHESTR8D_SERVER__LISTEN": "127.0.0.1:0"}
    started = time.perf_counter()
    process = subprocess.Popen(
        [*program, "serve", "--ready-fd", str(write)], env=own, pass_fds=[write], cwd="/",
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(write)
    try:
        assert os.read(read, 16), f"the daemon has ended: {process.wait()}"
        return time.perf_counter() - started
    finally:
        os.close(read)
        process.terminate()
        process.wait(20)
