"""What is read: functions of a connection, used by the readers and inside transactions alike."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from orchestr8d.core import claims, durations, governor, sessions
from orchestr8d.core.errors import Problem
from orchestr8d.core.model import Attempt, Executor, Queue, Result, Session, Task, Token
from orchestr8d.core.states import WAITING
from orchestr8d.events import Event
from orchestr8d.store.sqlite.transaction import TASK_COLUMNS
from orchestr8d.store.types import EventFilter, Limits, TaskFilter

T = TypeVar("T")
ATTEMPT_COLUMNS = ", ".join(Attempt.__struct_fields__)
TOKEN_COLUMNS = ", ".join(Token.__struct_fields__)
_TASK = f"SELECT {TASK_COLUMNS} FROM tasks WHERE "
_TASK_T = "SELECT " + ", ".join(f"t.{name}" for name in Task.__struct_fields__)
# Named: left to itself, SQLite would rather walk through everything that waits.
WITH_DEADLINE = (
    "FROM tasks INDEXED BY tasks_deadline "
    "WHERE deadline_at IS NOT NULL AND status IN ('pending', 'queued', 'retrying', 'parked')"
)
BUSY_SQL = "status IN ('running', 'needs_input')"
# Values that most tasks share have no index (sql/0001): the others are found by a partial one, named literally.
_COMMON = {"queue": "default", "user_id": "local"}


def places(index: str, where: str) -> str:
    """The statement that finds the (queue, lane) pairs of an index whose columns go on with these two, by skipping
    along it: the number of pairs matters, not that of the tasks."""
    of = f"FROM tasks INDEXED BY {index} WHERE {where}"
    return f"""
WITH RECURSIVE q (queue) AS (
  SELECT min(queue) {of}
  UNION ALL
  SELECT (SELECT min(queue) {of} AND queue > q.queue) FROM q WHERE q.queue IS NOT NULL
), p (queue, lane) AS (
  SELECT q.queue, (SELECT min(lane) {of} AND queue = q.queue) FROM q WHERE q.queue IS NOT NULL
  UNION ALL
  SELECT p.queue, (SELECT min(lane) {of} AND queue = p.queue AND lane > p.lane) FROM p WHERE p.lane IS NOT NULL
)
SELECT queue, lane FROM p WHERE lane IS NOT NULL
"""


def snapshot(db: sqlite3.Connection, fn: Callable[..., T], *args: Any) -> T:
    """`fn(db, *args)` on one state of the database: what moves meanwhile is seen once, not twice and not never."""
    db.execute("BEGIN")
    try:
        return fn(db, *args)
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def tasks(db: sqlite3.Connection, where: str, *args: Any) -> list[Task]:
    return [Task(*row) for row in db.execute(_TASK + where, args)]


def find(db: sqlite3.Connection, task_id: str) -> Task | None:
    row = db.execute(_TASK + "id = ?", (task_id,)).fetchone()
    return None if row is None else Task(*row)


def task(db: sqlite3.Connection, task_id: str) -> Task:
    found = find(db, task_id)
    if found is None:
        raise Problem("not-found", f"there is no task {task_id}")
    return found


def statuses(db: sqlite3.Connection, ids: Sequence[str]) -> dict[str, str]:
    """Status by id of those that exist."""
    found: dict[str, str] = {}
    for task_id in ids:
        row = db.execute("SELECT status FROM tasks WHERE id = ?", (task_id,)).fetchone()
        if row is not None:
            found[task_id] = row[0]
    return found


def attempts(db: sqlite3.Connection, task_id: str) -> list[Attempt]:
    rows = db.execute(f"SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE task_id = ? ORDER BY number", (task_id,))
    return [Attempt(*row) for row in rows]


def session(db: sqlite3.Connection, attempt: Attempt) -> Session | None:
    """The conversation of an attempt."""
    if attempt.session_id is None:
        return None
    return sessions.of(attempt, [a for a in attempts(db, attempt.task_id) if a.number < attempt.number])


def queue_starts(db: sqlite3.Connection, queue: Queue, now: int) -> list[int]:
    """Starts within the period of the queue's rate, oldest first."""
    if queue.rate is None:
        return []
    _, period = durations.rate(queue.rate)
    rows = db.execute(
        # Starts in the future were made before the clock was set back while no daemon ran; nothing is known of them.
        "SELECT at FROM queue_starts WHERE queue = ? AND at > ? AND at <= ? ORDER BY at",
        (queue.name, now - round(period * 1000), now),
    )
    return [row[0] for row in rows]


