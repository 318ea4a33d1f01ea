"""How a workflow advances: where a node goes next, what an end means to others, what runs again. Decisions only; the
store walks along the edges and applies them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from orchestr8d.core.model import Error
from orchestr8d.core.workflow import (
    OVER,
    ROLLBACK,
    Head,
    Node,
    NodeState,
    RetryPhase,
    Step,
    WorkflowStatus,
)

# Dependents of one in these go on; of one that failed, if its rule says `continue`.
SATISFYING: Final = frozenset({"completed", "skipped"})
# States in which a node moves on by itself: in all of them, or if it is a task that is released.
_MOVING: Final = frozenset({"when", "timed", "full", "render"})
# In which nobody has to wait for it before its phase may run again.
_AT_REST: Final = OVER | {"waiting", "timed", "held", "again"}

# Options that no row of a task that is held has: they are read when it is released.
_AT_RELEASE: Final = ("delay", "run_at", "unique_key", "on_conflict")
# What is done of a node's way before `state`: the next state is the first that its rule asks for.
_WAY: Final[tuple[NodeState, ...]] = ("when", "timed", "held", "full", "render", "open")


def decides_late(step: Step) -> bool:
    """Whether its `when` names signals: then it is decided when those have come, with the templates."""
    return step.when is not None and bool(step.wait_for) and "signals" in step.when


def needs_decision(node: Node, step: Step) -> bool:
    """Whether its `when` or its time is to be evaluated as soon as its dependencies are met."""
    if node.parent is not None:  # what its fan has waited for
        return False
    early = step.when is not None and not decides_late(step) and node.kind != "fan"
    return early or step.not_before is not None


def needs_rendering(node: Node, step: Step) -> bool:
    """Whether something of it is to be evaluated before it is released."""
    own_when = step.when is not None and (node.parent is not None or decides_late(step))
    options = (step.task or {}).get("options") or {}
    timed = any(name in options for name in _AT_RELEASE)
    return node.kind != "task" or own_when or not step.plain or step.resume_from is not None or timed


def next_state(node: Node, step: Step, unsent: int, *, room: bool) -> NodeState:
    """Where a task goes from its state. `unsent`: signals that it waits for; `room`: whether its phase, fan and
    workflow let one more run now."""
    done = -1 if node.state == "waiting" else _WAY.index(node.state)
    asks = {
        "when": needs_decision(node, step),
        "timed": node.wake_at is not None and node.state == "when",
        "held": unsent > 0 and node.parent is None,
        # Whether there is room is asked again of one that waited for it.
        "full": not room,
        "render": needs_rendering(node, step),
        "open": True,
    }
    if node.state == "full":
        done -= 1
    return next(state for state in _WAY[done + 1 :] if asks[state])


def needs_room(node: Node) -> bool:
    """Whether it counts under a max_parallel once it runs; a fan's children do in its place."""
    return node.kind in ("task", "workflow")


def takes_room(node: Node) -> bool:
    """Whether it counts now: what is about to run does."""
    return needs_room(node) and node.state in ("render", "open")


def has_room(scopes: Iterable[Head | Node]) -> bool:
    return all(scope.max_parallel is None or scope.running < scope.max_parallel for scope in scopes)


def is_active(node: Node) -> bool:
    """Whether it is under way, or will be without a person."""
    is_open = node.state == "open" and (node.kind == "task" or (node.kind == "workflow" and node.open > 0))
    return is_open or node.state in _MOVING


def is_waiting(node: Node) -> bool:
    """Whether only a person can move it on."""
    asks = node.kind == "approval" or (node.kind == "workflow" and node.open == 0)
    return node.state == "held" or (node.state == "open" and asks)


def satisfies(node: Node, step: Step | None) -> bool:
    """Whether what depends on a node that is over goes on. `step` is None of a phase."""
    if node.state in SATISFYING:
        return True
    # What was cut off cuts off, whatever its rule says.
    return step is not None and step.on_failure == "continue" and node.state in ("failed", "cancelled")


def counts(node: Node, step: Step | None) -> bool:
    """Whether its end makes its phase fail."""
    return node.state in ("failed", "cut", "cancelled") and not satisfies(node, step)


