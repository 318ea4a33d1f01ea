"""When a rule is due, worked out the long way: each minute's wall clock is looked at, one after the other.

It shares nothing with `core/cron*.py`, and knows less: numbers only.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache


class Matcher:
    def __init__(self, rule: str) -> None:
        parts = rule.split()
        self.by_seconds = len(parts) == 6
        second, minute, hour, self._day, self._month, self._weekday = parts if self.by_seconds else ["0", *parts]
        self._seconds, self._minutes = _all(second, 0, 59), _all(minute, 0, 59)
        self._hours = _all(hour, 0, 23)
        self._dates: dict[date, bool] = {}
        self.every_pass = minute.startswith("*") or hour.startswith("*")

    def __call__(self, wall: datetime) -> bool:
        if wall.minute not in self._minutes or wall.hour not in self._hours or wall.second not in self._seconds:
            return False
        day = wall.date()
        if day not in self._dates:
            self._dates[day] = self.on(day)
        return self._dates[day]

    def on(self, day: date) -> bool:
        if not _matches(self._month, day.month, 1, 12):
            return False
        length, weekday = monthrange(day.year, day.month)[1], day.isoweekday() % 7
        by_date = any(
            day.day == length if item == "L" else _item(item, day.day, 1, 31) for item in self._day.split(",")
        )
        by_weekday = any(_in_week(item, day.day, weekday, length) for item in self._weekday.split(","))
        if self._day[0] == "*" or self._weekday[0] == "*":
            return by_date and by_weekday
        return by_date or by_weekday


def due(rule: Matcher, walls: list[datetime]) -> list[int]:
    """Which of these are due: what the wall clock shows at times that follow each other by a minute, or a second."""
    if rule.every_pass:
        return [n for n, wall in enumerate(walls) if rule(wall)]
    tick = timedelta(seconds=1 if rule.by_seconds else 60)
    found = []
    reached = walls[0] - tick
    for n, wall in enumerate(walls):
        if wall > reached:
            shown = wall
            while shown > reached:
                if rule(shown):
                    found.append(n)
                    break
                shown -= tick
            reached = wall
    return found


def walls(zone: tzinfo, begin: int, end: int, tick: int = 60) -> list[datetime]:
    """What the wall clock shows from `begin` to before `end`, in seconds since 1970."""
    return [datetime.fromtimestamp(at, UTC).astimezone(zone).replace(tzinfo=None) for at in range(begin, end, tick)]


def changes(zone: tzinfo, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """When the clock is changed, and the offsets before and after. No zone does so twice in six days."""
    look = 6 * 86400
    before = _offset(zone, begin)
    for at in range(begin + look, end, look):
        after = _offset(zone, at)
        if after != before:
            same, other = at - look, at
            while other - same > 1:
                middle = (same + other) // 2
                same, other = (middle, other) if _offset(zone, middle) == before else (same, middle)
            yield other, before, after
            before = after


def _offset(zone: tzinfo, at: int) -> int:
    return round((datetime.fromtimestamp(at, zone).utcoffset() or timedelta()).total_seconds())


@cache
def _all(text: str, low: int, high: int) -> set[int]:
    return {value for value in range(low, high + 1) if _matches(text, value, low, high)}


def _matches(text: str, value: int, low: int, high: int) -> bool:
    return any(_item(item, value, low, high) for item in text.split(","))


def _item(item: str, value: int, low: int, high: int) -> bool:
    if item == "L":
        return False
    span, _, step = item.partition("/")
    begin, _, end = span.partition("-")
    if span == "*":
        begin, end = str(low), str(high)
    elif not end:
        end = str(high) if step else begin
    size = high - low + 1
    place = (value - int(begin)) % size
    return place <= (int(end) - int(begin)) % size and place % int(step or 1) == 0


def _in_week(item: str, day: int, weekday: int, length: int) -> bool:
    if item.endswith("L"):
        return int(item[:-1]) == weekday and day + 7 > length
    if "#" in item:
        on, _, week = item.partition("#")
        return int(on) == weekday and (day + 6) // 7 == int(week)
    return _item(item, weekday, 0, 6)
