"""Deliveries as the dispatcher takes them, each endpoint by itself, and what an attempt makes of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import msgspec

from orchestr8d.core import delivery as rules
from orchestr8d.core import redact
from orchestr8d.core.delivery import MOST_ATTEMPTS, Delivery, Made, Verdict, Webhook
from orchestr8d.core.errors import LeaseLost
from orchestr8d.core.notices import NewNotice
from orchestr8d.store import Busy, DueDeliveries, Limits, Sending
from orchestr8d.store.sqlite import deliveries, webhooks
from orchestr8d.store.sqlite.deliveries import Failed
from orchestr8d.store.sqlite.notices import notify
from orchestr8d.store.sqlite.transaction import Tx

_JSON = msgspec.json.Encoder()
_COLUMNS = ", ".join(f"d.{name}" for name in (*Delivery.__struct_fields__, "body"))
_FRESH = "status = 'pending' AND fresh = 1"
_AGAIN = "status = 'pending' AND fresh = 0"
# The next endpoint with something to send: a jump along the index, whatever waits at each.
_NEXT = "SELECT min(endpoint) FROM deliveries INDEXED BY {index} WHERE {where} AND endpoint > ?"
_ORDER = {_FRESH: "place, seq", _AGAIN: "next_at, seq"}
_INDEX = {_FRESH: "deliveries_fresh", _AGAIN: "deliveries_again"}
_NOBODY = Busy()


def due(db: sqlite3.Connection, busy: Mapping[str, Busy], now: int, most: int) -> DueDeliveries:
    """Up to `most` that may be sent now, beside those that are `busy`; and when there may be more."""
    known = {webhook.id: webhook for webhook in deliveries.webhooks(db)}
    found: list[Sending] = []
    times: list[int] = []
    probing = {endpoint for endpoint, b in busy.items() if b.ids}
    for where in (_FRESH, _AGAIN):
        endpoint: str | None = ""
        while len(found) < most and (endpoint := _next(db, where, endpoint)):
            webhook = known.get(endpoint)
            at_once = 1 if where == _FRESH else rules.RETRIES_AT_ONCE
            taken = busy.get(endpoint, _NOBODY)
            room = at_once - (taken.fresh if where == _FRESH else len(taken.ids) - taken.fresh)
            if webhook is not None and webhook.status != "active":
                # Held; of one that failed, a single delivery tries now and then whether it is well again.
                if webhook.probe_at is None or endpoint in probing:
                    continue
                if webhook.probe_at > now:
                    times.append(webhook.probe_at)
                    continue
                room = 1
            chosen, next_at = _of(db, where, endpoint, taken, now, min(room, most - len(found)))
            if webhook is not None and webhook.status != "active" and chosen:
                probing.add(endpoint)
            found += [_sending(row, known) for row in chosen]
            if next_at is not None:
                times.append(next_at)
    return DueDeliveries(found, min(times, default=None))


def _next(db: sqlite3.Connection, where: str, after: str | None) -> str | None:
    found: str | None = db.execute(_NEXT.format(index=_INDEX[where], where=where), (after,)).fetchone()[0]
    return found


def _of(
    db: sqlite3.Connection, where: str, endpoint: str, taken: Busy, now: int, room: int
) -> tuple[list[tuple[object, ...]], int | None]:
    """Of one endpoint: rows of those that may be sent now, and when the next one that waits for its time may."""
    if room <= 0:
        return [], None
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM deliveries d INDEXED BY {_INDEX[where]} WHERE {where} AND endpoint = ? "
        f"ORDER BY {_ORDER[where]} LIMIT ?",
        (endpoint, room + len(taken.ids)),
    ).fetchall()
    at = Delivery.__struct_fields__.index("next_at")
    waiting = [row for row in rows if row[1] not in taken.ids]
    ready = [row for row in waiting if row[at] <= now or where == _FRESH][:room]
    later = [row[at] for row in waiting if row[at] > now and where == _AGAIN]
    return ready, min(later, default=None)


def _sending(row: tuple[object, ...], known: Mapping[str, Webhook]) -> Sending:
    *columns, body = row
    delivery = webhooks.read(tuple(columns))
    assert isinstance(body, bytes)
    return Sending(delivery, body, None if delivery.webhook_id is None else known.get(delivery.webhook_id))


def done(tx: Tx, delivery: Delivery, made: Made, limits: Limits, draw: float) -> Delivery:
    """Records an attempt, fenced by how many there were before it. LeaseLost when it is not the delivery's next."""
    before = webhooks.one(tx.db, delivery.id)
    if (before.status, before.tries) != ("pending", delivery.tries):
        raise LeaseLost(f"delivery {delivery.id} is {before.status} after {before.tries} attempts")
    webhook = None if before.webhook_id is None else webhooks.find(tx.db, before.webhook_id)
    steps = limits.callback_ladder if before.webhook_id is None else limits.ladder
    verdict = rules.judge(before, webhook, made, steps, tx.now, draw)
    after = msgspec.structs.replace(
        before, status=verdict.status, fresh=0, tries=before.tries + 1, retry_count=verdict.retry_count,
        next_at=verdict.next_at, done_at=None if verdict.status == "pending" else tx.now,
        attempts=[*before.attempts, made][-MOST_ATTEMPTS:],
    )  # fmt: skip
    tx.db.execute(
        "UPDATE deliveries SET status = ?, fresh = 0, tries = ?, retry_count = ?, next_at = ?, done_at = ?, "
        "attempts = ? WHERE seq = ?",
        (
            after.status, after.tries, after.retry_count, after.next_at, after.done_at,
            _JSON.encode(after.attempts).decode(), after.seq,
        ),
    )  # fmt: skip
    if verdict.webhook is not None:
        webhooks.put(tx, verdict.webhook)
        if verdict.became == "disabled":
            webhooks.give_up(tx, verdict.webhook.id)
    _tell(tx, before, made, verdict)
    return after


