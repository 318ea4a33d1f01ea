"""The floor under a bulk submit: its very rows, written to a database of the same schema with as few calls as can be.

Reads a JSON Plan on stdin and writes rows (tasks) a second to stdout.
"""

from __future__ import annotations

import sqlite3
import sys
import time
from pathlib import Path

import msgspec

from orchestr8d.clock import SystemClock
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import Task
from orchestr8d.store.sqlite import schema

_COLUMNS = ", ".join(Task.__struct_fields__)
_TASKS = f"INSERT INTO tasks ({_COLUMNS}) VALUES ({', '.join('?' * len(Task.__struct_fields__))})"
_EVENTS = "INSERT INTO events (id, type, at, task_id, workflow_id, user_id, data) VALUES (?, ?, ?, ?, ?, ?, ?)"


class Plan(msgspec.Struct):
    """`batches` transactions of `rows` tasks each, like the first ones in `queue` of the daemon's `database`."""

    database: str
    directory: str
    queue: str
    rows: int
    batches: int


def main(plan: Plan) -> float:
    path = Path(plan.directory) / "reference.db"
    db = schema.connect(path)
    schema.migrate(db)
    db.execute("PRAGMA synchronous = FULL")
    seq = db.execute("SELECT coalesce(max(seq), 0) FROM tasks").fetchone()[0]
    event = db.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()[0]
    tasks, events = _rows(plan)
    seconds = 0.0
    for _ in range(plan.batches):
        mine, theirs = _renumbered(tasks, events, seq, event)
        seq, event = seq + len(mine), event + len(theirs)
        started = time.perf_counter()
        db.execute("BEGIN IMMEDIATE")
        db.executemany(_TASKS, mine)
        db.executemany(_EVENTS, theirs)
        db.execute("COMMIT")
        seconds += time.perf_counter() - started
    db.close()
    return plan.rows * plan.batches / seconds


def _rows(plan: Plan) -> tuple[list[Task], list[tuple[object, ...]]]:
    source = sqlite3.connect(f"file:{plan.database}?mode=ro", uri=True)
    rows = source.execute(f"SELECT {_COLUMNS} FROM tasks WHERE queue = ? ORDER BY seq LIMIT ?", (plan.queue, plan.rows))
    tasks = [Task(*row) for row in rows]
    events: list[tuple[object, ...]] = []
    for task in tasks:
        events += source.execute("SELECT * FROM events WHERE task_id = ? ORDER BY id", (task.id,)).fetchall()
    source.close()
    assert len(tasks) == plan.rows
    return tasks, events


def _renumbered(
    tasks: list[Task], events: list[tuple[object, ...]], seq: int, event: int
) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    now = SystemClock().now()
    ids = {task.id: uuid7(now) for task in tasks}
    mine = [
        msgspec.structs.astuple(msgspec.structs.replace(task, seq=seq + i, id=ids[task.id]))
        for i, task in enumerate(tasks, 1)
    ]
    theirs = [(event + i, row[1], row[2], ids[str(row[3])], *row[4:]) for i, row in enumerate(events, 1)]
    return mine, theirs


if __name__ == "__main__":
    rate = main(msgspec.json.decode(sys.stdin.buffer.read(), type=Plan))
    sys.stdout.buffer.write(msgspec.json.encode(rate))
