"""Webhooks: who is told of which events; made, changed, tried, paused, with secrets that can be rotated."""

from __future__ import annotations

import re
import secrets
from typing import Annotated, Final, Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from orchestr8d import events as log
from orchestr8d.core import addresses, delivery, redact, signature
from orchestr8d.core.delivery import Secret
from orchestr8d.core.delivery import Webhook as Row
from orchestr8d.core.durations import iso
from orchestr8d.core.errors import Fault, Problem, did_you_mean, refuse
from orchestr8d.core.ids import uuid7
from orchestr8d.core.task_input import Key
from orchestr8d.status_api import cursors, deliveries, respond
from orchestr8d.status_api.cursors import Page
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.status_api.views import Time
from orchestr8d.tokens import Caller

_GROUPS: Final = frozenset({"*"} | {f"{name.partition('.')[0]}.*" for name in log.TYPES})
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")
_VALUE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,4000}[\x21-\x7e])?|")
# What the sender itself sets, or what would change how the request is read.
_OURS: Final = frozenset({
    "host", "content-length", "content-type", "content-encoding", "transfer-encoding", "connection", "te", "trailer",
    "upgrade", "expect", "keep-alive", "proxy-connection", "webhook-id", "webhook-timestamp", "webhook-signature",
})  # fmt: skip

Types = Annotated[list[Annotated[str, msgspec.Meta(min_length=1, max_length=100)]],
                  msgspec.Meta(min_length=1, max_length=100)]  # fmt: skip
Headers = Annotated[dict[str, str], msgspec.Meta(max_length=50)]


class WebhookIn(msgspec.Struct, forbid_unknown_fields=True):
    """A webhook to make. `events`: types, groups like `task.*`, or `*`; `user_id`: only what is of that user."""

    url: str
    events: Types
    secret: str | None = None
    user_id: Key | None = None
    headers: Headers = {}


class WebhookPatch(msgspec.Struct, forbid_unknown_fields=True):
    """What is absent stays; null takes the user away."""

    url: str | UnsetType = UNSET
    events: Types | UnsetType = UNSET
    user_id: Key | UnsetType | None = UNSET
    headers: Headers | UnsetType = UNSET


class Webhook(msgspec.Struct):
    """A webhook. `reason` says why it is not active; `failures` are deliveries that failed in a row. Of headers the
    values that look like secrets are hidden, and all of them but for `admin`."""

    webhook_id: str
    url: str
    events: list[str]
    user_id: str | None
    headers: dict[str, str]
    status: Literal["active", "paused", "disabled"]
    reason: str | None
    created_at: Time
    failures: int
    failing_since: Time | None
    next_probe_at: Time | None


class Webhooks(msgspec.Struct):
    webhooks: list[Webhook]
    next_cursor: str | None


class NewWebhook(msgspec.Struct):
    """A webhook that was just made: the only time its secret is shown."""

    webhook_id: str
    secret: str


class NewSecret(msgspec.Struct):
    """Signs from now on; the one before it signs beside it for 24 hours."""

    secret: str


def _view(row: Row, caller: Caller) -> Webhook:
    created = iso(row.created_at)
    assert created is not None
    is_admin = caller.scope == "admin"
    headers = {n: str(redact.value(n, value)) if is_admin else redact.HIDDEN for n, value in row.headers.items()}
    return Webhook(
        row.id, row.url, row.events, row.user_id, headers, row.status, row.reason, created, row.failures,
        iso(row.failing_since), iso(row.probe_at),
    )  # fmt: skip


def _check(services: Services, wanted: WebhookIn | WebhookPatch) -> None:
    """Raises Problem for what its types cannot tell."""
    faults: list[Fault] = []
    if wanted.url is not UNSET:
        allow = addresses.read_allow(services.config().webhooks.allow)
        wrong = addresses.fault(wanted.url, allow)
        if wrong is not None:
            faults.append(Fault("url", wrong))
    if wanted.events is not UNSET:
        known = log.TYPES | _GROUPS
        faults += [
            Fault(f"events[{n}]", f"unknown type {name!r}{did_you_mean(name, sorted(known))}")
            for n, name in enumerate(wanted.events)
            if name not in known
        ]
    if wanted.headers is not UNSET:
        faults += [fault for name, value in wanted.headers.items() for fault in _check_header(name, value)]
    if isinstance(wanted, WebhookIn) and wanted.secret is not None:
        try:
            signature.key(wanted.secret)
        except ValueError as e:
            faults.append(Fault("secret", str(e)))
    refuse(faults)


def _check_header(name: str, value: str) -> list[Fault]:
    if not _HEADER.fullmatch(name):
        return [Fault(f"headers.{name}", "not a name for a header")]
    if name.lower() in _OURS:
        return [Fault(f"headers.{name}", "is set by the daemon")]
    if value == redact.HIDDEN:
        return [Fault(f"headers.{name}", "is what is shown in place of a value: give the value")]
    if not _VALUE.fullmatch(value):
        return [Fault(f"headers.{name}", "expected one line of visible ASCII characters")]
    return []


