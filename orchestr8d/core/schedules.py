"""The words of schedules as types: a schedule, its firings, what a tick comes to. Times are wall-clock milliseconds,
durations seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from orchestr8d.core.model import NewTask
from orchestr8d.core.workflow import NewWorkflow

if TYPE_CHECKING:
    from orchestr8d.core.cron import Rule

CatchUp = Literal["none", "one", "all"]
Overlap = Literal["skip", "queue", "allow", "replace"]
Source = Literal["api", "config"]
State = Literal["fired", "missed", "skipped"]
Trigger = Literal["due", "catch_up", "manual"]
# A rule as it was written: `0 9 * * MON`, `@every 10m`, {"at": TIME}.
Written = str | Mapping[str, Any]
# What a firing starts.
Made = NewTask | NewWorkflow


class NewSchedule(msgspec.Struct, kw_only=True):
    """A schedule to be made. One of `task` and `workflow`: the body of a submit or of a start, as it was written."""

    name: str
    rule: Written
    timezone: str = "UTC"
    task: dict[str, Any] | None = None
    workflow: dict[str, Any] | None = None
    catch_up: CatchUp = "none"
    # None: however late.
    catch_up_window: float | None = None
    overlap: Overlap = "skip"
    jitter: float = 0.0
    active: bool = True
    source: Source = "api"
    user_id: str = "local"
    # Where it stood in what was sent, for faults: `schedules[3].` in a batch.
    at: str = ""


class Schedule(msgspec.Struct):
    """A row of the schedules table, field by column, in the table's order."""

    seq: int
    id: str
    name: str
    # JSON: the rule as it was written; of `task` and `workflow` the one that is not None.
    rule: str
    timezone: str
    task: str | None
    workflow: str | None
    catch_up: CatchUp
    catch_up_window: float | None
    overlap: Overlap
    jitter: float
    active: int
    source: Source
    user_id: str
    created_at: int
    # When it was last edited; no two edits have the same.
    updated_at: int
    # The first due time that was not looked at yet; None while it is not active.
    next_at: int | None
    # The due time of the last that was fired.
    last_run: int | None
    # The clock was set back: `next_at` is to be found again.
    recheck: int
    # Firings in a row that started nothing, and whether that was told.
    strikes: int
    alerting: int

    def written(self) -> Any:
        return msgspec.json.decode(self.rule)

    def read_rule(self) -> Rule:
        """Raises BadRule, if what it names is not there any more (a time zone)."""
        from orchestr8d.core import cron  # late: importing takes time, and the configuration imports this module

        return cron.parse(self.written(), self.timezone)

    def body(self) -> dict[str, Any]:
        """Of the task or the workflow."""
        found: dict[str, Any] = msgspec.json.decode(self.task or self.workflow or "{}")
        return found


class Firing(msgspec.Struct):
    """A row of the firings table, field by column, in the table's order. `at` is when it was fired, or not; `count`
    due times from `time` to `until` were missed in one go."""

    schedule_id: str
    time: int
    state: State
    reason: str | None
    task_id: str | None
    workflow_id: str | None
    at: int
    trigger: Trigger
    count: int
    until: int


class FiringView(msgspec.Struct):
    """A firing with the status now of what it started; None when that is gone, or nothing was."""

    firing: Firing
    outcome: str | None


class Missed(msgspec.Struct, frozen=True):
    """Due times that nothing is started for: `count` of them, from `time` to `until`."""

    time: int
    until: int
    count: int
    reason: str


class Due(msgspec.Struct, frozen=True):
    time: int
    trigger: Trigger


class Plan(msgspec.Struct):
    """What of a schedule's due times is to be done now, in this order, and its first due time after those."""

    missed: list[Missed]
    fire: list[Due]
    next_at: int | None


class Step(msgspec.Struct):
    """A part of a plan that is carried out at once. `schedule` is as it was when that was made. What is `due` starts
    `made`, or nothing for a `reason`; then the first due time is `next_at`, but of one that is triggered by hand."""

    schedule: Schedule
    next_at: int | None
    missed: list[Missed] = []
    due: Due | None = None
    made: Made | None = None
    reason: str | None = None
