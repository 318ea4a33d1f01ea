"""The audit finds nothing where nothing is wrong, and sees what it is there to see."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.torture.audit import faults, wait_all_final
from tests.torture.journal import Journal
from tests.torture.load import CONFIG, Load

pytestmark = [pytest.mark.slow, pytest.mark.torture]
A_COMPLETED = "(SELECT id FROM tasks WHERE status = 'completed' LIMIT 1)"
WRONG = {
    "lost": f"DELETE FROM tasks WHERE id = {A_COMPLETED}",
    "not final": f"UPDATE events SET type = 'task.queued', data = json_set(data, '$.status', 'queued') "
    f"WHERE type = 'task.completed' AND task_id = {A_COMPLETED}",
    "final twice": "INSERT INTO events (type, at, task_id, data) SELECT type, at, task_id, data FROM events "
    "WHERE type = 'task.completed' LIMIT 1",
    "an attempt forgotten": f"DELETE FROM attempts WHERE task_id = {A_COMPLETED}",
    "an attempt that ran is called interrupted": "UPDATE attempts SET status = 'interrupted' "
    f"WHERE task_id = {A_COMPLETED}",
    "a retry too many": "UPDATE tasks SET retry_count = attempt WHERE retry_count < attempt",
    "a submit doubled": "UPDATE tasks SET spec = (SELECT spec FROM tasks ORDER BY seq LIMIT 1) "
    "WHERE seq = (SELECT max(seq) FROM tasks)",
    "a count is off": "UPDATE queues SET depth = 1",
}


def test_the_audit_itself(make_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon, journal = make_daemon(CONFIG).start(), Journal(tmp_path / "journal")
    with Load(daemon.state, journal, 1) as load:
        time.sleep(1.5)
        memory = load.stop()
    wait_all_final(daemon)
    assert daemon.stop() == 0
    assert faults(daemon.state, memory, journal, interruptions=False) == []
    for name, wrong in WRONG.items():
        copy = tmp_path / name
        copy.mkdir()
        shutil.copy(daemon.state / "orchestr8d.db", copy)
        db = sqlite3.connect(copy / "orchestr8d.db", isolation_level=None)
        db.execute("DROP TRIGGER tasks_transition")
        db.execute("PRAGMA ignore_check_constraints = ON")
        assert db.execute(wrong).rowcount > 0
        db.close()
        assert faults(copy, memory, journal, interruptions=False), name
    with (journal.directory / "0-0.task").open("a") as f:
        f.write("S 01900000-0000-7000-8000-000000000000\n")
    assert any("not recorded" in fault for fault in faults(daemon.state, memory, journal, interruptions=False))
    (journal.directory / "k.key").write_text("S a\nS b\nE a\n")
    assert journal.overlaps()
