"""What only the whole daemon can show: memory that stays flat, and who is at the other end of its socket."""

from __future__ import annotations

import re
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import Daemon

MB = 1 << 20
# One request over the Unix socket, with no token; prints the status.
ASK = """
import http.client, socket, sys
path, method, target, body = sys.argv[1:]
connection = http.client.HTTPConnection("localhost")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(path)
connection.request(method, target, body or None, {"Content-Type": "application/json"} if body else {})
print(connection.getresponse().status, end=" ", flush=True)
"""


def peak(daemon: Daemon) -> int:
    """The most memory that it ever had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{daemon.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


@pytest.mark.slow
@pytest.mark.parametrize("how", ["declared", "chunked", "expected"])
def test_a_huge_body_is_refused_and_never_held(make_daemon: Callable[..., Daemon], how: str) -> None:
    daemon = make_daemon().start()
    daemon.request("POST", "/api/v1/tasks", {"command": []})
    before = peak(daemon)
    head = (
        b"POST /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Authorization: Bearer %b\r\n" % daemon.token.encode()
    )
    head += {
        "declared": b"Content-Length: 104857600\r\n\r\n",
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n",
        "expected": b"Content-Length: 104857600\r\nExpect: 100-continue\r\n\r\n",
    }[how]
    block = b"x" * 65536
    piece = b"10000\r\n" + block + b"\r\n" if how == "chunked" else block
    with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
        connection.sendall(head)
        try:
            for _ in range(0 if how == "expected" else 1600):
                connection.sendall(piece)
        except ConnectionError:
            pass
        connection.settimeout(10)
        answer = b""
        try:
            while data := connection.recv(65536):
                answer += data
        except ConnectionResetError:
            pass
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()
    # In chunks it must be read up to the limit; a declared length is refused at once.
    assert peak(daemon) - before < (48 * MB if how == "chunked" else 4 * MB)
    assert daemon.request("GET", "/healthz")[0] == 200


@pytest.mark.slow
def test_a_hundred_megabytes_of_output_cost_no_memory(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon("[limits]\noutput_bytes = '200 MB'\n").start()
    task_id = daemon.submit("head", "-c", str(100 * MB), "/dev/zero")
    assert daemon.wait(task_id)["result_type"] == "file"
    _, result = daemon.request("GET", f"/api/v1/tasks/{task_id}/result")
    assert (result["result"], result["output_bytes"]) == (None, 100 * MB)
    before = peak(daemon)
    _, log = daemon.request("GET", result["result_url"])
    assert len(log) == 100 * MB
    assert peak(daemon) - before < 8 * MB


@pytest.mark.slow
@pytest.mark.parametrize("way", [[], ["setsid"], ["env", "-i"], ["setsid", "env", "-i"], ["sh", "-c", '("$0" "$@")']])
def test_a_process_of_a_task_has_that_tasks_rights(make_daemon: Callable[..., Daemon], way: list[str]) -> None:
    if way and not shutil.which(way[0]):
        pytest.skip(f"no {way[0]} here")
    daemon = make_daemon().start()
    path = str(daemon.state / "orchestr8d.sock")
    other = daemon.submit("true")
    script = "\n".join(
        [
            'ask() { "$@"; }',
            'task="/api/v1/tasks/$ORCHESTR8_TASK_ID"',
            *(
                'ask "$@" {} {} "{}" "{}"'.format(path, *call)
                for call in (
                    ("GET", "$task", ""),
                    ("GET", "$task/status", ""),
                    ("POST", "$task/progress", "{}"),
                    ("GET", f"/api/v1/tasks/{other}", ""),
                    ("GET", "/api/v1/tasks", ""),
                    ("POST", "$task/cancel", ""),
                    ("POST", "/api/v1/tasks", '{\\"command\\": [\\"a\\"]}'),
                )
            ),
        ]
    )
    task_id = daemon.submit("sh", "-c", script, "sh", *way, sys.executable, "-c", ASK)
    daemon.wait(task_id)
    _, result = daemon.request("GET", f"/api/v1/tasks/{task_id}/result")
    assert result["result"] == "200 200 200 403 403 403 202 ", result
