"""What a long history and a long queue cost: the same measurements on daemons that differ in nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial

from tests.bench.latency import Pipe, from_submit, pipe
from tests.bench.lines import Line, in_turns, median
from tests.bench.runs import running
from tests.bench.seed import HOLDER, flush, seeded
from tests.bench.setting import HOLDERS, Setting, call
from tests.bench.submits import bulk, submitting
from tests.daemon import Daemon

BAR = 0.9


def growth(setting: Setting) -> list[Line]:
    size = setting.size
    with contextlib.ExitStack() as stack:
        databases = [seeded(*tasks) for tasks in size.growth]
        empty = stack.enter_context(setting.daemon())
        for _ in range(HOLDERS):
            call(empty, "POST", "/api/v1/tasks", {"command": HOLDER, "cwd": "/"})
        daemons = [empty, *(stack.enter_context(setting.daemon(database)) for database in databases)]
        for daemon in daemons:
            _wait_for_holders(daemon)
        pipes = [stack.enter_context(pipe(setting)) for _ in daemons]
        flush()
        measures: Sequence[tuple[str, str, Callable[[Daemon, Pipe], Callable[[], float]], int]] = (
            ("durable POST", "/s", lambda d, _: partial(_per_second, d, size.requests), size.rounds),
            ("bulk submit", "/s", lambda d, _: bulk(d, size.batches), size.rounds),
            ("run /bin/true", "/s", lambda d, _: running(d, size.runs), size.rounds),
            ("submit → started", "ms", lambda d, p: partial(_milliseconds, from_submit(d, p)), size.latencies),
        )
        lines = []
        for what, unit, measure, rounds in measures:
            sides = [measure(d, p) for d, p in zip(daemons, pipes, strict=True)]
            in_turns(1, *sides)
            figures = [median(results) for results in in_turns(rounds, *sides)]
            lines += _lines(what, unit, figures, size.growth)
    return lines


def _per_second(daemon: Daemon, requests: int) -> float:
    return submitting(daemon, requests)().per_second


def _milliseconds(seconds: Callable[[], float]) -> float:
    return seconds() * 1000


def _lines(what: str, unit: str, figures: Sequence[float], sizes: Sequence[tuple[int, int]]) -> list[Line]:
    """A line for each size; the last is held to the bar. Of times, being 0.9 as quick means 1 / 0.9 as long."""
    empty, *grown = figures
    lines = []
    for (finished, waiting), figure in zip(sizes, grown, strict=True):
        line = Line(f"{what}, {finished:,} finished, {waiting:,} waiting", figure, unit, empty, "an empty database")
        if (finished, waiting) == sizes[-1]:
            rate = unit == "/s"
            line.bar, line.sense = (BAR, "at least") if rate else (round(1 / BAR, 2), "at most")
        lines.append(line)
    return lines


def _wait_for_holders(daemon: Daemon) -> None:
    while call(daemon, "GET", "/api/v1/executors")["executors"][0]["running"] < HOLDERS:
        running = call(daemon, "GET", "/api/v1/tasks?status=running")["tasks"]
        if len(running) == HOLDERS:
            return
