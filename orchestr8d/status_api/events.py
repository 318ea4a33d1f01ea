"""The event log: one task's events in pages, and all as a stream (SSE) that resumes without a gap or a double."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
from aiohttp import web

from orchestr8d import events as log
from orchestr8d.core.decode import unknown
from orchestr8d.core.errors import Fault, Problem, refuse
from orchestr8d.status_api import cursors, respond, views
from orchestr8d.status_api.cursors import Page
from orchestr8d.status_api.reading import distinct
from orchestr8d.status_api.route import Call, Media, Route
from orchestr8d.status_api.services import Services
from orchestr8d.store.types import EventFilter

# A comment so often (seconds) tells both ends that the connection lives.
KEEP_ALIVE: Final = 15.0
# A reader that takes nothing for so many seconds is let go of. What waits for it is in the log, not in memory: no more
# than one piece of PIECE bytes and the transport's own buffer, far below the 1 MB that it may have waiting.
PATIENCE: Final = 10.0
PIECE: Final = 64 * 1024
BATCH: Final = 500
# After each look that found the log longer a stream rests for so many seconds: many small commits cost it one.
REST: Final = 0.02
_SSE: Final = "text/event-stream"
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_PREFIXES: Final = frozenset(t.partition(".")[0] + ".*" for t in log.TYPES) | {"*"}


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which events: all filters must match."""

    # Types by comma; `task.*` are all of that family.
    type: str | None = None
    task_id: str | None = None
    workflow_id: str | None = None
    user_id: str | None = None
    # The id after which to begin; 0 is the oldest kept, none is from now on.
    after: Annotated[int, msgspec.Meta(ge=0, lt=10**18)] | None = None


def _filter(wanted: Wanted) -> EventFilter:
    types = distinct("type", wanted.type.split(",")) if wanted.type is not None else ()
    known = sorted(log.TYPES | _PREFIXES)
    refuse([unknown("type", t, known, what=f"type {t!r}") for t in types if t not in log.TYPES | _PREFIXES])
    return EventFilter(types, wanted.task_id, wanted.workflow_id, wanted.user_id)


def _position(call: Call) -> int | None:
    """Where to begin. A client that reconnects knows better than the address that it was given first."""
    last = call.request.headers.get("Last-Event-ID")
    if last is None:
        wanted: Wanted = call.query
        return wanted.after
    if not _NUMBER.fullmatch(last):
        refuse([Fault("Last-Event-ID", "expected the id of an event")])
    return int(last)


async def of_task(services: Services, call: Call) -> web.Response:
    wanted: Page = call.query
    task = await services.store.task(call.path("id"))
    after = cursors.read_int("events", wanted.cursor) or 0
    oldest, _ = await services.store.event_bounds()
    if 0 < after < oldest - 1:
        raise Problem("gone", f"events before {oldest} are not kept any more")
    found, _ = await services.store.events(EventFilter(task_id=task.id), after, wanted.limit + 1)
    shown = found[: wanted.limit]
    more = cursors.make("events", str(shown[-1].id)) if len(found) > len(shown) else None
    return respond.json(views.Events([views.event(row) for row in shown], more))


async def stream(services: Services, call: Call) -> web.StreamResponse:
    wanted = _filter(call.query)
    position = _position(call)
    oldest, newest = await services.store.event_bounds()
    response = web.StreamResponse(headers={"Content-Type": _SSE, "X-Accel-Buffering": "no", **respond.HEADERS})
    await response.prepare(call.request)
    sse = _Stream(services, call, wanted, response)
    try:
        if position is None:
            await sse.run(newest)
        elif position == 0 or oldest - 1 <= position <= newest:
            await sse.run(max(position, oldest - 1))
        else:
            await sse.gap(oldest)
            await sse.run(oldest - 1)
    except TimeoutError:
        raise respond.drop(call.request) from None
    await response.write_eof()
    return response


class _Stream:
    """Writes the log to one reader."""

    def __init__(self, services: Services, call: Call, wanted: EventFilter, response: web.StreamResponse) -> None:
        self._services = services
        self._recheck = call.recheck
        self._wanted = wanted
        self._response = response

    async def gap(self, oldest: int) -> None:
        """The position that was asked for is not kept any more."""
        await self._write(b'id: %d\nevent: gap\ndata: {"oldest":%d}\n\n' % (oldest - 1, oldest))

    async def run(self, position: int) -> None:
        """From `position` on, until the daemon drains or the token is no longer good."""
        services = self._services
        due = 0.0
        while not services.waits.ended:
            if services.clock.monotonic() >= due:
                if not self._may_go_on():
                    return
                await self._alive(position)
                due = services.clock.monotonic() + KEEP_ALIVE
            ready = self._next()  # asked for before reading, so that nothing is missed
            try:
                found, read_to = await services.store.events(self._wanted, position, BATCH)
                if found:
                    await self._send(found)
                if read_to > position:
                    position = read_to
                    await asyncio.sleep(REST)
                    continue
                await services.waits.until(ready, due - services.clock.monotonic())
            finally:
                ready.cancel()

    def _next(self) -> asyncio.Future[None]:
        """Done when there may be more; of one task, what happens to others wakes nobody."""
        about = self._wanted.task_id
        return self._services.bus.next() if about is None else self._services.bus.next_of(about)

    def _may_go_on(self) -> bool:
        try:
            self._recheck()
        except Problem:
            return False
        return True

    async def _alive(self, position: int) -> None:
        """A sign of life. Its id dispatches nothing, but is where a reader that saw no event yet would go on."""
        await self._write(b": alive\nid: %d\n\n" % position)

    async def _send(self, found: Sequence[log.Event]) -> None:
        piece = bytearray()
        for event in found:
            piece += b"id: %d\nevent: %b\ndata: " % (event.id, event.type.encode())
            piece += respond.encode(views.event(event))
            piece += b"\n\n"
            if len(piece) >= PIECE:
                await self._write(bytes(piece))
                piece.clear()
        if piece:
            await self._write(bytes(piece))

    async def _write(self, data: bytes) -> None:
        async with self._services.waits.breakable(), asyncio.timeout(PATIENCE):
            await self._response.write(data)


ROUTES = (
    Route(
        "GET", "/api/v1/tasks/{id}/events", of_task, "The events of a task, in the order of the log", "read",
        {200: views.Events}, (410,), query=Page, inside="own",
    ),
    Route(
        "GET", "/api/v1/events", stream, "All events as they happen (server-sent events)", "read",
        {200: Media(_SSE, "`id`, `event`, `data` (an Event); `event: gap` when a position was pruned", stream=True)},
        query=Wanted, request_headers={"Last-Event-ID": "the id after which to go on"},
    ),
)  # fmt: skip
