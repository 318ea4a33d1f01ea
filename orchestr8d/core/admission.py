"""The one way into the queue: what becomes of a new task, and of one whose reasons to wait have changed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import msgspec

from orchestr8d.core import claims
from orchestr8d.core.errors import Problem
from orchestr8d.core.model import Attempt, Error, NewTask, Spec, Task, WaitingFor
from orchestr8d.core.states import BUSY, FINAL

_SPEC = msgspec.json.Encoder()
# A dependency in one of these lets its dependents go on, whatever `allow_failed` says.
SATISFYING = frozenset({"completed", "skipped"})


class Happened(msgspec.Struct, frozen=True):
    """An event to be written with a change."""

    type: str
    data: Mapping[str, Any]


class Change(msgspec.Struct):
    """A task as it was, the columns that become different, and what is told about it."""

    task: Task
    set: dict[str, Any]
    events: list[Happened]


class Facts(msgspec.Struct):
    """What admission needs to know beside the task itself."""

    # Waiting tasks in the task's queue, and how many there may be.
    depth: int = 0
    queue_depth: int = 100_000
    head_start: float = 900.0
    # Status of each task that it depends on; a missing id does not exist.
    dependencies: Mapping[str, str] = {}
    # Unfinished tasks with its unique_key: the one that holds it, and replaced ones whose processes are not gone yet.
    same_key: Sequence[Task] = ()
    # The latest queued_at so far: it never runs backwards, or a set clock would reorder the queue.
    last_queued_at: int = 0


class Admitted(msgspec.Struct):
    """A row to insert. `edges` are the tasks it waits for (kind, id); `replaces` is to be cancelled first."""

    task: Task
    events: list[Happened]
    edges: list[tuple[Literal["task", "unique"], str]] = []
    replaces: Task | None = None
    tags: Collection[str] = ()


def rank(queued_at: int, priority: int, head_start: float) -> int:
    """Lower runs first: a point of priority is worth `head_start` seconds of waiting, so nothing starves."""
    return queued_at - round(priority * head_start * 1000)


def admit(new: NewTask, facts: Facts, task_id: str, seq: int, now: int) -> Admitted | Task:
    """The new task's row, or the existing one that stands for it (`on_conflict: existing`). Raises Problem."""
    spec = new.spec
    edges: list[tuple[Literal["task", "unique"], str]] = []
    cut_off = None
    holder = next((task for task in facts.same_key if task.unique_slot is not None), None)
    if holder is not None:
        if new.on_conflict == "existing":
            return holder
        if new.on_conflict == "reject":
            raise Problem("conflict", f"unique_key {new.unique_key!r} is held by task {holder.id}")
    check_depth(new.queue, facts)
    # A holder that only waits is cancelled in the same transaction; one that runs has processes to be waited for.
    ahead = dict.fromkeys([*new.after, *(task.id for task in facts.same_key if task.status in BUSY)])
    edges += [("unique", other) for other in ahead]
    for other in spec.depends_on:
        status = facts.dependencies[other]
        if status not in FINAL:
            edges.append(("task", other))
        elif status not in SATISFYING and not spec.allow_failed:
            cut_off = cut_off or Error("dependency_failed", f"task {other}, on which this one depends, is {status}")
    # What is held has its times and keys when it is released.
    wake_at, is_delay = (None, 0) if new.held else wake(new, now)
    unique_key = None if new.held else new.unique_key
    waits = bool(edges) or wake_at is not None or new.held
    status = "failed" if cut_off else "pending" if waits else "queued"
    queued_at = max(now, facts.last_queued_at) if status == "queued" else None
    task = Task(
        seq, task_id, new.kind,
        "pending" if waits or cut_off else "queued",
        "concurrency_key" if queued_at is not None and new.concurrency_key is not None else None,
        None, new.queue, claims.lane(spec.agent), new.priority,
        0 if queued_at is None else rank(queued_at, new.priority, facts.head_start),
        new.user_id, None if spec.agent is None else spec.agent.name, new.workflow_id, new.phase, new.schedule_id, None,
        new.concurrency_key, unique_key, unique_key, new.retry_of, None, 0, 0, len(edges) + new.held, 0,
        wake_at, is_delay, new.deadline_at if new.held else deadline_at(spec, now),
        None, now, now, queued_at, None, None, None, None, None, None, _SPEC.encode(spec).decode(), new.local_id,
    )  # fmt: skip
    events = [Happened("task.created", {"status": task.status, "kind": new.kind, "queue": new.queue})]
    if queued_at is not None:
        events.append(Happened("task.queued", {"status": "queued", "kind": new.kind, "queue": new.queue}))
    admitted = Admitted(task, events, edges, holder, set(spec.tags))
    if cut_off:
        _fail_at_birth(admitted, cut_off, now)
    return admitted


def deadline_at(spec: Spec, now: int) -> int | None:
    return None if spec.deadline is None else now + round(spec.deadline * 1000)


def check_depth(queue: str, facts: Facts) -> None:
    """Raises Problem when no more tasks may wait in `queue`."""
    if facts.depth >= facts.queue_depth:
        raise Problem(
            "rate-limited",
            f"queue {queue!r} is full: {facts.queue_depth} tasks wait in it ([limits] queue_depth)",
            retry_after=10,
        )


def wake(new: NewTask, now: int) -> tuple[int | None, int]:
    """When a task may begin, if not at once, and whether that came from a duration."""
    if new.delay is not None:
        return (now + max(1, round(new.delay * 1000)), 1) if new.delay else (None, 0)
    if new.run_at is not None and new.run_at > now:
        return new.run_at, 0
    return None, 0


