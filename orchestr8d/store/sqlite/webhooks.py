"""Subscriptions and deliveries as people see and steer them; deliveries that are past their keep go."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from orchestr8d.core import delivery as rules
from orchestr8d.core.delivery import Delivery, Made, Webhook
from orchestr8d.core.errors import Problem
from orchestr8d.store.sqlite import deliveries
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import DeliveryFilter

_JSON = msgspec.json.Encoder()
_COLUMNS = ", ".join(Webhook.__struct_fields__)
DELIVERY_COLUMNS = ", ".join(Delivery.__struct_fields__)
_LISTS = frozenset({"events", "headers", "secrets"})
# Deliveries that are sent again, or given up, by one transaction.
STEP = 500
_GIVE_UP = """UPDATE deliveries SET status = 'dead', fresh = 0, next_at = NULL, done_at = ?1 WHERE seq IN (
  SELECT seq FROM deliveries INDEXED BY deliveries_fresh
    WHERE status = 'pending' AND fresh = 1 AND endpoint IN (?2, ?3) UNION ALL
  SELECT seq FROM deliveries INDEXED BY deliveries_again
    WHERE status = 'pending' AND fresh = 0 AND endpoint IN (?2, ?3) LIMIT ?4)"""


def find(db: sqlite3.Connection, webhook_id: str) -> Webhook | None:
    row = db.execute(f"SELECT {_COLUMNS} FROM webhooks WHERE id = ?", (webhook_id,)).fetchone()
    return None if row is None else deliveries.read_webhook(row)


def webhook(db: sqlite3.Connection, webhook_id: str) -> Webhook:
    """Problem(not-found) when there is none."""
    found = find(db, webhook_id)
    if found is None:
        raise Problem("not-found", f"there is no webhook {webhook_id}")
    return found


def put(tx: Tx, after: Webhook) -> None:
    """A new subscription, or one as it is now."""
    row = [
        _JSON.encode(value).decode() if name in _LISTS else value
        for name, value in zip(Webhook.__struct_fields__, msgspec.structs.astuple(after), strict=True)
    ]
    tx.db.execute(f"INSERT OR REPLACE INTO webhooks ({_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)
    tx.subscriptions.forget()
    # One that is active again has deliveries that may go.
    tx.work.add("deliveries")


def change(tx: Tx, webhook_id: str, decide: Callable[[Webhook], Webhook]) -> Webhook:
    before = webhook(tx.db, webhook_id)
    after = decide(before)
    put(tx, after)
    if after.status != before.status:
        tell_state(tx, after)
    return after


def tell_state(tx: Tx, after: Webhook) -> None:
    """The event that a subscription was paused or goes on; one that is disabled is told by its dead delivery."""
    type_ = {"paused": "webhook.paused", "active": "webhook.resumed"}.get(after.status)
    if type_ is not None:
        tx.tells_of[tx.numbers[1] + 1] = deliveries.Failed(after.id, after.id, after.url)
        tx.tell(type_, {"webhook_id": after.id, "reason": after.reason, "probe": after.probe_at is not None})


def remove(tx: Tx, webhook_id: str) -> Webhook:
    """The subscription goes; what still waits for it is to be given up."""
    gone = webhook(tx.db, webhook_id)
    tx.db.execute("DELETE FROM webhooks WHERE id = ?", (webhook_id,))
    tx.subscriptions.forget()
    return gone


def give_up(tx: Tx, webhook_id: str) -> bool:
    """A step's worth of what waits for a subscription that is gone or disabled; whether there may be more."""
    to = find(tx.db, webhook_id)
    if to is not None and to.status != "disabled":
        # It was resumed meanwhile.
        return False
    given_up = tx.db.execute(_GIVE_UP, (tx.now, webhook_id, deliveries.TESTS + webhook_id, STEP)).rowcount
    return given_up == STEP


def test(tx: Tx, webhook_id: str) -> Delivery:
    return one(tx.db, deliveries.test(tx, webhook(tx.db, webhook_id)))


# -- deliveries


def read(row: Sequence[Any]) -> Delivery:
    found = dict(zip(Delivery.__struct_fields__, row, strict=True))
    found["attempts"] = msgspec.json.decode(found["attempts"], type=list[Made])
    return Delivery(**found)


def one(db: sqlite3.Connection, delivery_id: str) -> Delivery:
    """Problem(not-found) when there is none."""
    row = db.execute(f"SELECT {DELIVERY_COLUMNS} FROM deliveries WHERE id = ?", (delivery_id,)).fetchone()
    if row is None:
        raise Problem("not-found", f"there is no delivery {delivery_id}")
    return read(row)


def page(db: sqlite3.Connection, wanted: DeliveryFilter, limit: int, before: int | None) -> list[Delivery]:
    """Newest first."""
    # A literal: an index over some states is of no use for a parameter.
    where, args = ["TRUE" if wanted.status is None else f"status = '{wanted.status}'"], list[Any]()
    for condition, value in (
        ("webhook_id = ?", wanted.webhook_id), ("task_id = ?", wanted.task_id), ("created_at >= ?", wanted.since),
        ("user_id = ?", wanted.user_id), ("seq < ?", before),
    ):  # fmt: skip
        if value is not None:
            where.append(condition)
            args.append(value)
    sql = f"SELECT {DELIVERY_COLUMNS} FROM deliveries WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?"
    return [read(row) for row in db.execute(sql, (*args, limit))]


def redeliver(tx: Tx, delivery_id: str) -> Delivery:
    before = one(tx.db, delivery_id)
    if before.webhook_id is not None:
        to = find(tx.db, before.webhook_id)
        if to is None or to.status == "disabled":
            raise Problem("conflict", "its webhook was removed" if to is None else "its webhook is disabled: resume it")
    _again(tx, before)
    return one(tx.db, delivery_id)


def _again(tx: Tx, before: Delivery) -> None:
    """Sent once more, with a ladder of its own; one that has not been tried keeps its turn."""
    if before.fresh:
        return
    tx.db.execute(
        "UPDATE deliveries SET status = 'pending', retry_count = 0, next_at = ?, done_at = NULL WHERE seq = ?",
        (tx.now, before.seq),
    )
    tx.work.add("deliveries")


def redeliver_all(tx: Tx, wanted: DeliveryFilter, before: int | None) -> tuple[int, int | None]:
    """A step's worth of those that match, newest first; how many will be sent again, and where to go on."""
    found = page(tx.db, wanted, STEP, before)
    takers = {None, *(w.id for w in deliveries.webhooks(tx.db) if w.status != "disabled")}
    again = [delivery for delivery in found if delivery.webhook_id in takers]
    for delivery in again:
        _again(tx, delivery)
    return len(again), found[-1].seq if len(found) == STEP else None


# -- upkeep


def shift(tx: Tx, ms: int) -> None:
    """The wall clock was set: waits between attempts are durations."""
    tx.db.execute("UPDATE deliveries SET next_at = next_at + ? WHERE status = 'pending' AND fresh = 0", (ms,))
    for before in deliveries.webhooks(tx.db):
        put(tx, rules.shifted(before, ms))


def prune(tx: Tx, keep: float | None, step: int) -> int:
    """Removes up to `step` deliveries that ended `keep` seconds ago; answers how many."""
    if keep is None:
        return 0
    return tx.db.execute(
        "DELETE FROM deliveries WHERE seq IN "
        "(SELECT seq FROM deliveries WHERE done_at IS NOT NULL AND done_at < ? ORDER BY done_at LIMIT ?)",
        (tx.now - round(keep * 1000), step),
    ).rowcount
