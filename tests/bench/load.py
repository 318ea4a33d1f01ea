"""Puts an HTTP server under load, as a process of its own: so many connections, each with one request at a time.

Reads a JSON Plan on stdin and writes a JSON Load to stdout. It parses no more than it needs to, so that it is never
what is measured.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from typing import cast

import msgspec
import uvloop

from tests.bench.lines import percentile

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Plan(msgspec.Struct):
    port: int
    token: str
    path: str
    body: str
    requests: int
    connections: int = 64
    # Sent before the clock starts.
    warmup: int = 200
    method: str = "POST"
    status: int = 202


class Load(msgspec.Struct):
    """`p50`, `p99` are seconds; `cpu` is this process's share of a core."""

    per_second: float
    p50: float
    p99: float
    refused: int
    cpu: float


class _Run:
    """What the connections share."""

    def __init__(self, plan: Plan) -> None:
        body = plan.body.encode()
        self.request = (
            f"{plan.method} {plan.path} HTTP/1.1\r\nHost: 127.0.0.1:{plan.port}\r\n"
            f"Authorization: Bearer {plan.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self.good = f"HTTP/1.1 {plan.status} ".encode()
        self.to_send = 0
        self.to_answer = 0
        self.latencies: list[float] = []
        self.refused = 0
        self.done: asyncio.Future[None]

    async def send(self, connections: list[_Connection], requests: int) -> None:
        self.to_send = self.to_answer = requests
        self.latencies, self.refused = [], 0
        self.done = asyncio.get_running_loop().create_future()
        for connection in connections:
            connection.send()
        await self.done


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self._got = b""
        self._sent = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are none by inheritance.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._run.done.done():
            self._run.done.set_exception(ConnectionError("the server closed a connection"))

    def send(self) -> None:
        if self._run.to_send:
            self._run.to_send -= 1
            self._sent = time.perf_counter()
            self._transport.write(self._run.request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head = self._got.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(self._got, 0, head)
        assert length is not None, self._got
        if len(self._got) < head + 4 + int(length[1]):
            return
        run = self._run
        run.latencies.append(time.perf_counter() - self._sent)
        run.refused += not self._got.startswith(run.good)
        self._got = b""
        run.to_answer -= 1
        if run.to_answer == 0:
            run.done.set_result(None)
        else:
            self.send()


async def _measure(plan: Plan) -> Load:
    loop = asyncio.get_running_loop()
    run = _Run(plan)
    run.done = loop.create_future()
    connections = []
    for _ in range(plan.connections):
        _, connection = await loop.create_connection(lambda: _Connection(run), "127.0.0.1", plan.port)
        connections.append(connection)
    await run.send(connections, max(plan.warmup, plan.connections))
    started, cpu = time.perf_counter(), time.process_time()
    await run.send(connections, plan.requests)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    lat = run.latencies
    return Load(plan.requests / seconds, percentile(lat, 50), percentile(lat, 99), run.refused, cpu / seconds)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        answer = runner.run(_measure(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan)))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
