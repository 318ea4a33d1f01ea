"""An attempt forks and ends in the middle of a look at /proc: what the look misses is found by the next one."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from orchestr8d.clock import SystemClock
from orchestr8d.core.ids import uuid7
from orchestr8d.processes import Files, Launch, Processes, recorded, table
from orchestr8d.processes.table import Proc
from tests.torture.journal import left_alive

pytestmark = [pytest.mark.slow, pytest.mark.torture]
SCRIPT = "until [ -e flag ]; do sleep 0.01; done; setsid sleep 300 & (setsid sleep 300 &); exit 0"


class Look:
    """Reads processes; before it reads the first one of a table that was listed, the attempt goes on to its end."""

    def __init__(self, files: Files, flag: Path) -> None:
        self._files = files
        self._flag = flag
        self._read = table.read

    def __call__(self, pid: int) -> Proc | None:
        if not self._flag.exists():
            self._flag.touch()
            end = time.monotonic() + 10
            while recorded(self._files).status is None and time.monotonic() < end:
                time.sleep(0.001)
            time.sleep(0.05)
        return self._read(pid)


@pytest.mark.parametrize("adopted", [False, True])
async def test_nothing_slips_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adopted: bool) -> None:
    """When it is ended, and when the next daemon looks for it."""
    attempt_id, files = uuid7(0), Files(f"{tmp_path}/attempt")
    first = Processes(SystemClock())
    launch = Launch(attempt_id, ["sh", "-c", SCRIPT], str(tmp_path), {"PATH": os.environ["PATH"]}, files)
    child = await first.spawn(launch)
    second = Processes(SystemClock()) if adopted else None
    monkeypatch.setattr(table, "read", Look(child.files, tmp_path / "flag"))
    if second is None:
        await first.end(child, 1.0)
    else:
        assert await second.adopt(attempt_id, files) is None
        await second.close()
    left = left_alive([attempt_id])
    await first.close()
    assert not left
