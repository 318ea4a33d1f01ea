"""The HTTP server itself: problem documents for what never becomes a request, and a quick end."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from orchestr8d.status_api import respond

# Handlers have so many seconds at the end; those that wait have been let go of before (Waits.end).
_SHUTDOWN = 2.0


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP. It is the client's fault, so the log need not hear of it."""
        if request.writer.output_size > 0:
            raise ConnectionResetError("the response was begun already")
        reason = (message or "").strip().partition("\n")[0]
        response = respond.other(status, reason or "this is no valid request")
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Serves an application; used as aiohttp's AppRunner is: `setup`, then sites, then `cleanup`."""

    def __init__(self, app: web.Application, **more: Any) -> None:
        super().__init__(app, **{"access_log": None, "shutdown_timeout": _SHUTDOWN, **more})

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, loop=made._loop, **made._kwargs)
