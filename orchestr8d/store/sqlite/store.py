"""The store on one SQLite file: each verb loads, lets core decide, applies, in one transaction of the writer."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestr8d.core import steering
from orchestr8d.core.admission import Facts
from orchestr8d.core.delivery import GONE, Made, Webhook
from orchestr8d.core.delivery import Delivery as WebhookDelivery
from orchestr8d.core.errors import Problem, did_you_mean
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
from orchestr8d.core.notices import Delivery, NewNotice, Notice
from orchestr8d.core.outcome import Outcome
from orchestr8d.core.standing import Standing
from orchestr8d.events import Event
from orchestr8d.store.sqlite import (
    deliveries,
    endings,
    funds,
    notices,
    reads,
    running,
    schema,
    sending,
    submitting,
    task_views,
    upkeep,
    webhooks,
    workflows,
)
from orchestr8d.store.sqlite.lanes import Lanes, open_account
from orchestr8d.store.sqlite.schedule_store import ScheduleVerbs
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.sqlite.workflow_store import WorkflowVerbs
from orchestr8d.store.types import (
    Answer,
    Busy,
    Claim,
    Claimed,
    Created,
    DeliveryFilter,
    DueDeliveries,
    DueNotice,
    EventFilter,
    Expired,
    Followup,
    Idempotency,
    NoticeFilter,
    Retention,
    TaskFilter,
    Told,
)

# Steps of the full-text index that a search waits for.
_SEARCH_STEPS = 400


class SqliteStore(WorkflowVerbs, ScheduleVerbs):
    """Implements store.Store; made by `open_store`."""

    # -- submit and steer

    async def submit(self, new: Sequence[NewTask], answer: Answer, once: Idempotency | None = None) -> Created:
        def unit(tx: Tx) -> Created:
            return submitting.once(tx, once, lambda: self._admit(tx, new, answer))

        return await self._writer.do(unit)

    def _admit(self, tx: Tx, new: Sequence[NewTask], answer: Answer) -> Created:
        self._check_space(tx)
        return submitting.admit(tx, new, answer, self._limits, self._follower)

    async def retry(self, task_id: str, answer: Answer, once: Idempotency | None = None) -> Created:
        def again(tx: Tx) -> Created:
            task = reads.task(tx.db, task_id)
            steering.check_in_workflow(task, None, "retried")
            new = steering.retry(task, reads.statuses(tx.db, task.read_spec().depends_on))
            return self._admit(tx, [new], answer)

        return await self._writer.do(lambda tx: submitting.once(tx, once, lambda: again(tx)))

    async def cancel(self, task_id: str) -> Task:
        return await self._writer.do(lambda tx: submitting.cancel(tx, reads.task(tx.db, task_id)))

    async def pause(self, task_id: str) -> Task:
        def unit(tx: Tx) -> Task:
            task = reads.task(tx.db, task_id)
            steering.check_in_workflow(task, workflows.node_of(tx.db, task_id), "paused")
            return tx.apply(steering.pause(task))

        return await self._writer.do(unit)

    async def resume(self, task_id: str) -> Task:
        def unit(tx: Tx) -> Task:
            f = self._follower
            head_start = f.limits.head_start
            task = tx.apply(steering.resume(reads.task(tx.db, task_id), tx.now, f.last_queued_at, head_start))
            f.note(task)
            return task

        return await self._writer.do(unit)

    async def edit(self, task_id: str, change: Callable[[Task], NewTask]) -> Task:
        def unit(tx: Tx) -> Task:
            f = self._follower
            task = reads.task(tx.db, task_id)
            steering.check_in_workflow(task, workflows.node_of(tx.db, task_id), "changed")
            new = change(task)
            limits = self._limits
            facts = Facts(
                tx.depth(new.queue), limits.queue_depth, limits.head_start, last_queued_at=f.last_queued_at
            )  # fmt: skip
            after = tx.apply(steering.edit(task, new, facts, tx.now))
            f.note(after)
            upkeep.retext(tx, task, after)
            # What it is due for may be nearer now, of which its events say nothing.
            tx.quiet.append(after.id)
            return after

        return await self._writer.do(unit)

    # -- what follows from an end

    async def followups(self, after: int, limit: int) -> list[Followup]:
        return await self._read(endings.due, after, limit)

    async def follow_up(self, due: Followup, new: NewTask) -> Task | None:
        def unit(tx: Tx) -> Task | None:
            if not endings.take(tx, due):
                return None
            new_one = endings.follows(reads.task(tx.db, due.task_id), new)
            return self._admit(tx, [new_one], lambda _: b"").tasks[0]

        return await self._writer.do(unit)

    async def drop_followup(self, due: Followup, reason: str) -> None:
        await self._writer.do(lambda tx: endings.drop(tx, due, reason))

    # -- run

    async def claim(self, executor_id: str, free: int) -> Claimed:
        def unit(tx: Tx) -> Claimed:
            due, held = running.moves_at(tx)
            if due is not None and due <= tx.now:
                more = running.move_due(tx, self._follower)
                due, held = running.moves_at(tx)
                due = tx.now if more else due
            lanes = Lanes(tx, self._follower)
            more = held and lanes.step()
            may = free > 0 and self._has_space(tx)
            claimed = running.claim(tx, self._follower, lanes, executor_id, free) if may else []
            # Those that were refused made way for others, who may be parked still.
            opens = lanes.opens_at() if held or lanes.refused else None
            times = (due, running.opens_at(tx), opens, tx.now if more or lanes.refused else None)
            return Claimed(claimed, min((at for at in times if at is not None), default=None))

        return await self._writer.do(unit)

    async def finish(self, task_id: str, attempt_id: str, executor_id: str, outcome: Outcome) -> Task:
        draw = random.random()  # noqa: S311 (spreads retries out, no secret)
        of = self._limits.budgets
        return await self._writer.do(lambda tx: running.finish(tx, of, task_id, attempt_id, executor_id, outcome, draw))

    async def progress(self, task_id: str, attempt_id: str, progress: Progress) -> Task:
        def unit(tx: Tx) -> Task:
            task = reads.task(tx.db, task_id)
            row = tx.db.execute("SELECT status, task_id FROM attempts WHERE id = ?", (attempt_id,)).fetchone()
            if row != ("running", task_id):
                raise Problem("conflict", f"attempt {attempt_id} of task {task_id} does not run any more")
            return tx.apply(steering.progress(task, attempt_id, progress))

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

    # -- accounts and budgets

    async def standing(self) -> Standing:
        return await self._read(upkeep.standing, self._limits, self._clock.now())

    async def open_account(self, name: str | None) -> None:
        known = [account.name for account in self._limits.accounts]
        if name is not None and name not in known:
            raise Problem("not-found", f"there is no account {name}{did_you_mean(name, known)}")
        await self._writer.do(lambda tx: open_account(tx, name))

    async def recheck_budgets(self, after: int) -> int | None:
        return await self._writer.do(lambda tx: funds.recheck(tx, self._limits.budgets, after))

    # -- notifications

    async def notify(
        self, new: NewNotice, answer: Callable[[str], bytes], once: Idempotency | None = None
    ) -> tuple[bytes, bool]:
        def unit(tx: Tx) -> Created:
            self._check_space(tx)
            return submitting.once(tx, once, lambda: Created([], answer(notices.notify(tx, new))))

        created = await self._writer.do(unit)
        return created.body, created.replayed

    async def notices(self, wanted: NoticeFilter, limit: int, before: int | None) -> list[Notice]:
        return await self._read(notices.listed, wanted, limit, before)

    async def notice(self, notice_id: str) -> tuple[Notice, list[Delivery]]:
        return await self._read(notices.with_channels, notice_id)

    async def ack(self, notice_id: str) -> Notice:
        return await self._writer.do(lambda tx: notices.ack(tx, notice_id))

    async def ack_all(self, user_id: str | None) -> int:
        count = 0
        while step := await self._writer.do(lambda tx: notices.ack_some(tx, user_id)):
            count += step
        return count

    async def due_notices(self, busy: Collection[tuple[str, str]], limit: int) -> tuple[list[DueNotice], int | None]:
        return await self._read(notices.due, busy, limit, self._clock.now())

    async def told(self, results: Sequence[Told]) -> None:
        await self._writer.do(lambda tx: notices.told(tx, results))

    async def recheck_held(self) -> None:
        await self._writer.do(notices.recheck_held)

    # -- executors, queues, tokens

    async def register(self, executor: Executor) -> None:
        await self._writer.do(lambda tx: upkeep.register(tx, executor))

    async def heartbeat(self, executor_id: str, slots: int, running: int, state: str) -> None:
        await self._writer.do(lambda tx: upkeep.heartbeat(tx, executor_id, slots, running, state))

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
            tx.quiet.append(name)
            return reads.queues(tx.db, tx.now, [name])[0]

        return await self._writer.do(unit)

    async def add_token(self, token: Token, body: bytes, once: Idempotency | None = None) -> tuple[bytes, bool]:
        def add(tx: Tx) -> Created:
            upkeep.add_token(tx, token)
            return Created([], body)

        created = await self._writer.do(lambda tx: submitting.once(tx, once, lambda: add(tx)))
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
        return await self._read(task_views.view, task_id, self._clock.now(), self._limits)

    async def views(self, wanted: TaskFilter, limit: int, before: int | None) -> list[TaskView]:
        if wanted.q is not None:
            # Bounded: whoever submits without a pause does not keep a search waiting.
            for _ in range(_SEARCH_STEPS):
                if not await self.index_text():
                    break
        return await self._read(task_views.views, wanted, limit, before, self._clock.now(), self._limits)

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

    # -- webhooks and deliveries

    async def add_webhook(self, webhook: Webhook, body: bytes, once: Idempotency | None = None) -> tuple[bytes, bool]:
        def add(tx: Tx) -> Created:
            webhooks.put(tx, webhook)
            return Created([], body)

        created = await self._writer.do(lambda tx: submitting.once(tx, once, lambda: add(tx)))
        return created.body, created.replayed

    async def webhooks(self) -> list[Webhook]:
        return await self._read(deliveries.webhooks)

    async def webhook(self, webhook_id: str) -> Webhook:
        return await self._read(webhooks.webhook, webhook_id)

    async def change_webhook(self, webhook_id: str, decide: Callable[[Webhook], Webhook]) -> Webhook:
        return await self._writer.do(lambda tx: webhooks.change(tx, webhook_id, decide))

    async def remove_webhook(self, webhook_id: str) -> Webhook:
        gone = await self._writer.do(lambda tx: webhooks.remove(tx, webhook_id))
        await self._give_up(webhook_id)
        return gone

    async def _give_up(self, webhook_id: str) -> None:
        """What waits for a subscription that is gone or disabled. What a crash leaves is found by `prune_log`."""
        while await self._writer.do(lambda tx: webhooks.give_up(tx, webhook_id)):
            pass

    async def test_webhook(self, webhook_id: str) -> WebhookDelivery:
        return await self._writer.do(lambda tx: webhooks.test(tx, webhook_id))

    async def due_deliveries(self, busy: Mapping[str, Busy], most: int, after: str = "") -> DueDeliveries:
        return await self._read(sending.due, busy, self._clock.now(), most, after)

    async def delivery_done(self, delivery: WebhookDelivery, made: Made) -> WebhookDelivery:
        draw = random.random()  # noqa: S311 (spreads retries out, no secret)
        after = await self._writer.do(lambda tx: sending.done(tx, delivery, made, self._limits, draw))
        if after.webhook_id is not None and made.status_code == GONE:
            await self._give_up(after.webhook_id)
        return after

    async def delivery(self, delivery_id: str) -> WebhookDelivery:
        return await self._read(webhooks.one, delivery_id)

    async def deliveries(self, wanted: DeliveryFilter, limit: int, before: int | None) -> list[WebhookDelivery]:
        return await self._read(webhooks.page, wanted, limit, before)

    async def redeliver(self, delivery_id: str) -> WebhookDelivery:
        return await self._writer.do(lambda tx: webhooks.redeliver(tx, delivery_id))

    async def redeliver_all(self, wanted: DeliveryFilter) -> int:
        count, before = 0, None
        while True:
            more, before = await self._redeliver_some(wanted, before)
            count += more
            if before is None:
                return count

    async def _redeliver_some(self, wanted: DeliveryFilter, before: int | None) -> tuple[int, int | None]:
        return await self._writer.do(lambda tx: webhooks.redeliver_all(tx, wanted, before))

    # -- upkeep

    async def index_text(self) -> bool:
        if not await self._read(upkeep.text_waits):
            return False
        return await self._writer.do(upkeep.index_text)

    async def expired(self, retention: Retention) -> list[Expired]:
        return await self._read(upkeep.expired, retention, self._clock.now())

    async def remove(self, task_ids: Sequence[str]) -> None:
        await self._writer.do(lambda tx: upkeep.remove(tx, task_ids, self._limits.budgets))

    async def prune_log(self, retention: Retention) -> bool:
        return await self._writer.do(lambda tx: upkeep.prune_log(tx, retention, self._limits.budgets))

    async def backup(self, target: Path) -> None:
        await asyncio.to_thread(schema.backup_file, self._path, target)


def last_queued_at(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT max(queued_at) FROM tasks WHERE status = 'queued'").fetchone()
    return row[0] or 0
