"""What a benchmark says: lines of our figure against a reference, judged by a bar, and the statistics behind them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import msgspec

T = TypeVar("T")


class Line(msgspec.Struct, omit_defaults=True):
    """One figure and how it compares. `ratio` is ours to the reference's; without a bar it is only told."""

    what: str
    ours: float
    unit: str
    reference: float | None = None
    against: str = ""
    # The ratio is held to the bar, or the figure itself where there is no reference.
    bar: float | None = None
    sense: Literal["at least", "at most"] = "at least"
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return None if not self.reference else self.ours / self.reference

    @property
    def ok(self) -> bool | None:
        """None when nothing is asked of it."""
        if self.bar is None:
            return None
        value = self.ours if self.reference is None else self.ratio
        if value is None:
            return False
        return value >= self.bar if self.sense == "at least" else value <= self.bar

    def as_text(self) -> str:
        verdict = {True: "ok", False: "MISSED", None: ""}[self.ok]
        reference = "" if self.reference is None else f"{_figure(self.reference)} {self.unit}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        sign = "≥" if self.sense == "at least" else "≤"
        bar = "" if self.bar is None else f"{sign} {self.bar:g}"
        ours = f"{_figure(self.ours)} {self.unit}"
        text = f"{self.what:<58} {ours:>15} {reference:>15} {ratio:>7} {bar:>7}  {verdict}"
        more = "; ".join(part for part in (self.against and f"against {self.against}", self.note) if part)
        return f"{text.rstrip()}\n    {more}" if more else text.rstrip()

    def as_json(self) -> dict[str, object]:
        return {**msgspec.to_builtins(self), "ratio": self.ratio, "ok": self.ok}


HEADING = f"{'what':<58} {'ours':>15} {'reference':>15} {'ratio':>7} {'bar':>7}"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def in_turns(rounds: int, *sides: Callable[[], T]) -> list[list[T]]:
    """The results of each side, of `rounds` rounds A B, B A, A B …: what disturbs the machine meets all sides alike."""
    results: list[list[T]] = [[] for _ in sides]
    turn = list(zip(sides, results, strict=True))
    for _ in range(rounds):
        for measure, result in turn:
            result.append(measure())
        turn.reverse()
    return results


median = statistics.median


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest rank: a value that occurred."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
