"""Budgets: set aside at the claim, charged at the end, never more than a turn of each running one beyond."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core.budgets import Budget
from orchestr8d.core.governor import Account
from orchestr8d.core.model import Task, Usage, WaitingFor
from orchestr8d.core.outcome import Outcome, failed
from orchestr8d.store.types import Claim, Limits
from tests.store.conftest import LIMITS, Make
from tests.store.helpers import DAY, Hand, agent, check, limited, new
from tests.store.test_limits import counts, settled, why
from tests.store.test_steering import to


def limits(*budgets: Budget, concurrency: int = 100) -> Limits:
    return msgspec.structs.replace(LIMITS, accounts=(Account("default", concurrency),), budgets=budgets)


async def with_budgets(make_store: Make, clock: FakeClock, *budgets: Budget, concurrency: int = 100) -> Hand:
    return Hand(await make_store(limits=limits(*budgets, concurrency=concurrency)), clock)


def cost(usd: float, status: Any = "completed", **more: Any) -> Outcome:
    return Outcome(status=status, usage=Usage(output_tokens=10, cost_usd=usd), output_bytes=1, **more)


def short(usd: float) -> Outcome:
    """It was stopped when what was set aside for it was spent."""
    return limited("budget", usage=Usage(output_tokens=10, cost_usd=usd), output_bytes=1)


async def stands(hand: Hand) -> list[tuple[str, str, float, float]]:
    funds = (await hand.store.standing()).funds
    return [(f.budget.name, f.key, round(f.used, 6), round(f.reserved, 6)) for f in funds]


def caps(claims: list[Claim]) -> list[float | None]:
    return [c.session.cap_usd for c in claims if c.session is not None]


async def test_twenty_in_parallel_under_one_budget(make_store: Make, clock: FakeClock) -> None:
    """Each spends a turn more than it was given, as the CLI looks only after a call: it is one turn each, no more."""
    hand = await with_budgets(make_store, clock, Budget("b", 10.0))
    turn, spent, ran = 0.1, 0.0, 0
    await hand.add_all(*[agent() for _ in range(200)])
    last = 0
    while claims := await settled(hand):
        given = [cap for cap in caps(claims) if cap is not None]
        assert len(given) == len(claims)
        assert spent + sum(given) <= 10.0 + 1e-6
        last = len(claims)
        for n, claim in enumerate(claims):
            used = given[n] + turn if n % 2 else given[n] / 2
            spent += used
            ran += 1
            assert claim.attempt.cap_usd == given[n]
            await hand.end(claim, short(used) if n % 2 else cost(used))
    assert spent <= 10.0 + turn * last
    assert ran > 20
    seen = await stands(hand)
    assert seen == [("b", "", round(spent, 6), 0.0)]
    left = await counts(hand)
    assert set(left) == {"parked"}
    await check(hand.store)


async def test_what_is_set_aside(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("b", 10.0))
    await hand.add_all(agent("new"), agent("own", max_cost_usd=3.0))
    first, own = await settled(hand)
    assert caps([first, own]) == [0.5, 3.0]
    assert await stands(hand) == [("b", "", 0.0, 3.5)]
    await hand.end(own, cost(1.0))
    assert await stands(hand) == [("b", "", 1.0, 0.5)]
    await hand.end(first, cost(0.25))
    await hand.add_all(agent("new"))
    assert caps(await settled(hand)) == [0.25]


async def test_a_maximum_holds_without_budgets_and_over_attempts(hand: Hand, clock: FakeClock) -> None:
    (task,) = await hand.add_all(agent(max_cost_usd=2.0, max_retries=5))
    (claim,) = await settled(hand)
    assert caps([claim]) == [2.0]
    crashed = failed("crashed", "gone", usage=Usage(cost_usd=1.5))
    await hand.end(claim, crashed)
    clock.advance(60)
    (claim,) = await settled(hand)
    assert caps([claim]) == [0.5]
    await hand.end(claim, crashed)
    clock.advance(60)
    assert await settled(hand) == []
    failure = (await hand.store.task(task.id)).read_error()
    assert failure is not None
    assert failure.kind == "budget"


async def test_its_own_maximum_used_up_fails(hand: Hand) -> None:
    await hand.add_all(agent(max_cost_usd=2.0))
    task = await hand.end((await settled(hand))[0], short(2.1))
    error = task.read_error()
    assert error is not None
    assert (task.status, error.kind) == ("failed", "budget")


async def test_one_that_was_given_too_little_gets_twice_as_much(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("b", 10.0))
    await hand.add_all(agent())
    for given in (0.5, 1.0, 2.0, 4.0):
        (claim,) = await settled(hand)
        assert caps([claim]) == [given]
        assert (await hand.end(claim, short(given))).status == "parked"
    (claim,) = await settled(hand)
    assert caps([claim]) == [2.5]
    await hand.end(claim, short(2.6))
    assert await settled(hand) == []
    (task,) = [v.task for v in await hand.store.views(_all(), 10, None)]
    assert await why(hand, task) == WaitingFor("budget", name="b")
    assert task.retry_count == 0


def _all() -> Any:
    from orchestr8d.store.types import TaskFilter

    return TaskFilter()


async def test_they_wait_for_what_others_have_set_aside(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("b", 5.0, on_exceed="fail"))
    tasks = await hand.add_all(*[agent(max_cost_usd=5.0) for _ in range(3)], new("free"))
    first, command = await settled(hand)
    assert command.task.kind == "command"
    assert await why(hand, tasks[1]) == WaitingFor("budget", name="b")
    assert await hand.next_due() is None
    await hand.end(first, cost(2.0))
    (second,) = await settled(hand)
    assert caps([second]) == [3.0]
    await hand.end(second, cost(3.0))
    # Nothing comes back any more.
    assert await settled(hand) == []
    error = (await hand.store.task(tasks[2].id)).read_error()
    assert error is not None
    assert error.kind == "budget"
    await hand.add_all(*[agent() for _ in range(120)])
    await settled(hand)
    assert (await counts(hand)).keys() == {"running"}


async def test_by_rank(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("b", 1.0))
    await hand.add_all(*[agent(str(i), max_cost_usd=1.0, priority=i % 4, queue="ab"[i % 2]) for i in range(12)])
    order: list[Task] = []
    while claims := await settled(hand):
        assert len(claims) == 1
        order.append(claims[0].task)
        await hand.end(claims[0], cost(0.05))
    assert [t.id for t in order] == [t.id for t in sorted(order, key=lambda t: (t.rank, t.seq))]
    assert len(order) == 12


@pytest.mark.parametrize("leave", ["cancel", "pause", "deadline"])
async def test_one_that_was_let_go_and_leaves_lets_the_next_go(make_store: Make, clock: FakeClock, leave: str) -> None:
    hand = await with_budgets(make_store, clock, Budget("b", 1.0), concurrency=2)
    tasks = await hand.add_all(agent(max_cost_usd=1.0), agent(max_cost_usd=1.0, deadline=60.0), agent(max_cost_usd=1.0))
    (first,) = await settled(hand)
    await hand.end(first, cost(0.1))
    # It is queued again, and not yet claimed.
    assert await hand.statuses(*tasks) == ["completed", "queued", "parked"]
    if leave == "cancel":
        await hand.store.cancel(tasks[1].id)
    elif leave == "pause":
        await hand.store.pause(tasks[1].id)
    else:
        clock.advance(60)
    assert [c.task.id for c in await settled(hand)] == [tasks[2].id]


async def test_a_paused_queue_keeps_nobody_from_the_money(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("b", 1.0))
    await hand.add_all(agent(max_cost_usd=1.0), agent(max_cost_usd=1.0, queue="q"), agent("free", max_cost_usd=1.0))
    (first,) = await settled(hand)
    await hand.store.put_queue("q", {"paused": True})
    await hand.end(first, cost(0.1))
    assert [c.task.agent for c in await settled(hand)] == ["free"]


async def test_for_each_tag_user_and_task(make_store: Make, clock: FakeClock) -> None:
    budgets = [Budget("tags", 1.0, per="tag"), Budget("users", 2.0, per="user"), Budget("tasks", 1.5, per="task")]
    hand = await with_budgets(make_store, clock, *budgets)
    tasks = await hand.add_all(
        agent(max_cost_usd=1.0, tags=["x", "y"]), agent(max_cost_usd=1.0, tags=["y", "z"]),
        agent(max_cost_usd=3.0, user_id="ann"), agent(max_cost_usd=1.0, user_id="ann"),
        agent(max_cost_usd=1.0, user_id="ann"),
    )  # fmt: skip
    claims = await settled(hand)
    # The task's budget bounds the third one, the user's the fourth.
    assert [(c.task.id, c.attempt.cap_usd) for c in claims] == [
        (tasks[0].id, 1.0), (tasks[2].id, 1.5), (tasks[3].id, 0.5)
    ]  # fmt: skip
    assert await why(hand, tasks[1]) == WaitingFor("budget", name="tags")
    assert await why(hand, tasks[4]) == WaitingFor("budget", name="users")
    assert sorted(await stands(hand)) == sorted([
        ("tags", "x", 0.0, 1.0), ("tags", "y", 0.0, 1.0), ("users", "ann", 0.0, 2.0), ("users", "local", 0.0, 1.0),
        ("tasks", tasks[0].id, 0.0, 1.0), ("tasks", tasks[2].id, 0.0, 1.5), ("tasks", tasks[3].id, 0.0, 0.5),
    ])  # fmt: skip
    await hand.end(claims[0], cost(0.2))
    (claim,) = await settled(hand)
    assert (claim.task.id, claim.attempt.cap_usd) == (tasks[1].id, 0.8)


async def test_who_waits_for_one_budget_and_then_for_another_is_not_forgotten(
    make_store: Make, clock: FakeClock
) -> None:
    hand = await with_budgets(make_store, clock, Budget("all", 2.0), Budget("tags", 1.0, per="tag"))
    tasks = await hand.add_all(agent(max_cost_usd=1.0, tags=["a"]), agent(max_cost_usd=1.0, tags=["b"]))
    a, b = await settled(hand)
    (third,) = await hand.add_all(agent(max_cost_usd=1.0, tags=["b"]))
    await settled(hand)
    assert await why(hand, third) == WaitingFor("budget", name="all")
    await hand.end(a, cost(0.1))
    assert await why(hand, third) == WaitingFor("budget", name="tags")
    await hand.end(b, cost(0.1))
    assert [c.task.id for c in await settled(hand)] == [third.id]
    assert len(tasks) == 2


async def test_another_day(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("b", 1.0, per="day"))
    tasks = await hand.add_all(*[agent(max_cost_usd=1.0) for _ in range(3)])
    (claim,) = await settled(hand)
    clock.advance(10)
    await hand.end(claim, cost(1.0))
    assert await settled(hand) == []
    midnight = (clock.now() // (DAY * 1000) + 1) * DAY * 1000
    assert await hand.next_due() == midnight
    clock.advance((midnight - clock.now()) / 1000)
    (claim,) = await settled(hand)
    assert claim.task.id == tasks[1].id
    assert await stands(hand) == [("b", "", 0.0, 1.0)]
    # What began on a day is that day's.
    clock.advance(DAY)
    await hand.end(claim, cost(1.0))
    assert await stands(hand) == [("b", "", 0.0, 0.0)]
    assert len(await settled(hand)) == 1


async def test_tokens(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("b", 1000, unit="tokens"))
    await hand.add_all(*[agent() for _ in range(30)])
    claims = await settled(hand)
    assert len(claims) == 20
    assert caps(claims) == [None] * 20
    for claim in claims:
        await hand.end(claim, Outcome(status="completed", usage=Usage(10, 20, 30, 40, 1.0)))
    assert await settled(hand) == []
    assert await stands(hand) == [("b", "", 2000.0, 0.0)]


async def test_one_that_could_not_say_what_it_spent(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("b", 10.0))
    await hand.add_all(agent(), agent())
    one, two = await settled(hand)
    await hand.end(one, Outcome(status="cancelled", output_bytes=100))
    await hand.end(two, Outcome(status="interrupted"))
    assert await stands(hand) == [("b", "", 0.5, 0.0)]


async def test_other_budgets_hold_after_a_reload(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("b", 1.0, per="tag"), Budget("gone", 1.0))
    tasks = await hand.add_all(*[agent(max_cost_usd=1.0, tags=["x"]) for _ in range(2)], agent(max_cost_usd=1.0))
    (claim,) = await settled(hand)
    await hand.end(claim, cost(1.0))
    assert await settled(hand) == []
    hand.store.limits = limits(Budget("b", 2.0, per="tag"))
    assert await hand.store.recheck_budgets(0) is None
    assert [c.task.id for c in await settled(hand)] == [tasks[1].id, tasks[2].id]


async def test_what_is_known_survives_a_restart(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("b", 10.0))
    await hand.add_all(agent(), agent())
    claims = await settled(hand)
    await hand.end(claims[0], cost(0.25))
    await hand.store.close()
    hand = await with_budgets(make_store, clock, Budget("b", 10.0))
    assert await stands(hand) == [("b", "", 0.25, 0.5)]
    (running,) = await hand.store.running()
    assert running.session is not None
    assert running.session.cap_usd == 0.5
    await hand.end(running, cost(0.1))
    assert await stands(hand) == [("b", "", 0.35, 0.0)]


async def test_many_that_nothing_pays_for_are_parked_in_steps(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("b", 1.0))
    await hand.add_all(*[agent(max_cost_usd=1.0) for _ in range(1000)])
    await hand.add_all(*[agent(max_cost_usd=1.0) for _ in range(200)])
    claimed = await hand.store.claim("executor-1", 100)
    assert len(claimed.claims) == 1
    assert claimed.next_due == clock.now()
    assert await settled(hand) == []
    assert await counts(hand) == {"running": 1, "parked": 1199}


async def test_what_another_budget_holds_up_after_a_reload_waits_for_that_one(
    make_store: Make, clock: FakeClock
) -> None:
    hand = await with_budgets(make_store, clock, Budget("tags", 1.0, per="tag"), Budget("all", 2.0))
    await hand.add_all(agent(max_cost_usd=1.0, tags=["x"]), agent(max_cost_usd=1.0, tags=["x"]))
    (claim,) = await settled(hand)
    await hand.end(claim, cost(1.0))
    await hand.add_all(agent(max_cost_usd=1.0))
    (other,) = await settled(hand)
    waiting = next(v.task for v in await hand.store.views(_all(), 10, None) if v.task.status == "parked")
    hand.store.limits = limits(Budget("tags", 5.0, per="tag"), Budget("all", 2.0))
    assert await hand.store.recheck_budgets(0) is None
    assert await settled(hand) == []
    assert await why(hand, waiting) == WaitingFor("budget", name="all")
    await hand.end(other, cost(0.5))
    assert [c.task.id for c in await settled(hand)] == [waiting.id]


async def test_a_run_short_of_a_budget_that_is_gone_waits_for_what_there_is(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("gone", 10.0), Budget("kept", 20.0, per="user"))
    (task, *_) = await hand.add_all(agent(), agent(max_cost_usd=19.5))
    one, two = await settled(hand)
    hand.store.limits = limits(Budget("kept", 20.0, per="user"))
    await hand.store.recheck_budgets(0)
    await hand.end(two, cost(19.5))
    await hand.end(one, short(0.5))
    assert await settled(hand) == []
    assert await why(hand, task) == WaitingFor("budget", name="kept")
    hand.store.limits = limits()
    (late,) = await hand.add_all(agent(max_cost_usd=0.1))
    await hand.store.recheck_budgets(0)
    assert {c.task.id for c in await settled(hand)} == {task.id, late.id}


async def test_an_edit_asks_the_budgets_again(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("tags", 1.0, per="tag"))
    tasks = await hand.add_all(*[agent(max_cost_usd=1.0, tags=["x"]) for _ in range(3)])
    await settled(hand)
    await hand.store.edit(tasks[2].id, to(tags=["y"]))
    assert [c.task.id for c in await settled(hand)] == [tasks[2].id]
    await hand.store.edit(tasks[1].id, to(priority=1))
    assert await settled(hand) == []
    assert await hand.statuses(*tasks) == ["running", "parked", "running"]
    assert await why(hand, tasks[1]) == WaitingFor("budget", name="tags")


async def test_one_that_can_never_be_paid_keeps_no_other_waiting(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("b", 10.0))
    await hand.add_all(agent(max_cost_usd=9.99), agent(max_cost_usd=10.0), agent(max_cost_usd=0.5))
    (claim,) = await settled(hand)
    await hand.end(claim, cost(9.5))
    (small,) = await settled(hand)
    assert small.attempt.cap_usd == 0.5
    await check(hand.store)


async def test_what_was_never_spent_is_never_charged(make_store: Make, clock: FakeClock) -> None:
    hand = await with_budgets(make_store, clock, Budget("b", 10.0), Budget("t", 1000, unit="tokens"))
    await hand.add_all(agent())
    (claim,) = await settled(hand)
    await hand.end(claim, Outcome(status="completed", usage=Usage(output_tokens=-5, cost_usd=-3.0)))
    assert await stands(hand) == [("b", "", 0.0, 0.0), ("t", "", 0.0, 0.0)]
    await hand.add_all(agent())
    assert caps(await settled(hand)) == [0.5]
