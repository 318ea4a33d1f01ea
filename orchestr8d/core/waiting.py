"""Why a task does not run: the answer to `waiting_for`, from its row and a few facts."""

from __future__ import annotations

import msgspec

from orchestr8d.core import budgets
from orchestr8d.core.durations import iso
from orchestr8d.core.model import Queue, Task, WaitingFor
from orchestr8d.core.workflow import NodeView


class Why(msgspec.Struct):
    """Facts beside the row: what it depends on still, who holds its key, how its queue stands."""

    tasks: list[str] = []
    unique: list[str] = []
    key_holder: str | None = None
    queue: Queue | None = None
    # Why no account lets it through.
    limit: WaitingFor | None = None
    now: int = 0
    # Of a task of a workflow: what it waits for there, and whether its workflow is held by a person (or not started).
    node: NodeView | None = None
    workflow_paused: bool = False


def waiting_for(task: Task, why: Why) -> list[WaitingFor]:
    """Every reason there is; empty for a task that runs or is final."""
    if task.status == "retrying":
        return [WaitingFor("backoff", until=iso(task.wake_at))]
    if task.status == "pending":
        return _pending(task, why)
    if task.status == "queued":
        return _queued(task, why)
    if task.status == "parked":
        return _parked(task, why)
    return []


def _parked(task: Task, why: Why) -> list[WaitingFor]:
    if task.parked_for is None:
        return [WaitingFor("answer")]
    if task.parked_for.startswith("budget:"):
        return [WaitingFor("budget", name=budgets.name_of(task.parked_for))]
    # Its account is open again: it is queued within a step or two.
    return [why.limit or WaitingFor("slot")]


def _pending(task: Task, why: Why) -> list[WaitingFor]:
    reasons = [WaitingFor("paused")] if task.paused or why.workflow_paused else []
    if task.wake_at is not None:
        reasons.append(WaitingFor("time", until=iso(task.wake_at)))
    reasons += [WaitingFor("task", id=other) for other in why.tasks]
    reasons += [WaitingFor("unique", id=other) for other in why.unique]
    if why.node is not None:
        reasons += _in_workflow(why.node)
    return reasons


def _in_workflow(view: NodeView) -> list[WaitingFor]:
    """`name` is a local id of its workflow, or a signal's."""
    node = view.node
    reasons = [WaitingFor("workflow_task", name=other) for other in view.waiting_for]
    if node.state == "open":
        return [*reasons, WaitingFor("approval", until=iso(node.wake_at))] if node.kind == "approval" else reasons
    reasons += [WaitingFor("signal", name=name) for name in view.unsent]
    if node.state == "timed":
        reasons.append(WaitingFor("time", until=iso(node.wake_at)))
    elif node.state == "full":  # of a max_parallel
        reasons.append(WaitingFor("slot", name=node.parent or node.phase))
    # Else it is decided about within a moment.
    return reasons or [WaitingFor("slot")]


def _queued(task: Task, why: Why) -> list[WaitingFor]:
    reasons = [WaitingFor("paused")] if task.hold == "workflow" else []
    queue = why.queue
    if queue is not None and queue.paused:
        reasons.append(WaitingFor("queue_paused", name=task.queue))
    elif queue is not None and queue.limit is not None and queue.running >= queue.limit:
        reasons.append(WaitingFor("queue", name=task.queue))
    elif queue is not None and queue.open_at is not None and queue.open_at > why.now:
        reasons.append(WaitingFor("queue", name=task.queue, until=iso(queue.open_at)))
    if task.hold == "concurrency_key":
        reasons.append(WaitingFor("concurrency_key", name=task.concurrency_key, id=why.key_holder))
    if why.limit is not None:
        reasons.append(why.limit)
    return reasons or [WaitingFor("slot")]
