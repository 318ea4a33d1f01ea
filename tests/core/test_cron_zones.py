"""Schedules around every change of every zone's clock, against a calculation that looks at each minute."""

from __future__ import annotations

import os
import random
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import cycle
from zoneinfo import ZoneInfo, available_timezones

import pytest

from orchestr8d.core.cron import Rule, parse
from tests.core import cron_brute
from tests.core.cron_brute import Matcher

ROUNDS = int(os.environ.get("ORCHESTR8_TORTURE_ROUNDS", "3"))
SEED = int(os.environ.get("ORCHESTR8_TORTURE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 30)
FIRST, LAST = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2020, 2036))
HOUR = 3600
# Those that begin with `*` in the minute or the hour, and those that do not.
RULES = (
    "* * * * *", "30 2 * * *", "*/15 2 * * *", "0 0 * * *", "7-59/20 * * * *", "15,45 0-3 * * *", "*/25 0-4 * * 0,6",
    "0 3 * * 0", "30 */2 * * *", "0-59 0-23 * * *", "*/15 * 1-7 * 0", "59 23 L * *", "0 1 * * 0L", "1 0 1,15 * 6",
    "20 1-3 * 3,4,9-11 *", "0 * * * 0#2",
)  # fmt: skip


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def zones() -> dict[str, ZoneInfo]:
    """`localtime` is what the machine says it is."""
    return {name: ZoneInfo(name) for name in sorted(available_timezones() - {"localtime"})}


def check(text: str, name: str, zone: ZoneInfo, begin: int, walls: list[datetime], starts: tuple[int, ...]) -> None:
    """The rule's runs within the minutes that follow `begin`, asked for from its beginning and from other times."""
    matcher = Matcher(text)
    expected = [(begin + 60 * n) * 1000 for n in cron_brute.due(matcher, walls)]
    rule, before, end = parse(text, name), begin * 1000 - 1, (begin + 60 * len(walls)) * 1000 - 1
    assert rule.zone is zone
    for after in (before, *starts):
        due = [at for at in expected if at > after]
        where = f"{text} in {name} after {after}"
        assert rule.between(after, end, after, 100_000) == due, where
        assert rule.count(after, end, after) == len(due), where
    assert rule.latest(after, end, after) == (due[-1] if due else None), where