def fails_workflow(node: Node, step: Step) -> bool:
    """Whether it failed by itself, and that counts."""
    return node.state in ("failed", "cancelled") and node.parent is None and not satisfies(node, step)


def asks_again(head: Head, node: Node, step: Step) -> bool:
    """Whether a task that failed has its phase run again."""
    rule = step.on_failure
    return (
        isinstance(rule, RetryPhase) and node.asked < rule.max and head.ending is None and node.parent is None
        and node.phase != ROLLBACK
    )  # fmt: skip


def cut_off(by: Node) -> Error:
    """Why what depends on `by` never starts."""
    what = "phase" if by.kind == "phase" else "task"
    state = "failed" if by.state == "cut" else by.state
    return Error("dependency_failed", f"{what} {by.id}, on which this one depends, is {state}")


def never_begun(phase: Node) -> Error:
    """Why the tasks never start of a phase that was cut off, or that failed before."""
    return Error("dependency_failed", f"its phase {phase.id} never began")


def phase_state(phase: Node, ending: str | None, cancelled: int) -> NodeState:
    """How a phase ends, all of whose members are over."""
    if ending is not None and cancelled:
        return "cancelled"
    return "failed" if phase.failed else "completed"


def fan_error(fan: Node, children: Sequence[Node]) -> Error | None:
    """Why a fan fails whose children are over; None when it is completed."""
    if not fan.failed:
        return None
    wrong = [child.id for child in children if child.state not in SATISFYING]
    shown = ", ".join(wrong[:5]) + (", …" if len(wrong) > 5 else "")
    return Error("dependency_failed", f"{len(wrong)} of {len(children)} failed: {shown}")


