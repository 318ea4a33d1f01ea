"""What is said of a schedule, over the API and in the configuration, and what is wrong with that."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from orchestr8d.core import durations
from orchestr8d.core.decode import right
from orchestr8d.core.errors import Fault
from orchestr8d.core.notices import DEFAULT_USER
from orchestr8d.core.schedules import CatchUp, NewSchedule, Overlap, Source, Written
from orchestr8d.core.task_input import Duration, Name, TaskIn
from orchestr8d.core.workflow_input import WorkflowIn

# By such a name an id would be meant.
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_NEITHER: Final = "give a task or a workflow"
_BOTH: Final = "give a task or a workflow, not both"


class AtIn(Struct, frozen=True, forbid_unknown_fields=True):
    """Once, at a time."""

    at: str


class ScheduleIn(Struct, forbid_unknown_fields=True):
    """A schedule: `task` is what a submit takes, `workflow` what a start takes; one of the two."""

    name: Name
    schedule: str | AtIn
    timezone: str | None = None
    task: TaskIn | None = None
    workflow: WorkflowIn | None = None
    catch_up: CatchUp = "none"
    # None: however late.
    catch_up_window: Duration | None = None
    overlap: Overlap = "skip"
    jitter: Duration = 0.0
    active: bool = True


class SchedulesIn(Struct, forbid_unknown_fields=True):
    """Up to 1,000 schedules, all or none."""

    schedules: Annotated[list[ScheduleIn], Meta(min_length=1, max_length=1000)]


class SchedulePatch(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """What is absent stays. A task takes the place of a workflow, and the other way round."""

    name: Name | UnsetType = UNSET
    schedule: str | AtIn | UnsetType = UNSET
    timezone: str | UnsetType = UNSET
    task: TaskIn | UnsetType = UNSET
    workflow: WorkflowIn | UnsetType = UNSET
    catch_up: CatchUp | UnsetType = UNSET
    catch_up_window: Duration | UnsetType | None = UNSET
    overlap: Overlap | UnsetType = UNSET
    jitter: Duration | UnsetType = UNSET
    active: bool | UnsetType = UNSET


def check(said: ScheduleIn, zone: str, faults: list[Fault], at: str = "", now: int | None = None) -> None:
    """Adds what the types cannot say, of all but the task and the workflow; `zone` is that of a schedule that names
    none. UNSET stands for what is wrong already (core.decode). With `now`, a single time must be still to come."""
    if said.task is None and said.workflow is None:
        faults.append(Fault(f"{at}task", _NEITHER))
    elif said.task is not None and said.workflow is not None:
        faults.append(Fault(f"{at}workflow", _BOTH))
    check_name(said.name, faults, at)
    check_body(said.workflow, faults, at)
    # Neither of one that is wrong, nor of a time that is.
    if not isinstance(said.schedule, UnsetType) and getattr(said.schedule, "at", None) is not UNSET:
        check_rule(written(said.schedule), _zone(said, zone), faults, at, now)


def check_patch(said: SchedulePatch, faults: list[Fault]) -> None:
    """The same of a patch, but of its rule."""
    if said.task is not UNSET and said.workflow is not UNSET:
        faults.append(Fault("workflow", _BOTH))
    check_name(said.name, faults)
    check_body(said.workflow, faults)


def check_name(name: str | UnsetType, faults: list[Fault], at: str = "") -> None:
    if name is not UNSET and _ID.fullmatch(name):
        faults.append(Fault(f"{at}name", "looks like an id: schedules are found by both"))


def check_body(workflow: WorkflowIn | UnsetType | None, faults: list[Fault], at: str = "") -> None:
    if isinstance(workflow, WorkflowIn) and workflow.dry_run is True:
        faults.append(Fault(f"{at}workflow.dry_run", "a schedule starts what it says"))


def check_rule(rule: Written, zone: str, faults: list[Fault], at: str = "", now: int | None = None) -> None:
    from orchestr8d.core import cron  # late: only who has schedules needs it, and importing takes time

    try:
        cron.parse(rule, zone, now)
    except cron.BadRule as error:
        faults += [msgspec.structs.replace(fault, path=at + fault.path) for fault in error.faults]


def _zone(said: ScheduleIn, otherwise: str) -> str:
    return said.timezone if isinstance(said.timezone, str) else otherwise


def written(rule: str | AtIn) -> Written:
    return rule if isinstance(rule, str) else {"at": rule.at}


def body(said: TaskIn | WorkflowIn | None) -> dict[str, Any] | None:
    """A task or a workflow as it is kept."""
    return None if said is None else msgspec.to_builtins(said)


def user_of(said: ScheduleIn | SchedulePatch, otherwise: str = DEFAULT_USER) -> str:
    """Whose schedule it is: whoever its tasks are for."""
    if isinstance(said.workflow, WorkflowIn):
        return said.workflow.user_id or otherwise
    return (said.task.options.user_id if isinstance(said.task, TaskIn) else None) or otherwise


def new_schedule(said: ScheduleIn, zone: str, user_id: str, source: Source, at: str = "") -> NewSchedule:
    """What the store takes, of one with which nothing is wrong."""
    return NewSchedule(
        name=said.name, rule=written(said.schedule), timezone=_zone(said, zone), task=body(said.task),
        workflow=body(said.workflow), catch_up=said.catch_up, catch_up_window=seconds(said.catch_up_window),
        overlap=said.overlap, jitter=durations.seconds(said.jitter), active=said.active, source=source,
        user_id=user_id, at=at,
    )  # fmt: skip


def seconds(value: str | float | None) -> float | None:
    return None if value is None else durations.seconds(value)


# -- in the configuration


def read(value: object) -> tuple[ScheduleIn | None, list[Fault]]:
    """A schedule of the configuration, or None and all that is wrong with it, as far as it can be told without looking
    at anything else."""
    # TOML has times; elsewhere they are texts.
    value = msgspec.to_builtins(value)
    said, faults = right(value, ScheduleIn)
    if said is None:
        return None, faults
    check(said, "UTC", faults)
    if isinstance(said.task, TaskIn):
        faults += _task_faults(said.task)
    if isinstance(said.workflow, WorkflowIn) and not faults:
        faults += _workflow_faults(said.workflow)
    return (None, faults) if faults else (said, [])


def _task_faults(task: TaskIn) -> list[Fault]:
    from orchestr8d.core import submit
    from orchestr8d.core.addresses import Allow

    found: list[Fault] = []
    names = (task.options.account,) if task.options and task.options.account else ()
    rules = submit.AgentRules(accounts=names)
    submit.check(task, submit.Policy(max_retries=2**53, agents=rules, addresses=Allow(private=True)), found, "task.")
    return found


def _workflow_faults(workflow: WorkflowIn) -> list[Fault]:
    from orchestr8d.core import definition, submit
    from orchestr8d.core.addresses import Allow
    from orchestr8d.core.definition import Bounds

    if workflow.definition is None and workflow.template is None and workflow.name is None:
        return [Fault("workflow.template", "give a template, a definition, or a name")]
    if workflow.definition is None:
        return []
    rules = submit.Policy(max_retries=2**53, addresses=Allow(private=True), in_workflow=True)
    found = definition.check(workflow.definition, workflow.params, rules, Bounds(2**31, 2**31))
    return [
        msgspec.structs.replace(fault, path=f"workflow.{fault.path}".rstrip("."))
        for fault in found.faults
        # Which accounts there are is not known here.
        if not fault.path.endswith("account")
    ]
