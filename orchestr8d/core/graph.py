"""A workflow as a graph to be drawn: phases, tasks, what they are and how they stand; of a definition, or of a run."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from orchestr8d.core.workflow import ROLLBACK, Definition, NodeView, Phase, Step, WorkflowView

# What a state looks like where there is no room or no colour.
MARKS = {
    "completed": "✓", "failed": "✗", "cancelled": "⊘", "skipped": "»", "running": "●", "queued": "◌",
    "retrying": "↻", "parked": "‖", "needs_input": "?",
}  # fmt: skip
WAITS = "○"


def mark(status: str) -> str:
    return MARKS.get(status, WAITS)


class Vertex(msgspec.Struct, frozen=True):
    """A phase or a task. A fan is one vertex: `counts` has how many of its children are in which state."""

    id: str
    kind: Literal["phase", "task"]
    phase: str | None
    status: str
    # Of a phase its title; of a task the agent, command, question or template that it is for.
    title: str = ""
    counts: dict[str, int] = {}

    @property
    def told(self) -> str:
        """What is drawn below its id."""
        return self.title if not self.counts else f"{sum(self.counts.values())} of them: {counted(self.counts)}"


class Graph(msgspec.Struct, frozen=True):
    """`edges` are (from, to), as they were declared."""

    name: str
    phases: list[Vertex]
    tasks: list[Vertex]
    edges: Sequence[tuple[str, str]]

    def sections(self) -> list[tuple[Vertex | None, list[Vertex]]]:
        """Each phase with its tasks, in the definition's order; last those of no phase, and the rollback's."""
        inside: dict[str | None, list[Vertex]] = {phase.id: [] for phase in self.phases}
        for task in self.tasks:
            inside.setdefault(task.phase, []).append(task)
        known: list[tuple[Vertex | None, list[Vertex]]] = [(phase, inside.pop(phase.id)) for phase in self.phases]
        rollback = inside.pop(ROLLBACK, [])
        known += [(None, [task for tasks in inside.values() for task in tasks])] if inside else []
        if rollback:
            at = Vertex(ROLLBACK, "phase", None, summary([task.status for task in rollback]), "after a failure")
            known.append((at, rollback))
        return known


def counted(counts: dict[str, int]) -> str:
    """`3 completed, 1 failed`."""
    return ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), key=lambda item: -item[1]))


def summary(states: Iterable[str]) -> str:
    """One state for many."""
    seen = set(states)
    if len(seen) == 1:
        return seen.pop()
    for status in ("running", "failed", "cancelled"):
        if status in seen:
            return status
    return "running" if "completed" in seen and seen - {"completed", "skipped"} else "pending"


def of_view(view: WorkflowView) -> Graph:
    """The graph of a workflow as it stands."""
    fans: dict[str, Counter[str]] = {}
    for task in view.tasks:
        if task.node.parent is not None:
            fans.setdefault(task.node.parent, Counter())[status_of(task)] += 1
    phases = [
        Vertex(p.node.id, "phase", None, status_of(p), p.node.read_phase().title or "")
        for p in view.phases
        if p.node.id != ROLLBACK  # its tasks have been declared, but not in a phase
    ]
    tasks = [
        Vertex(t.node.id, "task", t.node.phase, status_of(t), what(t.node.read_step()), dict(fans.get(t.node.id, {})))
        for t in view.tasks
        if t.node.parent is None
    ]
    return Graph(view.workflow.name, phases, tasks, view.edges)


def of_definition(definition: Definition) -> Graph:
    """The graph of what has not run: everything is pending."""
    phases = [Vertex(phase.id, "phase", None, "pending", phase.title or "") for phase in definition.phases]
    steps = [(phase.id, step) for phase in definition.phases for step in phase.tasks]
    steps += [(ROLLBACK, step) for step in definition.on_failure]
    tasks = [Vertex(step.id, "task", phase, "pending", what(step)) for phase, step in steps]
    declared: list[Phase | Step] = [*definition.phases, *(step for _, step in steps)]
    return Graph(definition.name, phases, tasks, [(before, one.id) for one in declared for before in one.depends_on])


def status_of(seen: NodeView) -> str:
    """A task's state is that of its row; a phase that has begun is `running`, one that was cut off `failed`."""
    if seen.task is not None:
        return seen.task.status
    state = "failed" if seen.node.state == "cut" else seen.node.state
    if state in ("completed", "failed", "cancelled", "skipped"):
        return state
    return "running" if state == "open" else "pending"


def what(step: Step) -> str:
    """What a task is for, in a few words: its title, else its question, command, agent or template."""
    if step.approval is not None:
        return f"approval: {step.approval}"
    if step.workflow is not None:
        return f"workflow {step.workflow}"
    body = step.task or {}
    title = body.get("title") or (body.get("options") or {}).get("title")
    said = title or (_words(body["command"]) if body.get("command") else _agent(body.get("agent")))
    return f"for each: {said}" if step.for_each is not None else said


def done(seen: NodeView) -> str:
    """The same, with what its templates gave where they have values."""
    if seen.task is None or seen.node.kind != "task":
        return what(seen.node.read_step())
    spec = seen.task.read_spec()
    agent = spec.agent.name if spec.agent is not None else ""
    return spec.title or (_words(spec.command) if spec.command else agent) or what(seen.node.read_step())


def _agent(agent: Any) -> str:
    """Of a list those that may be meant, the first one first."""
    return " | ".join(map(str, agent)) if isinstance(agent, list) else str(agent or "")


def _words(command: Any) -> str:
    return shlex.join(map(str, command)) if isinstance(command, list) else str(command)


def depths(ids: Sequence[str], edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """How many steps after the first ones each stands. What stands in a circle (phases may, though their tasks do not)
    is taken in the order of `ids`."""
    after: dict[str, set[str]] = {one: set() for one in ids}
    left = dict.fromkeys(ids, 0)
    for before, one in dict.fromkeys(edges):
        if before in after and one in after and before != one:
            after[before].add(one)
            left[one] += 1
    depth: dict[str, int] = {}
    ready = [one for one in ids if left[one] == 0]
    waiting = iter(ids)
    found = dict.fromkeys(ids, 0)
    while len(depth) < len(found):
        if not ready:
            ready = [next(one for one in waiting if one not in depth)]
        for one in ready:
            depth[one] = found[one]
        following: list[str] = []
        for one in ready:
            for later in after[one]:
                if later in depth:
                    continue
                found[later] = max(found[later], depth[one] + 1)
                left[later] -= 1
                if left[later] == 0:
                    following.append(later)
        ready = following
    return depth
