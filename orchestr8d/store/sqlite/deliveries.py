"""What is to be delivered: a row for each event and whoever wants it, written in the event's own transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from orchestr8d.core import addresses, payload
from orchestr8d.core.delivery import TEST, Secret, Webhook
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import Task
from orchestr8d.events import Event

if TYPE_CHECKING:
    import sqlite3

    from orchestr8d.store.sqlite.transaction import Tx

# Tests of a subscription go to an endpoint of their own, which begins so: they wait for nothing.
TESTS = "test:"
_JSON = msgspec.json.Encoder()
_INSERT = (
    "INSERT INTO deliveries (id, endpoint, webhook_id, url, method, event_id, place, type, task_id, user_id, "
    "quiet, status, fresh, tries, retry_count, next_at, created_at, attempts, body) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending', ?, 0, 0, ?, ?, '[]', ?) "
    # Two actions of a task may name one URL.
    "ON CONFLICT (event_id, endpoint, url) WHERE event_id IS NOT NULL DO NOTHING"
)


class Failed(msgspec.Struct, frozen=True):
    """An endpoint that an event tells of: it is never told itself."""

    endpoint: str
    webhook_id: str | None
    url: str

    def is_of(self, webhook: Webhook) -> bool:
        if self.webhook_id is None:
            return addresses.place(webhook.url).origin == self.endpoint
        return webhook.id == self.webhook_id or webhook.url == self.url


class Subscriptions:
    """The subscriptions that events are written for, kept in memory: without any, an event costs nothing."""

    def __init__(self) -> None:
        self._known: list[Webhook] | None = None

    def forget(self) -> None:
        """They have changed, or a change of them was undone."""
        self._known = None

    def get(self, db: sqlite3.Connection) -> list[Webhook]:
        if self._known is None:
            self._known = [webhook for webhook in webhooks(db) if webhook.status != "disabled"]
        return self._known


def webhooks(db: sqlite3.Connection) -> list[Webhook]:
    """All there are, oldest first."""
    rows = db.execute(f"SELECT {', '.join(Webhook.__struct_fields__)} FROM webhooks")
    return sorted(map(read_webhook, rows), key=lambda webhook: (webhook.created_at, webhook.id))


def read_webhook(row: Sequence[Any]) -> Webhook:
    found = dict(zip(Webhook.__struct_fields__, row, strict=True))
    found["events"] = msgspec.json.decode(found["events"], type=list[str])
    found["headers"] = msgspec.json.decode(found["headers"], type=dict[str, str])
    found["secrets"] = msgspec.json.decode(found["secrets"], type=list[Secret])
    return Webhook(**found)


def fan_out(tx: Tx, events: Sequence[Event]) -> None:
    """The events of a transaction, to whoever subscribed to them."""
    subscribed = tx.subscriptions.get(tx.db)
    if not subscribed:
        return
    for event in events:
        about = tx.tells_of.get(event.id)
        takers = [
            webhook
            for webhook in subscribed
            if webhook.takes(event.type)
            and webhook.user_id in (None, event.user_id)
            and not (about is not None and about.is_of(webhook))
        ]
        if takers:
            body = _body(tx, event)
            for webhook in takers:
                _add(tx, event, body, webhook.id, webhook.id, webhook.url, "POST", int(about is not None))


def callback(tx: Tx, task: Task, url: str, method: str) -> None:
    """The final event of a task, to its callback URL; in the transaction that ends the task."""
    type_ = f"task.{task.status}"
    event = next((e for e in reversed(tx.events) if e.task_id == task.id and e.type == type_), None)
    if event is None:
        raise RuntimeError(f"task {task.id} is {task.status}, and no event of this transaction says so")
    _add(tx, event, _body(tx, event), addresses.place(url).origin, None, url, method, 0)


def workflow_callback(tx: Tx, workflow_id: str, url: str) -> None:
    """The final event of a workflow, just told, to its callback URL."""
    event = tx.events[-1]
    if event.workflow_id != workflow_id:
        raise RuntimeError(f"the last event of this transaction is not of workflow {workflow_id}")
    _add(tx, event, _body(tx, event), addresses.place(url).origin, None, url, "POST", 0)


def test(tx: Tx, webhook: Webhook) -> str:
    """A delivery that only tries the subscription: it waits for nothing, and is no event of the log."""
    event = Event(tx.numbers[1], TEST, tx.now, None, None, webhook.user_id, msgspec.Raw(b'{"test":true}'))
    body = _body(tx, event)
    return _add(tx, event, body, TESTS + webhook.id, webhook.id, webhook.url, "POST", 1)


def _body(tx: Tx, event: Event) -> bytes:
    happened = payload.Happened(
        event.type, event.at, event.task_id, event.workflow_id, event.user_id, msgspec.json.decode(event.data)
    )
    if not payload.is_final(event.type):
        return payload.body(happened)
    row = tx.db.execute(
        "SELECT t.result_type, r.body FROM tasks t LEFT JOIN results r ON r.task_id = t.id WHERE t.id = ?",
        (event.task_id,),
    ).fetchone()
    result_type, result = row or (None, None)
    # No output has no row.
    return payload.body(happened, b"" if result is None and result_type == "text" else result, result_type)


def _add(
    tx: Tx, event: Event, body: bytes, endpoint: str, webhook_id: str | None, url: str, method: str, quiet: int
) -> str:
    delivery_id = uuid7(tx.now)
    is_test = event.type == TEST
    tx.db.execute(
        _INSERT,
        (
            delivery_id, endpoint, webhook_id, url, method, None if is_test else event.id, event.id, event.type,
            event.task_id, event.user_id or "local", quiet, 1, tx.now, tx.now, body,
        ),
    )  # fmt: skip
    tx.work.add("deliveries")
    return delivery_id
