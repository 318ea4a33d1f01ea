"""What of a workflow runs again: a phase that a task of it asks for, or what a person retries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from orchestr8d.core import dag
from orchestr8d.core.model import NewTask
from orchestr8d.core.workflow import OVER, ROLLBACK, Node
from orchestr8d.store.sqlite import signals, workflow_rows

if TYPE_CHECKING:
    from orchestr8d.store.sqlite.graph import Graph

_JSON = msgspec.json.Encoder()


def run_again(graph: Graph) -> bool:
    """What follows from a phase runs again, once nothing of it runs any more; True when it does."""
    known = graph.follower.busy.get(graph.id, ())
    if known and not graph.asks_moved and all(_is_busy(graph, node_id) for node_id in known):
        return False
    graph.asks_moved = False
    nodes = graph.all()
    busy = []
    for wish in dag.wishes(nodes, graph.edges()):
        last = dag.last_busy(nodes, wish.rerun)
        if last is None:
            graph.follower.busy.pop(graph.id, None)
            _grant(graph, nodes, wish)
            return True
        busy.append(last.id)
    graph.follower.busy[graph.id] = busy
    return False


def _is_busy(graph: Graph, node_id: str) -> bool:
    node = workflow_rows.find_node(graph.tx.db, graph.id, node_id)
    return node is not None and dag.is_busy(graph.keep([node])[0])


def _grant(graph: Graph, nodes: dict[str, Node], wish: dag.Wish) -> None:
    said, error = workflow_rows.said(graph.tx.db, wish.asker), graph.task(wish.asker).read_error()
    feedback = _JSON.encode({"task": wish.asker.id, **said, "error": error}).decode()
    for node_id in wish.rerun.tasks:
        if nodes[node_id].state == "again":
            graph.set(nodes[node_id], asked=nodes[node_id].asked + 1)
    run(graph, nodes, wish.rerun, feedback)


def run(graph: Graph, nodes: dict[str, Node], rerun: dag.Rerun, feedback: str | None) -> None:
    """Tasks are made anew, phases begin again. `feedback`: of a further round; None: a person's retry."""
    if feedback is not None:
        # Another round of a fan has other items.
        for node in [n for n in nodes.values() if n.parent in rerun.tasks]:
            rerun.tasks.discard(node.id)
            del nodes[node.id]
            graph.forget(node)
    anew: list[tuple[Node, NewTask, str | None]] = []
    for node_id in sorted(rerun.tasks, key=lambda n: (nodes[n].position, nodes[n].index or 0)):
        node = nodes[node_id]
        task = graph.task(node)
        fresh: dict[str, Any] = {
            "state": "waiting", "wake_at": None, "wake_is_delay": 0, "signals": 0, "started_at": None,
            "completed_at": None, "open": 0, "failed": 0, "running": 0,
        }  # fmt: skip
        if feedback is not None:
            fresh |= {"round": node.round + 1, "feedback": feedback}
        else:
            fresh["asked"] = 0
        if node.state == "held":
            signals.forget(graph, node)
        graph.set(node, **fresh)
        if task.completed_at is not None:
            anew.append((node, workflow_rows.again(task), task.id))
    tasks = workflow_rows.insert_tasks(graph.tx, graph.follower, graph.head, anew)
    for (node, _, _), task in zip(anew, tasks, strict=True):
        graph.set(node, task_id=task.id)
    _rewire(graph, nodes, rerun, feedback)


def _rewire(graph: Graph, nodes: dict[str, Node], rerun: dag.Rerun, feedback: str | None) -> None:
    """The counts of what runs again, from its rows."""
    for phase_id in rerun.begin:
        again = {} if feedback is None else {"round": nodes[phase_id].round + 1, "feedback": feedback}
        graph.set(nodes[phase_id], state="waiting", started_at=None, completed_at=None, **again)
    for phase_id in rerun.reopen:
        if nodes[phase_id].state in OVER:
            graph.set(nodes[phase_id], state="open", completed_at=None)
    rules = {node.id: graph.step(node) for node in nodes.values()}
    for phase_id in rerun.begin | rerun.reopen:
        within = [n for n in nodes.values() if n.phase == phase_id]
        members = [n for n in within if n.parent is None]
        graph.set(
            nodes[phase_id], open=sum(n.state not in OVER for n in members),
            failed=sum(dag.counts(n, rules[n.id]) for n in members if n.state in OVER),
            running=sum(map(dag.takes_room, within)),
        )  # fmt: skip
    # Children of fans that are tried again with them may be cancelled before these are.
    left = Counter(n.parent for n in nodes.values() if n.parent in rerun.tasks and n.state not in OVER)
    for fan_id, size in left.items():
        assert fan_id is not None
        graph.set(nodes[fan_id], open=size)
    steps = {node_id: rule for node_id, rule in rules.items() if rule is not None}
    for name, value in dag.tally(nodes.values(), steps).items():
        setattr(graph.head, name, value)
    graph.head.rollback = 0
    wire(graph, nodes, [nodes[node_id] for node_id in (*rerun.begin, *rerun.tasks)])


def wire(graph: Graph, nodes: dict[str, Node], fresh: Sequence[Node]) -> None:
    """Nodes that wait: for how many, and a first push to those that wait for nothing, or for what is lost."""
    needed: dict[str, list[Node]] = {}
    for src, dst in graph.edges():
        needed.setdefault(dst, []).append(nodes[src])
    rules = {other.id: graph.step(other) for node in fresh for other in needed.get(node.id, ())}
    for node in fresh:
        if ROLLBACK in (node.id, node.phase):
            graph.set(node, waits=0 if node.kind == "phase" else 1 + len(needed.get(node.id, ())))
        else:
            phase = None if node.kind == "phase" or node.parent is not None else nodes[node.phase or ""]
            graph.set(node, waits=dag.waits_of(node, needed.get(node.id, ()), phase, rules))
    for node in fresh:
        if ROLLBACK in (node.id, node.phase) or node.parent is not None:
            continue
        lost = [n for n in needed.get(node.id, ()) if n.state in OVER and not dag.satisfies(n, rules[n.id])]
        if lost:
            error = dag.cut_off(lost[0])
            graph.later(lambda node, error=error: graph.cut(node, error), node, because=lost[0])  # type: ignore[misc]
        else:
            graph.later(graph.met, node)
