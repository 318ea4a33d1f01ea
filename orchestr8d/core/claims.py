"""Which tasks may run: lanes, the window over a concurrency key, a queue's rate, and the choice among candidates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from orchestr8d.core.durations import rate
from orchestr8d.core.model import AgentSpec, Queue, Task

T = TypeVar("T")


def lane(agent: AgentSpec | None) -> str:
    """What of a queue stands and falls together: '' (no account is needed), 'claude' (any), 'claude:NAME'."""
    if agent is None:
        return ""
    return "claude" if agent.account is None else f"claude:{agent.account}"


class Window(msgspec.Struct):
    """Changes to a key's queued tasks: ids that may be claimed from now on, and ids that may not."""

    open: list[int]
    hold: list[int]


def window(first: Sequence[Task], open_now: Sequence[Task], free: int) -> Window:
    """Keeps only those of a key's queued tasks claimable that could be claimed now.

    `first` has the first `free` tasks of the key by rank of each lane of each queue (so that neither a paused queue nor
    a full account blocks the key for the others), `open_now` those that are claimable at present, `free` how many more
    may run.
    """
    wanted = {task.seq for task in first} if free > 0 else set()
    opened = {task.seq for task in open_now}
    return Window(sorted(wanted - opened), sorted(opened - wanted))


def capacity(queue: Queue, recent: Sequence[int]) -> int:
    """How many more of this queue may start now; `recent` are its starts within the rate's period, oldest first."""
    if queue.paused:
        return 0
    free = 1 << 30 if queue.limit is None else queue.limit - queue.running
    if queue.rate is not None:
        starts, _ = rate(queue.rate)
        free = min(free, starts - len(recent))
    return max(0, free)


def open_at(queue: Queue, recent: Sequence[int]) -> int | None:
    """When the rate lets the next one start; None when it does now. `recent` as for `capacity`."""
    if queue.rate is None:
        return None
    starts, period = rate(queue.rate)
    if len(recent) < starts:
        return None
    # The start that has to leave the window first.
    return recent[len(recent) - starts] + round(period * 1000)


def choose(
    candidates: Sequence[Task], free: int, key_free: Mapping[str, int], queue_free: Mapping[str, int],
    enter: Callable[[Task], T | None],
) -> list[tuple[Task, T]]:  # fmt: skip
    """The first `free` by rank, with no key and no queue beyond what it has free, each with what `enter` gave it; one
    that `enter` gives nothing is passed over.

    It ends early at one whose key has just been used up: behind it in its queue may be some that are no candidates yet
    and come before the rest. Once the window over the key has moved, another choice finds them.
    """
    keys = {key: n for key, n in key_free.items() if n > 0}
    queues = dict(queue_free)
    chosen: list[tuple[Task, T]] = []
    for task in sorted(candidates, key=lambda t: (t.rank, t.seq)):
        if len(chosen) == free:
            break
        key = task.concurrency_key
        if queues[task.queue] == 0 or (key is not None and key not in keys):
            continue
        if key is not None and keys[key] == 0:
            break
        entered = enter(task)
        if entered is None:
            continue
        queues[task.queue] -= 1
        if key is not None:
            keys[key] -= 1
        chosen.append((task, entered))
    return chosen
