"""Finished workflows that are past their keep: they go with all of their tasks at once. Their reports stay."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from orchestr8d.core.budgets import Budget
from orchestr8d.core.workflow import FINAL
from orchestr8d.store.sqlite import funds, reads, upkeep, workflow_rows
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import ExpiredWorkflow, Retention

_ROWS = ("workflow_texts", "workflow_nodes", "workflow_edges", "signals", "signal_waits", "workflow_marks")
# A part of another workflow goes when that is gone; one that has something left to be done or written goes after that.
_EXPIRED = (
    "SELECT id FROM workflows w WHERE status = ? AND completed_at < ? "
    "AND (parent_task IS NULL OR NOT EXISTS (SELECT 1 FROM tasks t WHERE t.id = w.parent_task)) "
    "AND id NOT IN (SELECT workflow_id FROM workflow_marks) "
    "AND id NOT IN (SELECT t.workflow_id FROM followups f JOIN tasks t ON t.id = f.task_id "
    "WHERE t.workflow_id IS NOT NULL) ORDER BY seq LIMIT 1"
)


def expired(db: sqlite3.Connection, retention: Retention, now: int) -> ExpiredWorkflow | None:
    """One of them, with its tasks' attempts."""
    for status in sorted(FINAL):
        keep = retention.tasks.get(status)
        if keep is None:
            continue
        row = db.execute(_EXPIRED, (status, now - round(keep * 1000))).fetchone()
        if row is not None:
            sql = "SELECT a.id FROM tasks t JOIN attempts a ON a.task_id = t.id WHERE t.workflow_id = ?"
            return ExpiredWorkflow(row[0], [attempt_id for (attempt_id,) in db.execute(sql, row)])
    return None


def remove(tx: Tx, workflow_id: str, budgets: Sequence[Budget]) -> None:
    head = workflow_rows.head(tx.db, workflow_id)
    if head.completed_at is None:
        raise RuntimeError(f"workflow {workflow_id} is {head.status}: only a final one can be removed")
    upkeep.remove_tasks(tx, reads.tasks(tx.db, "workflow_id = ?", workflow_id), budgets)
    for table in _ROWS:
        tx.db.execute(f"DELETE FROM {table} WHERE workflow_id = ?", (workflow_id,))
    tx.db.execute("DELETE FROM workflow_tags WHERE seq = ?", (head.seq,))
    tx.db.execute("DELETE FROM workflows WHERE seq = ?", (head.seq,))
    funds.forget_workflow(tx, workflow_id)
