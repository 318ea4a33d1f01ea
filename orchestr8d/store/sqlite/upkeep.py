"""Everything around the queue: executors, tokens, the full-text index, clock steps, retention."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from orchestr8d.clock import Clock, StepWatch
from orchestr8d.core import durations
from orchestr8d.core.budgets import Budget
from orchestr8d.core.model import Attempt, Executor, Task, Token
from orchestr8d.core.standing import Standing
from orchestr8d.core.standing import standing as stand
from orchestr8d.store.sqlite import funds, notices, reads, schedules, sending, webhooks, workflow_rows
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import Claim, Expired, Limits, Retention

_JSON = msgspec.json.Encoder()
# Rows a step: small enough that other writes do not notice.
TEXT_STEP = 500
PRUNE_STEP = 100
# How far a look for expired tasks goes beyond them: past so many that were made early and ended late.
EXPIRED_WALK = 100
IDEMPOTENCY_MS = 24 * 3600 * 1000


def running(db: sqlite3.Connection) -> list[Claim]:
    rows = db.execute(f"SELECT {reads.ATTEMPT_COLUMNS} FROM attempts WHERE status = 'running'").fetchall()
    found = []
    for row in rows:
        attempt = Attempt(*row)
        found.append(Claim(reads.task(db, attempt.task_id), attempt, reads.session(db, attempt)))
    return found


def standing(db: sqlite3.Connection, limits: Limits, now: int) -> Standing:
    parked = db.execute(
        "SELECT count(*) FROM tasks INDEXED BY tasks_parked WHERE status = 'parked' AND parked_for IS NOT NULL"
    ).fetchone()[0]
    paying = funds.shown(db, limits.budgets, now)
    return stand(limits.accounts, limits.agents, reads.valves(db), reads.by_account(db), paying, parked, now)


def watch_steps(db: sqlite3.Connection, clock: Clock) -> StepWatch:
    """Goes on with the watch over the wall clock where the last daemon left it."""
    row = db.execute("SELECT value FROM meta WHERE key = 'clock'").fetchone()
    steps = StepWatch(clock, "" if row is None else row[0])
    _mark_clock(db, steps.mark())
    return steps


def _mark_clock(db: sqlite3.Connection, mark: str) -> None:
    # Only when it says something new, which is once a boot: else each start would wait for the disk.
    db.execute(
        "INSERT INTO meta (key, value) VALUES ('clock', ?1) "
        "ON CONFLICT (key) DO UPDATE SET value = ?1 WHERE value <> ?1",
        (mark,),
    )


def shift(tx: Tx, seconds: float, mark: str) -> None:
    """The wall clock was stepped: what came from a duration still means that duration. `mark` is the watch's."""
    _mark_clock(tx.db, mark)
    ms = round(seconds * 1000)
    tx.db.execute("UPDATE tasks SET wake_at = wake_at + ? WHERE wake_at IS NOT NULL AND wake_is_delay = 1", (ms,))
    for some in (reads.WITH_DEADLINE, f"FROM tasks INDEXED BY tasks_busy WHERE {reads.BUSY_SQL}"):
        tx.db.execute(f"UPDATE tasks SET deadline_at = deadline_at + ? WHERE seq IN (SELECT seq {some})", (ms,))
    tx.db.execute("UPDATE queue_starts SET at = at + ?", (ms,))
    webhooks.shift(tx, ms)
    notices.shift(tx, ms)
    workflow_rows.shift(tx, ms)
    schedules.shift(tx, ms)
    # What a provider named is a time of the wall clock; a backoff is not.
    tx.db.execute("UPDATE valves SET until = until + ? WHERE guessed = 1", (ms,))


def touch_keys(tx: Tx) -> None:
    sql = "SELECT DISTINCT concurrency_key FROM tasks WHERE status = 'queued' AND concurrency_key IS NOT NULL"
    tx.keys.update(row[0] for row in tx.db.execute(sql))