def _tell(tx: Tx, delivery: Delivery, made: Made, verdict: Verdict) -> None:
    """Events and notices of an attempt; they never go to the endpoint that they tell of. What becomes of deliveries
    that tell of deliveries is in their rows only: two subscriptions to everything would tell each other for ever."""
    about = Failed(delivery.endpoint, delivery.webhook_id, delivery.url)
    first = tx.numbers[1] + 1
    url = redact.text(delivery.url)
    if not delivery.quiet:
        said = {"url": url, **rules.told(delivery, made, verdict)}
        tx.tell("webhook.delivered" if made.good else "webhook.failed", said)
        if verdict.status == "dead":
            tx.tell("webhook.dead", said)
            why = "" if made.error is None else f" ({redact.text(made.error.message)})"
            message = f"{delivery.type} was not delivered to {url}: given up after {delivery.tries + 1} attempts{why}"
            _notify(tx, delivery, "A delivery was given up", message)
    if verdict.became is not None and verdict.webhook is not None:
        webhooks.tell_state(tx, verdict.webhook)
        if verdict.became == "resumed":
            _notify(tx, delivery, "A webhook goes on", f"{url} answers again: what waited is delivered now")
        else:
            _notify(tx, delivery, f"A webhook is {verdict.became}", f"{url}: {verdict.webhook.reason}")
    for event_id in range(first, tx.numbers[1] + 1):
        tx.tells_of[event_id] = about


def _notify(tx: Tx, delivery: Delivery, title: str, message: str) -> None:
    about = {"delivery_id": delivery.id, "webhook_id": delivery.webhook_id, "url": redact.text(delivery.url)}
    notify(
        tx,
        NewNotice(
            user_id=delivery.user_id, type="alert", title=title, message=message, priority="high",
            task_id=delivery.task_id, metadata=about, not_to=delivery.url,
        ),
    )  # fmt: skip
