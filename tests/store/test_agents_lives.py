"""Random lives of agents' tasks: never more than accounts and budgets have, one probe, and nobody is forgotten."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestr8d.clock import FakeClock
from orchestr8d.core.budgets import Budget
from orchestr8d.core.errors import Problem
from orchestr8d.core.governor import Account
from orchestr8d.core.model import Usage
from orchestr8d.core.outcome import Limited, Outcome, failed
from orchestr8d.events import Bus
from orchestr8d.store.types import Claim
from tests.store.conftest import BACKENDS, LIMITS
from tests.store.helpers import Hand, agent, check, every, new

ACCOUNTS = (Account("a", 2), Account("b", 1))
BUDGETS = (Budget("all", 4.0), Budget("tags", 2.0, per="tag", on_exceed="fail"), Budget("days", 3.0, per="day"))
AGENTS = 3

pick = st.integers(0, 1000)
steps = st.one_of(
    st.tuples(
        st.just("add"),
        st.fixed_dictionaries({
            "account": st.sampled_from([None, None, "a", "b"]), "max_cost_usd": st.sampled_from([None, 0.5, 1.0, 3.0]),
            "queue": st.sampled_from(["p", "q"]), "concurrency_key": st.sampled_from([None, None, "k"]),
            "tags": st.sampled_from([[], ["x"], ["x", "y"]]), "priority": st.sampled_from([-1, 0, 5]),
            "max_retries": st.integers(0, 2),
        }),
    ),
    st.tuples(st.just("command"), st.sampled_from(["p", "q"])),
    st.tuples(st.just("claim"), st.integers(0, 5)),
    st.tuples(st.just("end"), st.tuples(pick, st.sampled_from(
        ["completed", "completed", "failed", "interrupted", "limit", "reset", "overload", "auth"]))),
    st.tuples(st.just("time"), st.sampled_from([1, 10, 100, 1000, 100_000])),
    st.tuples(st.just("cancel"), pick),
    st.tuples(st.just("pause"), st.tuples(st.sampled_from(["p", "q"]), st.booleans())),
    st.tuples(st.just("open"), st.sampled_from(["a", "b"])),
)  # fmt: skip


class Life:
    """An executor that may do anything that the real one may."""

    def __init__(self, hand: Hand) -> None:
        self.hand = hand
        self.running: dict[str, Claim] = {}

    async def step(self, what: str, how: object) -> None:
        store, clock = self.hand.store, self.hand.clock
        if what == "add":
            await self.hand.add_all(agent(**how))  # type: ignore[arg-type]
        elif what == "command":
            await self.hand.add_all(new(queue=how))
        elif what == "claim":
            await self.claim(int(how))  # type: ignore[call-overload]
        elif what == "end" and self.running:
            number, kind = how  # type: ignore[misc]
            await self.end(list(self.running.values())[number % len(self.running)], kind)
        elif what == "time":
            clock.advance(float(how))  # type: ignore[arg-type]
        elif what == "cancel":
            views = await every(store)
            if views:
                task = views[int(how) % len(views)].task  # type: ignore[call-overload]
                try:
                    await store.cancel(task.id)
                except Problem:
                    assert task.completed_at is not None
        elif what == "pause":
            queue, paused = how  # type: ignore[misc]
            await store.put_queue(queue, {"paused": paused})
        elif what == "open":
            await store.open_account(str(how))

    async def claim(self, free: int) -> None:
        for claim in await self.hand.claim(free):
            self.running[claim.attempt.id] = claim
        await self.look()

    async def end(self, claim: Claim, kind: str) -> None:
        del self.running[claim.attempt.id]
        usage = Usage(output_tokens=1, cost_usd=0.001)
        if claim.task.agent is None:
            outcome = Outcome(status="completed")
        elif kind in ("limit", "reset"):
            until = self.hand.clock.now() + 50_000 if kind == "reset" else None
            outcome = Outcome(status="parked", limited=Limited("limit", "", until))
        elif kind in ("overload", "auth"):
            outcome = failed(kind, "no", limited=Limited(kind, ""))  # type: ignore[arg-type]
        elif kind == "failed":
            outcome = failed("exit", "no", usage=usage)
        else:
            outcome = Outcome(status=kind, usage=usage if kind == "completed" else None)  # type: ignore[arg-type]
        await self.hand.end(claim, outcome)

    async def look(self) -> None:
        """What never may be."""
        agents = [claim for claim in self.running.values() if claim.task.agent is not None]
        assert len(agents) <= AGENTS
        for account in ACCOUNTS:
            assert sum(c.attempt.account == account.name for c in agents) <= account.concurrency
        for claim in agents:
            asked = claim.task.read_spec().agent
            assert asked is not None
            assert asked.account in (None, claim.attempt.account)
            assert claim.attempt.cap_usd is not None
            assert asked.max_cost_usd is None or claim.attempt.cap_usd <= asked.max_cost_usd
        assert sum(claim.attempt.cap_usd or 0 for claim in agents) <= 4.0 + 1e-6
        for fund in (await self.hand.store.standing()).funds:
            assert fund.used + fund.reserved <= fund.budget.amount + 1e-6
            assert fund.reserved >= 0

    async def finish(self) -> None:
        """With every hindrance gone each task comes to its end by itself: time and ends are all that it takes."""
        store, clock = self.hand.store, self.hand.clock
        for queue in ("p", "q"):
            await store.put_queue(queue, {"paused": False})
        await store.open_account(None)
        for _ in range(500):
            claimed = await store.claim("executor-1", 5)
            for claim in claimed.claims:
                self.running[claim.attempt.id] = claim
            await self.look()
            ended = list(self.running.values())
            for claim in ended:
                await self.end(claim, "completed")
            if ended:
                continue
            if claimed.next_due is None:
                break
            if claimed.next_due > clock.now():
                clock.advance((claimed.next_due - clock.now()) / 1000)
        left = [v for v in await every(store) if v.task.completed_at is None]
        assert [(v.task.status, v.task.parked_for, v.waiting_for) for v in left] == []
        assert all(fund.reserved < 1e-6 for fund in (await store.standing()).funds)
        await check(store)


async def live(backend: str, directory: Path, story: list[tuple[str, object]]) -> None:
    clock = FakeClock()
    limits = msgspec.structs.replace(LIMITS, accounts=ACCOUNTS, agents=AGENTS, budgets=BUDGETS)
    store = await BACKENDS[backend](directory, "store", clock, Bus(), limits)
    try:
        life = Life(Hand(store, clock))
        for what, how in story:
            await life.step(what, how)
        await life.finish()
    finally:
        await store.close()


@pytest.mark.slow
@pytest.mark.parametrize("backend", sorted(BACKENDS))
@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(story=st.lists(steps, min_size=10, max_size=60))
def test_random_lives_of_agents(backend: str, story: list[tuple[str, object]]) -> None:
    directory = Path(tempfile.mkdtemp())
    try:
        asyncio.run(live(backend, directory, story))
    finally:
        shutil.rmtree(directory)
