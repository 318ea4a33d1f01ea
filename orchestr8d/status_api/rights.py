"""What tokens may do: one that is bound to a user or to runners with tasks and workflows, and one of an attempt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestr8d.core import endings
from orchestr8d.core.errors import Problem
from orchestr8d.core.model import NewTask, Task
from orchestr8d.core.workflow import Definition, Workflow
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.tokens import Caller


def check(caller: Caller, task: NewTask | Task) -> None:
    """Raises Problem for a task that the caller's token must not write to."""
    if caller.user_id is not None and task.user_id != caller.user_id:
        raise Problem("forbidden", f"this token is for tasks of the user {caller.user_id!r} only")
    if caller.runners is None and caller.agents is None:
        return
    spec = task.read_spec() if isinstance(task, Task) else task.spec
    _check_kind(caller, task.kind, None if spec.agent is None else spec.agent.name)
    _check_follow_ups(caller, spec.on_completion)


def check_workflow(caller: Caller, workflow: Workflow) -> None:
    """Raises Problem for a workflow that the caller's token must not write to."""
    check_owner(caller, workflow.user_id)
    if caller.runners is not None or caller.agents is not None:
        check_definition(caller, workflow.read_definition())


def check_owner(caller: Caller, user_id: str, what: str = "workflows") -> None:
    if caller.user_id is not None and user_id != caller.user_id:
        raise Problem("forbidden", f"this token is for {what} of the user {caller.user_id!r} only")


def check_definition(caller: Caller, definition: Definition) -> None:
    """Raises Problem for a definition with tasks that the caller's token must not make."""
    if caller.runners is None and caller.agents is None:
        return
    for step in (*(step for phase in definition.phases for step in phase.tasks), *definition.on_failure):
        if step.workflow is not None:
            raise Problem("forbidden", "this token is for some tasks only, and a sub-workflow may have any")
        if step.task is not None:
            check_written(caller, step.task)


def check_written(caller: Caller, task: Mapping[str, Any]) -> None:
    """Raises Problem for a task, as it was written, that the caller's token must not make."""
    _check_kind(caller, *_kind_of(task))
    _check_follow_ups(caller, (task.get("options") or {}).get("on_completion"))


def _kind_of(task: Mapping[str, Any]) -> tuple[str, str | None]:
    """Kind and agent of a task as it was written."""
    return ("command", None) if task.get("agent") is None else ("claude", task["agent"])


def _check_follow_ups(caller: Caller, on_completion: Any) -> None:
    """What is to follow from its end is as much the caller's doing."""
    for task in endings.all_follow_ups(on_completion):
        _check_kind(caller, *_kind_of(task), also=", also in follow-ups")


def _check_kind(caller: Caller, kind: str, agent: str | None, also: str = "") -> None:
    if caller.runners is not None and kind not in caller.runners:
        raise Problem("forbidden", f"this token is not for tasks of the kind {kind!r}{also}")
    if caller.agents is not None and agent is None and caller.runners is None:
        message = "this token is for agents only: for commands too it must name them in `runners`"
        raise Problem("forbidden", f"{message}{also}")
    if caller.agents is not None and agent is not None and agent not in caller.agents:
        raise Problem("forbidden", f"this token is not for the agent {agent!r}{also}")


async def check_inside(services: Services, route: Route, task_id: str, target: str | None) -> None:
    """Raises Problem unless the task's own token may use the route for `target`, the id in its path."""
    if route.inside == "any" or (route.inside == "own" and target == task_id):
        return
    if route.inside != "no" and target is not None:
        mine = (await services.store.task(task_id)).workflow_id
        if mine is not None and route.inside == "workflow" and target == mine:
            return
        if mine is not None and route.inside == "own" and not route.writes and await _is_of(services, target, mine):
            return
    raise Problem("forbidden", "a task's own token is for that task and its workflow only")


async def _is_of(services: Services, task_id: str, workflow_id: str) -> bool:
    try:
        return (await services.store.task(task_id)).workflow_id == workflow_id
    except Problem as problem:
        if problem.kind != "not-found":
            raise
        return False


async def steered(services: Services, call: Call) -> Task:
    """The task that the path names, for a caller who may change it. Whose it is, and its kind, never change."""
    task = await services.store.task(call.path("id"))
    check(call.caller, task)
    return task
