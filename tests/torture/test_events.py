"""Many read the stream of events at once, some take nothing, and the daemon is killed under them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon

pytestmark = [pytest.mark.slow, pytest.mark.torture]
READERS, STALLED = 180, 20
MB = 1 << 20


class Reader:
    """Reads the log over as many connections as it takes, and keeps the ids that it saw."""

    def __init__(self, daemon: Daemon, position: int = 0) -> None:
        self._daemon = daemon
        self.ids: list[int] = []
        self.position = position
        self.connections = 0

    async def run(self, leave_after: int | None = None) -> None:
        """Until cancelled; with `leave_after` it hangs up by itself each time that it has read so many events."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async for _ in self._read(leave_after):
                    pass
            await asyncio.sleep(0.05)

    async def _read(self, leave_after: int | None) -> AsyncIterator[None]:
        reader, writer = await opened(self._daemon, self.position)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            self.connections += 1
            buffer, seen = b"", 0
            while True:
                size = int(await reader.readline() or b"0", 16)
                buffer += (await reader.readexactly(size + 2))[:-2]
                if not size:
                    return
                *blocks, buffer = buffer.split(b"\n\n")
                for block in blocks:
                    seen += self._take(block)
                yield
                if leave_after is not None and seen >= leave_after:
                    return
        finally:
            writer.close()

    def _take(self, block: bytes) -> int:
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
        if "data" not in fields:  # a sign of life; it may tell of a position that was read to
            return 0
        assert fields["event"] != "gap"
        assert json.loads(fields["data"])["id"] == int(fields["id"])
        self.position = int(fields["id"])
        self.ids.append(self.position)
        return 1


async def opened(
    daemon: Daemon, position: int | None, small: bool = False
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream from `position` on; None: from now on. `small`: the kernel holds little of it here."""
    connection = socket.socket()
    if small:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", daemon.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1024 if small else 1 << 20)
    where = f"Last-Event-ID: {position}\r\n" if position else ""
    path = "/api/v1/events" + ("?after=0" if position == 0 else "")
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {daemon.token}\r\n{where}\r\n".encode()
    )
    return reader, writer


async def stalled(daemon: Daemon) -> asyncio.StreamWriter:
    """A stream of which the head of the answer is taken, and then nothing."""
    reader, writer = await opened(daemon, 0, small=True)
    await reader.readuntil(b"\r\n\r\n")
    return writer


def connections(daemon: Daemon) -> int:
    """How many sockets the daemon has open. The other end does not tell: the kernel goes on with what it has."""
    count = 0
    for fd in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            count += fd.readlink().name.startswith("socket:")
    return count


def memory(daemon: Daemon, what: str) -> int:
    """`VmRSS`: what it has; `VmHWM`: the most that it had since `forget_peak`."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(what))


def forget_peak(daemon: Daemon) -> None:
    Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")


async def submit(daemon: Daemon, count: int) -> None:
    body: dict[str, Any] = {"tasks": [{"command": ["true"], "options": {"delay": "1d"}}] * count}
    status, answer = await asyncio.to_thread(daemon.request, "POST", "/api/v1/tasks:batch", body)
    assert status == 202, answer


async def newest(daemon: Daemon) -> int:
    """The id of the newest event: what a stream without a position begins with."""
    reader, writer = await opened(daemon, None)
    await reader.readuntil(b"\r\n\r\n")
    text = await reader.readuntil(b"\n\n")
    writer.close()
    return int(text.rpartition(b"id: ")[2])


async def caught_up(readers: list[Reader], last: int) -> None:
    async with asyncio.timeout(120):
        while any(reader.position < last for reader in readers):
            await asyncio.sleep(0.1)


def check(readers: list[Reader], first: int, last: int) -> None:
    """Each saw everything after `first`, once and in order."""
    everything = list(range(first + 1, last + 1))
    wrong = [n for n, reader in enumerate(readers) if reader.ids != everything]
    assert not wrong, f"readers {wrong[:5]} of {len(readers)} missed events, or saw some twice"


async def test_two_hundred_readers_over_kills(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    readers = [Reader(daemon) for _ in range(READERS)]
    running = [
        asyncio.create_task(reader.run(leave_after=700 if n % 3 == 0 else None)) for n, reader in enumerate(readers)
    ]
    try:
        for n in range(4):
            for _ in range(5):
                await submit(daemon, 100)
            async with asyncio.timeout(60):
                while any(reader.connections <= n for reader in readers):
                    await asyncio.sleep(0.02)
            daemon.kill()
            await asyncio.to_thread(daemon.start)
        await submit(daemon, 100)
        last = await newest(daemon)
        await caught_up(readers, last)
        check(readers, 0, last)
        assert min(reader.connections for reader in readers) >= 5
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_stalled_readers_are_closed_and_cost_no_memory(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon().start()
    # More events than the kernel holds for those who take nothing.
    for _ in range(24):
        await submit(daemon, 1000)
    first = await newest(daemon)
    one = Reader(daemon)
    readers = [Reader(daemon, first) for _ in range(READERS)]
    running = [asyncio.create_task(one.run())]
    try:
        await caught_up([one], first)
        running += [asyncio.create_task(reader.run()) for reader in readers]
        await submit(daemon, 500)
        await caught_up([one, *readers], await newest(daemon))
        # What waits for those who take nothing would be far more than this; and the second time it is no more.
        sizes: list[int] = []
        for _ in range(2):
            open_before, size_before = connections(daemon), memory(daemon, "VmRSS")
            forget_peak(daemon)
            writers = [await stalled(daemon) for _ in range(STALLED)]
            assert connections(daemon) >= open_before + STALLED
            for _ in range(10):
                await submit(daemon, 100)
            last = await newest(daemon)
            await caught_up([one, *readers], last)
            async with asyncio.timeout(90):
                while connections(daemon) > open_before:
                    await asyncio.sleep(0.2)
            for writer in writers:
                writer.close()
            peak = memory(daemon, "VmHWM") - size_before
            assert peak < STALLED * 5 * MB, f"{peak >> 20} MB for those who take nothing"
            sizes.append(memory(daemon, "VmRSS"))
        check([one], 0, last)
        check(readers, first, last)
        assert {reader.connections for reader in readers} == {1}
        assert sizes[1] - sizes[0] < 10 * MB, f"{sizes[1] - sizes[0] >> 20} MB more"
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
