"""Responses: JSON from typed answers, and problem documents (RFC 9457) for everything that goes wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from orchestr8d.core.errors import STATUS, Problem

_ENCODER: Final = msgspec.json.Encoder()
PROBLEM_TYPE: Final = "application/problem+json"
# On every response: nothing here is for a cache, and no browser shall guess at a log's type.
HEADERS: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Server": "orchestr8d",
}
_JSON: Final[Mapping[str, str]] = {"Content-Type": "application/json", **HEADERS}
_PROBLEM: Final[Mapping[str, str]] = {"Content-Type": PROBLEM_TYPE, **HEADERS}
_KIND_OF: Final[Mapping[int, str]] = {status: kind for kind, status in STATUS.items()}


class FaultAnswer(msgspec.Struct):
    """One thing wrong with the input: where, and what."""

    path: str
    message: str


class ProblemAnswer(msgspec.Struct, omit_defaults=True):
    """What went wrong. `type` is stable; `errors` lists every fault of an invalid input."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FaultAnswer] = []


encode = _ENCODER.encode


def json(answer: object, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return raw(_ENCODER.encode(answer), status, headers)


def raw(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """JSON that was encoded before."""
    return web.Response(body=body, status=status, headers={**_JSON, **headers} if headers else _JSON)


def problem(error: Problem) -> web.Response:
    headers = dict(_PROBLEM)
    if error.retry_after is not None or error.status in (429, 503):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after or 1)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    faults = [FaultAnswer(fault.path, fault.message) for fault in error.faults]
    return _problem(error.kind, error.status, error.detail, headers, faults)


def other(status: int, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """A problem that has only a status: the HTTP library's own errors, and what nobody expected."""
    kind = _KIND_OF.get(status, "internal" if status >= 500 else "invalid")
    return _problem(kind, status, detail, {**_PROBLEM, **(headers or {})}, [])


def drop(request: web.Request) -> ConnectionResetError:
    """Throws away what is under way to a client that does not take it; to be raised."""
    if request.transport is not None:
        request.transport.abort()
    return ConnectionResetError("broken off")


def _problem(
    kind: str, status: int, detail: str, headers: Mapping[str, str], faults: list[FaultAnswer]
) -> web.Response:
    answer = ProblemAnswer(f"urn:orchestr8d:{kind}", HTTPStatus(status).phrase, status, detail, faults)
    response = web.Response(body=_ENCODER.encode(answer), status=status, headers=headers)
    if status == 413:  # what is still on its way would be read and thrown away for nothing
        response.force_close()
    return response
