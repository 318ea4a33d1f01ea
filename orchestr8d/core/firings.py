"""What becomes of due times: which are fired, which are missed, what waits for what, and when somebody must be told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, Final

import msgspec

from orchestr8d.core.cron import Once, Rule, parse
from orchestr8d.core.durations import iso
from orchestr8d.core.errors import Fault, Problem
from orchestr8d.core.model import NewTask, Task
from orchestr8d.core.notices import NewNotice
from orchestr8d.core.schedules import Due, Firing, Missed, NewSchedule, Plan, Schedule, Step
from orchestr8d.core.states import FINAL

# Milliseconds: a due time that is older is late.
LATE: Final = 10_000
# What waits for its turn, of one schedule.
MOST_WAITING: Final = 100
# Firings in a row that start nothing, or what fails, before somebody is told.
STRIKES: Final = 5
ALERT: Final = "schedule_starts_nothing"
# What of a schedule says when it is due.
_MOVES: Final = ("rule", "timezone", "active")
_JSON = msgspec.json.Encoder()


# -- made and changed


def made(new: NewSchedule, schedule_id: str, seq: int, now: int) -> Schedule:
    """The row of a new schedule. Raises BadRule."""
    rule = parse(new.rule, new.timezone)
    # A single time that passed since it was looked at is due.
    first = rule.what.at if isinstance(rule.what, Once) else rule.next(now, now)
    active = new.active and first is not None
    return Schedule(
        seq, schedule_id, new.name, _text(new.rule), new.timezone, _body(new.task), _body(new.workflow), new.catch_up,
        new.catch_up_window, new.overlap, new.jitter, int(active), new.source, new.user_id, now, now,
        first if active else None, None, 0, 0, 0,
    )  # fmt: skip


def as_said(before: Schedule, new: NewSchedule, now: int) -> Schedule:
    """A schedule as the configuration has it. Raises BadRule."""
    after = msgspec.structs.replace(
        before, rule=_text(new.rule), timezone=new.timezone, task=_body(new.task), workflow=_body(new.workflow),
        catch_up=new.catch_up, catch_up_window=new.catch_up_window, overlap=new.overlap, jitter=new.jitter,
        source=new.source, user_id=new.user_id, active=int(new.active),
    )  # fmt: skip
    if before.active and (after.rule, after.timezone) == (before.rule, before.timezone):
        return after
    # A single time that has passed stays as it is.
    over = parse(new.rule, new.timezone).next(now, before.created_at) is None
    return msgspec.structs.replace(after, active=int(new.active and not over))


def changed(before: Schedule, after: Schedule, now: int) -> Schedule:
    """`after`, with its next due time. Raises BadRule; Problem when it is never due again."""
    after = msgspec.structs.replace(after, updated_at=max(now, before.updated_at + 1))
    if not after.active:
        return msgspec.structs.replace(after, next_at=None, recheck=0)
    if not moves(before, after):
        return after
    found = after.read_rule().next(now, after.created_at)
    if found is None:
        message = "its time has passed: it is never due again"
        raise Problem("unprocessable", message, [Fault("schedule", message, "unprocessable")])
    return msgspec.structs.replace(after, next_at=found, recheck=0, strikes=0)


def moves(before: Schedule, after: Schedule) -> bool:
    """Whether its due times become others."""
    return any(getattr(before, name) != getattr(after, name) for name in _MOVES)


def _text(value: Any) -> str:
    return _JSON.encode(value).decode()


def _body(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else _text(value)


# -- due


def plan(schedule: Schedule, rule: Rule, now: int, most: int) -> Plan:
    """What is due by now, up to `most` firings: if there are more, the next due time is one of those. What was missed
    is counted, not walked through."""
    assert schedule.next_at is not None
    created, before = schedule.created_at, schedule.next_at - 1
    # The last that is late, and the last that is too late to be caught up with.
    late = max(before, now - LATE - 1)
    window = schedule.catch_up_window
    old = before if window is None else min(late, max(before, now - round(window * 1000) - 1))
    fresh = [Due(time, "due") for time in rule.between(late, now, created, most)]
    missed: list[Missed] = []
    fire: list[Due] = []
    if schedule.catch_up == "none":
        missed = _missed(rule, before, late, created, "late")
    elif schedule.catch_up == "one":
        latest = rule.latest(old, late, created)
        if latest is None:
            missed = _missed(rule, before, late, created, "window")
        else:
            # The latest of those that are late stands for all of them; what is in time is not among those.
            missed = _missed(rule, before, latest - 1, created, "superseded")
            fire = [Due(latest, "catch_up")]
    else:
        missed = _missed(rule, before, old, created, "window")
        fire = [Due(time, "catch_up") for time in rule.between(old, late, created, most)]
    fire = [*fire, *fresh][:most]
    return Plan(missed, fire, rule.next(fire[-1].time if len(fire) == most else now, created))


def give_up(schedule: Schedule, rule: Rule, now: int) -> Step:
    """All that is due is missed."""
    assert schedule.next_at is not None
    created = schedule.created_at
    missed = _missed(rule, schedule.next_at - 1, now, created, "changed")
    return Step(schedule, rule.next(now, created), missed)


def _missed(rule: Rule, after: int, until: int, created: int, reason: str) -> list[Missed]:
    if after >= until or not (count := rule.count(after, until, created)):
        return []
    first, last = rule.next(after, created), rule.latest(after, until, created)
    assert first is not None
    return [Missed(first, first if last is None else last, count, reason)]


def steps(schedule: Schedule, planned: Plan) -> list[Step]:
    """A plan as what is done one after the other: each begins where the one before has left the schedule."""
    if not planned.fire:
        return [Step(schedule, planned.next_at, planned.missed)]
    ends = [due.time for due in planned.fire[1:]]
    found = []
    missed = planned.missed
    for due, next_at in zip(planned.fire, [*ends, planned.next_at], strict=True):
        found.append(Step(schedule, next_at, missed, due))
        schedule, missed = msgspec.structs.replace(schedule, next_at=next_at), []
    return found


# -- fired


def turn(schedule: Schedule, unfinished: int) -> str | None:
    """Why a firing starts nothing while so many before it are not over; None when it does."""
    if schedule.overlap == "skip" and unfinished:
        return "overlap"
    if schedule.overlap == "queue" and unfinished > MOST_WAITING:
        return "queue_full"
    return None


def jitter(schedule: Schedule, time: int) -> int:
    """Milliseconds by which the start is later than the due time: always the same ones."""
    digest = blake2b(f"{schedule.id} {time}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (round(schedule.jitter * 1000) + 1)


def dressed(new: NewTask, schedule: Schedule, time: int, wait: int, after: Sequence[str], now: int) -> NewTask:
    """The task of a firing. It starts `wait` milliseconds later than it would, and after the ends of others."""
    env = new.spec.env | {"ORCHESTR8_DUE_AT": iso(time) or "", "ORCHESTR8_SCHEDULE": schedule.name}
    new = msgspec.structs.replace(
        new, spec=msgspec.structs.replace(new.spec, env=env), schedule_id=schedule.id, after=after
    )
    if wait and new.run_at is not None:
        new.run_at = max(new.run_at, now + wait)
    elif wait:
        new.delay = (new.delay or 0) + wait / 1000
    return new


def stuck(unfinished: Sequence[Task], now: int, since: int) -> bool:
    """Whether a task of an earlier firing is still to start, though it may, and though the next is due already. Before
    `since` nobody was there to start it."""
    return any(
        task.started_at is None and task.status in ("queued", "parked") and now - max(task.created_at, since) > LATE
        for task in unfinished
    )


def failing(outcomes: Iterable[str | None]) -> bool:
    """Whether what was started has only failed lately; the newest first, and what is not over does not count."""
    return [*islice((status for status in outcomes if status in FINAL), STRIKES)] == ["failed"] * STRIKES


def judged(schedule: Schedule, firing: Firing, *, in_vain: bool, is_last: bool) -> Schedule:
    """The schedule after a firing: with one strike more, or none, and whether somebody is to be told. What is started
    `in_vain` is stuck, or fails each time."""
    fired = firing.state == "fired"
    strikes = 0 if fired else schedule.strikes + (firing.trigger != "manual")
    nothing = in_vain or strikes >= STRIKES or (is_last and not fired)
    alerting = nothing or (not fired and bool(schedule.alerting))
    return msgspec.structs.replace(schedule, strikes=strikes, alerting=int(alerting))


def alert(schedule: Schedule, firing: Firing, why: str | None) -> NewNotice:
    """That it gets nothing done."""
    return NewNotice(
        user_id=schedule.user_id, type="alert", title=f"Schedule {schedule.name} gets nothing done"[:500],
        message=f"schedule {schedule.name}, due at {iso(firing.time)}: {why}"[:2000],
        metadata={"alert": ALERT, "schedule_id": schedule.id},
    )  # fmt: skip
