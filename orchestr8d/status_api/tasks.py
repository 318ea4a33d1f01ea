"""Tasks as they stand: the list, one of them, its attempts."""

from __future__ import annotations

from typing import get_args

from aiohttp import web

from orchestr8d.core.decode import unknown
from orchestr8d.core.errors import refuse
from orchestr8d.core.states import TaskStatus
from orchestr8d.status_api import cursors, respond, views
from orchestr8d.status_api.cursors import Page
from orchestr8d.status_api.reading import distinct
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.store.types import TaskFilter

_STATUSES: tuple[str, ...] = get_args(TaskStatus)


class Wanted(Page, frozen=True, forbid_unknown_fields=True):
    """Which tasks: all filters must match."""

    # A comma list.
    status: str | None = None
    agent: str | None = None
    tag: list[str] = []
    workflow_id: str | None = None
    schedule_id: str | None = None
    queue: str | None = None
    user_id: str | None = None
    # Words in command, prompt or title.
    q: str | None = None
    # The last characters of an id.
    tail: str | None = None


def _filter(wanted: Wanted) -> TaskFilter:
    statuses = distinct("status", wanted.status.split(",")) if wanted.status is not None else ()
    faults = [unknown("status", s, _STATUSES, what=f"status {s!r}") for s in statuses if s not in _STATUSES]
    refuse(faults)
    return TaskFilter(
        statuses, wanted.agent, distinct("tag", wanted.tag), wanted.workflow_id, wanted.schedule_id, wanted.queue,
        wanted.user_id, wanted.q, wanted.tail,
    )  # fmt: skip


async def index(services: Services, call: Call) -> web.Response:
    wanted: Wanted = call.query
    before = cursors.read_int("tasks", wanted.cursor)
    found = await services.store.views(_filter(wanted), wanted.limit + 1, before)
    shown = found[: wanted.limit]
    more = cursors.make("tasks", str(shown[-1].task.seq)) if len(found) > len(shown) else None
    return respond.json(views.Tasks([views.task(view, with_attempts=False) for view in shown], more))


async def show(services: Services, call: Call) -> web.Response:
    return respond.json(views.task(await services.store.view(call.path("id"))))


async def attempts(services: Services, call: Call) -> web.Response:
    task = await services.store.task(call.path("id"))
    return respond.json([views.attempt(row) for row in await services.store.attempts(task.id)])


ROUTES = (
    Route("GET", "/api/v1/tasks", index, "List tasks, newest first", "read", {200: views.Tasks}, query=Wanted),
    Route("GET", "/api/v1/tasks/{id}", show, "One task", "read", {200: views.Task}, inside="own"),
    Route(
        "GET", "/api/v1/tasks/{id}/attempts", attempts, "The attempts of a task, oldest first", "read",
        {200: list[views.Attempt]}, inside="own",
    ),
)  # fmt: skip
