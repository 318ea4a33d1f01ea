"""Time as a parameter: the only module that reads the clocks, and a fake one to test with."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """Wall-clock for due times, monotonic for durations."""

    def now(self) -> int:
        """Wall-clock time in milliseconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards and do not count a suspend (what the event loop's timers use)."""
        ...

    def elapsed(self) -> float:
        """Seconds since boot, a suspend included: what a step of the wall clock is measured against."""
        ...

    def boot(self) -> str:
        """Names the boot that `elapsed` counts from; empty when that cannot be told."""
        ...


class SystemClock:
    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    def elapsed(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def boot(self) -> str:
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""


class FakeClock:
    """A clock that tests move by hand."""

    def __init__(self, now: int = 1_772_355_600_000) -> None:
        self._now = now
        self._elapsed = 1000.0
        self._boot = secrets.token_hex(4)

    def now(self) -> int:
        return self._now

    def monotonic(self) -> float:
        return self._elapsed

    def elapsed(self) -> float:
        return self._elapsed

    def boot(self) -> str:
        return self._boot

    def advance(self, seconds: float) -> None:
        """Real time passes."""
        self._now += round(seconds * 1000)
        self._elapsed += seconds

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self._now += round(seconds * 1000)


class StepWatch:
    """Notices that the wall clock was set: due times that came from durations must move with it.

    `mark` is what an earlier watch left: it tells of what happened meanwhile, unless the machine was booted since.
    """

    TOLERANCE = 1.0

    def __init__(self, clock: Clock, mark: str = "") -> None:
        self._clock = clock
        self._boot = clock.boot()
        boot, _, offset = mark.partition(" ")
        self._offset = float(offset) if boot and boot == self._boot else self._read()

    def _read(self) -> float:
        return self._clock.now() / 1000 - self._clock.elapsed()

    def step(self) -> float:
        """Seconds by which the wall clock was stepped since `accept`; 0.0 for what slewing and rounding do."""
        step = self._read() - self._offset
        return 0.0 if abs(step) < self.TOLERANCE else step

    def mark(self, step: float = 0.0) -> str:
        """What the next watch has to know, once `step` is accepted."""
        return f"{self._boot} {self._offset + step}"

    def accept(self, step: float) -> None:
        """What had to move has moved."""
        self._offset += step
