"""What the tests of processes share: attempts run for real, and a look at /proc for who is still alive."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestr8d.clock import SystemClock
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import Spec
from orchestr8d.core.outcome import Outcome
from orchestr8d.processes import Processes
from orchestr8d.processes.files import attempt_files
from orchestr8d.task_runners import Limits, Run
from orchestr8d.task_runners.command import CommandRunner

# A script that notes who it is (pid and start time, by which a process is told from a later one of the same pid).
NOTE = 'read -r line </proc/$$/stat; set -- $line; echo "$1 ${{22}}" >>{notes}\n'


class Bench:
    """Runs attempts in a directory of its own, and keeps their notes."""

    def __init__(self, processes: Processes, root: Path) -> None:
        self.clock = SystemClock()
        self.processes = processes
        self.root = root
        self.notes = root / "notes"
        self.runner = CommandRunner(processes, self.clock, os.environ)
        self.leaf = self._script("leaf", "exec sleep 300\n")
        self.stubborn = self._script("stubborn", "trap '' TERM HUP INT\nexec sleep 300\n")

    def _script(self, name: str, rest: str) -> Path:
        path = self.root / name
        path.write_text("#!/bin/sh\n" + NOTE.format(notes=self.notes) + rest)
        path.chmod(0o755)
        return path

    def attempt(
        self,
        *command: str,
        output_bytes: int = 1 << 20,
        grace: float = 0.3,
        time_left: float | None = None,
        adopted: bool = False,
        attempt_id: str | None = None,
        **spec: Any,
    ) -> Run:
        attempt_id = attempt_id or uuid7(self.clock.now())
        return Run(
            task_id="t-" + attempt_id,
            attempt_id=attempt_id,
            spec=Spec(command=list(command), **{"cwd": str(self.root), **spec}),
            files=attempt_files(self.root / "attempts", attempt_id),
            env={"ORCHESTR8_TASK_ID": "t-" + attempt_id},
            limits=Limits(grace, output_bytes),
            time_left=time_left,
            adopted=adopted,
        )

    async def run(self, *command: str, **more: Any) -> Outcome:
        return await self.runner.run(self.attempt(*command, **more))

    def noted(self) -> list[tuple[int, int]]:
        """Pid and start time of each process that has noted itself."""
        if not self.notes.exists():
            return []
        return [(int(a), int(b)) for a, b in (line.split() for line in self.notes.read_text().splitlines())]

    def alive(self) -> list[int]:
        """Pids of the noted processes that still run."""
        return [pid for pid, start in self.noted() if running(pid, start)]


def running(pid: int, start: int | None = None) -> bool:
    """Whether the process runs, and is the one that started then; a zombie does not."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return fields[0] not in (b"Z", b"X") and start in (None, int(fields[19]))


async def until(fact: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for a fact, not for a time."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it never came true"
        await asyncio.sleep(0.005)
