"""Puts the API together: the table of all routes, and the application that serves them behind the gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from orchestr8d.status_api import (
    agents,
    archive,
    deliveries,
    events,
    executors,
    hooks,
    limits,
    logs,
    notifications,
    operations,
    queues,
    respond,
    schedules,
    steering,
    submit,
    tasks,
    templates,
    tokens,
    watch,
    webhooks,
    workflow_control,
    workflow_reads,
    workflows,
)
from orchestr8d.status_api.gate import Gate, middleware
from orchestr8d.status_api.openapi import document
from orchestr8d.status_api.reading import Inputs
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Pool, Services, Waits

__all__ = ["Pool", "Route", "Services", "Waits", "create_app", "table"]

# After a refused body what still arrives is read and thrown away for so many seconds, so that the answer is seen.
_LINGER = 1.0
_RESOURCES = (
    submit, tasks, watch, steering, logs, events, hooks, queues, limits, executors, agents, templates, tokens,
    notifications, operations, webhooks, deliveries, workflows, workflow_reads, workflow_control, archive,
    schedules,
)  # fmt: skip


def table(version: str) -> tuple[Route, ...]:
    """Every route there is, the OpenAPI document's own included."""
    rendered: list[bytes] = []

    async def openapi(services: Services, call: Call) -> web.Response:
        if not rendered:  # made when first asked for
            rendered.append(respond.encode(document(routes, version)))
        return respond.raw(rendered[0])

    this = Route("GET", "/openapi.json", openapi, "This document", "read", {200: dict[str, Any]})
    routes = (*(route for resource in _RESOURCES for route in resource.ROUTES), this)
    return routes


def create_app(services: Services, extra_routes: Sequence[Route] = ()) -> web.Application:
    """The application; `extra_routes` stand behind the same gate without being part of the API's document."""
    endpoints: dict[object, Inputs] = {}
    app = web.Application(middlewares=[middleware(Gate(services, endpoints))], handler_args={"lingering_time": _LINGER})
    for route in (*table(services.version), *extra_routes):
        added = app.router.add_route(route.method, route.path, _gate_only, expect_handler=_expect)
        endpoints[added] = Inputs(route)

    async def let_go(_: web.Application) -> None:
        services.waits.end()

    app.on_shutdown.append(let_go)
    return app


async def _gate_only(request: web.Request) -> web.StreamResponse:
    raise AssertionError("the gate answers every request itself")


async def _expect(request: web.Request) -> None:
    """`100 Continue` is sent when the body is read: not to those who will be refused."""
