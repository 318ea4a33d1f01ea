"""How far a workflow is: shares, percent, counts, what it does now, what holds it, and how long it will still take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from orchestr8d.core import sessions
from orchestr8d.core.durations import iso
from orchestr8d.core.graph import status_of
from orchestr8d.core.model import Progress, Usage, WaitingFor
from orchestr8d.core.workflow import FINAL, OVER, ROLLBACK, NodeView, Phase, WorkflowView

# Of what runs, so many are named.
_NAMED = 3
# Whatever is done: a workflow that is not completed is not at 100.
_MOST = 99.9


class PhaseStanding(msgspec.Struct, frozen=True):
    """Where a phase lies in the whole, and how much of it (0 to 1) is done."""

    start: float
    end: float
    done: float
    counts: dict[str, int]


def ranges(phases: Sequence[Phase]) -> list[tuple[float, float]]:
    """Each phase's part of the whole in percent. Those without one share equally what the others leave, each after the
    one before."""
    given = [phase.progress for phase in phases if phase.progress is not None]
    left = max(0.0, 100.0 - sum(end - start for start, end in given))
    width = left / (len(phases) - len(given)) if len(given) < len(phases) else 0.0
    found: list[tuple[float, float]] = []
    at = 0.0
    for phase in phases:
        start = min(at, 100.0 - width)
        found.append(phase.progress or (start, start + width))
        at = found[-1][1]
    return found


def own_phases(view: WorkflowView) -> list[NodeView]:
    """Without that of the rollback, which is no part of the way."""
    return [phase for phase in view.phases if phase.node.id != ROLLBACK]


def counts(tasks: Iterable[NodeView]) -> dict[str, int]:
    """How many tasks are in each status that any is in."""
    return dict(Counter(map(status_of, tasks)))


def standings(view: WorkflowView) -> dict[str, PhaseStanding]:
    """The phases by id."""
    members: dict[str | None, list[NodeView]] = {}
    children: dict[str, list[NodeView]] = {}
    for task in view.tasks:
        members.setdefault(task.node.phase, []).append(task)
        if task.node.parent is not None:
            children.setdefault(task.node.parent, []).append(task)
    found = {}
    phases = own_phases(view)
    for phase, (start, end) in zip(phases, ranges([p.node.read_phase() for p in phases]), strict=True):
        tasks = members.get(phase.node.id, [])
        whole = [_done(task, children) for task in tasks if task.node.parent is None]
        done = sum(whole) / len(whole) if whole else float(_is_done(phase))
        found[phase.node.id] = PhaseStanding(start, end, done, counts(tasks))
    return found


def _done(task: NodeView, children: dict[str, list[NodeView]]) -> float:
    """A fan that runs is as far as its children are."""
    mine = children.get(task.node.id)
    if not mine or task.node.state in OVER:
        return float(_is_done(task))
    return sum(map(_is_done, mine)) / len(mine)


def _is_done(one: NodeView) -> bool:
    """What never ran since something before it failed, or since it was cancelled, brings nothing further."""
    return one.node.state in ("completed", "skipped", "failed")


def percent(view: WorkflowView, phases: Iterable[PhaseStanding]) -> float:
    """100 of one that is completed, and of no other."""
    if view.workflow.status == "completed":
        return 100.0
    return min(round(sum((phase.end - phase.start) * phase.done for phase in phases), 1), _MOST)


def usage(view: WorkflowView) -> Usage:
    """The sum over the tasks; what was paid for rounds before the last is in the cost."""
    found = Usage()
    for task in view.tasks:
        if task.task is not None and task.task.usage is not None:
            found = sessions.total(found, sessions.read_usage(task.task.usage))
    return msgspec.structs.replace(found, cost_usd=round(max(found.cost_usd, view.cost_usd), 9))


def current_step(view: WorkflowView) -> str | None:
    """The phases that run, each with what runs of it; rollback too."""
    busy: dict[str | None, list[str]] = {}
    for task in view.tasks:
        if status_of(task) == "running":
            busy.setdefault(task.node.phase, []).append(task.node.id)
    running = [phase for phase in own_phases(view) if status_of(phase) == "running"]
    titles = {phase.node.id: phase.node.read_phase().title or phase.node.id for phase in running}
    if ROLLBACK in busy:
        titles[ROLLBACK] = "rollback"
    return "; ".join(_said(title, busy.get(phase, [])) for phase, title in titles.items()) or None


def _said(title: str, busy: Sequence[str]) -> str:
    more = f" and {len(busy) - _NAMED} more" if len(busy) > _NAMED else ""
    return f"{title}: {', '.join(busy[:_NAMED])}{more}" if busy else title


def remaining(view: WorkflowView, done: float, now: int) -> float | None:
    """Seconds, from how long it took to come as far as `done` percent, but not before its last known time; None where
    nothing tells it."""
    workflow = view.workflow
    if workflow.status != "running" or workflow.started_at is None:
        return None
    times = [at - now for at in _times(view.tasks)]
    if done > 0:
        times.append(round((now - workflow.started_at) * (100 - done) / done))
    return max(0.0, max(times) / 1000) if times else None


def progress(view: WorkflowView, phases: Iterable[PhaseStanding], now: int) -> Progress:
    done = percent(view, phases)
    return Progress(done, current_step(view), remaining(view, done, now))


def waiting_for(view: WorkflowView) -> list[WaitingFor]:
    """What of a person's it waits for: to go on at all, approvals, signals, sub-workflows that wait for these; then the
    time that it waits for, when it is only that."""
    workflow = view.workflow
    if workflow.status in FINAL:
        return []
    reasons = [WaitingFor("paused")] if workflow.paused or not workflow.started else []
    open_tasks = [task for task in view.tasks if task.node.state not in OVER]
    for task in open_tasks:
        if task.node.kind == "approval" and task.node.state == "open":
            reasons.append(WaitingFor("approval", id=task.node.task_id, name=task.node.id))
    unsent = [name for task in open_tasks if task.node.state == "held" for name in task.unsent]
    reasons += [WaitingFor("signal", name=name) for name in dict.fromkeys(unsent)]
    reasons += [WaitingFor("workflow_task", id=t.blocked, name=t.node.id) for t in open_tasks if t.blocked is not None]
    times = _times(open_tasks)
    if not reasons and times and not any(_moves(task) for task in open_tasks):
        reasons.append(WaitingFor("time", until=iso(min(times))))
    return reasons


def _times(tasks: Iterable[NodeView]) -> list[int]:
    return [task.node.wake_at for task in tasks if task.node.state == "timed" and task.node.wake_at is not None]


def _moves(task: NodeView) -> bool:
    """Whether it runs, or will without a time or another's end that is waited for."""
    return task.node.state in ("when", "render", "full") or (task.node.state == "open" and task.node.kind == "task")
