"""Limits and budgets where they count: what the API sees of a queue full of agents."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.agents.conftest import MakeAgents, ask, until
from tests.claude_cli import SUBSCRIPTION
from tests.daemon import Daemon
from tests.messages_api import MessagesApi, fail, limit_reached, say, script, use

pytestmark = pytest.mark.slow
TASKS, SLOTS = 50, 4
PRIORITIES = ("low", "normal", "high")


def limits(daemon: Daemon) -> dict[str, Any]:
    status, answer = daemon.request("GET", "/api/v1/limits")
    assert status == 200
    return answer  # type: ignore[no-any-return]


def state(daemon: Daemon) -> str:
    (account,) = limits(daemon)["accounts"]
    return account["state"]  # type: ignore[no-any-return]


def test_a_limit_with_a_reset(make_agents: MakeAgents, messages_api: MessagesApi, work: Path) -> None:
    daemon = make_agents(f"[claude.accounts.team]\nconcurrency = {SLOTS}\n", **SUBSCRIPTION).start()
    resets_at = int(time.time()) + 12
    # Whoever asks first is refused, as many as run at that moment; all have one script, and so one count.
    prompt = script(say("done", first=[limit_reached(resets_at)] * SLOTS))
    daemon.request("POST", "/api/v1/queues/default/pause")
    tasks = [ask(daemon, work, prompt, max_retries=0, priority=PRIORITIES[n % 3]) for n in range(TASKS)]
    daemon.request("POST", "/api/v1/queues/default/resume")
    until(lambda: state(daemon) == "limited")
    parked = until(lambda: [t for t in map(daemon.task, tasks) if t["status"] == "parked"][SLOTS:])
    why = parked[-1]["waiting_for"]
    assert [(w["kind"], w["account"]) for w in why] == [("limit", "team")]
    assert daemon.wait(daemon.submit("true", cwd="/"))["status"] == "completed"
    assert state(daemon) == "limited"
    done = [daemon.wait(task, timeout=150) for task in tasks]
    assert {(t["status"], t["retry_count"]) for t in done} == {("completed", 0)}
    asked = [request.at for request in messages_api.requests]
    assert len(asked) == TASKS + SLOTS
    assert sum(at < resets_at for at in asked) == SLOTS
    # Those that were refused had been first, and are first again; the rest follow by rank.
    rank = {t["id"]: (-t["priority"], t["queued_at"], n) for n, t in enumerate(done)}
    starts = sorted(done, key=lambda t: t["attempts"][-1]["attempt_id"])
    order = [rank[t["id"]] for t in starts]
    assert [priority for priority, *_ in order] == sorted(priority for priority, *_ in order)


def test_a_limit_without_a_reset(make_agents: MakeAgents, messages_api: MessagesApi, work: Path) -> None:
    """The daemon's clock runs 30 times as fast, so that its backoff of 1 and 2 minutes is short."""
    faster = ("faketime", "-f", "+0 x30")
    daemon = make_agents("[claude.accounts.team]\nconcurrency = 2\n", wrap=faster).start()
    # Two run, each refused three times by a CLI that tries again by itself; then one probes, and is refused likewise.
    prompt = script(say("done", first=[fail(429)] * 9))
    tasks = [ask(daemon, work, prompt, max_retries=0) for _ in range(4)]
    done = [daemon.wait(task, timeout=90) for task in tasks]
    assert {(t["status"], t["retry_count"]) for t in done} == {("completed", 0)}
    asked = messages_api.requests
    assert len(asked) == 9 + 4
    assert len({request.session for request in asked[6:9]}) == 1
    # The next probe is let through alone as well, and opens the account for the rest.
    first, *rest = sorted((a for t in done for a in t["attempts"] if a["status"] == "completed"), key=started)
    assert all(a["started_at"] >= first["ended_at"] for a in rest)


def started(attempt: dict[str, Any]) -> str:
    return str(attempt["started_at"])


def test_a_person_knows_better_than_a_backoff(
    make_agents: MakeAgents, messages_api: MessagesApi, work: Path
) -> None:
    daemon = make_agents("[claude.accounts.team]\nconcurrency = 1\n").start()
    task = ask(daemon, work, script(say("done", first=[fail(429)] * 3)), max_retries=0)
    daemon.wait_until(task, "parked")
    (account,) = limits(daemon)["accounts"]
    assert (account["state"], account["reset_at"] is not None) == ("limited", True)
    assert daemon.request("POST", "/api/v1/limits/team/open")[0] == 200
    assert daemon.wait(task)["status"] == "completed"
    assert len(messages_api.requests) == 4


def test_agents_side_by_side_keep_to_one_budget(
    make_agents: MakeAgents, messages_api: MessagesApi, work: Path
) -> None:
    config = '[budgets.all]\nusd = 0.6\nper = "total"\n[claude.accounts.team]\nconcurrency = 5\n'
    daemon = make_agents(config, CLAUDE_CODE_DISABLE_BACKGROUND_TASKS="1").start()
    turn = {"output_tokens": 1000}
    steps = [use("Bash", command=f"echo {n}") for n in range(3)]
    for step in steps:
        step.usage = turn
    prompt = script(*steps, say("done", usage=turn))
    tasks = [ask(daemon, work, prompt, allowed_tools=["Bash"], max_retries=0) for _ in range(20)]
    until(lambda: all(daemon.task(t)["status"] not in ("queued", "running") for t in tasks), timeout=120)
    spent = [(daemon.task(t)["usage"] or {"cost_usd": 0.0})["cost_usd"] for t in tasks]
    per_turn = max(spent) / 4
    assert per_turn > 0
    assert 0.6 - 5 * per_turn <= sum(spent) <= 0.6 + 5 * per_turn
    waiting = [daemon.task(t) for t in tasks if daemon.task(t)["status"] == "parked"]
    assert waiting
    assert {w["kind"] for t in waiting for w in t["waiting_for"]} == {"budget"}
    (budget,) = limits(daemon)["budgets"]
    assert budget["used"] == pytest.approx(sum(spent))
