"""Notifications: sent to a user, listed, looked at with their channels, acknowledged."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from aiohttp import web

from orchestr8d.core import notices
from orchestr8d.core.decode import unknown
from orchestr8d.core.errors import Fault, Problem, refuse
from orchestr8d.core.model import Task
from orchestr8d.core.notices import ALIASES, TYPES, Delivery, NewNotice, Notification
from orchestr8d.core.task_input import Key
from orchestr8d.status_api import cursors, respond
from orchestr8d.status_api.cursors import Page
from orchestr8d.status_api.reading import distinct
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.store.types import NoticeFilter
from orchestr8d.tokens import Caller

_NOBODY: Final = Fault("user_id", "required, but missing")


class NotificationIn(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A message for a user. `failure` is another word for `task_failure`; the default priority is the type's. What a
    task sends is for its own user, and of itself and its workflow."""

    # Needed but from a task.
    user_id: Key | None = None
    notification_type: notices.Type | Literal["failure"]
    message: Annotated[str, msgspec.Meta(min_length=1, max_length=65_536)]
    title: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)] | None = None
    priority: notices.Priority | None = None
    workflow_id: Key | None = None
    task_id: Key | None = None
    metadata: dict[str, Any] = {}


class Sent(msgspec.Struct):
    notification_id: str


class Notifications(msgspec.Struct):
    notifications: list[Notification]
    next_cursor: str | None


class WithChannels(Notification, kw_only=True):
    """A notification, and what became of it on each channel."""

    channels: list[Delivery]


class Acked(msgspec.Struct):
    """How many were acknowledged by this."""

    count: int


class Wanted(Page, frozen=True, forbid_unknown_fields=True):
    """Which notifications: all filters must match."""

    user_id: str | None = None
    workflow_id: str | None = None
    # A comma list.
    type: str | None = None
    # Only those that were not acknowledged.
    unread: bool = False


class Whose(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of one user; without it of all, or of the one that the token is bound to."""

    user_id: str | None = None


async def create(services: Services, call: Call) -> web.Response:
    said: NotificationIn = call.body
    task = None if call.caller.task_id is None else await services.store.task(call.caller.task_id)
    user_id = said.user_id if said.user_id is not None or task is None else task.user_id
    if user_id is None:
        raise Problem("invalid", f"{_NOBODY.path}: {_NOBODY.message}", [_NOBODY])
    new = NewNotice(
        user_id=user_id, type=ALIASES.get(said.notification_type, said.notification_type),  # type: ignore[arg-type]
        message=said.message, title=said.title, priority=said.priority, workflow_id=said.workflow_id,
        task_id=said.task_id, metadata=said.metadata,
    )  # fmt: skip
    if len(respond.encode(new.metadata)) > notices.MOST_METADATA:
        refuse([Fault("metadata", f"is longer than {notices.MOST_METADATA:,} bytes as JSON")])
    if task is not None:
        new = _from_inside(task, new)
    _check_user(call.caller, new.user_id)
    body, replayed = await services.store.notify(new, lambda sent: respond.encode(Sent(sent)), call.once)
    return respond.raw(body, 200 if replayed else 201)


def _from_inside(task: Task, new: NewNotice) -> NewNotice:
    """A task speaks for itself and its workflow, to its own user."""
    others = new.task_id not in (None, task.id) or new.workflow_id not in (None, task.workflow_id)
    if new.user_id != task.user_id or others:
        message = f"a task's own token notifies its own user, {task.user_id!r}, of that task and its workflow only"
        raise Problem("forbidden", message)
    return msgspec.structs.replace(new, task_id=task.id, workflow_id=task.workflow_id)


async def _also(services: Services, call: Call) -> list[Fault]:
    return [_NOBODY] if call.body.user_id is None and call.caller.task_id is None else []


def _check_user(caller: Caller, user_id: str) -> None:
    if caller.user_id is not None and caller.user_id != user_id:
        raise Problem("forbidden", f"this token is for the user {caller.user_id!r} only")


async def index(services: Services, call: Call) -> web.Response:
    wanted: Wanted = call.query
    given = distinct("type", wanted.type.split(",")) if wanted.type is not None else ()
    types = [ALIASES.get(name, name) for name in given]
    refuse([unknown("type", name, TYPES, what=f"type {name!r}") for name in types if name not in TYPES])
    which = NoticeFilter(wanted.user_id, wanted.workflow_id, types, wanted.unread)
    found = await services.store.notices(which, wanted.limit + 1, cursors.read_int("notifications", wanted.cursor))
    page = found[: wanted.limit]
    more = cursors.make("notifications", str(page[-1].seq)) if len(found) > len(page) else None
    return respond.json(Notifications([notices.shown(notice) for notice in page], more))


async def show(services: Services, call: Call) -> web.Response:
    notice, channels = await services.store.notice(call.path("id"))
    return respond.json(WithChannels(**msgspec.structs.asdict(notices.shown(notice)), channels=channels))


async def ack(services: Services, call: Call) -> web.Response:
    notice, _ = await services.store.notice(call.path("id"))
    _check_user(call.caller, notice.user_id)
    return respond.json(notices.shown(await services.store.ack(notice.id)))


async def ack_all(services: Services, call: Call) -> web.Response:
    whose: Whose = call.query
    user_id = whose.user_id if whose.user_id is not None else call.caller.user_id
    if user_id is not None:
        _check_user(call.caller, user_id)
    return respond.json(Acked(await services.store.ack_all(user_id)))


ROUTES = (
    Route(
        "POST", "/api/v1/notifications", create, "Send a notification to a user", "submit", {201: Sent, 200: Sent},
        (409,), body=NotificationIn, body_required=True, also=_also, once=True, inside="any",
    ),
    Route(
        "GET", "/api/v1/notifications", index, "List notifications, newest first", "read", {200: Notifications},
        query=Wanted,
    ),
    Route(
        "GET", "/api/v1/notifications/{id}", show, "One notification, with its channels", "read", {200: WithChannels}
    ),
    Route(
        "POST", "/api/v1/notifications/{id}/ack", ack, "Acknowledge a notification", "submit", {200: Notification}
    ),
    Route(
        "POST", "/api/v1/notifications:ack-all", ack_all, "Acknowledge all notifications, or those of a user", "submit",
        {200: Acked}, query=Whose,
    ),
)  # fmt: skip
