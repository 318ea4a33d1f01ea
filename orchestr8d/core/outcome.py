"""How an attempt ended, as data, and what follows for its task: done, retried, queued again."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from orchestr8d.core import admission, backoff, sessions
from orchestr8d.core.admission import Change, Happened
from orchestr8d.core.durations import iso
from orchestr8d.core.model import Attempt, Error, Resources, Task, Usage, Worktree
from orchestr8d.core.states import AttemptStatus

# The rest would only fail again (contract, error.kind).
RETRIED = frozenset({"exit", "signal", "timeout", "stalled", "check", "lost", "overload", "crashed"})


_JSON = msgspec.json.Encoder()


class Limited(msgspec.Struct, frozen=True):
    """What a run came up against that is not its own doing and that others will come up against too.

    `limit`: the account is used up, until `until` (wall-clock ms; None: the provider did not say); `overload`: the
    provider is; `auth`, `billing`: the account is refused; `budget`: what was set aside for the run is spent.
    """

    kind: Literal["limit", "overload", "auth", "billing", "budget"]
    account: str
    until: int | None = None
    reason: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a runner returns, always. `interrupted` spends no retry: it was the daemon's doing, not the task's. `parked`
    spends none either: the task waits until what it is `limited` by has passed."""

    status: Literal["completed", "failed", "cancelled", "interrupted", "parked"]
    error: Error | None = None
    limited: Limited | None = None
    exit_code: int | None = None
    signal: str | None = None
    result_type: Literal["text", "json", "file", "summary", "notification"] | None = None
    # UTF-8 text, or a JSON document for `json`; None for `file` and for nothing.
    result: bytes | None = None
    resources: Resources | None = None
    output_bytes: int | None = None
    files_created: list[str] = []
    usage: Usage | None = None
    worktree: Worktree | None = None


def failed(kind: str, message: str, **more: object) -> Outcome:
    return Outcome(status="failed", error=Error(kind, message), **more)  # type: ignore[arg-type]  # forwarded fields


class Settled(msgspec.Struct):
    """What an outcome makes of the task, and of its attempt."""

    change: Change
    attempt_status: AttemptStatus
    attempt_error: Error | None


def settle(
    task: Task, attempt: Attempt, outcome: Outcome, now: int, draw: float, short_of: str | None = None
) -> Settled:
    """The end of `attempt`, of a running `task`; `draw` is a random number in [0, 1) for the backoff's jitter.
    `short_of` is the budget (a `parked_for`) that bounded what it might spend."""
    usage = sessions.read_usage(task.usage)
    if outcome.usage is not None:
        usage = sessions.total(usage, outcome.usage)
    if outcome.status == "parked" and outcome.limited is not None and outcome.limited.kind == "budget":
        agent = task.read_spec().agent
        own = None if agent is None else agent.max_cost_usd
        if short_of is None or (own is not None and usage.cost_usd >= own):
            # No waiting brings its own maximum back.
            most = "" if own is None else f" (max_cost_usd {own:g})"
            error = Error("budget", f"spent all that it may{most}")
            outcome = msgspec.structs.replace(outcome, status="failed", error=error)
    settled = _settle(task, attempt, outcome, now, draw, short_of)
    if outcome.usage is not None:
        settled.change.set["usage"] = _JSON.encode(usage).decode()
    return settled


def _settle(task: Task, attempt: Attempt, outcome: Outcome, now: int, draw: float, short_of: str | None) -> Settled:
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
    if outcome.status == "parked" and outcome.limited is not None:
        # It keeps its rank too: when the limit is over, those that came first go first.
        parked_for = short_of if outcome.limited.kind == "budget" else "limit"
        change = Change(task, {"status": "parked", "parked_for": parked_for, "executor_id": None}, [
            Happened("task.parked", {"status": "parked", "kind": task.kind, "queue": task.queue,
                                     "limited": outcome.limited, **said})])  # fmt: skip
        return Settled(change, "parked", outcome.error)
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
