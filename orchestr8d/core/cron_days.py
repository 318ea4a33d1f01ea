"""A cron rule's matches on a clock that is never changed: days as croniter walks them, times of the day by its sets.

A wall time here is in seconds since 1970 as if the wall clock showed UTC; a day is a number of days since then.
"""

from __future__ import annotations

from bisect import bisect_left
from contextlib import suppress
from copy import copy
from functools import lru_cache
from typing import Final

from croniter import croniter

from orchestr8d.core.cron_fields import Fields

DAY: Final = 86400
# No match: beyond any time. Days end where a time can no longer be sent, with a day for a zone's offset.
NEVER: Final = 1 << 60
_LAST_DAY: Final = 253_370_764_800 // DAY
# Days are asked for by so many.
_SPAN: Final = 64
# The longest that a rule can pause: 29 February on a given weekday comes once in 28 years, or 40 over a year like 2100.
_YEARS: Final = 41


def first(fields: Fields, wall: int) -> int:
    """The first match at or after `wall`."""
    day, time = divmod(wall, DAY)
    if day > _LAST_DAY:
        return NEVER
    found = _first_day(fields, day)
    if found == day:
        match = _first_time(fields, time)
        if match is not None:
            return day * DAY + match
        found = _first_day(fields, day + 1)
    if found > _LAST_DAY:
        return NEVER
    return found * DAY + fields.hours[0] * 3600 + fields.minutes[0] * 60 + fields.seconds[0]


def count(fields: Fields, begin: int, end: int) -> int:
    """How many matches there are from `begin` to before `end`."""
    if begin >= end:
        return 0
    (day, time), (last_day, last_time) = divmod(begin, DAY), divmod(end, DAY)
    a_day = len(fields.hours) * len(fields.minutes) * len(fields.seconds)
    total = _count_days(fields, day, last_day) * a_day
    if _first_day(fields, day) == day:
        total -= _count_times(fields, time)
    if _first_day(fields, last_day) == last_day:
        total += _count_times(fields, last_time)
    return total


def _first_day(fields: Fields, day: int) -> int:
    if not fields.day_rules:
        return day
    days = _days(fields.day_rules, day // _SPAN)
    return days[bisect_left(days, day)]


def _count_days(fields: Fields, day: int, end: int) -> int:
    if not fields.day_rules:
        return end - day
    total = 0
    while day < end:
        span = day // _SPAN
        days = _days(fields.day_rules, span)
        until = min(end, (span + 1) * _SPAN)
        following = bisect_left(days, until)
        total += following - bisect_left(days, day)
        day = days[following]
    return total


@lru_cache(8192)
def _days(rules: tuple[str, ...], span: int) -> tuple[int, ...]:
    """The days of one span, and at least the first one after it."""
    begin, end = span * _SPAN, (span + 1) * _SPAN
    found = {NEVER}
    for rule in rules:
        # A copy, since walking changes it, and several threads may walk.
        walk = copy(_walk(rule))
        day = begin - 1
        # It fails at the calendar's end.
        with suppress(ValueError, OverflowError):
            while day < end:
                # From the last minute before, so that it looks at the day's first minute first.
                day = int(walk.get_next(float, start_time=float((day + 1) * DAY - 60))) // DAY
                found.add(day)
    return tuple(sorted(found))


@lru_cache(1024)
def _walk(rule: str) -> croniter:
    return croniter(f"0 0 {rule}", 0.0, day_or=False, max_years_between_matches=_YEARS)


def _first_time(fields: Fields, time: int) -> int | None:
    """The first time of the day at or after `time`, in seconds."""
    hour, rest = divmod(time, 3600)
    minute, second = divmod(rest, 60)
    hours, minutes, seconds = fields.hours, fields.minutes, fields.seconds
    h = bisect_left(hours, hour)
    if h < len(hours) and hours[h] == hour:
        m = bisect_left(minutes, minute)
        if m < len(minutes) and minutes[m] == minute:
            s = bisect_left(seconds, second)
            if s < len(seconds):
                return hour * 3600 + minute * 60 + seconds[s]
            m += 1
        if m < len(minutes):
            return hour * 3600 + minutes[m] * 60 + seconds[0]
        h += 1
    return hours[h] * 3600 + minutes[0] * 60 + seconds[0] if h < len(hours) else None


def _count_times(fields: Fields, time: int) -> int:
    """How many times of the day are before `time`."""
    hour, rest = divmod(time, 3600)
    minute, second = divmod(rest, 60)
    hours, minutes, seconds = fields.hours, fields.minutes, fields.seconds
    total = bisect_left(hours, hour) * len(minutes) * len(seconds)
    if hour in hours:
        total += bisect_left(minutes, minute) * len(seconds)
        if minute in minutes:
            total += bisect_left(seconds, second)
    return total
