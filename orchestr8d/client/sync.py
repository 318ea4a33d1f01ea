"""The client for ordinary code: http.client over the Unix socket or TCP."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, Unpack

from orchestr8d.client import requests, streams, workflow_requests
from orchestr8d.client.answers import ApiError, ConnectionLost, Json, NoDaemon, read, refusal
from orchestr8d.client.discovery import Endpoint, find
from orchestr8d.client.requests import EventQuery, LogQuery, Request, TaskQuery
from orchestr8d.client.verbs import Verbs
from orchestr8d.clock import Clock, SystemClock

Item = TypeVar("Item")
CHUNK = 1 << 16


class Client(Verbs[Json, list[Json], str]):
    """Talks to the daemon that `find` finds, or to the one at `endpoint`. For one thread at a time."""

    def __init__(self, endpoint: Endpoint | None = None, *, patience: float = 0.0, clock: Clock | None = None) -> None:
        """`patience`: for how many seconds a daemon that cannot be reached, or is stopping, is tried again."""
        self.endpoint = endpoint or find(os.environ)
        self._patience = patience
        self._clock = clock or SystemClock()
        self._kept: http.client.HTTPConnection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def tasks(self, **query: Unpack[TaskQuery]) -> Iterator[Json]:
        """All tasks that match, newest first."""
        return self._talk(streams.Pages(requests.tasks(1000, **query), "tasks"))

    def task_events(self, task_id: str) -> Iterator[Json]:
        """The events of one task so far, in log order."""
        return self._talk(streams.Pages(requests.task_events(task_id), "events"))

    def wait(self, task_id: str, timeout: float | None = None) -> Json:
        """A task's final status; goes on over restarts. TimeoutError after `timeout` seconds."""
        return self._wait(partial(requests.status, task_id), f"task {task_id}", timeout)

    def wait_workflow(self, workflow_id: str, timeout: float | None = None) -> Json:
        """The same of a workflow."""
        return self._wait(partial(workflow_requests.status, workflow_id), f"workflow {workflow_id}", timeout)

    def _wait(self, ask: Callable[[float | None, bool], Request], what: str, timeout: float | None) -> Json:
        waiting = streams.Waiting(ask, timeout, self._clock)
        last: Json = {}
        for status in self._talk(waiting):
            last = status
        if not waiting.final:
            raise TimeoutError(f"{what} is still {last['status']}")
        return last

    def logs(self, task_id: str, follow: bool = False, **query: Unpack[LogQuery]) -> Iterator[bytes]:
        """The output of an attempt (the last one) in chunks; with `follow` until it ends."""
        return self.pump(streams.Logs(requests.logs(task_id, follow, **query), self._patience, self._clock))

    def events(self, **query: Unpack[EventQuery]) -> Iterator[Json]:
        """Events as they are committed, from now on or from `after` on, gapless over restarts."""
        return self.pump(streams.Events(requests.events(**query), self._patience, self._clock))

    def pump(self, source: streams.Source[Item]) -> Iterator[Item]:
        """Carries a stream, over as many connections as it takes."""
        while (request := source.request()) is not None:
            connection: http.client.HTTPConnection | None = None
            try:
                connection, response = self._open(request)
                if response.status >= 400:
                    raise refusal(response.status, dict(response.headers), _all(response))
                yield from source.opened()
                while chunk := _chunk(response):
                    yield from source.feed(chunk)
                time.sleep(source.ended())
            except NoDaemon as error:
                time.sleep(source.lost(error))
            finally:
                if connection is not None:
                    connection.close()

    def _talk(self, dialogue: streams.Dialogue[Item]) -> Iterator[Item]:
        while (request := dialogue.request()) is not None:
            yield from dialogue.take(self._one(request))
            time.sleep(dialogue.delay())

    def _many(self, request: Request, key: str) -> list[Json]:
        return list(self._talk(streams.Pages(request, key)))

    def _text(self, request: Request) -> str:
        text: str = self._one(request)
        return text

    def _one(self, request: Request) -> Any:
        sending = streams.Sending(request, self._patience, self._clock)
        while True:
            try:
                return self._send(request)
            except (NoDaemon, ApiError) as error:
                self.close()
                time.sleep(sending.failed(error))

    def _send(self, request: Request) -> Any:
        if not request.repeatable:  # that a kept connection is dead shows only after it was sent
            self.close()
        if self._kept is None:
            self._kept = connect(self.endpoint)
        self._kept.timeout = request.timeout
        if self._kept.sock is not None:
            self._kept.sock.settimeout(request.timeout)
        response = _ask(self._kept, self.endpoint, request)
        body = _all(response)
        if response.will_close:
            self.close()
        return read(response.status, dict(response.headers), body, request.text)

    def _open(self, request: Request) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """A connection of its own, for a stream."""
        connection = connect(self.endpoint)
        connection.timeout = request.timeout
        return connection, _ask(connection, self.endpoint, request)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connect(endpoint: Endpoint) -> http.client.HTTPConnection:
    """A connection that connects with its first request."""
    if endpoint.socket is not None:
        return _UnixConnection(endpoint.socket)
    kind = http.client.HTTPSConnection if endpoint.tls else http.client.HTTPConnection
    return kind(endpoint.host, endpoint.port)


def _ask(connection: http.client.HTTPConnection, endpoint: Endpoint, request: Request) -> http.client.HTTPResponse:
    try:
        if connection.sock is None:
            connection.connect()
    except OSError as error:
        connection.close()
        raise NoDaemon(f"no daemon answers at {endpoint} ({error.strerror or error})") from None
    headers = dict(request.headers)
    if endpoint.token:
        headers["Authorization"] = f"Bearer {endpoint.token}"
    try:
        connection.request(request.method, endpoint.prefix + request.target, request.body, headers)
    except OSError as error:
        # It may have refused the request in the middle of the body, with an answer that says why.
        try:
            return connection.getresponse()
        except (OSError, http.client.HTTPException):
            raise _lost(endpoint, error) from None
    try:
        return connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        raise _lost(endpoint, error) from None


def _lost(endpoint: Endpoint, error: Exception) -> ConnectionLost:
    if isinstance(error, TimeoutError):
        return ConnectionLost(f"the daemon at {endpoint} did not answer in time")
    return ConnectionLost(f"the daemon at {endpoint} went away before it had answered")


def _all(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read()
    except (OSError, http.client.HTTPException):
        raise ConnectionLost("the daemon went away in the middle of its answer") from None


def _chunk(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read1(CHUNK)
    except (OSError, http.client.HTTPException, ValueError):
        raise ConnectionLost("the daemon went away in the middle of its answer") from None
