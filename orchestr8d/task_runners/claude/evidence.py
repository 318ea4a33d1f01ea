"""What a run of the CLI has proved, from the CLI's own records, and the judgement on it.

Texts that a model, a tool or the API wrote decide nothing: only types, numbers and flags do.
"""

from __future__ import annotations

from posixpath import join, normpath
from typing import Any, Final

import msgspec

from orchestr8d.core import redact
from orchestr8d.core.model import Error, Session, Usage
from orchestr8d.core.outcome import Limited, Outcome, failed
from orchestr8d.processes import signal_of
from orchestr8d.task_runners.claude.records import Record, blocks, number, part, text

MOST_FILES: Final = 1000
# Calls of tools whose results have not come yet; more at once are not followed.
_MOST_OPEN: Final = 1000
_MOST_DENIALS: Final = 100
_SENTENCE: Final = 400
# US dollars: less is what rounding leaves.
_SOMETHING: Final = 1e-8
# Tools that write a file, and where in their input and in their result it is named.
_WRITERS: Final = {"Write": "file_path", "Edit": "file_path", "MultiEdit": "file_path", "NotebookEdit": "notebook_path"}
_WRITTEN: Final = ("filePath", "notebook_path")
# The words by which the CLI names a failure of the API, for versions that do not give its status.
_STATUS: Final = {
    "rate_limit": 429, "overloaded": 529, "authentication_failed": 401, "billing_error": 402, "invalid_request": 400,
}  # fmt: skip
_TOKENS: Final = {
    "inputTokens": "input_tokens", "outputTokens": "output_tokens", "cacheReadInputTokens": "cache_read_tokens",
    "cacheCreationInputTokens": "cache_creation_tokens", "costUSD": "cost_usd",
}  # fmt: skip
_RUN_TOKENS: Final = {
    "input_tokens": "input_tokens", "output_tokens": "output_tokens",
    "cache_read_input_tokens": "cache_read_tokens", "cache_creation_input_tokens": "cache_creation_tokens",
}  # fmt: skip


# Why the CLI went no further, where it says so without an error, and where a further try would fail alike.
_BROKEN_OFF: Final = frozenset({"aborted_streaming", "aborted_tools"})
_TOO_LONG: Final = frozenset({"prompt_too_long", "blocking_limit", "rapid_refill_breaker"})


class Wanted(msgspec.Struct, frozen=True):
    """What the attempt was asked for, as far as the judgement goes. `capped`: what was set aside for the attempt was
    less than its task may spend."""

    structured: bool = False
    allow_denied: bool = False
    capped: bool = False
    account: str = "default"


