"""Webhooks through kill -9: a good, a slow and a dead receiver, and nothing that the good one misses."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier

from tests.daemon import Daemon, free_port

pytestmark = [pytest.mark.slow, pytest.mark.torture]
TASKS = int(os.environ.get("ORCHESTR8_TORTURE_WEBHOOKS", "1000"))
KILLS = 5
LADDER = '[webhooks]\nladder = ["1s", "1s", "2s", "2s", "5s"]\n[executor]\nconcurrency = 8\n'


class Receiver(ThreadingHTTPServer):
    """Keeps what it gets, in its order; takes `pause` seconds for each, and answers none while it is not `open`."""

    daemon_threads = True

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause
        self.open = threading.Event()
        self.open.set()
        self.got: list[tuple[dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/in"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.server.pause)
        self.server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.server.open.wait()
        # Whoever asked may be dead by now.
        with suppress(OSError):
            self.send_response(204)
            self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def good() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver
        receiver.shutdown()


@pytest.fixture
def slow() -> Iterator[Receiver]:
    with Receiver(pause=0.2) as receiver:
        yield receiver
        receiver.shutdown()


def subscribe(daemon: Daemon, url: str) -> str:
    """Its secret."""
    status, answer = daemon.request("POST", "/api/v1/webhooks", {"url": url, "events": ["task.completed"]})
    assert status == 201, answer
    return str(answer["secret"])


def submit(daemon: Daemon, count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        tasks = [{"command": ["/bin/true"], "cwd": "/"}] * min(500, count - len(found))
        status, answer = daemon.request("POST", "/api/v1/tasks:batch", {"tasks": tasks})
        assert status == 202, answer
        found += [task["task_id"] for task in answer["tasks"]]
    return found


def test_nothing_is_lost(make_daemon: Callable[..., Daemon], good: Receiver, slow: Receiver) -> None:
    daemon = make_daemon(LADDER).start()
    secret = subscribe(daemon, good.url)
    subscribe(daemon, slow.url)
    subscribe(daemon, f"http://127.0.0.1:{free_port()}/nobody")
    draw = random.Random(TASKS)
    tasks = submit(daemon, TASKS)
    for _ in range(KILLS):
        time.sleep(draw.uniform(0.1, 0.6))
        daemon.kill()
        daemon.start()
    end = time.monotonic() + 120
    while len({headers["webhook-id"] for headers, _ in good.got}) < TASKS:
        assert time.monotonic() < end, f"{len(good.got)} of {TASKS} came"
        time.sleep(0.05)
    by_id: dict[str, set[bytes]] = {}
    verifier = Verifier(secret)
    for headers, body in good.got:
        verifier.verify(body, headers)
        by_id.setdefault(headers["webhook-id"], set()).add(body)
    # One id, one body, however often it came; each task once.
    assert all(len(bodies) == 1 for bodies in by_id.values())
    told = [json.loads(next(iter(bodies)))["task_id"] for bodies in by_id.values()]
    assert sorted(told) == sorted(tasks)
    # First attempts go in the order of the log.
    assert told == in_log_order(daemon, "task.completed")


def test_killed_while_the_answer_is_awaited(make_daemon: Callable[..., Daemon], good: Receiver) -> None:
    """The receiver has read it all; nobody recorded that. It comes again as it was, and what waited behind it comes."""
    daemon = make_daemon(LADDER).start()
    secret = subscribe(daemon, good.url)
    good.open.clear()
    # A callback has an endpoint of its own.
    first = daemon.submit("/bin/true", cwd="/", options={"callback_url": good.url})
    until(lambda: len(good.got) == 2)
    second = daemon.submit("/bin/true", cwd="/")
    daemon.wait(second)
    daemon.kill()
    before = {headers["webhook-id"]: body for headers, body in good.got}
    assert len(before) == 2
    good.open.set()
    daemon.start()
    until(lambda: len(good.got) == 5)
    after = {headers["webhook-id"]: body for headers, body in good.got[2:]}
    assert len(after) == 3 and before.items() <= after.items()
    assert sorted(json.loads(body)["task_id"] for body in after.values()) == sorted([first, first, second])
    own = (daemon.state / "webhook-secret").read_text().strip()
    for headers, body in good.got:
        Verifier(secret if is_for_subscription(daemon, headers) else own).verify(body, headers)
    until(lambda: {d["status"] for d in deliveries(daemon)} == {"delivered"})
    # Once it is recorded it is over.
    daemon.kill()
    daemon.start()
    third = daemon.submit("/bin/true", cwd="/", options={"callback_url": good.url})
    until(lambda: len(good.got) >= 7)
    assert [json.loads(body)["task_id"] for _, body in good.got[5:]] == [third, third]
    assert {len(d["attempts"]) for d in deliveries(daemon) if d["task_id"] != third} == {1}


def deliveries(daemon: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.request("GET", "/api/v1/deliveries")[1]["deliveries"]
    return found


def is_for_subscription(daemon: Daemon, headers: dict[str, str]) -> bool:
    status, one = daemon.request("GET", f"/api/v1/deliveries/{headers['webhook-id']}")
    assert status == 200
    return one["webhook_id"] is not None


def until(fact: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < end
        time.sleep(0.01)


def in_log_order(daemon: Daemon, type_: str) -> list[str]:
    """The tasks of the log's events of that type."""
    with closing(sqlite3.connect(f"file:{daemon.state}/orchestr8d.db?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT task_id FROM events WHERE type = ? ORDER BY id", (type_,))
        return [task_id for (task_id,) in rows]
