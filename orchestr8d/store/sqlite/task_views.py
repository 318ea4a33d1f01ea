"""Tasks as they are shown: each with why it does not run yet, to which queue, key, account and workflow have
something to say."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from orchestr8d.core.model import Task, TaskView
from orchestr8d.core.waiting import Why, waiting_for
from orchestr8d.core.workflow import OVER, Node, NodeView
from orchestr8d.store.sqlite import reads, workflow_rows
from orchestr8d.store.types import Limits, TaskFilter


def view(db: sqlite3.Connection, task_id: str, now: int, limits: Limits) -> TaskView:
    found = reads.task(db, task_id)
    views = _with_reasons(db, [found], now, limits)
    views[0].attempts = reads.attempts(db, task_id)
    return views[0]


def _with_reasons(db: sqlite3.Connection, found: Sequence[Task], now: int, limits: Limits) -> list[TaskView]:
    names = {t.queue for t in found if t.status == "queued"}
    by_name = {q.name: q for q in reads.queues(db, now, sorted(names))} if names else {}
    agents = any(t.lane and t.status in ("queued", "parked") for t in found)
    accounts = reads.capacity(db, limits, now) if agents else None
    views = []
    for t in found:
        why = Why(queue=by_name.get(t.queue), now=now)
        if t.lane and accounts is not None:
            why.limit = accounts.blocked(t.lane)
        if t.blockers:
            edges = db.execute("SELECT kind, depends_on FROM task_deps WHERE task_id = ? ORDER BY depends_on", (t.id,))
            for kind, other in edges:
                (why.tasks if kind == "task" else why.unique).append(other)
        if t.hold == "concurrency_key":
            why.key_holder = _key_holder(db, t)
        if t.local_id is not None and t.status == "pending":
            _of_workflow(db, t, why)
        views.append(TaskView(t, waiting_for(t, why)))
    return views


def _key_holder(db: sqlite3.Connection, t: Task) -> str | None:
    for state in (reads.BUSY_SQL, "status = 'queued' AND hold IS NULL"):
        sql = f"SELECT id FROM tasks WHERE {state} AND concurrency_key IS NOT NULL AND concurrency_key = ? LIMIT 1"
        row = db.execute(sql, (t.concurrency_key,)).fetchone()
        if row is not None:
            return str(row[0])
    return None


def views(
    db: sqlite3.Connection, wanted: TaskFilter, limit: int, before: int | None, now: int, limits: Limits
) -> list[TaskView]:
    # A status at a time: each is a walk along its index, where a list of them would be sorted.
    found: list[Task] = []
    every: Sequence[str | None] = tuple(dict.fromkeys(wanted.status)) or (None,)
    for status in every:
        found += reads.page(db, wanted, status, limit, before)
    found.sort(key=lambda t: -t.seq)
    return _with_reasons(db, found[:limit], now, limits)


def _of_workflow(db: sqlite3.Connection, t: Task, why: Why) -> None:
    assert t.workflow_id is not None
    assert t.local_id is not None
    node = workflow_rows.find_node(db, t.workflow_id, t.local_id)
    if node is None or node.task_id != t.id:  # another round has taken its place
        return
    head = workflow_rows.head(db, t.workflow_id)
    sql = "SELECT name FROM signal_waits WHERE workflow_id = ? AND node = ? ORDER BY name"
    unsent = [name for (name,) in db.execute(sql, (node.workflow_id, node.id))]
    why.node = NodeView(node, t, waiting_for=_before(db, node), unsent=unsent)
    why.workflow_paused = bool(head.paused or not head.started)


def _before(db: sqlite3.Connection, node: Node) -> list[str]:
    """What it depends on that is not over; its phase while that has not begun."""
    if node.state != "waiting":
        return []
    needed = [workflow_rows.find_node(db, node.workflow_id, other) for other in node.read_step().depends_on]
    left = [one.id for one in needed if one is not None and one.state not in OVER]
    phase = None if node.phase is None else workflow_rows.find_node(db, node.workflow_id, node.phase)
    return left if phase is None or phase.state in (*OVER, "open") else [*left, phase.id]
