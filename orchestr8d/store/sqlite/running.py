"""Claims and finishes: what is due is moved, the next tasks get their attempts, ended attempts are settled."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

import msgspec

from orchestr8d.core import admission, claims, outcome, sessions
from orchestr8d.core.budgets import Budget
from orchestr8d.core.errors import LeaseLost
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import Attempt, Queue, Task
from orchestr8d.core.outcome import Outcome
from orchestr8d.core.states import WAITING
from orchestr8d.store.sqlite import funds, reads
from orchestr8d.store.sqlite.follow import Follower
from orchestr8d.store.sqlite.lanes import CLAIMABLE, READY, STEP, Entry, Lanes, learn
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import Claim

_JSON = msgspec.json.Encoder()
_MOVES = (
    "SELECT (SELECT min(wake_at) FROM tasks WHERE wake_at IS NOT NULL), "
    f"(SELECT min(deadline_at) {reads.WITH_DEADLINE}), EXISTS (SELECT 1 FROM loose_ends), "
    "EXISTS (SELECT 1 FROM valves) OR EXISTS (SELECT 1 FROM tasks INDEXED BY tasks_parked "
    "WHERE status = 'parked' AND parked_for IS NOT NULL)"
)
# Due tasks are moved so many at a time: other writes get their turn in between.
_DUE_STEP = 500
# Where a budget may refuse some, so many are looked at for each place.
_BEYOND = 50


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


def claim(tx: Tx, follower: Follower, lanes: Lanes, executor_id: str, free: int) -> list[Claim]:
    """Starts up to `free` tasks by rank over all queues."""
    claimed: list[Claim] = []
    again = True
    while again:
        chosen, again = _choose(tx, follower, lanes, free - len(claimed))
        claimed += [_start(tx, task, rated, lanes, entry, executor_id) for task, rated, entry in chosen]
        # One that was passed over because of its key is held now: those behind it in its queue get their turn.
        follower(tx)
    return claimed


def _choose(tx: Tx, follower: Follower, lanes: Lanes, free: int) -> tuple[list[tuple[Task, bool, Entry]], bool]:
    """Tasks to start by rank, each with whether its queue has a rate and its entry; and whether some were passed over,
    so that another look may find more."""
    candidates: list[Task] = []
    ready = tx.db.execute(READY).fetchall()
    names = list(dict.fromkeys(name for name, _ in ready))
    known = {queue.name: queue for queue in reads.queues(tx.db, tx.now, names)}
    rooms: dict[str, int] = {}
    for name in names:
        queue = known.get(name) or Queue(name)
        rooms[name] = claims.capacity(queue, reads.queue_starts(tx.db, queue, tx.now))
    for name, lane in ready:
        room = lanes.free(lane, min(free, rooms[name]))
        if room:
            if lane and follower.limits.budgets:
                room = max(room, _BEYOND)
            # More may be past their deadline than one step has moved.
            where = (
                f"queue = ? AND lane = ? AND {CLAIMABLE} AND (deadline_at IS NULL OR deadline_at > ?) "
                "ORDER BY rank, seq LIMIT ?"
            )
            candidates += reads.tasks(tx.db, where, name, lane, tx.now, room)
    keys = {t.concurrency_key for t in candidates if t.concurrency_key is not None}
    refused = lanes.refused
    key_free = {key: follower.key_free(tx, key) for key in keys}
    chosen = claims.choose(candidates, free, key_free, rooms, lanes.enter)
    rated = {queue.name for queue in known.values() if queue.rate is not None}
    passed_over = 0 < len(chosen) < min(free, len(candidates))
    again = passed_over or (len(chosen) < free and refused < lanes.refused < STEP)
    return [(task, task.queue in rated, entry) for task, entry in chosen], again


def _start(tx: Tx, task: Task, rated: bool, lanes: Lanes, entry: Entry, executor_id: str) -> Claim:
    """The task runs, as a new attempt of this executor."""
    earlier = reads.attempts(tx.db, task.id) if task.agent is not None and task.attempt else []
    session_id = None if task.agent is None else sessions.next_id(earlier, str(uuid4()))
    attempt = Attempt(
        uuid7(tx.now), task.id, task.attempt + 1, executor_id, "running", tx.now,
        None, None, None, session_id, entry.account, entry.cap_usd, None, None, None, None, None, None,
    )  # fmt: skip
    task = tx.apply(admission.start(task, attempt, tx.now))
    tx.db.execute(
        "INSERT INTO attempts (id, task_id, number, executor_id, status, started_at, session_id, account, cap_usd) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            attempt.id, task.id, attempt.number, executor_id, attempt.status, attempt.started_at, session_id,
            entry.account, entry.cap_usd,
        ),
    )  # fmt: skip
    if task.lane:
        lanes.entered(attempt, entry)
    if rated:
        row = (task.queue, tx.now, attempt.id)
        tx.db.execute("INSERT INTO queue_starts (queue, at, attempt_id) VALUES (?, ?, ?)", row)
    return Claim(task, attempt, sessions.of(attempt, earlier))


def moves_at(tx: Tx) -> tuple[int | None, bool]:
    """When time alone will let a task move (see move_due), None when none waits for that; and whether accounts, the
    breaker or budgets hold anything back (see Lanes.step)."""
    wake, deadline, cascade, held = tx.db.execute(_MOVES).fetchone()
    return min((at for at in (wake, deadline, 0 if cascade else None) if at is not None), default=None), bool(held)


def opens_at(tx: Tx) -> int | None:
    """When a queue's rate lets the next of its tasks start; None when no queue waits for that."""
    times = [queue.open_at for queue in reads.rated_queues(tx.db, tx.now) if queue.depth and not queue.paused]
    return min((at for at in times if at is not None), default=None)


def finish(
    tx: Tx, of: Sequence[Budget], task_id: str, attempt_id: str, executor_id: str, ended: Outcome, draw: float
) -> Task:
    """Settles an attempt, fenced by who holds it."""
    rows = tx.db.execute(
        f"SELECT {reads.ATTEMPT_COLUMNS} FROM attempts "
        "WHERE id = ? AND task_id = ? AND executor_id = ? AND status = 'running'",
        (attempt_id, task_id, executor_id),
    ).fetchall()
    if not rows:
        raise LeaseLost(f"attempt {attempt_id} is not {executor_id}'s to finish")
    task, attempt = reads.task(tx.db, task_id), Attempt(*rows[0])
    short_of = None
    if task.lane:
        short_of = funds.charge(tx, attempt.id, ended)
        learn(tx, attempt, ended, draw)
    settled = outcome.settle(task, attempt, ended, tx.now, draw, short_of)
    task = tx.apply(settled.change)
    if task.status == "parked" and task.parked_for == short_of:
        # That budget may be another one now, or none.
        funds.ask_again(tx, of, task)
    tx.db.execute(
        "UPDATE attempts SET status = ?, ended_at = ?, exit_code = ?, signal = ?, output_bytes = ?, error = ?, "
        "resources = ?, files_created = ?, usage = ?, worktree = ? WHERE id = ?",
        (
            settled.attempt_status, max(tx.now, 0), ended.exit_code, ended.signal, ended.output_bytes,
            _optional(settled.attempt_error), _optional(ended.resources),
            _optional(ended.files_created or None), _optional(ended.usage), _optional(ended.worktree), attempt_id,
        ),
    )  # fmt: skip
    if task.completed_at is not None and ended.result:
        tx.db.execute("INSERT INTO results (task_id, body) VALUES (?, ?)", (task_id, ended.result))
    return task


def _optional(value: object) -> str | None:
    return None if value is None else _JSON.encode(value).decode()
