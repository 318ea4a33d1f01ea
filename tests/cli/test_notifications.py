"""`orchestr8d notify` and `notifications`, and the functions of the client, against a real daemon."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from orchestr8d.client import AsyncClient
from orchestr8d.core import signature
from tests.cli.conftest import Box

pytestmark = pytest.mark.slow


def test_notify_list_show_and_acknowledge(box: Box) -> None:
    first = box.out("notify", "one\x1b[2J", "--user", "cli")
    second = json.loads(box.out("notify", "two", "--user", "cli", "--type", "failure", "--title", "T", "--json"))
    lines = box.out("notifications", "--user", "cli").splitlines()
    assert lines[0].split() == ["ID", "USER", "TYPE", "PRIORITY", "TIME", "MESSAGE"]
    assert [line.split()[:5] for line in lines[1:]] == [
        [second["notification_id"][-8:], "unread", "cli", "task_failure", "high"],
        [first[-8:], "unread", "cli", "update", "normal"],
    ]
    assert lines[1].endswith("T: two") and "\x1b" not in lines[2]
    acked = box.out("notifications", "ack", second["notification_id"][-8:], first).splitlines()
    assert acked[0] == f"acknowledged {second['notification_id'][-8:]}  T: two" and len(acked) == 2
    third = box.out("notify", "three", "--user", "cli", "--priority", "critical")
    # What is unread stands first.
    order = json.loads(box.out("notifications", "--user", "cli", "--json"))["notifications"]
    assert [n["notification_id"] for n in order] == [third, second["notification_id"], first]
    assert [bool(n["acked_at"]) for n in order] == [False, True, True]
    assert third[-8:] in box.out("notifications", "--unread", "--user", "cli")
    assert json.loads(box.out("notifications", "ack", third[-8:], "--json"))["acked_at"]
    box.out("notify", "four", "--user", "cli")
    assert json.loads(box.out("notifications", "ack", "--all", "--user", "cli", "--json")) == {"count": 1}
    assert box.out("notifications", "ack", "--all", "--user", "cli") == "acknowledged 0"
    assert "no notifications" not in box.out("notifications", "--user", "cli")


def test_show_says_what_became_of_each_channel(box: Box) -> None:
    sent = box.out("notify", "hello")
    end = time.monotonic() + 20
    while "delivered" not in (said := box.out("notifications", "show", sent[-8:])).splitlines()[-1]:
        assert time.monotonic() < end, said
    assert said.splitlines()[-1].split() == ["log", "delivered", "1"]
    lines = [json.loads(line) for line in box.log.read_text().splitlines() if '"notification"' in line]
    assert [line["message"] for line in lines if line.get("notification_id") == sent] == ["hello"]


def test_what_is_wrong_is_said(box: Box) -> None:
    assert "among the last 1000" in box.run("notifications", "ack", "ffffff", code=4).stderr
    assert "is no id" in box.run("notifications", "ack", "x", code=2).stderr
    assert "--all" in box.run("notifications", "ack", code=2).stderr
    assert "Invalid value for '--type'" in box.run("notify", "x", "--type", "news", code=2).stderr


def test_the_functions_of_the_client(box: Box) -> None:
    code = (
        "from orchestr8d.client import get_notifications, send_notification\n"
        "a = send_notification('fn', 'milestone', 'done', 'w-1', {'a': 1})\n"
        "b = send_notification('fn', 'update', 'more')\n"
        "assert [n['notification_id'] for n in get_notifications('fn')] == [b, a]\n"
        "(one,) = get_notifications('fn', 'w-1')\n"
        "assert (one['notification_id'], one['metadata'], one['message']) == (a, {'a': 1}, 'done')\n"
    )
    subprocess.run([sys.executable, "-c", code], env=box.env, check=True, timeout=60)


def test_the_clients(box: Box) -> None:
    with box.client() as client:
        sent = client.send_notification("lib", "update", "m", title="T")["notification_id"]
        assert [n["title"] for n in client.get_notifications(user_id="lib", type=["update"])] == ["T"]
        assert client.notification(sent)["channels"][0]["channel"] == "log"
        assert client.ack_notification(sent)["acked_at"]
        assert client.get_notifications(user_id="lib", unread=True) == []

    async def again() -> int:
        async with AsyncClient(box.endpoint) as client:
            await client.send_notification("lib", "alert", "m")
            return int((await client.ack_notifications("lib"))["count"])

    assert asyncio.run(again()) == 1


def test_a_task_tells_its_user(box: Box) -> None:
    script = "from orchestr8d.client import send_notification as s; print(s('local', 'milestone', 'from inside'))"
    task_id = box.out("submit", "--", sys.executable, "-c", script)
    task = box.wait(task_id.split()[-1] if " " in task_id else task_id)
    assert task["status"] == "completed", task
    with box.client() as client:
        one = next(n for n in client.get_notifications(user_id="local") if n["message"] == "from inside")
    assert one["task_id"] == task["task_id"]


def test_a_reload_lets_go_what_quiet_hours_held(tmp_path: Path) -> None:
    box = Box(tmp_path / "state")
    hour = time.gmtime().tm_hour
    box.config.write_text(f'[users.local]\nquiet_hours = "{(hour - 1) % 24:02}:00-{(hour + 2) % 24:02}:00"\n')
    box.start()
    try:
        with box.client() as client:
            sent = client.send_notification("local", "update", "m")["notification_id"]
            assert client.notification(sent)["channels"][0]["status"] == "held"
            box.config.write_text("")
            os.kill(box.pid, signal.SIGHUP)
            end = time.monotonic() + 20
            while client.notification(sent)["channels"][0]["status"] != "delivered":
                assert time.monotonic() < end, box.tail()
                time.sleep(0.02)
    finally:
        box.stop()


def test_a_signed_post_and_a_killed_daemon(tmp_path: Path) -> None:
    got: list[tuple[dict[str, str], bytes]] = []
    refuse = threading.Event()

    class Sink(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(500 if refuse.is_set() else 204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    def until(count: int) -> None:
        end = time.monotonic() + 30
        while len(got) < count:
            assert time.monotonic() < end, box.tail()
            time.sleep(0.01)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    box = Box(tmp_path / "state")
    url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    box.config.write_text(f'webhooks.callback_ladder = ["1s"]\n[users.local]\nnotify = ["{url}"]\n')
    refuse.set()
    box.start()
    try:
        sent = box.out("notify", "hello")
        until(1)
        box.kill()
        refuse.clear()
        box.start()
        until(2)
    finally:
        box.stop()
        server.shutdown()
        server.server_close()
    (first, body), (second, again) = got[0], got[-1]
    assert body == again and json.loads(body)["data"]["notification_id"] == sent
    assert first["webhook-id"] == second["webhook-id"]
    secret = (box.state / "webhook-secret").read_text().strip()
    for headers, raw in got:
        at = int(headers["webhook-timestamp"])
        assert headers["webhook-signature"] == signature.sign([secret], headers["webhook-id"], at, raw)
