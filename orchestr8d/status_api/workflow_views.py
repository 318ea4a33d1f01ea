"""The shapes of what is answered of workflows, made from the store's views by pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

from orchestr8d.core import model, waiting, workflow_progress
from orchestr8d.core.durations import iso
from orchestr8d.core.graph import Graph, status_of
from orchestr8d.core.states import TaskStatus
from orchestr8d.core.waiting import Why
from orchestr8d.core.workflow import Archived, NodeView, PhaseStatus, Workflow, WorkflowStatus, WorkflowView
from orchestr8d.core.workflow_shown import shown
from orchestr8d.status_api.views import ProgressNow, Time, task_url


class Started(Struct):
    """A workflow that was accepted: it is on disk."""

    workflow_id: str
    status: WorkflowStatus
    check_status_url: str
    message: str


class Edge(Struct, rename={"source": "from", "target": "to"}):
    source: str
    target: str


class GraphNode(Struct):
    id: str
    kind: Literal["phase", "task"]
    phase: str | None
    status: str
    # Of a fan: its children by status, once it has begun.
    counts: dict[str, int] | UnsetType = UNSET


class GraphView(Struct):
    """Phases and tasks, and what was declared to depend on what."""

    nodes: list[GraphNode]
    edges: list[Edge]


class DryRun(Struct):
    """What would be started."""

    definition: dict[str, Any]
    graph: GraphView


class PhaseView(Struct):
    """`progress` is its part of the whole, `percent` how much of it is done, `counts` are its tasks by status."""

    id: str
    title: str | None
    status: PhaseStatus
    progress: tuple[float, float]
    percent: float
    counts: dict[str, int]
    depends_on: list[str]
    started_at: Time | None
    completed_at: Time | None


class Milestone(Struct):
    text: str
    at: Time
    phase: str | None = None
    task: str | None = None


class WorkflowStatusView(Struct):
    """How a workflow stands. `counts` are its tasks by status, `usage` is the sum over them."""

    workflow_id: str
    name: str
    status: WorkflowStatus
    waiting_for: list[model.WaitingFor]
    error: model.Error | None
    progress: ProgressNow
    phases: list[PhaseView]
    counts: dict[str, int]
    usage: model.Usage
    milestones: list[Milestone]
    created_at: Time
    started_at: Time | None
    completed_at: Time | None
    estimated_completion: Time | None


class WorkflowFull(WorkflowStatusView, kw_only=True):
    """All that is known of a workflow but for its tasks."""

    id: str
    template: str | None
    definition: dict[str, Any]
    params: dict[str, Any]
    cwd: str
    user_id: str
    priority: int
    callback_url: str | None
    max_cost_usd: float | None
    # The task that it is a sub-workflow for.
    parent_task: str | None
    deadline_at: Time | None
    updated_at: Time
    tags: list[str]
    metadata: dict[str, Any]


class WorkflowRow(Struct):
    """A workflow in a list."""

    id: str
    workflow_id: str
    name: str
    template: str | None
    status: WorkflowStatus
    error: model.Error | None
    cwd: str
    user_id: str
    priority: int
    parent_task: str | None
    tags: list[str]
    metadata: dict[str, Any]
    created_at: Time
    started_at: Time | None
    completed_at: Time | None


class Workflows(Struct):
    workflows: list[WorkflowRow]
    next_cursor: str | None


class WorkflowTask(Struct):
    """A task under its local id. `result` is text and `output` the value; of a fan lists of its children's."""

    id: str
    task_id: str | None
    phase: str | None
    status: TaskStatus
    waiting_for: list[model.WaitingFor]
    agent: Any
    command: Any
    approval: str | None
    workflow: str | None
    for_each: str | None
    depends_on: list[str]
    parent: str | None
    index: int | None
    round: int
    attempt: int
    result: Any
    output: Any
    exit_code: int | None
    error: model.Error | None
    usage: Any
    started_at: Time | None
    completed_at: Time | None


class WorkflowTasks(Struct):
    workflow_id: str
    tasks: list[WorkflowTask]


class Added(Struct):
    """A task that was added."""

    id: str
    task_id: str
    phase: str | None
    status: TaskStatus
    check_status_url: str


class AddedTasks(Struct):
    workflow_id: str
    tasks: list[Added]


class AddedPhase(Struct):
    """A phase that was added, with its tasks."""

    workflow_id: str
    phase: str
    tasks: list[Added]


class SignalView(Struct):
    """A signal as it is kept: what was sent last under its name."""

    workflow_id: str
    name: str
    payload: Any
    sent_at: Time


class ArchiveRow(Struct):
    """A finished workflow."""

    workflow_id: str
    name: str
    status: WorkflowStatus
    user_id: str
    created_at: Time
    completed_at: Time


class ArchiveList(Struct):
    archive: list[ArchiveRow]
    next_cursor: str | None


class ArchiveEntry(ArchiveRow):
    """A finished workflow with its report in Markdown."""

    report: str


def url(workflow_id: str) -> str:
    return f"/api/v1/workflows/{workflow_id}"


def started(row: Workflow) -> Started:
    if row.status == "pending":
        message = "accepted; it waits to be started"
    else:
        message = f"it is {row.status}: what depends on nothing starts at once, the rest follows by itself"
    return Started(row.id, row.status, f"{url(row.id)}/status", message)


def _when(ms: int) -> str:
    text = iso(ms)
    assert text is not None
    return text


def _error(row: Workflow) -> model.Error | None:
    return None if row.error is None else msgspec.json.decode(row.error, type=model.Error)