def _fail_at_birth(admitted: Admitted, error: Error, now: int) -> None:
    """A task that can never run is made and is final at once: its submit was in order, and it can be looked at."""
    task = admitted.task
    change = finalise(task, "failed", now, error)
    for column, value in change.set.items():
        setattr(task, column, value)
    admitted.events += change.events
    admitted.edges = []
    admitted.replaces = None


def enqueue(task: Task, now: int, last_queued_at: int, head_start: float, **data: Any) -> Change:
    """To `queued`, at the end of its priority's line."""
    queued_at = max(now, last_queued_at)
    return Change(
        task,
        {
            "status": "queued", "queued_at": queued_at, "rank": rank(queued_at, task.priority, head_start),
            "hold": hold(task), "wake_at": None, "wake_is_delay": 0,
        },
        [Happened("task.queued", {"status": "queued", "kind": task.kind, "queue": task.queue, **data})],
    )  # fmt: skip


def release(task: Task, new: NewTask, now: int, last_queued_at: int, head_start: float) -> Change:
    """A task that its workflow has held may go, as what `new` says."""
    wake_at, is_delay = wake(new, now)
    own = deadline_at(new.spec, now)
    change: dict[str, Any] = {
        "blockers": task.blockers - 1, "kind": new.kind, "spec": _SPEC.encode(new.spec).decode(), "queue": new.queue,
        "priority": new.priority, "lane": claims.lane(new.spec.agent),
        "agent": None if new.spec.agent is None else new.spec.agent.name, "concurrency_key": new.concurrency_key,
        "unique_key": new.unique_key, "unique_slot": new.unique_key, "wake_at": wake_at, "wake_is_delay": is_delay,
        "deadline_at": min((at for at in (task.deadline_at, own) if at is not None), default=None),
    }  # fmt: skip
    after = msgspec.structs.replace(task, **change)
    if not may_queue(after, now):
        return Change(task, change, [])
    queued = enqueue(after, now, last_queued_at, head_start)
    return Change(task, change | queued.set, queued.events)


def hold(task: Task) -> str | None:
    # A keyed task starts out held; the window over its key (core.claims) then opens the first ones.
    return None if task.concurrency_key is None else "concurrency_key"


def may_queue(task: Task, now: int) -> bool:
    """Whether nothing holds a pending task back any more."""
    return not task.paused and task.blockers == 0 and (task.wake_at is None or task.wake_at <= now)


def finalise(task: Task, status: str, now: int, error: Error | None = None, **data: Any) -> Change:
    """To a final state: it holds nothing any more and waits for nothing."""
    said: dict[str, Any] = {"status": status, "kind": task.kind, "queue": task.queue, **data}
    if error is not None:
        said["error"] = error
    return Change(
        task,
        {
            "status": status, "completed_at": now, "hold": None, "parked_for": None, "unique_slot": None, "blockers": 0,
            "paused": 0, "wake_at": None, "wake_is_delay": 0,
            "error": None if error is None else _SPEC.encode(error).decode(),
        },
        [Happened(f"task.{status}", said)],
    )  # fmt: skip


def park(task: Task, parked_for: str, reason: WaitingFor) -> Change:
    """Out of the queue until what it waits for is there again; it keeps its place in the line."""
    said = {"status": "parked", "kind": task.kind, "queue": task.queue, "waiting_for": [reason]}
    return Change(
        task, {"status": "parked", "parked_for": parked_for, "hold": None}, [Happened("task.parked", said)]
    )  # fmt: skip


def unpark(task: Task) -> Change:
    """Back to its place in the queue."""
    said = {"status": "queued", "kind": task.kind, "queue": task.queue, "reason": "unparked"}
    return Change(
        task, {"status": "queued", "parked_for": None, "hold": hold(task)}, [Happened("task.queued", said)]
    )  # fmt: skip


def dependency_ended(task: Task, other: Task, kind: str) -> Error | None:
    """Why `task` is cut off now that `other`, for which it waited, is final; None when it may go on."""
    if kind == "unique" or other.status in SATISFYING or task.read_spec().allow_failed:
        return None
    return Error("dependency_failed", f"task {other.id}, on which this one depends, is {other.status}")


def as_new(task: Task) -> NewTask:
    """The submit that would make this task again."""
    return NewTask(
        spec=task.read_spec(), kind=task.kind, queue=task.queue, priority=task.priority, user_id=task.user_id,
        concurrency_key=task.concurrency_key, unique_key=task.unique_key,
        run_at=task.wake_at if task.status == "pending" else None,
    )  # fmt: skip


def encode_spec(spec: Spec) -> str:
    return _SPEC.encode(spec).decode()


def start(task: Task, attempt: Attempt, now: int) -> Change:
    """A claim: the task runs as `attempt`."""
    return Change(
        task,
        {
            "status": "running", "hold": None, "executor_id": attempt.executor_id, "attempt": attempt.number,
            "started_at": now if task.started_at is None else task.started_at, "progress": None,
            "session_id": attempt.session_id,
        },
        [Happened("task.started", {
            "status": "running", "kind": task.kind, "queue": task.queue, "attempt": attempt.number,
            "attempt_id": attempt.id, "executor_id": attempt.executor_id,
            "wait_seconds": max(0, now - (task.queued_at or now)) / 1000,
        })],
    )  # fmt: skip


def deadline(task: Task, now: int) -> Change:
    """A task that still waits when its deadline passes."""
    return finalise(task, "failed", now, Error("deadline", "its deadline passed before it could finish"))
