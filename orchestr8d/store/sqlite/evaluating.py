"""What of workflows is to be evaluated outside of transactions, what it needs to know, the answers; timers."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from orchestr8d.core import evaluation, workflow_notices
from orchestr8d.core.evaluation import Decided, Due
from orchestr8d.core.model import Error
from orchestr8d.core.sessions import read_usage
from orchestr8d.core.workflow import ROLLBACK, Head, Node
from orchestr8d.store.sqlite import fans, left, reads, workflow_rows, workflows
from orchestr8d.store.sqlite.follow import Follower
from orchestr8d.store.sqlite.graph import Graph, opened
from orchestr8d.store.sqlite.notices import notify
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import Limits, Mark

_JSON = msgspec.json.Encoder()
# Timers that are looked at in one transaction.
_STEP = 200
_STATUS = {"cut": "failed", "open": "running", "again": "failed"}


def due(db: sqlite3.Connection, limit: int) -> list[Due]:
    where = "state IN ('when', 'render') ORDER BY workflow_id, position, \"index\" LIMIT ?"
    return [due_of(db, node) for node in workflow_rows.nodes(db, where, limit)]


def due_of(db: sqlite3.Connection, node: Node) -> Due:
    """A node with what it may see."""
    (params,) = db.execute("SELECT params FROM workflow_texts WHERE workflow_id = ?", (node.workflow_id,)).fetchone()
    known = Due(workflow_rows.head(db, node.workflow_id), node, msgspec.json.decode(params))
    named = evaluation.references(node)
    for name in named.tasks:
        other = workflow_rows.find_node(db, node.workflow_id, name)
        if other is not None:
            known.tasks[name] = seen(db, other)
            known.ended_at[name] = other.completed_at
    for name in named.signals:
        row = db.execute(
            "SELECT payload FROM signals WHERE workflow_id = ? AND name = ?", (node.workflow_id, name)
        ).fetchone()
        if row is not None:
            known.signals[name] = msgspec.json.decode(row[0])
    if "workflow" in named.names:
        known.failed = workflow_rows.failed_ids(db, node.workflow_id)
    return known


def seen(db: sqlite3.Connection, node: Node) -> dict[str, Any]:
    """A task as templates see it. `attempt_id` is for the one who knows where its files are; `is_long`: its result is
    in one of them only."""
    assert node.task_id is not None
    task = reads.task(db, node.task_id)
    result = reads.result(db, node.task_id)
    attempt = result.attempt
    both = workflow_rows.texts(result.body, task.result_type)
    if node.kind == "fan":
        parts = [seen(db, child) for child in _children(db, node)]
        good = [part if part["status"] == "completed" else {} for part in parts]
        both = {name: [part.get(name) for part in good] for name in ("result", "output")} if node.started_at else both
    error = task.read_error()
    return {
        "status": _STATUS.get(node.state, node.state), **both,
        "exit_code": None if attempt is None else attempt.exit_code,
        "error": None if error is None else msgspec.to_builtins(error), "task_id": task.id,
        "usage": msgspec.to_builtins(read_usage(task.usage)),
        "files_created": [] if attempt is None or attempt.files_created is None
        else msgspec.json.decode(attempt.files_created),
        "result_file": None, "attempt_id": None if attempt is None else attempt.id,
        "is_long": task.result_type == "file",
    }  # fmt: skip


def _children(db: sqlite3.Connection, fan: Node) -> list[Node]:
    return workflow_rows.nodes(db, 'workflow_id = ? AND parent = ? ORDER BY "index"', fan.workflow_id, fan.id)


# -- answers


def apply(tx: Tx, follower: Follower, limits: Limits, decided: Decided) -> None:
    """What was found out about a node; nothing, if it has moved since."""
    node = workflow_rows.find_node(tx.db, decided.workflow_id, decided.node_id)
    if node is None or (node.state, node.round, node.task_id) != (decided.state, decided.round, decided.task_id):
        return
    graph = opened(tx, follower, decided.workflow_id)
    _applied(graph, graph.node(node.id), decided, limits)
    graph.save()


def _applied(graph: Graph, node: Node, decided: Decided, limits: Limits) -> None:
    found = decided.found
    if graph.head.ending is not None and node.phase != ROLLBACK:
        graph.give_up(node)
    elif found.error is not None:
        graph.fail(node, found.error)
    elif not found.go:
        graph.skip(node)
    elif node.kind == "phase":
        graph.open_phase(node)
    elif node.state == "when":
        later = found.wake_at is not None and found.wake_at > graph.tx.now
        graph.time(node, found.wake_at if later else None, found.wake_is_delay)
    elif graph.head.paused:
        graph.set(node, state="full")
    elif found.items is not None:
        _fan_out(graph, node, found.items, limits)
    elif found.question is not None:
        graph.ask(node, found.question)
    elif found.sub is not None:
        graph.set(node, state="open", open=1, started_at=node.started_at or graph.tx.now)
        workflows.add(graph.tx, graph.follower, found.sub)
    elif found.new is not None:
        graph.release(node, found.new)


def _fan_out(graph: Graph, node: Node, items: list[Any], limits: Limits) -> None:
    (there,) = graph.tx.db.execute(
        "SELECT count(*) FROM workflow_nodes WHERE workflow_id = ? AND kind <> 'phase'", (graph.id,)
    ).fetchone()
    if len(items) > limits.fan:
        graph.fail(node, Error("fan_limit", f"{len(items)} items, and at most {limits.fan} are allowed ([limits] fan)"))
    elif there + len(items) > limits.workflow_tasks:
        most = f"more than {limits.workflow_tasks} tasks in the workflow ([limits] workflow_tasks)"
        graph.fail(node, Error("fan_limit", f"{len(items)} items make {most}"))
    else:
        fans.fan_out(graph, node, items)


# -- timers


def wake(tx: Tx, follower: Follower) -> int | None:
    """Moves what is due, and on with what was left; answers when there is more, None when nothing waits for time."""
    more = _take_up(tx, follower)
    where = "wake_at IS NOT NULL AND wake_at <= ? ORDER BY wake_at LIMIT ?"
    late = workflow_rows.nodes(tx.db, where, tx.now, _STEP)
    for node in late:
        graph = opened(tx, follower, node.workflow_id)
        # An end before may have moved it meanwhile.
        if (now := graph.node(node.id)).wake_at is not None and now.wake_at <= tx.now:
            graph.due(now)
            graph.save()
            follower(tx)
    reports = tx.db.execute(
        "SELECT id FROM workflows WHERE report_at IS NOT NULL AND report_at <= ? LIMIT ?", (tx.now, _STEP)
    ).fetchall()
    for (workflow_id,) in reports:
        _report(tx, workflow_rows.head(tx.db, workflow_id))
    begun = _begin(tx, follower)
    if more or _STEP in (len(late), len(reports), begun):
        return tx.now
    return next_due(tx.db)


def _take_up(tx: Tx, follower: Follower) -> bool:
    found = workflow_rows.take_left(tx, _STEP)
    if found is None:
        return False
    graph = opened(tx, follower, found[0])
    if graph.head.completed_at is None:
        left.take_up(graph, found[1])
        graph.save()
        follower(tx)
    return True


def _begin(tx: Tx, follower: Follower) -> int:
    """Those of schedules whose turn and time has come begin; how many there were."""
    due = tx.db.execute(
        "SELECT id FROM workflows WHERE begin_at IS NOT NULL AND begin_after IS NULL AND begin_at <= ? LIMIT ?",
        (tx.now, _STEP),
    ).fetchall()
    for (workflow_id,) in due:
        tx.db.execute("UPDATE workflows SET begin_at = NULL WHERE id = ?", (workflow_id,))
        head = workflow_rows.head(tx.db, workflow_id)
        if not head.started and head.completed_at is None:
            if head.open:
                workflows.begin(tx, follower, workflow_id)
            else:
                # All its tasks were cancelled meanwhile: there is nothing to begin with.
                workflows.cancel(tx, follower, workflow_id)
            follower(tx)
    return len(due)


def next_due(db: sqlite3.Connection) -> int | None:
    sql = (
        "SELECT (SELECT min(wake_at) FROM workflow_nodes WHERE wake_at IS NOT NULL), "
        "(SELECT min(report_at) FROM workflows WHERE report_at IS NOT NULL), "
        "(SELECT min(begin_at) FROM workflows WHERE begin_at IS NOT NULL AND begin_after IS NULL)"
    )
    return min((at for at in db.execute(sql).fetchone() if at is not None), default=None)


def _report(tx: Tx, head: Head) -> None:
    """The periodic word, once for however many times were due."""
    assert head.report_every is not None and head.report_at is not None
    every = max(1, round(head.report_every * 1000))
    head.report_at += every * (1 + (tx.now - head.report_at) // every)
    own = "workflow_id = ? AND kind <> 'phase' AND phase <> ?"
    counted = tx.db.execute(
        f"SELECT count(*), sum(completed_at IS NOT NULL) FROM workflow_nodes WHERE {own}", (head.id, ROLLBACK)
    ).fetchone()
    runs = workflow_rows.nodes(tx.db, f"{own} AND state = 'open' ORDER BY position LIMIT 5", head.id, ROLLBACK)
    notify(tx, workflow_notices.update(head, counted[1] or 0, counted[0], [node.id for node in runs]))
    workflow_rows.save(tx, head)


# -- marks


def marks(db: sqlite3.Connection, after: int, limit: int) -> list[Mark]:
    columns = "seq, workflow_id, node, what"
    sql = f"SELECT {columns} FROM workflow_marks WHERE seq > ? AND what <> 'ending' ORDER BY seq LIMIT ?"
    return [Mark(*row) for row in db.execute(sql, (after, limit))]


def marked(db: sqlite3.Connection, mark: Mark) -> Due | None:
    node = None if mark.node is None else workflow_rows.find_node(db, mark.workflow_id, mark.node)
    return None if node is None else due_of(db, node)


def take(tx: Tx, mark: Mark) -> bool:
    """Removes a mark; False when it is not there any more."""
    return tx.db.execute("DELETE FROM workflow_marks WHERE seq = ?", (mark.seq,)).rowcount == 1


def reached(tx: Tx, mark: Mark, text: str) -> None:
    """A milestone is written down."""
    if not take(tx, mark) or mark.node is None:
        return
    node = workflow_rows.find_node(tx.db, mark.workflow_id, mark.node)
    is_phase = node is not None and node.kind == "phase"
    workflows.add_milestone(
        tx, mark.workflow_id, text, phase=mark.node if is_phase else None, task=None if is_phase else mark.node
    )


def archived(tx: Tx, mark: Mark, report: str) -> None:
    if take(tx, mark):
        workflows.keep(tx, mark.workflow_id, report)
