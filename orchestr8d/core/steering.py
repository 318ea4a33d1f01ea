"""What a person may do with a task: cancel, pause, resume, edit, retry, go on. Each is a change, or a Problem."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from orchestr8d.core import admission, claims
from orchestr8d.core.admission import Change, Facts, Happened
from orchestr8d.core.errors import Problem
from orchestr8d.core.model import NewTask, Progress, Spec, Task
from orchestr8d.core.states import BUSY, FINAL, WAITING
from orchestr8d.core.workflow import Node

# What an attempt is started with, of a task's spec.
_USED: Final = ("command", "prompt", "cwd", "env", "stdin", "check", "timeout", "stall_timeout")


def cancel(task: Task, now: int) -> Change | None:
    """Cancelled now, or the request noted while it runs; None when it was asked for already."""
    if task.status in FINAL:
        raise Problem("conflict", f"task {task.id} is {task.status} already")
    if task.status in BUSY:
        return None if task.cancel_requested_at else Change(task, {"cancel_requested_at": now}, [])
    return admission.finalise(task, "cancelled", now)


def check_in_workflow(task: Task, node: Node | None, verb: Literal["paused", "changed", "retried"]) -> None:
    """Raises Problem for what only a workflow can have done with its task; `node` is what the task is there."""
    if task.local_id is None:
        return
    whose = f"task {task.id} is {task.local_id!r} of workflow {task.workflow_id}"
    if verb == "retried":
        raise Problem("conflict", f"{whose}: it is retried with that (POST /api/v1/workflows/{task.workflow_id}/retry)")
    if node is None or task.status in FINAL:
        return
    if node.kind != "task":
        raise Problem("conflict", f"{whose} and runs nothing itself: it cannot be {verb}")
    if verb == "changed" and node.state != "open":
        raise Problem("conflict", f"{whose}: its definition says what it will be until it is queued")


def pause(task: Task) -> Change:
    if task.status not in ("pending", "queued") or task.paused:
        state = "paused" if task.paused else task.status
        raise Problem("conflict", f"task {task.id} is {state}: only one that is pending or queued can be paused")
    return Change(task, {"status": "pending", "paused": 1, "hold": None, "queued_at": None}, [])


def resume(task: Task, now: int, last_queued_at: int, head_start: float) -> Change:
    if not task.paused:
        raise Problem("conflict", f"task {task.id} is not paused")
    task = msgspec.structs.replace(task, paused=0)
    if admission.may_queue(task, now):
        change = admission.enqueue(task, now, last_queued_at, head_start)
        change.set["paused"] = 0
        return change
    return Change(task, {"paused": 0}, [])


def edit(task: Task, new: NewTask, facts: Facts, now: int) -> Change:
    """`new` is what the task shall be; fields that were used already (it ran once) can no longer change. `facts.depth`
    is that of the new queue."""
    if task.status not in WAITING:
        raise Problem("conflict", f"task {task.id} is {task.status}: it can be changed only before it runs")
    old = admission.as_new(task)
    moved = new.delay is not None or new.run_at != old.run_at
    if task.attempt:
        used = [name for name in _USED if getattr(new.spec, name) != getattr(old.spec, name)]
        used += [name for name in ("queue", "concurrency_key") if getattr(new, name) != getattr(old, name)]
        used += ["run_at"] if moved else []
        if used:
            raise Problem("conflict", f"task {task.id} has run already: {', '.join(used)} can no longer be changed")
    if moved and task.status == "parked":
        raise Problem("conflict", f"task {task.id} is parked: its time came already")
    if new.queue != task.queue:
        admission.check_depth(new.queue, facts)
    last_queued_at, head_start = facts.last_queued_at, facts.head_start
    change: dict[str, Any] = {
        "spec": admission.encode_spec(new.spec), "queue": new.queue, "lane": claims.lane(new.spec.agent),
        "priority": new.priority,
        "concurrency_key": new.concurrency_key,
        "deadline_at": task.deadline_at if new.spec.deadline == old.spec.deadline else
        None if new.spec.deadline is None else task.created_at + round(new.spec.deadline * 1000),
    }  # fmt: skip
    if moved:
        # A delay counts from the edit.
        change["wake_at"], change["wake_is_delay"] = admission.wake(new, now)
    after = msgspec.structs.replace(task, **change)
    if task.status in ("pending", "queued"):
        if admission.may_queue(after, now):
            if task.status == "pending":
                queued = admission.enqueue(after, now, last_queued_at, head_start)
                return Change(task, change | queued.set, queued.events)
            change["hold"] = None if new.concurrency_key is None else "concurrency_key"
        else:
            change |= {"status": "pending", "hold": None, "queued_at": None}
    if change.get("queued_at", after.queued_at) is not None:
        change["rank"] = admission.rank(after.queued_at or now, new.priority, head_start)
    if task.parked_for is not None and task.parked_for.startswith("budget:"):
        # It may spend less now, or of others: the next claim asks them.
        unparked = admission.unpark(after)
        return Change(task, change | unparked.set, unparked.events)
    return Change(task, change, [])


def retry(task: Task, statuses: dict[str, str]) -> NewTask:
    """The new task that takes over from a failed or cancelled one. Dependencies that are over are not waited for
    again: whoever retries has seen how they ended."""
    if task.status not in ("failed", "cancelled"):
        raise Problem("conflict", f"task {task.id} is {task.status}: only a failed or cancelled one can be retried")
    new = admission.as_new(task)
    spec = new.spec
    left = [d for d in spec.depends_on if statuses.get(d, "completed") not in FINAL]
    new.spec = msgspec.structs.replace(spec, depends_on=left)
    new.run_at = None
    new.retry_of = task.id
    return new


def go_on(source: Task, prompt: str) -> NewTask:
    """The new task that says `prompt` to the agent of `source`, in the conversation and the setting of that one."""
    spec = source.read_spec()
    if spec.agent is not None:
        # Its title and what it waited for were about what was asked then.
        agent = msgspec.structs.replace(spec.agent, resume_from=source.id)
        spec = msgspec.structs.replace(spec, agent=agent, prompt=prompt, title=None, depends_on=[])
    new = admission.as_new(source)
    new.spec = resumed(spec, source)
    new.run_at = None
    return new


def resumed(spec: Spec, source: Task) -> Spec:
    """What was asked of an agent, as it goes on with the conversation of the task `source`. Raises Problem."""
    if spec.agent is None or source.agent is None:
        raise Problem("conflict", f"task {source.id} is a command: only an agent's task can be gone on with")
    if source.status not in FINAL:
        raise Problem("conflict", f"task {source.id} is {source.status}: it can be gone on with when it has ended")
    if source.session_id is None:
        raise Problem("conflict", f"task {source.id} has no conversation to go on with: it never ran")
    agent = msgspec.structs.replace(spec.agent, resume_from=source.id, session_id=source.session_id)
    return msgspec.structs.replace(spec, agent=agent)


def progress(task: Task, attempt_id: str, said: Progress) -> Change:
    """What is not said stays as it was said last."""
    if task.status not in BUSY:
        raise Problem("conflict", f"task {task.id} is {task.status}: only a running one makes progress")
    value = msgspec.to_builtins(task.read_progress()) | msgspec.to_builtins(said)
    data = {"status": task.status, "attempt_id": attempt_id, **value}
    return Change(task, {"progress": msgspec.json.encode(value).decode()}, [Happened("task.progress", data)])
