"""Durations, rates, sizes and times: what is written is what is read, and nothing else is."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestr8d.core import durations, patterns

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
units = st.sampled_from(sorted(UNITS))
# 1970 to 9998, in milliseconds.
times = st.integers(0, 253_370_764_799_999)


@given(st.integers(0, 99_999), units)
def test_a_duration_is_its_seconds(number: int, unit: str) -> None:
    assert durations.seconds(f"{number}{unit}") == number * UNITS[unit]
    assert durations.seconds(float(number)) == number


@given(st.from_regex(patterns.DURATION, fullmatch=True))
def test_whatever_the_pattern_takes_is_in_range(text: str) -> None:
    assert 0 <= durations.seconds(text) <= durations.MAX_SECONDS


@given(st.text(max_size=8))
def test_other_text_is_no_duration(text: str) -> None:
    if not re.fullmatch(r"[0-9]+[smhd]", text):
        with pytest.raises(ValueError, match="expected"):
            durations.seconds(text)


@pytest.mark.parametrize("value", [-1.0, -0.001, float("nan"), float("inf"), durations.MAX_SECONDS * 2])
def test_numbers_that_are_no_duration(value: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        durations.seconds(value)


@given(st.integers(1, 999_999), st.integers(1, 999_999) | st.none(), units)
def test_a_rate(starts: int, number: int | None, unit: str) -> None:
    assert durations.rate(f"{starts}/{number or ''}{unit}") == (starts, float((number or 1) * UNITS[unit]))


@pytest.mark.parametrize(
    "value", ["", "5", "0/m", "5/0m", "5/", "/m", "5/w", "-5/m", "5/-1m", "5 / m", "5/m/s", "5/m\n"]
)
def test_no_rate(value: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        durations.rate(value)


@given(st.integers(0, 1 << 50), st.sampled_from(["", "b", "kb", "mb", "gb", "K", "M", " MB", " kB"]))
def test_a_size(number: int, unit: str) -> None:
    factor = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}[unit.strip().lower()[:1]]
    expected = number * factor
    assert durations.size(f"{number}{unit}") == pytest.approx(expected)
    assert durations.size(number) == number


@pytest.mark.parametrize("value", ["", "MB", "-1", "1 PB", "1.5.5", "ten", -1])
def test_no_size(value: str | int) -> None:
    with pytest.raises(ValueError, match="expected"):
        durations.size(value)


@given(times)
def test_a_time_that_is_answered_can_be_sent(ms: int) -> None:
    text = durations.iso(ms)
    assert text is not None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    assert durations.parse_time(text) == ms
    assert durations.iso(None) is None


@given(times, st.integers(-14 * 60, 14 * 60))
def test_a_time_with_any_offset(ms: int, minutes: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    try:
        local = moment.astimezone(timezone(timedelta(minutes=minutes)))
    except OverflowError:
        return
    assert durations.parse_time(local.isoformat()) == ms


@pytest.mark.parametrize(
    "value",
    ["", "now", "2026-03-01", "2026-03-01T09:00:00", "2026-13-01T09:00:00Z", "1969-12-31T23:59:59Z", "1772355600",
     "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"],
)  # fmt: skip
def test_no_time(value: str) -> None:
    with pytest.raises(ValueError, match=r"expected|offset"):
        durations.parse_time(value)
