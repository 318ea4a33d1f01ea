"""What must hold of a state directory whatever happened to its daemons, by its rows, its events, its journals."""

from __future__ import annotations

import json
import sqlite3
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from orchestr8d.core.states import FINAL, START, TRANSITIONS
from tests.daemon import Daemon
from tests.torture.journal import Journal, doubled, left_alive
from tests.torture.load import NARROW, PRINTED_BYTES, Memory

# Why tasks of the load may fail; nobody but the daemon ends them by a signal.
FAILURES = {"exit", "dependency_failed"}


class Records:
    """The rows of a database that no daemon has open, as dictionaries."""

    def __init__(self, database: Path) -> None:
        db = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        db.row_factory = sqlite3.Row
        try:
            self.integrity: str = db.execute("PRAGMA integrity_check").fetchone()[0]
            self.tasks = {row["id"]: dict(row) for row in db.execute("SELECT * FROM tasks ORDER BY seq")}
            self.attempts = [dict(row) for row in db.execute("SELECT * FROM attempts ORDER BY task_id, number")]
            self.events = [
                dict(row) | {"data": json.loads(row["data"])}
                for row in db.execute("SELECT * FROM events WHERE type LIKE 'task.%' ORDER BY id")
            ]
            self.depths = dict(db.execute("SELECT name, depth FROM queues").fetchall())
        finally:
            db.close()
        self.attempts_of: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for attempt in self.attempts:
            self.attempts_of[attempt["task_id"]].append(attempt)

    def title(self, task_id: str) -> str:
        title = json.loads(self.tasks[task_id]["spec"])["title"]
        assert isinstance(title, str)
        return title


def wait_all_final(daemon: Daemon, timeout: float = 120) -> None:
    """Until nothing waits and nothing runs."""
    end = time.monotonic() + timeout
    while True:
        status, answer = daemon.request("GET", "/api/v1/tasks?status=pending,queued,running,retrying,parked&limit=1000")
        assert status == 200, answer
        if not answer["tasks"]:
            return
        first = answer["tasks"][-1]
        left = f"{len(answer['tasks'])} tasks are not final, such as {first}"
        assert time.monotonic() < end, left + daemon.tail()
        daemon.request("GET", f"/api/v1/tasks/{first['id']}/status?until=final&wait=1")


def faults(state: Path, memory: Memory, journal: Journal, *, interruptions: bool) -> list[str]:
    """Everything that is wrong, once all tasks are final and the daemon has stopped. With `interruptions` attempts may
    have been broken off after their command had begun."""
    records = Records(state / "orchestr8d.db")
    found = list(memory.faults)
    if records.integrity != "ok":
        found.append(f"database: {records.integrity}")
    found += [f"queue {name}: depth {depth}" for name, depth in records.depths.items() if depth]
    found += _tasks(records, memory)
    found += _attempts(records)
    found += _transitions(records)
    found += _held_back(records)
    found += _journals(records, journal, interruptions)
    found += journal.overlaps()
    found += [
        f"process {pid} is left: {command}" for pid, command in left_alive(a["id"] for a in records.attempts).items()
    ]
    return found


def _tasks(records: Records, memory: Memory) -> list[str]:
    """None lost, none doubled, each final; one that was to be cancelled is, unless it was done before."""
    found = []
    titles = [records.title(task_id) for task_id in records.tasks]
    found += [f"task {title} exists twice" for title in doubled(titles)]
    found += [f"task {title} was never sent" for title in set(titles) - set(memory.sent)]
    for label, task_id in memory.acknowledged.items():
        if task_id not in records.tasks:
            found.append(f"task {label} was acknowledged as {task_id} and is lost")
        elif records.title(task_id) != label:
            found.append(f"task {label} was acknowledged as {task_id}, which is {records.title(task_id)}")
    for task_id, task in records.tasks.items():
        if task["status"] not in FINAL:
            found.append(f"task {task_id} is {task['status']}")
        if task["status"] == "failed" and (error := json.loads(task["error"]))["kind"] not in FAILURES:
            found.append(f"task {task_id} failed for a reason that none has: {error}")
        if task_id in memory.cancelled and task["status"] not in ("cancelled", "completed"):
            found.append(f"task {task_id} was cancelled and is {task['status']}")
    return found


