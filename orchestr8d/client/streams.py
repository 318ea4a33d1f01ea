"""What takes several requests (pages, waiting, logs, events), as state machines that transports drive."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from orchestr8d.client.answers import ApiError, ConnectionLost, Json, NoDaemon
from orchestr8d.client.requests import Request
from orchestr8d.clock import Clock
from orchestr8d.core.states import FINAL

Item = TypeVar("Item", covariant=True)

# For how many seconds somebody who waits goes on without a daemon: longer than a restart or an upgrade takes.
PATIENCE = 60.0
# One long-poll, in seconds; the daemon allows 60.
POLL = 50.0


class Dialogue(Protocol[Item]):
    """Requests one after the other, each made from what the last one answered."""

    def request(self) -> Request | None:
        """The next one to send; None at the end."""
        ...

    def take(self, answer: Json) -> Iterable[Item]: ...
    def delay(self) -> float:
        """Seconds to let pass before the next request."""
        ...


class Source(Protocol[Item]):
    """A stream that goes on over broken connections."""

    def request(self) -> Request | None:
        """How to open it, or to go on where it broke off; None at the end."""
        ...

    def opened(self) -> Iterable[Item]:
        """It is open (again): what is to be told of that."""
        ...

    def feed(self, chunk: bytes) -> Iterable[Item]: ...
    def ended(self) -> float:
        """The daemon closed it properly: seconds until `request` is asked what is next."""
        ...

    def lost(self, error: NoDaemon) -> float:
        """The connection broke: seconds until the next try. Raises `error` after trying for long enough."""
        ...


class Pages:
    """All items of a list, page by page."""

    def __init__(self, first: Request, key: str) -> None:
        self._first = first
        self._next: Request | None = first
        self._key = key

    def request(self) -> Request | None:
        return self._next

    def take(self, answer: Json) -> list[Json]:
        cursor = answer.get("next_cursor")
        query = tuple(pair for pair in self._first.query if pair[0] != "cursor")
        self._next = None if cursor is None else self._first._replace(query=(*query, ("cursor", cursor)))
        items: list[Json] = answer[self._key]
        return items

    def delay(self) -> float:
        return 0.0


class Waiting:
    """Statuses up to the final one (then `final` is set), or until `timeout` seconds passed; `ask` makes the request
    for one, to wait a while for the final one or for nothing."""

    def __init__(self, ask: Callable[[float | None, bool], Request], timeout: float | None, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._until = None if timeout is None else clock.monotonic() + timeout
        self._asked = False
        self._early = False
        self._due = 0.0
        self.final = False

    def request(self) -> Request | None:
        if self.final:
            return None
        if not self._asked:  # a daemon that is down from the start is no reason to wait
            return self._ask(None, False)
        left = POLL if self._until is None else self._until - self._clock.monotonic()
        if left <= 0:
            return None
        span = min(left, POLL)
        self._due = self._clock.monotonic() + span - 0.1
        poll = self._ask(span, True)
        return poll._replace(patience=PATIENCE if self._until is None else min(left, PATIENCE))

    def take(self, answer: Json) -> list[Json]:
        self.final = answer["status"] in FINAL
        # A daemon that is on its way out answers at once: then asking again at once would be a busy loop.
        self._early = self._asked and not self.final and self._clock.monotonic() < self._due
        self._asked = True
        return [answer]

    def delay(self) -> float:
        return 0.3 if self._early else 0.0


class Retries:
    """How long to wait between tries at a daemon that is away, and when to give up."""

    def __init__(self, patience: float, clock: Clock) -> None:
        """`patience`: seconds. Who has been connected once has PATIENCE, whatever was said at first."""
        self._patience = patience
        self._clock = clock
        self._since: float | None = None
        self._delay = 0.1

    def connected(self) -> None:
        self._patience = max(self._patience, PATIENCE)
        self._since = None
        self._delay = 0.1

    def lost(self, error: Exception) -> float:
        """Seconds until the next try. Raises `error` once `patience` is used up."""
        now = self._clock.monotonic()
        if self._since is None:
            self._since = now
        if now - self._since >= self._patience:
            raise error
        delay, self._delay = self._delay, min(self._delay * 2, 3.0)
        return delay


class Logs:
    """The bytes of a task's output; of a certain attempt, a broken connection goes on at the byte where it broke."""

    def __init__(self, request: Request, patience: float, clock: Clock) -> None:
        self._request: Request | None = request
        self._following = ("follow", "1") in request.query
        self._offset = next((int(value) for name, value in request.query if name == "offset"), 0)
        names = {name for name, _ in request.query}
        # Only then is it known which byte was the last one.
        self._resumable = "attempt" in names and "tail" not in names
        self._retries = Retries(patience, clock)

    def request(self) -> Request | None:
        return self._request

    def opened(self) -> tuple[bytes, ...]:
        self._retries.connected()
        return ()

    def feed(self, chunk: bytes) -> list[bytes]:
        self._offset += len(chunk)
        return [chunk]

    def ended(self) -> float:
        self._request = None
        return 0.0

    def lost(self, error: NoDaemon) -> float:
        if self._request is None or not self._following or not self._resumable:
            raise error
        query = tuple(pair for pair in self._request.query if pair[0] != "offset")
        self._request = self._request._replace(query=(*query, ("offset", str(self._offset))))
        return self._retries.lost(error)


