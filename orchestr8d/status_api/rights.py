"""What a token that is bound to a user or to runners may write to: tasks that it adds, and tasks that exist."""

from __future__ import annotations

from orchestr8d.core import endings
from orchestr8d.core.errors import Problem
from orchestr8d.core.model import NewTask, Spec, Task
from orchestr8d.status_api.route import Call
from orchestr8d.status_api.services import Services
from orchestr8d.tokens import Caller


def check(caller: Caller, task: NewTask | Task) -> None:
    """Raises Problem for a task that the caller's token must not write to."""
    if caller.user_id is not None and task.user_id != caller.user_id:
        raise Problem("forbidden", f"this token is for tasks of the user {caller.user_id!r} only")
    if caller.runners is not None or caller.agents is not None:
        _check_follow_ups(caller, task.read_spec() if isinstance(task, Task) else task.spec)
    if caller.runners is not None and task.kind not in caller.runners:
        raise Problem("forbidden", f"this token is not for tasks of the kind {task.kind!r}")
    agent = task.agent if isinstance(task, Task) else task.spec.agent and task.spec.agent.name
    if caller.agents is not None and agent is None and caller.runners is None:
        raise Problem("forbidden", "this token is for agents only: for commands too it must name them in `runners`")
    if caller.agents is not None and agent is not None and agent not in caller.agents:
        raise Problem("forbidden", f"this token is not for the agent {agent!r}")


def _check_follow_ups(caller: Caller, spec: Spec) -> None:
    """What is to follow from its end is as much the caller's doing."""
    for task in endings.all_follow_ups(spec):
        kind, agent = ("command", None) if task.get("agent") is None else ("claude", task["agent"])
        if caller.runners is not None and kind not in caller.runners:
            raise Problem("forbidden", f"this token is not for tasks of the kind {kind!r}, also as follow-ups")
        if caller.agents is not None and agent is not None and agent not in caller.agents:
            raise Problem("forbidden", f"this token is not for the agent {agent!r}, also in follow-ups")


async def steered(services: Services, call: Call) -> Task:
    """The task that the path names, for a caller who may change it. Whose it is, and its kind, never change."""
    task = await services.store.task(call.path("id"))
    check(call.caller, task)
    return task
