"""Reads what the daemon answered: a JSON document, or a typed error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
URN = "urn:orchestr8d:"


class ApiError(Exception):
    """The daemon refused a request.

    `status` is the HTTP status, `type` the kind (such as `not-found`), `detail` one sentence, `errors` all faults
    of an invalid input as `{"path", "message"}`, `retry_after` seconds, if the daemon named them.
    """

    def __init__(
        self,
        status: int,
        type: str,  # noqa: A002 (the name of the field in the problem document)
        detail: str,
        errors: list[dict[str, str]] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.type = type
        self.detail = detail
        self.errors = errors or []
        self.retry_after = retry_after


class NoDaemon(Exception):
    """No daemon could be reached; the text says where it was looked for."""


class ConnectionLost(NoDaemon):
    """The daemon went away before it had answered: whether it carried the request out is not known."""


def read(status: int, headers: Mapping[str, str], body: bytes, text: bool = False) -> Any:
    """The document of a successful answer (`{}` when it has none), or its `text`. Raises ApiError for any other
    status."""
    if status >= 400:
        raise _error(status, headers, body)
    if text:
        return body.decode()
    if not body:
        return {}
    try:
        return json.loads(body)
    except ValueError:
        detail = "the answer is not JSON; is this an orchestr8d daemon?"
        raise ApiError(status, "invalid-answer", detail) from None


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> ApiError | NoDaemon:
    """Why a stream was not opened: a daemon that stops (503) counts as one that is away for a while."""
    error = _error(status, headers, body)
    return NoDaemon(error.detail) if status == 503 else error


def _error(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    try:
        problem = json.loads(body)
        kind, detail, errors = problem["type"], problem.get("detail"), problem.get("errors")
    except (ValueError, KeyError, TypeError):  # a proxy's page, or not our daemon at all
        text = body.decode("utf-8", "replace").strip().partition("\n")[0][:200]
        return ApiError(status, "unknown", text or f"HTTP status {status}")
    return ApiError(
        status, str(kind).removeprefix(URN), detail or problem.get("title") or f"HTTP status {status}",
        errors, _seconds(headers.get("Retry-After")),
    )  # fmt: skip


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
