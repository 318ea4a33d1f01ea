"""Waits between attempts: steps, jitter that never shortens, what the other end asks for."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from orchestr8d.core import ladder

NOW = 1_772_355_600_000


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999999])
def test_jitter_adds_up_to_a_fifth_and_never_shortens(draw: float) -> None:
    for retry, step in enumerate((5.0, 30.0, 120.0), 1):
        wait = ladder.wait((5.0, 30.0, 120.0), retry, draw)
        assert wait is not None and step <= wait <= step * 1.2
    assert ladder.wait((5.0, 30.0, 120.0), 4, draw) is None
    assert ladder.wait((), 1, draw) is None


def test_what_the_other_end_asks_for_is_a_minimum_and_capped() -> None:
    assert ladder.wait((5.0,), 1, 0.0, 60.0) == 60.0
    assert ladder.wait((5.0,), 1, 0.0, 1.0) == 5.0
    assert ladder.wait((5.0,), 1, 0.0, 1e9) == 24 * 3600
    assert ladder.wait((5.0,), 2, 0.0, 60.0) is None


@pytest.fixture
def _far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_far_away")
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("", None), ("0", 0.0), ("120", 120.0), (" 7 ", 7.0), ("9" * 400, 86400.0), ("-5", None),
        ("1.5", None), ("soon", None), ("Sun, 01 Mar 2026 09:01:00 GMT", 60.0), ("Sun, 01 Mar 2026 08:00:00 GMT", 0.0),
        ("Sun, 01 Mar 2099 08:00:00 GMT", 86400.0), ("١٢", None), ("Mon, 99 Foo 2026", None),
        ("Sun, 01 Mar 2026 09:01:00 -0000", 60.0), ("Sun, 01 Mar 2026 09:01:00", 60.0),
    ],
)  # fmt: skip
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert ladder.retry_after(header, NOW) == seconds
