"""How long a retry waits: within its bounds for every kind, whatever the numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestr8d.core.backoff import delay
from orchestr8d.core.durations import MAX_SECONDS
from orchestr8d.core.model import Backoff

kinds = st.sampled_from(["exponential", "linear", "fixed"])
durations = st.floats(0, MAX_SECONDS)
draws = st.floats(0, 1, exclude_max=True)
retries = st.integers(1, 1_000_000)


@given(kinds, durations, durations, retries, draws)
def test_bounds(kind: str, base: float, cap: float, retry: int, draw: float) -> None:
    whole = delay(Backoff(kind, base, cap, jitter=False), retry, draw)  # type: ignore[arg-type]
    drawn = delay(Backoff(kind, base, cap, jitter=True), retry, draw)  # type: ignore[arg-type]
    assert 0 <= whole <= cap
    assert whole >= min(base, cap)
    # Equal jitter: half of it is certain.
    assert whole / 2 <= drawn <= whole


@given(kinds, durations, durations, st.integers(1, 2000))
def test_it_never_becomes_shorter(kind: str, base: float, cap: float, retry: int) -> None:
    backoff = Backoff(kind, base, cap, jitter=False)  # type: ignore[arg-type]
    assert delay(backoff, retry, 0.5) <= delay(backoff, retry + 1, 0.5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("exponential", [2, 4, 8, 16, 20, 20]), ("linear", [2, 4, 6, 8, 10, 12]), ("fixed", [2] * 6)],
)
def test_each_kind(kind: str, expected: list[float]) -> None:
    backoff = Backoff(kind, base=2, cap=20, jitter=False)  # type: ignore[arg-type]
    assert [delay(backoff, retry, 0.0) for retry in range(1, 7)] == expected


def test_the_default() -> None:
    assert [delay(Backoff(jitter=False), retry, 0.0) for retry in (1, 2, 3)] == [1, 2, 4]
    assert [delay(Backoff(), 3, draw) for draw in (0.0, 0.5)] == [2, 3]