class Events:
    """Server-sent events, without a gap over reconnections; without `after`, what happens from now on.

    `position` is up to where the log was read: None until the daemon told, which it does at once and every 15 seconds.
    """

    def __init__(self, request: Request, patience: float, clock: Clock) -> None:
        self._request = request
        self._retries = Retries(patience, clock)
        self._buffer = b""
        self.position: int | None = None

    def request(self) -> Request:
        if self.position is None:
            return self._request
        query = tuple(pair for pair in self._request.query if pair[0] != "after")
        headers = (*self._request.headers, ("Last-Event-ID", str(self.position)))
        return self._request._replace(query=query, headers=headers)

    def opened(self) -> tuple[Json, ...]:
        self._buffer = b""
        self._retries.connected()
        return ()

    def feed(self, chunk: bytes) -> list[Json]:
        *blocks, self._buffer = (self._buffer + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        return [event for event in map(self._event, blocks) if event is not None]

    def _event(self, block: bytes) -> Json | None:
        fields: dict[str, str] = {}
        for line in block.decode().split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name == "data" and "data" in fields else value
        if fields.get("id", "").isdecimal():
            self.position = int(fields["id"])
        if "data" not in fields:  # a comment, or a position only
            return None
        data: Any = json.loads(fields["data"])
        # `gap` is about the stream and has no envelope of its own.
        enveloped = isinstance(data, dict) and "type" in data
        return data if enveloped else {"type": fields.get("event"), "data": data}

    def ended(self) -> float:
        """The daemon drains: it may be restarted."""
        return 0.5

    def lost(self, error: NoDaemon) -> float:
        return self._retries.lost(error)


class Opened:
    """Events, and a word (`open`) each time that something may have been missed before the stream began."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self.request, self.feed = events.request, events.feed
        self.ended, self.lost = events.ended, events.lost

    def opened(self) -> list[Json]:
        self._events.opened()
        return [{"type": "open"}] if self._events.position is None else []


class Sending:
    """When a request that got no answer may be sent again: only if that cannot do its work twice."""

    # A request that was on its way when the connection broke is tried again for this many seconds.
    GRACE = 5.0

    def __init__(self, request: Request, patience: float, clock: Clock) -> None:
        self._request = request
        self._patience = max(request.patience, patience)
        self._broken: ConnectionLost | None = None
        self._retries = Retries(max(self._patience, self.GRACE), clock)

    def failed(self, error: NoDaemon | ApiError) -> float:
        """Seconds until the next try, or raises what the caller should be told."""
        if isinstance(error, ApiError):
            if error.status != 503 or not self._patience:
                raise error
            return self._retries.lost(error)
        if isinstance(error, ConnectionLost):
            if not self._request.repeatable:
                raise error
            self._broken = self._broken or error
        elif self._broken is None and not self._patience:
            raise error
        return self._retries.lost(self._broken or error)
