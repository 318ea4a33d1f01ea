"""Builds the requests of the HTTP API as data: pure functions, shared by every transport."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict, Unpack
from urllib.parse import quote, urlencode

API = "/api/v1"
Pairs = tuple[tuple[str, str], ...]


class Request(NamedTuple):
    """One request. `timeout` is how many seconds its answer may take (None: any time).

    `patience` is for how many seconds a daemon that cannot be reached is tried again: 0 says so at once.
    """

    method: str
    path: str
    query: Pairs = ()
    body: bytes | None = None
    headers: Pairs = ()
    timeout: float | None = 60.0
    patience: float = 0.0
    # Whether the answer is a text, not a JSON document.
    text: bool = False

    @property
    def target(self) -> str:
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path

    @property
    def repeatable(self) -> bool:
        """Sent twice it does what it does once; so it may be sent again when the connection broke."""
        if self.method in {"GET", "PUT", "DELETE"}:
            return True
        return any(name == "Idempotency-Key" for name, _ in self.headers)


def query_of(**values: object) -> Pairs:
    """What is None is left out; a list stands for a parameter that is repeated."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if one is not None:
                pairs.append((name, "1" if one is True else "0" if one is False else str(one)))
    return tuple(pairs)


def part(text: str) -> str:
    """As one part of a path: no id from outside becomes a path."""
    return quote(text, safe="")


def write(method: str, path: str, body: object, query: Pairs = (), key: str | None = None) -> Request:
    headers: list[tuple[str, str]] = [("Content-Type", "application/json")]
    if key is not None:
        headers.append(("Idempotency-Key", key))
    return Request(method, API + path, query, json.dumps(body, ensure_ascii=False).encode(), tuple(headers))


def submit(task: Mapping[str, object], key: str) -> Request:
    return write("POST", "/tasks", given(task), key=key)


def submit_many(tasks: Iterable[Mapping[str, object]], key: str) -> Request:
    return write("POST", "/tasks:batch", {"tasks": [given(task) for task in tasks]}, key=key)


