"""Agents' tasks through whatever may happen to accounts and budgets: at rest, nobody waits in vain."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core.budgets import Budget, Granted, own_left
from orchestr8d.core.errors import Problem
from orchestr8d.core.governor import Account
from orchestr8d.core.model import Usage
from orchestr8d.core.outcome import Limited, Outcome, failed
from orchestr8d.events import Bus
from orchestr8d.store.sqlite import funds, open_store, reads
from orchestr8d.store.types import Claim, Limits
from tests.store.helpers import ME, Hand, agent, check, limited, new, refused
from tests.store.test_steering import to

pytestmark = pytest.mark.slow
STEPS = 80
TAGS = ["x", "y", "z"]


class Life:
    """One store, and somebody who does with it what chance says."""

    def __init__(self, seed: int, path: Path) -> None:
        self.r = random.Random(seed)
        self.path = path
        self.clock = FakeClock()
        self.live: dict[str, Claim] = {}
        self.tasks: list[str] = []
        self.limits = self.other_limits()

    def other_limits(self) -> Limits:
        r = self.r
        accounts = tuple(Account(name, r.randint(1, 3)) for name in r.sample("abc", r.randint(1, 3)))
        budgets = [
            Budget("all", r.choice([5, 10, 20]), "usd", "total", r.choice(["wait", "fail"])),
            Budget("tag", r.choice([1, 2, 4]), "usd", "tag"),
            Budget("user", r.choice([2, 4]), "usd", "user"),
            Budget("day", r.choice([3, 6]), "usd", "day"),
            Budget("tokens", r.choice([100, 1000]), "tokens", "day"),
            Budget("task", r.choice([1, 2]), "usd", "task", r.choice(["wait", "fail"])),
        ]  # fmt: skip
        some = tuple(r.sample(budgets, r.randint(0, 4)))
        return Limits(min_free_disk=0, accounts=accounts, agents=r.choice([2, 5, 100]), budgets=some)

    async def open(self) -> None:
        store = await open_store(self.path, clock=self.clock, bus=Bus(), limits=self.limits, synchronous="OFF")
        self.hand = Hand(store, self.clock)

    async def recheck(self) -> None:
        after: int | None = 0
        while after is not None:
            after = await self.hand.store.recheck_budgets(after)

    async def submit(self) -> None:
        r = self.r
        options: dict[str, Any] = {"queue": r.choice("qp"), "priority": r.randint(-1, 1), "tags": r.sample(TAGS, 2)}
        if r.random() < 0.2:
            made = new(**options)
        else:
            more = {"concurrency_key": "k", "account": r.choice("abc"), "max_cost_usd": r.choice([0.1, 1.0, 3.0]),
                    "user_id": "ann", "deadline": r.choice([10.0, 100.0])}  # fmt: skip
            options |= {name: value for name, value in more.items() if r.random() < 0.25}
            made = agent(r.choice("ABC"), max_retries=r.randint(0, 2), **options)
        self.tasks.append((await self.hand.add_all(made))[0].id)

    async def finish(self) -> None:
        if not self.live:
            return
        r, claim = self.r, self.live.pop(self.r.choice(list(self.live)))
        usage = Usage(output_tokens=r.randint(0, 60), cost_usd=r.choice([0.0, 0.05, 0.3, 1.2]))
        ends = [Outcome(status="completed", usage=usage)]
        if claim.task.lane:
            cap = claim.attempt.cap_usd or 0.0
            ends += [
                limited(), limited(until=self.clock.now() + r.choice([-5, 5000, 3_600_000]), usage=usage), refused(),
                failed("overload", "no", limited=Limited("overload", "")), failed("crashed", "gone", usage=usage),
                Outcome(status="interrupted", output_bytes=9), Outcome(status="cancelled", output_bytes=5),
                failed("exit", "no"), limited("budget", usage=Usage(output_tokens=3, cost_usd=cap + 0.02)),
            ]  # fmt: skip
        await self.hand.end(claim, r.choice(ends))

    async def steer(self) -> None:
        if not self.tasks:
            return
        store, task_id = self.hand.store, self.r.choice(self.tasks)
        with contextlib.suppress(Problem):
            match self.r.choice(["cancel", "pause", "resume", "tags", "priority", "queue"]):
                case "cancel" | "pause" | "resume" as verb:
                    await getattr(store, verb)(task_id)
                case "tags":
                    await store.edit(task_id, to(tags=[self.r.choice(TAGS)]))
                case "priority":
                    await store.edit(task_id, to(priority=self.r.randint(-2, 2)))
                case _:
                    await store.put_queue("q", {"paused": self.r.random() < 0.3, "limit": self.r.choice([None, 2])})

    async def restart(self) -> None:
        """After a crash that took the children too."""
        await self.hand.store.close()
        await self.open()
        for claim in await self.hand.store.running():
            await self.hand.end(claim, "interrupted")
        self.live.clear()
        await self.recheck()

    async def reload(self) -> None:
        self.limits = self.hand.store.limits = self.other_limits()
        await self.hand.store.open_account(None)
        await self.recheck()

    async def advance(self) -> None:
        self.clock.advance(self.r.choice([1, 30, 300, 3000, 90_000]))

    async def settle(self) -> None:
        for _ in range(2000):
            claimed = await self.hand.store.claim(ME, 100 - len(self.live))
            self.live |= {claim.task.id: claim for claim in claimed.claims}
            if claimed.next_due is None or claimed.next_due > self.clock.now():
                return
        raise AssertionError("it never comes to rest")

    def check(self) -> None:
        db = sqlite3.connect(self.path)
        try:
            self._probes_and_money(db)
            self._who_waits(db)
        finally:
            db.close()

    @staticmethod
    def _probes_and_money(db: sqlite3.Connection) -> None:
        runs = "(SELECT id FROM attempts WHERE status = 'running')"
        assert not db.execute(f"SELECT * FROM valves WHERE probe IS NOT NULL AND probe NOT IN {runs}").fetchall()
        assert not db.execute(f"SELECT * FROM reservations WHERE amount < 0 OR attempt_id NOT IN {runs}").fetchall()
        sums = "SELECT sum(amount) FROM reservations r WHERE (r.budget, r.period, r.key) = (f.budget, f.period, f.key)"
        for reserved, noted in db.execute(f"SELECT reserved, coalesce(({sums}), 0) FROM funds f"):
            assert reserved == pytest.approx(noted, abs=1e-6)

    def _who_waits(self, db: sqlite3.Connection) -> None:
        now = self.clock.now()
        capacity = reads.capacity(db, self.limits, now)
        queued = {(t.queue, t.lane) for t in reads.tasks(db, "status = 'queued'")}
        ahead = queued | {(t.queue, t.lane) for t in reads.tasks(db, "parked_for = 'limit'")}
        seen = set()
        for task in reads.tasks(db, "status = 'parked' ORDER BY rank, seq"):
            place = (task.queue, task.lane)
            if task.parked_for == "limit":
                assert capacity.phase(task.lane) != "open"
                assert capacity.phase(task.lane) == "shut" or not capacity.free(task.lane) or place in queued
            elif (place, task.parked_for) not in seen and place not in ahead:
                # The first of those that wait for this money, with nobody before it who may take it.
                seen.add((place, task.parked_for))
                paying, decision = funds.decide(db, self.limits.budgets, task, now)
                assert not isinstance(decision, Granted)
                assert decision.error is None
                own = own_left(task)
                wants = funds._wants(db, paying, task, own)
                (fund,) = [f for f in paying if f.parked_for == task.parked_for]
                assert fund.left < max(wants[fund.budget.name] / 10, 1e-9)


@pytest.mark.parametrize("seed", range(12))
async def test_nobody_waits_in_vain(seed: int, tmp_path: Path) -> None:
    life = Life(seed, tmp_path / "store.db")
    await life.open()
    try:
        acts = [life.submit, life.finish, life.steer, life.advance, life.restart, life.reload]
        for _ in range(STEPS):
            await life.r.choices(acts, [8, 10, 4, 3, 0.3, 0.5])[0]()
            if life.r.random() < 0.5:
                await life.settle()
                life.check()
        await life.settle()
        life.check()
        await check(life.hand.store)
    finally:
        await life.hand.store.close()
