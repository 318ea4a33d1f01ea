"""When a task of a workflow may start: after the workflow's start, after another task's end, or at a time."""

from __future__ import annotations

import re

from msgspec import Struct

from orchestr8d.core import durations, patterns

# A template may come to a fraction of a second.
_AFTER = re.compile(rf"({patterns.LOCAL_ID})?\+({patterns.DURATION}|[0-9]{{1,9}}\.[0-9]{{1,9}}s)")


class After(Struct, frozen=True):
    """So many seconds after the end of `task`; without one, after the workflow's start."""

    task: str | None
    seconds: float


def read(text: str) -> After | int:
    """`+6d`, `TASK+2h`, or a time as milliseconds since the epoch. ValueError says what is wrong."""
    m = _AFTER.fullmatch(text)
    if m:
        return After(m[1], float(m[2][:-1]) if "." in m[2] else durations.seconds(m[2]))
    try:
        return durations.parse_time(text)
    except ValueError as e:
        raise ValueError('expected "+6d" (after the workflow\'s start), "TASK+2h" (after the end of that task), '
                         f"or a time: {e}") from None  # fmt: skip
