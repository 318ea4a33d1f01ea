"""Deliveries as the dispatcher takes them, each endpoint by itself, and what an attempt makes of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping

import msgspec

from orchestr8d.core import delivery as rules
from orchestr8d.core import redact
from orchestr8d.core.delivery import MOST_ATTEMPTS, Delivery, Made, Verdict, Webhook
from orchestr8d.core.errors import LeaseLost
from orchestr8d.core.notices import NewNotice
from orchestr8d.store.sqlite import deliveries, webhooks
from orchestr8d.store.sqlite.deliveries import Failed
from orchestr8d.store.sqlite.notices import notify
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import Busy, DueDeliveries, Limits, Sending

_JSON = msgspec.json.Encoder()
_COLUMNS = ", ".join(f"d.{name}" for name in (*Delivery.__struct_fields__, "body"))
_FRESH = "status = 'pending' AND fresh = 1"
_AGAIN = "status = 'pending' AND fresh = 0"
# Endpoints with something to send, behind one: jumps along the indices, whatever waits at each. With whether there is a
# first attempt, and when the first of the others is due.
_NEXT = f"""SELECT min(found) FROM (
  SELECT min(endpoint) AS found FROM deliveries INDEXED BY deliveries_fresh WHERE {_FRESH} AND endpoint > {{0}}
  UNION ALL SELECT min(endpoint) FROM deliveries INDEXED BY deliveries_again WHERE {_AGAIN} AND endpoint > {{0}})"""
_RING = f"""WITH RECURSIVE ring (at) AS (
  {_NEXT.format("?1")} UNION ALL SELECT ({_NEXT.format("ring.at")}) FROM ring WHERE at IS NOT NULL)
  SELECT at, EXISTS (SELECT 1 FROM deliveries INDEXED BY deliveries_fresh WHERE {_FRESH} AND endpoint = at),
    (SELECT min(next_at) FROM deliveries INDEXED BY deliveries_again WHERE {_AGAIN} AND endpoint = at)
  FROM ring WHERE at IS NOT NULL"""
_FIRST = f"""SELECT {_COLUMNS} FROM deliveries d INDEXED BY deliveries_fresh
  WHERE {_FRESH} AND endpoint = ? ORDER BY place, seq LIMIT 1"""
_RETRIES = f"""SELECT {_COLUMNS} FROM deliveries d INDEXED BY deliveries_again
  WHERE {_AGAIN} AND endpoint = ? AND next_at <= ? ORDER BY next_at, seq LIMIT ?"""
_LATER = f"""SELECT min(next_at) FROM deliveries INDEXED BY deliveries_again
  WHERE {_AGAIN} AND endpoint = ? AND next_at > ?"""
# The first that waits for its first attempt, and the first of the others.
_OLDEST = f"""
  SELECT id FROM (SELECT id FROM deliveries INDEXED BY deliveries_fresh
    WHERE {_FRESH} AND endpoint = :at ORDER BY place, seq LIMIT 1) UNION ALL
  SELECT id FROM (SELECT id FROM deliveries INDEXED BY deliveries_again
    WHERE {_AGAIN} AND endpoint = :at ORDER BY next_at, seq LIMIT 1)"""
_NOBODY = Busy()


def due(db: sqlite3.Connection, busy: Mapping[str, Busy], now: int, most: int, after: str) -> DueDeliveries:
    """What may be sent now beside those that are `busy`, of one endpoint after the other in a ring from the one behind
    `after`, until there are `most`; and when there may be more."""
    known = {webhook.id: webhook for webhook in deliveries.webhooks(db)}
    found: list[Sending] = []
    times: list[int] = []
    for endpoint, has_first, retry_at in _ring(db, after):
        if len(found) >= most:
            break
        if retry_at is not None and retry_at > now:
            times.append(retry_at)
            if not has_first:
                continue
        webhook = known.get(endpoint)
        taken = busy.get(endpoint, _NOBODY)
        if webhook is not None and webhook.status != "active":
            # Held; of one that failed, a single delivery tries now and then whether it is well again.
            if webhook.probe_at is None or taken.ids:
                continue
            if webhook.probe_at > now:
                times.append(webhook.probe_at)
                continue
            rows = (_first(db, endpoint, taken) or _retries(db, endpoint, taken, now))[:1]
        else:
            rows = _first(db, endpoint, taken) + _retries(db, endpoint, taken, now)
        # Of one that is gone something may still wait to be given up.
        found += [s for row in rows if (s := _sending(row, known)).delivery.webhook_id is None or s.webhook is not None]
        later: int | None = db.execute(_LATER, (endpoint, now)).fetchone()[0]
        if later is not None:
            times.append(later)
    return DueDeliveries(found, min(times, default=None))


def _ring(db: sqlite3.Connection, after: str) -> Iterator[tuple[str, bool, int | None]]:
    """The endpoints with something to send, each once: those behind `after`, then the others."""
    yield from db.execute(_RING, (after,))
    for one in db.execute(_RING, ("",)):
        if one[0] > after:
            return
        yield one


def _first(db: sqlite3.Connection, endpoint: str, taken: Busy) -> list[tuple[object, ...]]:
    """The one that goes for the first time, unless one does."""
    return [] if taken.fresh else db.execute(_FIRST, (endpoint,)).fetchall()


def _retries(db: sqlite3.Connection, endpoint: str, taken: Busy, now: int) -> list[tuple[object, ...]]:
    room = rules.RETRIES_AT_ONCE - (len(taken.ids) - taken.fresh)
    if room <= 0:
        return []
    rows = db.execute(_RETRIES, (endpoint, now, room + len(taken.ids))).fetchall()
    return [row for row in rows if row[1] not in taken.ids][:room]


def _sending(row: tuple[object, ...], known: Mapping[str, Webhook]) -> Sending:
    *columns, body = row
    delivery = webhooks.read(tuple(columns))
    assert isinstance(body, bytes)
    webhook = None if delivery.webhook_id is None else known.get(delivery.webhook_id)
    if webhook is not None:
        # What waits goes where the subscription is now.
        delivery.url = webhook.url
    return Sending(delivery, body, webhook)


def done(tx: Tx, delivery: Delivery, made: Made, limits: Limits, draw: float) -> Delivery:
    """Records an attempt, fenced by how many there were before it. LeaseLost when it is not the delivery's next."""
    before = webhooks.one(tx.db, delivery.id)
    if (before.status, before.tries) != ("pending", delivery.tries):
        raise LeaseLost(f"delivery {delivery.id} is {before.status} after {before.tries} attempts")
    before.url = delivery.url
    webhook = None if before.webhook_id is None else webhooks.find(tx.db, before.webhook_id)
    steps = limits.callback_ladder if before.webhook_id is None else limits.ladder
    verdict = rules.judge(before, webhook, made, steps, tx.now, draw)
    after = msgspec.structs.replace(
        before, status=verdict.status, fresh=0, tries=before.tries + 1, retry_count=verdict.retry_count,
        next_at=verdict.next_at, done_at=None if verdict.status == "pending" else tx.now,
        attempts=[*before.attempts, made][-MOST_ATTEMPTS:],
    )  # fmt: skip
    tx.db.execute(
        "UPDATE deliveries SET url = ?, status = ?, fresh = 0, tries = ?, retry_count = ?, next_at = ?, done_at = ?, "
        "attempts = ? WHERE seq = ?",
        (
            after.url, after.status, after.tries, after.retry_count, after.next_at, after.done_at,
            _JSON.encode(after.attempts).decode(), after.seq,
        ),
    )  # fmt: skip
    if verdict.webhook is not None:
        webhooks.put(tx, verdict.webhook)
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
            tries = "one attempt" if delivery.tries == 0 else f"{delivery.tries + 1} attempts"
            message = f"{delivery.type} was not delivered to {url}: given up after {tries}{why}"
            _notify(tx, delivery, "A delivery was given up", message)
    if verdict.became is not None and verdict.webhook is not None:
        webhooks.tell_state(tx, verdict.webhook)
        if verdict.became == "resumed":
            _notify(tx, delivery, "A webhook goes on", f"{url} answers again: what waited is delivered now")
        else:
            _notify(tx, delivery, f"A webhook is {verdict.became}", f"{url}: {verdict.webhook.reason}")
    _keep_from(tx, first, about)


