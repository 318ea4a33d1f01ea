"""Completions that are told to a good endpoint: with a slow and a dead one beside it, against the good one alone."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.bench.lines import Line, in_turns, median
from tests.bench.setting import Setting, call
from tests.daemon import Daemon, free_port

# Seconds that the slow one takes for each.
SLOW = 0.2
BAR = 1.5
QUEUE = "/api/v1/queues/default"


class Receiver:
    """An endpoint on a loop and a thread of its own; counts what it has answered."""

    def __init__(self, pause: float = 0.0) -> None:
        self.count = 0
        self._pause = pause
        self._loop = asyncio.new_event_loop()
        server = self._loop.run_until_complete(asyncio.start_server(self._take, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/in"
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        await asyncio.sleep(self._pause)
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        self.count += 1
        writer.close()


@contextmanager
def receiver(pause: float = 0.0) -> Iterator[Receiver]:
    made = Receiver(pause)
    try:
        yield made
    finally:
        made.close()


def _subscribe(daemon: Daemon, url: str) -> str:
    made = call(daemon, "POST", "/api/v1/webhooks", {"url": url, "events": ["task.completed"]})
    return f"/api/v1/webhooks/{made['webhook_id']}/resume"


def _telling(daemon: Daemon, good: Receiver, count: int, others: list[str]) -> Callable[[], float]:
    """Seconds from the first of `count` starts until the good one was told of all their ends."""
    tasks = [{"command": ["/bin/true"], "cwd": "/"}] * count

    def tell() -> float:
        # One that failed 20 times is left alone: each round begins with endpoints that are believed to be well.
        for resume in others:
            call(daemon, "POST", resume)
        call(daemon, "POST", f"{QUEUE}/pause")
        call(daemon, "POST", "/api/v1/tasks:batch", {"tasks": tasks})
        end = good.count + count
        started = time.perf_counter()
        call(daemon, "POST", f"{QUEUE}/resume")
        while good.count < end:
            time.sleep(0.002)
        return time.perf_counter() - started

    return tell


def webhooks(setting: Setting) -> list[Line]:
    count = setting.size.runs
    with (
        receiver() as one, receiver() as other, receiver(SLOW) as slow,
        setting.daemon() as alone, setting.daemon() as beside,
    ):  # fmt: skip
        _subscribe(alone, one.url)
        _subscribe(beside, other.url)
        others = [_subscribe(beside, slow.url), _subscribe(beside, f"http://127.0.0.1:{free_port()}/nobody")]
        sides = _telling(alone, one, count, []), _telling(beside, other, count, others)
        for side in sides:
            # What is needed only once is made now.
            side()
        reference, ours = (median(seconds) for seconds in in_turns(setting.size.rounds, *sides))
    what = f"{count} completions told to one endpoint, beside bad ones"
    return [Line(what, ours, "s", reference, "the good one alone", BAR, "at most", f"{count / ours:,.0f} a second")]
