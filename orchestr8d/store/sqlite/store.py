"""The store on one SQLite file: each verb loads, lets core decide, applies, in one transaction of the writer."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite
import msgspec

from orchestr8d.clock import Clock
from orchestr8d.core import admission, claims, outcome, steering
from orchestr8d.core.errors import Fault, LeaseLost, Problem, refuse
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import (
    Attempt,
    Executor,
    NewTask,
    Progress,
    Queue,
    Result,
    Task,
    TaskView,
    Token,
)
from orchestr8d.core.outcome import Outcome
from orchestr8d.events import Event
from orchestr8d.store import (
    Answer,
    Claim,
    Claimed,
    Created,
    EventFilter,
    Expired,
    Idempotency,
    Limits,
    Retention,
    TaskFilter,
)
from orchestr8d.store.sqlite import reads, schema, upkeep
from orchestr8d.store.sqlite.follow import Follower
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.sqlite.writer import Writer, in_thread, raw

T = TypeVar("T")
_JSON = msgspec.json.Encoder()
# Due tasks are moved so many at a time: other writes get their turn in between.
_DUE_STEP = 500


class SqliteStore:
    """Implements store.Store; made by `open_store`."""

    def __init__(
        self, path: Path, writer: Writer, follower: Follower, readers: Sequence[aiosqlite.Connection], clock: Clock,
        limits: Limits,
    ) -> None:  # fmt: skip
        self._path = path
        self._writer = writer
        self._follower = follower
        self._readers = list(readers)
        self._free: asyncio.LifoQueue[aiosqlite.Connection] = asyncio.LifoQueue()
        for reader in readers:
            self._free.put_nowait(reader)
        self._clock = clock
        self.limits = limits

    @property
    def limits(self) -> Limits:
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        self._follower.head_start = limits.head_start
        self._follower.per_key = limits.per_key

    async def close(self) -> None:
        await self._writer.close()
        for reader in self._readers:
            await reader.close()

    async def watch(self) -> None:
        """Returns when the store was closed; raises when its writer died."""
        await self._writer.watch()

    async def _read(self, fn: Callable[..., T], *args: object) -> T:
        reader = await self._free.get()
        try:
            return await in_thread(reader, fn, raw(reader), *args)
        finally:
            self._free.put_nowait(reader)

    # -- submit and steer

    async def submit(self, new: Sequence[NewTask], answer: Answer, once: Idempotency | None = None) -> Created:
        def unit(tx: Tx) -> Created:
            return _once(tx, once, lambda: self._admit(tx, new, answer))

        return await self._writer.do(unit)

    def _admit(self, tx: Tx, new: Sequence[NewTask], answer: Answer) -> Created:
        self._check_disk()
        _check_dependencies(tx, new)
        tasks: list[Task] = []
        waiting: list[admission.Admitted] = []
        existing = False
        follower = self._follower
        facts = admission.Facts(queue_depth=self._limits.queue_depth, head_start=self._limits.head_start)
        depths: dict[str, int] = {}
        for i, one in enumerate(new):
            facts.last_queued_at = follower.last_queued_at
            facts.depth = depths[one.queue] if one.queue in depths else tx.depth(one.queue)
            facts.holder, facts.dependencies = None, {}
            if one.unique_key is not None:
                # Earlier ones of a batch may hold the key.
                tx.insert(waiting)
                waiting.clear()
                found = reads.tasks(tx.db, "unique_slot = ?", one.unique_key)
                facts.holder = found[0] if found else None
            if one.spec.depends_on:
                facts.dependencies = reads.statuses(tx.db, one.spec.depends_on)
            try:
                admitted = admission.admit(one, facts, uuid7(tx.now), tx.next_seq(), tx.now)
            except Problem as e:
                if len(new) > 1 and not e.faults:
                    raise Problem(e.kind, e.detail, [Fault(f"tasks[{i}]", e.detail, e.kind)], e.retry_after) from None
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
                self._replace(tx, admitted, waiting)
        tx.insert(waiting)
        tx.ended += [a.task for a in waiting if a.task.completed_at is not None]
        return Created(tasks, answer(tasks), existing=existing)

    def _replace(self, tx: Tx, admitted: admission.Admitted, waiting: list[admission.Admitted]) -> None:
        """The new task takes the key over; the old one is cancelled, and the new one waits for its processes."""
        old = admitted.replaces
        assert old is not None
        old = tx.apply(admission.Change(old, {"unique_slot": None}, []))
        tx.insert(waiting)
        waiting.clear()
        self._cancel(tx, old)

    def _check_disk(self) -> None:
        free = os.statvfs(self._path.parent)
        if free.f_bavail * free.f_frsize < self._limits.min_free_disk:
            raise Problem(
                "unavailable",
                "the disk of the state directory is nearly full: less than "
                f"{self._limits.min_free_disk} bytes are free ([store] min_free_disk)",
                retry_after=30,
            )

    async def retry(self, task_id: str, answer: Answer, once: Idempotency | None = None) -> Created:
        def again(tx: Tx) -> Created:
            task = reads.task(tx.db, task_id)
            new = steering.retry(task, reads.statuses(tx.db, task.read_spec().depends_on))
            return self._admit(tx, [new], answer)

        return await self._writer.do(lambda tx: _once(tx, once, lambda: again(tx)))

    async def cancel(self, task_id: str) -> Task:
        return await self._writer.do(lambda tx: self._cancel(tx, reads.task(tx.db, task_id)))

    def _cancel(self, tx: Tx, task: Task) -> Task:
        change = steering.cancel(task, tx.now)
        if change is not None:
            task = tx.apply(change)
        if task.completed_at is None:
            tx.cancels.append(task.id)
        return task

    async def pause(self, task_id: str) -> Task:
        return await self._writer.do(lambda tx: tx.apply(steering.pause(reads.task(tx.db, task_id))))

    async def resume(self, task_id: str) -> Task:
        def unit(tx: Tx) -> Task:
            f = self._follower
            task = tx.apply(steering.resume(reads.task(tx.db, task_id), tx.now, f.last_queued_at, f.head_start))
            f.note(task)
            return task

        return await self._writer.do(unit)

    async def edit(self, task_id: str, change: Callable[[Task], NewTask]) -> Task:
        def unit(tx: Tx) -> Task:
            f = self._follower
            task = reads.task(tx.db, task_id)
            after = tx.apply(steering.edit(task, change(task), tx.now, f.last_queued_at, f.head_start))
            f.note(after)
            upkeep.retext(tx, task, after)
            return after

        return await self._writer.do(unit)

    # -- run

    async def claim(self, executor_id: str, free: int) -> Claimed:
        def unit(tx: Tx) -> Claimed:
            more = self._move_due(tx)
            chosen = self._choose(tx, free) if free > 0 and self._has_space() else []
            claimed = [self._start(tx, task, executor_id) for task in chosen]
            return Claimed(claimed, tx.now if more else self._next_due(tx))

        return await self._writer.do(unit)

    def _has_space(self) -> bool:
        try:
            self._check_disk()
        except Problem:
            return False
        return True

    def _move_due(self, tx: Tx) -> bool:
        """Tasks whose time has come: to the queue, or past their deadline. True when there are more."""
        late = reads.tasks(
            tx.db,
            "deadline_at IS NOT NULL AND status IN ('pending', 'queued', 'retrying', 'parked') AND deadline_at <= ? "
            "ORDER BY deadline_at LIMIT ?",
            tx.now, _DUE_STEP,
        )  # fmt: skip
        for task in late:
            # An end before may have cut it off meanwhile.
            now = reads.task(tx.db, task.id)
            if now.status == task.status:
                tx.apply(admission.deadline(now, tx.now))
                self._follower(tx)
        due = reads.tasks(tx.db, "wake_at IS NOT NULL AND wake_at <= ? ORDER BY wake_at LIMIT ?", tx.now, _DUE_STEP)
        for task in due:
            if task.status == "pending" and not admission.may_queue(task, tx.now):
                tx.apply(admission.Change(task, {"wake_at": None, "wake_is_delay": 0}, []))
            else:
                self._follower.enqueue(tx, task)
        if due:
            self._follower(tx)
        return len(late) == _DUE_STEP or len(due) == _DUE_STEP

    def _choose(self, tx: Tx, free: int) -> list[Task]:
        candidates: list[Task] = []
        for queue in reads.queues(tx.db, tx.now):
            starts = reads.queue_starts(tx.db, queue, tx.now)
            room = min(free, claims.capacity(queue, starts))
            if room:
                where = "queue = ? AND status = 'queued' AND hold IS NULL ORDER BY rank, seq LIMIT ?"
                candidates += reads.tasks(tx.db, where, queue.name, room)
        keys = {t.concurrency_key for t in candidates if t.concurrency_key is not None}
        return claims.choose(candidates, free, {key: self._follower.key_free(tx, key) for key in keys})

    def _start(self, tx: Tx, task: Task, executor_id: str) -> Claim:
        attempt = Attempt(
            uuid7(tx.now), task.id, task.attempt + 1, executor_id, "running", tx.now,
            None, None, None, None, None, None, None, None, None,
        )  # fmt: skip
        task = tx.apply(admission.start(task, attempt, tx.now))
        tx.db.execute(
            "INSERT INTO attempts (id, task_id, number, executor_id, status, started_at) VALUES (?, ?, ?, ?, ?, ?)",
            (attempt.id, task.id, attempt.number, executor_id, attempt.status, attempt.started_at),
        )
        tx.db.execute(
            "INSERT INTO queue_starts (queue, at, task_id) SELECT name, ?, ? FROM queues "
            "WHERE name = ? AND rate IS NOT NULL",
            (tx.now, task.id, task.queue),
        )
        return Claim(task, attempt)

    def _next_due(self, tx: Tx) -> int | None:
        times = [
            tx.db.execute("SELECT min(wake_at) FROM tasks WHERE wake_at IS NOT NULL").fetchone()[0],
            tx.db.execute(
                "SELECT min(deadline_at) FROM tasks WHERE deadline_at IS NOT NULL "
                "AND status IN ('pending', 'queued', 'retrying', 'parked')"
            ).fetchone()[0],
            *[q.open_at for q in reads.queues(tx.db, tx.now) if q.rate is not None and q.depth and not q.paused],
        ]
        return min((t for t in times if t is not None), default=None)

    async def finish(self, task_id: str, attempt_id: str, executor_id: str, outcome_: Outcome) -> Task:
        draw = random.random()  # noqa: S311 (spreads retries out, no secret)
        return await self._writer.do(lambda tx: _finish(tx, task_id, attempt_id, executor_id, outcome_, draw))

    async def progress(self, task_id: str, attempt_id: str, progress: Progress) -> Task:
        def unit(tx: Tx) -> Task:
            task = reads.task(tx.db, task_id)
            row = tx.db.execute("SELECT status, task_id FROM attempts WHERE id = ?", (attempt_id,)).fetchone()
            if row != ("running", task_id):
                raise Problem("conflict", f"attempt {attempt_id} of task {task_id} does not run any more")
            value = msgspec.to_builtins(progress)
            return tx.apply(steering.progress(task, attempt_id, value, _JSON.encode(progress).decode()))

        return await self._writer.do(unit)

    async def running(self) -> list[Claim]:
        return await self._read(upkeep.running)

    async def adopt(self, executor_id: str, attempt_ids: Sequence[str]) -> None:
        def unit(tx: Tx) -> None:
            for attempt_id in attempt_ids:
                sql = "UPDATE attempts SET executor_id = ? WHERE id = ? AND status = 'running' RETURNING task_id"
                for (task_id,) in tx.db.execute(sql, (executor_id, attempt_id)).fetchall():
                    tx.db.execute("UPDATE tasks SET executor_id = ? WHERE id = ?", (executor_id, task_id))

        await self._writer.do(unit)

    async def rewindow(self) -> None:
        """After `per_key` was changed: every key that tasks wait for gets its window anew."""
        await self._writer.do(upkeep.touch_keys)

    # -- executors, queues, tokens

    async def register(self, executor: Executor) -> None:
        await self._writer.do(lambda tx: upkeep.register(tx, executor))

    async def heartbeat(self, executor_id: str, running: int, state: str) -> None:
        await self._writer.do(lambda tx: upkeep.heartbeat(tx, executor_id, running, state))

    async def executors(self) -> list[Executor]:
        return await self._read(reads.executors)

    async def queues(self) -> list[Queue]:
        return await self._read(reads.queues, self._clock.now())

    async def put_queue(self, name: str, change: dict[str, Any]) -> Queue:
        def unit(tx: Tx) -> Queue:
            tx.db.execute("INSERT INTO queues (name) VALUES (?) ON CONFLICT DO NOTHING", (name,))
            for key, column in (("limit", "max_running"), ("rate", "rate"), ("paused", "paused")):
                if key in change:
                    tx.db.execute(f"UPDATE queues SET {column} = ? WHERE name = ?", (change[key], name))
            return reads.queues(tx.db, tx.now, [name])[0]

        return await self._writer.do(unit)

    async def add_token(self, token: Token, body: bytes, once: Idempotency | None = None) -> tuple[bytes, bool]:
        def add(tx: Tx) -> Created:
            upkeep.add_token(tx, token)
            return Created([], body)

        created = await self._writer.do(lambda tx: _once(tx, once, lambda: add(tx)))
        return created.body, created.replayed

    async def tokens(self) -> list[Token]:
        return await self._read(reads.tokens)

    async def revoke_token(self, token_id: str) -> None:
        def unit(tx: Tx) -> None:
            if tx.db.execute("DELETE FROM tokens WHERE id = ?", (token_id,)).rowcount == 0:
                raise Problem("not-found", f"there is no token {token_id}")

        await self._writer.do(unit)

    # -- read

    async def task(self, task_id: str) -> Task:
        return await self._read(reads.task, task_id)

    async def view(self, task_id: str) -> TaskView:
        return await self._read(reads.view, task_id, self._clock.now())

    async def views(self, wanted: TaskFilter, limit: int, before: int | None) -> list[TaskView]:
        if wanted.q is not None:
            while await self.index_text():
                pass
        return await self._read(reads.views, wanted, limit, before, self._clock.now())

    async def attempts(self, task_id: str) -> list[Attempt]:
        await self._read(reads.task, task_id)
        return await self._read(reads.attempts, task_id)

    async def result(self, task_id: str) -> Result:
        return await self._read(reads.result, task_id)

    async def events(self, wanted: EventFilter, after: int, limit: int) -> tuple[list[Event], int]:
        return await self._read(reads.events, wanted, after, limit)

    async def event_bounds(self) -> tuple[int, int]:
        return await self._read(reads.event_bounds)

    async def counts(self) -> dict[str, int]:
        return await self._read(reads.counts)

    # -- upkeep

    async def index_text(self) -> bool:
        if not await self._read(upkeep.text_waits):
            return False
        return await self._writer.do(upkeep.index_text)

    async def expired(self, retention: Retention) -> list[Expired]:
        return await self._read(upkeep.expired, retention, self._clock.now())

    async def remove(self, task_ids: Sequence[str]) -> None:
        await self._writer.do(lambda tx: upkeep.remove(tx, task_ids))

    async def prune_log(self, retention: Retention) -> bool:
        return await self._writer.do(lambda tx: upkeep.prune_log(tx, retention))

    async def backup(self, target: Path) -> None:
        await asyncio.to_thread(schema.backup_file, self._path, target)


def _check_dependencies(tx: Tx, new: Sequence[NewTask]) -> None:
    """422 naming every dependency that does not exist."""
    faults = []
    for i, one in enumerate(new):
        if one.spec.depends_on:
            known = reads.statuses(tx.db, one.spec.depends_on)
            at = f"tasks[{i}].options" if len(new) > 1 else "options"
            for n, other in enumerate(one.spec.depends_on):
                if other not in known:
                    faults.append(Fault(f"{at}.depends_on[{n}]", f"there is no task {other!r}", "unprocessable"))
    refuse(faults)


def _finish(tx: Tx, task_id: str, attempt_id: str, executor_id: str, outcome_: Outcome, draw: float) -> Task:
    rows = tx.db.execute(
        f"SELECT {reads.ATTEMPT_COLUMNS} FROM attempts "
        "WHERE id = ? AND task_id = ? AND executor_id = ? AND status = 'running'",
        (attempt_id, task_id, executor_id),
    ).fetchall()
    if not rows:
        raise LeaseLost(f"attempt {attempt_id} is not {executor_id}'s to finish")
    task = reads.task(tx.db, task_id)
    settled = outcome.settle(task, Attempt(*rows[0]), outcome_, tx.now, draw)
    task = tx.apply(settled.change)
    tx.db.execute(
        "UPDATE attempts SET status = ?, ended_at = ?, exit_code = ?, signal = ?, output_bytes = ?, error = ?, "
        "resources = ?, files_created = ? WHERE id = ?",
        (
            settled.attempt_status, max(tx.now, 0), outcome_.exit_code, outcome_.signal, outcome_.output_bytes,
            _optional(settled.attempt_error), _optional(outcome_.resources),
            _optional(outcome_.files_created or None), attempt_id,
        ),
    )  # fmt: skip
    if task.completed_at is not None and outcome_.result:
        tx.db.execute("INSERT INTO results (task_id, body) VALUES (?, ?)", (task_id, outcome_.result))
    return task


def _optional(value: object) -> str | None:
    return None if value is None else _JSON.encode(value).decode()


def _once(tx: Tx, once: Idempotency | None, make: Callable[[], Created]) -> Created:
    """A creating request, or the answer that its twin got. One that fails leaves nothing: it may be tried again."""
    if once is None:
        return make()
    row = tx.db.execute(
        "SELECT digest, body FROM idempotency WHERE scope = ? AND key = ?", (once.scope, once.key)
    ).fetchone()
    if row is not None:
        if row[0] != once.digest:
            raise Problem("conflict", "this Idempotency-Key was used with another body")
        return Created([], row[1], replayed=True)
    created = make()
    tx.db.execute(
        "INSERT INTO idempotency (scope, key, digest, body, created_at) VALUES (?, ?, ?, ?, ?)",
        (once.scope, once.key, once.digest, created.body, tx.now),
    )
    return created


def last_queued_at(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT max(queued_at) FROM tasks WHERE status = 'queued'").fetchone()
    return row[0] or 0
