"""Submits: what core admits becomes rows, edges and events; a request that is sent twice is answered twice the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestr8d.core import admission, steering
from orchestr8d.core.errors import Fault, Problem, refuse
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import NewTask, Task
from orchestr8d.store.sqlite import reads
from orchestr8d.store.sqlite.follow import Follower
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import Answer, Created, Idempotency, Limits


def admit(tx: Tx, new: Sequence[NewTask], answer: Answer, limits: Limits, follower: Follower) -> Created:
    """All or none; the queue's depth, unique keys and dependencies are looked at task by task."""
    _check_dependencies(tx, new)
    tasks: list[Task] = []
    waiting: list[admission.Admitted] = []
    existing = False
    facts = admission.Facts(queue_depth=limits.queue_depth, head_start=limits.head_start)
    depths: dict[str, int] = {}
    for one in new:
        facts.last_queued_at = follower.last_queued_at
        facts.depth = depths[one.queue] if one.queue in depths else tx.depth(one.queue)
        facts.same_key, facts.dependencies = (), {}
        if one.unique_key is not None:
            # Earlier ones of a batch may hold the key.
            tx.insert(waiting)
            waiting.clear()
            facts.same_key = reads.tasks(tx.db, "unique_key = ? AND completed_at IS NULL", one.unique_key)
        if one.spec.depends_on:
            facts.dependencies = reads.statuses(tx.db, one.spec.depends_on)
        try:
            admitted = admission.admit(one, facts, uuid7(tx.now), tx.next_seq(), tx.now)
        except Problem as e:
            if one.at and not e.faults:
                raise Problem(e.kind, e.detail, [Fault(one.at.rstrip("."), e.detail, e.kind)], e.retry_after) from None
            raise
        if isinstance(admitted, Task):
            existing = True
            tasks.append(admitted)
            continue
        depths[one.queue] = facts.depth + (admitted.task.completed_at is None)
        follower.note(admitted.task)
        tasks.append(admitted.task)
        waiting.append(admitted)
        if admitted.replaces is not None:
            _replace(tx, admitted, waiting)
    tx.insert(waiting)
    return Created(tasks, answer(tasks), existing=existing)


def _replace(tx: Tx, admitted: admission.Admitted, waiting: list[admission.Admitted]) -> None:
    """The new task takes the key over; the old one is cancelled, and the new one waits for its processes."""
    old = admitted.replaces
    assert old is not None
    old = tx.apply(admission.Change(old, {"unique_slot": None}, []))
    tx.insert(waiting)
    waiting.clear()
    cancel(tx, old)


def cancel(tx: Tx, task: Task) -> Task:
    change = steering.cancel(task, tx.now)
    if change is not None:
        task = tx.apply(change)
    if task.completed_at is None:
        tx.cancels.append(task.id)
    return task


def _check_dependencies(tx: Tx, new: Sequence[NewTask]) -> None:
    """422 naming every dependency that does not exist."""
    faults = []
    for one in new:
        if one.spec.depends_on:
            known = reads.statuses(tx.db, one.spec.depends_on)
            for n, other in enumerate(one.spec.depends_on):
                if other not in known:
                    path = f"{one.at}options.depends_on[{n}]"
                    faults.append(Fault(path, f"there is no task {other!r}", "unprocessable"))
    refuse(faults)


def check_space(path: Path, min_free: int) -> None:
    """503 when the disk of the database has less than `min_free` bytes left: what runs needs room to end well."""
    free = os.statvfs(path.parent)
    if free.f_bavail * free.f_frsize < min_free:
        raise Problem(
            "unavailable",
            "the disk of the state directory is nearly full: less than "
            f"{min_free} bytes are free ([store] min_free_disk)",
            retry_after=30,
        )


def once(tx: Tx, key: Idempotency | None, make: Callable[[], Created]) -> Created:
    """A creating request, or the answer that its twin got. One that fails leaves nothing: it may be tried again."""
    if key is None:
        return make()
    row = tx.db.execute(
        "SELECT digest, body FROM idempotency WHERE scope = ? AND key = ?", (key.scope, key.key)
    ).fetchone()
    if row is not None:
        if row[0] != key.digest:
            raise Problem("conflict", "this Idempotency-Key was used with another body")
        return Created([], row[1], replayed=True)
    created = make()
    tx.db.execute(
        "INSERT INTO idempotency (scope, key, digest, body, created_at) VALUES (?, ?, ?, ?, ?)",
        (key.scope, key.key, key.digest, created.body, tx.now),
    )
    return created
