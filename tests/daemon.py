"""The real daemon as a process of its own, and a small blocking HTTP client to talk to it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FINAL = {"completed", "failed", "cancelled", "skipped"}


class Daemon:
    """Starts, kills, stops and starts again on one state directory, with one port."""

    def __init__(
        self, state: Path, config: str = "", env: Mapping[str, str] | None = None, wrap: Sequence[str] = (),
        module: str = "orchestr8d",
    ) -> None:  # fmt: skip
        self.state = state
        self.port = free_port()
        self.env = {
            k: v for k, v in os.environ.items() if not k.startswith(("ORCHESTR8", "NOTIFY_", "WATCHDOG_", "XDG_"))
        }
        self.env |= {
            "ORCHESTR8D_STATE": str(state),
            "ORCHESTR8D_SERVER__LISTEN": f"127.0.0.1:{self.port}",
            **(env or {}),
        }
        self.config = state.parent / f"{state.name}.toml"
        self.config.write_text(config)
        self.log = state.parent / f"{state.name}.log"
        self.wrap = list(wrap)
        self.module = module
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, timeout: float = 30) -> Daemon:
        """Returns when it says that it is ready; AssertionError with its log when it ends instead."""
        ready, write = os.pipe()
        argv = [*self.wrap, sys.executable, "-m", self.module, "serve", "--config", str(self.config),
                "--ready-fd", str(write), "--log-format", "json"]  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv, env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[write]
            )
        os.close(write)
        try:
            os.set_blocking(ready, False)
            end = time.monotonic() + timeout
            while True:
                try:
                    got = os.read(ready, 16)
                except BlockingIOError:
                    assert time.monotonic() < end, "not ready in time: " + self.tail()
                    time.sleep(0.005)
                    continue
                assert got, f"ended with {self.process.wait()}: " + self.tail()
                return self
        finally:
            os.close(ready)

    def tail(self) -> str:
        return self.log.read_text()[-3000:]

    def kill(self) -> None:
        """kill -9, as nobody can prepare for."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self, timeout: float = 20) -> int:
        """SIGTERM; answers the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout: float = 60
    ) -> tuple[int, Any]:
        """(status, JSON or text) of one request with the first token."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            sent = {"Authorization": f"Bearer {self.token}", **(headers or {})}
            data = None
            if body is not None:
                sent.setdefault("Content-Type", "application/json")
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(method, path, data, sent)
            response = connection.getresponse()
            text = response.read()
            is_json = "json" in (response.getheader("Content-Type") or "")
            return response.status, json.loads(text) if is_json and text else text.decode(errors="replace")
        finally:
            connection.close()

    @property
    def token(self) -> str:
        return (self.state / "token").read_text().strip()

    def submit(self, *command: str, **more: Any) -> str:
        """The id of a task that was accepted; `more` are fields beside the command."""
        status, answer = self.request("POST", "/api/v1/tasks", {"command": list(command), **more})
        assert status == 202, (status, answer)
        return str(answer["task_id"])

    def task(self, task_id: str) -> dict[str, Any]:
        status, answer = self.request("GET", f"/api/v1/tasks/{task_id}")
        assert status == 200, (status, answer)
        return answer  # type: ignore[no-any-return]

    def wait(self, task_id: str, timeout: float = 60) -> dict[str, Any]:
        """The task once it is final."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            self.request("GET", f"/api/v1/tasks/{task_id}/status?until=final&wait=20")
            task = self.task(task_id)
            if task["status"] in FINAL:
                return task
        raise AssertionError(f"task {task_id} is still {task['status']}")

    def wait_until(self, task_id: str, status: str, timeout: float = 30) -> dict[str, Any]:
        end = time.monotonic() + timeout
        while (task := self.task(task_id))["status"] != status:
            assert time.monotonic() < end, f"task {task_id} is {task['status']}, not {status}"
            time.sleep(0.01)
        return task


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port