def milestones(row: Workflow) -> list[Milestone]:
    return [
        Milestone(one["text"], _when(one["at"]), one.get("phase"), one.get("task"))
        for one in msgspec.json.decode(row.milestones)
    ]


def _status_fields(view: WorkflowView, now: int) -> dict[str, Any]:
    row = view.workflow
    standings = workflow_progress.standings(view)
    progress = workflow_progress.progress(view, standings.values(), now)
    left = progress.estimated_time_remaining
    return {
        "workflow_id": row.id, "name": row.name, "status": row.status,
        "waiting_for": workflow_progress.waiting_for(view), "error": _error(row),
        "progress": ProgressNow(progress.percent, progress.current_step, left),
        "phases": [_phase(phase, standings[phase.node.id]) for phase in workflow_progress.own_phases(view)],
        "counts": workflow_progress.counts(view.tasks), "usage": workflow_progress.usage(view),
        "milestones": milestones(row), "created_at": _when(row.created_at), "started_at": iso(row.started_at),
        "completed_at": iso(row.completed_at),
        "estimated_completion": None if left is None else iso(now + round(left * 1000)),
    }  # fmt: skip


def _phase(phase: NodeView, standing: workflow_progress.PhaseStanding) -> PhaseView:
    node, rule = phase.node, phase.node.read_phase()
    return PhaseView(
        node.id, rule.title, status_of(phase),  # type: ignore[arg-type]  # of a phase it is one of these
        (standing.start, standing.end), round(100 * standing.done, 1), standing.counts, rule.depends_on,
        iso(node.started_at), iso(node.completed_at),
    )  # fmt: skip


def status(view: WorkflowView, now: int) -> WorkflowStatusView:
    return WorkflowStatusView(**_status_fields(view, now))


def full(view: WorkflowView, now: int) -> WorkflowFull:
    row = view.workflow
    return WorkflowFull(
        **_status_fields(view, now), id=row.id, template=row.template, definition=shown(row.read_definition()),
        params=msgspec.json.decode(row.params), cwd=row.cwd, user_id=row.user_id, priority=row.priority,
        callback_url=row.callback_url, max_cost_usd=row.max_cost_usd, parent_task=row.parent_task,
        deadline_at=iso(row.deadline_at), updated_at=_when(row.updated_at), tags=msgspec.json.decode(row.tags),
        metadata=msgspec.json.decode(row.metadata),
    )  # fmt: skip


def row(one: Workflow) -> WorkflowRow:
    return WorkflowRow(
        one.id, one.id, one.name, one.template, one.status, _error(one), one.cwd, one.user_id, one.priority,
        one.parent_task, msgspec.json.decode(one.tags), msgspec.json.decode(one.metadata), _when(one.created_at),
        iso(one.started_at), iso(one.completed_at),
    )  # fmt: skip


def tasks(view: WorkflowView) -> WorkflowTasks:
    paused = bool(view.workflow.paused or not view.workflow.started)
    children: dict[str, list[WorkflowTask]] = {}
    found = []
    for one in reversed(view.tasks):  # a fan after its children
        shown = task(one, paused=paused)
        if one.node.parent is not None:
            children.setdefault(one.node.parent, []).insert(0, shown)
        elif one.node.kind == "fan" and one.node.state in ("completed", "failed"):
            parts = children.get(one.node.id, ())
            shown.result = [part.result if part.status == "completed" else None for part in parts]
            shown.output = [part.output if part.status == "completed" else None for part in parts]
        found.append(shown)
    return WorkflowTasks(view.workflow.id, found[::-1])


def task(one: NodeView, *, paused: bool) -> WorkflowTask:
    node, row, step = one.node, one.task, one.node.read_step()
    body = step.task or {}
    agent, command, question = body.get("agent"), body.get("command"), step.approval
    # What templates gave is in the row.
    if row is not None and node.kind == "task":
        agent, command = row.agent, row.read_spec().command
    elif row is not None and node.kind == "approval":
        question = row.read_spec().title
    result, output = _result(one)
    return WorkflowTask(
        node.id, node.task_id, node.phase, status_of(one),  # type: ignore[arg-type]  # of a task it is one of these
        [] if row is None else waiting.waiting_for(row, Why(node=one, workflow_paused=paused)), agent, command,
        question, step.workflow, step.for_each, step.depends_on, node.parent, node.index, node.round,
        0 if row is None else row.attempt, result, output, one.exit_code, None if row is None else row.read_error(),
        None if row is None or row.usage is None else msgspec.Raw(row.usage.encode()), iso(one.started_at),
        iso(node.completed_at),
    )  # fmt: skip


def _result(one: NodeView) -> tuple[Any, Any]:
    """As text, and as the value that it is the JSON of."""
    if one.result is None or one.task is None:
        return None, None
    text = one.result.decode(errors="replace").removesuffix("\n")
    return text, msgspec.Raw(one.result) if one.task.result_type == "json" else None


def added(rows: Sequence[model.Task]) -> list[Added]:
    return [Added(row.local_id or row.id, row.id, row.phase, row.status, f"{task_url(row.id)}/status") for row in rows]


def graph(drawn: Graph) -> GraphView:
    nodes = [
        GraphNode(one.id, one.kind, one.phase, one.status, one.counts or UNSET) for one in (*drawn.phases, *drawn.tasks)
    ]
    return GraphView(nodes, [Edge(source, target) for source, target in drawn.edges])


def archive_row(one: Archived) -> ArchiveRow:
    return ArchiveRow(
        one.workflow_id, one.name, one.status, one.user_id, _when(one.created_at), _when(one.completed_at)
    )


def archived(one: Archived) -> ArchiveEntry:
    return ArchiveEntry(**msgspec.structs.asdict(archive_row(one)), report=one.report)
