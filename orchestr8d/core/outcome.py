"""How an attempt ended, as data, and what follows for its task: done, retried, queued again."""

from __future__ import annotations

from typing import Literal

import msgspec

from orchestr8d.core.model import Error, Resources

# The rest would only fail again (contract, error.kind).
RETRIED = frozenset({"exit", "signal", "timeout", "stalled", "check", "lost", "overload", "crashed"})


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a runner returns, always. `interrupted` spends no retry: it was the daemon's doing, not the task's."""

    status: Literal["completed", "failed", "cancelled", "interrupted"]
    error: Error | None = None
    exit_code: int | None = None
    signal: str | None = None
    result_type: Literal["text", "json", "file", "summary", "notification"] | None = None
    # UTF-8 text, or a JSON document for `json`; None for `file` and for nothing.
    result: bytes | None = None
    resources: Resources | None = None
    output_bytes: int | None = None
    files_created: list[str] = []


def failed(kind: str, message: str, **more: object) -> Outcome:
    return Outcome(status="failed", error=Error(kind, message), **more)  # type: ignore[arg-type]  # forwarded fields