def _check_user(caller: Caller, user_id: str | None) -> None:
    if caller.user_id is not None and caller.user_id != user_id:
        raise Problem("forbidden", f"this token is for webhooks of the user {caller.user_id!r} only")


async def _own(services: Services, call: Call) -> Row:
    """The webhook that the path names, for a caller who may use it."""
    row = await services.store.webhook(call.path("id"))
    _check_user(call.caller, row.user_id)
    return row


def _new_secret() -> str:
    return signature.make_secret(secrets.token_bytes(32))


async def create(services: Services, call: Call) -> web.Response:
    wanted: WebhookIn = call.body
    _check(services, wanted)
    user_id = wanted.user_id if wanted.user_id is not None else call.caller.user_id
    _check_user(call.caller, user_id)
    now = services.clock.now()
    row = Row(
        uuid7(now), wanted.url, list(dict.fromkeys(wanted.events)), user_id, wanted.headers,
        [Secret(wanted.secret or _new_secret())], "active", None, now,
    )  # fmt: skip
    body, replayed = await services.store.add_webhook(row, respond.encode(row.id), call.once)
    if replayed:
        # What is kept for a repeated request has no secret in it.
        row = await services.store.webhook(msgspec.json.decode(body, type=str))
    return respond.json(NewWebhook(row.id, row.secrets[0].text), 200 if replayed else 201)


async def index(services: Services, call: Call) -> web.Response:
    user_id = call.caller.user_id
    found = [row for row in await services.store.webhooks() if user_id in (None, row.user_id)]
    shown, more = cursors.page("webhooks", found, lambda row: row.id, call.query, newest_first=True)
    return respond.json(Webhooks([_view(row, call.caller) for row in shown], more))


async def show(services: Services, call: Call) -> web.Response:
    return respond.json(_view(await _own(services, call), call.caller))


async def patch(services: Services, call: Call) -> web.Response:
    wanted: WebhookPatch = call.body
    _check(services, wanted)
    await _own(services, call)
    given = {name: value for name in wanted.__struct_fields__ if (value := getattr(wanted, name)) is not UNSET}
    if "user_id" in given:
        _check_user(call.caller, given["user_id"])
    changed = await services.store.change_webhook(call.path("id"), lambda row: msgspec.structs.replace(row, **given))
    return respond.json(_view(changed, call.caller))


async def remove(services: Services, call: Call) -> web.Response:
    await _own(services, call)
    return respond.json(_view(await services.store.remove_webhook(call.path("id")), call.caller))


async def rotate_secret(services: Services, call: Call) -> web.Response:
    await _own(services, call)
    secret, now = _new_secret(), services.clock.now()
    await services.store.change_webhook(call.path("id"), lambda row: delivery.rotated(row, secret, now))
    return respond.json(NewSecret(secret))


async def test(services: Services, call: Call) -> web.Response:
    await _own(services, call)
    sent = await services.store.test_webhook(call.path("id"))
    return respond.json(deliveries.view(sent, with_body=call.caller.scope == "admin"))


async def pause(services: Services, call: Call) -> web.Response:
    await _own(services, call)
    held = await services.store.change_webhook(call.path("id"), delivery.paused)
    return respond.json(_view(held, call.caller))


async def resume(services: Services, call: Call) -> web.Response:
    await _own(services, call)
    active = await services.store.change_webhook(call.path("id"), delivery.activated)
    return respond.json(_view(active, call.caller))


_ONE = "/api/v1/webhooks/{id}"
ROUTES = (
    Route(
        "POST", "/api/v1/webhooks", create, "Subscribe a URL to events; the secret is shown this once", "admin",
        {201: NewWebhook, 200: NewWebhook}, (409,), body=WebhookIn, body_required=True, once=True,
    ),
    Route("GET", "/api/v1/webhooks", index, "List webhooks, newest first", "read", {200: Webhooks}, query=Page),
    Route("GET", _ONE, show, "A webhook", "read", {200: Webhook}),
    Route("PATCH", _ONE, patch, "Change a webhook", "admin", {200: Webhook}, body=WebhookPatch),
    Route("DELETE", _ONE, remove, "Remove a webhook; what waits for it is given up", "admin", {200: Webhook}),
    Route(
        "POST", f"{_ONE}/rotate-secret", rotate_secret, "A new secret; both sign for 24 hours", "admin",
        {200: NewSecret},
    ),
    Route("POST", f"{_ONE}/test", test, "Send `webhook.test`, once", "admin", {200: deliveries.Delivery}),
    Route("POST", f"{_ONE}/pause", pause, "Hold what is for a webhook", "admin", {200: Webhook}),
    Route("POST", f"{_ONE}/resume", resume, "Let a webhook go on", "admin", {200: Webhook}),
)  # fmt: skip