def queues(db: sqlite3.Connection, now: int, names: Sequence[str] | None = None) -> list[Queue]:
    """All queues by name, or those of `names` that exist."""
    if names is None:
        return _queues(db, now, "TRUE")
    # As one JSON value: there may be more names than a statement may have parameters.
    return _queues(db, now, "name IN (SELECT value FROM json_each(?))", msgspec.json.encode(names).decode())


def rated_queues(db: sqlite3.Connection, now: int) -> list[Queue]:
    return _queues(db, now, "rate IS NOT NULL")


def _queues(db: sqlite3.Connection, now: int, where: str, *args: Any) -> list[Queue]:
    sql = f"SELECT name, max_running, rate, paused, depth FROM queues WHERE {where} ORDER BY name"
    rows = db.execute(sql, args).fetchall()
    if not rows:
        return []
    busy = f"SELECT queue, count(*) FROM tasks INDEXED BY tasks_busy WHERE {BUSY_SQL} GROUP BY queue"
    running = dict(db.execute(busy))
    found = []
    for name, limit, rate, paused, depth in rows:
        queue = Queue(name, limit, rate, bool(paused), depth, running.get(name, 0))
        if rate is not None:
            queue.open_at = claims.open_at(queue, queue_starts(db, queue, now))
        found.append(queue)
    return found


def valves(db: sqlite3.Connection) -> dict[str, governor.Valve]:
    """Those that are not open, by name."""
    columns = ", ".join(governor.Valve.__struct_fields__)
    return {row[0]: governor.Valve(*row) for row in db.execute(f"SELECT {columns} FROM valves")}


def by_account(db: sqlite3.Connection) -> dict[str, int]:
    """Attempts that run, by account."""
    sql = (
        "SELECT account, count(*) FROM attempts INDEXED BY attempts_account "
        "WHERE status = 'running' AND account IS NOT NULL GROUP BY account"
    )
    return dict(db.execute(sql).fetchall())


def capacity(db: sqlite3.Connection, limits: Limits, now: int) -> governor.Capacity:
    return governor.Capacity(limits.accounts, limits.agents, valves(db), by_account(db), now)


def match_words(q: str) -> str:
    """What a person types as a query of FTS5: every word must occur, the last may be a beginning."""
    clean = q.replace("\0", " ").encode(errors="replace").decode()
    words = ['"' + word.replace('"', '""') + '"' for word in clean.split()]
    return " ".join(words) + "*" if words else '""'


def page(
    db: sqlite3.Connection, wanted: TaskFilter, status: str | None, limit: int, before: int | None
) -> list[Task]:
    source, where, args = "tasks t", ["TRUE"], list[Any]()
    order = "t.seq"
    if wanted.q is not None:
        source = "task_text f CROSS JOIN tasks t ON t.seq = f.rowid"
        where.append("f.task_text MATCH ?")
        args.append(match_words(wanted.q))
        order = "f.rowid"
    elif wanted.tags:
        source = "task_tags g CROSS JOIN tasks t ON t.seq = g.seq"
        order = "g.seq"
        where.append("g.tag = ?")
        args.append(wanted.tags[0])
    for tag in wanted.tags if wanted.q is not None else wanted.tags[1:]:
        where.append("EXISTS (SELECT 1 FROM task_tags x WHERE x.tag = ? AND x.seq = t.seq)")
        args.append(tag)
    if before is not None:
        where.append(f"{order} < ?")
        args.append(before)
    if status is not None:
        where.append("t.status = ?")
        args.append(status)
    for column in ("agent", "workflow_id", "schedule_id", "queue", "user_id"):
        value = getattr(wanted, column)
        if value is None:
            continue
        where.append(f"t.{column} = ?")
        args.append(value)
        if column in _COMMON and value != _COMMON[column]:
            where.append(f"t.{column} <> '{_COMMON[column]}'")
    if wanted.tail is not None:
        # A walk over the index of ids alone: much less to read than the rows.
        where.append("t.seq IN (SELECT seq FROM tasks INDEXED BY sqlite_autoindex_tasks_1 WHERE substr(id, ?) = ?)")
        args += [-len(wanted.tail), wanted.tail]
    sql = f"{_TASK_T} FROM {source} WHERE {' AND '.join(where)} ORDER BY {order} DESC LIMIT ?"
    return [Task(*row) for row in db.execute(sql, (*args, limit))]


