"""`orchestr8d webhook` and `deliveries`, against a daemon that really sends."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator

import pytest
from standardwebhooks import Webhook as Verifier

from tests.cli.conftest import Box

pytestmark = pytest.mark.slow


class Sink(http.server.ThreadingHTTPServer):
    """A receiver in a thread; answers with `status`."""

    def __init__(self) -> None:
        self.status = 204
        self.got: list[tuple[dict[str, str], bytes]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/in"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def deliveries(box: Box, count: int, *filters: str) -> list[dict[str, object]]:
    """Once there are that many and none is on its way."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        found: list[dict[str, object]] = json.loads(box.out("deliveries", "list", "--json", *filters))["deliveries"]
        if len(found) >= count and all(d["attempts"] for d in found):
            return found
    raise AssertionError(found)


def test_a_webhook_from_end_to_end(box: Box, sink: Sink) -> None:
    made = json.loads(box.out("webhook", "add", sink.url, "--event", "task.completed", "--header", "X-A=b", "--json"))
    tail = made["webhook_id"][-8:]
    assert box.out("webhook", "list").splitlines()[1].split() == [tail, "active", "task.completed", "-", "0", sink.url]
    assert box.out("webhook", "test", tail) == "delivered: answered with 204"
    task_id = box.out("submit", "--", "true")
    box.out("wait", task_id)
    [sent] = deliveries(box, 1, "--task", task_id)
    headers, body = sink.got[-1]
    Verifier(made["secret"]).verify(body, headers)
    assert (headers["x-a"], headers["webhook-id"], json.loads(body)["task_id"]) == ("b", sent["delivery_id"], task_id)
    assert "answered with 204" in box.out("deliveries", "list", "--webhook", tail)
    assert box.out("deliveries", "redeliver", str(sent["delivery_id"])[-8:]) == "1 will be sent again"
    assert box.out("deliveries", "redeliver", "--task", task_id) == "1 will be sent again"
    secret = box.out("webhook", "rotate-secret", tail)
    assert secret.startswith("whsec_") and secret != made["secret"]
    assert "paused by a person" in box.out("webhook", "pause", sink.url)
    assert "active" in box.out("webhook", "resume", tail)
    sink.status = 500
    assert "dead: answered with 500" in box.run("webhook", "test", tail, code=1).stdout
    box.out("webhook", "remove", tail)
    box.run("webhook", "show", tail, code=4)


def test_callbacks_and_the_daemons_own_secret(box: Box, sink: Sink) -> None:
    path = box.state / "webhook-secret"
    assert path.stat().st_mode & 0o777 == 0o600
    task_id = box.out("submit", "-o", f"callback_url={sink.url}", "--", "false")
    box.run("wait", task_id, code=1)
    deliveries(box, 1, "--task", task_id)
    headers, body = sink.got[-1]
    Verifier(path.read_text().strip()).verify(body, headers)
    assert json.loads(body)["status"] == "failed"


def test_what_is_wrong(box: Box) -> None:
    assert "url: leads to 10.0.0.1" in box.run("webhook", "add", "http://10.0.0.1/", "--event", "*", code=1).stderr
    box.run("webhook", "add", "http://a/", "--event", "*", "--header", "nothing", code=2)
    box.run("deliveries", "redeliver", code=2)
    box.run("deliveries", "redeliver", "abcdef01", code=4)
