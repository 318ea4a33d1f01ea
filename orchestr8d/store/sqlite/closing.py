"""How a workflow ends: what is left is cancelled, rollback runs, the end is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from orchestr8d.core import dag, workflow_notices
from orchestr8d.core.workflow import OVER, ROLLBACK, Node
from orchestr8d.store.sqlite import deliveries, overlaps, workflow_rows
from orchestr8d.store.sqlite.notices import notify

if TYPE_CHECKING:
    from orchestr8d.store.sqlite.graph import Graph

_JSON = msgspec.json.Encoder()
# Tasks that are cancelled at once.
_STEP = 500


def cancel(graph: Graph) -> None:
    """A person's wish."""
    graph.head.ending = "cancel"
    graph.head.started = 1
    graph.set_paused(False)
    graph.stops = True


def cancel_rest(graph: Graph) -> None:
    """Nothing new starts; what runs is asked to end. A step at a time."""
    graph.flush()
    rollback = graph.head.rollback and graph.head.ending == "cancel"
    for node in (found := graph.keep(workflow_rows.unstopped(graph.tx.db, graph.id, bool(rollback), _STEP))):
        stop(graph, node)
    graph.done += len(found)
    graph.stops |= len(found) == _STEP


def stop(graph: Graph, node: Node) -> None:
    if node.state == "again":
        # Nothing runs again any more: its failure counts.
        _give_up(graph, node)
    elif node.kind == "fan" and node.state == "open":
        return  # with its children
    elif node.kind == "workflow" and node.state == "open":
        # With its workflow, once nothing of that runs any more.
        assert node.task_id is not None
        graph.tx.orphans.append(node.task_id)
    else:
        graph.end(node, "cancelled", workflow_rows.CANCELLED)


def _give_up(graph: Graph, node: Node) -> None:
    graph.set(node, state="open")
    graph.over(node, "failed", graph.task(node))


def close(graph: Graph) -> bool:
    """When nothing is left: rollback, or the end; True when there is more to do."""
    head = graph.head
    if head.completed_at is not None or not head.started or head.open or workflow_rows.has_left(graph.tx.db, graph.id):
        return False
    if (idle := _idle_phases(graph)) and head.ending is None and any(phase.state == "when" for phase in idle):
        return False  # whether they begin is still to be told
    for phase in idle:
        graph.phase_over(phase, "completed" if head.ending is None else "cancelled")
    if idle:
        return True
    rollback = workflow_rows.find_node(graph.tx.db, graph.id, ROLLBACK)
    if rollback is not None:
        (rollback,) = graph.keep([rollback])
    if head.rollback and rollback is not None and rollback.state not in OVER:
        return False
    verdict = dag.verdict(head, _failed(graph), has_rollback=rollback is not None)
    if verdict.rollback and rollback is not None:
        head.rollback = 1
        graph.set(rollback, state="waiting", waits=0)
        graph.open_phase(rollback)
        return True
    if rollback is not None and rollback.state not in OVER:
        if verdict.status == "completed":
            graph.skip(rollback)
        else:
            graph.phase_over(rollback, "cancelled")
            for member in graph.members(rollback):
                if member.state not in OVER:
                    graph.end(member, "cancelled", workflow_rows.CANCELLED)
        return True
    _finish(graph, verdict)
    return False


def _idle_phases(graph: Graph) -> list[Node]:
    """Phases without tasks, which nobody waited for; and those that never began."""
    graph.flush()
    where = "workflow_id = ? AND kind = 'phase' AND completed_at IS NULL AND id <> ?"
    left = graph.keep(workflow_rows.nodes(graph.tx.db, where, graph.id, ROLLBACK))
    return [phase for phase in left if phase.state not in OVER]


def _failed(graph: Graph) -> list[str]:
    graph.flush()
    return workflow_rows.failed_ids(graph.tx.db, graph.id)


def _finish(graph: Graph, verdict: dag.Verdict) -> None:
    head = graph.head
    head.status, head.completed_at, head.report_at = verdict.status, graph.tx.now, None
    head.error = None if verdict.error is None else _JSON.encode(verdict.error).decode()
    graph.follower.busy.pop(head.id, None)
    said: dict[str, Any] = {"workflow_id": head.id, "status": head.status}
    if verdict.error is not None:
        said["error"] = verdict.error
    graph.tell(head.status, **said)
    if head.callback_url is not None:
        deliveries.workflow_callback(graph.tx, head.id, head.callback_url)
    if head.parent_task is None and (new := workflow_notices.over(head, verdict.error)):
        notify(graph.tx, new)
    workflow_rows.mark(graph.tx, graph.id, None, "archive")
    if head.parent_task is not None:
        workflow_rows.end_parent(graph.tx, head, verdict.error, workflow_rows.MOST_TEXT)
    overlaps.workflow_over(graph.tx, graph.follower, graph.id)
