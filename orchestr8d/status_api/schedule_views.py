"""The shapes of the answers about schedules, made from rows by pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType

from orchestr8d.core import endings
from orchestr8d.core import schedules as core
from orchestr8d.core.cron import BadRule
from orchestr8d.core.cron_words import words
from orchestr8d.core.durations import iso
from orchestr8d.status_api.views import Time

# So many of the next runs are shown.
NEXT_RUNS: Final = 5


class Schedule(Struct):
    """A schedule. Of `task` and `workflow` one is not null; environment and stdin are not shown: secrets may be in
    them. `alerting`: it gets nothing done, which was told. `next_runs` and the rule in `words` are not in lists."""

    schedule_id: str
    name: str
    schedule: str | dict[str, Any]
    timezone: str
    task: dict[str, Any] | None
    workflow: dict[str, Any] | None
    catch_up: core.CatchUp
    catch_up_window: float | None
    overlap: core.Overlap
    jitter: float
    active: bool
    source: core.Source
    user_id: str
    alerting: bool
    created_at: Time
    updated_at: Time
    last_run: Time | None
    next_run: Time | None
    next_runs: list[Time] | UnsetType = UNSET
    words: str | UnsetType | None = UNSET


class Schedules(Struct):
    schedules: list[Schedule]
    next_cursor: str | None


class SchedulesMade(Struct):
    schedules: list[Schedule]


class Firing(Struct):
    """What became of a due time, or of `count` of them until `until`, which were missed in one go. `outcome` is how
    what it started stands now, null when that is gone."""

    time: Time
    state: core.State
    reason: str | None
    task_id: str | None
    workflow_id: str | None
    outcome: str | None
    fired_at: Time | None
    trigger: core.Trigger
    count: int
    until: Time | None


class History(Struct):
    firings: list[Firing]
    next_cursor: str | None


class Triggered(Struct):
    """What a schedule was made to start; nothing, for a `reason`, when its overlap policy does not let it."""

    schedule_id: str
    time: Time
    state: core.State
    reason: str | None
    task_id: str | None
    workflow_id: str | None
    trigger: core.Trigger
    check_status_url: str | None


class Preview(Struct):
    """When a rule is due, and the rule in words."""

    runs: list[Time]
    words: str


def url(schedule_id: str) -> str:
    return f"/api/v1/schedules/{schedule_id}"


def row(schedule: core.Schedule, now: int) -> Schedule:
    """As it is in lists."""
    body = _shown(schedule)
    return Schedule(
        schedule.id, schedule.name, schedule.written(), schedule.timezone,
        body if schedule.task is not None else None, body if schedule.workflow is not None else None,
        schedule.catch_up, schedule.catch_up_window, schedule.overlap, schedule.jitter, bool(schedule.active),
        schedule.source, schedule.user_id, bool(schedule.alerting), _time(schedule.created_at),
        _time(schedule.updated_at), iso(schedule.last_run), iso(next(_runs(schedule, now), None)),
    )  # fmt: skip


def one(schedule: core.Schedule, now: int) -> Schedule:
    """As it is by itself."""
    found = row(schedule, now)
    found.next_runs = [_time(run) for run in islice(_runs(schedule, now), NEXT_RUNS)]
    try:
        found.words = words(schedule.read_rule())
    except BadRule:
        found.words = None
    return found


def firing(view: core.FiringView) -> Firing:
    found = view.firing
    return Firing(
        _time(found.time), found.state, found.reason, found.task_id, found.workflow_id, view.outcome,
        iso(found.at) if found.state == "fired" else None, found.trigger, found.count,
        iso(found.until) if found.state == "missed" else None,
    )  # fmt: skip


def triggered(found: core.Firing) -> Triggered:
    if found.task_id is not None:
        started: str | None = f"/api/v1/tasks/{found.task_id}/status"
    else:
        started = None if found.workflow_id is None else f"/api/v1/workflows/{found.workflow_id}/status"
    return Triggered(
        found.schedule_id, _time(found.time), found.state, found.reason, found.task_id, found.workflow_id,
        found.trigger, started,
    )  # fmt: skip


def _runs(schedule: core.Schedule, now: int) -> Iterator[int]:
    """When it is due, from the first time that nobody has looked at on."""
    if schedule.next_at is None:
        return
    if not schedule.recheck:
        yield schedule.next_at
    try:
        rule = schedule.read_rule()
    except BadRule:
        return
    # The clock was set back: what it comes to is about to be found again.
    yield from rule.all(now if schedule.recheck else schedule.next_at, schedule.created_at)


def _time(ms: int) -> str:
    found = iso(ms)
    assert found is not None
    return found


def _shown(schedule: core.Schedule) -> dict[str, Any]:
    body = schedule.body()
    if schedule.task is not None:
        return endings.without_secrets(body)
    definition = body.get("definition")
    return body if not isinstance(definition, dict) else body | {"definition": _without_secrets(definition)}


def _without_secrets(definition: Mapping[str, Any]) -> dict[str, Any]:
    """A definition as it was written, which was checked."""
    found = dict(definition)
    if isinstance(found.get("defaults"), dict):
        found["defaults"] = endings.without_secrets(found["defaults"])
    if found.get("phases"):
        found["phases"] = [phase | {"tasks": _tasks(phase.get("tasks"))} for phase in found["phases"]]
    if found.get("on_failure"):
        found["on_failure"] = _tasks(found["on_failure"])
    return found


def _tasks(said: Any) -> list[Any]:
    return [endings.without_secrets(task) for task in said or ()]