def standing(head: Head) -> WorkflowStatus:
    """The status of a workflow that has begun and is not over."""
    if head.paused:
        return "paused"
    if head.waiting and not head.active and not head.rollback:
        return "blocked"
    return "running"


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of a workflow, all of whose tasks are over: rollback runs, or it ends."""

    status: WorkflowStatus
    rollback: bool = False
    error: Error | None = None


def verdict(head: Head, failed: Sequence[str], *, has_rollback: bool) -> Verdict:
    """`failed`: ids of the tasks that failed by themselves."""
    if head.ending == "cancel":
        # Of one that never began there is nothing to roll back.
        begun = head.started_at is not None
        again = has_rollback and begun and head.on_cancel == "rollback" and not head.rollback
        return Verdict("cancelled", again, Error("cancelled", "cancelled on request"))
    if not head.failed and head.ending is None:
        return Verdict("completed")
    shown = ", ".join(failed[:5]) + (", …" if len(failed) > 5 else "")
    error = Error("dependency_failed", f"failed: {shown}" if shown else "failed")
    return Verdict("failed", has_rollback and not head.rollback, error)


# -- running again


class Rerun(msgspec.Struct):
    """What runs again: tasks, phases that begin again, and phases that go on since only some of their tasks do."""

    tasks: set[str]
    begin: set[str]
    reopen: set[str]


class Wish(msgspec.Struct):
    """Phases that are to run again together: of what follows from one a task asks for another. `asker`: the first of
    those who ask."""

    phases: frozenset[str]
    rerun: Rerun
    asker: Node


def downstream(nodes: Mapping[str, Node], edges: Iterable[tuple[str, str]], phases: Iterable[str]) -> Rerun:
    """Phases, their tasks, and all that follows from any of these; but not what is in a phase that was over before it
    could begin, and that nothing lets begin now."""
    after: dict[str, list[str]] = {}
    members: dict[str, list[str]] = {}
    for src, dst in edges:
        after.setdefault(src, []).append(dst)
    for node in nodes.values():
        container = node.parent or node.phase
        if container is not None and node.phase != ROLLBACK:
            members.setdefault(container, []).append(node.id)
    found = Rerun(set(), set(), set())
    todo = list(phases)
    while todo:
        node = nodes[todo.pop()]
        seen = found.begin if node.kind == "phase" else found.tasks
        if node.id in seen or (node.phase is not None and node.phase not in found.begin and _never(nodes[node.phase])):
            continue
        seen.add(node.id)
        todo += [*after.get(node.id, ()), *members.get(node.id, ())]
        if node.kind != "phase" and node.phase is not None and node.phase not in found.reopen:
            # Its phase ends again, and so whoever waits for that.
            found.reopen.add(node.phase)
            todo += after.get(node.phase, ())
    found.reopen -= found.begin
    return found


def _never(phase: Node) -> bool:
    return phase.state in OVER and phase.started_at is None


def wishes(nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]]) -> list[Wish]:
    """What tasks ask for, by the order of their phases; without what is within another wish."""
    asking: dict[str, list[Node]] = {}
    for node in nodes.values():
        if node.state == "again":
            asking.setdefault(_root_of(node), []).append(node)
    found = {wish.phases: wish for wish in (_wish(nodes, edges, asking, root) for root in asking)}
    outer = [wish for wish in found.values() if not any(wish.phases < other for other in found)]
    return sorted(outer, key=lambda wish: min(nodes[phase].position for phase in wish.phases))


def _wish(
    nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]], asking: Mapping[str, Sequence[Node]], root: str
) -> Wish:  # fmt: skip
    phases = frozenset({root})
    while True:
        rerun = downstream(nodes, edges, phases)
        more = phases | {other for other, askers in asking.items() if any(node.id in rerun.tasks for node in askers)}
        if more == phases:
            first = min((node for phase in phases for node in asking[phase]), key=lambda node: node.position)
            return Wish(phases, rerun, first)
        phases = more


def _root_of(node: Node) -> str:
    rule = node.read_step().on_failure
    assert isinstance(rule, RetryPhase)
    return rule.retry_phase


def is_busy(node: Node) -> bool:
    """Whether it has to end before a phase of which it follows runs again."""
    parts = node.kind in ("phase", "fan") and node.state == "open"  # these are looked at themselves
    asks = node.kind == "approval" and node.state == "open"
    return not (node.state in _AT_REST or parts or asks)


def last_busy(nodes: Mapping[str, Node], rerun: Rerun) -> Node | None:
    """Of what runs of it, or is about to, the last; None when it may run again."""
    busy = (node for node_id in rerun.tasks | rerun.begin if is_busy(node := nodes[node_id]))
    return max(busy, key=lambda node: (node.position, node.index or 0), default=None)


def unfinished(nodes: Mapping[str, Node], edges: Sequence[tuple[str, str]]) -> Rerun:
    """What a person's retry runs again: all that did not end well. A phase begins that never began, or that depends on
    something of that."""
    wrong = {node.id for node in nodes.values() if node.state in ("failed", "cut", "cancelled")}
    phases = {node_id for node_id in wrong if nodes[node_id].kind == "phase"}
    tasks = wrong - phases
    tasks |= {parent for node_id in tasks if (parent := nodes[node_id].parent) is not None}
    phases |= {phase for node_id in tasks if (phase := nodes[node_id].phase) is not None}
    begin = {phase for phase in phases if nodes[phase].started_at is None}
    begin |= {dst for src, dst in edges if dst in phases and src in tasks | phases}
    return Rerun(tasks, begin, phases - begin)


def waits_of(node: Node, needed: Sequence[Node], phase: Node | None, rules: Mapping[str, Step | None]) -> int:
    """How many of what a node depends on are not over in a way that lets it go on; `phase` is its own (None of a
    phase), for whose beginning it waits."""
    left = sum(1 for other in needed if not (other.state in OVER and satisfies(other, rules.get(other.id))))
    return left + (phase is not None and phase.state != "open")


def tally(nodes: Iterable[Node], steps: Mapping[str, Step]) -> dict[str, int]:
    """A workflow's counts, from all of its nodes."""
    found = list(nodes)
    own = [node for node in found if node.kind != "phase" and node.phase != ROLLBACK]
    # Their conditions could not be told.
    unclear = sum(node.kind == "phase" and node.state == "failed" and node.started_at is None for node in found)
    return {
        "open": sum(node.state not in OVER for node in own),
        "active": sum(map(is_active, own)),
        "waiting": sum(map(is_waiting, own)),
        "again": sum(node.state == "again" for node in own),
        "failed": unclear + sum(fails_workflow(node, steps[node.id]) for node in own),
        "running": sum(map(takes_room, own)),
    }  # fmt: skip