def register(tx: Tx, executor: Executor) -> None:
    (last,) = tx.db.execute("SELECT max(heartbeat_at) FROM executors").fetchone()
    if last is not None and last > tx.now:
        # The machine was booted since, with a clock that is behind: no step tells of it.
        schedules.recheck(tx)
    # One daemon has the file at a time: whoever else says that it runs has died, whatever its host was called then.
    lost = "UPDATE executors SET state = 'lost' WHERE state IN ('running', 'draining') RETURNING id, host, pid"
    for old_id, host, pid in tx.db.execute(lost).fetchall():
        tx.tell("executor.lost", {"executor_id": old_id, "host": host, "pid": pid})
    e = executor
    tx.db.execute(
        f"INSERT INTO executors ({', '.join(Executor.__struct_fields__)}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (e.id, e.host, e.pid, e.version, e.started_at, e.heartbeat_at, _JSON.encode(e.labels).decode(), e.slots,
         e.running, e.state),
    )  # fmt: skip
    tx.tell("executor.started", {"executor_id": e.id, "host": e.host, "pid": e.pid, "version": e.version})


def heartbeat(tx: Tx, executor_id: str, slots: int, running_now: int, state: str) -> None:
    before = tx.db.execute("SELECT state, host, pid FROM executors WHERE id = ?", (executor_id,)).fetchone()
    tx.db.execute(
        "UPDATE executors SET heartbeat_at = ?, slots = ?, running = ?, state = ? WHERE id = ?",
        (tx.now, slots, running_now, state, executor_id),
    )
    if before is not None and state == "stopped" and before[0] != "stopped":
        tx.tell("executor.stopped", {"executor_id": executor_id, "host": before[1], "pid": before[2]})


def add_token(tx: Tx, token: Token) -> None:
    lists = [None if v is None else _JSON.encode(v).decode() for v in (token.runners, token.agents)]
    tx.db.execute(
        f"INSERT INTO tokens ({reads.TOKEN_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (token.id, token.name, token.hash, token.scope, token.user_id, *lists, token.created_at, token.expires_at),
    )


# -- full text: behind the submits, caught up before each search


def _text(task: Task) -> tuple[str, str]:
    """What `q=` searches of a task: (title, command and prompt)."""
    spec = task.read_spec()
    return spec.title or "", " ".join([*(spec.command or []), spec.prompt or ""])


