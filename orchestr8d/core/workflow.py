"""The words of workflows as types: definition, workflow, node, signal. Times are wall-clock milliseconds, durations
seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from orchestr8d.core.model import NewTask, Task

WorkflowStatus = Literal["pending", "running", "paused", "blocked", "completed", "failed", "cancelled"]
# Of phases and, seen from their workflow, of tasks.
PhaseStatus = Literal["pending", "running", "completed", "failed", "cancelled", "skipped"]
FINAL: Final = frozenset({"completed", "failed", "cancelled"})
# The phase of the tasks that run after a failure; no phase may have this name.
ROLLBACK: Final = "on_failure"
StepKind = Literal["task", "approval", "workflow"]


class RetryPhase(msgspec.Struct, frozen=True):
    """When its task fails, phase `retry_phase` and all that follows from it run again, at most `max` times."""

    retry_phase: str
    max: int


class Param(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a definition says of a parameter."""

    type: Literal["string", "integer", "number", "boolean", "list"] = "string"
    required: bool = False
    default: Any = None
    enum: list[Any] | None = None
    description: str | None = None


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task of a definition. Its strings are templates and its expressions are text until it is released."""

    id: str
    kind: StepKind = "task"
    # Local ids of tasks and phases, beside those of its phase.
    depends_on: list[str] = []
    when: str | None = None
    for_each: str | None = None
    max_parallel: int | None = None
    wait_for: list[str] = []
    wait_timeout: float | None = None
    # `+6d`, `TASK+2h`, a time; may be a template.
    not_before: str | None = None
    milestone: str | None = None
    on_failure: Literal["fail", "continue"] | RetryPhase = "fail"
    # Of a task: the body of a submit (core.task_input.TaskIn) as JSON, the definition's defaults included, with
    # templates in it; the agent is the one that was found at submit. `resume_from` is beside it, as a local id.
    task: dict[str, Any] | None = None
    # Whether its `command` is no template, whatever is in it.
    raw: bool = False
    resume_from: str | None = None
    # Whether `task` has no templates: what it becomes is known at submit.
    plain: bool = False
    # Of an approval: the question (a template), how long to wait for its answer, and what no answer means.
    approval: str | None = None
    timeout: float | None = None
    on_timeout: Literal["fail", "approve"] = "fail"
    # Of a sub-workflow: a template's name and what it is given (templates).
    workflow: str | None = None
    params: dict[str, Any] = {}


class Phase(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    title: str | None = None
    depends_on: list[str] = []
    when: str | None = None
    # Its share of the whole, in percent.
    progress: tuple[float, float] | None = None
    milestone: str | None = None
    max_parallel: int | None = None
    tasks: list[Step] = []


class Definition(msgspec.Struct, frozen=True, omit_defaults=True):
    """A checked definition. Stored as JSON, and shown."""

    name: str
    description: str | None = None
    params: dict[str, Param] = {}
    defaults: dict[str, Any] = {}
    max_parallel: int | None = None
    fail_fast: bool = False
    on_cancel: Literal["rollback"] | None = None
    report_every: float | None = None
    phases: list[Phase] = []
    # Rollback, in the order in which it runs.
    on_failure: list[Step] = []


class NewWorkflow(msgspec.Struct, kw_only=True):
    """A validated start. `drafts`: for each step of kind `task` (its rollback included), by id, what it becomes, or as
    much of that as can be told before its templates have values."""

    name: str
    definition: Definition
    drafts: dict[str, NewTask]
    template: str | None = None
    params: dict[str, Any] = {}
    cwd: str = "/"
    user_id: str = "local"
    start: bool = True
    callback_url: str | None = None
    priority: int = 0
    deadline: float | None = None
    max_cost_usd: float | None = None
    tags: list[str] = []
    metadata: dict[str, Any] = {}
    # Of a sub-workflow: the task that stands for it; how deep it is.
    parent_task: str | None = None
    depth: int = 0
    # Of a workflow that a running task makes of itself and others: its own local id, and its id.
    founder: tuple[str, str] | None = None


class Head(msgspec.Struct):
    """A row of the workflows table, field by column, in the table's order: what changes with each of its tasks."""

    seq: int
    id: str
    name: str
    template: str | None
    status: WorkflowStatus
    cwd: str
    user_id: str
    priority: int
    callback_url: str | None
    max_cost_usd: float | None
    # Of a sub-workflow: the task that stands for it.
    parent_task: str | None
    depth: int
    fail_fast: int
    on_cancel: str | None
    # Whether it was started, and is paused by a person.
    started: int
    paused: int
    # A person's wish: `cancel`; or what `fail_fast` has decided: `fail`. What is left is cancelled.
    ending: Literal["cancel", "fail"] | None
    # Tasks that are not final, those of them that are under way (or will be by themselves), and those that wait for a
    # person: an approval, a signal. Rollback is not counted.
    open: int
    active: int
    waiting: int
    # Tasks that failed by themselves so that it counts; those that wait to have a phase run again.
    failed: int
    again: int
    # Whether rollback has begun.
    rollback: int
    max_parallel: int | None
    running: int
    report_every: float | None
    report_at: int | None
    deadline_at: int | None
    created_at: int
    updated_at: int
    started_at: int | None
    completed_at: int | None
    # JSON: Error.
    error: str | None


