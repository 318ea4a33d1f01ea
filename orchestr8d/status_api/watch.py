"""How a task stands, at once or when that changes; and its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from aiohttp import web

from orchestr8d.core import model
from orchestr8d.core.errors import Problem
from orchestr8d.status_api import respond, views
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services

# The longest that one request waits, in seconds; who asks for more gets this.
MAX_WAIT = 60.0


class Poll(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Answer when the status differs from what it was on arrival, after `wait` seconds (at most 60) in any case."""

    wait: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    # Only the final status counts.
    until: Literal["final"] | None = None


async def until(services: Services, task_id: str, done: Callable[[model.Task], bool], seconds: float) -> model.TaskView:
    """The task once `done` holds of it, or as it is after so many seconds, or when the daemon drains."""
    end = services.clock.monotonic() + seconds
    while True:
        ready = services.bus.next_of(task_id)  # asked for before reading, so that nothing is missed
        try:
            view = await services.store.view(task_id)
            left = end - services.clock.monotonic()
            if done(view.task) or left <= 0 or not await services.waits.until(ready, left):
                return view
        finally:
            ready.cancel()


async def status(services: Services, call: Call) -> web.Response:
    poll: Poll = call.query
    task_id = call.path("id")
    if not poll.wait:
        return respond.json(views.status(await services.store.view(task_id)))
    first: str | None = None

    def done(row: model.Task) -> bool:
        nonlocal first
        first = first or row.status
        return views.is_final(row) or (poll.until is None and row.status != first)

    return respond.json(views.status(await until(services, task_id, done, min(poll.wait, MAX_WAIT))))


async def result(services: Services, call: Call) -> web.Response:
    found = await services.store.result(call.path("id"))
    if not views.is_final(found.task):
        raise Problem("conflict", f"task {found.task.id} is {found.task.status}: it has no result yet")
    answer = views.result(found)
    if found.task.agent is not None and found.task.attempt > 1:
        # It goes on with what the attempts before have begun.
        attempts = await services.store.attempts(found.task.id)
        answer.files_created = list(dict.fromkeys(name for one in attempts for name in views.files_created(one)))
    return respond.json(answer)


ROUTES = (
    Route(
        "GET", "/api/v1/tasks/{id}/status", status, "How a task stands; long-poll with `wait`", "read",
        {200: views.Status}, query=Poll, inside="own",
    ),
    Route(
        "GET", "/status/{id}", status, "The same at the root", "read",
        {200: views.Status}, query=Poll, inside="own",
    ),
    Route(
        "GET", "/api/v1/tasks/{id}/result", result, "What a final task left", "read",
        {200: views.Result}, (409,), inside="own",
    ),
)  # fmt: skip
