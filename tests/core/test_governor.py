"""Accounts and the breaker: what they let through, what outcomes teach, and never more than there is room for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestr8d.core import governor
from orchestr8d.core.governor import BREAKER, Account, Capacity, Valve
from orchestr8d.core.model import Usage, WaitingFor
from orchestr8d.core.outcome import Limited, Outcome, failed

NOW = 1_000_000_000
MINUTE = 60_000
GOOD = Outcome(status="completed")
WORKED = failed("max_turns", "too many", usage=Usage(output_tokens=3))
CRASHED = failed("crashed", "gone")


def hit(kind: Any = "limit", until: int | None = None, reason: str = "no more") -> Outcome:
    return Outcome(status="parked", limited=Limited(kind, "a", until, reason))


def account(valve: Valve, ended: Outcome, attempt: str = "x", now: int = NOW, draw: float = 0.5) -> Valve:
    return governor.learn(valve, Valve(BREAKER), ended, attempt, now, draw)[0]


def breaker(valve: Valve, ended: Outcome, attempt: str = "x", now: int = NOW) -> Valve:
    return governor.learn(Valve("a"), valve, ended, attempt, now, 0.5)[1]


def probing(valve: Valve, attempt: str) -> Valve:
    assert valve.over_at is not None
    assert governor.phase(valve, valve.over_at - 1) == "shut"
    assert governor.phase(valve, valve.over_at) == "probe"
    return Valve(*[attempt if name == "probe" else getattr(valve, name) for name in Valve.__struct_fields__])


# -- accounts


def test_a_limit_that_ends_at_a_named_time() -> None:
    limited = account(Valve("a"), hit(until=NOW + 20_000))
    assert (limited.state, limited.until, limited.jitter, limited.guessed) == ("limited", NOW + 20_000, 2500, 0)
    assert governor.phase(limited, NOW + 22_499) == "shut"
    assert governor.phase(limited, NOW + 22_500) == "open"


def test_those_that_ran_at_that_moment_change_nothing() -> None:
    limited = account(Valve("a"), hit(until=NOW + 20_000))
    assert account(limited, hit(until=NOW + 20_000), "y", NOW + 50, 0.9) == limited
    assert account(limited, hit(), "y", NOW + 50, 0.9) == limited
    assert account(limited, GOOD, "y") == limited
    # One that knows better moves it on, with the same jitter.
    assert account(limited, hit(until=NOW + 60_000), "y", NOW + 50, 0.9).over_at == NOW + 62_500


@pytest.mark.parametrize("after", [None, -1, 0, 400 * 86_400_000])
def test_without_a_time_to_believe_the_wait_doubles(after: int | None) -> None:
    valve, now, waits = Valve("a"), NOW, []
    for n in range(7):
        valve = account(valve, hit(until=None if after is None else now + after), f"p{n}", now)
        assert valve.guessed
        assert valve.over_at is not None
        waits.append((valve.over_at - now) // MINUTE)
        now = valve.over_at
        valve = probing(valve, f"p{n + 1}")
    assert waits == [1, 2, 4, 8, 15, 15, 15]
    assert account(valve, GOOD, "p7") == Valve("a")


def test_a_late_limit_of_another_run_neither_doubles_nor_ends_the_probe() -> None:
    valve = probing(account(Valve("a"), hit()), "probe")
    assert account(valve, hit(), "other") == valve
    assert account(valve, GOOD, "other").probe == "probe"
    assert account(valve, GOOD, "other").step == 0


@pytest.mark.parametrize("ended", [GOOD, WORKED, hit("budget")])
def test_a_probe_that_got_through(ended: Outcome) -> None:
    assert account(probing(account(Valve("a"), hit()), "probe"), ended, "probe") == Valve("a")


@pytest.mark.parametrize("ended", [CRASHED, Outcome(status="interrupted"), Outcome(status="cancelled"),
                                   hit("overload")])  # fmt: skip
def test_a_probe_that_told_nothing_lets_another_try(ended: Outcome) -> None:
    valve = account(probing(account(Valve("a"), hit()), "probe"), ended, "probe")
    assert (valve.state, valve.probe, valve.step) == ("limited", None, 1)
    assert governor.phase(valve, NOW + MINUTE) == "probe"


@pytest.mark.parametrize("kind", ["auth", "billing"])
def test_a_refused_account_is_closed_for_good(kind: str) -> None:
    closed = account(Valve("a"), hit(kind, reason="bad key"))
    assert (closed.state, closed.reason) == ("closed", "bad key")
    for ended in (GOOD, hit(), hit(until=NOW + 1000), CRASHED):
        assert account(closed, ended, "late") == closed
    assert governor.phase(closed, 2 * NOW) == "shut"


# -- the breaker


def test_the_breaker() -> None:
    valve, now, waits = Valve(BREAKER), NOW, []
    for n in range(9):
        valve = breaker(valve, hit("overload"), f"p{n}", now)
        assert breaker(valve, hit("overload"), "another", now) == valve
        assert valve.over_at is not None
        waits.append((valve.over_at - now) // 1000)
        now = valve.over_at
        valve = probing(valve, f"p{n + 1}")
    assert waits == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    # Any answer of the provider will do.
    for ended in (GOOD, hit(), hit("auth"), WORKED):
        assert breaker(valve, ended, "p9") == Valve(BREAKER)
    assert breaker(valve, CRASHED, "p9").probe is None
    # What began before tells nothing.
    assert breaker(valve, GOOD, "other") == valve


# -- capacity


def capacity(accounts: dict[str, int], valves: list[Valve] | None = None, running: dict[str, int] | None = None,
             most: int = 100, now: int = NOW) -> Capacity:  # fmt: skip
    of = [Account(name, n) for name, n in accounts.items()]
    return Capacity(of, most, {v.name: v for v in valves or []}, running or {}, now)


def seats(of: Capacity, lane: str) -> list[str]:
    found = []
    while (seat := of.take(lane)) is not None:
        found.append(seat.account)
    return found


def test_the_first_open_account_in_order() -> None:
    assert seats(capacity({"a": 2, "b": 1}), "claude") == ["a", "a", "b"]
    assert seats(capacity({"b": 1, "a": 2}), "claude") == ["b", "a", "a"]
    assert seats(capacity({"a": 2, "b": 1}), "claude:b") == ["b"]
    assert seats(capacity({"a": 2, "b": 1}, running={"a": 1}), "claude") == ["a", "b"]
    assert seats(capacity({"a": 2, "b": 1}, [Valve("a", "closed")]), "claude") == ["b"]
    assert seats(capacity({"a": 2, "b": 1}, running={"a": 1}, most=2), "claude") == ["a"]
    assert seats(capacity({"a": 2}), "claude:nobody") == []


def test_why_a_lane_is_blocked() -> None:
    limited = Valve("a", "limited", NOW + 1000)
    assert capacity({"a": 1}).blocked("claude") is None
    assert capacity({"a": 1, "b": 1}, [limited]).blocked("claude") is None
    until = "1970-01-12T13:46:41.000Z"
    assert capacity({"a": 1, "b": 1}, [limited]).blocked("claude:a") == WaitingFor("limit", account="a", until=until)
    both = [limited, Valve("b", "closed")]
    assert capacity({"b": 1, "a": 1}, both).blocked("claude") == WaitingFor("limit", account="a", until=until)
    both = [*both, Valve(BREAKER, "limited", NOW + 1000, guessed=1)]
    assert capacity({"a": 1}, both).blocked("claude") == WaitingFor("limit", name="breaker", until=until)
    assert capacity({"a": 1}).blocked("claude:gone") == WaitingFor("limit", account="gone")
    assert capacity({"a": 1, "b": 1}, both).opens_at() == NOW + 1000


names = st.sampled_from(["a", "b", "c"])
some_valves = st.builds(
    Valve, name=st.sampled_from(["a", "b", "c", BREAKER]), state=st.just("limited"),
    until=st.sampled_from([NOW - 1000, NOW + 1000]), guessed=st.integers(0, 1), probe=st.sampled_from([None, "p"]),
) | st.builds(Valve, name=names, state=st.just("closed"))  # fmt: skip


@given(
    st.dictionaries(names, st.integers(1, 3), min_size=1), st.lists(some_valves, unique_by=lambda v: v.name),
    st.dictionaries(names, st.integers(0, 4)), st.integers(0, 8),
    st.lists(st.sampled_from(["claude", "claude:a", "claude:b", "claude:x"]), max_size=20),
)  # fmt: skip
def test_never_more_than_there_is_room_for_and_one_probe(
    accounts: dict[str, int], valves: list[Valve], running: dict[str, int], most: int, lanes: list[str]
) -> None:
    of = capacity(accounts, valves, running, most)
    by_name = {v.name: v for v in valves}
    started: dict[str, int] = {}
    probes: list[str] = []
    for lane in lanes:
        free = of.free(lane)
        seat = of.take(lane)
        assert (seat is None) == (free == 0)
        if seat is None:
            continue
        assert lane in ("claude", f"claude:{seat.account}")
        started[seat.account] = started.get(seat.account, 0) + 1
        probes += seat.probes
        for name in (seat.account, BREAKER):
            phase = governor.phase(by_name.get(name, Valve(name)), NOW)
            assert phase != "shut"
            assert (name in seat.probes) == (phase == "probe")
    assert len(probes) == len(set(probes))
    assert not started or sum(running.values()) + sum(started.values()) <= most
    for name, n in started.items():
        assert running.get(name, 0) + n <= accounts[name]


@pytest.mark.parametrize("ended", [GOOD, CRASHED])
def test_a_limit_that_is_over_is_forgotten(ended: Outcome) -> None:
    """Else every claim would ask after it for ever."""
    assert account(Valve("a", "limited", NOW - 6000, 5000), ended) == Valve("a")
    shut = Valve("a", "limited", NOW - 4000, 5000)
    assert account(shut, ended) == shut