def _text_seq(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT value FROM meta WHERE key = 'text_seq'").fetchone()
    return 0 if row is None else int(row[0])


def text_waits(db: sqlite3.Connection) -> bool:
    row = db.execute("SELECT seq FROM tasks ORDER BY seq DESC LIMIT 1").fetchone()
    return row is not None and row[0] > _text_seq(db)


def index_text(tx: Tx) -> bool:
    done = _text_seq(tx.db)
    found = reads.tasks(tx.db, "seq > ? ORDER BY seq LIMIT ?", done, TEXT_STEP)
    if not found:
        return False
    tx.db.executemany(
        "INSERT INTO task_text (rowid, title, input) VALUES (?, ?, ?)", [(t.seq, *_text(t)) for t in found]
    )
    tx.db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('text_seq', ?)", (str(found[-1].seq),))
    return len(found) == TEXT_STEP


def _untext(tx: Tx, tasks: Sequence[Task]) -> None:
    # The index holds no text of its own: a row is taken out by the words that went in.
    done = _text_seq(tx.db)
    tx.db.executemany(
        "INSERT INTO task_text (task_text, rowid, title, input) VALUES ('delete', ?, ?, ?)",
        [(t.seq, *_text(t)) for t in tasks if t.seq <= done],
    )


def retext(tx: Tx, old: Task, new: Task) -> None:
    """After an edit."""
    if _text(old) != _text(new) and old.seq <= _text_seq(tx.db):
        _untext(tx, [old])
        tx.db.execute("INSERT INTO task_text (rowid, title, input) VALUES (?, ?, ?)", (new.seq, *_text(new)))
    tags, before = set(new.read_spec().tags), set(old.read_spec().tags)
    tx.db.executemany("DELETE FROM task_tags WHERE tag = ? AND seq = ?", [(t, new.seq) for t in before - tags])
    tx.db.executemany("INSERT INTO task_tags (tag, seq) VALUES (?, ?)", [(t, new.seq) for t in tags - before])


# -- retention


def expired(db: sqlite3.Connection, retention: Retention, now: int) -> list[Expired]:
    found: list[Expired] = []
    for status, keep in sorted(retention.tasks.items()):
        if keep is None:
            continue
        for task_id in _expired_ids(db, status, now - round(keep * 1000), PRUNE_STEP - len(found)):
            attempts = db.execute("SELECT id FROM attempts WHERE task_id = ?", (task_id,))
            found.append(Expired(task_id, [row[0] for row in attempts]))
    return found


def _expired_ids(db: sqlite3.Connection, status: str, cutoff: int, limit: int) -> list[str]:
    """Tasks of a final state that ended before `cutoff`, walked in the order they were made, along the index of lists:
    they end about in that order, and an index of its own would cost every task a write."""
    rows = db.execute(
        # Those of a workflow go with it.
        "SELECT id FROM (SELECT id, completed_at FROM tasks WHERE status = ? AND workflow_id IS NULL "
        "ORDER BY seq LIMIT ?) "
        # What is to follow from it is made of its result.
        "WHERE completed_at < ? AND id NOT IN (SELECT task_id FROM followups) LIMIT ?",
        (status, limit * EXPIRED_WALK, cutoff, limit),
    )
    return [row[0] for row in rows]


def remove(tx: Tx, task_ids: Sequence[str], budgets: Sequence[Budget] = ()) -> None:
    found = [task for task_id in task_ids if (task := reads.find(tx.db, task_id)) is not None]
    remove_tasks(tx, found, budgets)


def remove_tasks(tx: Tx, doomed: Sequence[Task], budgets: Sequence[Budget]) -> None:
    _untext(tx, doomed)
    for task in doomed:
        if task.completed_at is None:
            raise RuntimeError(f"task {task.id} is {task.status}: only a final one can be removed")
        tx.db.execute("DELETE FROM attempts WHERE task_id = ?", (task.id,))
        tx.db.execute("DELETE FROM results WHERE task_id = ?", (task.id,))
        tx.db.execute("DELETE FROM task_deps WHERE depends_on = ?", (task.id,))
        tx.db.executemany(
            "DELETE FROM task_tags WHERE tag = ? AND seq = ?", [(tag, task.seq) for tag in task.read_spec().tags]
        )
        funds.forget(tx, budgets, task)
        tx.db.execute("DELETE FROM tasks WHERE seq = ?", (task.seq,))


def prune_log(tx: Tx, retention: Retention, budgets: Sequence[Budget] = ()) -> bool:
    step = PRUNE_STEP * 4
    events = told = fired = 0
    if retention.events is not None:
        cutoff = tx.now - round(retention.events * 1000)
        told = notices.prune(tx, cutoff, step)
        fired = schedules.prune(tx, cutoff, step)
        events = tx.db.execute(
            "DELETE FROM events WHERE id IN (SELECT id FROM events ORDER BY id LIMIT ?) AND at < ?", (step, cutoff)
        ).rowcount
    keys = tx.db.execute(
        "DELETE FROM idempotency WHERE (scope, key) IN "
        "(SELECT scope, key FROM idempotency WHERE created_at < ? ORDER BY created_at LIMIT ?)",
        (tx.now - IDEMPOTENCY_MS, step),
    ).rowcount
    funds.prune(tx, budgets)
    tx.db.execute("DELETE FROM queue_starts WHERE queue NOT IN (SELECT name FROM queues WHERE rate IS NOT NULL)")
    for name, rate in tx.db.execute("SELECT name, rate FROM queues WHERE rate IS NOT NULL").fetchall():
        over = tx.now - round(durations.rate(rate)[1] * 1000)
        tx.db.execute("DELETE FROM queue_starts WHERE queue = ? AND at <= ?", (name, over))
    # A queue that holds nothing and says nothing is as good as none.
    tx.db.execute(
        "DELETE FROM queues WHERE depth = 0 AND max_running IS NULL AND rate IS NULL AND paused = 0 "
        f"AND name NOT IN (SELECT queue FROM tasks WHERE {reads.BUSY_SQL})"
    )
    sent = webhooks.prune(tx, retention.deliveries, step)
    behind = sending.tidy(tx, retention.deliveries)
    return behind or step in (events, keys, told, fired, sent)