def result(db: sqlite3.Connection, task_id: str) -> Result:
    found = task(db, task_id)
    body = db.execute("SELECT body FROM results WHERE task_id = ?", (task_id,)).fetchone()
    last = db.execute(
        f"SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE task_id = ? ORDER BY number DESC LIMIT 1", (task_id,)
    ).fetchone()
    # No output has no row: most of what is quick says nothing.
    nothing = b"" if found.result_type == "text" else None
    return Result(found, nothing if body is None else body[0], None if last is None else Attempt(*last))


def events(db: sqlite3.Connection, wanted: EventFilter, after: int, limit: int) -> tuple[list[Event], int]:
    """In log order, at most `limit`, and the id up to which the log was read. One step reads a bounded stretch."""
    where, args = ["id > ?"], [after]
    conditions: list[Any] = []
    if wanted.types:
        exact = [t for t in wanted.types if not t.endswith("*")]
        starts = [t[:-1] for t in wanted.types if t.endswith("*")]
        parts = ["type = ?"] * len(exact) + ["substr(type, 1, ?) = ?"] * len(starts)
        where.append(f"({' OR '.join(parts)})")
        conditions += exact
        for start in starts:
            conditions += [len(start), start]
    for column in ("task_id", "workflow_id", "user_id"):
        value = getattr(wanted, column)
        if value is not None:
            where.append(f"{column} = ?")
            conditions.append(value)
    newest = event_bounds(db)[1]
    # A task's own events have an index; anything else reads a stretch of the log at a time.
    upto = newest if wanted.task_id is not None else min(newest, after + 20_000)
    sql = (
        "SELECT id, type, at, task_id, workflow_id, user_id, data FROM events "
        f"WHERE {' AND '.join(where)} AND id <= ? ORDER BY id LIMIT ?"
    )
    rows = db.execute(sql, (*args, *conditions, upto, limit)).fetchall()
    found = [_event(*row) for row in rows]
    return found, (found[-1].id if len(found) == limit else max(after, upto))


def _event(
    id_: int, type_: str, at: int, task_id: str | None, workflow_id: str | None, user_id: str | None, data: str
) -> Event:
    return Event(id_, type_, at, task_id, workflow_id, user_id, msgspec.Raw(data.encode()))


def event_bounds(db: sqlite3.Connection) -> tuple[int, int]:
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    newest = 0 if row is None else int(row[0])
    oldest = db.execute("SELECT min(id) FROM events").fetchone()[0]
    return (newest + 1 if oldest is None else int(oldest)), newest


def executors(db: sqlite3.Connection) -> list[Executor]:
    columns = ", ".join(Executor.__struct_fields__)
    found = []
    for row in db.execute(f"SELECT {columns} FROM executors ORDER BY started_at DESC, id DESC LIMIT 100"):
        by_name = dict(zip(Executor.__struct_fields__, row, strict=True))
        by_name["labels"] = msgspec.json.decode(by_name["labels"])
        found.append(Executor(**by_name))
    return found


def tokens(db: sqlite3.Connection) -> list[Token]:
    found = []
    for row in db.execute(f"SELECT {TOKEN_COLUMNS} FROM tokens ORDER BY created_at DESC, id DESC"):
        lists = [None if v is None else msgspec.json.decode(v, type=list[str]) for v in row[5:7]]
        found.append(Token(*row[:5], *lists, *row[7:]))
    return found


def counts(db: sqlite3.Connection) -> dict[str, int]:
    unfinished = [*sorted(WAITING), "running", "needs_input"]
    return {s: db.execute("SELECT count(*) FROM tasks WHERE status = ?", (s,)).fetchone()[0] for s in unfinished}
