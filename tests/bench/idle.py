"""What an idle daemon costs: memory, and how often it wakes up."""

from __future__ import annotations

import math
import time
from pathlib import Path

from orchestr8d.maintenance import HEARTBEAT
from tests.bench.lines import Line
from tests.bench.setting import Setting

# How often we look whether it has run, and how long after its start it is left alone.
LOOK = 0.05
SETTLE = 3.0


def idle(setting: Setting) -> list[Line]:
    seconds = setting.size.idle
    with setting.daemon() as daemon:
        time.sleep(SETTLE)
        wakes, switches = _wakes(daemon.pid, seconds)
        resident = _resident(daemon.pid) / (1 << 20)
    # No service manager asked for a watchdog, so that the heartbeat is all there is.
    beats = math.ceil(seconds / HEARTBEAT)
    return [
        Line("idle: resident memory", resident, "MB", bar=80, sense="at most"),
        Line(
            f"idle: moments in {seconds:g} s in which any thread ran", wakes, "", bar=beats, sense="at most",
            note=f"a heartbeat is every {HEARTBEAT:g} s; {switches} voluntary context switches in all",
        ),
    ]  # fmt: skip


def _wakes(pid: int, seconds: float) -> tuple[int, int]:
    """(moments with activity, voluntary context switches); looks that follow each other are one moment."""
    before = first = _switches(pid)
    moments, was_active = 0, False
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(LOOK)
        now = _switches(pid)
        active = now != before
        moments += active and not was_active
        before, was_active = now, active
    return moments, before - first


def _switches(pid: int) -> int:
    """Voluntary context switches of all threads: each sleep, and so each wake-up."""
    return sum(_field(path, "voluntary_ctxt_switches") for path in Path(f"/proc/{pid}/task").glob("*/status"))


def _resident(pid: int) -> int:
    return _field(Path(f"/proc/{pid}/status"), "VmRSS") * 1024


def _field(path: Path, name: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise KeyError(name)
