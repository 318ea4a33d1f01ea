"""Collects the phases and tasks of a definition and holds them against each other: ids, dependencies, names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from orchestr8d.core import not_before, step_input, template
from orchestr8d.core.definition_names import OUTSIDE, Naming, Seen
from orchestr8d.core.errors import Fault, did_you_mean, enough
from orchestr8d.core.precedence import Precedence
from orchestr8d.core.step_input import Setting, Sketch
from orchestr8d.core.workflow import ROLLBACK, Definition, Phase, RetryPhase, Step
from orchestr8d.core.workflow_input import PhaseIn

# Near names are looked for among so many.
_MOST_KNOWN = 500
# Of all phases and tasks together: each is stored, and is looked at when what it names is over.
_MOST_DEPENDENCIES = 100_000


class Bounds(Struct, frozen=True):
    """[limits] workflow_tasks and fan."""

    tasks: int = 5000
    fan: int = 1000


class Members(Struct):
    """A phase with what it had already and what is new. `at` None: the phase is not new; `named` is its `depends_on` as
    it was written."""

    phase: Phase
    at: str | None
    named: list[str] = []
    old: list[Step] = []
    new: list[Sketch] = []

    def whole(self) -> Phase:
        return msgspec.structs.replace(self.phase, tasks=[*self.old, *(sketch.step for sketch in self.new)])


class Check:
    """`before`: what is there already, and right."""

    def __init__(self, setting: Setting, bounds: Bounds, faults: list[Fault], before: Definition | None = None) -> None:
        self._setting = setting
        self._bounds = bounds
        self._faults = faults
        self._ids: set[str] = set()
        self._members: dict[str, Members] = {}
        self._old_rollback = [] if before is None else before.on_failure
        self._rollback: list[Sketch] = []
        for phase in () if before is None else before.phases:
            self._members[phase.id] = Members(phase, None, old=phase.tasks)
            self._ids |= {phase.id, *(step.id for step in phase.tasks)}
        self._ids |= {step.id for step in self._old_rollback}
        self._count = sum(len(members.old) for members in self._members.values()) + len(self._old_rollback)

    def add_phase(self, said: PhaseIn, at: str) -> None:
        """Of what is UNSET in it something is wrong already."""
        # What has no name of its own can be named by none.
        name = said.id if said.id and self._is_new(said.id, at) else at
        phase = Phase(
            id=name, title=said.title or None, depends_on=list(dict.fromkeys(said.depends_on or ())),
            when=step_input.expression(said.when), milestone=said.milestone or None,
            progress=(said.progress[0], said.progress[1]) if said.progress else None,
            max_parallel=said.max_parallel or None,
        )  # fmt: skip
        self._members[name] = Members(phase, at, said.depends_on or [])
        for n, task in enumerate(said.tasks or ()):
            self.add_step(task, f"{at}tasks[{n}].", name)

    def add_step(self, raw: Any, at: str, phase: str | None) -> None:
        """A task of a phase, or of the rollback."""
        self._count += 1
        if self._count > self._bounds.tasks or enough(self._faults):
            if self._count == self._bounds.tasks + 1:  # told once
                most = f"more than {self._bounds.tasks:,} tasks ([limits] workflow_tasks)"
                self._faults.append(Fault(at.rstrip("."), most, "unprocessable"))
            return
        if not isinstance(raw, dict):
            self._faults.append(Fault(at.rstrip("."), "expected an object: a task with its id"))
            return
        sketch = step_input.read(raw, at, phase, self._setting, self._faults)
        if not self._is_new(sketch.step.id, at):
            sketch.step = msgspec.structs.replace(sketch.step, id=at)
        (self._rollback if phase is None else self._members[phase].new).append(sketch)

    def _is_new(self, name: str, at: str) -> bool:
        if name == ROLLBACK:
            self._faults.append(Fault(f"{at}id", f"{ROLLBACK} is where the tasks are that run after a failure"))
        elif name in self._ids:
            self._faults.append(Fault(f"{at}id", f"there is another {name!r}: phases and tasks share their names"))
        else:
            self._ids.add(name)
            return True
        return False

    def phases(self) -> list[Phase]:
        return [members.whole() for members in self._members.values()]

    def rollback(self) -> list[Step]:
        return [*self._old_rollback, *(sketch.step for sketch in self._rollback)]

    def sketches(self) -> Iterator[Sketch]:
        """The new tasks."""
        for members in self._members.values():
            yield from members.new
        yield from self._rollback

    def run(self) -> None:
        """Adds what is wrong with them together, and with each one's own fields."""
        if self._count > self._bounds.tasks:
            return
        phases = self.phases()
        edges = sum(len(phase.depends_on) + sum(len(step.depends_on) for step in phase.tasks) for phase in phases)
        if edges > _MOST_DEPENDENCIES:
            most = f"more than {_MOST_DEPENDENCIES:,} dependencies in all: let phases depend on each other"
            self._faults.append(Fault("phases", most, "unprocessable"))
            return
        self._order = Precedence(phases)
        if self._imply():
            phases = self.phases()
            self._order = Precedence(phases)
        self._phase_of = {step.id: phase.id for phase in phases for step in phase.tasks}
        self._steps = {step.id: step for phase in phases for step in phase.tasks}
        self._steps |= {step.id: step for step in self.rollback()}
        self._naming = Naming(self._setting.known, self._steps, self._members, self._faults)
        self._check_dependencies()
        for members in self._members.values():
            if members.at is not None:
                self._check_phase(members.phase, members.at)
        for sketch in self.sketches():
            if enough(self._faults):
                break
            self._check_step(sketch)

    def _imply(self) -> bool:
        """Who begins some time after another's end, or goes on with its conversation, depends on it without saying so;
        answers whether anybody does."""
        tasks = {step.id for members in self._members.values() for step in members.whole().tasks}
        found = False
        for sketch in self.sketches():
            step = sketch.step
            for name in () if sketch.phase is None else (_ended(step), step.resume_from):
                if name is None or name not in tasks or name == step.id:
                    continue
                if not (self._order.comes_before(name, step.id) or self._order.comes_before(step.id, name)):
                    step = sketch.step = msgspec.structs.replace(step, depends_on=[*step.depends_on, name])
                    found = True
        return found

    def _check_dependencies(self) -> None:
        named = {m.phase.id: (m.at, m.named) for m in self._members.values() if m.at is not None}
        named |= {s.step.id: (s.at, s.named) for s in self.sketches() if s.phase is not None}
        for at, names in named.values():
            for n, name in enumerate(names):
                if name not in self._phase_of and name not in self._members and not enough(self._faults):
                    self._faults.append(Fault(f"{at}depends_on[{n}]", self._nobody(name), "unprocessable"))
        for (name, other), circle in self._order.cycles:
            # A circle that is new has a part that is new: what is there already can name only what was there.
            at, names = named.get(name, ("", []))
            path = f"{at}depends_on[{names.index(other)}]" if other in names else f"{at}depends_on"
            text = f"a cycle: {' → '.join(circle[:20])}{' → …' if len(circle) > 20 else ''}"
            self._faults.append(Fault(path, text, "unprocessable"))

    def _nobody(self, name: str) -> str:
        if name in self._steps:
            return f"{name!r} is a task of {ROLLBACK}: nothing can wait for it"
        known = [*self._members, *self._phase_of][:_MOST_KNOWN]
        return f"there is no phase or task {name!r}{did_you_mean(name, known)}"

    def _check_phase(self, phase: Phase, at: str) -> None:
        before: Seen = lambda other: self._order.comes_before(other, phase.id)  # noqa: E731
        self._naming.expression(phase.when, f"{at}when", OUTSIDE, before)
        # It is reached at the phase's end.
        self._naming.templates(
            phase.milestone, lambda _: f"{at}milestone", OUTSIDE,
            lambda other: before(other) or self._phase_of.get(other) == phase.id,
        )  # fmt: skip

    def _seen_by(self, sketch: Sketch) -> Seen:
        if sketch.phase is not None:
            return lambda other: self._order.comes_before(other, sketch.step.id)
        earlier = {step.id for step in self._old_rollback}
        for one in self._rollback:
            if one is sketch:
                break
            earlier.add(one.step.id)
        return lambda other: other in self._phase_of or other in earlier

    def _check_step(self, sketch: Sketch) -> None:
        step, at, setting = sketch.step, sketch.at, self._setting
        seen = self._seen_by(sketch)
        own = self._naming.step(step, at, lambda path: step_input.place(path, sketch, setting.defaults), seen)
        if step.for_each is not None:
            found = setting.known.expression(step.for_each)
            if isinstance(found, list) and len(found) > self._bounds.fan:
                most = f"{len(found):,} items, where {self._bounds.fan:,} are the most ([limits] fan)"
                self._faults.append(Fault(f"{at}for_each", most, "unprocessable"))
        if step.resume_from is not None and step.task is not None:
            self._check_resumed(sketch, step.resume_from, seen)
        if step.not_before is not None and not template.is_template(step.not_before):
            self._check_time(sketch, step.not_before, seen)
        if isinstance(step.on_failure, RetryPhase) and sketch.phase is not None:
            self._check_retried(step.on_failure.retry_phase, sketch)
        step_input.finish(sketch, own, setting, self._faults)

    def _check_resumed(self, sketch: Sketch, name: str, seen: Seen) -> None:
        path = f"{sketch.at}resume_from"
        self._naming.task(name, path, seen)
        source = self._steps.get(name)
        if "agent" not in (sketch.step.task or {}):
            self._faults.append(Fault(path, "only for agents"))
        elif source is not None and (source.task is None or "agent" not in source.task or source.for_each is not None):
            self._faults.append(Fault(path, f"{name!r} is no single task of an agent", "unprocessable"))

    def _check_time(self, sketch: Sketch, text: str, seen: Seen) -> None:
        path = next((f"{sketch.at}{name}" for name in ("not_before", "run_at") if name in sketch.raw), sketch.at)
        try:
            when = not_before.read(text)
        except ValueError as e:
            self._faults.append(Fault(path, str(e)))
            return
        if isinstance(when, not_before.After) and when.task is not None:
            self._naming.task(when.task, path, seen)

    def _check_retried(self, name: str, sketch: Sketch) -> None:
        path = f"{sketch.at}on_failure.retry_phase"
        if name not in self._members:
            near = did_you_mean(name, list(self._members)[:_MOST_KNOWN])
            self._faults.append(Fault(path, f"there is no phase {name!r}{near}", "unprocessable"))
        elif name != sketch.phase and not self._order.comes_before(name, sketch.step.id):
            why = "neither the task's own phase nor one that is over before it begins"
            self._faults.append(Fault(path, f"{name!r} is {why}", "unprocessable"))


def _ended(step: Step) -> str | None:
    """The task after whose end it may begin."""
    if step.not_before is None or template.is_template(step.not_before):
        return None
    try:
        when = not_before.read(step.not_before)
    except ValueError:  # told later
        return None
    return when.task if isinstance(when, not_before.After) else None
