"""The one gate before all routes: Host and Origin, token, route, scope, content type, size, body, in this order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import structlog
from aiohttp import web
from aiohttp.abc import AbstractMatchInfo

from orchestr8d.config import Config
from orchestr8d.core.errors import Problem, enough, refuse
from orchestr8d.status_api import reading, respond, rights
from orchestr8d.status_api.hosts import Doors
from orchestr8d.status_api.peers import Peers, is_unix
from orchestr8d.status_api.reading import Inputs
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.tokens import Caller

_LEVEL: Final = {"read": 0, "submit": 1, "admin": 2}
_EVERYONE: Final = Caller(token_id="none", name="no auth", scope="admin")  # noqa: S106 (an id, no secret)
_NOBODY: Final = Caller(token_id="", name="", scope="read")
# What is counted for an answer that nobody took.
_GONE: Final = 499


class Gate:
    """Takes every request, and answers whatever goes wrong as a problem document."""

    def __init__(self, services: Services, endpoints: Mapping[object, Inputs]) -> None:
        self._services = services
        self._endpoints = endpoints
        self._peers = Peers(services.attempt_of)
        self._config: Config | None = None
        self._doors: Doors
        self._open = False
        self._max_body = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        inputs = self._endpoints.get(request.match_info.route)
        try:
            response = await self._answer(request, inputs)
        except ConnectionError:
            # The client is gone, or a stream is broken off. aiohttp finds the connection closed, and is quiet about it.
            if request.transport is not None:
                request.transport.close()
            response = web.Response(status=_GONE)
        if inputs is None:
            self._services.metrics.request("other", "unknown", response.status)
        else:
            self._services.metrics.request(inputs.route.method, inputs.route.path, response.status)
        return response

    async def _answer(self, request: web.Request, inputs: Inputs | None) -> web.StreamResponse:
        try:
            return await self._pass(request, inputs)
        except Problem as problem:
            return _unless_begun(request, respond.problem(problem))
        except web.HTTPException as error:
            return _unless_begun(request, respond.other(error.status, error.reason))
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception:
            structlog.get_logger().exception("request failed", method=request.method, path=request.path)
            return _unless_begun(request, respond.other(500, "an internal error; the log has more"))

    async def _pass(self, request: web.Request, inputs: Inputs | None) -> web.StreamResponse:
        self._follow_config()
        route = None if inputs is None else inputs.route
        is_open = route is not None and route.scope is None
        self._check_doors(request, is_open)
        caller = _NOBODY if is_open else self._caller(request)
        if inputs is None or route is None:
            return _no_route(request.match_info)
        if not is_open:
            await self._check_rights(request, route, caller)
        body = b""
        if route.writes and request.body_exists:
            reading.check_content_type(request, route)
            body = await reading.read_body(request, self._max_body)
        query, value, once, faults = inputs.decode(request, caller, body)
        call = Call(request, caller, query, value, once, partial(self._caller, request))
        if faults:
            if route.also is not None and value is not None and not enough(faults):
                faults += await route.also(self._services, call)
            refuse(faults)
        return await route.handler(self._services, call)

    def _follow_config(self) -> None:
        """The configuration is exchanged as a whole when it is reloaded."""
        config = self._services.config()
        if config is not self._config:
            self._config = config
            self._doors = Doors(config)
            self._open = config.auth.mode == "none"
            self._max_body = config.server.max_body

    def _check_doors(self, request: web.Request, is_open: bool) -> None:
        host = request.headers.get("Host")
        transport = request.transport
        if not is_open and (transport is None or not is_unix(transport)):
            self._doors.check_host(host)
        self._doors.check_origin(request.headers.get("Origin"), host)

    def _caller(self, request: web.Request) -> Caller:
        """Whose request it is. A token is taken from the header only, never from a query."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        known = self._services.tokens.authenticate(token.strip()) if scheme.lower() == "bearer" else None
        if self._open and (known is None or known.attempt_id is None):
            return _EVERYONE
        if known is None:
            if scheme:
                raise Problem("unauthorized", "this token is unknown, revoked or expired")
            transport = request.transport
            if transport is None or not is_unix(transport):
                raise Problem("unauthorized", "a token is needed: Authorization: Bearer TOKEN")
            known = self._peers.caller(transport)
        return known if known.attempt_id is None else self._inside(known, known.attempt_id)

    def _inside(self, caller: Caller, attempt_id: str) -> Caller:
        task_id = self._services.pool.attempt_task(attempt_id)
        if task_id is None:
            raise Problem("unauthorized", "the attempt that asks does not run any more")
        return Caller(
            token_id=caller.token_id, name=caller.name, scope=caller.scope, task_id=task_id, attempt_id=attempt_id
        )

    async def _check_rights(self, request: web.Request, route: Route, caller: Caller) -> None:
        if caller.task_id is not None:
            await rights.check_inside(self._services, route, caller.task_id, request.match_info.get("id"))
        elif _LEVEL[caller.scope] < _LEVEL[route.scope or "read"]:
            raise Problem("forbidden", f"this needs a token of scope {route.scope!r}; this one's is {caller.scope!r}")


def middleware(gate: Gate) -> Callable[..., Awaitable[web.StreamResponse]]:
    """The gate as aiohttp takes it. What the router found is used by the gate itself."""

    @web.middleware
    async def pass_gate(request: web.Request, handler: object) -> web.StreamResponse:
        return await gate(request)

    return pass_gate


def _no_route(match: AbstractMatchInfo) -> web.Response:
    error = match.http_exception
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return respond.other(405, f"{error.method} is not possible here; {allowed} is", {"Allow": allowed})
    return respond.other(404, "there is no such route")


def _unless_begun(request: web.Request, response: web.Response) -> web.Response:
    """A response that was begun cannot be replaced by another; the connection breaks off instead."""
    if request.writer.output_size > 0:
        raise ConnectionResetError("the response was begun already")
    return response
