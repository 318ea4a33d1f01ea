"""How what a schedule starts waits for its turn: what of it is not over, and what may begin when one ends."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from orchestr8d.core import admission
from orchestr8d.core.model import Task
from orchestr8d.store.sqlite import reads
from orchestr8d.store.sqlite.transaction import Tx

if TYPE_CHECKING:
    from orchestr8d.store.sqlite.follow import Follower


def unfinished(db: sqlite3.Connection, schedule_id: str, limit: int) -> tuple[list[Task], list[str]]:
    """Up to `limit` tasks of a schedule that are not over (-1: all), and as many ids of workflows; oldest first."""
    open_ = "schedule_id = ? AND completed_at IS NULL ORDER BY seq LIMIT ?"
    workflows = db.execute(f"SELECT id FROM workflows WHERE {open_}", (schedule_id, limit)).fetchall()
    return reads.tasks(db, open_, schedule_id, limit), [workflow_id for (workflow_id,) in workflows]


def over(tx: Tx, ended: str) -> None:
    """A task or workflow has ended: workflows that wait for it may begin, unless others are ahead of them still."""
    waiting = tx.db.execute("SELECT seq, schedule_id FROM workflows WHERE begin_after = ?", (ended,)).fetchall()
    for seq, schedule_id in waiting:
        ahead = _ahead(tx.db, schedule_id, seq, ended)
        tx.db.execute("UPDATE workflows SET begin_after = ? WHERE seq = ?", (ahead, seq))
        tx.work.add("workflows")


def _ahead(db: sqlite3.Connection, schedule_id: str, seq: int, ended: str) -> str | None:
    """What a workflow has to wait for: the last that was made before it. What it waited for may have been cancelled
    before its own turn."""
    open_ = "schedule_id = ? AND completed_at IS NULL"
    row = db.execute(
        f"SELECT id FROM workflows WHERE {open_} AND seq < ? AND id <> ? ORDER BY seq DESC LIMIT 1",
        (schedule_id, seq, ended),
    ).fetchone()
    if row is None:
        # Those that wait themselves came later, when the schedule had become one of tasks.
        sql = f"SELECT id FROM tasks WHERE {open_} AND blockers = 0 AND id <> ? ORDER BY seq DESC LIMIT 1"
        row = db.execute(sql, (schedule_id, ended)).fetchone()
    return None if row is None else row[0]


def workflow_over(tx: Tx, follower: Follower, workflow_id: str) -> None:
    """The same of a workflow, for which tasks may wait too."""
    waiting = tx.db.execute("SELECT task_id FROM task_deps WHERE depends_on = ?", (workflow_id,)).fetchall()
    tx.db.execute("DELETE FROM task_deps WHERE depends_on = ?", (workflow_id,))
    for (task_id,) in waiting:
        task = reads.task(tx.db, task_id)
        task = tx.apply(admission.Change(task, {"blockers": task.blockers - 1}, []))
        if admission.may_queue(task, tx.now):
            follower.enqueue(tx, task)
    # Whoever waits for all of them sees who is ahead now.
    over(tx, workflow_id)
