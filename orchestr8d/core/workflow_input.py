"""What a start of a workflow and a definition may say: the types that decode them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from orchestr8d.core import patterns
from orchestr8d.core.task_input import Duration, Key, Name, Options, Priority, TaskIn, Url

Id = Annotated[
    str, patterns.whole(patterns.LOCAL_ID, "an id: 1 to 64 letters, digits, _ or -, not beginning with a digit or -")
]
Title = Annotated[str, Meta(min_length=1, max_length=200)]
Text = Annotated[str, Meta(max_length=20_000)]
Expression = Annotated[str, Meta(min_length=1, max_length=20_000)] | bool
Ids = Annotated[list[str], Meta(max_length=1000)]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
ParamType = Literal["string", "integer", "number", "boolean", "list"]
# A definition as it was written, or a phase or task of one: its own faults have paths that begin in it.
Raw = dict[str, Any]


class WorkflowIn(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A workflow to start: by the name of a template, by a definition, or by a name alone, to be filled step by
    step."""

    template: str | None = None
    definition: Raw | None = None
    name: Title | None = None
    params: dict[str, Any] = {}
    cwd: str | None = None
    user_id: Key | None = None
    # A workflow without phases waits for its start whatever is said here.
    start: bool = True
    callback_url: Url | None = None
    priority: Priority = "normal"
    deadline: Duration | None = None
    max_cost_usd: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    tags: Annotated[list[Key], Meta(max_length=100)] = []
    metadata: dict[str, Any] = {}
    dry_run: bool = False


class ParamIn(Struct, frozen=True, forbid_unknown_fields=True):
    """Without a type it is that of the default."""

    type: ParamType | None = None
    required: bool = False
    default: Any = None
    enum: Annotated[list[Any], Meta(min_length=1, max_length=1000)] | None = None
    description: str | None = None


class RetryPhaseIn(Struct, frozen=True, forbid_unknown_fields=True):
    retry_phase: str
    max: Annotated[int, Meta(ge=1, le=1000)]


class PhaseIn(Struct, frozen=True, forbid_unknown_fields=True):
    id: Id
    title: Title | None = None
    depends_on: Ids = []
    when: Expression | None = None
    progress: (
        Annotated[list[Annotated[float, Meta(ge=0, le=100)]], Meta(min_length=2, max_length=2)] | None
    ) = None
    milestone: Text | None = None
    max_parallel: Count | None = None
    # Each is looked at by itself: see StepIn.
    tasks: list[Any] = []


class DefinitionIn(Struct, frozen=True, forbid_unknown_fields=True):
    name: Title
    description: Text | None = None
    params: dict[str, ParamIn | None] = {}
    defaults: Raw = {}
    max_parallel: Count | None = None
    fail_fast: bool = False
    on_cancel: Literal["rollback"] | None = None
    report_every: Duration | None = None
    phases: list[PhaseIn] = []
    on_failure: list[Any] = []


class StepIn(Struct, frozen=True, forbid_unknown_fields=True):
    """What a task of a definition has beside the fields and options of a task."""

    id: Id
    agent: str | Annotated[list[str], Meta(min_length=1, max_length=20)] | None = None
    approval: Annotated[str, Meta(min_length=1)] | None = None
    workflow: Annotated[str, Meta(min_length=1)] | None = None
    depends_on: Ids = []
    when: Expression | None = None
    for_each: Annotated[str, Meta(min_length=1, max_length=20_000)] | None = None
    max_parallel: Count | None = None
    wait_for: Annotated[list[Name], Meta(max_length=100)] = []
    wait_timeout: Duration | None = None
    not_before: str | None = None
    # As for any task; what they say is kept as `not_before`.
    run_at: str | None = None
    delay: Duration | None = None
    milestone: Text | None = None
    on_failure: Literal["fail", "continue"] | RetryPhaseIn = "fail"
    on_timeout: Literal["fail", "approve"] | None = None
    params: Raw | None = None
    resume_from: str | None = None
    raw: bool = False


# What a task of a definition says as if it were submitted alone; the agent is chosen before.
TASK_FIELDS = tuple(name for name in TaskIn.__struct_fields__ if name not in ("agent", "options"))
# Options that are not there: a workflow has its own words for them.
ELSEWHERE = {
    "depends_on": "", "on_failure": "", "resume_from": "", "run_at": "", "delay": "",
    "user_id": "a workflow's tasks belong to its user",
    "allow_failed": "say `on_failure: continue` of the task that may fail",
}  # fmt: skip
OPTIONS = tuple(name for name in Options.__struct_fields__ if name not in ELSEWHERE)
# `timeout` is also an approval's.
STEP_FIELDS = (*StepIn.__struct_fields__, *TASK_FIELDS, *OPTIONS)
DEFAULTS = ("cwd", "env", *OPTIONS)
