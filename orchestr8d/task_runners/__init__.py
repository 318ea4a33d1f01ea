"""The registry of runners: how each kind of task is executed. Third parties add theirs by entry point."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Literal, Protocol

from orchestr8d.core.model import Progress, Session, Spec
from orchestr8d.core.outcome import Outcome
from orchestr8d.processes.files import Files

GROUP = "orchestr8d.task_runners"
Why = Literal["cancelled", "interrupted"]


class Stop:
    """Tells a run to end its processes, and why; asked for at most once, kept from then on."""

    def __init__(self) -> None:
        self.why: Why | None = None
        # To be waited for together with a child's end; nobody may cancel it.
        self.asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ask(self, why: Why) -> None:
        if self.why is None:
            self.why = why
            self.asked.set_result(None)


@dataclass(frozen=True)
class Limits:
    """What holds for each run, from the configuration: seconds and bytes."""

    grace: float = 10.0
    output_bytes: int = 100 << 20


@dataclass(frozen=True)
class Run:
    """One attempt, handed to a runner.

    `env` are the ORCHESTR8_* variables; `time_left` is what remains until the task's deadline, in seconds. With
    `adopted` the processes were started by an earlier daemon: the runner looks for the living child or the exit
    file in `files` and starts nothing; when there is neither, the outcome is `interrupted`.
    """

    task_id: str
    attempt_id: str
    spec: Spec
    files: Files
    env: Mapping[str, str]
    limits: Limits
    # The conversation of an agent.
    session: Session | None = None
    time_left: float | None = None
    adopted: bool = False
    stop: Stop = field(default_factory=Stop)
    # Told once when the child was started (or found again), and whenever there is something new to show.
    started: Callable[[], None] = lambda: None
    progress: Callable[[Progress], None] = lambda progress: None


class Runner(Protocol):
    """Executes attempts of one kind. `run` never raises but CancelledError, which leaves the child alive."""

    kind: str

    async def run(self, run: Run) -> Outcome: ...


def third_party() -> dict[str, Callable[[], Callable[..., Runner]]]:
    """Runners that other packages bring, by kind: what loads the factory, which takes (processes, clock)."""
    return {point.name: point.load for point in entry_points(group=GROUP)}
