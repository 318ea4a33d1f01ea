"""Long cascades in steps: what one transaction leaves of a workflow is marked, and taken up by a further one, so that
other writes get their turn. A mark says no more than to look at a node: its state tells what is still to be done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestr8d.core import dag
from orchestr8d.core.workflow import OVER, ROLLBACK, Node
from orchestr8d.store.sqlite import fans, workflow_rows

if TYPE_CHECKING:
    from orchestr8d.store.sqlite.graph import Graph

# Stand among nodes for the workflow, and for what of it is still to be asked to end.
_ALL = ""
_STOP = "!"


def leave(graph: Graph) -> None:
    for node_id in dict.fromkeys(because for because, _ in graph.todo):
        workflow_rows.mark(graph.tx, graph.id, node_id, "ending")
    workflow_rows.mark(graph.tx, graph.id, _ALL, "ending")
    if graph.stops:
        workflow_rows.mark(graph.tx, graph.id, _STOP, "ending")
    graph.todo.clear()


def take_up(graph: Graph, marked: Sequence[str]) -> None:
    for node_id in marked:
        if node_id == _ALL:
            # Rollback is stopped by no more than a cancel that came while it ran.
            graph.room_freed = True
            graph.stops |= graph.head.ending is not None and not graph.head.rollback
        elif node_id == _STOP:
            graph.stops = True
        elif workflow_rows.find_node(graph.tx.db, graph.id, node_id) is not None:
            _look_again(graph, graph.node(node_id))


def _look_again(graph: Graph, node: Node) -> None:
    if node.state == "waiting":
        graph.met(node)
    elif node.kind == "phase" and node.state == "open":
        graph.end_phase(node)
    elif node.kind == "fan" and node.state == "open":
        fans.end(graph, node)
    elif node.state in OVER:
        graph.end_members(node)
        if node.phase != ROLLBACK and not dag.satisfies(node, graph.step(node)):
            graph.tell_dependents(node, satisfied=False)
