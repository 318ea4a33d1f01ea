"""The fields of a cron rule as sets of numbers, or all that is wrong with them; and its days as croniter reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Final, NamedTuple

from msgspec import Struct

from orchestr8d.core.errors import did_you_mean

MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
# Among the days of a month, and among the weeks of a weekday: the last one, whichever that is.
LAST_DAY: Final = 32
LAST_WEEK: Final = 6
EXPECTED: Final = (
    "expected five fields (minute, hour, day of the month, month, day of the week), or six with the seconds first, "
    "like '0 9 * * MON'"
)
_LENGTHS: Final = {2: (28, 29), 4: (30,), 6: (30,), 9: (30,), 11: (30,)}
_ITEM: Final = re.compile(r"(\*|[0-9A-Z]+)(?:-([0-9A-Z]+))?(?:/([0-9A-Z]+))?")
_ITEM_EXPECTED: Final = "expected *, a number, a range like 1-5, or a step like */5"
_NEAREST: Final = re.compile(r"[0-9]{0,4}W[0-9]{0,4}|LW")
_DRAWN: Final = re.compile(r"[HR](?:\(.*\))?(?:/.*)?")


class Fields(Struct, frozen=True):
    """What a rule of five or six fields asks for, each set sorted; Sunday is 0."""

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]  # of the month, LAST_DAY among them
    months: tuple[int, ...]
    weekdays: tuple[int, ...]  # each of these in any week
    weeks: tuple[tuple[int, int], ...]  # a weekday, and which one of its month: 1 to 5 or LAST_WEEK
    either: bool  # a day of the month or a weekday will do; else both have to match
    starred: bool  # the minute or the hour begins with `*`
    day_rules: tuple[str, ...]  # any of them makes a day one of the rule's; none: every day is


class _Field(NamedTuple):
    name: str
    low: int
    high: int  # the highest that may be written
    top: int  # where `*` and a step end
    names: tuple[str, ...] = ()


_FIELDS: Final = (
    _Field("second", 0, 59, 59),
    _Field("minute", 0, 59, 59),
    _Field("hour", 0, 23, 23),
    _Field("day of the month", 1, 31, 31),
    _Field("month", 1, 12, 12, MONTHS),
    _Field("day of the week", 0, 7, 6, WEEKDAYS),
)
_DAY, _WEEKDAY = _FIELDS[3], _FIELDS[5]


class _Said(NamedTuple):
    values: set[int]
    weeks: set[tuple[int, int]]


class _Wrong(Exception):
    """An item that says nothing; what was expected in its place."""


def read(text: str) -> tuple[Fields | None, list[str]]:
    """The fields of a rule, or None and all that is wrong."""
    if not text.isascii():
        return None, ["expected plain letters, digits and signs"]
    said = re.split("[ \t]+", text.upper())
    if len(said) == 5:
        said = ["0", *said]
    if len(said) == 7:
        return None, ['a seventh field, for the year, is not supported: {"at": TIME} is for one time']
    if len(said) != 6:
        return None, [f"{EXPECTED}: found {len(said)}"]
    wrong: list[str] = []
    found = [_read_field(part, field, wrong) for part, field in zip(said, _FIELDS, strict=True)]
    if wrong:
        return None, wrong
    seconds, minutes, hours, days, months, weekdays = (tuple(sorted(one.values)) for one in found)
    weeks = tuple(sorted(found[5].weeks))
    either = said[3][0] not in "*?" and said[5][0] not in "*?"
    if not either and not _ever(days, months, bool(weekdays), weeks):
        return None, ["never matches: its months do not have such a day"]
    rules = tuple(_day_rules(days, months, weekdays, weeks, either))
    starred = said[1][0] == "*" or said[2][0] == "*"
    return Fields(seconds, minutes, hours, days, months, weekdays, weeks, either, starred, rules), []


def _read_field(text: str, field: _Field, wrong: list[str]) -> _Said:
    found = _Said(set(), set())
    if text == "?" and field in (_DAY, _WEEKDAY):
        text = "*"
    for item in text.split(","):
        try:
            _read_item(item, field, found)
        except _Wrong as e:
            wrong.append(f"{field.name}: {item[:40]!r}: {e}")
    return found


def _read_item(item: str, field: _Field, found: _Said) -> None:
    if field is _WEEKDAY and "#" in item:
        day, _, week = item.partition("#")
        if week not in ("1", "2", "3", "4", "5"):
            raise _Wrong("expected 1 to 5 after #, like 5#2 (the second Friday)")
        found.weeks.add((_number(day, field) % 7, int(week)))
    elif field is _WEEKDAY and item.endswith("L"):
        if item == "L":
            raise _Wrong("expected the weekday before L, like 5L (the last Friday)")
        found.weeks.add((_number(item[:-1], field) % 7, LAST_WEEK))
    elif field is _DAY and item == "L":
        found.values.add(LAST_DAY)
    else:
        found.values.update(_numbers(item, field))


def _numbers(item: str, field: _Field) -> Iterable[int]:
    """Of `*`, a number or a name, a range, each maybe with a step."""
    if _DRAWN.fullmatch(item):
        raise _Wrong("H and R (a drawn number) are not supported: write one, and see `jitter`")
    m = _ITEM.fullmatch(item)
    if not m or (m[1] == "*" and m[2]):
        raise _Wrong(_unknown(item, field) if "?" in item else _ITEM_EXPECTED)
    low = field.low if m[1] == "*" else _number(m[1], field)
    open_end = m[1] == "*" or m[3]
    high = _number(m[2], field) if m[2] else field.top if open_end else low
    if field is _WEEKDAY and low == 7:
        # Sunday as the beginning of a range or a step is the first day.
        low, high = 0, high % 7
    run = range(low, high + 1) if low <= high else (*range(low, field.top + 1), *range(field.low, high + 1))
    step = _step(m[3], field) if m[3] else 1
    return {value % 7 for value in run[::step]} if field is _WEEKDAY else run[::step]


def _step(text: str, field: _Field) -> int:
    most = field.high
    if not text.isdigit() or not 1 <= int(text[:9]) <= most:
        raise _Wrong(f"expected a step of 1 to {most}")
    return int(text)


def _number(text: str, field: _Field) -> int:
    if text in field.names:
        return field.low + field.names.index(text)
    if re.fullmatch("[0-9]{1,9}", text) and field.low <= int(text) <= field.high:
        return int(text)
    raise _Wrong(_unknown(text, field))


def _unknown(text: str, field: _Field) -> str:
    """What was expected in its place, for what is often written elsewhere too."""
    if field is _DAY and _NEAREST.fullmatch(text):
        return "W (the nearest working day) is not supported"
    if field is _DAY and text.startswith("L"):
        return "expected L alone (the last day of the month)"
    if "?" in text:
        return "expected ? alone, in a field of days" if field in (_DAY, _WEEKDAY) else "? is for the fields of days"
    names = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
    return f"expected {field.low} to {field.high}{names}{did_you_mean(text, field.names)}"


def _ever(days: Iterable[int], months: Iterable[int], any_week: bool, weeks: Iterable[tuple[int, int]]) -> bool:
    """Whether there is a day that both fields match. In 400 years each date falls on each weekday, 29 February too."""
    for month, day in product(months, days):
        for length in _LENGTHS.get(month, (31,)):
            date = length if day == LAST_DAY else day
            if date <= length and (any_week or any(_in_week(date, length, week) for _, week in weeks)):
                return True
    return False


def _in_week(date: int, length: int, week: int) -> bool:
    return date > length - 7 if week == LAST_WEEK else (date - 1) // 7 + 1 == week


def _day_rules(
    days: tuple[int, ...],
    months: tuple[int, ...],
    weekdays: tuple[int, ...],
    weeks: tuple[tuple[int, int], ...],
    either: bool,
) -> Iterator[str]:
    """As croniter reads days: explicit lists, of which every field has to match, so each way to match is a rule of its
    own; weekdays of any week apart from those of some, which it does not mix."""
    day = "*" if set(days) >= set(range(1, 32)) else ",".join("L" if n == LAST_DAY else str(n) for n in days)
    month = "*" if len(months) == 12 else ",".join(map(str, months))
    ways = [] if not weekdays else ["*" if len(weekdays) == 7 else ",".join(map(str, weekdays))]
    if weeks:
        ways.append(",".join(f"L{on}" if week == LAST_WEEK else f"{on}#{week}" for on, week in weeks))
    rules = [f"{'*' if either else day} {month} {way}" for way in ways]
    if either:
        rules.append(f"{day} {month} *")
    if "* * *" not in rules:
        yield from rules