def given(fields: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


class TaskQuery(TypedDict, total=False):
    """Filters of the list of tasks; all must match. `tail`: the last characters of an id."""

    status: Sequence[str]
    agent: str | None
    tag: Sequence[str]
    queue: str | None
    schedule_id: str | None
    user_id: str | None
    q: str | None
    tail: str | None


def tasks(limit: int, cursor: str | None = None, **query: Unpack[TaskQuery]) -> Request:
    """One page of tasks, newest first."""
    states = ",".join(query.pop("status", ())) or None
    return Request("GET", f"{API}/tasks", query_of(status=states, **query, limit=limit, cursor=cursor))


def task(task_id: str) -> Request:
    return Request("GET", f"{API}/tasks/{part(task_id)}")


def status(task_id: str, wait: float | None = None, until_final: bool = False) -> Request:
    """The short status. `wait`: up to that many seconds (at most 60) for it to change, or to become final."""
    query = query_of(wait=None if wait is None else f"{wait:.3f}", until="final" if until_final else None)
    return Request("GET", f"{API}/tasks/{part(task_id)}/status", query, timeout=30.0 + (wait or 0))


def result(task_id: str) -> Request:
    return Request("GET", f"{API}/tasks/{part(task_id)}/result")


class LogQuery(TypedDict, total=False):
    """Which output: of the last attempt, or a named one; from byte `offset`, or the last `tail` lines. `transcript` is
    what an agent did, for people to read."""

    stream: Literal["stdout", "stderr", "transcript"]
    attempt: int | None
    offset: int | None
    tail: int | None


def logs(task_id: str, follow: bool = False, **query: Unpack[LogQuery]) -> Request:
    """Output as bytes; with `follow` until the attempt ends, or the task, when no attempt is named."""
    path = f"{API}/tasks/{part(task_id)}/logs"
    return Request("GET", path, query_of(**query, follow=follow or None), timeout=None if follow else 60.0)


def task_events(task_id: str) -> Request:
    return Request("GET", f"{API}/tasks/{part(task_id)}/events", query_of(limit=1000))


def cancel(task_id: str, wait: bool = True) -> Request:
    """`wait`: the answer comes when the task's processes are gone, which may take the grace period."""
    request = write("POST", f"/tasks/{part(task_id)}/cancel", {}, () if wait else query_of(wait=0))
    return request._replace(timeout=None if wait else 60.0)


def retry(task_id: str, key: str) -> Request:
    return write("POST", f"/tasks/{part(task_id)}/retry", {}, key=key)


def continue_(task_id: str, prompt: str, options: Mapping[str, object] | None, key: str) -> Request:
    return write("POST", f"/tasks/{part(task_id)}/continue", given({"prompt": prompt, "options": options}), key=key)


def edit(task_id: str, changes: Mapping[str, object]) -> Request:
    """Changes fields of a task that has not started; None is a value here (it takes a setting back)."""
    return write("PATCH", f"/tasks/{part(task_id)}", dict(changes))


def pause(task_id: str) -> Request:
    return write("POST", f"/tasks/{part(task_id)}/pause", {})


def resume(task_id: str) -> Request:
    return write("POST", f"/tasks/{part(task_id)}/resume", {})


def set_priority(task_id: str, priority: str | int) -> Request:
    return write("POST", f"/tasks/{part(task_id)}/priority", {"priority": priority})


def progress(task_id: str, percent: float | None, current_step: str | None) -> Request:
    body = given({"percent": percent, "current_step": current_step})
    return write("POST", f"/tasks/{part(task_id)}/progress", body)


def queues() -> Request:
    return Request("GET", f"{API}/queues", query_of(limit=1000))


def set_queue(name: str, changes: Mapping[str, object]) -> Request:
    return write("PUT", f"/queues/{part(name)}", dict(changes))


def pause_queue(name: str) -> Request:
    return write("POST", f"/queues/{part(name)}/pause", {})


def resume_queue(name: str) -> Request:
    return write("POST", f"/queues/{part(name)}/resume", {})


def limits() -> Request:
    return Request("GET", f"{API}/limits")


def open_account(name: str) -> Request:
    return write("POST", f"/limits/{part(name)}/open", {})


def executors() -> Request:
    return Request("GET", f"{API}/executors", query_of(limit=1000))


def agents(cwd: str | None) -> Request:
    return Request("GET", f"{API}/agents", query_of(cwd=cwd, limit=1000))


def agent(name: str, cwd: str | None) -> Request:
    return Request("GET", f"{API}/agents/{part(name)}", query_of(cwd=cwd))


def send_notification(fields: Mapping[str, object], key: str) -> Request:
    return write("POST", "/notifications", given(fields), key=key)


class NoticeQuery(TypedDict, total=False):
    """Filters of notifications; all must match. `unread`: those that were not acknowledged."""

    user_id: str | None
    workflow_id: str | None
    type: Sequence[str]
    unread: bool


def notifications(limit: int, cursor: str | None = None, **query: Unpack[NoticeQuery]) -> Request:
    types = ",".join(query.pop("type", ())) or None
    return Request("GET", f"{API}/notifications", query_of(limit=limit, cursor=cursor, type=types, **query))


def notification(notification_id: str) -> Request:
    return Request("GET", f"{API}/notifications/{part(notification_id)}")


def ack_notification(notification_id: str) -> Request:
    return write("POST", f"/notifications/{part(notification_id)}/ack", {})


def ack_notifications(user_id: str | None) -> Request:
    return write("POST", "/notifications:ack-all", {}, query_of(user_id=user_id))


def add_webhook(fields: Mapping[str, Any], key: str) -> Request:
    return write("POST", "/webhooks", given(fields), key=key)


def webhooks() -> Request:
    return Request("GET", f"{API}/webhooks", query_of(limit=1000))


def webhook(webhook_id: str) -> Request:
    return Request("GET", f"{API}/webhooks/{part(webhook_id)}")


def change_webhook(webhook_id: str, changes: Mapping[str, object]) -> Request:
    return write("PATCH", f"/webhooks/{part(webhook_id)}", dict(changes))


def steer_webhook(webhook_id: str, verb: Literal["pause", "resume", "test", "rotate-secret"]) -> Request:
    return write("POST", f"/webhooks/{part(webhook_id)}/{verb}", {})


def remove_webhook(webhook_id: str) -> Request:
    return Request("DELETE", f"{API}/webhooks/{part(webhook_id)}")


class DeliveryQuery(TypedDict, total=False):
    """Filters of deliveries; all must match. `since`: a time with an offset."""

    status: Literal["pending", "delivered", "dead"] | None
    webhook_id: str | None
    task_id: str | None
    since: str | None


def deliveries(limit: int, cursor: str | None = None, **query: Unpack[DeliveryQuery]) -> Request:
    """One page of deliveries, newest first."""
    return Request("GET", f"{API}/deliveries", query_of(**query, limit=limit, cursor=cursor))


def delivery(delivery_id: str) -> Request:
    return Request("GET", f"{API}/deliveries/{part(delivery_id)}")


def redeliver(delivery_id: str) -> Request:
    return write("POST", f"/deliveries/{part(delivery_id)}/redeliver", {})


def redeliver_all(**query: Unpack[DeliveryQuery]) -> Request:
    return write("POST", "/deliveries:redeliver", given(query))


def create_token(fields: Mapping[str, Any], key: str) -> Request:
    return write("POST", "/tokens", given(fields), key=key)


def tokens() -> Request:
    return Request("GET", f"{API}/tokens", query_of(limit=1000))


def revoke_token(token_id: str) -> Request:
    return Request("DELETE", f"{API}/tokens/{part(token_id)}")


def health() -> Request:
    return Request("GET", "/healthz", timeout=10.0)


class EventQuery(TypedDict, total=False):
    """Filters of the events; all must match. A type may end in `*`. `after`: an event's id, or 0."""

    type: Sequence[str]
    task_id: str | None
    workflow_id: str | None
    user_id: str | None
    after: int | None


def events(**query: Unpack[EventQuery]) -> Request:
    """The stream of events. A comment comes every 15 s, so silence means that the connection is dead."""
    types = ",".join(query.pop("type", ())) or None
    headers = (("Accept", "text/event-stream"),)
    return Request("GET", f"{API}/events", query_of(type=types, **query), headers=headers, timeout=45.0)
