"""What becomes of due times, as tables: on time and late, by policy and window, in chunks; overlaps; the alarm."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from orchestr8d.core import firings
from orchestr8d.core.errors import Problem
from orchestr8d.core.model import NewTask, Spec
from orchestr8d.core.schedules import Due, Firing, Missed, NewSchedule, Plan, Schedule

S, M, H = 1000, 60_000, 3_600_000
# 2026-03-01T09:00:00Z
T = 1_772_355_600_000
MINUTELY, HOURLY, SECONDLY = "* * * * *", "@hourly", "* * * * * *"


def made(rule: Any = MINUTELY, now: int = T, **more: Any) -> Schedule:
    return firings.made(NewSchedule(name="s", rule=rule, task={"command": ["true"]}, **more), "id", 1, now)


def planned(rule: Any, age: int, most: int = 100, **more: Any) -> Plan:
    """The plan of a schedule that is made at T and looked at `age` milliseconds later for the first time."""
    schedule = made(rule, **more)
    return firings.plan(schedule, schedule.read_rule(), T + age, most)


def late(first: int, last: int, count: int, reason: str) -> list[Missed]:
    return [Missed(T + first, T + last, count, reason)]


def due(*times: int) -> list[Due]:
    return [Due(T + time, "due") for time in times]


def caught(*times: int) -> list[Due]:
    return [Due(T + time, "catch_up") for time in times]


@pytest.mark.parametrize(
    ("rule", "age", "more", "missed", "fire", "next_at"),
    [
        # Nothing is due yet; on time; ten seconds old; a moment more.
        (MINUTELY, M - 1, {}, [], [], M),
        (MINUTELY, M, {}, [], due(M), 2 * M),
        (MINUTELY, M + 10 * S, {}, [], due(M), 2 * M),
        (MINUTELY, M + 10 * S + 1, {}, late(M, M, 1, "late"), [], 2 * M),
        (SECONDLY, 3 * S + 1, {}, [], due(S, 2 * S, 3 * S), 4 * S),
        # Three hours down: what is late is missed in one go, what is on time fires all the same.
        (HOURLY, 3 * H + 5 * M, {}, late(H, 3 * H, 3, "late"), [], 4 * H),
        (HOURLY, 3 * H, {}, late(H, 2 * H, 2, "late"), due(3 * H), 4 * H),
        (HOURLY, 3 * H + 5 * M, {"catch_up": "one"}, late(H, 2 * H, 2, "superseded"), caught(3 * H), 4 * H),
        (HOURLY, 3 * H, {"catch_up": "one"}, late(H, H, 1, "superseded"), caught(2 * H) + due(3 * H), 4 * H),
        (HOURLY, 3 * H + 5 * M, {"catch_up": "all"}, [], caught(H, 2 * H, 3 * H), 4 * H),
        (HOURLY, 3 * H, {"catch_up": "all"}, [], caught(H, 2 * H) + due(3 * H), 4 * H),
        # The window is to the millisecond.
        (HOURLY, 3 * H + 5 * M, {"catch_up": "all", "catch_up_window": 3900}, late(H, H, 1, "window"),
         caught(2 * H, 3 * H), 4 * H),
        (HOURLY, 3 * H + 5 * M + 1, {"catch_up": "all", "catch_up_window": 3900}, late(H, 2 * H, 2, "window"),
         caught(3 * H), 4 * H),
        (HOURLY, 3 * H + 5 * M, {"catch_up": "one", "catch_up_window": 300}, late(H, 2 * H, 2, "superseded"),
         caught(3 * H), 4 * H),
        (HOURLY, 3 * H + 5 * M, {"catch_up": "one", "catch_up_window": 299}, late(H, 3 * H, 3, "window"), [], 4 * H),
        (HOURLY, 3 * H, {"catch_up": "one", "catch_up_window": 60}, late(H, 2 * H, 2, "window"), due(3 * H), 4 * H),
        # What is on time is never too old.
        (MINUTELY, M + 5 * S, {"catch_up": "all", "catch_up_window": 0}, [], due(M), 2 * M),
        # Months of seconds cost no walk.
        (SECONDLY, 5000 * H, {}, late(S, 5000 * H - 11 * S, 5000 * 3600 - 11, "late"),
         due(*range(5000 * H - 10 * S, 5000 * H + 1, S)), 5000 * H + S),
        ({"at": "2026-03-01T09:01:00Z"}, M, {}, [], due(M), None),
        ({"at": "2026-03-01T09:01:00Z"}, H, {}, late(M, M, 1, "late"), [], None),
        ({"at": "2026-03-01T09:01:00Z"}, H, {"catch_up": "one"}, [], caught(M), None),
        ("@every 7m", 15 * M, {"catch_up": "all"}, [], caught(7 * M, 14 * M), 21 * M),
    ],
)  # fmt: skip
def test_plans(
    rule: Any, age: int, more: dict[str, Any], missed: list[Missed], fire: list[Due], next_at: int | None
) -> None:
    assert planned(rule, age, **more) == Plan(missed, fire, None if next_at is None else T + next_at)


def test_much_is_caught_up_with_in_chunks() -> None:
    schedule = made(MINUTELY, catch_up="all", catch_up_window=6000.0)
    now = T + 200 * M
    fired: list[Due] = []
    missed: list[Missed] = []
    chunks = 0
    while schedule.next_at is not None and schedule.next_at <= now:
        plan = firings.plan(schedule, schedule.read_rule(), now, 7)
        assert 0 < len(plan.fire) <= 7
        steps = firings.steps(schedule, plan)
        # Each begins where the one before has ended.
        assert [step.schedule.next_at for step in steps] == [schedule.next_at, *(step.next_at for step in steps[:-1])]
        assert [step.due for step in steps] == plan.fire
        assert [len(step.missed) for step in steps] == [len(plan.missed)] + [0] * (len(steps) - 1)
        fired += plan.fire
        missed += plan.missed
        schedule = msgspec.structs.replace(schedule, next_at=steps[-1].next_at)
        chunks += 1
    assert missed == late(M, 99 * M, 99, "window")
    assert fired == [*caught(*range(100 * M, 200 * M, M)), *due(200 * M)]
    assert chunks == 15
    assert schedule.next_at == T + 201 * M


def test_turns() -> None:
    def turn(overlap: Any, unfinished: int) -> str | None:
        return firings.turn(made(overlap=overlap), unfinished)

    assert [turn("skip", n) for n in (0, 1)] == [None, "overlap"]
    assert [turn("queue", n) for n in (0, 100, 101)] == [None, None, "queue_full"]
    assert [turn(policy, 1000) for policy in ("allow", "replace")] == [None, None]


def test_jitter_is_always_the_same() -> None:
    waits = [firings.jitter(made(jitter=30.0), T + n * M) for n in range(200)]
    assert waits == [firings.jitter(made(jitter=30.0), T + n * M) for n in range(200)]
    assert 0 <= min(waits) < 3000 and 27_000 < max(waits) <= 30_000
    assert firings.jitter(made(), T) == 0


def test_what_a_firing_adds_to_its_task() -> None:
    new = NewTask(spec=Spec(command=["true"], env={"A": "b"}), delay=2.0)
    found = firings.dressed(new, made(), T, 500, ["x"], T)
    assert found.spec.env == {
        "A": "b", "ORCHESTR8_DUE_AT": "2026-03-01T09:00:00.000Z", "ORCHESTR8_SCHEDULE": "s"
    }  # fmt: skip
    assert (found.delay, found.after, found.schedule_id) == (2.5, ["x"], "id")
    assert new.delay == 2.0 and new.spec.env == {"A": "b"}
    timed = firings.dressed(NewTask(spec=Spec(), run_at=T + 100), made(), T, 500, [], T)
    assert (timed.run_at, timed.delay) == (T + 500, None)


def test_the_alarm() -> None:
    def firing(state: Any, trigger: Any = "due") -> Firing:
        return Firing("id", T, state, "overlap", None, None, T, trigger, 1, T)

    def after(schedule: Schedule, state: Any, trigger: Any = "due", **more: bool) -> Schedule:
        return firings.judged(schedule, firing(state, trigger), **{"in_vain": False, "is_last": False, **more})

    schedule = made()
    seen = []
    for state in ["skipped"] * 4 + ["fired"] + ["skipped"] * 6 + ["fired"]:
        schedule = after(schedule, state)
        seen.append((schedule.strikes, schedule.alerting))
    assert seen == [
        (1, 0), (2, 0), (3, 0), (4, 0), (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 1), (6, 1), (0, 0)
    ]  # fmt: skip
    # What a person starts is no strike; a last one that starts nothing is told at once.
    assert (after(schedule, "skipped", "manual").strikes, after(schedule, "skipped", is_last=True).alerting) == (0, 1)
    # It fires, and what it fires does not begin, or fails: once that goes on, all is well.
    stuck = after(schedule, "fired", in_vain=True)
    assert (stuck.strikes, stuck.alerting, after(stuck, "fired").alerting) == (0, 1, 0)
    assert "overlap" in firings.alert(schedule, firing("skipped"), "overlap").message
    failed = ["failed"] * 4
    assert firings.failing(["running", None, "failed", "pending", *failed])
    assert not any(map(firings.failing, ([], failed, ["completed", *failed, "failed"], [*failed, "cancelled"])))


def test_edits() -> None:
    schedule = made(HOURLY)
    assert schedule.next_at == T + H
    replace = msgspec.structs.replace
    now = T + 30 * M
    # Only what moves its due times moves them.
    other = firings.changed(schedule, replace(schedule, name="other"), now)
    assert (other.next_at, other.updated_at) == (T + H, now)
    moved = firings.changed(schedule, replace(schedule, rule='"45 * * * *"'), now)
    assert moved.next_at == T + 45 * M
    paused = firings.changed(schedule, replace(schedule, active=0), now)
    assert paused.next_at is None
    assert firings.changed(paused, replace(paused, active=1), now + 5 * H).next_at == T + 6 * H
    # No two edits have the same time, whatever the clock does.
    assert firings.changed(other, replace(other, name="third"), T).updated_at == now + 1
    once = made({"at": "2026-03-01T09:01:00Z"})
    assert once.next_at == T + M
    # It passed while it was on its way.
    assert made({"at": "2026-03-01T09:00:00Z"}).next_at == T
    over = firings.changed(once, replace(once, active=0), T)
    with pytest.raises(Problem, match="never due again"):
        firings.changed(over, replace(over, active=1), T + H)


def test_as_the_configuration_says() -> None:
    said = NewSchedule(name="s", rule=HOURLY, task={"command": ["true"]}, source="config")
    schedule = made(HOURLY, source="config")
    assert firings.as_said(schedule, said, T + 5) == schedule
    said.active = False
    assert not firings.as_said(schedule, said, T).active
    # A single time that has passed is not made active again.
    once = NewSchedule(name="s", rule={"at": "2026-03-01T09:01:00Z"}, task={"command": ["true"]}, source="config")
    over = msgspec.structs.replace(made(once.rule, source="config"), active=0, next_at=None)
    assert firings.as_said(over, once, T + H) == over
    assert firings.as_said(over, once, T).active
