"""Queues: their settings, pausing and resuming."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from orchestr8d.core import patterns
from orchestr8d.core.decode import convert
from orchestr8d.core.errors import Fault, refuse
from orchestr8d.core.task_input import Name
from orchestr8d.status_api import cursors, respond, views
from orchestr8d.status_api.cursors import Page
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services

Rate = Annotated[str, patterns.whole(patterns.RATE, 'starts per time, like "30/m", "2/s" or "5/10m"')]
Limit = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]


class QueueIn(msgspec.Struct, forbid_unknown_fields=True):
    """What is absent stays; null takes a limit away."""

    limit: Limit | UnsetType | None = UNSET
    rate: Rate | UnsetType | None = UNSET


async def index(services: Services, call: Call) -> web.Response:
    queues, more = cursors.page("queues", await services.store.queues(), lambda queue: queue.name, call.query)
    return respond.json(views.Queues([views.queue(row) for row in queues], more))


async def _put(services: Services, call: Call, change: dict[str, Any]) -> web.Response:
    name = call.path("name")
    _, faults = convert(name, Name)
    refuse([Fault("name", fault.message) for fault in faults])
    return respond.json(views.queue(await services.store.put_queue(name, change)))


async def put(services: Services, call: Call) -> web.Response:
    wanted: QueueIn = call.body
    change = {"limit": wanted.limit, "rate": wanted.rate}
    return await _put(services, call, {name: value for name, value in change.items() if value is not UNSET})


async def pause(services: Services, call: Call) -> web.Response:
    return await _put(services, call, {"paused": True})


async def resume(services: Services, call: Call) -> web.Response:
    return await _put(services, call, {"paused": False})


ROUTES = (
    Route("GET", "/api/v1/queues", index, "List queues, by name", "read", {200: views.Queues}, query=Page),
    Route(
        "PUT", "/api/v1/queues/{name}", put, "Set a queue's limit or rate; makes an unknown one", "admin",
        {200: views.Queue}, body=QueueIn,
    ),
    Route(
        "POST", "/api/v1/queues/{name}/pause", pause, "Start nothing more from a queue", "admin", {200: views.Queue}
    ),
    Route("POST", "/api/v1/queues/{name}/resume", resume, "Let a queue go on", "admin", {200: views.Queue}),
)  # fmt: skip
