"""Accounts and the breaker: who is parked, who probes, who goes on when, and what the others do meanwhile."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core.budgets import Budget
from orchestr8d.core.errors import Problem
from orchestr8d.core.governor import Account
from orchestr8d.core.model import Task, Usage, WaitingFor
from orchestr8d.core.outcome import failed
from orchestr8d.core.standing import summary
from orchestr8d.store.types import Claim, Limits
from tests.store.conftest import LIMITS, Make
from tests.store.helpers import DAY, Hand, agent, check, limited, new, refused

MINUTE = 60.0


def limits(*accounts: Account, **more: Any) -> Limits:
    return msgspec.structs.replace(LIMITS, accounts=accounts or (Account("default", 4),), **more)


async def settled(hand: Hand) -> list[Claim]:
    """Claims until nothing more moves by itself: parking and letting go are done in steps."""
    claims: list[Claim] = []
    while True:
        claimed = await hand.store.claim("executor-1", 100)
        claims += claimed.claims
        if claimed.next_due is None or claimed.next_due > hand.clock.now():
            return claims


async def counts(hand: Hand) -> dict[str, int]:
    return {state: n for state, n in (await hand.store.counts()).items() if n}


async def why(hand: Hand, task: Task) -> WaitingFor:
    (reason,) = (await hand.store.view(task.id)).waiting_for
    return reason


async def test_an_account_runs_so_many(make_store: Make, clock: FakeClock) -> None:
    hand = Hand(await make_store(limits=limits(Account("a", 2), Account("b", 1))), clock)
    tasks = await hand.add_all(*[agent() for _ in range(5)], new("free"))
    claims = await settled(hand)
    assert [c.attempt.account for c in claims] == ["a", "a", "b", None]
    assert [c.session.account for c in claims if c.session] == ["a", "a", "b"]
    assert await hand.status(tasks[3]) == "queued"
    assert (await why(hand, tasks[3])).kind == "slot"
    await hand.end(claims[1])
    (claim,) = await settled(hand)
    assert (claim.task.id, claim.attempt.account) == (tasks[3].id, "a")
    await check(hand.store)


async def test_agents_run_so_many_over_all_accounts(make_store: Make, clock: FakeClock) -> None:
    hand = Hand(await make_store(limits=limits(Account("a", 2), Account("b", 2), agents=3)), clock)
    await hand.add_all(*[agent() for _ in range(5)])
    assert [c.attempt.account for c in await settled(hand)] == ["a", "a", "b"]


async def test_a_task_keeps_to_its_account(make_store: Make, clock: FakeClock) -> None:
    hand = Hand(await make_store(limits=limits(Account("a", 1), Account("b", 1))), clock)
    await hand.add_all(agent(account="b"), agent(account="b"), agent(account="gone"), agent())
    claims = await settled(hand)
    assert [c.attempt.account for c in claims] == ["b", "a"]


async def test_a_full_account_does_not_hold_a_key_for_others(make_store: Make, clock: FakeClock) -> None:
    hand = Hand(await make_store(limits=limits(Account("a", 1))), clock)
    await hand.add_all(agent(), agent(concurrency_key="k"), new("mine", concurrency_key="k"))
    claims = await settled(hand)
    assert [c.task.kind for c in claims] == ["claude", "command"]


async def test_fifty_tasks_come_up_against_a_limit(make_store: Make, clock: FakeClock) -> None:
    """No more refused requests than ran at that moment, no retry spent, all complete in order, commands go on."""
    hand = Hand(await make_store(limits=limits(Account("default", 4))), clock)
    tasks = await hand.add_all(*[agent(str(i), max_retries=0, priority=i % 3) for i in range(50)])
    claims = await settled(hand)
    assert len(claims) == 4
    reset = clock.now() + 20_000
    refusals = 0
    for claim in claims:
        task = await hand.end(claim, limited(until=reset))
        refusals += 1
        assert (task.status, task.retry_count) == ("parked", 0)
        assert await settled(hand) == []
    assert refusals == 4
    assert await counts(hand) == {"parked": 50}
    late = (await hand.add_all(agent("late")))[0]
    command = (await hand.add_all(new("command")))[0]
    (claim,) = await settled(hand)
    assert claim.task.id == command.id
    await hand.end(claim)
    opens = await hand.next_due()
    assert opens is not None
    assert reset <= opens <= reset + 5000
    for task in (tasks[20], late):
        reason = await why(hand, task)
        assert (reason.kind, reason.account) == ("limit", "default")
        assert reason.until is not None
    clock.advance((opens - clock.now()) / 1000 - 0.001)
    assert await settled(hand) == []
    clock.advance(0.001)
    order = []
    while claims := await settled(hand):
        assert len(claims) <= 4
        order += [c.task for c in claims]
        for claim in claims:
            await hand.end(claim)
    assert len(order) == 51
    by_rank = sorted(order, key=lambda t: (t.rank, t.seq))
    assert [t.id for t in order] == [t.id for t in by_rank]
    assert {v.task.retry_count for v in [await hand.store.view(t.id) for t in tasks]} == {0}
    stories = Counter([tuple(await hand.story(t)) for t in tasks])
    ran = ("created", "queued", "started", "parked", "queued", "started", "completed")
    assert stories[ran] == 4
    assert stories[("created", "queued", "parked", "queued", "started", "completed")] == 46
    await check(hand.store)


async def test_a_parked_attempt_counts_for_nothing(hand: Hand, clock: FakeClock) -> None:
    (task,) = await hand.add_all(agent(max_retries=0))
    claim = await hand.start(task)
    await hand.end(claim, limited(until=clock.now() + 1000))
    clock.advance(10)
    (again,) = await settled(hand)
    assert again.session is not None
    assert (again.session.id, again.session.begun) == (claim.attempt.session_id, True)
    assert [a.status for a in await hand.store.attempts(task.id)] == ["parked", "running"]
    assert (await hand.end(again)).status == "completed"


async def test_another_account_goes_on_with_the_conversation(make_store: Make, clock: FakeClock) -> None:
    hand = Hand(await make_store(limits=limits(Account("a", 1), Account("b", 1))), clock)
    await hand.add_all(agent())
    (claim,) = await settled(hand)
    await hand.end(claim, limited(until=clock.now() + 60_000))
    (again,) = await settled(hand)
    assert again.attempt.account == "b"
    assert again.attempt.session_id == claim.attempt.session_id


async def test_without_a_reset_one_probes(hand: Hand, clock: FakeClock) -> None:
    await hand.add_all(*[agent(str(i)) for i in range(10)])
    for claim in await settled(hand):
        await hand.end(claim, limited())
    for minutes in (1, 2, 4, 8, 15, 15):
        assert await settled(hand) == []
        assert await counts(hand) == {"parked": 10}
        assert await hand.next_due() == clock.now() + minutes * 60_000
        clock.advance(minutes * MINUTE - 0.001)
        assert await settled(hand) == []
        clock.advance(0.001)
        (probe,) = await settled(hand)
        assert await counts(hand) == {"parked": 9, "running": 1}
        assert await settled(hand) == []
        await hand.add_all(new("command"))
        assert [c.task.kind for c in await settled(hand)] == ["command"]
        await hand.end(probe, limited())
        assert probe.task.agent == "0"
        for running in await hand.store.running():
            await hand.end(running)
    clock.advance(15 * MINUTE)
    (probe,) = await settled(hand)
    await hand.end(probe)
    assert len(await settled(hand)) == 4
    await check(hand.store)


async def test_a_probe_is_found_beside_a_paused_queue(hand: Hand, clock: FakeClock) -> None:
    await hand.add_all(agent("held", queue="q", priority=9), agent("free"))
    for claim in await settled(hand):
        await hand.end(claim, limited())
    await hand.store.put_queue("q", {"paused": True})
    clock.advance(MINUTE)
    assert [c.task.agent for c in await settled(hand)] == ["free"]


async def test_a_probe_that_ends_by_itself_lets_another_try(hand: Hand, clock: FakeClock) -> None:
    tasks = await hand.add_all(agent(), agent())
    claims = await settled(hand)
    for claim in claims:
        await hand.end(claim, limited())
    clock.advance(MINUTE)
    (probe,) = await settled(hand)
    await hand.store.cancel(probe.task.id)
    await hand.end(probe, "cancelled")
    (probe,) = await settled(hand)
    assert probe.task.id == tasks[1].id


async def test_the_breaker_opens_for_every_account(make_store: Make, clock: FakeClock) -> None:
    hand = Hand(await make_store(limits=limits(Account("a", 2), Account("b", 2))), clock)
    tasks = await hand.add_all(*[agent(max_retries=5) for _ in range(6)])
    claims = await settled(hand)
    assert len(claims) == 4
    overload = failed("overload", "529", limited=limited("overload").limited)
    for claim in claims:
        assert (await hand.end(claim, overload)).status == "retrying"
    assert await settled(hand) == []
    reason = await why(hand, tasks[5])
    assert (reason.kind, reason.name, reason.account) == ("limit", "breaker", None)
    seen = await hand.store.standing()
    assert (seen.breaker.state, seen.breaker.until) == ("open", clock.now() + 5000)
    clock.advance(5)
    (probe,) = await settled(hand)
    assert (await hand.store.standing()).breaker.state == "half_open"
    await hand.end(probe, overload)
    clock.advance(9.999)
    assert await settled(hand) == []
    clock.advance(0.001)
    (probe,) = await settled(hand)
    await hand.end(probe)
    assert (await hand.store.standing()).breaker.state == "closed"
    clock.advance(60)
    assert len(await settled(hand)) == 4
    await check(hand.store)


@pytest.mark.parametrize("kind", ["auth", "billing"])
async def test_a_refused_account_is_closed(make_store: Make, clock: FakeClock, kind: str) -> None:
    hand = Hand(await make_store(limits=limits(Account("a", 1), Account("b", 1))), clock)
    tasks = await hand.add_all(*[agent(max_retries=3, account="a") for _ in range(3)], agent())
    claims = await settled(hand)
    task = await hand.end(claims[0], refused(kind))
    assert (task.status, task.retry_count) == ("failed", 0)
    error = task.read_error()
    assert error is not None
    assert error.kind == kind
    clock.advance(DAY)
    assert await settled(hand) == []
    assert await why(hand, tasks[1]) == WaitingFor("limit", account="a")
    seen = await hand.store.standing()
    assert [(a.name, a.state, a.reason) for a in seen.accounts] == [("a", "closed", "invalid key"), ("b", "open", None)]
    raised = [e for e in await hand.events() if e.type.startswith("alert.")]
    assert [e.type for e in raised] == ["alert.raised"]
    assert msgspec.json.decode(raised[0].data)["account"] == "a"
    await hand.store.open_account("a")
    assert [e.type for e in await hand.events()][-1] == "alert.cleared"
    (claim,) = await settled(hand)
    assert claim.task.id == tasks[1].id
    with pytest.raises(Problem) as caught:
        await hand.store.open_account("c")
    assert caught.value.kind == "not-found"


async def test_a_reload_opens_what_is_closed_and_nothing_else(make_store: Make, clock: FakeClock) -> None:
    hand = Hand(await make_store(limits=limits(Account("a", 1), Account("b", 1))), clock)
    await hand.add_all(agent(account="a"), agent(account="b"))
    a, b = await settled(hand)
    await hand.end(a, refused())
    await hand.end(b, limited(until=clock.now() + 60_000))
    await hand.store.open_account(None)
    assert [account.state for account in (await hand.store.standing()).accounts] == ["open", "limited"]
    await hand.store.open_account("b")
    assert [account.state for account in (await hand.store.standing()).accounts] == ["open", "open"]
    assert len(await settled(hand)) == 1


async def test_what_is_known_survives_a_restart(make_store: Make, clock: FakeClock) -> None:
    store = await make_store()
    hand = Hand(store, clock)
    await hand.add_all(*[agent() for _ in range(6)])
    claims = await settled(hand)
    await hand.end(claims[0], limited(until=clock.now() + 60_000))
    await hand.end(claims[1], refused())
    await store.close()
    hand = Hand(await make_store(), clock)
    clock.advance(3600)
    assert await settled(hand) == []
    assert [a.state for a in (await hand.store.standing()).accounts] == ["closed"]


@pytest.mark.parametrize("step", [DAY, -DAY])
async def test_a_set_clock_moves_a_backoff(hand: Hand, clock: FakeClock, step: int) -> None:
    await hand.add_all(agent())
    await hand.end((await settled(hand))[0], limited())
    clock.step(step)
    assert await settled(hand) == []
    assert await hand.next_due() == clock.now() + 60_000
    clock.advance(MINUTE)
    assert len(await settled(hand)) == 1


async def test_a_set_clock_does_not_move_a_named_time(hand: Hand, clock: FakeClock) -> None:
    await hand.add_all(agent())
    await hand.end((await settled(hand))[0], limited(until=clock.now() + DAY * 1000))
    clock.step(DAY + 5)
    assert len(await settled(hand)) == 1


async def test_parked_tasks_can_be_cancelled_edited_and_run_late(hand: Hand, clock: FakeClock) -> None:
    tasks = await hand.add_all(
        agent(), agent("cancelled"), agent("late", deadline=30.0), agent("other", deadline=7200.0), agent("last")
    )
    (first, *_) = claims = await settled(hand)
    for claim in claims:
        await hand.end(claim, limited(until=clock.now() + 3600_000))
    await settled(hand)
    await hand.store.cancel(tasks[1].id)
    clock.advance(31)
    await settled(hand)
    assert await hand.statuses(*tasks) == ["parked", "cancelled", "failed", "parked", "parked"]

    def up(task: Task) -> Any:
        from orchestr8d.core.admission import as_new

        return msgspec.structs.replace(as_new(task), priority=5)

    await hand.store.edit(tasks[4].id, up)
    with pytest.raises(Problem):
        await hand.store.edit(tasks[4].id, lambda t: msgspec.structs.replace(up(t), delay=5.0))
    clock.advance(3600)
    assert [c.task.agent for c in await settled(hand)] == ["last", first.task.agent, "other"]
    await check(hand.store)


async def test_an_edit_of_the_account_changes_the_lane(make_store: Make, clock: FakeClock) -> None:
    hand = Hand(await make_store(limits=limits(Account("a", 1), Account("b", 1))), clock)
    first, second = await hand.add_all(agent(account="a"), agent(account="a"))
    await hand.end(await hand.start(first), refused())
    await settled(hand)
    assert await hand.status(second) == "parked"

    def move(task: Task) -> Any:
        from orchestr8d.core.admission import as_new

        made = as_new(task)
        assert made.spec.agent is not None
        spec = msgspec.structs.replace(made.spec, agent=msgspec.structs.replace(made.spec.agent, account="b"))
        return msgspec.structs.replace(made, spec=spec)

    await hand.store.edit(second.id, move)
    (claim,) = await settled(hand)
    assert claim.attempt.account == "b"


async def test_parking_is_done_in_steps(hand: Hand, clock: FakeClock) -> None:
    await hand.add_all(*[agent(str(i), concurrency_key=f"k{i % 2}" if i % 3 else None) for i in range(1300)])
    for claim in await settled(hand):
        await hand.end(claim, limited(until=clock.now() + 1000))
    first = await hand.store.claim("executor-1", 100)
    assert first.next_due == clock.now()
    assert first.claims == []
    assert (await hand.store.counts())["parked"] < 600
    assert await settled(hand) == []
    assert await counts(hand) == {"parked": 1300}
    clock.advance(6)
    assert len(await hand.claim()) == 4
    await settled(hand)
    assert (await hand.store.counts())["parked"] == 0
    await check(hand.store)


async def test_why_nothing_runs_in_a_sentence(make_store: Make, clock: FakeClock) -> None:
    hand = Hand(await make_store(limits=limits(Account("a", 1), Account("b", 1))), clock)

    async def said() -> str:
        return summary(await hand.store.standing(), clock.now())

    assert await said() == "Agents' tasks start."
    await hand.add_all(agent(), agent(), agent())
    a, b = await settled(hand)
    assert await said() == "Every open account runs as much as it may."
    await hand.end(a, refused())
    await settled(hand)
    await hand.end(b, limited())
    await settled(hand)
    assert await said() == (
        "No agent's task starts: account a is closed (invalid key) until `orchestr8d limits open a` or a reload, "
        "account b is limited (no more) until 2026-03-01T09:01:00.000Z; 2 tasks wait."
    )
    clock.advance(60)
    (probe,) = await settled(hand)
    assert "account b was limited (no more) and one task tries it again" in await said()
    await hand.end(probe)
    assert "but not on every account: account a is closed" in await said()


async def test_usage_is_a_proof_that_it_works(hand: Hand, clock: FakeClock) -> None:
    await hand.add_all(*[agent() for _ in range(5)])
    for claim in await settled(hand):
        await hand.end(claim, limited())
    clock.advance(MINUTE)
    (probe,) = await settled(hand)
    await hand.end(probe, failed("max_turns", "too many", usage=Usage(output_tokens=1)))
    assert len(await settled(hand)) == 4


async def test_another_probes_when_no_budget_pays_for_the_first(make_store: Make, clock: FakeClock) -> None:
    budget = Budget("tags", 1.0, per="tag")
    hand = Hand(await make_store(limits=limits(Account("default", 2), budgets=(budget,))), clock)
    spent, rich, spends = await hand.add_all(
        agent(tags=["x"], max_cost_usd=1.0), agent(), agent(tags=["x"], max_cost_usd=1.0, priority=1)
    )
    claims = {c.task.id: c for c in await settled(hand)}
    assert set(claims) == {spends.id, rich.id}
    await hand.end(claims[rich.id], limited())
    await hand.end(claims[spends.id], failed("exit", "no", usage=Usage(output_tokens=1, cost_usd=0.4)))
    assert await hand.statuses(spent, rich) == ["queued", "parked"]
    hand.store.limits = limits(Account("default", 2), budgets=(msgspec.structs.replace(budget, amount=0.4),))
    clock.advance(MINUTE)
    (probe,) = await settled(hand)
    assert probe.task.id == rich.id
    assert (await why(hand, spent)).kind == "budget"


async def test_sentences_when_all_that_may_run_do_and_when_nobody_can_probe(make_store: Make, clock: FakeClock) -> None:
    hand = Hand(await make_store(limits=limits(Account("a", 2), Account("b", 2), agents=2)), clock)

    async def said() -> str:
        return summary(await hand.store.standing(), clock.now())

    await hand.add_all(*[agent() for _ in range(3)])
    one, two = await settled(hand)
    assert await said() == "As many agents' tasks run as may at once."
    await hand.end(one, limited("overload"))
    await hand.end(two, refused())
    clock.advance(MINUTE)
    hand.store.limits = limits(Account("a", 2))
    assert (await said()).startswith("No agent's task starts: account a is closed")