def _attempts(records: Records) -> list[str]:
    """Numbered without a gap, all ended; only failures spend retries."""
    found = []
    for task_id, task in records.tasks.items():
        attempts = records.attempts_of[task_id]
        if [a["number"] for a in attempts] != list(range(1, task["attempt"] + 1)):
            found.append(f"task {task_id} has {task['attempt']} attempts, recorded are {attempts}")
        found += [f"attempt {a['id']} is {a['status']}" for a in attempts if a["ended_at"] is None]
        failures = sum(a["status"] == "failed" for a in attempts)
        last = bool(attempts) and task["status"] == "failed" and attempts[-1]["status"] == "failed"
        if failures != task["retry_count"] + last:
            found.append(f"task {task_id}: {failures} failures, retry_count {task['retry_count']}, {task['status']}")
        most = json.loads(task["spec"]).get("max_retries", 0)
        if last and json.loads(task["error"])["kind"] == "exit" and failures != most + 1:
            found.append(f"task {task_id} failed after {failures} failures with max_retries {most}")
    return found


def _transitions(records: Records) -> list[str]:
    """By the log: each task goes legal ways only, to exactly one final state; each attempt starts and ends once."""
    found = []
    status: dict[str, str] = {}
    started: list[str] = []
    ended: list[str] = []
    for event in records.events:
        task_id, new = event["task_id"], event["data"]["status"]
        old = status.get(task_id)
        if event["type"] == "task.created":
            if old is not None or new not in START:
                found.append(f"task {task_id} was created {new} after {old}")
        elif old is None or not (new in TRANSITIONS[old] or old == new == "queued"):
            found.append(f"task {task_id}: {old} -> {new}")
        if event["type"] == "task.started":
            started.append(event["data"]["attempt_id"])
        elif event["data"].get("attempt_id"):
            ended.append(event["data"]["attempt_id"])
        status[task_id] = new
    for task_id, task in records.tasks.items():
        if status.get(task_id) != task["status"]:
            found.append(f"task {task_id} is {task['status']}, the log says {status.get(task_id)}")
    ids = sorted(a["id"] for a in records.attempts)
    found += [f"attempts that started by the log: {len(started)}, recorded: {len(ids)}"] * (sorted(started) != ids)
    found += [f"attempts that ended by the log: {len(ended)}, recorded: {len(ids)}"] * (sorted(ended) != ids)
    return found


def _held_back(records: Records) -> list[str]:
    """By the log: keys and queues never had more running than they may, dependents waited."""
    found = []
    running: set[str] = set()
    final: set[str] = set()
    for event in records.events:
        task = records.tasks.get(event["task_id"])
        if task is None:
            found.append(f"task {event['task_id']} has events and is not recorded")
            continue
        status = event["data"]["status"]
        if status == "running":
            running.add(task["id"])
            now = [records.tasks[task_id] for task_id in running]
            same_key = [t["id"] for t in now if t["concurrency_key"] == task["concurrency_key"] is not None]
            if len(same_key) > 1:
                found.append(f"tasks of one key run at once: {same_key}")
            same_unique = [t["id"] for t in now if t["unique_key"] == task["unique_key"] is not None]
            if len(same_unique) > 1:
                found.append(f"tasks of one unique_key run at once: {same_unique}")
            if task["queue"] == "narrow" and sum(t["queue"] == "narrow" for t in now) > NARROW:
                found.append("more tasks run than their queue's limit")
            before = json.loads(task["spec"]).get("depends_on", [])
            if not final.issuperset(before):
                found.append(f"task {task['id']} ran before the end of {set(before) - final}")
        else:
            running.discard(task["id"])
        if status in FINAL:
            final.add(task["id"])
    return found


def _journals(records: Records, journal: Journal, interruptions: bool) -> list[str]:
    """Each run is a recorded attempt, run once; what ended by itself has run from the start to the end."""
    found = []
    by_title = {records.title(task_id): task_id for task_id in records.tasks}
    for label in journal.labels():
        if label not in by_title:
            found.append(f"task {label} ran and is not recorded")
    for label, task_id in by_title.items():
        starts, ends = journal.starts(label), journal.ends(label)
        found += [f"attempt {a} of task {label} ran twice" for a in doubled(starts)]
        attempts = {a["id"]: a for a in records.attempts_of[task_id]}
        found += [f"task {label} ran as {a}, which is not recorded" for a in set(starts) - set(attempts)]
        for attempt_id, attempt in attempts.items():
            by_itself = attempt["exit_code"] is not None and attempt["status"] in ("completed", "failed")
            if by_itself and (starts.count(attempt_id), ends.count(attempt_id)) != (1, 1):
                found.append(f"attempt {attempt_id} of task {label} is {attempt['status']} but did not run to its end")
            if attempt["status"] == "interrupted" and attempt_id in starts and not interruptions:
                found.append(f"attempt {attempt_id} of task {label} ran and is called interrupted")
            prints = "print" in json.loads(records.tasks[task_id]["spec"])["command"]
            if attempt["status"] == "completed" and prints and attempt["output_bytes"] != PRINTED_BYTES:
                found.append(f"attempt {attempt_id} has {attempt['output_bytes']} bytes of output")
    return found
