"""What a rule says, as a sentence for people: `every Monday at 09:00`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Final

from orchestr8d.core.cron import Every, Once, Rule
from orchestr8d.core.cron_fields import LAST_DAY, LAST_WEEK, Fields

_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_WEEKDAYS: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_WEEKS: Final = {1: "first", 2: "second", 3: "third", 4: "fourth", 5: "fifth", LAST_WEEK: "last"}
_UNITS: Final = ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1000, "second"))
# So many times of the day, or members of a list, are told one by one.
_MOST: Final = 8
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def words(rule: Rule) -> str:
    """The zone is named only where a single time is."""
    what = rule.what
    if isinstance(what, Every):
        return next(_every(what.interval // unit, name) for unit, name in _UNITS if what.interval % unit == 0)
    if isinstance(what, Once):
        at = (_EPOCH + timedelta(milliseconds=what.at)).astimezone(rule.zone)
        clock = _clock(at.hour, at.minute, at.second, with_second=at.second > 0)
        return f"once, on {at.day} {_MONTHS[at.month - 1]} {at.year} at {clock} ({rule.zone})"
    times = len(what.hours) * len(what.minutes) * len(what.seconds)
    days = _days(what)
    if times <= _MOST and not (len(what.hours) > 1 and len(what.minutes) > 1 and _step(what.minutes, 60)):
        one_by_one = product(what.hours, what.minutes, what.seconds)
        clock = _list([_clock(*time, with_second=what.seconds != (0,)) for time in one_by_one])
        return f"{days or 'every day'} at {clock}"
    return f"{_often(what)}, {days}" if days else _often(what)


def _clock(hour: int, minute: int, second: int = 0, *, with_second: bool = False) -> str:
    return f"{hour:02d}:{minute:02d}:{second:02d}" if with_second else f"{hour:02d}:{minute:02d}"


def _often(fields: Fields) -> str:
    """Many times a day: how often, and in which hours."""
    seconds, minutes, hours = fields.seconds, fields.minutes, fields.hours
    every_hour = len(hours) == 24
    step = _step(minutes, 60)
    if seconds != (0,):
        by = _step(seconds, 60)
        often = _every(by, "second") if by else f"at {_numbers('second', seconds)}"
        if step != 1:
            often += " of " + (f"{_every(step, 'minute')}" if step else _numbers("minute", minutes))
            often += " of every hour" if every_hour and not step else ""
        elif not by:
            often += " of every minute"
    elif step:
        often = _every(step, "minute")
    elif minutes == (0,) and (by := _step(hours, 24)):
        return _every(by, "hour")
    elif len(minutes) == 1 and _run(hours) and not every_hour:
        begin, end = _run(hours) or (0, 0)
        return f"every hour from {_clock(begin, minutes[0])} to {_clock(end, minutes[0])}"
    else:
        often = f"at {_numbers('minute', minutes)}" + (" of every hour" if every_hour else "")
    if every_hour:
        return often
    if run := _run(hours):
        return f"{often} from {_clock(run[0], minutes[0])} to {_clock(run[1], minutes[-1])}"
    by = _step(hours, 24)
    return f"{often} of every {_ordinal(by)} hour" if by else f"{often} of {_numbers('hour', hours)}"


def _days(fields: Fields) -> str:
    """Nothing for every day."""
    if not fields.day_rules:
        return ""
    all_days = set(fields.days) >= set(range(1, 32))
    all_weekdays = len(fields.weekdays) == 7
    months = "" if len(fields.months) == 12 else _list(_runs(fields.months, _MONTHS, 1))
    if all_days and all_weekdays:
        return f"every day in {months}"
    of = f" of {months or 'every month'}"
    dates = "" if all_days else f"on {_list(_dates(fields.days))}{of}"
    if all_weekdays:
        return dates
    weekdays = _weekdays(fields, of)
    if not dates:
        return weekdays + (f" in {months}" if months and fields.weekdays else "")
    if fields.either:
        return f"{dates} and {weekdays}" + (f" in {months}" if months and fields.weekdays else "")
    return f"{dates} if that is {_list([f'a {_WEEKDAYS[n]}' for n in fields.weekdays] + _weeks(fields), 'or')}"


def _weekdays(fields: Fields, of: str) -> str:
    plain, weeks = fields.weekdays, _weeks(fields)
    parts = []
    if run := _run(plain, 7) if 3 <= len(plain) < 7 else None:
        parts.append(f"every day from {_WEEKDAYS[run[0]]} to {_WEEKDAYS[run[1]]}")
    elif plain:
        parts.append(f"every {_list([_WEEKDAYS[n] for n in (*(n for n in plain if n), *(n for n in plain if not n))])}")
    if weeks:
        parts.append(f"on {_list(weeks)}{of}")
    return " and ".join(parts)


def _weeks(fields: Fields) -> list[str]:
    return [f"the {_WEEKS[week]} {_WEEKDAYS[on]}" for on, week in fields.weeks]


def _dates(days: Sequence[int]) -> list[str]:
    ordinals = [_ordinal(n) for n in range(1, 32)]
    found = [f"the {part}" for part in _runs([n for n in days if n != LAST_DAY], ordinals, 1)]
    return [*found, "the last day"] if LAST_DAY in days else found


def _ordinal(number: int) -> str:
    ending = "th" if number in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _runs(numbers: Sequence[int], names: Sequence[str], low: int) -> list[str]:
    """Names of numbers, three and more in a row as `March to May`."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    parts: list[str] = []
    for run in found:
        told = [names[number - low] for number in run]
        parts += [f"{told[0]} to {told[-1]}"] if len(told) > 2 else told
    return parts


def _run(numbers: Sequence[int], size: int = 24) -> tuple[int, int] | None:
    """The first and the last of numbers that follow each other, maybe over the field's end; None when they do not."""
    begins = [n for n in numbers if (n - 1) % size not in numbers]
    return (begins[0], (begins[0] + len(numbers) - 1) % size) if len(begins) == 1 else None


def _step(numbers: Sequence[int], size: int) -> int:
    """The number of units after which each follows the one before, over the field's end too, from 0 on; 0 for none."""
    step = size // len(numbers)
    return step if len(numbers) > 1 and tuple(numbers) == tuple(range(0, size, step)) and size % step == 0 else 0


def _every(number: int, unit: str) -> str:
    return f"every {unit}" if number == 1 else f"every {number} {unit}s"


def _numbers(unit: str, numbers: Sequence[int]) -> str:
    return f"{unit}{'s' if len(numbers) > 1 else ''} {_list(_runs(numbers, [str(n) for n in range(60)], 0))}"


def _list(parts: Sequence[str], word: str = "and") -> str:
    if len(parts) > _MOST:
        parts = [*parts[: _MOST - 2], f"{len(parts) - _MOST + 2} more"]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"
