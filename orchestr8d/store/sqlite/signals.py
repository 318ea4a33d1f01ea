"""Signals of a workflow within a transaction: sent by people and by the ends of tasks, kept, waited for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from orchestr8d.core import endings
from orchestr8d.core.model import Task
from orchestr8d.core.workflow import Node, Step
from orchestr8d.store.sqlite import reads, workflow_rows

if TYPE_CHECKING:
    from orchestr8d.store.sqlite.graph import Graph

_JSON = msgspec.json.Encoder()
# Most tasks send nothing: then their specs, which may be large, are not decoded.
_ASKS = ('"callback_url":"/', '"signal":')


def unsent(graph: Graph, step: Step) -> list[str]:
    sql = "SELECT 1 FROM signals WHERE workflow_id = ? AND name = ?"
    return [name for name in step.wait_for if graph.tx.db.execute(sql, (graph.id, name)).fetchone() is None]


def hold(graph: Graph, node: Node, step: Step, missing: Sequence[str]) -> None:
    """It waits for these."""
    wake_at = None if step.wait_timeout is None else graph.tx.now + round(step.wait_timeout * 1000)
    graph.set(node, state="held", signals=len(missing), wake_at=wake_at, wake_is_delay=int(wake_at is not None))
    graph.tx.db.executemany(
        "INSERT OR IGNORE INTO signal_waits (workflow_id, name, node) VALUES (?, ?, ?)",
        [(graph.id, name, node.id) for name in missing],
    )
    graph.tx.work.add("workflows")
    graph.tx.quiet.append(node.task_id or graph.id)


def forget(graph: Graph, node: Node) -> None:
    """It waits for none any more."""
    graph.tx.db.execute("DELETE FROM signal_waits WHERE workflow_id = ? AND node = ?", (graph.id, node.id))


def waited_for(graph: Graph) -> list[str]:
    """The first of those that somebody waits for."""
    sql = "SELECT DISTINCT name FROM signal_waits WHERE workflow_id = ? ORDER BY name LIMIT 10"
    return [name for (name,) in graph.tx.db.execute(sql, (graph.id,))]


def send(graph: Graph, name: str, payload: Any) -> None:
    """It is kept, in the place of an earlier one; whoever waits for nothing else goes on."""
    tx = graph.tx
    tx.db.execute(
        "INSERT OR REPLACE INTO signals (workflow_id, name, payload, at) VALUES (?, ?, ?, ?)",
        (graph.id, name, _JSON.encode(payload).decode(), tx.now),
    )
    tx.quiet.append(graph.id)
    sql = "DELETE FROM signal_waits WHERE workflow_id = ? AND name = ? RETURNING node"
    for (node_id,) in tx.db.execute(sql, (graph.id, name)).fetchall():
        node = graph.node(node_id)
        if node.state != "held":
            continue
        if node.signals > 1:
            graph.set(node, signals=node.signals - 1)
        else:
            # It goes on from where it is held: what it waited for is there.
            graph.set(node, signals=0, wake_at=None, wake_is_delay=0)
            graph.go(node)


def of_end(graph: Graph, node: Node, task: Task) -> None:
    """Those that a task sends with its end; of a fan's children the fan does."""
    if node.parent is not None or not any(word in task.spec for word in _ASKS):
        return
    names = endings.signals(task.read_spec(), task.status)
    if not names:
        return
    error = task.read_error()
    payload = {
        "task_id": task.id, "task": task.local_id, "status": task.status,
        **workflow_rows.texts(reads.result(graph.tx.db, task.id).body, task.result_type), "error": error,
    }  # fmt: skip
    for name in names:
        send(graph, name, payload)
