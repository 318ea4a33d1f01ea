"""Which tasks may run: the window over a concurrency key, a queue's rate, and the choice among candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from orchestr8d.core.durations import rate
from orchestr8d.core.model import Queue, Task


class Window(msgspec.Struct):
    """Changes to a key's queued tasks: ids that may be claimed from now on, and ids that may not."""

    open: list[int]
    hold: list[int]


def window(first: Sequence[Task], open_now: Sequence[Task], free: int) -> Window:
    """Keeps only those of a key's queued tasks claimable that could be claimed now.

    `first` has each queue's first `free` tasks of the key by rank (so that a paused queue never blocks the key for
    the others), `open_now` those that are claimable at present, `free` how many more may run.
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


def choose(candidates: Sequence[Task], free: int, key_free: Mapping[str, int]) -> list[Task]:
    """The first `free` by rank, with no key beyond what it has free. `candidates` respect their queue's capacity.

    It ends early at one whose key has just been used up: behind it in its queue may be some that are no candidates yet
    and come before the rest. Once the window over the key has moved, another choice finds them.
    """
    left = {key: n for key, n in key_free.items() if n > 0}
    chosen: list[Task] = []
    for task in sorted(candidates, key=lambda t: (t.rank, t.seq)):
        if len(chosen) == free:
            break
        key = task.concurrency_key
        if key is not None:
            if key not in left:
                continue
            if left[key] == 0:
                break
            left[key] -= 1
        chosen.append(task)
    return chosen
