"""How accounts, the breaker and budgets stand, as it is told to people, and why no agent's task starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from orchestr8d.core import budgets, governor
from orchestr8d.core.budgets import Fund
from orchestr8d.core.durations import iso
from orchestr8d.core.governor import Account, Valve


class AccountStanding(msgspec.Struct):
    """`reset_at` (ms): when a limited one is tried again."""

    name: str
    state: Literal["open", "limited", "closed"]
    reset_at: int | None
    running: int
    concurrency: int
    reason: str | None


class BreakerStanding(msgspec.Struct):
    """`half_open`: one task may try whether the provider takes more again."""

    state: Literal["closed", "open", "half_open"]
    until: int | None


class Standing(msgspec.Struct):
    """`full`: as many run over all accounts as may at once. `parked`: tasks that wait for an account, the breaker or a
    budget."""

    accounts: list[AccountStanding]
    breaker: BreakerStanding
    funds: list[Fund]
    full: bool
    parked: int


def standing(
    accounts: Sequence[Account], concurrency: int, valves: Mapping[str, Valve], running: Mapping[str, int],
    funds: list[Fund], parked: int, now: int,
) -> Standing:  # fmt: skip
    shown = [_account(a, valves.get(a.name, Valve(a.name)), running.get(a.name, 0), now) for a in accounts]
    full = sum(running.values()) >= concurrency
    return Standing(shown, _breaker(valves.get(governor.BREAKER), now), funds, full, parked)


def _account(account: Account, valve: Valve, running: int, now: int) -> AccountStanding:
    if governor.phase(valve, now) == "open":
        valve = Valve(account.name)
    return AccountStanding(
        account.name, valve.state, valve.over_at, running, account.concurrency, valve.reason or None
    )  # fmt: skip


def _breaker(valve: Valve | None, now: int) -> BreakerStanding:
    if valve is None:
        return BreakerStanding("closed", None)
    if valve.probe is not None or governor.phase(valve, now) == "probe":
        return BreakerStanding("half_open", None)
    return BreakerStanding("open", valve.over_at)


def summary(seen: Standing, now: int) -> str:
    """Why no agent's task starts and until when, or that they may, in one sentence."""
    waiting = "" if not seen.parked else f"; {seen.parked} task{'s wait' if seen.parked > 1 else ' waits'}"
    return _state(seen, now) + waiting + "."


def _state(seen: Standing, now: int) -> str:
    if seen.breaker.state == "open":
        return f"No agent's task starts: the provider is overloaded; it is tried again at {iso(seen.breaker.until)}"
    is_open = [a for a in seen.accounts if a.state == "open"]
    if not is_open:
        return "No agent's task starts: " + ", ".join(_why(a, now) for a in seen.accounts)
    if seen.breaker.state == "half_open":
        return "The provider was overloaded: one agent's task tries whether it takes more again"
    spent = [f for f in seen.funds if f.left <= 0]
    if spent:
        names = dict.fromkeys(f"{f.budget.name} ({f.budget.per} {f.key})" if f.key else f.budget.name for f in spent)
        return f"Agents' tasks start, but not at the expense of {', '.join(names)}: nothing is left of it"
    if seen.full:
        return "As many agents' tasks run as may at once"
    if all(a.running >= a.concurrency for a in is_open):
        return "Every open account runs as much as it may"
    if len(is_open) < len(seen.accounts):
        others = ", ".join(_why(a, now) for a in seen.accounts if a.state != "open")
        return f"Agents' tasks start, but not on every account: {others}"
    return "Agents' tasks start"


def _why(account: AccountStanding, now: int) -> str:
    reason = f" ({account.reason})" if account.reason else ""
    if account.state == "closed":
        return f"account {account.name} is closed{reason} until `orchestr8d limits open {account.name}` or a reload"
    if account.reset_at is not None and account.reset_at > now:
        return f"account {account.name} is limited{reason} until {iso(account.reset_at)}"
    return f"account {account.name} was limited{reason} and one task tries it again"


def period_name(fund: Fund) -> str:
    """`total`, or the day as `2026-03-01`."""
    return (iso(fund.period * budgets.DAY) or "")[:10] if fund.budget.per == "day" else "total"
