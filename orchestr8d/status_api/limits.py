"""What holds agents' tasks back: accounts, the breaker over all of them, budgets; and opening an account again."""

from __future__ import annotations

from typing import Literal

import msgspec
from aiohttp import web

from orchestr8d.core import standing
from orchestr8d.core.budgets import Fund
from orchestr8d.core.durations import iso
from orchestr8d.core.standing import Standing
from orchestr8d.status_api import respond
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.status_api.views import Time


class Account(msgspec.Struct):
    """An account; a limited one is tried again at `reset_at`, a closed one when it is opened."""

    name: str
    state: Literal["open", "limited", "closed"]
    reset_at: Time | None
    running: int
    concurrency: int
    reason: str | None


class Breaker(msgspec.Struct):
    """Open while the provider is overloaded; half open while one task tries whether it still is."""

    state: Literal["closed", "open", "half_open"]
    until: Time | None


class Budget(msgspec.Struct):
    """A budget, or one `key` of it: a task, tag or user. `period` is `total`, or the day."""

    name: str
    period: str
    limit: float
    used: float
    reserved: float
    unit: Literal["usd", "tokens"]
    per: Literal["task", "workflow", "tag", "user", "day", "total"]
    key: str | None


class Limits(msgspec.Struct):
    """`summary` says why no agent's task starts and until when; `parked` is how many wait for any of these."""

    accounts: list[Account]
    breaker: Breaker
    budgets: list[Budget]
    parked: int
    summary: str


def _limits(seen: Standing, now: int) -> Limits:
    accounts = [
        Account(a.name, a.state, iso(a.reset_at), a.running, a.concurrency, a.reason) for a in seen.accounts
    ]  # fmt: skip
    breaker = Breaker(seen.breaker.state, iso(seen.breaker.until))
    return Limits(accounts, breaker, [_budget(f) for f in seen.funds], seen.parked, standing.summary(seen, now))


def _budget(fund: Fund) -> Budget:
    b = fund.budget
    period = standing.period_name(fund)
    return Budget(b.name, period, b.amount, fund.used, fund.reserved, b.unit, b.per, fund.key or None)


async def show(services: Services, call: Call) -> web.Response:
    return respond.json(_limits(await services.store.standing(), services.clock.now()))


async def open_account(services: Services, call: Call) -> web.Response:
    await services.store.open_account(call.path("name"))
    return await show(services, call)


ROUTES = (
    Route("GET", "/api/v1/limits", show, "What holds agents' tasks back, and until when", "read", {200: Limits}),
    Route(
        "POST", "/api/v1/limits/{name}/open", open_account, "Open a closed or limited account", "admin", {200: Limits}
    ),
)  # fmt: skip
