"""The event stream: order, filters, resuming, gaps; and a task's events in pages."""

import asyncio
import contextlib
import json
import socket
import time

import pytest

from orchestr8d.client import requests
from orchestr8d.client.streams import Events
from orchestr8d.status_api import events as module
from orchestr8d.store.types import Retention


class Reader:
    """One open stream."""

    def __init__(self, response):
        self.response = response
        self._buffer = b""
        self.position: int | None = None

    async def next(self) -> dict[str, str]:
        """The fields of the next event; comments and mere positions are passed over."""
        async with asyncio.timeout(5):
            while True:
                while b"\n\n" not in self._buffer:
                    data = await self.response.content.readany()
                    if not data:
                        raise EOFError
                    self._buffer += data
                block, _, self._buffer = self._buffer.partition(b"\n\n")
                fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
                if "data" in fields:
                    return fields
                self.position = int(fields["id"])

    async def take(self, n: int) -> list[dict]:
        return [json.loads((await self.next())["data"]) for _ in range(n)]


@pytest.fixture
async def listen(api):
    opened = []

    async def start(query="", **headers):
        response = await api.http.get(api.url + "/api/v1/events" + query, headers={**api.auth, **headers})
        opened.append(response)
        assert response.status == 200, await response.read()
        assert response.headers["Content-Type"] == "text/event-stream"
        return Reader(response)

    yield start
    for response in opened:
        response.close()


async def test_from_now_on_and_from_the_oldest(api, listen):
    first = await api.submit()
    now = await listen()
    second = await api.submit()
    assert [(e["type"], e["task_id"]) for e in await now.take(2)] == [("task.created", second), ("task.queued", second)]
    everything = await listen("?after=0")
    found = await everything.take(5)
    assert [e["type"] for e in found] == ["executor.started", *["task.created", "task.queued"] * 2]
    assert found[1].keys() == {"id", "type", "timestamp", "task_id", "workflow_id", "user_id", "data"}
    assert found[1]["task_id"] == first
    assert [e["id"] for e in found] == sorted({e["id"] for e in found})
    [claim] = await api.pool.claim()
    attempt_id = claim.attempt.id
    [started] = await everything.take(1)
    assert (started["type"], started["data"]["attempt_id"]) == ("task.started", attempt_id)


async def test_resuming_misses_nothing_and_doubles_nothing(api, listen):
    seen = []
    position = None
    for round_ in range(5):
        reader = await listen("?after=0" if round_ == 0 else "", **({"Last-Event-ID": position} if position else {}))
        await asyncio.gather(*[api.submit() for _ in range(10)])
        for _ in range(13):
            event = await reader.next()
            position = event["id"]
            seen.append(int(position))
        reader.response.close()
    newest = (await api.services.store.event_bounds())[1]
    reader = await listen(f"?after={position}")
    seen += [e["id"] for e in await reader.take(newest - int(position))]
    assert seen == list(range(1, newest + 1))


async def test_filters(api, listen):
    mine = await listen("?type=task.queued,executor.*&user_id=ann")
    await api.submit()
    task_id = await api.submit(user_id="ann")
    [event] = await mine.take(1)
    assert (event["type"], event["task_id"], event["user_id"]) == ("task.queued", task_id, "ann")
    of_task = await listen(f"?after=0&task_id={task_id}&type=task.*")
    assert [e["type"] for e in await of_task.take(2)] == ["task.created", "task.queued"]
    many = ",".join(f"task.{i}" for i in range(101))
    for query in ("?type=task.nope", "?type=tusk.*", "?type=", f"?type={many}", "?foo=1", "?after=-1", "?after=x"):
        assert (await api.call("GET", f"/api/v1/events{query}"))[0] == 400, query
    assert (await api.call("GET", "/api/v1/events", headers={"Last-Event-ID": "x"}))[0] == 400
    await listen("?type=" + ",".join(["*"] * 500))
    # Families of capabilities that are still to come are known already.
    await listen("?type=workflow.*,webhook.dead,notification.created,alert.*,schedule.fired")


@pytest.mark.parametrize("what", ["task", "type"])
async def test_what_is_filtered_out_costs_little(api, listen, monkeypatch, what):
    """Many streams that wait for a few events leave the readers to others, however many commits there are."""
    task_id = await api.submit()
    reader = await listen(f"?task_id={task_id}" if what == "task" else "?type=task.cancelled")
    looks, read = [], api.services.store.events

    async def counted(*args):
        looks.append(args)
        return await read(*args)

    monkeypatch.setattr(module, "REST", 0.2)
    monkeypatch.setattr(api.services.store, "events", counted)
    began = time.monotonic()
    for _ in range(100):
        await api.submit()
    await api.call("POST", f"/api/v1/tasks/{task_id}/cancel")
    assert [e["type"] for e in await reader.take(1)] == ["task.cancelled"]
    assert len(looks) < 6 + 2 * (time.monotonic() - began) / module.REST


