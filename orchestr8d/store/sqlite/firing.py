"""A step of a schedule as one transaction: what was missed, what is fired with the task or workflow that it starts, and
the next due time."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestr8d.core import firings
from orchestr8d.core.durations import iso
from orchestr8d.core.model import NewTask, Task
from orchestr8d.core.schedules import Due, Firing, Missed, Schedule, Step
from orchestr8d.core.workflow import NewWorkflow
from orchestr8d.store.sqlite import overlaps, reads, schedules, submitting, workflow_rows, workflows
from orchestr8d.store.sqlite.follow import Follower
from orchestr8d.store.sqlite.notices import notify
from orchestr8d.store.sqlite.transaction import NOTHING, About, Tx
from orchestr8d.store.types import Limits

_COLUMNS = ", ".join(f'"{name}"' for name in Firing.__struct_fields__)
_PLACES = ", ".join("?" * len(Firing.__struct_fields__))


def advance(tx: Tx, follower: Follower, limits: Limits, step: Step) -> tuple[Firing | None, bool]:
    """Carries a step out; (the firing if there was one, False when the schedule is no longer as it was: nothing was
    done). Raises Problem when what is due cannot be started."""
    schedule = schedules.find(tx.db, step.schedule.id)
    manual = step.due is not None and step.due.trigger == "manual"
    if schedule is None or not _same(schedule, step.schedule, manual):
        return None, False
    for missed in step.missed:
        _miss(tx, schedule, missed)
    firing = None
    if step.due is not None:
        due = _free_time(tx, schedule, step.due) if manual else step.due
        if _state(tx, schedule.id, due.time) != "fired":
            schedule, firing = _fire(tx, follower, limits, schedule, step, due)
    if not manual:
        schedule.next_at, schedule.active, schedule.recheck = step.next_at, int(step.next_at is not None), 0
    schedules.put(tx, schedule)
    return firing, True


def _same(now: Schedule, then: Schedule, manual: bool) -> bool:
    if manual:
        return now.updated_at == then.updated_at
    return (now.updated_at, now.next_at, now.recheck) == (then.updated_at, then.next_at, 0)


def _state(tx: Tx, schedule_id: str, time: int) -> str | None:
    row = tx.db.execute("SELECT state FROM firings WHERE schedule_id = ? AND time = ?", (schedule_id, time)).fetchone()
    return None if row is None else row[0]


def _free_time(tx: Tx, schedule: Schedule, due: Due) -> Due:
    """By hand it is fired in any case, also when something was due in the same millisecond."""
    time = due.time
    while _state(tx, schedule.id, time) is not None:
        time += 1
    return msgspec.structs.replace(due, time=time)


def _fire(
    tx: Tx, follower: Follower, limits: Limits, schedule: Schedule, step: Step, due: Due
) -> tuple[Schedule, Firing]:  # fmt: skip
    most = -1 if schedule.overlap == "replace" else firings.MOST_WAITING + 1
    others, flows = overlaps.unfinished(tx.db, schedule.id, most)
    firing = Firing(schedule.id, due.time, "skipped", None, None, None, tx.now, due.trigger, 1, due.time)
    firing.reason = step.reason or firings.turn(schedule, len(others) + len(flows))
    if firing.reason is None:
        _start(tx, follower, limits, schedule, step, firing, others, flows)
    if firing.state == "fired":
        schedule.last_run = due.time
    _put(tx, firing)
    said: dict[str, Any] = {"trigger": due.trigger}
    if firing.state == "fired":
        said |= {"task_id": firing.task_id, "workflow_id": firing.workflow_id}
    else:
        said["reason"] = firing.reason
    _tell(tx, schedule, firing, said)
    is_last = due.trigger != "manual" and step.next_at is None
    vain = _vain(tx, schedule, others)
    after = firings.judged(schedule, firing, in_vain=vain is not None, is_last=is_last)
    if after.alerting != schedule.alerting:
        _alert(tx, after, firing, firing.reason or vain)
    return after, firing


def _vain(tx: Tx, schedule: Schedule, others: list[Task]) -> str | None:
    """Why what it starts is started in vain."""
    if firings.failing(schedules.outcomes(tx.db, schedule.id)):
        return f"what it has started has failed {firings.STRIKES} times in a row"
    if others and firings.stuck(others, tx.now, _since(tx)):
        return "what it has started before is still to begin"
    return None


def _since(tx: Tx) -> int:
    """When whoever runs tasks began to."""
    (started,) = tx.db.execute("SELECT max(started_at) FROM executors WHERE state = 'running'").fetchone()
    return started or 0


def _start(
    tx: Tx, follower: Follower, limits: Limits, schedule: Schedule, step: Step, firing: Firing, others: list[Task],
    flows: list[str],
) -> None:  # fmt: skip
    """Makes the task or workflow of a firing."""
    if schedule.overlap == "replace":
        _cancel(tx, follower, others, flows)
        others, flows = overlaps.unfinished(tx.db, schedule.id, -1)
    after = [] if schedule.overlap == "allow" else [*(task.id for task in others), *flows]
    wait = 0
    if firing.trigger != "manual":
        wait = max(0, firing.time + firings.jitter(schedule, firing.time) - tx.now)
    if isinstance(step.made, NewTask):
        new = firings.dressed(step.made, schedule, firing.time, wait, after, tx.now)
        created = submitting.admit(tx, [new], lambda _: b"", limits, follower)
        if created.existing:
            firing.reason = f"task {created.tasks[0].id} has its unique_key"
            return
        firing.task_id = created.tasks[0].id
    else:
        assert step.made is not None
        firing.workflow_id = _begin(tx, follower, schedule, step.made, wait, after)
    firing.state = "fired"


def _begin(
    tx: Tx, follower: Follower, schedule: Schedule, new: NewWorkflow, wait: int, after: list[str]
) -> str:  # fmt: skip
    later = new.start and bool(wait or after)
    made = workflows.add(tx, follower, msgspec.structs.replace(new, start=new.start and not later))
    tx.db.execute(
        "UPDATE workflows SET schedule_id = ?, begin_at = ?, begin_after = ? WHERE id = ?",
        (schedule.id, tx.now + wait if later else None, after[-1] if later and after else None, made.id),
    )
    if later:
        tx.work.add("workflows")
    return made.id


def _cancel(tx: Tx, follower: Follower, others: list[Task], flows: list[str]) -> None:
    for task in others:
        submitting.cancel(tx, reads.task(tx.db, task.id))
    for workflow_id in flows:
        if workflow_rows.head(tx.db, workflow_id).completed_at is None:
            workflows.cancel(tx, follower, workflow_id)


def _miss(tx: Tx, schedule: Schedule, missed: Missed) -> None:
    # After the clock was set back and forward again some of them may have been fired.
    (fired,) = tx.db.execute(
        "SELECT count(*) FROM firings WHERE schedule_id = ? AND time BETWEEN ? AND ? AND state = 'fired'",
        (schedule.id, missed.time, missed.until),
    ).fetchone()
    left = [time for time in (missed.time, missed.until) if _state(tx, schedule.id, time) != "fired"]
    if missed.count <= fired or not left:
        return
    firing = Firing(
        schedule.id, left[0], "missed", missed.reason, None, None, tx.now, "due", missed.count - fired, missed.until
    )
    _put(tx, firing)
    said = {"reason": firing.reason, "count": firing.count, "until": iso(firing.until)}
    _tell(tx, schedule, firing, said)


def _put(tx: Tx, firing: Firing) -> None:
    """In the place of one that has started nothing: the clock was set back since."""
    tx.db.execute(f"INSERT OR REPLACE INTO firings ({_COLUMNS}) VALUES ({_PLACES})", msgspec.structs.astuple(firing))


def _tell(tx: Tx, schedule: Schedule, firing: Firing, said: dict[str, Any]) -> None:
    about: About = (firing.task_id, firing.workflow_id, schedule.user_id)
    named = {"schedule_id": schedule.id, "name": schedule.name, "time": iso(firing.time)}
    tx.tell(f"schedule.{firing.state}", named | said, about=about)


def _alert(tx: Tx, schedule: Schedule, firing: Firing, why: str | None) -> None:
    about: About = (*NOTHING[:2], schedule.user_id)
    said = {"alert": firings.ALERT, "schedule_id": schedule.id, "name": schedule.name}
    if schedule.alerting:
        new = firings.alert(schedule, firing, why)
        tx.warnings.append(("a schedule gets nothing done", {"schedule": schedule.name, "reason": why}))
        tx.tell("alert.raised", {**said, "reason": new.message}, about=about)
        notify(tx, new)
    else:
        tx.tell("alert.cleared", said, about=about)