class Evidence:
    """Remembers of a stream's records what matters; in bounded memory, however many come."""

    def __init__(self) -> None:
        # The last one: each turn of a process has its own, and a background task's end makes a turn.
        self.result: Record | None = None
        # What was denied, by the call's id; a later result does not name it again.
        self.denied: dict[str, str] = {}
        # The CLI's word for the failure of the API that it met last.
        self.api_error: str | None = None
        # Wall-clock ms.
        self.resets_at: int | None = None
        self._cwd = "/"
        self._files: dict[str, None] = {}
        self._writing: dict[str, str] = {}
        self._turns = 0
        self._run_tokens: dict[str, float] = {}
        # By model, since the process began; None when the CLI does not tell.
        self._models: dict[str, dict[str, float]] | None = {}

    @property
    def files(self) -> list[str]:
        return list(self._files)

    def feed(self, record: Record) -> None:
        match record.get("type"):
            case "system" if record.get("subtype") == "init":
                self._cwd = text(record, "cwd") or self._cwd
            case "assistant":
                self._assistant(record)
            case "user":
                self._user(record)
            case "rate_limit_event":
                info = part(record, "rate_limit_info")
                if info.get("status") == "rejected" and (at := number(info, "resetsAt")) > 0:
                    self.resets_at = int(at * 1000)
            case "result":
                self._result(record)

    def usage(self, session: Session, forked: bool) -> Usage | None:
        """What the run has used; None before there is a result, as records of answers tell neither cost nor output.

        The CLI's total is the session's: with what runs had cost that ended without a result, when the CLI wrote it
        down (at SIGTERM it does, at SIGKILL it cannot), and of a fork with what the other session had cost. All else is
        this run's alone.
        """
        if self.result is None:
            return None
        models, total = self._models, number(self.result, "total_cost_usd")
        cost = max(0.0, total - session.spent_usd)
        if models is not None:
            own = sum(figures["cost_usd"] for figures in models.values())
            cost = own if forked else max(cost, own)
        elif not session.begun and not forked:
            models = _by_model(part(self.result, "modelUsage"))
        # By model also what subagents used is counted, and what a run used that its budget ended.
        tokens = {
            name: int(sum(f[name] for f in models.values()) if models else self._run_tokens.get(name, 0))
            for name in _RUN_TOKENS.values()
        }
        shown = {model: {name: round(n, 9) for name, n in f.items()} for model, f in (models or {}).items()}
        return Usage(**tokens, cost_usd=round(cost, 9), num_turns=self._turns, by_model=shown)

    def _assistant(self, record: Record) -> None:
        message = part(record, "message")
        if message.get("model") == "<synthetic>" and not record.get("parent_tool_use_id"):
            self.api_error = text(record, "error") or self.api_error
        for block in blocks(message, "tool_use"):
            where = _WRITERS.get(text(block, "name") or "")
            path = text(part(block, "input"), where) if where else None
            call = text(block, "id")
            if path and call and len(self._writing) < _MOST_OPEN:
                self._writing[call] = path

    def _user(self, record: Record) -> None:
        results = blocks(part(record, "message"), "tool_result")
        said = part(record, "tool_use_result") if len(results) == 1 else {}
        for block in results:
            path = self._writing.pop(text(block, "tool_use_id") or "", None)
            if path is None or block.get("is_error"):
                continue
            path = next((p for p in (text(said, name) for name in _WRITTEN) if p), path)
            if len(self._files) < MOST_FILES:
                self._files[normpath(join(self._cwd, path))] = None

    def _result(self, record: Record) -> None:
        self.result = record
        self._turns += int(number(record, "num_turns"))
        for theirs, ours in _RUN_TOKENS.items():
            self._run_tokens[ours] = self._run_tokens.get(ours, 0) + number(part(record, "usage"), theirs)
        since = record.get("model_usage_since_last_result")
        if not isinstance(since, dict):
            self._models = None
        elif self._models is not None:
            for model, figures in _by_model(since).items():
                mine = self._models.setdefault(model, dict.fromkeys(_TOKENS.values(), 0))
                for name, amount in figures.items():
                    mine[name] += amount
        denials = record.get("permission_denials")
        for denial in denials if isinstance(denials, list) else []:
            if isinstance(denial, dict) and len(self.denied) < _MOST_DENIALS:
                self.denied[text(denial, "tool_use_id") or str(len(self.denied))] = _denial(denial)


def unsaid(costs: Record, before: Record, session: Session) -> Usage | None:
    """What a run has used that came to no result, by what the CLI has written down of the conversation's costs, and of
    those of the one that it was forked from; None when that has nothing of this run: it was killed, or had no answer
    yet."""
    cost = number(costs, "totalCostUSD") - number(before, "totalCostUSD") - session.spent_usd
    if cost < _SOMETHING:
        return None
    models = {} if session.begun or before else _by_model(part(costs, "modelUsage"))
    tokens = {name: int(sum(figures[name] for figures in models.values())) for name in _RUN_TOKENS.values()}
    return Usage(**tokens, cost_usd=round(cost, 9), by_model=models)


def judge(evidence: Evidence, exit_code: int, wanted: Wanted) -> Outcome:
    """The outcome of a run that ended by itself: status, error, what it was limited by, result."""
    result = evidence.result
    if result is None:
        return failed("crashed", f"{_end(exit_code)} without a result")
    if result.get("is_error") or text(result, "subtype") not in (None, "success"):
        return _failure(evidence, result, wanted)
    outcome = _success(evidence, result, exit_code, wanted)
    kind, body = _answer(result, wanted)
    return msgspec.structs.replace(outcome, result_type=kind, result=body)


def _success(evidence: Evidence, result: Record, exit_code: int, wanted: Wanted) -> Outcome:
    if exit_code != 0:
        return failed("crashed", f"{_end(exit_code)} after its result")
    ended_by = text(result, "terminal_reason")
    if ended_by in _BROKEN_OFF:
        return failed("crashed", f"was broken off ({ended_by})")
    if ended_by == "hook_stopped":
        return failed("denied", "a hook stopped the run: the work is not done")
    if ended_by == "tool_deferred":
        return failed("denied", f"a hook put {_tool(part(result, 'deferred_tool_use'))} off: the work is not done")
    if result.get("num_turns") == 0:
        return failed("denied", sentence(f"the prompt was blocked: {text(result, 'result') or ''}"))
    if evidence.denied and not wanted.allow_denied:
        return failed("denied", sentence(f"permission was denied: {'; '.join(evidence.denied.values())}"))
    if wanted.structured and "structured_output" not in result:
        return failed("schema", "the answer does not fit json_schema: there is no structured output")
    return Outcome(status="completed")