async def test_a_pruned_position_begins_with_a_gap(api, listen):
    for _ in range(3):
        await api.submit()
    [claim] = await api.pool.claim()
    await api.complete(claim.task.id, claim.attempt.id)
    while await api.services.store.prune_log(Retention(events=0.0)):
        pass
    oldest, newest = await api.services.store.event_bounds()
    assert oldest > 2
    await api.submit()
    reader = await listen("?after=1")
    gap = await reader.next()
    assert (gap["event"], json.loads(gap["data"])) == ("gap", {"oldest": oldest})
    assert int((await reader.next())["id"]) >= oldest
    reader = await listen("?after=0")
    assert int((await reader.next())["id"]) >= oldest
    reader = await listen(f"?after={newest + 1000}")
    assert (await reader.next())["event"] == "gap"


async def test_draining_ends_streams(api, listen):
    reader = await listen()
    api.services.waits.end()
    with pytest.raises(EOFError):
        await reader.next()


@pytest.mark.slow
async def test_comments_keep_it_alive(api, listen, monkeypatch):
    monkeypatch.setattr(module, "KEEP_ALIVE", 0.05)
    reader = await listen("?type=task.completed")
    async with asyncio.timeout(5):
        for _ in range(3):
            assert (await reader.response.content.readuntil(b"\n\n")).startswith(b":")
        await api.submit()
        # What is filtered out keeps nothing alive, but moves the position.
        newest = (await api.services.store.event_bounds())[1]
        while await reader.response.content.readuntil(b"\n\n") != b": alive\nid: %d\n\n" % newest:
            pass


async def test_a_stream_that_saw_nothing_goes_on_where_it_was(api, listen):
    reader = await listen("?type=task.completed")
    source = Events(requests.events(), 0.0, api.services.clock)
    for event in source.feed(await reader.response.content.readuntil(b"\n\n")):
        raise AssertionError(event)
    assert source.position == (await api.services.store.event_bounds())[1]
    reader.response.close()
    task_id = await api.submit()
    headers = dict(source.request().headers)
    again = await listen("", **{"Last-Event-ID": headers["Last-Event-ID"]})
    assert [(e["type"], e["task_id"]) for e in await again.take(2)] == [
        ("task.created", task_id), ("task.queued", task_id),
    ]  # fmt: skip


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.slow
async def test_a_revoked_token_ends_its_stream(api, listen, monkeypatch, busy):
    monkeypatch.setattr(module, "KEEP_ALIVE", 0.1)
    _, made = await api.call("POST", "/api/v1/tokens", {"name": "x", "scope": "read"})
    reader = await listen("", Authorization=f"Bearer {made['token']}")
    await api.call("DELETE", f"/api/v1/tokens/{made['token_id']}")
    with pytest.raises(EOFError):
        async with asyncio.timeout(5):
            while True:
                if busy:
                    await api.submit()
                await reader.next()


@pytest.mark.slow
async def test_a_reader_that_takes_nothing_is_let_go_of(api, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    reading = socket.socket()
    reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reading.connect(("127.0.0.1", api.port))
    reader, writer = await asyncio.open_connection(sock=reading, limit=1024)
    writer.write(
        b"GET /api/v1/events?after=0 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n\r\n"
        % api.token.encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    for _ in range(12):  # several megabytes of events: more than what the kernel holds for it
        status, _ = await api.call("POST", "/api/v1/tasks:batch", {"tasks": [{"command": ["true"]}] * 1000})
        assert status == 202
    await asyncio.sleep(1)
    received = 0
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(10):
            while data := await reader.read(65536):
                received += len(data)
    assert received < 5 << 20
    writer.close()


async def test_a_tasks_events_in_pages(api):
    task_id, attempt_id = await api.run()
    await api.complete(task_id, attempt_id)
    seen, cursor = [], ""
    while cursor is not None:
        status, page = await api.call("GET", f"/api/v1/tasks/{task_id}/events?limit=2{cursor}")
        assert status == 200
        seen += page["events"]
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    assert [e["type"] for e in seen] == ["task.created", "task.queued", "task.started", "task.completed"]
    _, page = await api.call("GET", f"/api/v1/tasks/{task_id}/events?limit=2")
    while await api.services.store.prune_log(Retention(events=0.0)):
        pass
    await api.submit()
    status, _ = await api.call("GET", f"/api/v1/tasks/{task_id}/events?cursor={page['next_cursor']}")
    assert status == 410
