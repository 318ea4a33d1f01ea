"""Views of workflows for tests of what is made of them: a definition in a few words, and how it stands."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from orchestr8d.core.model import Task
from orchestr8d.core.workflow import Definition, Node, NodeView, Phase, Step, Workflow, WorkflowView


def row(kind: Any, /, **values: Any) -> Any:
    """A row with these values; every other column is as empty as it may be."""
    return kind(**(_empty(kind) | values))


@cache
def _empty(kind: Any) -> dict[str, Any]:
    return {f.name: {str: "", int: 0}.get(f.type) for f in msgspec.structs.fields(kind)}


def view(definition: Definition, stands: dict[str, Any] | None = None, **workflow: Any) -> WorkflowView:
    """`stands`: of a local id its task's columns, beside them `result`; a child of a fan by `FAN.0`."""
    stands = stands or {}
    steps = [(phase.id, step) for phase in definition.phases for step in phase.tasks]
    steps += [("on_failure", step) for step in definition.on_failure]
    tasks: list[NodeView] = []
    children: dict[str, list[str]] = {}
    for name in stands:
        children.setdefault(name.rpartition(".")[0], []).append(name)
    for phase, step in steps:
        tasks.append(_task(step, phase, step.id, stands.get(step.id, {})))
        fan = enumerate(children.get(step.id, []))
        tasks += [_task(step, phase, name, stands[name], parent=step.id, index=i) for i, name in fan]
    phases = [NodeView(_node(phase, phase.id, kind="phase", state=_state(phase, tasks)), None) for phase in
              definition.phases]  # fmt: skip
    if definition.on_failure:
        phases.append(NodeView(_node(Phase("on_failure"), "on_failure", kind="phase", state="waiting"), None))
    declared: list[Phase | Step] = [*definition.phases, *(step for _, step in steps)]
    edges = [(before, one.id) for one in declared for before in one.depends_on]
    columns = {"status": "running", "cwd": "/", "params": "{}", "tags": "[]", "metadata": "{}", "milestones": "[]"}
    columns |= {"id": "w-1", "name": definition.name, "definition": msgspec.json.encode(definition).decode()}
    return WorkflowView(row(Workflow, **(columns | workflow)), phases, tasks, edges, cost_usd=1.25)


def _state(phase: Phase, tasks: list[NodeView]) -> str:
    states = {one.task.status for one in tasks if one.task and one.node.phase == phase.id}
    return "completed" if states == {"completed"} else "waiting" if states <= {"pending"} else "open"


def _task(step: Step, phase: str, name: str, stands: dict[str, Any], **columns: Any) -> NodeView:
    given = {"status": "pending", "spec": "{}"} | {k: v for k, v in stands.items() if k not in ("result", "round")}
    times = {k: v for k, v in given.items() if k in ("started_at", "completed_at")}
    node = _node(step, name, kind="approval" if step.approval else "task", state="open", phase=phase,
                 round=stands.get("round", 0), **times, **columns)  # fmt: skip
    return NodeView(node, row(Task, **given), stands.get("result"))


def _node(rule: Step | Phase, name: str, **columns: Any) -> Node:
    made: Node = row(Node, id=name, rule=msgspec.json.encode(rule).decode(), **columns)
    return made
