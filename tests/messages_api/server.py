"""The server, on a loop and a thread of its own: a test may be a coroutine or not, and may block."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from tests.messages_api import stream
from tests.messages_api.steps import ERROR_TYPES, Due, Step, due, fail, ok

STATUSES = {error_type: status for status, error_type in ERROR_TYPES.items()}


class Request(msgspec.Struct, frozen=True):
    """One request of a CLI for an answer."""

    at: float  # unix seconds
    session: str
    name: str  # of its script
    number: int  # of its step, from 0
    attempt: int  # at this step, from 1
    headers: Mapping[str, str]  # names in any case
    body: dict[str, Any]


class MessagesApi:
    """Use as a context manager; `url` is for ANTHROPIC_BASE_URL."""

    url: str

    def __init__(self) -> None:
        self.otherwise: Callable[[dict[str, Any]], Step] = ok
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="messages-api")
        self._arrived = threading.Condition()
        self._requests: list[Request] = []
        self._attempts: Counter[tuple[str, int]] = Counter()
        self._gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def __enter__(self) -> MessagesApi:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def requests(self) -> list[Request]:
        with self._arrived:
            return list(self._requests)

    def wait(self, count: int = 1, name: str | None = None, seconds: float = 20.0) -> Request:
        """The count-th request, of the script with that name or of any, as soon as it is there.

        It blocks; a coroutine calls it by `asyncio.to_thread`.
        """

        def found() -> Request | None:
            those = [r for r in self._requests if name in (None, r.name)]
            return those[count - 1] if len(those) >= count else None

        with self._arrived:
            request = self._arrived.wait_for(found, seconds)
            assert request, f"request {count} of {name or 'any script'} never came; there were {len(self._requests)}"
            return request

    def open(self, gate: str) -> None:
        """For good: who comes later passes as well."""
        self._loop.call_soon_threadsafe(lambda: self._gates[gate].set())

    async def _start(self) -> None:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/messages", self._messages)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*self._runner.addresses[0][:2])

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        try:
            found = due(body["messages"], lambda: self.otherwise(body))
        except ValueError as unreadable:
            return _error(fail(400, message=f"the script cannot be read: {unreadable}"))
        step = self._record(request, body, found)
        if step.gate is not None:
            await self._gates[step.gate].wait()
        if step.drop == "start":
            return _cut(request)
        if step.status != 200:
            return _error(step)
        message = stream.message(step, body["model"])
        if body.get("stream"):
            return await self._stream(request, step, message)
        return await self._whole(request, step, message)

    def _record(self, request: web.Request, body: dict[str, Any], found: Due) -> Step:
        """The step that this attempt gets."""
        place = (found.script, found.number)
        with self._arrived:
            self._attempts[place] += 1
            attempt = self._attempts[place]
            session = request.headers.get("X-Claude-Code-Session-Id", "")
            self._requests.append(
                Request(time.time(), session, found.name, found.number, attempt, request.headers, body)
            )
            self._arrived.notify_all()
        return found.step.first[attempt - 1] if attempt <= len(found.step.first) else found.step

    async def _stream(self, request: web.Request, step: Step, message: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **step.headers})
        await response.prepare(request)
        for sent, event in enumerate(stream.events(message)):
            if sent == stream.BEGUN:
                if step.gate_mid is not None:
                    await self._gates[step.gate_mid].wait()
                if step.drop == "middle":
                    return _cut(request)
                if step.error_type is not None:
                    await response.write(stream.error_event(step))
                    return response
            await asyncio.sleep(step.pause)
            await response.write(event)
        return response

    async def _whole(self, request: web.Request, step: Step, message: dict[str, Any]) -> web.StreamResponse:
        """What the CLI asks for after a stream broke."""
        if step.gate_mid is not None:
            await self._gates[step.gate_mid].wait()
        if step.drop == "middle":
            return _cut(request)
        if step.error_type is not None:
            return _error(fail(STATUSES.get(step.error_type, 500), step.error_type, step.error_message))
        return web.json_response(message, headers=step.headers)


def _error(step: Step) -> web.Response:
    return web.json_response(stream.error(step), status=step.status, headers=step.headers)


def _cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
