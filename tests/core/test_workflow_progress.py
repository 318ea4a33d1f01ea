"""How far a workflow is, and what holds it: tables over views."""

import msgspec
import pytest

from orchestr8d.core import workflow_progress
from orchestr8d.core.model import Usage
from orchestr8d.core.waiting import Why, waiting_for
from orchestr8d.core.workflow import OVER, Definition, Phase, Step
from orchestr8d.core.workflow_shown import shown
from tests.core.views import view

# States of nodes whose task has another one.
STATUS = {"cut": "failed", "waiting": "pending", "held": "pending", "timed": "pending", "full": "pending",
          "when": "pending", "render": "pending", "again": "failed"}  # fmt: skip


def step(name, **more):
    return Step(name, task=None if more.get("approval") else {"command": ["x"]}, **more)


def phases(*rules):
    """`("a", [0, 20], "t1 t2")`: a phase with its share and its tasks."""
    return [Phase(name, progress=share and tuple(share), tasks=[step(t) for t in tasks.split()])
            for name, share, tasks in rules]  # fmt: skip


def stands(definition, states, over=(), columns=None, **workflow):
    """A view in which nodes are in these states: with `"open"` a task runs, with `("open", "pending")` it does not."""
    told = {name: state if isinstance(state, tuple) else (state, STATUS.get(state, state))
            for name, state in states.items()}  # fmt: skip
    told = {name: (state, "running" if status == "open" else status) for name, (state, status) in told.items()}
    given = {name: {"status": status, **(columns or {}).get(name, {})} for name, (_, status) in told.items()}
    workflow = {"status": "running", "started": 1} | workflow
    found = view(definition, given, **workflow)
    for task in found.tasks:
        task.node.state = told.get(task.node.id, ("waiting", ""))[0]
    for phase in found.phases:
        mine = {task.node.state for task in found.tasks if task.node.phase == phase.node.id}
        phase.node.state = "completed" if mine <= OVER else "waiting" if mine <= {"waiting"} else "open"
    return found


@pytest.mark.parametrize(("shares", "expected"), [
    ([[0, 20], [20, 70], [70, 100]], [(0, 20), (20, 70), (70, 100)]),
    ([None], [(0, 100)]),
    ([None] * 4, [(0, 25), (25, 50), (50, 75), (75, 100)]),
    ([[0, 20], None, [70, 100]], [(0, 20), (20, 70), (70, 100)]),
    ([None, [50, 90], None], [(0, 30), (50, 90), (70, 100)]),
    ([[0, 100], None], [(0, 100), (100, 100)]),
    ([[0, 60], [0, 60], None], [(0, 60), (0, 60), (60, 60)]),
    ([], []),
])  # fmt: skip
def test_shares(shares, expected):
    found = workflow_progress.ranges([Phase(str(n), progress=share and tuple(share)) for n, share in enumerate(shares)])
    assert found == [pytest.approx(one) for one in expected]


PLAN = phases(("a", [0, 20], "t1 t2"), ("b", [20, 100], "t3 t4 t5 t6"))


@pytest.mark.parametrize(("states", "workflow", "expected"), [
    ({}, {}, 0),
    ({"t1": "open"}, {}, 0),
    ({"t1": "completed", "t2": "open"}, {}, 10),
    ({"t1": "completed", "t2": "skipped", "t3": "open"}, {}, 20),
    ({"t1": "completed", "t2": "failed", "t3": "completed"}, {}, 40),
    ({"t1": "completed", "t2": "failed", "t3": "cut", "t4": "cut", "t5": "cut", "t6": "cut"}, {"status": "failed"}, 20),
    ({"t1": "completed", "t2": "cancelled"}, {"status": "cancelled"}, 10),
    ({f"t{n}": "completed" for n in range(1, 7)}, {}, 99.9),
    ({f"t{n}": "failed" for n in range(1, 7)}, {"status": "failed"}, 99.9),
    ({"t1": "failed"}, {"status": "completed"}, 100),
])  # fmt: skip
def test_percent(states, workflow, expected):
    found = stands(Definition("w", phases=PLAN), states, **workflow)
    progress = workflow_progress.progress(found, workflow_progress.standings(found).values(), 0)
    assert progress.percent == pytest.approx(expected)


