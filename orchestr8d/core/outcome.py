"""How an attempt ended, as data, and what follows for its task: done, retried, queued again."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from orchestr8d.core import admission, backoff
from orchestr8d.core.admission import Change, Happened
from orchestr8d.core.durations import iso
from orchestr8d.core.model import Attempt, Error, Resources, Task
from orchestr8d.core.states import AttemptStatus

# The rest would only fail again (contract, error.kind).
RETRIED = frozenset({"exit", "signal", "timeout", "stalled", "check", "lost", "overload", "crashed"})


_JSON = msgspec.json.Encoder()


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


class Settled(msgspec.Struct):
    """What an outcome makes of the task, and of its attempt."""

    change: Change
    attempt_status: AttemptStatus
    attempt_error: Error | None


def settle(task: Task, attempt: Attempt, outcome: Outcome, now: int, draw: float) -> Settled:
    """The end of `attempt`, of a running `task`; `draw` is a random number in [0, 1) for the backoff's jitter."""
    said: dict[str, Any] = {
        "attempt": attempt.number, "attempt_id": attempt.id, "executor_id": attempt.executor_id,
        "exit_code": outcome.exit_code, "signal": outcome.signal,
        "run_seconds": max(0, now - attempt.started_at) / 1000,
    }  # fmt: skip
    if outcome.status == "completed":
        change = admission.finalise(task, "completed", now, **said)
        change.set["result_type"] = outcome.result_type
        return Settled(change, "completed", None)
    if task.cancel_requested_at is not None or outcome.status == "cancelled":
        change = admission.finalise(task, "cancelled", now, Error("cancelled", "cancelled on request"), **said)
        change.set["result_type"] = outcome.result_type
        return Settled(change, "cancelled", outcome.error)
    if outcome.status == "interrupted":
        # It keeps its rank: an interruption is nobody's turn.
        change = Change(task, {"status": "queued", "executor_id": None, "hold": admission.hold(task)}, [
            Happened("task.queued", {"status": "queued", "reason": "interrupted", "kind": task.kind,
                                     "queue": task.queue, **said})])  # fmt: skip
        return Settled(change, "interrupted", outcome.error)
    error = outcome.error or Error("crashed", "the runner gave no reason")
    wait = retry_after(task, error, now, draw)
    if wait is not None:
        wake_at = now + max(1, round(wait * 1000))
        event = Happened("task.retrying", {
            "status": "retrying", "error": error, "retry_count": task.retry_count + 1, "next_retry_at": iso(wake_at),
            "kind": task.kind, "queue": task.queue, **said})  # fmt: skip
        change = Change(task, {
            "status": "retrying", "retry_count": task.retry_count + 1, "wake_at": wake_at, "wake_is_delay": 1,
            "executor_id": None, "error": _JSON.encode(error).decode()}, [event])  # fmt: skip
        return Settled(change, "failed", error)
    change = admission.finalise(task, "failed", now, error, **said)
    change.set["result_type"] = outcome.result_type
    return Settled(change, "failed", error)


def retry_after(task: Task, error: Error, now: int, draw: float) -> float | None:
    """Seconds until the next try; None when there is none, or when it would come after the deadline."""
    spec = task.read_spec()
    if error.kind not in RETRIED or spec.on_failure != "retry" or task.retry_count >= spec.max_retries:
        return None
    wait = backoff.delay(spec.backoff, task.retry_count + 1, draw)
    if task.deadline_at is not None and now + wait * 1000 >= task.deadline_at:
        return None
    return wait
