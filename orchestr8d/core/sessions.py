"""Which conversation an agent's attempt goes on with, and what its attempts cost together."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestr8d.core.model import Attempt, Error, Session, Usage

# After these the work is as good as it was; after the rest it is better begun anew.
_RESUMED = frozenset({"crashed", "overload", "stalled", "lost"})


def goes_on(last: Attempt) -> bool:
    """Whether the next attempt takes up the conversation of `last`, which has ended."""
    if last.status in ("interrupted", "parked"):
        return True
    if last.status != "failed" or last.error is None:
        return False
    return msgspec.json.decode(last.error, type=Error).kind in _RESUMED


def next_id(attempts: Sequence[Attempt], fresh: str) -> str:
    """The conversation of the attempt after `attempts` (oldest first): the last one's, or a new one named `fresh`."""
    last = attempts[-1] if attempts else None
    if last is None or last.session_id is None or not goes_on(last):
        return fresh
    return last.session_id


def of(attempt: Attempt, earlier: Sequence[Attempt]) -> Session | None:
    """The conversation of an attempt, given those before it; None when it has none."""
    if attempt.session_id is None:
        return None
    same = [a for a in earlier if a.session_id == attempt.session_id]
    # What the CLI says is the sum over a conversation.
    spent = sum(read_usage(a.usage).cost_usd for a in same)
    return Session(attempt.session_id, bool(same), spent, attempt.account or "default", attempt.cap_usd)


def read_usage(text: str | None) -> Usage:
    return Usage() if text is None else msgspec.json.decode(text, type=Usage)


def total(one: Usage, other: Usage) -> Usage:
    """The sum, model by model too."""
    by_model = {name: dict(figures) for name, figures in one.by_model.items()}
    for name, figures in other.by_model.items():
        mine = by_model.setdefault(name, {})
        for what, amount in figures.items():
            mine[what] = mine.get(what, 0) + amount
    return Usage(
        one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens,
        one.cache_read_tokens + other.cache_read_tokens,
        one.cache_creation_tokens + other.cache_creation_tokens,
        one.cost_usd + other.cost_usd,
        one.num_turns + other.num_turns,
        by_model,
    )
