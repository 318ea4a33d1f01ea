"""Sends deliveries: signed, to each endpoint in its turn, again and again until it has taken them or is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from msgspec import Struct

from orchestr8d.clock import Clock
from orchestr8d.core import delivery as rules
from orchestr8d.core import ladder, payload, signature
from orchestr8d.core.delivery import Delivery, Made
from orchestr8d.core.errors import LeaseLost, Problem
from orchestr8d.core.model import Error
from orchestr8d.outgoing import Outgoing, Refused
from orchestr8d.store import Store
from orchestr8d.store.types import Busy, Sending

# Deliveries under way, over all endpoints.
MOST: Final = 500
# Seconds until a store that cannot take a result, or tell what is due, is asked again.
PATIENCE: Final = 1.0
# Seconds that those under way have when the daemon stops.
LINGER: Final = 1.0
_LONGEST_SLEEP: Final = 3600.0


class WebhookDispatcher:
    """`own_secret` signs callbacks; `limit` is how many seconds an attempt may take."""

    def __init__(
        self, store: Store, clock: Clock, outgoing: Outgoing, own_secret: str, limit: Callable[[], float]
    ) -> None:
        self._store = store
        self._clock = clock
        self._outgoing = outgoing
        self._own_secret = own_secret
        self._limit = limit
        # What an earlier daemon left is looked for at once.
        self._hinted = asyncio.Event()
        self._hinted.set()
        self._busy: dict[str, Busy] = {}
        # The endpoint that was served last: the next in the ring is next, or with many the last ones would starve.
        self._last = ""
        self._under_way: set[asyncio.Task[None]] = set()

    def hint(self) -> None:
        """There may be more to send."""
        self._hinted.set()

    async def run(self) -> None:
        try:
            while True:
                self._hinted.clear()
                try:
                    delay = await self.run_once()
                except Problem as problem:
                    structlog.get_logger().warning("cannot look for deliveries", reason=problem.detail)
                    delay = PATIENCE
                try:
                    async with asyncio.timeout(delay):
                        await self._hinted.wait()
                except TimeoutError:
                    pass
        finally:
            # What is not recorded by then is sent again by the next daemon.
            if self._under_way:
                await asyncio.wait(self._under_way, timeout=LINGER)
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def run_once(self) -> float | None:
        """Starts what may be sent now; answers in how many seconds there may be more, None: only after a hint."""
        room = MOST - len(self._under_way)
        if room <= 0:
            return None
        # As it is before the store looks: what ends meanwhile may be pending still where it looks.
        busy = {endpoint: Busy(set(b.ids), b.fresh) for endpoint, b in self._busy.items()}
        due = await self._store.due_deliveries(busy, room, self._last)
        for sending in due.found:
            self._last = sending.delivery.endpoint
            self._start(sending)
        if due.next_due is None:
            return None
        return min(max(0.0, (due.next_due - self._clock.now()) / 1000), _LONGEST_SLEEP)

    def _start(self, sending: Sending) -> None:
        delivery = sending.delivery
        busy = self._busy.setdefault(delivery.endpoint, Busy())
        busy.ids.add(delivery.id)
        busy.fresh += delivery.fresh
        task = asyncio.create_task(self._deliver(sending))
        self._under_way.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._under_way.discard(task)
            busy.ids.discard(delivery.id)
            busy.fresh -= delivery.fresh
            if not busy.ids:
                del self._busy[delivery.endpoint]
            self.hint()

        task.add_done_callback(ended)

    async def _deliver(self, sending: Sending) -> None:
        made = await self._attempt(sending)
        while True:
            try:
                await self._store.delivery_done(sending.delivery, made)
                return
            except LeaseLost:
                # It was pruned, given up or sent again meanwhile.
                return
            except Problem as problem:
                if problem.kind == "not-found":
                    return
            except Exception:
                # Were it given back, it would be sent again and again.
                structlog.get_logger().exception("a delivery cannot be recorded", delivery_id=sending.delivery.id)
            # It counts as sent only once that is on disk; until then this endpoint gets nothing else.
            await asyncio.sleep(PATIENCE)

    async def _attempt(self, sending: Sending) -> Made:
        delivery, now, started = sending.delivery, self._clock.now(), self._clock.monotonic()
        made = Made(now)
        try:
            answer = await self._outgoing.send(
                delivery.method, delivery.url, sending.body, self._headers(sending, now), self._limit()
            )
            made.status_code, made.body = answer.status, answer.body
            if not 200 <= answer.status < 300:
                made.error = Error("status", f"answered with {answer.status}")
                made.retry_after = ladder.retry_after(answer.retry_after, self._clock.now())
        except Refused as refused:
            made.error = Error(refused.kind, str(refused))
        except Exception as e:
            # A defect must not leave the delivery under way for ever.
            structlog.get_logger().exception("a delivery could not be tried", delivery_id=delivery.id)
            made.error = Error("protocol", type(e).__name__)
        made.duration = round(self._clock.monotonic() - started, 3)
        _log(delivery, made)
        return made

    def _headers(self, sending: Sending, now: int) -> dict[str, str]:
        webhook = sending.webhook
        secrets = [self._own_secret] if webhook is None else rules.signing(webhook, now)
        own = {} if webhook is None else webhook.headers
        return {**own, **signature.headers(secrets, sending.delivery.id, now, sending.body)}


class Posted(Struct, frozen=True):
    """What became of a single post. `final`: there is no use in trying again; `after`: not within so many seconds."""

    error: str | None = None
    final: bool = False
    after: float | None = None


class SignedPosts:
    """Webhooks that are no deliveries of their own, as notifications are: whoever sends them keeps the account."""

    def __init__(self, clock: Clock, outgoing: Outgoing, own_secret: str, limit: Callable[[], float]) -> None:
        self._clock = clock
        self._outgoing = outgoing
        self._own_secret = own_secret
        self._limit = limit

    async def __call__(self, url: str, message_id: str, type_: str, at: int, data: object) -> Posted:
        """Sends it once; `message_id` and `at` (milliseconds) are the same whenever the same is sent."""
        body = payload.wrap(type_, at, data)
        headers = signature.headers([self._own_secret], message_id, self._clock.now(), body)
        try:
            answer = await self._outgoing.send("POST", url, body, headers, self._limit())
        except Refused as refused:
            return Posted(str(refused), final=refused.kind == "forbidden_address")
        if 200 <= answer.status < 300:
            return Posted()
        after = ladder.retry_after(answer.retry_after, self._clock.now())
        return Posted(f"answered with {answer.status}", final=answer.status == rules.GONE, after=after)


def _log(delivery: Delivery, made: Made) -> None:
    why = None if made.error is None else made.error.message
    structlog.get_logger().debug(
        "delivery", delivery_id=delivery.id, type=delivery.type, status_code=made.status_code, error=why,
        duration=made.duration,
    )  # fmt: skip
