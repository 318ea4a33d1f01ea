"""What holds agents' tasks back, over HTTP: accounts, the breaker, budgets, and opening an account again."""

import pytest

from orchestr8d.core.budgets import Budget
from orchestr8d.core.governor import Account
from orchestr8d.core.model import Usage
from orchestr8d.core.outcome import Limited, Outcome, failed
from orchestr8d.store.types import Limits

AGENT = {"agent": "general-purpose", "prompt": "go"}


@pytest.fixture
async def agents(api):
    """An API with two accounts and a budget for each tag."""
    api.services.store.limits = Limits(
        min_free_disk=0, accounts=(Account("work", 1), Account("spare", 2)),
        budgets=(Budget("b", 10.0), Budget("tags", 1000, "tokens", per="tag")),
    )  # fmt: skip
    return api


async def submit(api, **options):
    status, answer = await api.call("POST", "/api/v1/tasks", {**AGENT, "options": options})
    assert status == 202, answer
    return answer["task_id"]


async def claim(api):
    """All that may start now, however many steps that takes."""
    claims = []
    while more := await api.pool.claim(10):
        claims += more
    return claims


def limited(kind, until=None):
    return Outcome(status="parked", limited=Limited(kind, "work", until, "used up"))


async def test_nothing_is_held_back(agents):
    status, answer = await agents.call("GET", "/api/v1/limits")
    assert status == 200
    assert answer == {
        "accounts": [
            {"name": "work", "state": "open", "reset_at": None, "running": 0, "concurrency": 1, "reason": None},
            {"name": "spare", "state": "open", "reset_at": None, "running": 0, "concurrency": 2, "reason": None},
        ],
        "breaker": {"state": "closed", "until": None},
        "budgets": [
            {"name": "b", "period": "total", "limit": 10.0, "used": 0.0, "reserved": 0.0, "unit": "usd", "per": "total",
             "key": None},
        ],
        "parked": 0,
        "summary": "Agents' tasks start.",
    }  # fmt: skip


async def test_a_limit_a_closed_account_and_opening_it(agents):
    first, second, third = [await submit(agents, account="work") for _ in range(3)]
    [work] = await claim(agents)
    reset = agents.services.clock.now() + 3_600_000
    await agents.pool.finish(first, work.attempt.id, limited("limit", reset))
    assert await claim(agents) == []
    _, answer = await agents.call("GET", "/api/v1/limits")
    assert answer["accounts"][0]["state"] == "limited"
    assert answer["accounts"][0]["reason"] == "used up"
    assert answer["parked"] == 3
    until = answer["accounts"][0]["reset_at"]
    _, task = await agents.call("GET", f"/api/v1/tasks/{second}")
    assert (task["status"], task["waiting_for"]) == ("parked", [{"kind": "limit", "account": "work", "until": until}])
    _, attempts = await agents.call("GET", f"/api/v1/tasks/{first}/attempts")
    assert [(a["status"], a["account"]) for a in attempts] == [("parked", "work")]

    status, answer = await agents.call("POST", "/api/v1/limits/work/open")
    assert (status, answer["accounts"][0]["state"]) == (200, "open")
    [work] = await claim(agents)
    no = failed("auth", "401", limited=Limited("auth", "work", None, "invalid key"))
    await agents.pool.finish(work.task.id, work.attempt.id, no)
    assert await claim(agents) == []
    _, task = await agents.call("GET", f"/api/v1/tasks/{third}")
    assert task["waiting_for"] == [{"kind": "limit", "account": "work"}]
    _, answer = await agents.call("GET", "/api/v1/limits")
    assert answer["accounts"][0] == {
        "name": "work", "state": "closed", "reset_at": None, "running": 0, "concurrency": 1, "reason": "invalid key"
    }  # fmt: skip
    assert "account work is closed (invalid key)" in answer["summary"]
    _, text = await agents.call("GET", "/metrics")
    assert b'orchestr8d_account_open{account="work"} 0.0' in text
    assert b'orchestr8d_account_open{account="spare"} 1.0' in text
    assert b"orchestr8d_parked 2.0" in text


async def test_the_breaker(agents):
    task = await submit(agents)
    waiting = await submit(agents, account="work")
    claims = await claim(agents)
    await agents.pool.finish(task, claims[0].attempt.id, limited("overload"))
    for later in claims[1:]:
        await agents.pool.finish(later.task.id, later.attempt.id, Outcome(status="interrupted"))
    await claim(agents)
    _, answer = await agents.call("GET", "/api/v1/limits")
    assert answer["breaker"]["state"] == "open"
    until = answer["breaker"]["until"]
    _, shown = await agents.call("GET", f"/api/v1/tasks/{waiting}/status")
    assert shown["waiting_for"] == [{"kind": "limit", "name": "breaker", "until": until}]
    assert answer["summary"].startswith("No agent's task starts: the provider is overloaded; it is tried again at ")


async def test_budgets(agents):
    await submit(agents, max_cost_usd=4.0, tags=["x"])
    waiting = await submit(agents, max_cost_usd=10.0, tags=["y"])
    second = await submit(agents, max_cost_usd=10.0)
    [a, b] = await claim(agents)
    await agents.pool.finish(a.task.id, a.attempt.id, Outcome(status="completed", usage=Usage(1, 2, 3, 4, 3.5)))
    _, answer = await agents.call("GET", "/api/v1/limits")
    budgets = {(row["name"], row["key"]): (row["used"], row["reserved"]) for row in answer["budgets"]}
    assert budgets == {("b", None): (3.5, 6.0), ("tags", "x"): (10.0, 0.0), ("tags", "y"): (0.0, 50.0)}
    assert b.task.id == waiting
    _, task = await agents.call("GET", f"/api/v1/tasks/{second}")
    assert (task["status"], task["waiting_for"]) == ("parked", [{"kind": "budget", "name": "b"}])


async def test_who_may_open_and_what_is_unknown(agents):
    status, answer = await agents.call("POST", "/api/v1/limits/wrok/open")
    assert (status, answer["detail"]) == (404, "there is no account wrok (did you mean 'work'?)")
    token = await agents.make_token(scope="submit")
    headers = {"Authorization": f"Bearer {token}"}
    assert (await agents.call("POST", "/api/v1/limits/work/open", headers=headers))[0] == 403
    assert (await agents.call("GET", "/api/v1/limits", headers=headers))[0] == 200
