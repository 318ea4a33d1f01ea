"""The daemon, with one more route beside its own: a POST that is let in and decoded like a submit, and does nothing.

Run as `python -m tests.bench.server serve …`, like `python -m orchestr8d serve …`.
"""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from orchestr8d import cli, daemon
from orchestr8d.core.task_input import TaskIn
from orchestr8d.status_api import app, respond
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services

NOOP = "/bench/noop"


async def _noop(services: Services, call: Call) -> web.Response:
    return respond.raw(b'{"status":"nothing"}', 202)


def _with_noop(services: Services, extra_routes: Sequence[Route] = ()) -> web.Application:
    noop = Route("POST", NOOP, _noop, "Nothing", "submit", {202: dict}, body=TaskIn, body_required=True, once=True)
    return app.create_app(services, [*extra_routes, noop])


if __name__ == "__main__":
    daemon.create_app = _with_noop  # type: ignore[attr-defined]  # imported there, and called by that name
    cli.main()
