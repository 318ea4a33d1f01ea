"""Builds the requests about schedules, as data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from orchestr8d.client.requests import API, Request, given, part, query_of, write

# A rule such as `0 9 * * MON`, or {"at": TIME}.
Rule = str | Mapping[str, str]


def add(fields: Mapping[str, object], key: str) -> Request:
    return write("POST", "/schedules", given(fields), key=key)


def add_many(schedules: Iterable[Mapping[str, object]], key: str) -> Request:
    return write("POST", "/schedules:batch", {"schedules": [given(one) for one in schedules]}, key=key)


def schedules(limit: int, cursor: str | None = None, q: str | None = None) -> Request:
    """One page of schedules, newest first."""
    return Request("GET", f"{API}/schedules", query_of(q=q, limit=limit, cursor=cursor))


def schedule(name: str) -> Request:
    return Request("GET", f"{API}/schedules/{part(name)}")


def change(name: str, changes: Mapping[str, object]) -> Request:
    """None is a value here (it takes a window back)."""
    return write("PATCH", f"/schedules/{part(name)}", dict(changes))


def remove(name: str) -> Request:
    return Request("DELETE", f"{API}/schedules/{part(name)}")


def steer(name: str, verb: Literal["pause", "resume"]) -> Request:
    return write("POST", f"/schedules/{part(name)}/{verb}", {})


def trigger(name: str, key: str) -> Request:
    return write("POST", f"/schedules/{part(name)}/trigger", {}, key=key)


def history(name: str, limit: int, cursor: str | None = None) -> Request:
    """One page of what became of a schedule's due times, newest first."""
    return Request("GET", f"{API}/schedules/{part(name)}/history", query_of(limit=limit, cursor=cursor))


def preview(rule: Rule, timezone: str | None, after: str | None, count: int | None) -> Request:
    text: Any = rule if isinstance(rule, str) else json.dumps(rule)
    query = query_of(schedule=text, timezone=timezone, after=after, count=count)
    return Request("GET", f"{API}/schedules:preview", query)
