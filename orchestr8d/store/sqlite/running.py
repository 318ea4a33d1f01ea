"""Claims and finishes: what is due is moved, the next tasks get their attempts, ended attempts are settled."""

from __future__ import annotations

import msgspec

from orchestr8d.core import admission, claims, outcome
from orchestr8d.core.errors import LeaseLost
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import Attempt, Queue, Task
from orchestr8d.core.outcome import Outcome
from orchestr8d.core.states import WAITING
from orchestr8d.store import Claim
from orchestr8d.store.sqlite import reads
from orchestr8d.store.sqlite.follow import Follower
from orchestr8d.store.sqlite.transaction import Tx

_JSON = msgspec.json.Encoder()
# Queues in which something may be claimed, by skipping along the claim index: queues where nothing may cost nothing.
_READY_QUEUES = """
WITH RECURSIVE q (name) AS (
  SELECT min(queue) FROM tasks INDEXED BY tasks_claim WHERE status = 'queued' AND hold IS NULL
  UNION ALL
  SELECT (SELECT min(queue) FROM tasks INDEXED BY tasks_claim
          WHERE status = 'queued' AND hold IS NULL AND queue > q.name)
  FROM q WHERE q.name IS NOT NULL
)
SELECT name FROM q WHERE name IS NOT NULL
"""
_MOVES = (
    "SELECT (SELECT min(wake_at) FROM tasks WHERE wake_at IS NOT NULL), "
    f"(SELECT min(deadline_at) {reads.WITH_DEADLINE}), EXISTS (SELECT 1 FROM loose_ends)"
)
# Due tasks are moved so many at a time: other writes get their turn in between.
_DUE_STEP = 500


def move_due(tx: Tx, follower: Follower) -> bool:
    """Tasks whose time has come: to the queue, or past their deadline; and cascades that were cut into steps. True when
    there are more."""
    more = follower.go_on(tx)
    late = reads.tasks(
        tx.db,
        f"seq IN (SELECT seq {reads.WITH_DEADLINE} AND deadline_at <= ? ORDER BY deadline_at LIMIT ?)",
        tx.now, _DUE_STEP,
    )  # fmt: skip
    for task in late:
        # An end before may have cut it off meanwhile, or let it go on.
        now = reads.task(tx.db, task.id)
        if now.status in WAITING:
            tx.apply(admission.deadline(now, tx.now))
            follower(tx)
    due = reads.tasks(tx.db, "wake_at IS NOT NULL AND wake_at <= ? ORDER BY wake_at LIMIT ?", tx.now, _DUE_STEP)
    for task in due:
        if task.status == "pending" and not admission.may_queue(task, tx.now):
            tx.apply(admission.Change(task, {"wake_at": None, "wake_is_delay": 0}, []))
        else:
            follower.enqueue(tx, task)
    if due:
        follower(tx)
    return more or len(late) == _DUE_STEP or len(due) == _DUE_STEP


def claim(tx: Tx, follower: Follower, executor_id: str, free: int) -> list[Claim]:
    """Starts up to `free` tasks by rank over all queues."""
    claimed: list[Claim] = []
    again = True
    while again:
        chosen, again = _choose(tx, follower, free - len(claimed))
        claimed += [_start(tx, task, rated, executor_id) for task, rated in chosen]
        # One that was passed over because of its key is held now: those behind it in its queue get their turn.
        follower(tx)
    return claimed


def _choose(tx: Tx, follower: Follower, free: int) -> tuple[list[tuple[Task, bool]], bool]:
    """Tasks to start by rank, each with whether its queue has a rate; and whether some were passed over, so that
    another look may find more."""
    candidates: list[Task] = []
    ready = [row[0] for row in tx.db.execute(_READY_QUEUES)]
    known = {queue.name: queue for queue in reads.queues(tx.db, tx.now, ready)}
    for name in ready:
        queue = known.get(name) or Queue(name)
        starts = reads.queue_starts(tx.db, queue, tx.now)
        room = min(free, claims.capacity(queue, starts))
        if room:
            # More may be past their deadline than one step has moved.
            where = (
                "queue = ? AND status = 'queued' AND hold IS NULL AND (deadline_at IS NULL OR deadline_at > ?) "
                "ORDER BY rank, seq LIMIT ?"
            )
            candidates += reads.tasks(tx.db, where, queue.name, tx.now, room)
    keys = {t.concurrency_key for t in candidates if t.concurrency_key is not None}
    chosen = claims.choose(candidates, free, {key: follower.key_free(tx, key) for key in keys})
    rated = {queue.name for queue in known.values() if queue.rate is not None}
    return [(task, task.queue in rated) for task in chosen], 0 < len(chosen) < min(free, len(candidates))


def _start(tx: Tx, task: Task, rated: bool, executor_id: str) -> Claim:
    """The task runs, as a new attempt of this executor."""
    attempt = Attempt(
        uuid7(tx.now), task.id, task.attempt + 1, executor_id, "running", tx.now,
        None, None, None, None, None, None, None, None, None,
    )  # fmt: skip
    task = tx.apply(admission.start(task, attempt, tx.now))
    tx.db.execute(
        "INSERT INTO attempts (id, task_id, number, executor_id, status, started_at) VALUES (?, ?, ?, ?, ?, ?)",
        (attempt.id, task.id, attempt.number, executor_id, attempt.status, attempt.started_at),
    )
    if rated:
        row = (task.queue, tx.now, attempt.id)
        tx.db.execute("INSERT INTO queue_starts (queue, at, attempt_id) VALUES (?, ?, ?)", row)
    return Claim(task, attempt)


def moves_at(tx: Tx) -> int | None:
    """When time alone will let a task move (see move_due); None when none waits for that."""
    wake, deadline, cascade = tx.db.execute(_MOVES).fetchone()
    return min((at for at in (wake, deadline, 0 if cascade else None) if at is not None), default=None)


def opens_at(tx: Tx) -> int | None:
    """When a queue's rate lets the next of its tasks start; None when no queue waits for that."""
    times = [queue.open_at for queue in reads.rated_queues(tx.db, tx.now) if queue.depth and not queue.paused]
    return min((at for at in times if at is not None), default=None)


def finish(tx: Tx, task_id: str, attempt_id: str, executor_id: str, ended: Outcome, draw: float) -> Task:
    """Settles an attempt, fenced by who holds it."""
    rows = tx.db.execute(
        f"SELECT {reads.ATTEMPT_COLUMNS} FROM attempts "
        "WHERE id = ? AND task_id = ? AND executor_id = ? AND status = 'running'",
        (attempt_id, task_id, executor_id),
    ).fetchall()
    if not rows:
        raise LeaseLost(f"attempt {attempt_id} is not {executor_id}'s to finish")
    task = reads.task(tx.db, task_id)
    settled = outcome.settle(task, Attempt(*rows[0]), ended, tx.now, draw)
    task = tx.apply(settled.change)
    tx.db.execute(
        "UPDATE attempts SET status = ?, ended_at = ?, exit_code = ?, signal = ?, output_bytes = ?, error = ?, "
        "resources = ?, files_created = ? WHERE id = ?",
        (
            settled.attempt_status, max(tx.now, 0), ended.exit_code, ended.signal, ended.output_bytes,
            _optional(settled.attempt_error), _optional(ended.resources),
            _optional(ended.files_created or None), attempt_id,
        ),
    )  # fmt: skip
    if task.completed_at is not None and ended.result:
        tx.db.execute("INSERT INTO results (task_id, body) VALUES (?, ?)", (task_id, ended.result))
    return task


def _optional(value: object) -> str | None:
    return None if value is None else _JSON.encode(value).decode()