def _end(exit_code: int) -> str:
    how = signal_of(exit_code)
    return f"exited with code {exit_code}" if how is None else f"ended by {how}"


def _answer(result: Record, wanted: Wanted) -> tuple[Any, bytes | None]:
    if wanted.structured and "structured_output" in result:
        return "json", msgspec.json.encode(result["structured_output"])
    return "summary", (text(result, "result") or "").encode()


def _failure(evidence: Evidence, result: Record, wanted: Wanted) -> Outcome:
    subtype = text(result, "subtype")
    if subtype == "error_max_turns":
        return failed("max_turns", _words(result, "reached its number of turns (max_turns)"))
    if subtype == "error_max_budget_usd":
        return _budget(result, wanted)
    if subtype == "error_max_structured_output_retries":
        return failed("schema", _words(result, "the answer does not fit json_schema"))
    message = _words(result, "the CLI reported an error without a word")
    match _status_of(evidence, result):
        case 429:
            limited = Limited("limit", wanted.account, evidence.resets_at, message)
            return Outcome(status="parked", error=Error("limit", message), limited=limited)
        case 529:
            return _refused("overload", message, wanted)
        case 401 | 403:
            return _refused("auth", message, wanted)
        case 402:
            return _refused("billing", message, wanted)
        case 408 | 409:
            # Worth another try, unlike the rest of the client's errors.
            return failed("crashed", message)
        case status if status is not None and 400 <= status < 500:
            return failed("invalid_request", message)
    if text(result, "stop_reason") == "refusal" or text(result, "terminal_reason") in _TOO_LONG:
        return failed("invalid_request", message)
    return failed("crashed", message)


def _status_of(evidence: Evidence, result: Record) -> int | None:
    """The API's status, in which a low credit is always a 402 and an overload always a 529."""
    if result.get("api_error_type") == "overloaded_error":
        return 529
    if result.get("api_error_type") == "billing_error":
        return 402
    status = result.get("api_error_status")
    if status == 400 and evidence.api_error == "billing_error":
        return 402
    if isinstance(status, int):
        return status
    if "api_error_status" in result or evidence.api_error is None:
        return None
    return _STATUS.get(evidence.api_error)


def _budget(result: Record, wanted: Wanted) -> Outcome:
    if not wanted.capped:
        return failed("budget", _words(result, "spent all that it may (max_cost_usd)"))
    return over_budget(wanted.account)


def over_budget(account: str) -> Outcome:
    """Of an attempt that has spent all that was set aside for it, while its task may spend more."""
    message = "spent all that was set aside for it"
    limited = Limited("budget", account, None, message)
    return Outcome(status="parked", error=Error("budget", message), limited=limited)


def _refused(kind: Any, message: str, wanted: Wanted) -> Outcome:
    return failed(kind, message, limited=Limited(kind, wanted.account, None, message))


def _words(result: Record, otherwise: str) -> str:
    errors = result.get("errors")
    said = [e for e in errors if isinstance(e, str)] if isinstance(errors, list) else []
    return sentence(text(result, "result") or "; ".join(said) or otherwise)


def sentence(words: str) -> str:
    """On one line, without what looks like a secret, not too long."""
    line = " ".join(redact.text(words[: 10 * _SENTENCE]).split())
    return line if len(line) <= _SENTENCE else f"{line[: _SENTENCE - 1]}…"


def _denial(denial: Record) -> str:
    said = part(denial, "tool_input")
    what = next((w for w in (text(said, name) for name in ("command", "file_path", "url", "path")) if w), None)
    return f"{_tool(denial)} ({' '.join(what.split())[:100]})" if what else _tool(denial)


def _tool(record: Record) -> str:
    return text(record, "tool_name") or text(record, "name") or "a tool"


def _by_model(usage: Record) -> dict[str, dict[str, float]]:
    return {
        model: {ours: number(figures, theirs) for theirs, ours in _TOKENS.items()}
        for model, figures in usage.items()
        if isinstance(figures, dict)
    }