class Workflow(Head):
    """The same with what seldom changes. JSON: Definition, params, tags, metadata, list of milestones ({text, at,
    phase, task})."""

    definition: str
    params: str
    tags: str
    metadata: str
    milestones: str

    def read_definition(self) -> Definition:
        return msgspec.json.decode(self.definition, type=Definition)


NodeState = Literal[
    "waiting", "when", "timed", "held", "full", "render", "open", "again",
    "completed", "failed", "cut", "cancelled", "skipped",
]  # fmt: skip
OVER: Final = frozenset({"completed", "failed", "cut", "cancelled", "skipped"})


class Node(msgspec.Struct):
    """A row of the workflow_nodes table: a phase or a task of a workflow, under its local id.

    `waiting`: for what it depends on; `when`: to be decided; `timed`: for its time; `held`: for signals; `full`: for
    room under a max_parallel, or for the end of a pause; `render`: its templates are to be rendered; `open`: a task
    that is released, a phase, fan or sub-workflow that has begun, an approval that was asked for; `again`: it failed,
    and waits until its phase can run again; `cut`: it failed because of what it depends on.
    """

    workflow_id: str
    id: str
    # The order in the definition; of a fan's children that of the fan, then by index.
    position: int
    kind: Literal["phase", "task", "fan", "approval", "workflow"]
    state: NodeState
    phase: str | None
    parent: str | None
    index: int | None
    # How deep it is: of a workflow's own tasks the workflow's depth; of tasks that a task has added, one more.
    depth: int
    round: int
    # The row of `tasks` that stands for it now; None of a phase.
    task_id: str | None
    # How many of what it depends on are not over; signals that it waits for; of a phase or fan: members not final; of a
    # sub-workflow: 1 unless that is blocked.
    waits: int
    signals: int
    open: int
    # Of a phase or fan: members that failed so that it counts; of one with a max_parallel: members under way.
    failed: int
    running: int
    max_parallel: int | None
    # How often it has made its phase run again.
    asked: int
    wake_at: int | None
    wake_is_delay: int
    started_at: int | None
    completed_at: int | None
    # JSON: the Step or Phase of the definition; the item of a fan's child; what asked for the round (result, error).
    rule: str
    item: str | None
    feedback: str | None

    def read_step(self) -> Step:
        return msgspec.json.decode(self.rule, type=Step)

    def read_phase(self) -> Phase:
        return msgspec.json.decode(self.rule, type=Phase)


class NodeView(msgspec.Struct):
    """A node with the row of its task, and its result where that was asked for (text, or JSON by its result_type)."""

    node: Node
    task: Task | None
    result: bytes | None = None
    exit_code: int | None = None
    # Local ids of what it waits for, and names of signals.
    waiting_for: Sequence[str] = ()
    unsent: Sequence[str] = ()
    # The sub-workflow that stands still, and the task with it.
    blocked: str | None = None

    @property
    def started_at(self) -> int | None:
        """Of a task when it was first run: until then it is only let go."""
        if self.node.kind == "task" and self.task is not None:
            return self.task.started_at
        return self.node.started_at


class WorkflowView(msgspec.Struct):
    """A workflow with its phases and tasks in the order of the definition; of `tasks` those of the latest round."""

    workflow: Workflow
    phases: list[NodeView]
    tasks: list[NodeView]
    # (from, to), local ids, as declared.
    edges: list[tuple[str, str]]
    cost_usd: float = 0.0


class Signal(msgspec.Struct):
    """The last payload that was sent under a name."""

    name: str
    payload: Any
    at: int


class Archived(msgspec.Struct):
    """A finished workflow as it is kept: `report` is Markdown."""

    seq: int
    workflow_id: str
    name: str
    status: WorkflowStatus
    user_id: str
    created_at: int
    completed_at: int
    report: str


class Extension(msgspec.Struct, frozen=True):
    """Phases and tasks added to a workflow: `old` is its definition as it was read (JSON), before them."""

    old: str
    definition: Definition
    drafts: dict[str, NewTask]
