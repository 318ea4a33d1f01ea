"""Executors: who runs tasks."""

from __future__ import annotations

from aiohttp import web

from orchestr8d.status_api import cursors, respond, views
from orchestr8d.status_api.cursors import Page
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services


async def index(services: Services, call: Call) -> web.Response:
    found = await services.store.executors()
    shown, more = cursors.page("executors", found, lambda executor: executor.id, call.query, newest_first=True)
    return respond.json(views.Executors([views.executor(row) for row in shown], more))


ROUTES = (
    Route(
        "GET", "/api/v1/executors", index, "List executors, newest first", "read", {200: views.Executors}, query=Page
    ),
)
