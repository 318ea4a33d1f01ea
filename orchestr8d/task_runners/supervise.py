"""Watches a child under its attempt's rules (time, silence, output, a wish to stop) until nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestr8d.clock import Clock
from orchestr8d.core.model import Resources
from orchestr8d.core.outcome import Outcome, failed
from orchestr8d.processes import Child, Files, Processes, recorded, signal_of
from orchestr8d.processes.files import create, cut, size
from orchestr8d.task_runners import Stop

Reason = Literal["exit", "timeout", "deadline", "stalled", "silent", "output_limit", "cancelled", "interrupted"]
# Seconds between two looks at the output; a fast writer gets past its cap by what it writes in this time.
LOOK = 0.25


@dataclass(frozen=True)
class Rules:
    """Seconds and bytes. `deadline` is on the monotonic clock; `output_bytes` holds for stdout and stderr each;
    `first_byte_timeout` is for the first output on stdout."""

    output_bytes: int
    grace: float
    timeout: float | None = None
    deadline: float | None = None
    stall_timeout: float | None = None
    first_byte_timeout: float | None = None


@dataclass(frozen=True)
class Ended:
    """Why a child is gone and what it left. `exit_code` is as a shell has it; None when nobody recorded it."""

    reason: Reason
    exit_code: int | None
    resources: Resources | None
    stdout_bytes: int
    stderr_bytes: int

    @property
    def output_bytes(self) -> int:
        return self.stdout_bytes + self.stderr_bytes

    @property
    def signal(self) -> str | None:
        return None if self.exit_code is None else signal_of(self.exit_code)


async def supervise(processes: Processes, clock: Clock, child: Child, rules: Rules, stop: Stop) -> Ended:
    """Returns when the child has ended, or was ended for a reason, and no process of its tree is left.

    Cancelled, it leaves the child alive.
    """
    try:
        reason = await _watch(processes, clock, child, rules, stop)
        if reason == "interrupted":
            _note_interruption(child.files)
        result = await (processes.settle(child) if reason == "exit" else processes.end(child, rules.grace))
    except Exception:
        await processes.end(child, rules.grace)
        raise
    sizes = _sizes(child.files)
    if reason == "exit" and max(sizes) > rules.output_bytes:
        reason = "output_limit"
    if reason == "output_limit":
        _cut(child.files, rules.output_bytes)
        sizes = _sizes(child.files)
    return Ended(reason, result.status, result.resources, *sizes)


def left_behind(files: Files, rules: Rules, boot: str) -> Ended:
    """The same for a child that ended while no daemon ran, from its files alone. `boot` names the present one.

    One that a signal ended in an earlier boot, or that a daemon was about to end when it was itself, was ended by the
    shutdown: nobody says how it would have ended. The same goes for SIGKILL with no daemon there: it is what whole
    machines, containers and services are ended with.
    """
    found = recorded(files)
    status = found.status
    if status is not None and signal_of(status):
        shutdown = found.boot != boot or Path(files.interrupted).exists()
        if shutdown or status == 128 + signal.SIGKILL:
            status = None
    over = status is not None and max(_sizes(files)) > rules.output_bytes
    if over:
        _cut(files, rules.output_bytes)
    return Ended("output_limit" if over else "exit", status, found.resources, *_sizes(files))


def _note_interruption(files: Files) -> None:
    # For the next daemon, should this one not live to store it. A shortage is no reason not to go on.
    with contextlib.suppress(OSError):
        create(files.interrupted)


def verdict(ended: Ended, rules: Rules) -> Outcome | None:
    """The outcome of a child that was ended for a reason; None when it ended by itself and recorded its status."""
    match ended.reason:
        case "cancelled":
            return Outcome(status="cancelled")
        case "interrupted":
            return Outcome(status="interrupted")
        case "timeout":
            return failed("timeout", f"ran longer than its timeout of {_span(rules.timeout)}")
        case "deadline":
            return failed("deadline", "the task's deadline passed while it ran")
        case "stalled":
            return failed("stalled", f"no output for {_span(rules.stall_timeout)} (stall_timeout)")
        case "silent":
            return failed("stalled", f"no output within {_span(rules.first_byte_timeout)} (first_byte_timeout)")
        case "output_limit":
            return failed("output_limit", f"wrote more than {rules.output_bytes} bytes ([limits] output_bytes)")
        case "exit":
            return Outcome(status="interrupted") if ended.exit_code is None else None


async def _watch(processes: Processes, clock: Clock, child: Child, rules: Rules, stop: Stop) -> Reason:
    now = clock.monotonic()
    alarms: dict[Reason, float] = {}
    if rules.timeout is not None:
        alarms["timeout"] = now - (child.age or 0.0) + rules.timeout
    if rules.deadline is not None:
        alarms["deadline"] = rules.deadline
    if rules.stall_timeout is not None:
        alarms["stalled"] = now + rules.stall_timeout
    if rules.first_byte_timeout is not None and not size(child.files.stdout):
        alarms["silent"] = now - (child.age or 0.0) + rules.first_byte_timeout
    # Nobody asks how much there was unless silence counts.
    written = (0, 0) if rules.stall_timeout is None else _sizes(child.files)
    ends: set[asyncio.Future[Any]] = {child.exited, stop.asked}
    while True:
        pause = max(0.0, min([LOOK, *(at - now for at in alarms.values())]))
        await asyncio.wait(ends, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        if child.exited.done():
            return "exit"
        if stop.why is not None:
            return stop.why
        now = clock.monotonic()
        sizes = _sizes(child.files)
        if max(sizes) > rules.output_bytes:
            return "output_limit"
        if sizes != written and rules.stall_timeout is not None:
            written, alarms["stalled"] = sizes, now + rules.stall_timeout
        if sizes[0]:
            alarms.pop("silent", None)
        for reason, at in alarms.items():
            if now >= at:
                return reason


def _sizes(files: Files) -> tuple[int, int]:
    return size(files.stdout), size(files.stderr)


def _cut(files: Files, cap: int) -> None:
    for path in (files.stdout, files.stderr):
        # When descriptors are short it stays longer: the judgement on the attempt is the same.
        with contextlib.suppress(OSError):
            cut(path, cap)


def _span(seconds: float | None) -> str:
    return f"{seconds:g}s"
