"""Deliveries and the subscriptions that they are for: what they are, and what an attempt makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from orchestr8d.core import ladder
from orchestr8d.core.durations import iso
from orchestr8d.core.model import Error

DeliveryStatus = Literal["pending", "delivered", "dead"]
WebhookStatus = Literal["active", "paused", "disabled"]

TEST: Final = "webhook.test"
# A subscription is paused after so many deliveries in a row, or so long without a success, in milliseconds.
MOST_FAILURES: Final = 20
MOST_FAILING: Final = 5 * 86_400_000
# Seconds between two probes of a paused one; the last stays.
PROBES: Final = (60.0, 300.0, 900.0, 3600.0)
# Secrets that sign at once, however often they are replaced: each adds to a header.
MOST_SECRETS: Final = 5
# How long a replaced secret still signs, in milliseconds.
ROTATION: Final = 24 * 3_600_000
# Retries to one endpoint under way side by side.
RETRIES_AT_ONCE: Final = 4
# Of a delivery's attempts the last ones are kept.
MOST_ATTEMPTS: Final = 25
# "Gone": nobody listens there any more.
GONE: Final = 410


class Secret(msgspec.Struct):
    """`until`: wall-clock milliseconds up to which it signs; None for the one that holds."""

    text: str
    until: int | None = None


class Webhook(msgspec.Struct):
    """A row of the webhooks table: a subscription."""

    id: str
    url: str
    # Types of events; those that end in `*` stand for all that begin so.
    events: list[str]
    user_id: str | None
    headers: dict[str, str]
    secrets: list[Secret]
    status: WebhookStatus
    # Why it is not active: a person's pause, its failures, its answer 410.
    reason: str | None
    created_at: int
    # Deliveries that failed in a row, and since when nothing but that.
    failures: int = 0
    failing_since: int | None = None
    # Paused for its failures: when one delivery tries whether it is well again, and how many tried in vain.
    probe_at: int | None = None
    probes: int = 0

    def takes(self, type_: str) -> bool:
        return any(type_ == e or (e.endswith("*") and type_.startswith(e[:-1])) for e in self.events)


class Made(msgspec.Struct, omit_defaults=True):
    """One attempt at a delivery. `duration` is seconds, `body` what was read of the answer."""

    at: int
    status_code: int | None = None
    error: Error | None = None
    duration: float = 0.0
    body: str | None = None
    # Seconds that the other end wants to be left alone.
    retry_after: float | None = None

    @property
    def good(self) -> bool:
        return self.error is None


class Delivery(msgspec.Struct):
    """A row of the deliveries table, without its body: one event on its way to one endpoint."""

    seq: int
    id: str
    # A subscription's id, or a callback's scheme://host:port.
    endpoint: str
    webhook_id: str | None
    url: str
    method: str
    event_id: int | None
    # Its place in the log; an event of its own has none there.
    place: int
    type: str
    task_id: str | None
    user_id: str
    # Tells of a delivery: of what becomes of it nothing is told in turn, or the log would feed itself.
    quiet: int
    status: DeliveryStatus
    # Its first attempt is still to come.
    fresh: int
    tries: int
    retry_count: int
    next_at: int | None
    created_at: int
    done_at: int | None
    attempts: list[Made]


class Verdict(msgspec.Struct):
    """What an attempt makes of a delivery, and of its subscription (None: as it was)."""

    status: DeliveryStatus
    retry_count: int
    next_at: int | None
    webhook: Webhook | None = None
    # What became of the subscription: it is told.
    became: Literal["paused", "resumed", "disabled"] | None = None


def judge(
    delivery: Delivery, webhook: Webhook | None, made: Made, steps: Sequence[float], now: int, draw: float
) -> Verdict:
    """Decides after an attempt; `draw` is a random number in [0, 1)."""
    if delivery.type == TEST:
        return Verdict("delivered" if made.good else "dead", 0, None)
    after, became = (None, None) if webhook is None else _learn(webhook, delivery, made, now)
    if made.good:
        return Verdict("delivered", delivery.retry_count, None, after, became)
    probed = webhook is not None and _is_probe(webhook, now)
    hopeless = made.status_code == GONE or (made.error is not None and made.error.kind == "forbidden_address")
    wait = None if hopeless else ladder.wait(steps, delivery.retry_count + 1, draw, made.retry_after)
    if probed and not hopeless:
        # A probe tries the endpoint: that spends nothing of the delivery's own ladder.
        return Verdict("pending", delivery.retry_count, now, after, became)
    if wait is None:
        return Verdict("dead", delivery.retry_count, None, after, became)
    return Verdict("pending", delivery.retry_count + 1, now + round(wait * 1000), after, became)


def _learn(
    webhook: Webhook, delivery: Delivery, made: Made, now: int
) -> tuple[Webhook | None, Literal["paused", "resumed", "disabled"] | None]:
    """What an attempt tells of its subscription."""
    if made.good:
        well = msgspec.structs.replace(webhook, failures=0, failing_since=None)
        if webhook.status == "paused" and webhook.probe_at is not None:
            return activated(well), "resumed"
        return (None if well == webhook else well), None
    since = now if webhook.failing_since is None else webhook.failing_since
    ill = msgspec.structs.replace(webhook, failures=webhook.failures + delivery.fresh, failing_since=since)
    if made.status_code == GONE:
        return disabled(ill, "it answered 410: gone"), "disabled"
    if webhook.status == "paused":
        if not _is_probe(webhook, now):
            # It was under way already.
            return ill, None
        probe_at = now + _probe_wait(ill.probes, made)
        return msgspec.structs.replace(ill, probe_at=probe_at, probes=ill.probes + 1), None
    if ill.failures < MOST_FAILURES and now - since < MOST_FAILING:
        return ill, None
    why = f"{ill.failures} deliveries failed in a row" if ill.failures >= MOST_FAILURES else "it failed for 5 days"
    paused = msgspec.structs.replace(ill, status="paused", reason=why, probe_at=now + _probe_wait(0, made), probes=1)
    return paused, "paused"


def _is_probe(webhook: Webhook, now: int) -> bool:
    return webhook.status == "paused" and webhook.probe_at is not None and webhook.probe_at <= now


def _probe_wait(probes: int, made: Made) -> int:
    return round(max(PROBES[min(probes, len(PROBES) - 1)], made.retry_after or 0.0) * 1000)


def paused(webhook: Webhook) -> Webhook:
    """Held by a person: nothing tries whether it is well."""
    return msgspec.structs.replace(webhook, status="paused", reason="paused by a person", probe_at=None, probes=0)


def activated(webhook: Webhook) -> Webhook:
    """The subscription as if it had never failed."""
    return msgspec.structs.replace(
        webhook, status="active", reason=None, failures=0, failing_since=None, probe_at=None, probes=0
    )


def disabled(webhook: Webhook, reason: str) -> Webhook:
    """Nothing more is written for it, and what waits is given up."""
    return msgspec.structs.replace(webhook, status="disabled", reason=reason, probe_at=None)


def shifted(webhook: Webhook, ms: int) -> Webhook:
    """After the wall clock was set by `ms`: its times are of durations."""

    def moved(at: int | None) -> int | None:
        return None if at is None else at + ms

    return msgspec.structs.replace(
        webhook, failing_since=moved(webhook.failing_since), probe_at=moved(webhook.probe_at),
        secrets=[Secret(secret.text, moved(secret.until)) for secret in webhook.secrets],
    )  # fmt: skip


def signing(webhook: Webhook, now: int) -> list[str]:
    """The secrets that sign now, the one that holds first."""
    return [secret.text for secret in webhook.secrets if secret.until is None or secret.until > now]


def rotated(webhook: Webhook, secret: str, now: int) -> Webhook:
    """A new secret holds; the old one signs beside it for a day."""
    old = [Secret(s.text, now + ROTATION if s.until is None else s.until) for s in webhook.secrets]
    kept = [s for s in old if s.until is not None and s.until > now]
    return msgspec.structs.replace(webhook, secrets=[Secret(secret), *kept][:MOST_SECRETS])


def told(delivery: Delivery, made: Made, verdict: Verdict) -> dict[str, object]:
    """The data of a `webhook.*` event about an attempt."""
    return {
        "delivery_id": delivery.id, "webhook_id": delivery.webhook_id, "event_id": delivery.event_id,
        "event_type": delivery.type, "task_id": delivery.task_id, "status": verdict.status,
        "status_code": made.status_code, "error": made.error, "retry_count": verdict.retry_count,
        "next_at": iso(verdict.next_at),
    }  # fmt: skip
