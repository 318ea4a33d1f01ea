"""Budgets: what is set aside for an agent's attempt before it starts, and what it is charged when it has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from orchestr8d.core.model import Attempt, Error, Task, Usage
from orchestr8d.core.outcome import Outcome

DAY: Final = 86_400_000
# Of a budget, for an agent of which nothing is known yet; and of what is expected, so that a start is worth while.
_SHARE: Final = 1 / 20
USEFUL: Final = 1 / 10
# Sums of fractions are never quite what they should be.
_NOTHING: Final = 1e-9


class Budget(msgspec.Struct, frozen=True):
    """`per` task, workflow, tag or user: each of them has the whole amount. A day is one of UTC."""

    name: str
    amount: float
    unit: Literal["usd", "tokens"] = "usd"
    per: Literal["task", "workflow", "tag", "user", "day", "total"] = "total"
    on_exceed: Literal["wait", "fail"] = "wait"


class Fund(msgspec.Struct):
    """What one key (a task, tag, user; '' for day and total) has used of a budget in a period, and what is set aside
    for attempts that run. `period`: days since the epoch, 0 where the budget knows none."""

    budget: Budget
    key: str = ""
    period: int = 0
    used: float = 0.0
    reserved: float = 0.0

    @property
    def left(self) -> float:
        return self.budget.amount - self.used - self.reserved

    @property
    def parked_for(self) -> str:
        return f"budget:{self.budget.name}/{self.key}"


class Granted(msgspec.Struct):
    """What was set aside of each fund, and what the attempt may spend; None: as much as it likes."""

    amounts: list[float]
    cap_usd: float | None


class Refused(msgspec.Struct):
    """It waits for `fund`, or fails. `for_good`: what others have set aside would not do either, if it came back."""

    fund: Fund | None
    error: Error | None = None
    for_good: bool = False


def name_of(parked_for: str) -> str:
    """The budget in a task's `parked_for`."""
    return parked_for.removeprefix("budget:").partition("/")[0]


def of_workflow(max_cost_usd: float) -> Budget:
    """A workflow's own maximum, over all that it starts."""
    return Budget("max_cost_usd", max_cost_usd, per="workflow", on_exceed="fail")


def period(budget: Budget, now: int) -> int:
    return now // DAY if budget.per == "day" else 0


def keys(budget: Budget, task: Task) -> list[str]:
    """Whose money a task spends; empty: the budget does not concern it."""
    if not task.lane:
        return []
    if budget.per == "tag":
        return list(dict.fromkeys(task.read_spec().tags))
    return [{"task": task.id, "user": task.user_id, "day": "", "total": ""}[budget.per]]


def tokens(usage: Usage) -> int:
    return usage.input_tokens + usage.output_tokens + usage.cache_read_tokens + usage.cache_creation_tokens


def amount(unit: str, usage: Usage) -> float:
    # Whatever a runner says: nobody gets money back for having run.
    return max(0.0, usage.cost_usd if unit == "usd" else float(tokens(usage)))


def own_left(task: Task) -> float | None:
    """What is left of the task's own `max_cost_usd`."""
    agent = task.read_spec().agent
    if agent is None or agent.max_cost_usd is None:
        return None
    spent = 0.0 if task.usage is None else msgspec.json.decode(task.usage, type=Usage).cost_usd
    return agent.max_cost_usd - spent


def used_up(last: Attempt | None) -> float | None:
    """What had been set aside for the last attempt, when that was too little."""
    if last is None or last.cap_usd is None or last.usage is None or last.status == "running":
        return None
    return last.cap_usd if msgspec.json.decode(last.usage, type=Usage).cost_usd >= last.cap_usd else None


def p90(amounts: Sequence[float]) -> float | None:
    """What nine of ten stayed within; None for none."""
    ordered = sorted(amounts)
    return ordered[(len(ordered) * 9 + 9) // 10 - 1] if ordered else None


def wanted(budget: Budget, own: float | None, last: Attempt | None, past: Sequence[Usage]) -> float:
    """What to set aside: the task's own maximum, else what its agent's tasks took, else a share of the budget."""
    if budget.unit == "usd" and own is not None:
        return min(own, budget.amount)
    guess = p90([amount(budget.unit, usage) for usage in past]) or budget.amount * _SHARE
    short = used_up(last) if budget.unit == "usd" else None
    return min(guess if short is None else max(guess, 2 * short), budget.amount)


def reserve(funds: Sequence[Fund], wants: Mapping[str, float], own: float | None) -> Granted | Refused:
    """What the next attempt gets; never more than is left. `wants` by budget, `own` is the task's own maximum."""
    if own is not None and own <= _NOTHING:
        return Refused(None, Error("budget", "its own max_cost_usd is spent"))
    short = [fund for fund in funds if not _useful(fund.left, wants[fund.budget.name])]
    for fund in short:
        b = fund.budget
        if b.on_exceed == "fail" and _for_good(fund, wants):
            whose = f" for {b.per} {fund.key}" if fund.key else ""
            spent = f"{fund.used:g} of {b.amount:g} {b.unit}"
            return Refused(fund, Error("budget", f"budget {b.name} is spent{whose}: {spent}"))
    if short:
        return Refused(short[0], for_good=_for_good(short[0], wants))
    amounts = [min(wants[fund.budget.name], fund.left) for fund in funds]
    caps = [given for fund, given in zip(funds, amounts, strict=True) if fund.budget.unit == "usd"]
    cap = min([*caps, *([] if own is None else [own])], default=None)
    if cap is not None:
        # What one of them does not give, the others need not keep.
        amounts = [min(a, cap) if f.budget.unit == "usd" else a for f, a in zip(funds, amounts, strict=True)]
    return Granted(amounts, cap)


def _for_good(fund: Fund, wants: Mapping[str, float]) -> bool:
    # What others have set aside may come back; what is spent does not.
    return not _useful(fund.budget.amount - fund.used, wants[fund.budget.name])


def _useful(left: float, want: float) -> bool:
    return left > _NOTHING and left >= want * USEFUL


def charge(unit: str, ended: Outcome, reserved: float) -> float:
    """What an attempt has spent. One that was ended before it could say so has spent all that was set aside for it, on
    the safe side; one that said nothing at all, nothing. (What a resumed conversation had spent comes with its end.)"""
    if ended.usage is not None:
        return amount(unit, ended.usage)
    return reserved if ended.output_bytes else 0.0
