"""`orchestr8d.client`: both clients against the real daemon, over connections that break too."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator

import pytest

from orchestr8d.client import ApiError, AsyncClient, Client, ConnectionLost, Endpoint, NoDaemon, find
from tests.cli.conftest import Box
from tests.daemon import free_port


@pytest.fixture
def client(box: Box) -> Iterator[Client]:
    with box.client() as client:
        yield client


def test_a_task_from_submit_to_result(client: Client) -> None:
    task = client.submit(["cat"], stdin="hello", options={"tags": ["first"]})["task_id"]
    assert client.wait(task)["status"] == "completed"
    assert client.result(task)["result"] == "hello"
    assert b"".join(client.logs(task)) == b"hello"
    assert [t["id"] for t in client.tasks(tag=["first"])] == [task]
    assert [e["type"] for e in client.task_events(task)][-1] == "task.completed"
    assert client.task(task)["attempts"][0]["status"] == "completed"


def test_verbs_that_steer(client: Client) -> None:
    held = client.submit(["true"], options={"delay": "1h"})["task_id"]
    assert {"kind": "paused"} in client.pause(held)["waiting_for"]
    assert client.resume(held)["status"] == "pending"
    assert client.set_priority(held, "high")["priority"] == 10
    assert client.edit(held, {"options": {"title": "t", "tags": ["x"]}})["title"] == "t"
    assert client.cancel(held)["status"] == "cancelled"
    assert client.retry(held)["task_id"] != held
    assert client.set_queue("py", limit=3, rate=None)["limit"] == 3
    assert client.pause_queue("py")["paused"]
    assert not client.resume_queue("py")["paused"]
    assert "py" in [queue["name"] for queue in client.queues()]
    assert [e["state"] for e in client.executors()] == ["running"]
    made = client.create_token("py", "read")
    assert made["token_id"] in [token["token_id"] for token in client.tokens()]
    client.revoke_token(made["token_id"])
    assert client.health() == {"status": "ok"}


def test_an_error_has_its_kind_and_all_faults(client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        client.submit(["true"], options={"priority": "hi", "timout": 1})
    error = caught.value
    assert (error.status, error.type) == (400, "invalid")
    assert {fault["path"] for fault in error.errors} == {"options.priority", "options.timout"}
    with pytest.raises(ApiError, match="no task"):
        client.status("../queues")


def test_lists_go_over_their_pages(client: Client) -> None:
    made = client.submit_many([{"command": ["true"], "options": {"tags": ["many"], "delay": "1h"}}] * 1000)
    made += client.submit_many([{"command": ["true"], "options": {"tags": ["many"], "delay": "1h"}}])
    assert [t["id"] for t in client.tasks(tag=["many"])] == [t["task_id"] for t in reversed(made)]


def test_a_wait_ends_with_its_timeout(client: Client) -> None:
    task = client.submit(["true"], options={"delay": "1h"})["task_id"]
    with pytest.raises(TimeoutError, match="still pending"):
        client.wait(task, timeout=0.1)


def test_events_begin_where_they_are_asked_to(client: Client) -> None:
    task = client.submit(["true"])["task_id"]
    client.wait(task)
    seen = list(itertools.islice(client.events(task_id=task, after=0), 4))
    assert [e["type"] for e in seen] == ["task.created", "task.queued", "task.started", "task.completed"]
    rest = client.events(type=["task.*"], task_id=task, after=seen[1]["id"])
    assert next(rest) == seen[2]


def test_without_a_daemon() -> None:
    nowhere = Client(Endpoint(host="127.0.0.1", port=free_port()))
    with pytest.raises(NoDaemon, match="no daemon answers"):
        nowhere.executors()
    with pytest.raises(NoDaemon):
        next(nowhere.events())
    with pytest.raises(NoDaemon):
        nowhere.wait("x")


def test_a_daemon_is_found_by_the_environment(box: Box) -> None:
    assert find({"ORCHESTR8_URL": "https://h.example/o8/", "ORCHESTR8_TOKEN": "t"}) == Endpoint(
        None, "h.example", 443, True, "/o8", "t"
    )
    assert str(find({"ORCHESTR8_URL": "http://[::1]:1234"})) == "http://[::1]:1234"
    assert find(box.env).socket == f"{box.state}/orchestr8d.sock"
    down = box.env | {"ORCHESTR8D_STATE": f"{box.state}/none", "ORCHESTR8D_SERVER__LISTEN": "0.0.0.0:99"}
    assert find(down) == Endpoint(host="127.0.0.1", port=99)
    with pytest.raises(ValueError, match="expected http"):
        find({"ORCHESTR8_URL": "localhost:8787"})


class Cutter:
    """A proxy that cuts the connection when the daemon answers, `times` times: the work is done, the answer is lost."""

    def __init__(self, port: int, times: int) -> None:
        self._port = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.left = times
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                ours, _ = self._listening.accept()
                threading.Thread(target=self._carry, args=(ours,), daemon=True).start()

    def _carry(self, ours: socket.socket) -> None:
        theirs = socket.create_connection(("127.0.0.1", self._port))
        with ours, theirs:
            threading.Thread(target=self._copy, args=(ours, theirs), daemon=True).start()
            while answer := theirs.recv(65536):
                if self.left > 0:
                    self.left -= 1
                    ours.shutdown(socket.SHUT_RDWR)
                    return
                ours.sendall(answer)

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)

    def close(self) -> None:
        self._listening.close()


@pytest.fixture
def cutter(box: Box) -> Iterator[Cutter]:
    cutter = Cutter(box.port, 2)
    yield cutter
    cutter.close()


def test_a_lost_answer_never_submits_twice(box: Box, cutter: Cutter) -> None:
    with Client(box.endpoint._replace(port=cutter.port)) as client:
        task = client.submit(["true"], options={"tags": ["once"]})["task_id"]
        assert cutter.left == 0
        assert [t["id"] for t in client.tasks(tag=["once"])] == [task]


def test_what_is_not_repeatable_is_not_repeated(box: Box, cutter: Cutter) -> None:
    with box.client() as client:
        held = client.submit(["true"], options={"delay": "1h"})["task_id"]
    with Client(box.endpoint._replace(port=cutter.port)) as client, pytest.raises(ConnectionLost):
        client.pause(held)
    assert cutter.left == 1


async def test_the_async_client_has_the_same_verbs(box: Box) -> None:
    async with AsyncClient(box.endpoint) as client:
        task = (await client.submit(["cat"], stdin="hello", options={"tags": ["async"]}))["task_id"]
        assert (await client.wait(task))["status"] == "completed"
        assert (await client.result(task))["result"] == "hello"
        assert b"".join([chunk async for chunk in client.logs(task)]) == b"hello"
        assert [t["id"] async for t in client.tasks(tag=["async"])] == [task]
        events = client.events(task_id=task, after=0)
        assert [(await anext(events))["type"] for _ in range(2)] == ["task.created", "task.queued"]
        await events.aclose()
        assert "default" in [queue["name"] for queue in await client.queues()]
        with pytest.raises(ApiError):
            await client.status("nothing")


async def test_the_async_client_over_broken_connections(box: Box, cutter: Cutter) -> None:
    async with AsyncClient(box.endpoint._replace(port=cutter.port)) as client:
        task = (await client.submit(["true"], options={"tags": ["async-once"]}))["task_id"]
        assert [t["id"] async for t in client.tasks(tag=["async-once"])] == [task]
    async with AsyncClient(Endpoint(host="127.0.0.1", port=free_port())) as nowhere:
        with pytest.raises(NoDaemon):
            await nowhere.executors()


async def test_the_async_client_over_the_socket(box: Box) -> None:
    async with AsyncClient(Endpoint(socket=f"{box.state}/orchestr8d.sock")) as client:
        assert await client.health() == {"status": "ok"}
        assert await client.executors()


@pytest.mark.slow
def test_streams_go_on_over_a_restart(fresh: Box) -> None:
    fresh.start()
    with fresh.client() as client:
        task = client.submit(["sh", "-c", "for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done"])["task_id"]
        events = client.events(task_id=task, after=0)
        seen = [next(events)["type"] for _ in range(3)]
        logs = client.logs(task, follow=True, attempt=1)
        text = next(logs)
        fresh.kill()
        fresh.start()
        assert (text + b"".join(logs)).split() == [b"1", b"2", b"3", b"4", b"5", b"6"]
        while seen[-1] != "task.completed":
            seen.append(next(events)["type"])
        assert seen == ["task.created", "task.queued", "task.started", "task.completed"]