def test_a_fan_is_as_far_as_its_children():
    definition = Definition("w", phases=[Phase("a", tasks=[step("fan", for_each="params.x"), step("other")])])
    states = {"fan": ("open", "pending"), "fan.0": "completed", "fan.1": "failed", "fan.2": "open", "fan.3": "full"}
    [standing] = workflow_progress.standings(stands(definition, states)).values()
    assert standing.done == pytest.approx(0.25)
    assert standing.counts == {"pending": 3, "completed": 1, "failed": 1, "running": 1}


@pytest.mark.parametrize(("states", "workflow", "expected"), [
    ({}, {}, None),
    ({"t1": "completed", "t2": "open"}, {}, "a: t2"),
    ({"t1": "open", "t2": "open", "t3": "open", "t4": "open", "t5": "open", "t6": "open"}, {},
     "a: t1, t2; b: t3, t4, t5 and 1 more"),
    ({"t1": ("open", "pending"), "t2": "completed"}, {}, "a"),
])  # fmt: skip
def test_current_step(states, workflow, expected):
    assert workflow_progress.current_step(stands(Definition("w", phases=PLAN), states, **workflow)) == expected


def test_rollback_is_a_step_and_no_progress():
    definition = Definition("w", phases=phases(("a", None, "t1")), on_failure=[step("undo")])
    found = stands(definition, {"t1": "failed", "undo": "open"})
    assert workflow_progress.current_step(found) == "rollback: undo"
    assert workflow_progress.counts(found.tasks) == {"failed": 1, "running": 1}
    assert list(workflow_progress.standings(found)) == ["a"]


@pytest.mark.parametrize(("states", "workflow", "wake_at", "expected"), [
    ({"t1": "open"}, {"started_at": 0}, None, None),  # nothing tells
    ({"t1": "completed", "t2": "completed", "t3": "open"}, {"started_at": 0}, None, 400),
    ({"t1": "completed", "t2": "completed", "t3": "timed"}, {"started_at": 0}, 100_000 + 900_000, 900),
    ({"t3": "timed"}, {"started_at": 0}, 100_000 + 5_000, 5),
    ({"t3": "timed"}, {"started_at": 0}, 50_000, 0),  # it is due
    ({"t1": "completed", "t2": "open"}, {"started_at": 0, "status": "paused"}, None, None),
    ({"t1": "completed", "t2": "open"}, {"started_at": 0, "status": "blocked"}, None, None),
    ({"t1": "completed", "t2": "completed"}, {"status": "completed", "started_at": 0}, None, None),
])  # fmt: skip
def test_time_that_is_left(states, workflow, wake_at, expected):
    found = stands(Definition("w", phases=PLAN), states, **workflow)
    for task in found.tasks:
        task.node.wake_at = wake_at if task.node.id == "t3" else None
    done = workflow_progress.percent(found, workflow_progress.standings(found).values())
    assert workflow_progress.remaining(found, done, 100_000) == expected


def test_usage_is_the_sum_and_knows_what_earlier_rounds_cost():
    used = {name: {"usage": msgspec.json.encode(Usage(input_tokens=n, cost_usd=n / 10)).decode()}
            for name, n in (("t1", 1), ("t2", 2))}  # fmt: skip
    found = stands(Definition("w", phases=PLAN), {"t1": "completed", "t2": "open"}, columns=used)
    for cost, expected in ((1.25, 1.25), (0.0, 0.3)):
        found.cost_usd = cost
        assert workflow_progress.usage(found) == Usage(input_tokens=3, cost_usd=expected)


GATE = [Phase("g", tasks=[step("ok", approval="?"), step("go", wait_for=["s1", "s2"]), step("late", not_before="+1d"),
                          step("run")])]  # fmt: skip