@pytest.mark.slow
def test_around_every_change_of_every_zone() -> None:
    seen: set[tuple[int, int, int]] = set()
    rules = cycle(RULES)
    for name, zone in zones().items():
        for at, before, after in cron_brute.changes(zone, FIRST, LAST):
            if (at, before, after) in seen:
                continue
            seen.add((at, before, after))
            begin = at - 3 * HOUR
            walls = cron_brute.walls(zone, begin, at + 3 * HOUR + abs(after - before))
            # The last time before the change, the first after it, one that is skipped or shown twice, and some others.
            last, first = walls[179:181]
            shown = [last, first, min(last, first) + timedelta(minutes=abs(after - before) // 120)]
            own = [f"{wall.minute} {wall.hour} {wall.day} {wall.month} *" for wall in shown]
            for n, text in enumerate((*own, next(rules), next(rules))):
                starts = (at * 1000 - 1, at * 1000, at * 1000 + 1, (at + 1800) * 1000, (at - 1800) * 1000)
                check(text, name, zone, begin, walls, starts if n == 2 else (starts[n],))
    assert len(seen) > 900


class Changed(tzinfo):
    """A zone whose clock is changed once, at a time that one may choose."""

    def __init__(self, at: int, before: int, after: int) -> None:
        self.at, self.offsets = at, (timedelta(seconds=before), timedelta(seconds=after))

    def fromutc(self, moment: datetime) -> datetime:
        late = (moment.replace(tzinfo=UTC).timestamp()) >= self.at
        return (moment + self.offsets[late]).replace(fold=late)

    def utcoffset(self, moment: datetime | None) -> timedelta:
        assert moment is not None
        return self.offsets[moment.fold]

    def dst(self, moment: datetime | None) -> None:
        return None

    tzname = dst


@pytest.mark.parametrize("by", [3600, -3600, 1800, -7200, 86_400, -86_400])
def test_whenever_a_clock_is_changed(by: int) -> None:
    """Zones are read piece by piece; a change may fall on a piece's edge, or be felt over it."""
    piece = 1 << 21
    for at in (900 * piece + n for n in (-86_040, -7020, -1800, -60, 0, 60, 1800)):
        zone = Changed(at, -by // 2, by - by // 2)
        begin = at - 7200
        walls = cron_brute.walls(zone, begin, at + 2 * 86_400)
        for text in ("10,40 0-23 * * *", "*/20 * * * *", "5 3 * * *", "0 */5 * * *"):
            expected = [(begin + 60 * n) * 1000 for n in cron_brute.due(Matcher(text), walls)]
            rule, end = Rule(parse(text, "UTC").what, zone), (begin + 60 * len(walls)) * 1000 - 1
            for after in (begin * 1000 - 1, at * 1000 - 1, at * 1000, (900 * piece) * 1000, at * 1000 + 3_000_000):
                due = [time for time in expected if time > after]
                assert rule.between(after, end, after, 10_000) == due, (text, at, after)
                assert rule.count(after, end, after) == len(due), (text, at, after)


@pytest.mark.torture
def test_anywhere_at_any_time() -> None:
    print(f"ORCHESTR8_TORTURE_SEED={SEED}")
    draw = random.Random(SEED)
    everywhere = zones()
    for _ in range(ROUNDS):
        name = draw.choice(list(everywhere))
        begin = draw.randrange(FIRST // 60, LAST // 60 - 86400) * 60
        walls = cron_brute.walls(everywhere[name], begin, begin + 40 * 86400)
        for text in draw.sample(RULES, 3):
            check(text, name, everywhere[name], begin, walls, ((begin + draw.randrange(40 * 86400)) * 1000,))


@pytest.mark.parametrize(
    ("zone", "at"),
    [("Australia/Lord_Howe", "2026-10-04T02:00+10:30"), ("Australia/Lord_Howe", "2027-04-04T02:00+11:00"),
     ("Pacific/Apia", "2011-12-30T00:00-10:00"), ("America/Havana", "2026-11-01T01:00-04:00"),
     ("Antarctica/Troll", "2026-03-29T01:00+00:00"), ("Africa/Monrovia", "1972-01-07T00:00-00:44:30")],
)  # fmt: skip
def test_to_the_second(zone: str, at: str) -> None:
    """Monrovia's clock was 44 minutes and 30 seconds behind."""
    change = ms(at) // 1000
    walls = cron_brute.walls(ZoneInfo(zone), change - 2000, change + 2000, tick=1)
    for text in ("15 * * * * *", "*/30 20-40 0,1,2 * * *", "10,50 */10 2 * * *", "*/20 30-59/7 0-23 * * *"):
        expected = [(change - 2000 + n) * 1000 for n in cron_brute.due(Matcher(text), walls)]
        rule = parse(text, zone)
        assert rule.between((change - 2000) * 1000 - 1, (change + 2000) * 1000 - 1, 0, 10_000) == expected, text
        assert rule.count((change - 2000) * 1000 - 1, (change + 2000) * 1000 - 1, 0) == len(expected), text


PLACES = [
    # Berlin: an hour is skipped and an hour comes twice.
    ("Europe/Berlin", "30 2 * * *", "2027-03-27T12:00Z",
     ["2027-03-28T01:00Z", "2027-03-29T00:30Z"]),
    ("Europe/Berlin", "0,30 2 * * *", "2027-03-28T00:00Z",
     ["2027-03-28T01:00Z", "2027-03-29T00:00Z"]),
    ("Europe/Berlin", "45 30 2 * * *", "2027-03-28T00:00Z",
     ["2027-03-28T01:00Z", "2027-03-29T00:30:45Z"]),
    ("Europe/Berlin", "0 2,3 * * *", "2027-03-28T00:00Z",
     ["2027-03-28T01:00Z", "2027-03-29T00:00Z"]),
    ("Europe/Berlin", "*/15 2 * * *", "2027-03-27T01:40Z",
     ["2027-03-27T01:45Z", "2027-03-29T00:00Z"]),
    ("Europe/Berlin", "30 2 * * *", "2026-10-24T12:00Z",
     ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
    ("Europe/Berlin", "*/30 * * * *", "2026-10-24T23:59Z",
     ["2026-10-25T00:00Z", "2026-10-25T00:30Z", "2026-10-25T01:00Z", "2026-10-25T01:30Z", "2026-10-25T02:00Z"]),
    ("Europe/Berlin", "0,30 0-23 * * *", "2026-10-25T00:00Z",
     ["2026-10-25T00:30Z", "2026-10-25T02:00Z"]),
    # Lord Howe's summer is half an hour.
    ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03T12:00Z",
     ["2026-10-03T15:30Z", "2026-10-04T15:15Z"]),
    ("Australia/Lord_Howe", "45 1 * * *", "2027-04-03T12:00Z",
     ["2027-04-03T14:45Z", "2027-04-04T15:15Z"]),
    # Apia had no 30 December 2011: what that day swallowed is due once, at the next midnight.
    ("Pacific/Apia", "0 9 * * *", "2011-12-29T20:00Z",
     ["2011-12-30T10:00Z", "2011-12-30T19:00Z"]),
    ("Pacific/Apia", "0 9 30 12 *", "2011-12-01T00:00Z",
     ["2011-12-30T10:00Z", "2012-12-29T19:00Z"]),
    ("Pacific/Apia", "*/30 12 * * *", "2011-12-29T22:10Z",
     ["2011-12-29T22:30Z", "2011-12-30T22:00Z"]),
    # In Havana midnight is skipped, and comes twice.
    ("America/Havana", "0 0 * * *", "2027-03-13T12:00Z",
     ["2027-03-14T05:00Z", "2027-03-15T04:00Z"]),
    ("America/Havana", "30 0 * * *", "2026-10-31T12:00Z",
     ["2026-11-01T04:30Z", "2026-11-02T05:30Z"]),
    # Troll changes by two hours.
    ("Antarctica/Troll", "30 1,2 * * *", "2027-03-27T12:00Z",
     ["2027-03-28T01:00Z", "2027-03-28T23:30Z"]),
    ("Antarctica/Troll", "30 1,2 * * *", "2026-10-24T12:00Z",
     ["2026-10-24T23:30Z", "2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
    # Casablanca is behind by an hour in Ramadan.
    ("Africa/Casablanca", "30 2 * * *", "2027-02-06T12:00Z",
     ["2027-02-07T01:30Z", "2027-02-08T02:30Z"]),
    ("Africa/Casablanca", "30 2 * * *", "2027-03-13T12:00Z",
     ["2027-03-14T02:00Z", "2027-03-15T01:30Z"]),
]  # fmt: skip


@pytest.mark.parametrize(("zone", "text", "after", "expected"), PLACES)
def test_places(zone: str, text: str, after: str, expected: list[str]) -> None:
    rule: Rule = parse(text, zone)
    runs = rule.runs(ms(after), len(expected))
    assert [datetime.fromtimestamp(at / 1000, UTC) for at in runs] == [datetime.fromisoformat(at) for at in expected]
