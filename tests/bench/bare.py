"""Runs without a daemon: the same runner, keeper and files, nothing stored. As a process of its own, like a daemon.

Reads a JSON Plan on stdin and writes runs a second to stdout.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import uvloop

from orchestr8d.clock import SystemClock
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import Spec
from orchestr8d.processes import Processes
from orchestr8d.processes.files import attempt_files
from orchestr8d.task_runners import Limits, Run
from orchestr8d.task_runners.command import CommandRunner


class Plan(msgspec.Struct):
    """`runs` of `command`, `concurrency` at a time, with their attempts' directories under `directory`."""

    directory: str
    command: list[str]
    runs: int
    concurrency: int


async def _measure(plan: Plan) -> float:
    clock = SystemClock()
    processes = Processes(clock)
    runner = CommandRunner(processes, clock, os.environ)

    def run() -> Run:
        attempt_id = uuid7(clock.now())
        spec = Spec(command=plan.command, cwd="/")
        files = attempt_files(Path(plan.directory), attempt_id)
        return Run("", attempt_id, spec, files, {"ORCHESTR8_ATTEMPT_ID": attempt_id}, Limits())

    async def worker(turns: Iterator[int]) -> None:
        for _ in turns:
            outcome = await runner.run(run())
            assert outcome.status == "completed", outcome

    async def runs(count: int) -> float:
        turns = iter(range(count))
        started = time.perf_counter()
        await asyncio.gather(*(worker(turns) for _ in range(plan.concurrency)))
        return time.perf_counter() - started

    await runs(2 * plan.concurrency)
    seconds = await runs(plan.runs)
    await processes.close()
    return plan.runs / seconds


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rate = runner.run(_measure(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)))
    sys.stdout.buffer.write(msgspec.json.encode(rate))
