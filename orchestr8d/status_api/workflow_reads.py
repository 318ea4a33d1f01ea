"""Workflows as they stand: the list, one of them, its status when that changes, its tasks, its picture, its report."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, TypeVar, get_args

import msgspec
from aiohttp import web

from orchestr8d.core import graph, pictures, report
from orchestr8d.core.decode import unknown
from orchestr8d.core.errors import refuse
from orchestr8d.core.pictures import Format
from orchestr8d.core.workflow import FINAL, Workflow, WorkflowStatus, WorkflowView
from orchestr8d.status_api import cursors, respond
from orchestr8d.status_api import workflow_views as views
from orchestr8d.status_api.cursors import Page
from orchestr8d.status_api.reading import distinct
from orchestr8d.status_api.route import Call, Media, Route
from orchestr8d.status_api.services import Services
from orchestr8d.status_api.watch import MAX_WAIT, Poll
from orchestr8d.store.types import WorkflowFilter

T = TypeVar("T")
_STATUSES: tuple[str, ...] = get_args(WorkflowStatus)
# What is made of more tasks than this is made beside the loop.
_LARGE = 300
_MARKDOWN = "text/markdown; charset=utf-8"
_PICTURES = {
    "mermaid": "text/plain; charset=utf-8", "dot": "text/vnd.graphviz; charset=utf-8", "svg": "image/svg+xml",
}  # fmt: skip


class Wanted(Page, frozen=True, forbid_unknown_fields=True):
    """Which workflows: all filters must match."""

    # A comma list.
    status: str | None = None
    name: str | None = None
    user_id: str | None = None
    tag: list[str] = []
    # The last characters of an id.
    tail: str | None = None


class Drawn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As what."""

    format: Format | Literal["json"] = "json"


async def of(view: WorkflowView, make: Callable[[WorkflowView], T]) -> T:
    """What is made of a view, which takes its time when it is large."""
    return await asyncio.to_thread(make, view) if len(view.tasks) > _LARGE else make(view)


async def shown(services: Services, workflow_id: str) -> web.Response:
    view, now = await services.store.workflow_view(workflow_id), services.clock.now()
    return respond.json(await of(view, lambda view: views.full(view, now)))


async def index(services: Services, call: Call) -> web.Response:
    wanted: Wanted = call.query
    statuses = distinct("status", wanted.status.split(",")) if wanted.status is not None else ()
    refuse([unknown("status", s, _STATUSES, what=f"status {s!r}") for s in statuses if s not in _STATUSES])
    which = WorkflowFilter(statuses, wanted.name, wanted.user_id, distinct("tag", wanted.tag), wanted.tail)
    before = cursors.read_int("workflows", wanted.cursor)
    found = await services.store.workflows(which, wanted.limit + 1, before)
    page = found[: wanted.limit]
    more = cursors.make("workflows", str(page[-1].seq)) if len(found) > len(page) else None
    return respond.json(views.Workflows([views.row(one) for one in page], more))


async def show(services: Services, call: Call) -> web.Response:
    return await shown(services, call.path("id"))


async def until(services: Services, workflow_id: str, done: Callable[[Workflow], bool], seconds: float) -> None:
    """Returns once `done` holds of the workflow, after so many seconds, or when the daemon drains."""
    end = services.clock.monotonic() + seconds
    while True:
        ready = services.bus.next_of(workflow_id)  # asked for before reading, so that nothing is missed
        try:
            found = done(await services.store.workflow(workflow_id))
            left = end - services.clock.monotonic()
            if found or left <= 0 or not await services.waits.until(ready, left):
                return
        finally:
            ready.cancel()


async def status(services: Services, call: Call) -> web.Response:
    poll: Poll = call.query
    workflow_id = call.path("id")
    first: str | None = None

    def done(row: Workflow) -> bool:
        nonlocal first
        first = first or row.status
        return row.status in FINAL or (poll.until is None and row.status != first)

    if poll.wait:
        await until(services, workflow_id, done, min(poll.wait, MAX_WAIT))
    view, now = await services.store.workflow_view(workflow_id), services.clock.now()
    return respond.json(await of(view, lambda view: views.status(view, now)))


async def tasks(services: Services, call: Call) -> web.Response:
    view = await services.store.workflow_view(call.path("id"), results=True)
    return respond.raw(await of(view, lambda view: respond.encode(views.tasks(view))))


async def draw(services: Services, call: Call) -> web.Response:
    wanted: Drawn = call.query
    view = await services.store.workflow_view(call.path("id"))
    drawn = await of(view, graph.of_view)
    form = wanted.format
    if form == "json":
        return respond.json(views.graph(drawn))
    text = await of(view, lambda _: pictures.drawn(drawn, form))
    return web.Response(body=text.encode(), headers={"Content-Type": _PICTURES[form], **respond.HEADERS})


async def tell(services: Services, call: Call) -> web.Response:
    view = await services.store.workflow_view(call.path("id"), results=True)
    text = await of(view, report.markdown)
    return web.Response(body=text.encode(), headers={"Content-Type": _MARKDOWN, **respond.HEADERS})


ROUTES = (
    Route(
        "GET", "/api/v1/workflows", index, "List workflows, newest first", "read", {200: views.Workflows}, query=Wanted
    ),
    Route(
        "GET", "/api/v1/workflows/{id}", show, "One workflow", "read", {200: views.WorkflowFull}, inside="workflow"
    ),
    Route(
        "GET", "/api/v1/workflows/{id}/status", status, "How a workflow stands; long-poll with `wait`", "read",
        {200: views.WorkflowStatusView}, query=Poll, inside="workflow",
    ),
    Route(
        "GET", "/api/v1/workflows/{id}/tasks", tasks, "Its tasks by their local ids, of the latest round", "read",
        {200: views.WorkflowTasks}, inside="workflow",
    ),
    Route(
        "GET", "/api/v1/workflows/{id}/graph", draw, "Its phases and tasks as a graph", "read",
        {200: (views.GraphView, *(Media(kind, f"As {name}") for name, kind in _PICTURES.items()))}, query=Drawn,
        inside="workflow",
    ),
    Route(
        "GET", "/api/v1/workflows/{id}/report", tell, "Its report", "read",
        {200: Media(_MARKDOWN, "Markdown")}, inside="workflow",
    ),
)  # fmt: skip
