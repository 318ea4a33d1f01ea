"""Rules: what they mean, what croniter alone makes of them, what is refused and how, what a sentence says of them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest
from croniter import croniter
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestr8d.core import cron_fields
from orchestr8d.core.cron import BadRule, parse
from orchestr8d.core.cron_words import words
from tests.core.cron_brute import Matcher

DAY = 86_400_000


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


NOW = ms("2026-11-24T12:00:00Z")  # a Tuesday


def runs(rule: str, after: str, count: int, zone: str = "UTC") -> list[str]:
    return [told(at) for at in parse(rule, zone).runs(ms(after), count)]


def told(at: int) -> str:
    text = f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M:%S}"
    return text.removesuffix(":00")


# What croniter 7 alone makes of a rule, and what is right: each with the options that suit it best.
ALONE = [
    # A range of one is the whole field.
    ("1-1 0 * * *", "2027-01-01T00:00Z", {}, ["2027-01-01 00:01", "2027-01-01 00:02"],
     ["2027-01-01 00:01", "2027-01-02 00:01"]),
    ("0-0 0 * * *", "2027-01-01T00:00Z", {}, ["2027-01-01 00:01", "2027-01-01 00:02"],
     ["2027-01-02 00:00", "2027-01-03 00:00"]),
    # A day of the month with a weekday of some week: both have to match.
    ("0 0 1 * 5#2", "2027-01-01T00:00Z", {}, ["never"],
     ["2027-01-08 00:00", "2027-02-01 00:00", "2027-02-12 00:00"]),
    # Seconds are last.
    ("30 0 9 * * *", "2027-01-01T00:00Z", {}, ["2027-01-09 00:30", "2027-01-09 00:30:01"],
     ["2027-01-01 09:00:30", "2027-01-02 09:00:30"]),
    ("0 30 9 1 * *", "2027-01-01T00:00Z", {}, ["bad"], ["2027-01-01 09:30", "2027-02-01 09:30"]),
    # A field of days that begins with `*` leaves it to the other one.
    ("0 0 */2 * MON", "2027-01-01T00:00Z", {}, ["2027-01-03 00:00", "2027-01-04 00:00", "2027-01-05 00:00"],
     ["2027-01-11 00:00", "2027-01-25 00:00"]),
    # The last Friday, and names with weeks.
    ("0 0 * * 5L", "2027-01-01T00:00Z", {}, ["bad"], ["2027-01-29 00:00", "2027-02-26 00:00"]),
    ("0 0 * * FRIL", "2027-01-01T00:00Z", {}, ["bad"], ["2027-01-29 00:00", "2027-02-26 00:00"]),
    ("0 0 * * MON,5#2", "2027-01-01T00:00Z", {}, ["bad"], ["2027-01-04 00:00", "2027-01-08 00:00", "2027-01-11 00:00"]),
    # Taken silently.
    ("R * * * *", "2027-01-01T00:00Z", {}, ["taken"], ["bad"]),
    ("0 0 15W * *", "2027-01-01T00:00Z", {}, ["2027-01-15 00:00"], ["bad"]),
    ("*/90 * * * *", "2027-01-01T00:00Z", {}, ["2027-01-01 01:00", "2027-01-01 02:00"], ["bad"]),
    ("0 0 1 1 * 0 2030", "2027-01-01T00:00Z", {}, ["2030-01-01 00:00"], ["bad"]),
    ("0 0 30 2 *", "2027-01-01T00:00Z", {}, ["never"], ["bad"]),
    # The clock is set back: twice. It is set forward: the seconds are carried over.
    ("30 2 * * *", "2026-10-24T12:00Z", {"zone": "Europe/Berlin"}, ["2026-10-25 00:30", "2026-10-25 01:30"],
     ["2026-10-25 00:30", "2026-10-26 01:30"]),
    ("30 15 2 * * *", "2027-03-27T12:00Z", {"zone": "Europe/Berlin", "second_at_beginning": True},
     ["2027-03-28 01:00:30"], ["2027-03-28 01:00", "2027-03-29 00:15:30"]),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "after", "options", "alone", "right"), ALONE)
def test_what_croniter_alone_gets_wrong(
    rule: str, after: str, options: dict[str, str], alone: list[str], right: list[str]
) -> None:
    """If it does so no longer, what is written around it may go."""
    options = dict(options)
    zone = options.pop("zone", "UTC")
    assert _alone(rule, parse("* * * * *", zone).zone, after, options, alone) == alone
    if right == ["bad"]:
        with pytest.raises(BadRule):
            parse(rule, zone)
    else:
        assert runs(rule, after, len(right), zone) == right


def _alone(rule: str, zone: object, after: str, options: dict[str, str], expected: list[str]) -> list[str]:
    try:
        walk = croniter(rule, datetime.fromisoformat(after).astimezone(zone), ret_type=float, **options)  # type: ignore[arg-type]
        found = [told(round(walk.get_next() * 1000)) for _ in expected]
    except ValueError as e:
        return ["never" if "failed to find" in str(e) else "bad"]
    return ["taken"] if expected == ["taken"] else found


FORMS = [
    ("* * * * *", "minutes", set(range(60))),
    ("*/15 * * * *", "minutes", {0, 15, 30, 45}),
    ("5/20 * * * *", "minutes", {5, 25, 45}),
    ("1-1 * * * *", "minutes", {1}),
    ("50-10/7 * * * *", "minutes", {50, 57, 4}),
    ("10-20/15 * * * *", "minutes", {10}),
    ("05,5,007 * * * *", "minutes", {5, 7}),
    ("*/20 * * * * *", "seconds", {0, 20, 40}),
    ("* * * * *", "seconds", {0}),
    ("0 22-2 * * *", "hours", {22, 23, 0, 1, 2}),
    ("0 22-2/2 * * *", "hours", {22, 0, 2}),
    ("0 0 28-2 * *", "days", {28, 29, 30, 31, 1, 2}),
    ("0 0 L,15 * *", "days", {15, cron_fields.LAST_DAY}),
    ("0 0 ? * MON", "days", set(range(1, 32))),
    ("0 0 1 jan,Mar-MAY *", "months", {1, 3, 4, 5}),
    ("0 0 1 NOV-FEB *", "months", {11, 12, 1, 2}),
    ("0 0 1 */3 *", "months", {1, 4, 7, 10}),
    ("0 0 * * 1/3", "weekdays", {1, 4}),
    ("0 0 * * */2", "weekdays", {0, 2, 4, 6}),
    ("0 0 * * 0,7", "weekdays", {0}),
    ("0 0 * * 7", "weekdays", {0}),
    ("0 0 * * 5-7", "weekdays", {5, 6, 0}),
    ("0 0 * * 1-7/3", "weekdays", {1, 4, 0}),
    ("0 0 * * 7-2", "weekdays", {0, 1, 2}),
    ("0 0 * * 7-7", "weekdays", {0}),
    ("0 0 * * 0-7", "weekdays", set(range(7))),
    ("0 0 * * 7/2", "weekdays", {0, 2, 4, 6}),
    ("0 0 * * fri-Tue/2", "weekdays", {5, 0, 2}),
    ("0 0 * * MON-SUN", "weekdays", set(range(7))),
    ("0 0 * * 5#2,fri#4,7#1", "weeks", {(5, 2), (5, 4), (0, 1)}),
    ("0 0 * * 5L,friL", "weeks", {(5, cron_fields.LAST_WEEK)}),
    ("0 0 * * MON,5L", "weekdays", {1}),
    (" \t0  0 * *\tMON\n", "weekdays", {1}),
    ("@Weekly", "weekdays", {0}),
    ("@hourly", "hours", set(range(24))),
    ("@annually", "months", {1}),
    ("@midnight", "minutes", {0}),
]


@pytest.mark.parametrize(("rule", "field", "expected"), FORMS)
def test_forms(rule: str, field: str, expected: set[object]) -> None:
    found = getattr(parse(rule, "UTC").what, field)
    assert found == tuple(sorted(expected))


FIVE = "expected five fields (minute, hour, day of the month, month, day of the week), or six with the seconds first"
ITEM = "expected *, a number, a range like 1-5, or a step like */5"
DRAWN = "H and R (a drawn number) are not supported"
BAD: list[tuple[str, list[str]]] = [
    ("", [FIVE]),
    ("   ", [FIVE]),
    ("daily", [f"{FIVE}, like '0 9 * * MON' (did you mean '@daily'?)"]),
    ("10m", ["(did you mean '@every 10m'?)"]),
    ("2027-03-01T09:00:00Z", ['(did you mean {"at": "2027-03-01T09:00:00Z"}?)']),
    ("* * * *", ["found 4"]),
    ("0 9 * * MON FRI SUN SAT", ["found 8"]),
    ("0 0 1 1 * 0 2030", ["a seventh field, for the year, is not supported"]),
    ("0 0 1 1\n2 *", ["month: '1\\n2': " + ITEM]),
    ("@dayly", ["there is no rule '@dayly' (did you mean '@daily'?)"]),
    ("@reboot", ["'@reboot' is not supported"]),
    ("@every", ["@every '': expected a duration of 1s or more"]),
    ("@every 0s", ["@every '0s': expected a duration of 1s or more"]),
    ("@every 0.5s", ["@every '0.5s': expected a duration"]),
    ("@every 1h30m", ["@every '1h30m': expected a duration"]),
    ("@every -5m", ["@every '-5m': expected a duration"]),
    ("@every 10 m", ["@every '10 m': expected a duration"]),
    ("60 * * * *", ["minute: '60': expected 0 to 59"]),
    ("60 * * * * *", ["second: '60': expected 0 to 59"]),
    ("0 24 * * *", ["hour: '24': expected 0 to 23"]),
    ("0 0 0 * *", ["day of the month: '0': expected 1 to 31"]),
    ("0 0 32 * *", ["day of the month: '32': expected 1 to 31"]),
    ("0 0 1 0 *", ["month: '0': expected 1 to 12 or JAN to DEC"]),
    ("0 0 1 13 *", ["month: '13': expected 1 to 12 or JAN to DEC"]),
    ("0 0 * * 8", ["day of the week: '8': expected 0 to 7 or SUN to SAT"]),
    ("61 25 0 13 9", ["minute: '61'", "hour: '25'", "day of the month: '0'", "month: '13'", "day of the week: '9'"]),
    ("*/0 * * * *", ["minute: '*/0': expected a step of 1 to 59"]),
    ("*/90 * * * *", ["minute: '*/90': expected a step of 1 to 59"]),
    ("*/60 * * * *", ["minute: '*/60': expected a step of 1 to 59"]),
    ("5/61 * * * *", ["minute: '5/61': expected a step of 1 to 59"]),
    ("0 */25 * * *", ["hour: '*/25': expected a step of 1 to 23"]),
    ("0 0 * * */8", ["day of the week: '*/8': expected a step of 1 to 7"]),
    ("*/ * * * *", [f"minute: '*/': {ITEM}"]),
    ("*/5/5 * * * *", [f"minute: '*/5/5': {ITEM}"]),
    ("-5 * * * *", [f"minute: '-5': {ITEM}"]),
    ("5- * * * *", [f"minute: '5-': {ITEM}"]),
    ("1-2-3 * * * *", [f"minute: '1-2-3': {ITEM}"]),
    ("*-5 * * * *", [f"minute: '*-5': {ITEM}"]),
    ("*5 * * * *", [f"minute: '*5': {ITEM}"]),
    ("1,,2 * * * *", [f"minute: '': {ITEM}"]),
    ("1.5 * * * *", [f"minute: '1.5': {ITEM}"]),
    ("0x1 * * * *", ["minute: '0X1': expected 0 to 59"]),
    ("1-99 * * * *", ["minute: '1-99': expected 0 to 59"]),
    ("1e1 * * * *", ["minute: '1E1': expected 0 to 59"]),
    ("H * * * *", [f"minute: 'H': {DRAWN}"]),
    ("R * * * *", [f"minute: 'R': {DRAWN}"]),
    ("H(0-9)/2 * * * *", [f"minute: 'H(0-9)/2': {DRAWN}"]),
    ("? * * * *", ["minute: '?': ? is for the fields of days"]),
    ("0 0 1,? * ?", ["day of the month: '?': expected ? alone"]),
    ("0 0 15W * *", ["day of the month: '15W': W (the nearest working day) is not supported"]),
    ("0 0 LW * *", ["day of the month: 'LW': W (the nearest working day) is not supported"]),
    ("0 0 L-3 * *", ["day of the month: 'L-3': expected L alone"]),
    ("0 0 1-L * *", ["day of the month: '1-L': expected L alone"]),
    ("0 0 5L * *", ["day of the month: '5L': expected 1 to 31"]),
    ("0 L * * *", ["hour: 'L': expected 0 to 23"]),
    ("0 0 * * L", ["day of the week: 'L': expected the weekday before L"]),
    ("0 0 * * *L", ["day of the week: '*L': expected 0 to 7"]),
    ("0 0 * * 5#6", ["day of the week: '5#6': expected 1 to 5 after #"]),
    ("0 0 * * 5#0", ["day of the week: '5#0': expected 1 to 5 after #"]),
    ("0 0 * * MON-FRI#2", ["day of the week: 'MON-FRI#2': expected 0 to 7 or SUN to SAT"]),
    ("0 0 * * MONDAY", ["day of the week: 'MONDAY': expected 0 to 7 or SUN to SAT (did you mean 'MON'?)"]),
    ("0 0 * JANUAR *", ["month: 'JANUAR': expected 1 to 12 or JAN to DEC (did you mean 'JAN'?)"]),
    ("0 0 * * JAN", ["day of the week: 'JAN': expected 0 to 7 or SUN to SAT"]),
    ("0 0 * MON *", ["month: 'MON': expected 1 to 12 or JAN to DEC"]),
    ("0 JAN * * *", ["hour: 'JAN': expected 0 to 23"]),
    ("0 9 * * fr\u0131", ["expected plain letters, digits and signs"]),
    ("\u0665 9 * * *", ["expected plain letters, digits and signs"]),
    ("0 0 30 2 *", ["never matches"]),
    ("0 0 31 4,6,9,11 *", ["never matches"]),
    ("0 0 30,31 FEB ?", ["never matches"]),
    ("0 0 */31 * 5#5", ["never matches"]),
    ("0 0 30 2 */2", ["never matches"]),
    ("*," * 600 + "* * * * *", ["expected at most 1000 characters"]),
]


@pytest.mark.parametrize(("rule", "expected"), BAD, ids=[repr(rule[:30]) for rule, _ in BAD])
def test_bad_rules(rule: str, expected: list[str]) -> None:
    with pytest.raises(BadRule) as e:
        parse(rule, "UTC")
    assert [(fault.path, fault.kind) for fault in e.value.faults] == [("schedule", "unprocessable")] * len(expected)
    for fault, part in zip(e.value.faults, expected, strict=True):
        assert part in fault.message


@pytest.mark.parametrize(
    ("rule", "path", "expected"),
    [({}, "schedule.at", "expected a time"), ({"at": 5}, "schedule.at", "expected a time"),
     ({"at": "tomorrow"}, "schedule.at", "expected a time"), ({"at": "2027-01-01T00:00:00"}, "schedule.at", "offset"),
     ({"at": "2026-11-24T12:00:00Z"}, "schedule.at", "2026-11-24T12:00:00.000Z has passed"),
     ({"at": "2027-01-01T00:00:00Z", "on": 1}, "schedule", "unknown field 'on'")],
)  # fmt: skip
def test_bad_times(rule: dict[str, object], path: str, expected: str) -> None:
    with pytest.raises(BadRule, match=expected) as e:
        parse(rule, "UTC", NOW)
    assert [fault.path for fault in e.value.faults] == [path]


@pytest.mark.parametrize(
    ("zone", "near"),
    [("Europe/Berln", "'Europe/Berlin'"), ("berlin", "'Europe/Berlin'"), ("new york", "'America/New_York'"),
     ("EUROPE/PARIS", "'Europe/Paris'"), ("CEST", None), ("", None), ("UTC+2", None), ("Mars/Phobos", None),
     ("../../etc/passwd", None), ("/etc/passwd", None), ("Europe", None), ("a\0b", None), ("\ud800", None),
     ("tzdata.zi", None), ("x" * 5000, None)],
)  # fmt: skip
def test_bad_zones(zone: str, near: str | None) -> None:
    with pytest.raises(BadRule) as e:
        parse("61 * * * *", zone)
    assert [fault.path for fault in e.value.faults] == ["schedule", "timezone"]
    message = e.value.faults[1].message
    assert message.startswith("there is no time zone ")
    assert len(message) < 300
    if near or zone != "Europe":
        assert message.endswith(f" (did you mean {near}?)" if near else "expected one like 'Europe/Berlin'")


_numbers = st.integers(1, 28).map(str)
_days = st.sampled_from(["*", "*/2", "*/9", "L", "31", "29,30", "1-7", "25-3", "15,L", "28/2", "1-31"]) | _numbers
_months = st.sampled_from(["*", "*", "*/3", "2", "4,6", "11-2", "12"])
_weekdays = st.sampled_from(["*", "*/2", "1", "0", "1-5", "5-1", "5L", "5#2", "1,5L", "0#1,0#5", "3#5", "0-6", "6,2#3"])


@settings(max_examples=60, deadline=None)
@given(_days, _months, _weekdays, st.integers(0, 36_500))
def test_days(day: str, month: str, weekday: str, begin: int) -> None:
    """Every day of 500, as croniter walks them for us, and as each is looked at by itself."""
    text = f"0 0 {day} {month} {weekday}"
    matcher = Matcher(text)
    first = date(1990, 1, 1) + timedelta(days=begin)
    days = [first + timedelta(days=n) for n in range(500)]
    start = (first - date(1970, 1, 1)).days * DAY
    expected = [start + n * DAY for n, at in enumerate(days) if matcher.on(at)]
    try:
        rule = parse(text, "UTC")
    except BadRule:
        assert not expected
        return
    assert rule.between(start - 1, start + 500 * DAY - 1, 0, 1000) == expected
    assert rule.count(start - 1, start + 500 * DAY - 1, 0) == len(expected)


@pytest.mark.parametrize(
    ("rule", "after", "expected"),
    [("0 0 29 2 *", "2026-01-01T00:00Z", ["2028-02-29 00:00", "2032-02-29 00:00"]),
     ("0 0 29 2 *", "2096-03-01T00:00Z", ["2104-02-29 00:00"]),
     # A 29 February that is a Sunday: every 28 years, but for a year like 2100.
     ("0 0 29 2 */7", "2026-01-01T00:00Z",
      ["2032-02-29 00:00", "2060-02-29 00:00", "2088-02-29 00:00", "2128-02-29 00:00"]),
     ("0 0 */28 2 0#5", "2033-01-01T00:00Z", ["2060-02-29 00:00"]),
     ("0 0 ? * MON", "2027-01-01T00:00Z", ["2027-01-04 00:00", "2027-01-11 00:00"]),
     ("0 0 13 * ?", "2027-01-01T00:00Z", ["2027-01-13 00:00", "2027-02-13 00:00"]),
     # Neither begins with `*`: a Monday in February will do.
     ("0 0 29 2 MON", "2028-02-22T00:00Z", ["2028-02-28 00:00", "2028-02-29 00:00", "2029-02-05 00:00"]),
     ("0 0 1 1 *", "9997-06-01T00:00Z", ["9998-01-01 00:00"])],
)  # fmt: skip
def test_days_that_are_far_apart(rule: str, after: str, expected: list[str]) -> None:
    assert runs(rule, after, len(expected)) == expected


def test_the_end_of_time() -> None:
    late, end = ms("9998-12-31T23:58:30Z"), ms("9999-01-01T00:00:00Z")
    for rule, left in (("0 0 1 1 *", []), ("* * * * *", [end - 60_000, end]), ("@every 1d", [])):
        for zone in ("Pacific/Auckland", "America/Adak"):
            assert parse(rule, zone).runs(late, 50) == left
            assert parse(rule, zone).count(late, 1 << 60, late) == len(left)
            assert parse(rule, zone).next(1 << 60, 0) is None


def test_every() -> None:
    rule = parse("@every 90s", "UTC")
    assert rule.runs(NOW, 3) == [NOW + 90_000, NOW + 180_000, NOW + 270_000]
    assert rule.next(NOW + 90_000, NOW) == NOW + 180_000
    assert rule.next(NOW + 89_999, NOW) == NOW + 90_000
    # The clock was set back to long before its creation.
    assert rule.next(NOW - 1_000_000, NOW) == NOW - 990_000
    assert rule.between(NOW, NOW + 180_000, NOW, 10) == [NOW + 90_000, NOW + 180_000]
    assert rule.count(NOW, NOW + 365 * DAY, NOW) == 365 * 960
    assert rule.latest(NOW, NOW + 365 * DAY + 1, NOW) == NOW + 365 * DAY
    assert rule.latest(NOW, NOW + 89_999, NOW) is None


def test_once() -> None:
    at = ms("2027-03-01T09:00:00Z")
    rule = parse({"at": "2027-03-01T10:00:00+01:00"}, "Europe/Berlin", NOW)
    assert rule.runs(NOW, 3) == [at]
    assert rule.next(at, NOW) is None
    assert rule.latest(NOW, at, NOW) == at
    assert (rule.count(NOW, at, NOW), rule.count(NOW, at - 1, NOW), rule.count(at, at + 1, NOW)) == (1, 0, 0)
    # Without a now, one that has passed is still a rule.
    assert parse({"at": "2020-01-01T00:00:00Z"}, "UTC").next(NOW, NOW) is None


def test_a_year_is_counted_at_once() -> None:
    every_second = parse("* * * * * *", "Europe/Berlin")
    assert every_second.count(NOW, NOW + 365 * DAY, NOW) == 365 * 86_400
    assert every_second.latest(NOW, NOW + 365 * DAY, NOW) == NOW + 365 * DAY
    assert every_second.between(NOW, NOW + 365 * DAY, NOW, 2) == [NOW + 1000, NOW + 2000]
    # What both ends of `between` mean, to the millisecond.
    hourly = parse("@hourly", "UTC")
    assert hourly.between(NOW - 1, NOW, NOW, 5) == [NOW]
    assert hourly.between(NOW, NOW + 3_599_999, NOW, 5) == []
    assert (hourly.count(NOW - 1, NOW, NOW), hourly.count(NOW, NOW + 3_599_999, NOW)) == (1, 0)


SAID = [
    ("* * * * *", "every minute"),
    ("*/15 * * * *", "every 15 minutes"),
    ("@hourly", "every hour"),
    ("5 * * * *", "at minute 5 of every hour"),
    ("0 */2 * * *", "every 2 hours"),
    ("*/20 */2 * * *", "every 20 minutes of every 2nd hour"),
    ("7,22,37 * * * *", "at minutes 7, 22 and 37 of every hour"),
    ("0-20 * * * *", "at minutes 0 to 20 of every hour"),
    ("*/10 * * * * *", "every 10 seconds"),
    ("* * 9 * * *", "every second from 09:00 to 09:59"),
    ("30 0 9 * * *", "every day at 09:00:30"),
    ("0 9 * * *", "every day at 09:00"),
    ("30 8,17 * * *", "every day at 08:30 and 17:30"),
    ("0 9-17 * * *", "every hour from 09:00 to 17:00"),
    ("0 22-6 * * *", "every hour from 22:00 to 06:00"),
    ("0 9 * * MON", "every Monday at 09:00"),
    ("0 9 * * SAT,SUN", "every Saturday and Sunday at 09:00"),
    ("0 9 * * MON-FRI", "every day from Monday to Friday at 09:00"),
    ("*/15 9-17 * * MON-FRI", "every 15 minutes from 09:00 to 17:45, every day from Monday to Friday"),
    ("@monthly", "on the 1st of every month at 00:00"),
    ("@yearly", "on the 1st of January at 00:00"),
    ("0 9 1,15,L * *", "on the 1st, the 15th and the last day of every month at 09:00"),
    ("0 9 1-7 3-5 *", "on the 1st to 7th of March to May at 09:00"),
    ("0 9 * 6 *", "every day in June at 09:00"),
    ("0 9 * 1,7 MON", "every Monday in January and July at 09:00"),
    ("0 9 * * 5L", "on the last Friday of every month at 09:00"),
    ("0 9 * * 5#2,MON", "every Monday and on the second Friday of every month at 09:00"),
    ("0 9 13 * FRI", "on the 13th of every month and every Friday at 09:00"),
    ("0 9 */31 * FRI", "on the 1st of every month if that is a Friday at 09:00"),
    ("@every 90s", "every 90 seconds"),
    ("@every 60m", "every hour"),
    ("@every 7d", "every 7 days"),
]


@pytest.mark.parametrize(("rule", "expected"), SAID)
def test_words(rule: str, expected: str) -> None:
    assert words(parse(rule, "UTC")) == expected


def test_words_of_one_time() -> None:
    berlin = parse({"at": "2027-03-01T09:00:00Z"}, "Europe/Berlin")
    assert words(berlin) == "once, on 1 March 2027 at 10:00 (Europe/Berlin)"
    assert words(parse({"at": "2027-03-01T09:00:05Z"}, "UTC")) == "once, on 1 March 2027 at 09:00:05 (UTC)"


_field = st.sampled_from(["*", "0", "7", "*/2", "*/7", "1-4", "3,9", "1-6/2", "2,3,5-8", "1-12", "2-11/4"])


@settings(max_examples=200, deadline=None)
@given(st.tuples(_field, _field, _field, _days, _months, _weekdays))
def test_there_are_words_for_every_rule(fields: tuple[str, ...]) -> None:
    try:
        rule = parse(" ".join(fields), "UTC")
    except BadRule:
        return
    said = words(rule)
    assert 10 < len(said) < 500
    assert "  " not in said
    assert not said.endswith((" ", ",", "and"))
