"""What a task asked for its end, in the transaction of the end: notices, callbacks, marks of what is to follow."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec

from orchestr8d.core import endings
from orchestr8d.core.model import NewTask, Spec, Task
from orchestr8d.store.sqlite import reads
from orchestr8d.store.sqlite.deliveries import callback
from orchestr8d.store.sqlite.notices import notify
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import Followup

# Most tasks ask for nothing: then their specs, which may be large, are not decoded.
_ASKS = ('"on_completion":', '"callback_url":')


def ended(tx: Tx, task: Task) -> None:
    """`task` has just become final."""
    if task.status == "failed" or any(word in task.spec for word in _ASKS):
        _act(tx, task, task.read_spec())


def _act(tx: Tx, task: Task, spec: Spec) -> None:
    actions = spec.on_completion if task.status == "completed" else []
    if (task.status == "failed" and not endings.is_cut_off(task)) or "notification" in actions:
        notify(tx, endings.notice(task, spec))
    if spec.callback_url is not None and not endings.is_signal(spec.callback_url):
        callback(tx, task, spec.callback_url, spec.callback_method)
    for action in actions:
        if isinstance(action, str) and "://" in action and action != spec.callback_url:
            callback(tx, task, action, "POST")
    for position, asked in enumerate(endings.follow_ups(spec)):
        if task.status == "completed":
            _mark(tx, task, spec, position, asked)


def _mark(tx: Tx, task: Task, spec: Spec, position: int, asked: dict[str, Any]) -> None:
    if spec.follows >= endings.MOST_FOLLOWS:
        reason = f"{endings.MOST_FOLLOWS} tasks have followed from one another already"
        tx.warnings.append(("a task that should follow is not made", {"task_id": task.id, "reason": reason}))
        notify(tx, endings.not_followed(task.id, task.user_id, reason))
        return
    tx.db.execute(
        "INSERT INTO followups (task_id, position, spec) VALUES (?, ?, ?)",
        (task.id, position, msgspec.json.encode(asked).decode()),
    )
    tx.work.add("followups")


def due(db: sqlite3.Connection, after: int, limit: int) -> list[Followup]:
    sql = "SELECT seq, task_id, position, spec FROM followups WHERE seq > ? ORDER BY seq LIMIT ?"
    rows = db.execute(sql, (after, limit))
    return [Followup(seq, task_id, position, msgspec.json.decode(spec)) for seq, task_id, position, spec in rows]


def follows(task: Task, new: NewTask) -> NewTask:
    """`new` as what follows from the end of `task`."""
    spec = msgspec.structs.replace(
        new.spec, follows=task.read_spec().follows + 1, metadata=new.spec.metadata | {"followup_of": task.id}
    )
    return msgspec.structs.replace(new, spec=spec, user_id=task.user_id)


def take(tx: Tx, due: Followup) -> bool:
    """Removes the mark; False when it is not there any more."""
    sql = "DELETE FROM followups WHERE task_id = ? AND position = ?"
    return tx.db.execute(sql, (due.task_id, due.position)).rowcount == 1


def drop(tx: Tx, due: Followup, reason: str) -> None:
    """Nothing follows, and somebody is told why."""
    if take(tx, due):
        task = reads.find(tx.db, due.task_id)
        notify(tx, endings.not_followed(due.task_id, "local" if task is None else task.user_id, reason))
