"""Builds the requests about workflows, as data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypedDict, Unpack

from orchestr8d.client.requests import API, Request, given, part, query_of, write

Picture = Literal["mermaid", "dot", "svg"]
Verb = Literal["start", "pause", "resume", "cancel"]


def start(fields: Mapping[str, object], key: str) -> Request:
    return write("POST", "/workflows", given(fields), key=key)


class WorkflowQuery(TypedDict, total=False):
    """Filters of the list of workflows; all must match. `tail`: the last characters of an id."""

    status: Sequence[str]
    name: str | None
    user_id: str | None
    tag: Sequence[str]
    tail: str | None


def workflows(limit: int, cursor: str | None = None, **query: Unpack[WorkflowQuery]) -> Request:
    """One page of workflows, newest first."""
    states = ",".join(query.pop("status", ())) or None
    return Request("GET", f"{API}/workflows", query_of(status=states, **query, limit=limit, cursor=cursor))


def workflow(workflow_id: str) -> Request:
    return Request("GET", _at(workflow_id))


def status(workflow_id: str, wait: float | None = None, until_final: bool = False) -> Request:
    """How it stands. `wait`: up to that many seconds (at most 60) for its status to change, or to become final."""
    query = query_of(wait=None if wait is None else f"{wait:.3f}", until="final" if until_final else None)
    return Request("GET", _at(workflow_id, "status"), query, timeout=30.0 + (wait or 0))


def tasks(workflow_id: str) -> Request:
    return Request("GET", _at(workflow_id, "tasks"))


def graph(workflow_id: str, picture: Picture | Literal["json"]) -> Request:
    return Request("GET", _at(workflow_id, "graph"), query_of(format=picture), text=picture != "json")


def report(workflow_id: str) -> Request:
    return Request("GET", _at(workflow_id, "report"), text=True)


def steer(workflow_id: str, verb: Verb) -> Request:
    """The answer to `cancel` comes when what ran is gone, which may take the grace period."""
    request = write("POST", f"/workflows/{part(workflow_id)}/{verb}", {})
    return request._replace(timeout=None) if verb == "cancel" else request


def retry(workflow_id: str, from_phase: str | None) -> Request:
    return write("POST", f"/workflows/{part(workflow_id)}/retry", given({"from": from_phase}))


def signal(workflow_id: str, name: str, payload: object) -> Request:
    """The payload is the body; sent again it says the same."""
    headers = (("Content-Type", "application/json"),)
    body = json.dumps(payload, ensure_ascii=False).encode()
    return Request("POST", _at(workflow_id, "signals", name), body=body, headers=headers)


def answer(workflow_id: str, task: str, verb: Literal["approve", "reject"], comment: str | None) -> Request:
    return write("POST", f"/workflows/{part(workflow_id)}/tasks/{part(task)}/{verb}", given({"comment": comment}))


def add_phase(workflow_id: str, phase: Mapping[str, object], key: str) -> Request:
    return write("POST", f"/workflows/{part(workflow_id)}/phases", phase, key=key)


def add_tasks(workflow_id: str, tasks: Iterable[Mapping[str, object]], key: str) -> Request:
    return write("POST", f"/workflows/{part(workflow_id)}/tasks", {"tasks": list(tasks)}, key=key)


def add_milestone(workflow_id: str, text: str) -> Request:
    return write("POST", f"/workflows/{part(workflow_id)}/milestones", {"text": text})


def templates() -> Request:
    return Request("GET", f"{API}/templates", query_of(limit=1000))


def template(name: str) -> Request:
    return Request("GET", f"{API}/templates/{part(name)}")


def archive(limit: int, cursor: str | None, q: str | None) -> Request:
    """One page of finished workflows, newest first."""
    return Request("GET", f"{API}/archive", query_of(q=q, limit=limit, cursor=cursor))


def archived(workflow_id: str) -> Request:
    return Request("GET", f"{API}/archive/{part(workflow_id)}")


def _at(workflow_id: str, *more: str) -> str:
    return "/".join([f"{API}/workflows", *map(part, (workflow_id, *more))])
