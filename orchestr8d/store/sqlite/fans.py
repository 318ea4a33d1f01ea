"""Fans of a workflow within a transaction: a child for each item, and how they end together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from orchestr8d.core import dag
from orchestr8d.core.workflow import OVER, ROLLBACK, Node
from orchestr8d.store.sqlite import closing, workflow_rows

if TYPE_CHECKING:
    from orchestr8d.store.sqlite.graph import Graph

_JSON = msgspec.json.Encoder()


def fan_out(graph: Graph, fan: Node, items: Sequence[Any]) -> None:
    """A child for each item."""
    graph.set(fan, state="open", started_at=fan.started_at or graph.tx.now, open=len(items), failed=0, running=0)
    draft = workflow_rows.again(graph.task(fan))
    children = [workflow_rows.child_of(fan, n, _JSON.encode(item).decode()) for n, item in enumerate(items)]
    kinds = [msgspec.structs.replace(draft, kind=draft.kind if c.kind == "task" else c.kind) for c in children]
    new = [(child, one, None) for child, one in zip(children, kinds, strict=True)]
    tasks = workflow_rows.insert_tasks(graph.tx, graph.follower, graph.head, new)
    for child, task in zip(children, tasks, strict=True):
        child.task_id = task.id
    workflow_rows.insert_nodes(graph.tx, children)
    if fan.phase != ROLLBACK:
        graph.head.open += len(children)
    for child in graph.keep(children):
        graph.later(graph.met, child)
    end(graph, fan)


def reopen(graph: Graph, fan: Node, children: Sequence[Node]) -> None:
    """A fan that is tried again: its children that did not end well are."""
    left = [child for child in children if child.state not in OVER]
    failed = sum(child.state in OVER and child.state not in dag.SATISFYING for child in children)
    graph.set(fan, state="open", open=len(left), failed=failed)
    for child in left:
        graph.later(graph.met, child)
    end(graph, fan)


def end(graph: Graph, fan: Node) -> None:
    """It is over if its children are."""
    if fan.state != "open" or fan.open:
        return
    children = graph.members(fan)
    if graph.head.ending is not None and any(child.state == "cancelled" for child in children):
        graph.end(fan, "cancelled", workflow_rows.CANCELLED)
        return
    error = dag.fan_error(fan, children)
    joined = workflow_rows.join_results(graph.tx, fan, children, workflow_rows.MOST_TEXT)
    graph.end(fan, "completed" if error is None else "failed", error, joined)


def stop(graph: Graph, fan: Node) -> None:
    """The children that are left of one that is over."""
    for child in graph.members(fan):
        if child.state not in OVER:
            graph.later(lambda child: closing.stop(graph, child), child, because=fan)
