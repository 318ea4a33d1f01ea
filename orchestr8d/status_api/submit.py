"""Handing over tasks: one, many at once, and an earlier one again."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from orchestr8d.core import model
from orchestr8d.core.errors import Fault, Problem, refuse
from orchestr8d.core.model import NewTask
from orchestr8d.core.submit import LATER, LATER_VALUES, Batch, Policy, TaskIn, new_task
from orchestr8d.core.waiting import Why, waiting_for
from orchestr8d.status_api import respond, views
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.store import Created
from orchestr8d.tokens import Caller

NOT_YET = LATER | {f"{path}={value}" for path, value in LATER_VALUES.items()}
_LOCATION = {"Location": "the task that was made"}


def policy(services: Services, caller: Caller) -> Policy:
    """What this caller's tasks are held against."""
    config = services.config()
    allow = tuple(config.runners.command.allow)
    return Policy(config.limits.max_retries, allow, caller.user_id or "local", services.home)


def _one(tasks: Sequence[model.Task]) -> bytes:
    return respond.encode(views.submitted(tasks[0]))


def _many(tasks: Sequence[model.Task]) -> bytes:
    return respond.encode(views.SubmittedBatch([views.submitted(task) for task in tasks]))


def _again(tasks: Sequence[model.Task]) -> bytes:
    task = tasks[0]
    return respond.encode(views.task(model.TaskView(task, waiting_for(task, Why()))))


def _admit(services: Services, caller: Caller, new: Sequence[NewTask]) -> None:
    """What a submit needs beside valid fields. Raises Problem."""
    if caller.attempt_id is not None:
        raise Problem("not-available", "a task cannot add tasks in this version: that comes with workflows")
    for task in new:
        if caller.user_id is not None and task.user_id != caller.user_id:
            raise Problem("forbidden", f"this token submits for the user {caller.user_id!r} only")
        if caller.runners is not None and task.kind not in caller.runners:
            raise Problem("forbidden", f"this token must not submit tasks of the kind {task.kind!r}")
    accepting(services)


def accepting(services: Services) -> None:
    """Raises Problem while the daemon drains: what is running is finished, nothing is added."""
    if services.draining():
        raise Problem("unavailable", "the daemon is shutting down", retry_after=5)


def _created(created: Created) -> web.Response:
    """202 for what is new, 200 for what was there: an earlier request's answer, or the holder of the key."""
    task_id = created.tasks[0].id if created.tasks else msgspec.json.decode(created.body)["task_id"]
    there = created.replayed or created.existing
    return respond.raw(created.body, 200 if there else 202, {"Location": views.task_url(task_id)})


async def submit(services: Services, call: Call) -> web.Response:
    task: TaskIn = call.body
    faults: list[Fault] = []
    new = new_task(task, policy(services, call.caller), faults)
    refuse(faults)
    assert new is not None
    _admit(services, call.caller, (new,))
    return _created(await services.store.submit((new,), _one, call.once))


async def submit_batch(services: Services, call: Call) -> web.Response:
    batch: Batch = call.body
    rules = policy(services, call.caller)
    faults: list[Fault] = []
    made = [new_task(task, rules, faults, f"tasks[{i}].") for i, task in enumerate(batch.tasks)]
    refuse(faults)
    new = [task for task in made if task is not None]
    _admit(services, call.caller, new)
    created = await services.store.submit(new, _many, call.once)
    return respond.raw(created.body, 200 if created.replayed else 202)


async def retry(services: Services, call: Call) -> web.Response:
    accepting(services)
    return _created(await services.store.retry(call.path("id"), _again, call.once))


ROUTES = (
    Route(
        "POST", "/api/v1/tasks", submit, "Submit a task", "submit",
        {202: views.Submitted, 200: views.Submitted}, (409, 422, 429),
        body=TaskIn, body_required=True, once=True, inside="any", later=NOT_YET,
        response_headers={200: _LOCATION, 202: _LOCATION},
    ),
    Route(
        "POST", "/api/v1/tasks:batch", submit_batch, "Submit up to 1,000 tasks, all or none", "submit",
        {202: views.SubmittedBatch, 200: views.SubmittedBatch}, (409, 422, 429),
        body=Batch, body_required=True, once=True, inside="any", later=NOT_YET,
    ),
    Route(
        "POST", "/api/v1/tasks/{id}/retry", retry, "Submit a failed or cancelled task again, as a new task", "submit",
        {202: views.Task, 200: views.Task}, (409, 422, 429),
        once=True, response_headers={200: _LOCATION, 202: _LOCATION},
    ),
)  # fmt: skip
