"""How a workflow advances: tables of the decisions about a node, and what runs again of small graphs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from orchestr8d.core import dag
from orchestr8d.core.workflow import OVER, Head, Node, NodeState, Phase, RetryPhase, Step

Edges = list[tuple[str, str]]


def node(name: str, state: str = "waiting", **more: Any) -> Node:
    """A task, or a phase where it has no phase; `rule` is its Step or Phase."""
    kind = more.pop("kind", "task" if more.get("phase") else "phase")
    rule = more.pop("rule", Phase(name) if kind == "phase" else Step(name, task={"command": ["true"]}, plain=True))
    fields: dict[str, Any] = {
        "workflow_id": "w", "id": name, "position": 0, "kind": kind, "state": state, "phase": None, "parent": None,
        "index": None, "depth": 0, "round": 0, "task_id": None, "waits": 0, "signals": 0, "open": 0, "failed": 0,
        "running": 0, "max_parallel": None, "asked": 0, "wake_at": None, "wake_is_delay": 0, "started_at": None,
        "completed_at": None, "rule": msgspec.json.encode(rule).decode(), "item": None, "feedback": None,
    }  # fmt: skip
    return Node(**(fields | more))


def head(**more: Any) -> Head:
    numbers = dict.fromkeys(Head.__struct_fields__, 0)
    nothing = ("template", "callback_url", "parent_task", "on_cancel", "ending", "max_parallel", "error")
    return Head(**(numbers | dict.fromkeys(nothing) | {"id": "w", "name": "w", "status": "running"} | more))  # type: ignore[arg-type]


def graph(text: str) -> tuple[dict[str, Node], Edges]:
    """`p: a b<a c<b=failed; q<p: d` - phases with their tasks, `<` what they depend on, `=` their state. Phases that
    are not `waiting` or `skipped` have begun."""
    nodes: dict[str, Node] = {}
    edges: Edges = []
    for part in text.split(";"):
        first, _, rest = part.partition(":")
        phase = ""
        for word in (first, *rest.split()):
            name, _, state = word.strip().partition("=")
            name, *needs = name.split("<")
            edges += [(need, name) for need in needs]
            phase = phase or name
            begun = None if state in ("waiting", "skipped") else 1
            nodes[name] = node(
                name, state or "completed", phase=None if name == phase else phase, position=len(nodes),
                started_at=begun, parent=name.partition(".")[0] if "." in name else None,
            )  # fmt: skip
    return nodes, edges


STEPS = {
    "plain": Step("t", task={}, plain=True), "when": Step("t", task={}, plain=True, when="x"),
    "late": Step("t", task={}, plain=True, when="signals.go", wait_for=["go"]),
    "timed": Step("t", task={}, plain=True, not_before="+1s"), "rendered": Step("t", task={"prompt": "{{ x }}"}),
    "resumed": Step("t", task={}, plain=True, resume_from="a"),
    "delayed": Step("t", task={"options": {"delay": 5}}, plain=True),
    "held": Step("t", task={}, plain=True, wait_for=["go", "on"]),
}  # fmt: skip


@pytest.mark.parametrize(
    ("step", "state", "unsent", "room", "wake_at", "then"),
    [
        ("plain", "waiting", 0, True, None, "open"), ("plain", "waiting", 0, False, None, "full"),
        ("plain", "full", 0, True, None, "open"), ("plain", "full", 0, False, None, "full"),
        ("when", "waiting", 0, True, None, "when"), ("when", "when", 0, True, None, "open"),
        ("when", "when", 0, False, None, "full"), ("late", "waiting", 1, True, None, "held"),
        ("late", "held", 0, True, None, "render"), ("late", "waiting", 0, True, None, "render"),
        ("timed", "waiting", 0, True, None, "when"), ("timed", "when", 0, True, 5, "timed"),
        ("timed", "when", 0, True, None, "open"), ("timed", "timed", 0, True, None, "open"),
        ("held", "waiting", 2, True, None, "held"), ("held", "held", 0, False, None, "full"),
        ("held", "timed", 1, True, None, "held"), ("rendered", "waiting", 0, True, None, "render"),
        ("rendered", "full", 0, True, None, "render"), ("rendered", "render", 0, True, None, "open"),
        ("resumed", "waiting", 0, True, None, "render"), ("delayed", "waiting", 0, True, None, "render"),
    ],
)  # fmt: skip
def test_the_way_of_a_task(
    step: str, state: NodeState, unsent: int, room: bool, wake_at: int | None, then: NodeState
) -> None:
    one = node("t", state, phase="p", wake_at=wake_at, rule=STEPS[step])
    assert dag.next_state(one, STEPS[step], unsent, room=room) == then


def test_a_fans_child_waits_for_nothing_but_room() -> None:
    """What its fan has waited for: only `when` is its own."""
    for name, then in (("when", "render"), ("timed", "open"), ("held", "open"), ("plain", "open")):
        child = node("f.0", phase="p", parent="f", index=0)
        assert dag.next_state(child, STEPS[name], 2 if name == "held" else 0, room=True) == then, name
        assert dag.next_state(child, STEPS[name], 0, room=False) == "full", name
    fan = node("f", phase="p", kind="fan")
    assert dag.next_state(fan, STEPS["when"], 0, room=True) == "render"


def test_what_an_end_means() -> None:
    """For dependents, for its phase, for the workflow; by state and rule."""
    rules = {"fail": Step("t"), "continue": Step("t", on_failure="continue")}
    rules["again"] = Step("t", on_failure=RetryPhase("p", 1))
    for state in ("completed", "skipped", "failed", "cut", "cancelled"):
        for name, rule in rules.items():
            one = node("t", state, phase="p")
            good = state in ("completed", "skipped")
            forgiven = name == "continue" and state in ("failed", "cancelled")
            told = dag.satisfies(one, rule), dag.counts(one, rule), dag.fails_workflow(one, rule)
            by_itself = state in ("failed", "cancelled")
            assert told == (good or forgiven, not good and not forgiven, by_itself and not forgiven), (state, name)
        assert dag.satisfies(node("p", state), None) == (state in ("completed", "skipped"))
    assert not dag.fails_workflow(node("f.0", "failed", phase="p", parent="f"), rules["fail"])


@pytest.mark.parametrize(
    ("more", "of_head", "asks"),
    [
        ({}, {}, True), ({"asked": 1}, {}, True), ({"asked": 2}, {}, False), ({}, {"ending": "fail"}, False),
        ({}, {"ending": "cancel"}, False), ({"parent": "f"}, {}, False), ({"phase": "on_failure"}, {}, False),
    ],
)  # fmt: skip
def test_who_has_a_phase_run_again(more: dict[str, Any], of_head: dict[str, Any], asks: bool) -> None:
    one = node("t", "open", **{"phase": "p", **more})
    assert dag.asks_again(head(**of_head), one, Step("t", on_failure=RetryPhase("p", 2))) == asks
    assert not any(dag.asks_again(head(), one, Step("t", on_failure=rule)) for rule in ("fail", "continue"))


def test_what_is_active_waits_and_takes_room() -> None:
    moving = {"when", "timed", "full", "render"}
    for kind in ("task", "fan", "approval", "workflow"):
        for state in ("waiting", *moving, "held", "open", "again", *OVER):
            one = node("t", state, phase="p", kind=kind, open=1)
            runs = state == "open" and kind in ("task", "workflow")
            assert dag.is_active(one) == (runs or state in moving), (kind, state)
            assert dag.is_waiting(one) == (state == "held" or (state == "open" and kind == "approval")), (kind, state)
            assert dag.takes_room(one) == (kind in ("task", "workflow") and state in ("render", "open")), (kind, state)
    blocked = node("t", "open", phase="p", kind="workflow", open=0)
    assert dag.is_waiting(blocked) and not dag.is_active(blocked)
    assert dag.has_room([head(), node("p", max_parallel=2, running=1)])
    assert not dag.has_room([head(max_parallel=1, running=1), node("p")])


@pytest.mark.parametrize(
    ("of_head", "has_rollback", "failed", "status", "rollback", "error"),
    [
        ({}, True, [], "completed", False, None),
        ({"failed": 1}, False, ["a"], "failed", False, "failed: a"),
        ({"failed": 2}, True, ["a", "b"], "failed", True, "failed: a, b"),
        ({"failed": 1, "rollback": 1}, True, ["a"], "failed", False, "failed: a"),
        ({"failed": 9}, False, list("abcdefg"), "failed", False, "failed: a, b, c, d, e, …"),
        ({"failed": 1}, False, [], "failed", False, "failed"),
        ({"ending": "fail", "failed": 1}, True, ["a"], "failed", True, "failed: a"),
        ({"ending": "cancel", "failed": 1}, True, ["a"], "cancelled", False, "cancelled on request"),
        ({"ending": "cancel", "on_cancel": "rollback"}, True, [], "cancelled", True, "cancelled on request"),
        ({"ending": "cancel", "on_cancel": "rollback"}, False, [], "cancelled", False, "cancelled on request"),
        ({"ending": "cancel", "on_cancel": "rollback", "rollback": 1}, True, [], "cancelled", False,
         "cancelled on request"),
    ],
)  # fmt: skip
def test_what_becomes_of_a_workflow(
    of_head: dict[str, Any], has_rollback: bool, failed: list[str], status: str, rollback: bool, error: str | None
) -> None:
    told = dag.verdict(head(**of_head), failed, has_rollback=has_rollback)
    said = None if told.error is None else told.error.message
    assert (told.status, told.rollback, said) == (status, rollback, error)


def test_the_status_of_a_workflow_that_has_begun() -> None:
    for paused, active, waiting, rollback, status in (
        (0, 1, 0, 0, "running"), (0, 0, 0, 0, "running"), (0, 0, 1, 0, "blocked"), (0, 1, 1, 0, "running"),
        (1, 0, 1, 0, "paused"), (1, 1, 0, 0, "paused"), (0, 0, 1, 1, "running"),
    ):  # fmt: skip
        told = dag.standing(head(paused=paused, active=active, waiting=waiting, rollback=rollback))
        assert told == status, (paused, active, waiting, rollback)


def test_how_phases_and_fans_end() -> None:
    for failed, ending, cancelled, state in (
        (0, None, 0, "completed"), (1, None, 0, "failed"), (1, "cancel", 0, "failed"), (1, "fail", 1, "cancelled"),
        (0, "cancel", 2, "cancelled"), (1, None, 1, "failed"),
    ):  # fmt: skip
        assert dag.phase_state(node("p", "open", failed=failed), ending, cancelled) == state
    children = [node(f"f.{n}", "failed" if n % 2 else "skipped", phase="p", parent="f") for n in range(14)]
    assert dag.fan_error(node("f", "open", phase="p", kind="fan"), children) is None
    error = dag.fan_error(node("f", "open", phase="p", kind="fan", failed=7), children)
    assert error is not None
    assert (error.kind, error.message) == ("dependency_failed", "7 of 14 failed: f.1, f.3, f.5, f.7, f.9, …")


# -- running again


@pytest.mark.parametrize(
    ("text", "phases", "tasks", "begin", "reopen"),
    [
        ("p: a b", "p", "a b", "p", ""),
        ("p: a; q<p: b; r: c", "p", "a b", "p q", ""),
        ("p: a; q<p: b; r<q: c; s<r: d", "q", "b c d", "q r s", ""),
        # By a task of it, not by itself: only some of another phase's tasks, and who waits for that phase.
        ("p: a b; q: c<a d; r<q: e", "p", "a b c e", "p r", "q"),
        ("p: a; q: b c<b; r: d<c", "q", "b c d", "q", "r"),
        # A task that depends on a phase, a phase that depends on a task.
        ("p: a; q: b<p c; r<b: d", "p", "a b d", "p r", "q"),
        # An empty phase between.
        ("p: a; e<p; q<e: b", "p", "a b", "p e q", ""),
        # A fan's children with it.
        ("p: f f.0 f.1; q: b<f", "p", "f f.0 f.1 b", "p", "q"),
        # Rollback never.
        ("p: a; on_failure: r", "p", "a", "p", ""),
        # What is in a phase that was over before it could begin stays, unless that begins now.
        ("p: a; q=skipped: b<a=skipped", "p", "a", "p", ""),
        ("p: a; q<p=skipped: b<a=skipped", "p", "a b", "p q", ""),
        ("p: a; q=skipped: b<a=skipped; r<q: c", "p", "a", "p", ""),
        # One that has not begun yet goes on waiting: see again._rewire.
        ("p: a; q=waiting: b<a=waiting", "p", "a b", "p", "q"),
        ("p: a; q: b; r: c", "p r", "a c", "p r", ""),
    ],
)  # fmt: skip
def test_what_follows_from_phases(text: str, phases: str, tasks: str, begin: str, reopen: str) -> None:
    nodes, edges = graph(text)
    found = dag.downstream(nodes, edges, phases.split())
    assert (found.tasks, found.begin, found.reopen) == (set(tasks.split()), set(begin.split()), set(reopen.split()))


def asking(text: str, **roots: str) -> tuple[dict[str, Node], Edges]:
    """Tasks that failed, with the phase that each wants again."""
    nodes, edges = graph(text)
    for name, root in roots.items():
        rule = Step(name, on_failure=RetryPhase(root, 1))
        nodes[name].state, nodes[name].rule = "again", msgspec.json.encode(rule).decode()
    return nodes, edges


@pytest.mark.parametrize(
    ("text", "roots", "wishes"),
    [
        ("p: a b", {}, []),
        ("p: a b", {"a": "p"}, [("p", "a")]),
        ("p: a b", {"b": "p", "a": "p"}, [("p", "a")]),
        ("p: a; q: b", {"b": "q", "a": "p"}, [("p", "a"), ("q", "b")]),
        # What is within another wish is no wish of its own, wherever it stands.
        ("p: a; q<p: b c", {"b": "q", "c": "p"}, [("p q", "b")]),
        ("q<p: b c; p: a", {"b": "q", "c": "p"}, [("p q", "b")]),
        ("p: a; q<p: b; r<q: c", {"c": "q"}, [("q", "c")]),
        # Each has the other in it.
        ("p: a; q: b; r<p<q: c d", {"c": "p", "d": "q"}, [("p q", "c")]),
        # One has the other in it, which does not follow from what that wants.
        ("p: a; x<p: b; y<p: c", {"b": "p", "c": "y"}, [("p y", "b")]),
    ],
)  # fmt: skip
def test_what_tasks_ask_for(text: str, roots: dict[str, str], wishes: list[tuple[str, str]]) -> None:
    found = dag.wishes(*asking(text, **roots))
    assert [(" ".join(sorted(wish.phases)), wish.asker.id) for wish in found] == wishes


def test_when_nothing_runs_any_more() -> None:
    at_rest = {"waiting", "timed", "held", "again", "completed", "failed", "cut", "cancelled", "skipped"}
    for kind in ("task", "fan", "approval", "workflow", "phase"):
        for state in (*at_rest, "when", "full", "render", "open"):
            nodes = {"x": node("x", state, phase=None if kind == "phase" else "p", kind=kind)}
            rerun = dag.Rerun(set(), {"x"}, set()) if kind == "phase" else dag.Rerun({"x"}, set(), set())
            quiet = state in at_rest or (state == "open" and kind in ("fan", "approval", "phase"))
            assert (dag.last_busy(nodes, rerun) is None) == quiet, (kind, state)


def test_the_last_that_runs() -> None:
    nodes, edges = graph("p: a b=open c=open; q<p=when: d=waiting")
    rerun = dag.downstream(nodes, edges, ["p"])
    for name in ("q", "c", "b"):
        last = dag.last_busy(nodes, rerun)
        assert last is not None and last.id == name
        nodes[name].state = "held"
    assert dag.last_busy(nodes, rerun) is None


@pytest.mark.parametrize(
    ("text", "tasks", "begin", "reopen"),
    [
        ("p: a", "", "", ""),
        ("p=failed: a=failed b", "a", "", "p"),
        ("p=failed: a=failed b<a=cut c=cancelled d=skipped", "a b c", "", "p"),
        ("p: a=failed", "a", "", "p"),
        # With a child its fan, but no child that ended well.
        ("p=failed: f=failed f.0 f.1=failed", "f f.1", "", "p"),
        # What depends on something of that waits for it: it begins again.
        ("p: a=failed; q<p=failed: b=failed c", "a b", "q", "p"),
        ("p: a=failed; q<a=failed: b=failed", "a b", "q", "p"),
        ("p: a; q<p=failed: b=failed", "b", "", "q"),
    ],
)  # fmt: skip
def test_what_a_person_tries_again(text: str, tasks: str, begin: str, reopen: str) -> None:
    found = dag.unfinished(*graph(text))
    assert (found.tasks, found.begin, found.reopen) == (set(tasks.split()), set(begin.split()), set(reopen.split()))


def test_a_phase_that_never_began_is_to_begin() -> None:
    nodes, edges = graph("p=failed: a=failed; q<p=cut: b=cut")
    nodes["q"].started_at = None
    found = dag.unfinished(nodes, edges)
    assert (found.begin, found.reopen) == ({"q"}, {"p"})


def test_for_how_much_a_node_waits() -> None:
    fail, lax = Step("t"), Step("t", on_failure="continue")
    needed = [node("a", "completed", phase="p"), node("b", "failed", phase="p"), node("c", "open", phase="p")]
    for rule, left in ((fail, 2), (lax, 1)):
        rules: dict[str, Step | None] = {"a": fail, "b": rule, "c": fail}
        assert dag.waits_of(node("t", phase="q"), needed, node("q", "open"), rules) == left
        assert dag.waits_of(node("t", phase="q"), needed, node("q", "waiting"), rules) == left + 1
        assert dag.waits_of(node("q"), needed, None, rules) == left


def test_the_counts_of_a_workflow() -> None:
    nodes, _ = graph("p: a=open b=failed c=held d=again e=cut f; q=failed: g=cut; on_failure: r=open")
    nodes["q"].started_at = None
    steps = {name: one.read_step() for name, one in nodes.items() if one.kind != "phase"}
    assert dag.tally(nodes.values(), steps) == {
        "open": 3, "active": 1, "waiting": 1, "again": 1, "failed": 2, "running": 1
    }  # fmt: skip