def tidy(tx: Tx, keep: float | None) -> bool:
    """Disables what was paused for so long that something has waited for it for more than `keep` seconds: that would
    grow for ever. Gives up a step's worth of what waits for those, and for those that are gone; whether there may be
    more."""
    known = {webhook.id: webhook for webhook in deliveries.webhooks(tx.db)}
    for endpoint, *_ in list(_ring(tx.db, "")):
        first_ones = [webhooks.one(tx.db, row[0]) for row in tx.db.execute(_OLDEST, {"at": endpoint})]
        oldest = min(first_ones, key=_waits_since)
        if oldest.webhook_id is None:
            continue
        webhook = known.get(oldest.webhook_id)
        if webhook is not None and webhook.status != "disabled":
            if webhook.status == "active" or keep is None or _waits_since(oldest) >= tx.now - keep * 1000:
                continue
            _disable(tx, webhook, oldest)
        if webhooks.give_up(tx, oldest.webhook_id):
            return True
    return False


def _waits_since(delivery: Delivery) -> int:
    assert delivery.next_at is not None
    return delivery.next_at


def _disable(tx: Tx, webhook: Webhook, oldest: Delivery) -> None:
    first = tx.numbers[1] + 1
    after = rules.disabled(webhook, "it was paused for longer than deliveries are kept")
    webhooks.put(tx, after)
    _notify(tx, oldest, "A webhook is disabled", f"{redact.text(webhook.url)}: {after.reason}")
    _keep_from(tx, first, Failed(webhook.id, webhook.id, webhook.url))


def _keep_from(tx: Tx, first: int, about: Failed) -> None:
    """The events from the number `first` on never go to the endpoint that they tell of."""
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
