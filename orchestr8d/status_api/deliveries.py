"""Deliveries: what became of each event on its way to an endpoint, and sending it again."""

from __future__ import annotations

from typing import Literal

import msgspec
from aiohttp import web

from orchestr8d.core import durations, model
from orchestr8d.core.delivery import Delivery as Row
from orchestr8d.core.delivery import DeliveryStatus, Made
from orchestr8d.core.durations import iso
from orchestr8d.core.errors import Fault, Problem, refuse
from orchestr8d.status_api import cursors, respond
from orchestr8d.status_api.cursors import Page
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.status_api.views import Time
from orchestr8d.store.types import DeliveryFilter

Status = Literal["pending", "delivered", "dead"]


class Attempt(msgspec.Struct):
    """`duration` is seconds; `body`, for `admin` only, the first 4 KB of the answer."""

    at: Time
    status_code: int | None
    error: model.Error | None
    duration: float
    body: str | None


class Delivery(msgspec.Struct):
    """One event on its way to one endpoint: a webhook, or a callback where there is no `webhook_id`. `delivery_id` is
    the `webhook-id` that the receiver sees."""

    delivery_id: str
    url: str
    method: str
    webhook_id: str | None
    event_id: int | None
    type: str
    task_id: str | None
    status: Status
    retry_count: int
    last_attempt: Time | None
    attempts: list[Attempt]
    next_at: Time | None
    created_at: Time


class Deliveries(msgspec.Struct):
    deliveries: list[Delivery]
    next_cursor: str | None


class Wanted(Page, frozen=True, forbid_unknown_fields=True):
    """Which deliveries: all must match. `since` is a time, of when they were made."""

    status: DeliveryStatus | None = None
    webhook_id: str | None = None
    task_id: str | None = None
    since: str | None = None


class Again(msgspec.Struct, forbid_unknown_fields=True):
    """Which deliveries shall be sent again: all must match, and one must be given."""

    status: DeliveryStatus | None = None
    webhook_id: str | None = None
    task_id: str | None = None
    since: str | None = None


class Count(msgspec.Struct):
    """How many will be sent again."""

    count: int


def view(row: Row, *, with_body: bool) -> Delivery:
    created = iso(row.created_at)
    assert created is not None
    last = iso(row.attempts[-1].at) if row.attempts else None
    return Delivery(
        row.id, row.url, row.method, row.webhook_id, row.event_id, row.type, row.task_id, row.status, row.retry_count,
        last, [_attempt(made, with_body) for made in row.attempts], iso(row.next_at), created,
    )  # fmt: skip


def _attempt(made: Made, with_body: bool) -> Attempt:
    at = iso(made.at)
    assert at is not None
    return Attempt(at, made.status_code, made.error, made.duration, made.body if with_body else None)


def _filter(wanted: Wanted | Again, call: Call) -> DeliveryFilter:
    since = None
    if wanted.since is not None:
        try:
            since = durations.parse_time(wanted.since)
        except ValueError as e:
            refuse([Fault("since", str(e))])
    return DeliveryFilter(wanted.status, wanted.webhook_id, wanted.task_id, since, call.caller.user_id)


async def index(services: Services, call: Call) -> web.Response:
    wanted: Wanted = call.query
    before = cursors.read_int("deliveries", wanted.cursor)
    found = await services.store.deliveries(_filter(wanted, call), wanted.limit + 1, before)
    shown = found[: wanted.limit]
    more = cursors.make("deliveries", str(shown[-1].seq)) if len(found) > len(shown) else None
    with_body = call.caller.scope == "admin"
    return respond.json(Deliveries([view(row, with_body=with_body) for row in shown], more))


async def _own(services: Services, call: Call) -> Row:
    row = await services.store.delivery(call.path("id"))
    if call.caller.user_id not in (None, row.user_id):
        raise Problem("forbidden", f"this token is for deliveries of the user {call.caller.user_id!r} only")
    return row


async def show(services: Services, call: Call) -> web.Response:
    return respond.json(view(await _own(services, call), with_body=call.caller.scope == "admin"))


async def redeliver(services: Services, call: Call) -> web.Response:
    await _own(services, call)
    again = await services.store.redeliver(call.path("id"))
    return respond.json(view(again, with_body=call.caller.scope == "admin"))


async def redeliver_all(services: Services, call: Call) -> web.Response:
    wanted: Again = call.body
    if not any(getattr(wanted, name) is not None for name in wanted.__struct_fields__):
        refuse([Fault("", f"give at least one of {', '.join(wanted.__struct_fields__)}")])
    return respond.json(Count(await services.store.redeliver_all(_filter(wanted, call))))


ROUTES = (
    Route("GET", "/api/v1/deliveries", index, "List deliveries, newest first", "read", {200: Deliveries}, query=Wanted),
    Route("GET", "/api/v1/deliveries/{id}", show, "A delivery", "read", {200: Delivery}),
    Route(
        "POST", "/api/v1/deliveries/{id}/redeliver", redeliver, "Send a delivery again", "admin", {200: Delivery},
        (409,),
    ),
    Route(
        "POST", "/api/v1/deliveries:redeliver", redeliver_all, "Send deliveries again", "admin", {200: Count},
        body=Again, body_required=True,
    ),
)  # fmt: skip
