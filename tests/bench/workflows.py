"""Workflows against the same tasks without one: a chain, a fan, items found at run time, and many at once."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.bench.lines import Line, in_turns, median
from tests.bench.runs import TRUE
from tests.bench.setting import Setting, call
from tests.daemon import Daemon

NARROW, WIDE = "bench-narrow", "bench-wide"
LIMIT = {"limit": 1}


def _chain(count: int) -> dict[str, Any]:
    tasks = [{"id": "t0", "command": [TRUE], "queue": WIDE}]
    tasks += [{"id": f"t{n}", "command": [TRUE], "queue": WIDE, "depends_on": [f"t{n - 1}"]} for n in range(1, count)]
    return _one_phase("chain", tasks)


def _fan(count: int) -> dict[str, Any]:
    return _one_phase("fan", [{"id": f"t{n}", "command": [TRUE], "queue": WIDE} for n in range(count)])


def _items(count: int) -> dict[str, Any]:
    task = {"id": "each", "for_each": "params.items", "command": [TRUE, "{{ item }}"], "queue": WIDE}
    return _one_phase("items", [task]) | {"params": {"items": {"type": "list", "default": list(range(count))}}}


def _one_phase(name: str, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "phases": [{"id": "only", "tasks": tasks}]}


def _wait(daemon: Daemon, workflow_id: str) -> None:
    path = f"/api/v1/workflows/{workflow_id}/status?until=final&wait=60"
    status = call(daemon, "GET", path)["status"]
    assert status == "completed", status


def _workflows(daemon: Daemon, definition: dict[str, Any], count: int = 1) -> Callable[[], float]:
    """Seconds from the first start of `count` of them to the end of all."""

    def measure() -> float:
        started = time.perf_counter()
        body = {"definition": definition, "cwd": "/"}
        ids = [call(daemon, "POST", "/api/v1/workflows", body)["workflow_id"] for _ in range(count)]
        for workflow_id in ids:
            _wait(daemon, workflow_id)
        return time.perf_counter() - started

    return measure


def _plain(daemon: Daemon, queue: str, count: int) -> Callable[[], float]:
    """Seconds from the submit of as many tasks to the end of all."""
    task = {"command": [TRUE], "cwd": "/", "options": {"queue": queue}}

    def measure() -> float:
        started = time.perf_counter()
        answer = call(daemon, "POST", "/api/v1/tasks:batch", {"tasks": [task] * count})
        for one in reversed(answer["tasks"]):
            path = f"/api/v1/tasks/{one['task_id']}/status?until=final&wait=60"
            assert call(daemon, "GET", path)["status"] == "completed"
        return time.perf_counter() - started

    return measure


def _fifths(daemon: Daemon, count: int) -> tuple[float, float]:
    """Seconds of the last and the first fifth of a chain."""
    made = call(daemon, "POST", "/api/v1/workflows", {"definition": _chain(count), "cwd": "/"})
    _wait(daemon, made["workflow_id"])
    tasks = call(daemon, "GET", f"/api/v1/workflows/{made['workflow_id']}/tasks")["tasks"]
    ends = [datetime.fromisoformat(task["completed_at"]).timestamp() for task in tasks]
    fifth = count // 5
    return ends[-1] - ends[-1 - fifth], ends[fifth] - ends[0]


def workflows(setting: Setting) -> list[Line]:
    count, rounds = setting.size.workflow, setting.size.rounds
    with setting.daemon() as daemon:
        call(daemon, "PUT", f"/api/v1/queues/{NARROW}", LIMIT)
        narrow, wide = _plain(daemon, NARROW, count), _plain(daemon, WIDE, count)
        wide()
        rows = [
            (f"a chain of {count}", _workflows(daemon, _chain(count)), narrow, "as many in a queue of limit 1", 1.5),
            (f"a fan of {count}", _workflows(daemon, _fan(count)), wide, "as many tasks", 1.3),
            (f"{count} items found at run time", _workflows(daemon, _items(count)), wide, "as many tasks", 1.5),
            (f"{count // 5} workflows of five", _workflows(daemon, _chain(5), count // 5), wide, "as many tasks", None),
        ]
        lines = []
        for what, measure, against, words, bar in rows:
            ours, reference = in_turns(rounds, measure, against)
            lines.append(Line(what, median(ours), "s", median(reference), words, bar, "at most"))
        last, first = zip(*[_fifths(daemon, count) for _ in range(rounds)], strict=True)
        what = "the last fifth of the chain"
        lines.append(Line(what, median(last), "s", median(first), "its first fifth", 1.4, "at most"))
        at_once = _workflows(daemon, _one_phase("one", [{"id": "t", "command": [TRUE], "queue": WIDE}]), 200)
        ours, reference = in_turns(rounds, at_once, _plain(daemon, WIDE, 200))
        lines.append(Line("200 workflows at once", median(ours), "s", median(reference), "200 tasks in one batch"))
    return lines
