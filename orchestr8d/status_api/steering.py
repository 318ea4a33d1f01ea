"""What a person, or the task itself, does with a task that exists: cancel, pause, resume, change, report progress."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from orchestr8d.core import admission, model
from orchestr8d.core.errors import Fault, LeaseLost, Problem
from orchestr8d.core.states import BUSY
from orchestr8d.core.submit import Policy, check, patched
from orchestr8d.core.task_input import Priority, TaskPatch
from orchestr8d.status_api import respond, rights, views
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.status_api.submit import policy
from orchestr8d.status_api.watch import MAX_WAIT, until

# A cancel is answered when the processes are gone: the grace period, and this many seconds for what follows it.
AFTER_GRACE = 15.0


class Cancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Up to how many seconds to wait for the end of the processes; 0 answers at once."""

    wait: Annotated[float, msgspec.Meta(ge=0)] | None = None


class PriorityIn(msgspec.Struct, forbid_unknown_fields=True):
    priority: Priority


class ProgressIn(msgspec.Struct, forbid_unknown_fields=True):
    """How far the task is, said by itself."""

    percent: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    current_step: Annotated[str, msgspec.Meta(max_length=1000)] | None = None


async def _shown(services: Services, task_id: str) -> web.Response:
    return respond.json(views.task(await services.store.view(task_id)))


async def cancel(services: Services, call: Call) -> web.Response:
    task = await services.store.cancel((await rights.steered(services, call)).id)
    if task.status in BUSY:
        wanted: Cancel = call.query
        bound = services.config().executor.grace + AFTER_GRACE
        patience = bound if wanted.wait is None else min(wanted.wait, max(bound, MAX_WAIT))
        if patience > 0:
            await until(services, task.id, views.is_final, patience)
    return await _shown(services, task.id)


async def pause(services: Services, call: Call) -> web.Response:
    task = await rights.steered(services, call)
    return await _shown(services, (await services.store.pause(task.id)).id)


async def resume(services: Services, call: Call) -> web.Response:
    task = await rights.steered(services, call)
    return await _shown(services, (await services.store.resume(task.id)).id)


async def _edit(services: Services, call: Call, patch: TaskPatch) -> web.Response:
    task = await rights.steered(services, call)
    rules = _policy(services, call, task)

    def change(row: model.Task) -> model.NewTask:
        new = patched(admission.as_new(row), patch, rules)
        rights.check(call.caller, new)
        return new

    return await _shown(services, (await services.store.edit(task.id, change)).id)


def _policy(services: Services, call: Call, task: model.Task) -> Policy:
    in_workflow = task.workflow_id is not None
    return msgspec.structs.replace(policy(services, call.caller), in_workflow=in_workflow)


async def _also(services: Services, call: Call) -> list[Fault]:
    faults: list[Fault] = []
    try:
        task = await services.store.task(call.path("id"))
    except Problem:
        return []  # there is nothing to be changed
    check(call.body, _policy(services, call, task), faults)
    return faults


async def edit(services: Services, call: Call) -> web.Response:
    return await _edit(services, call, call.body)


async def priority(services: Services, call: Call) -> web.Response:
    wanted: PriorityIn = call.body
    return await _edit(services, call, TaskPatch(priority=wanted.priority))


async def progress(services: Services, call: Call) -> web.Response:
    said: ProgressIn = call.body
    task_id, attempt_id = call.path("id"), call.caller.attempt_id
    if attempt_id is None:
        raise Problem("forbidden", "progress is reported by the task itself, with the token in its ORCHESTR8_TOKEN")
    try:
        await services.store.progress(task_id, attempt_id, model.Progress(said.percent, said.current_step))
    except LeaseLost:
        raise Problem("conflict", "this attempt does not run any more") from None
    return respond.json(views.status(await services.store.view(task_id)))


ROUTES = (
    Route(
        "POST", "/api/v1/tasks/{id}/cancel", cancel, "Cancel a task; its whole process tree is ended", "submit",
        {200: views.Task}, (409,), query=Cancel,
    ),
    Route(
        "POST", "/api/v1/tasks/{id}/pause", pause, "Hold a task that is pending or queued", "submit",
        {200: views.Task}, (409,),
    ),
    Route("POST", "/api/v1/tasks/{id}/resume", resume, "Let a held task go", "submit", {200: views.Task}, (409,)),
    Route(
        "POST", "/api/v1/tasks/{id}/priority", priority, "Change the priority of a task that waits", "submit",
        {200: views.Task}, (409,), body=PriorityIn, body_required=True,
    ),
    Route(
        "PATCH", "/api/v1/tasks/{id}", edit, "Change a task before it runs", "submit",
        {200: views.Task}, (409, 422, 429), body=TaskPatch, body_required=True, also=_also,
    ),
    Route(
        "POST", "/api/v1/tasks/{id}/progress", progress, "Report progress, with the task's own token", "submit",
        {200: views.Status}, (409,), body=ProgressIn, body_required=True, inside="own",
    ),
)  # fmt: skip
