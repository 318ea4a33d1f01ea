"""The client for asyncio: aiohttp, which is imported with the first request."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from orchestr8d.client import requests, streams, workflow_requests
from orchestr8d.client.answers import ApiError, ConnectionLost, Json, NoDaemon, read, refusal
from orchestr8d.client.discovery import Endpoint, find
from orchestr8d.client.requests import EventQuery, LogQuery, Request, TaskQuery
from orchestr8d.client.verbs import Verbs
from orchestr8d.clock import Clock, SystemClock

if TYPE_CHECKING:
    import aiohttp

Item = TypeVar("Item")


class AsyncClient(Verbs[Coroutine[Any, Any, Json], Coroutine[Any, Any, list[Json]], Coroutine[Any, Any, str]]):
    """`Client` with `await`: the same verbs, for one event loop."""

    def __init__(self, endpoint: Endpoint | None = None, *, patience: float = 0.0, clock: Clock | None = None) -> None:
        """`patience`: for how many seconds a daemon that cannot be reached, or is stopping, is tried again."""
        self.endpoint = endpoint or find(os.environ)
        self._patience = patience
        self._clock = clock or SystemClock()
        self._kept: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._kept is not None:
            await self._kept.close()
            self._kept = None

    def tasks(self, **query: Unpack[TaskQuery]) -> AsyncIterator[Json]:
        """All tasks that match, newest first."""
        return self._talk(streams.Pages(requests.tasks(1000, **query), "tasks"))

    def task_events(self, task_id: str) -> AsyncIterator[Json]:
        """The events of one task so far, in log order."""
        return self._talk(streams.Pages(requests.task_events(task_id), "events"))

    async def wait(self, task_id: str, timeout: float | None = None) -> Json:  # noqa: ASYNC109 (as in Client)
        """A task's final status; goes on over restarts. TimeoutError after `timeout` seconds."""
        return await self._wait(partial(requests.status, task_id), f"task {task_id}", timeout)

    async def wait_workflow(self, workflow_id: str, timeout: float | None = None) -> Json:  # noqa: ASYNC109 (as above)
        """The same of a workflow."""
        return await self._wait(partial(workflow_requests.status, workflow_id), f"workflow {workflow_id}", timeout)

    async def _wait(
        self,
        ask: Callable[[float | None, bool], Request],
        what: str,
        timeout: float | None,  # noqa: ASYNC109 (as above)
    ) -> Json:
        waiting = streams.Waiting(ask, timeout, self._clock)
        last: Json = {}
        async for status in self._talk(waiting):
            last = status
        if not waiting.final:
            raise TimeoutError(f"{what} is still {last['status']}")
        return last

    def logs(self, task_id: str, follow: bool = False, **query: Unpack[LogQuery]) -> AsyncIterator[bytes]:
        """The output of an attempt (the last one) in chunks; with `follow` until it ends."""
        return self.pump(streams.Logs(requests.logs(task_id, follow, **query), self._patience, self._clock))

    def events(self, **query: Unpack[EventQuery]) -> AsyncIterator[Json]:
        """Events as they are committed, from now on or from `after` on, gapless over restarts."""
        return self.pump(streams.Events(requests.events(**query), self._patience, self._clock))

    async def pump(self, source: streams.Source[Item]) -> AsyncIterator[Item]:
        """Carries a stream, over as many connections as it takes."""
        while (request := source.request()) is not None:
            try:
                async with self._ask(request) as response:
                    if response.status >= 400:
                        raise refusal(response.status, response.headers, await response.read())
                    for item in source.opened():
                        yield item
                    async for chunk in response.content.iter_any():
                        for item in source.feed(chunk):
                            yield item
                await asyncio.sleep(source.ended())
            except Exception as error:
                await asyncio.sleep(source.lost(self._no_daemon(error)))

    async def _talk(self, dialogue: streams.Dialogue[Item]) -> AsyncIterator[Item]:
        while (request := dialogue.request()) is not None:
            for item in dialogue.take(await self._one(request)):
                yield item
            await asyncio.sleep(dialogue.delay())

    async def _many(self, request: Request, key: str) -> list[Json]:
        return [item async for item in self._talk(streams.Pages(request, key))]

    async def _text(self, request: Request) -> str:
        text: str = await self._one(request)
        return text

    async def _one(self, request: Request) -> Any:
        sending = streams.Sending(request, self._patience, self._clock)
        while True:
            try:
                async with self._ask(request) as response:
                    return read(response.status, response.headers, await response.read(), request.text)
            except ApiError as error:
                await asyncio.sleep(sending.failed(error))
            except Exception as error:
                await asyncio.sleep(sending.failed(self._no_daemon(error)))

    def _ask(self, request: Request) -> aiohttp.client._RequestContextManager:
        import aiohttp
        from yarl import URL

        if self._kept is None:
            path = self.endpoint.socket
            self._kept = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector() if path is None else aiohttp.UnixConnector(path),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        headers = dict(request.headers)
        if self.endpoint.token:
            headers["Authorization"] = f"Bearer {self.endpoint.token}"
        base = "http://localhost" if self.endpoint.socket is not None else str(self.endpoint)
        return self._kept.request(
            request.method,
            URL(base + request.target, encoded=True),
            data=request.body,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_read=request.timeout),
        )

    def _no_daemon(self, error: Exception) -> NoDaemon:
        """What a failed exchange means; raises `error` again when it is no matter of the connection."""
        import aiohttp

        if isinstance(error, NoDaemon):
            return error
        if isinstance(error, aiohttp.ClientConnectorError):
            return NoDaemon(f"no daemon answers at {self.endpoint} ({error.strerror or error})")
        if isinstance(error, aiohttp.ClientError | OSError):
            return ConnectionLost(f"the daemon at {self.endpoint} went away before it had answered")
        raise error
