"""When a schedule is due: rules read and refused, their next runs, and how many there were while nobody looked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import tzinfo
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from msgspec import Struct

from orchestr8d.core import cron_days, cron_fields, durations, patterns
from orchestr8d.core.cron_days import DAY, NEVER
from orchestr8d.core.cron_fields import Fields
from orchestr8d.core.cron_zone import stretches, zone
from orchestr8d.core.errors import Fault, did_you_mean

NAMED: Final = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
_LONGEST: Final = 1000
# A wall clock is never changed by so much.
_FAR: Final = 2 * DAY
# The last time that can be sent, in milliseconds.
_END: Final = 253_370_764_800_000


class Every(Struct, frozen=True):
    """Each so many milliseconds from the schedule's creation."""

    interval: int


class Once(Struct, frozen=True):
    at: int


class BadRule(ValueError):
    """A rule that cannot be; each fault at `schedule`, `schedule.at` or `timezone`."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(f"{fault.path}: {fault.message}" for fault in faults))
        self.faults = tuple(faults)


class Rule(Struct, frozen=True):
    """All times are in milliseconds since 1970. `created` is the schedule's creation, from which `@every` counts."""

    what: Fields | Every | Once
    zone: tzinfo

    def next(self, after: int, created: int) -> int | None:
        """The first run later than `after`; None when there is no more."""
        if isinstance(self.what, Every):
            found = after + self.what.interval - (after - created) % self.what.interval
        elif isinstance(self.what, Once):
            found = self.what.at if self.what.at > after else NEVER
        else:
            found = _next(self.what, self.zone, after // 1000 + 1) * 1000
        return found if found <= _END else None

    def all(self, after: int, created: int) -> Iterator[int]:
        at = self.next(after, created)
        while at is not None:
            yield at
            at = self.next(at, created)

    def runs(self, after: int, count: int) -> list[int]:
        """The next `count` runs later than `after`, from which `@every` counts."""
        return list(islice(self.all(after, after), count))

    def between(self, after: int, until: int, created: int, limit: int) -> list[int]:
        """The runs later than `after` and not later than `until`: the first `limit` of them."""
        found = []
        for at in islice(self.all(after, created), limit):
            if at > until:
                break
            found.append(at)
        return found

    def latest(self, after: int, until: int, created: int) -> int | None:
        """The last run of those that `between` has without a limit, in as many steps as the time between has bits."""
        found, beyond = None, until
        while after < beyond:
            middle = (after + beyond) // 2
            at = self.next(middle, created)
            if at is not None and at <= until:
                found = after = at
            else:
                beyond = middle
        return found

    def count(self, after: int, until: int, created: int) -> int:
        """How many runs `between` has without a limit; a year of seconds is no more work than a year of hours."""
        until = min(until, _END)
        if isinstance(self.what, Every):
            return max(0, (until - created) // self.what.interval - (after - created) // self.what.interval)
        if isinstance(self.what, Once):
            return int(after < self.what.at <= until)
        return _count(self.what, self.zone, after // 1000 + 1, until // 1000 + 1)


def parse(rule: str | Mapping[str, Any], timezone: str, now: int | None = None) -> Rule:
    """A rule in a time zone. Raises BadRule with all that is wrong; with `now`, also a single time that has passed."""
    faults: list[Fault] = []
    what: Fields | Every | Once | None = None
    try:
        what = _once(rule.get("at"), now, set(rule) - {"at"}) if isinstance(rule, Mapping) else _repeated(rule)
    except BadRule as e:
        faults += e.faults
    try:
        where = zone(timezone)
    except ValueError as e:
        raise BadRule([*faults, Fault("timezone", str(e), "unprocessable")]) from None
    if what is None:
        raise BadRule(faults)
    return Rule(what, where)


def _wrong(*messages: str, path: str = "schedule") -> BadRule:
    return BadRule([Fault(path, message, "unprocessable") for message in messages])


def _once(at: Any, now: int | None, unknown: set[str]) -> Once:
    if unknown:
        raise _wrong(f'expected a rule or {{"at": TIME}}: unknown field {min(unknown)[:100]!r}')
    if not isinstance(at, str):
        raise _wrong("expected a time like 2026-03-01T09:00:00Z", path="schedule.at")
    try:
        time = durations.parse_time(at)
    except ValueError as e:
        raise _wrong(str(e), path="schedule.at") from None
    if now is not None and time <= now:
        raise _wrong(f"{durations.iso(time)} has passed", path="schedule.at")
    return Once(time)


@lru_cache(8192)
def _repeated(rule: str) -> Fields | Every:
    text = rule.strip()
    if len(text) > _LONGEST:
        raise _wrong(f"expected at most {_LONGEST} characters")
    if text.startswith("@"):
        named = text.lower()
        if named.split()[0] == "@every":
            return _every(named.removeprefix("@every").strip())
        if named not in NAMED:
            raise _wrong(_unknown(named))
        text = NAMED[named]
    if not re.search(r"\s", text):
        raise _wrong(_single(text))
    fields, wrong = cron_fields.read(text)
    if fields is None:
        raise _wrong(*wrong)
    return fields


def _every(interval: str) -> Every:
    if not durations.is_duration(interval) or not (seconds := int(durations.seconds(interval))):
        raise _wrong(f"@every {interval[:40]!r}: expected a duration of 1s or more, like '@every 90s', '2h', '3d'")
    return Every(seconds * 1000)


def _unknown(name: str) -> str:
    if name == "@reboot":
        return "'@reboot' is not supported: a rule is about times"
    return f"there is no rule {name[:100]!r}{did_you_mean(name, [*NAMED, '@every'])}"


def _single(word: str) -> str:
    """What may be meant by one word that is no rule."""
    name = f"@{word.lower()}"
    if name in NAMED:
        hint = f" (did you mean {name!r}?)"
    elif re.fullmatch(patterns.DURATION, word):
        hint = f" (did you mean '@every {word}'?)"
    elif re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T", word):
        hint = f' (did you mean {{"at": "{word[:40]}"}}?)'
    else:
        hint = ""
    return cron_fields.EXPECTED + hint


def _next(fields: Fields, where: tzinfo, at: int) -> int:
    """The first run at or after `at`, in seconds; NEVER for none."""
    walk = stretches(where, at)
    here = next(walk)
    if not fields.starred:
        # What a gap swallowed is due where the stretch begins; what a fold shows again is over.
        wall = cron_days.first(fields, here.edge if at == here.begin else max(at + here.offset, here.edge))
        if wall == NEVER:
            return NEVER
        while wall - here.offset >= here.end:
            if wall - here.offset - here.end > 2 * _FAR:
                walk = stretches(where, wall - here.offset - _FAR)
            here = next(walk)
        return max(wall - here.offset, here.begin)
    low = at + here.offset
    wall = cron_days.first(fields, low)
    while wall != NEVER and wall - here.offset >= here.end:
        if here.end + here.offset - low > _FAR and wall - here.offset - here.end > 2 * _FAR:
            walk = stretches(where, wall - here.offset - _FAR)
        here = next(walk)
        begin = here.begin + here.offset
        if not low <= begin <= wall:
            low, wall = begin, cron_days.first(fields, begin)
    return wall if wall == NEVER else wall - here.offset


def _count(fields: Fields, where: tzinfo, begin: int, end: int) -> int:
    """How many runs there are from `begin` to before `end`, in seconds."""
    total = 0
    for here in stretches(where, begin):
        if here.begin >= end:
            break
        low, high = max(begin, here.begin) + here.offset, min(end, here.end) + here.offset
        if not fields.starred:
            if begin <= here.begin and cron_days.count(fields, here.edge, low):
                # One run for all in the gap, which is that of the time at its end if there is one.
                total += cron_days.count(fields, low, low + 1) == 0
            low = max(low, here.edge)
        total += cron_days.count(fields, low, high)
    return total
