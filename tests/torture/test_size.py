"""What is large goes through without being held in memory."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.daemon import Daemon

pytestmark = [pytest.mark.slow, pytest.mark.torture]
MB = 1 << 20
# What the daemon may need more for something large, in bytes: far less than it is large.
ROOM = 30 * MB


def peak(daemon: Daemon) -> int:
    """The most memory that the daemon has had so far, in bytes."""
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


def warm(daemon: Daemon) -> int:
    """Its peak once it has done a bit of everything."""
    task = daemon.submit("echo", "hello")
    daemon.wait(task)
    daemon.request("GET", f"/api/v1/tasks/{task}/logs")
    return peak(daemon)


def test_output_of_100_mb(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon('[limits]\noutput_bytes = "200 MB"\n').start()
    before = warm(daemon)
    task = daemon.submit("sh", "-c", "head -c 104857600 /dev/zero | tr '\\0' 'x'")
    assert daemon.wait(task)["status"] == "completed"
    result = daemon.request("GET", f"/api/v1/tasks/{task}/result")[1]
    assert (result["output_bytes"], result["result_type"], result["result"]) == (100 * MB, "file", None)
    length = 0
    for part in download(daemon, f"/api/v1/tasks/{task}/logs"):
        assert part.count(b"x") == len(part)
        length += len(part)
    assert length == 100 * MB
    assert daemon.request("GET", f"/api/v1/tasks/{task}/logs?tail=1000")[0] == 200
    assert peak(daemon) - before < ROOM


def test_output_past_the_cap(make_daemon: Callable[..., Daemon]) -> None:
    """It ends within moments, and what is kept is the cap's worth."""
    daemon = make_daemon('[limits]\noutput_bytes = "10 MB"\n').start()
    before = warm(daemon)
    task = daemon.submit("yes")
    assert daemon.wait(task)["error"]["kind"] == "output_limit"
    assert sum(len(part) for part in download(daemon, f"/api/v1/tasks/{task}/logs")) == 10 * MB
    assert peak(daemon) - before < ROOM


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_body_of_100_mb(daemon: Daemon, chunked: bool) -> None:
    """Refused without being read; what is within the limit passes, be it one long argument."""
    before = warm(daemon)
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    headers = {"Authorization": f"Bearer {daemon.token}", "Content-Type": "application/json"}
    if not chunked:
        headers["Content-Length"] = str(100 * MB)
    refused = None
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.request("POST", "/api/v1/tasks", body(), headers, encode_chunked=chunked)
    # The answer was there before all was sent; the kernel may have thrown it away with the connection.
    with suppress(BrokenPipeError, ConnectionResetError):
        response = connection.getresponse()
        refused = (response.status, json.loads(response.read())["type"])
    connection.close()
    assert refused in (None, (413, "urn:orchestr8d:too-large"))
    assert peak(daemon) - before < ROOM
    task = daemon.submit("cat", stdin="x" * MB)
    daemon.wait(task)
    assert daemon.request("GET", f"/api/v1/tasks/{task}/result")[1]["output_bytes"] == MB


def body() -> Iterator[bytes]:
    yield b'{"command": ["true"], "stdin": "'
    for _ in range(100 * MB // 65536):
        yield b"x" * 65536
    yield b'"}'


def download(daemon: Daemon, path: str) -> Iterator[bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {daemon.token}"})
        response = connection.getresponse()
        assert response.status == 200
        while part := response.read(65536):
            yield part
    finally:
        connection.close()
