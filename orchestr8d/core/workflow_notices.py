"""What a person is told of a workflow: its phases, its end, what it needs of them."""

from __future__ import annotations

from collections.abc import Sequence

from orchestr8d.core.model import Error
from orchestr8d.core.notices import NewNotice
from orchestr8d.core.workflow import Head, Node

_SHOWN = 500


def _title(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def phase_started(head: Head, phase: Node) -> NewNotice:
    return NewNotice(
        user_id=head.user_id, type="phase_start", title=_title(head.name), message=f"phase {phase.id} has begun",
        priority="low", workflow_id=head.id, metadata={"phase": phase.id, "round": phase.round},
    )  # fmt: skip


def phase_over(head: Head, phase: Node) -> NewNotice:
    return NewNotice(
        user_id=head.user_id, type="phase_complete", title=_title(head.name),
        message=f"phase {phase.id} is {phase.state}", priority="low", workflow_id=head.id,
        metadata={"phase": phase.id, "round": phase.round, "status": phase.state},
    )  # fmt: skip


def blocked(head: Head, signals: Sequence[str]) -> NewNotice | None:
    """It waits for signals; an approval asks for itself."""
    if not signals:
        return None
    return NewNotice(
        user_id=head.user_id, type="blocker", title=_title(head.name),
        message=f"{head.name} waits for {'the signal' if len(signals) == 1 else 'signals'} {', '.join(signals)}",
        workflow_id=head.id, metadata={"signals": list(signals)},
    )  # fmt: skip


def over(head: Head, error: Error | None) -> NewNotice | None:
    """Its end. Whoever cancelled it knows."""
    if head.status == "cancelled":
        return None
    why = "" if error is None else f": {error.message}"
    return NewNotice(
        user_id=head.user_id, type="task_complete" if head.status == "completed" else "task_failure",
        title=_title(head.name), message=f"workflow {head.name} is {head.status}{why}", workflow_id=head.id,
    )  # fmt: skip


def question(head: Head, node: Node, text: str) -> NewNotice:
    """An approval is asked for."""
    return NewNotice(
        user_id=head.user_id, type="quality_gate", title=_title(head.name), message=text, priority="high",
        workflow_id=head.id, task_id=node.task_id, metadata={"task": node.id},
    )  # fmt: skip


def milestone(head: Head, text: str) -> NewNotice:
    return NewNotice(
        user_id=head.user_id, type="milestone", title=_title(head.name), message=text, workflow_id=head.id
    )  # fmt: skip


def update(head: Head, done: int, total: int, running: Sequence[str]) -> NewNotice:
    """The periodic word on how far it is."""
    now = f"; running: {', '.join(running)}" if running else ""
    return NewNotice(
        user_id=head.user_id, type="update", title=_title(head.name),
        message=f"{head.name} is {head.status}: {done} of {total} tasks are done{now}", workflow_id=head.id,
        metadata={"status": head.status, "done": done, "total": total},
    )  # fmt: skip