@pytest.mark.parametrize(("states", "workflow", "expected"), [
    ({"ok": ("open", "pending"), "run": "open"}, {}, [("approval", "ok")]),
    ({"ok": ("open", "pending"), "go": "held"}, {"status": "blocked"},
     [("approval", "ok"), ("signal", "s2")]),
    ({"go": "held", "late": "timed"}, {}, [("signal", "s2")]),
    ({"late": "timed"}, {}, [("time", None)]),
    ({"late": "timed", "run": "open"}, {}, []),
    ({"late": "timed", "run": "full"}, {}, []),
    ({"run": "open"}, {"paused": 1, "status": "paused"}, [("paused", None)]),
    ({}, {"started": 0, "status": "pending"}, [("paused", None)]),
    ({"ok": ("open", "pending")}, {"status": "cancelled", "paused": 1}, []),
])  # fmt: skip
def test_what_holds_a_workflow(states, workflow, expected):
    found = stands(Definition("w", phases=GATE), states, **workflow)
    for task in found.tasks:
        task.node.wake_at = 5_000 if task.node.id == "late" else None
        task.unsent = ["s2"] if task.node.id == "go" else []
    assert [(one.kind, one.name) for one in workflow_progress.waiting_for(found)] == expected


@pytest.mark.parametrize(("name", "state", "status", "expected"), [
    ("run", "waiting", "pending", [("workflow_task", "go"), ("workflow_task", "g")]),
    ("go", "waiting", "pending", [("workflow_task", "go"), ("workflow_task", "g"), ("signal", "s2")]),
    ("go", "held", "pending", [("signal", "s2")]),
    ("late", "timed", "pending", [("time", None)]),
    ("ok", "open", "pending", [("approval", None)]),
    ("run", "full", "pending", [("slot", "g")]),
    ("run", "render", "pending", [("slot", None)]),
    ("run", "open", "pending", []),
    ("run", "open", "running", []),
    ("run", "cut", "failed", []),
])  # fmt: skip
def test_what_holds_a_task(name, state, status, expected):
    found = stands(Definition("w", phases=GATE), {name: (state, status)})
    [seen] = [task for task in found.tasks if task.node.id == name]
    seen.waiting_for = ["go", "g"] if state == "waiting" else []
    seen.unsent = ["s2"] if name == "go" else []
    seen.node.wake_at = 5_000 if state == "timed" else None
    seen.task.wake_at = None
    told = waiting_for(seen.task, Why(node=seen))
    assert [(one.kind, one.name) for one in told] == expected
    held = waiting_for(seen.task, Why(node=seen, workflow_paused=True))
    assert [one.kind for one in held][:1] == (["paused"] if status == "pending" else [])
    seen.task.status, seen.task.hold = "queued", "workflow"
    assert [one.kind for one in waiting_for(seen.task, Why(node=seen))] == ["paused"]


def test_a_definition_is_shown_as_it_is_written_without_secrets():
    follow = {"submit": {"command": ["b"], "env": {"K": "v"}}}
    body = {"command": ["a"], "env": {"K": "v"}, "stdin": "x", "options": {"timeout": 3, "on_completion": follow}}
    task = Step("t", depends_on=["p"], wait_for=["s"], on_failure="continue", task=body, plain=True)
    ask = Step("q", kind="approval", approval="?", timeout=60.0)
    definition = Definition("w", phases=[Phase("p", progress=(0, 50), tasks=[task, ask])], on_failure=[task])
    flat = {"id": "t", "command": ["a"], "timeout": 3, "on_completion": {"submit": {"command": ["b"]}},
            "depends_on": ["p"], "wait_for": ["s"], "on_failure": "continue"}  # fmt: skip
    assert shown(definition) == {
        "name": "w", "on_failure": [flat],
        "phases": [{"id": "p", "progress": (0, 50), "tasks": [flat, {"id": "q", "approval": "?", "timeout": 60.0}]}],
    }  # fmt: skip
    [whole] = shown(definition, secrets=True)["on_failure"]
    assert whole == flat | {"env": {"K": "v"}, "stdin": "x", "on_completion": follow}
