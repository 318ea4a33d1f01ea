"""People who go on submitting, whatever happens to the daemon: each knows what was acknowledged to them."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.torture.journal import Journal

CONFIG = """\
[executor]
concurrency = 8
grace = "1s"
[queues.narrow]
limit = 2
"""
NARROW = 2
PRINTED = 2000
PRINTED_BYTES = sum(len(str(n)) + 1 for n in range(1, PRINTED + 1))


@dataclass
class Memory:
    """What the submitters know in the end."""

    # Label of each task that was ever sent, with what was asked for.
    sent: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Label and id of each that was acknowledged.
    acknowledged: dict[str, str] = field(default_factory=dict)
    # Ids whose cancellation was acknowledged.
    cancelled: set[str] = field(default_factory=set)
    # How often a request was sent again because its answer never came, and how often that was an answer's replay.
    resent: int = 0
    replayed: int = 0
    faults: list[str] = field(default_factory=list)


class Submitter(threading.Thread):
    """Sends tasks over the daemon's socket until `done` is set. One that was sent with an Idempotency-Key is sent until
    it is answered; another one's fate may stay unknown."""

    def __init__(self, number: int, state: Path, journal: Journal, seed: int, done: threading.Event) -> None:
        super().__init__(name=f"submitter-{number}")
        self.memory = Memory()
        self._number = number
        self._state = state
        self._journal = journal
        self._random = random.Random(f"{seed}-{number}")
        self._done = done
        self._count = itertools.count()
        self._connection: Connection | None = None

    def run(self) -> None:
        try:
            while not self._done.is_set():
                self._step()
                self._done.wait(self._random.expovariate(1 / 0.06))
        except Exception as error:
            self.memory.faults.append(f"{self.name}: {error!r}")
        finally:
            if self._connection is not None:
                self._connection.close()

    def _step(self) -> None:
        draw = self._random.random()
        if draw < 0.15 and self.memory.acknowledged:
            self._cancel(self._random.choice(list(self.memory.acknowledged.values())[-2:]))
        elif draw < 0.25:
            self._submit("/api/v1/tasks:batch", [self._task() for _ in range(self._random.randint(2, 6))])
        else:
            self._submit("/api/v1/tasks", [self._task()])

    def _task(self) -> dict[str, Any]:
        draw = self._random
        label = f"{self._number}-{next(self._count)}"
        options: dict[str, Any] = {"title": label, "priority": draw.randint(-20, 20)}
        key = draw.choice([None, None, None, f"key{draw.randrange(3)}"])
        what = draw.choices(
            [["true"], ["false"], ["sleep", f"{draw.uniform(0.01, 0.3):.3f}"], ["spawn"], ["print", str(PRINTED)]],
            [6, 2, 4, 1, 2],
        )[0]
        if what == ["false"]:
            options |= {"max_retries": 2, "retry_backoff": {"kind": "fixed", "base": 0.1, "jitter": True}}
        if key is not None:
            options["concurrency_key"] = key
        elif draw.random() < 0.15:
            key = f"unique{draw.randrange(2)}"
            options |= {"unique_key": key, "on_conflict": "replace"}
        if draw.random() < 0.1:
            options["check"] = ["sleep", "0.05"]
        if draw.random() < 0.2:
            options["queue"] = "narrow"
        if draw.random() < 0.2 and self.memory.acknowledged:
            options["depends_on"] = [draw.choice(list(self.memory.acknowledged.values())[-5:])]
            options["allow_failed"] = draw.random() < 0.7
        if draw.random() < 0.1:
            options["delay"] = round(draw.uniform(0.05, 0.5), 3)
        command = self._journal.command(label, *what, key=key)
        return {"command": command, "cwd": "/", "options": options}

    def _submit(self, path: str, tasks: list[dict[str, Any]]) -> None:
        batch = path.endswith("batch")
        body = json.dumps({"tasks": tasks} if batch else tasks[0]).encode()
        labels = [task["options"]["title"] for task in tasks]
        key = f"once-{labels[0]}" if self._random.random() < 0.7 else None
        self.memory.sent |= dict(zip(labels, tasks, strict=True))
        answer = self._send(path, body, key)
        if answer is None:
            return
        made = answer["tasks"] if batch else [answer]
        self.memory.acknowledged |= {label: one["task_id"] for label, one in zip(labels, made, strict=True)}
        if key is not None and self._random.random() < 0.1:
            again = self._send(path, body, key)
            if again is not None and again != answer:
                self.memory.faults.append(f"{key}: answered {again} after {answer}")

    def _send(self, path: str, body: bytes, key: str | None) -> Any:
        """The answer; None when it was refused, or is unknown."""
        headers = {} if key is None else {"Idempotency-Key": key}
        while True:
            got = self._request("POST", path, body, headers)
            if got is not None and got[0] in (200, 202):
                self.memory.replayed += got[0] == 200
                return got[1]
            if got is not None and got[0] != 503:
                self.memory.faults.append(f"{path}: {got}")
                return None
            if key is None or (self._done.is_set() and got is None):
                return None
            self.memory.resent += 1
            time.sleep(0.02)

    def _cancel(self, task_id: str) -> None:
        got = self._request("POST", f"/api/v1/tasks/{task_id}/cancel?wait=0", b"", {})
        if got is None or got[0] in (409, 503):
            return
        if got[0] == 200:
            self.memory.cancelled.add(task_id)
        else:
            self.memory.faults.append(f"cancel: {got}")

    def _request(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, Any] | None:
        """Status and JSON; None when the connection broke, or there was none to be had."""
        try:
            if self._connection is None:
                self._connection = Connection(self._state)
            sent = {"Authorization": f"Bearer {self._connection.token}", "Content-Type": "application/json", **headers}
            self._connection.request(method, path, body, sent)
            response = self._connection.getresponse()
            return response.status, json.loads(response.read())
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            # A body that was cut off is no answer.
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            time.sleep(0.02)
            return None


class Connection(http.client.HTTPConnection):
    """Over the state directory's socket: a port that nobody listens on may be given to the one who connects to it."""

    def __init__(self, state: Path) -> None:
        super().__init__("localhost", timeout=30)
        self.token = (state / "token").read_text().strip()
        self._path = str(state / "orchestr8d.sock")

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


class Load:
    """Several submitters at once, as a context; `memory` is what they know together, afterwards."""

    def __init__(self, state: Path, journal: Journal, seed: int, people: int = 4) -> None:
        self._done = threading.Event()
        self._submitters = [Submitter(i, state, journal, seed, self._done) for i in range(people)]
        self.memory = Memory()

    def __enter__(self) -> Load:
        for submitter in self._submitters:
            submitter.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> Memory:
        """The daemon has to be up: who waits for an answer still gets it."""
        if self._done.is_set():
            return self.memory
        self._done.set()
        for submitter in self._submitters:
            submitter.join(60)
            one = submitter.memory
            self.memory.sent |= one.sent
            self.memory.acknowledged |= one.acknowledged
            self.memory.cancelled |= one.cancelled
            self.memory.resent += one.resent
            self.memory.replayed += one.replayed
            self.memory.faults += one.faults
            if submitter.is_alive():
                self.memory.faults.append(f"{submitter.name} got no answer")
        return self.memory
