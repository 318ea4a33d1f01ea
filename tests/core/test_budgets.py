"""Budgets: what is set aside is never more than there is, and what is charged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestr8d.core import budgets
from orchestr8d.core.budgets import Budget, Fund, Granted, Refused
from orchestr8d.core.model import Usage
from orchestr8d.core.outcome import Outcome


def fund(amount: float = 10.0, used: float = 0.0, reserved: float = 0.0, **more: Any) -> Fund:
    return Fund(Budget(more.pop("name", "b"), amount, **more), "", 0, used, reserved)


@pytest.mark.parametrize(("amounts", "expected"), [
    ([], None), ([5.0], 5.0), ([1.0] * 9 + [9.0], 1.0), ([1.0] * 8 + [9.0] * 2, 9.0), (list(range(1, 101)), 90),
])  # fmt: skip
def test_p90(amounts: list[float], expected: float | None) -> None:
    assert budgets.p90(amounts) == expected


def test_what_is_wanted() -> None:
    usd, tokens = Budget("b", 10.0), Budget("t", 1000.0, "tokens")
    past = [Usage(cost_usd=n / 10, input_tokens=n) for n in range(1, 11)]
    assert budgets.wanted(usd, None, None, []) == 0.5
    assert budgets.wanted(usd, None, None, past) == 0.9
    assert budgets.wanted(usd, 3.0, None, past) == 3.0
    assert budgets.wanted(usd, 30.0, None, past) == 10.0
    assert budgets.wanted(tokens, 3.0, None, past) == 9.0


def test_more_than_one_budget() -> None:
    a, b = fund(10.0, name="a"), fund(2.0, 1.5, name="b")
    granted = budgets.reserve([a, b], {"a": 1.0, "b": 1.0}, None)
    assert granted == Granted([0.5, 0.5], 0.5)
    assert budgets.reserve([], {}, None) == Granted([], None)
    assert budgets.reserve([], {}, 0.7) == Granted([], 0.7)
    assert budgets.reserve([a], {"a": 5.0}, 0.7) == Granted([0.7], 0.7)
    assert budgets.reserve([fund(100.0, unit="tokens")], {"b": 5.0}, None) == Granted([5.0], None)


@pytest.mark.parametrize(("used", "reserved", "on_exceed", "fails"), [
    (10.0, 0.0, "wait", False), (10.0, 0.0, "fail", True), (5.0, 5.0, "fail", False), (9.99, 0.0, "fail", True),
    (12.0, 0.0, "fail", True),
])  # fmt: skip
def test_what_is_spent_does_not_come_back(used: float, reserved: float, on_exceed: Any, fails: bool) -> None:
    decision = budgets.reserve([fund(10.0, used, reserved, on_exceed=on_exceed)], {"b": 1.0}, None)
    assert isinstance(decision, Refused)
    assert (decision.error is not None) == fails
    assert decision.error is None or decision.error.kind == "budget"


def test_its_own_maximum_spent_fails() -> None:
    decision = budgets.reserve([], {}, 0.0)
    assert isinstance(decision, Refused)
    assert decision.error is not None
    assert decision.error.kind == "budget"


def test_what_is_charged() -> None:
    used = Outcome(status="completed", usage=Usage(1, 2, 3, 4, 0.5))
    assert budgets.charge("usd", used, 2.0) == 0.5
    assert budgets.charge("tokens", used, 2.0) == 10.0
    assert budgets.charge("usd", Outcome(status="cancelled", output_bytes=7), 2.0) == 2.0
    assert budgets.charge("usd", Outcome(status="cancelled", output_bytes=0), 2.0) == 0.0


@given(
    st.floats(0.01, 1000), st.floats(0, 2000), st.lists(st.floats(0.001, 100), max_size=40),
    st.sampled_from(["wait", "fail"]),
)  # fmt: skip
def test_never_more_than_is_left(amount: float, used: float, wants: list[float], on_exceed: Any) -> None:
    one = fund(amount, used, on_exceed=on_exceed)
    for want in wants:
        decision = budgets.reserve([one], {"b": min(want, amount)}, None)
        if isinstance(decision, Granted):
            assert 0 < decision.amounts[0] <= want
            assert decision.cap_usd == decision.amounts[0]
            one.reserved += decision.amounts[0]
    assert used + one.reserved <= max(amount, used) * (1 + 1e-9)
