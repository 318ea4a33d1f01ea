"""Health, readiness, metrics: what those ask who keep the daemon running."""

from __future__ import annotations

from typing import Literal

import msgspec
from aiohttp import web

from orchestr8d.metrics import CONTENT_TYPE
from orchestr8d.status_api import respond
from orchestr8d.status_api.route import Call, Media, Route
from orchestr8d.status_api.services import Services


class Health(msgspec.Struct):
    """`ok` when the daemon does its work. Open to everybody, so it tells no more than that."""

    status: str


class Ready(msgspec.Struct):
    """Whether tasks are taken."""

    status: Literal["ready", "draining", "failing"]


async def healthz(services: Services, call: Call) -> web.Response:
    status = str(services.health().get("status", "ok"))
    return respond.json(Health(status), 200 if status == "ok" else 503)


async def readyz(services: Services, call: Call) -> web.Response:
    if services.draining():
        return respond.json(Ready("draining"), 503)
    if services.health().get("status", "ok") != "ok":
        return respond.json(Ready("failing"), 503)
    return respond.json(Ready("ready"))


async def metrics(services: Services, call: Call) -> web.Response:
    services.metrics.update(await services.store.queues(), services.pool.running, services.pool.slots)
    services.metrics.stand(await services.store.standing())
    return web.Response(body=services.metrics.render(), headers={"Content-Type": CONTENT_TYPE, **respond.HEADERS})


ROUTES = (
    Route(
        "GET", "/healthz", healthz, "Whether the daemon is well; open to everybody", None, {200: Health, 503: Health}
    ),
    Route("GET", "/readyz", readyz, "Whether the daemon takes tasks", "read", {200: Ready, 503: Ready}),
    Route(
        "GET", "/metrics", metrics, "Metrics in Prometheus' format", "read", {200: Media(CONTENT_TYPE, "All metrics")}
    ),
)
