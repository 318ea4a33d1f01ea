"""Workflows in plain Python, told once more from the contract and without any regard to speed: after each event all
rules are tried until none applies any more.

A model is made of a definition as it was written. It knows the forms of expressions that `tests.workflows.making`
makes, and no others. `max_parallel` is not its matter: what is released here may wait for room there.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

ROLLBACK = "on_failure"
OVER = {"completed", "failed", "cut", "cancelled", "skipped"}
# About to move by itself, whatever else happens.
MOVING = {"when", "full", "render"}


class Bad(Exception):
    """An expression that cannot be evaluated."""


@dataclass
class Phase:
    id: str
    rule: dict[str, Any]
    state: str = "waiting"
    round: int = 0
    begun: bool = False


@dataclass
class Task:
    """`kind`: task, fan, approval. Children of fans have a `parent`, an `index` and their `item`."""

    id: str
    phase: str
    kind: str
    rule: dict[str, Any]
    parent: str | None = None
    index: int | None = None
    item: Any = None
    state: str = "waiting"
    round: int = 0
    asked: int = 0
    wake: float | None = None
    # Why it failed: the kind of its error.
    kind_of_error: str | None = None
    output: Any = None
    # Whether somebody runs it, and was asked to stop.
    claimed: bool = False
    stopping: bool = False

    @property
    def continues(self) -> bool:
        return bool(self.rule.get("on_failure") == "continue")

    @property
    def retries(self) -> dict[str, Any] | None:
        rule = self.rule.get("on_failure")
        return rule if isinstance(rule, dict) else None


# How the run of a task ends: by its id and round, the status and what it gives.
Plan = Callable[[str, int], tuple[str, Any]]


@dataclass
class Model:
    definition: dict[str, Any]
    params: dict[str, Any]
    now: float = 0.0
    status: str = "pending"
    paused: bool = False
    ending: str | None = None
    rolling: bool = False
    stops: bool = False
    started_at: float | None = None
    signals: set[str] = field(default_factory=set)
    # How often each task was released, by id and round.
    runs: Counter[tuple[str, int]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.phases = {p["id"]: Phase(p["id"], p) for p in self.definition["phases"]}
        self.tasks: dict[str, Task] = {}
        for phase in self.definition["phases"]:
            for rule in phase.get("tasks", []):
                self.tasks[rule["id"]] = self._task(rule, phase["id"])
        self.rollback = [self._task(rule, ROLLBACK) for rule in self.definition.get("on_failure", [])]
        self.tasks |= {task.id: task for task in self.rollback}

    @staticmethod
    def _task(rule: dict[str, Any], phase: str) -> Task:
        kind = "fan" if "for_each" in rule else "approval" if "approval" in rule else "task"
        return Task(rule["id"], phase, kind, rule)

    # -- looked at

    def own(self) -> list[Task]:
        """All but the rollback; children too."""
        return [t for t in self.tasks.values() if t.phase != ROLLBACK]

    def members(self, phase: str) -> list[Task]:
        return [t for t in self.tasks.values() if t.phase == phase and t.parent is None]

    def children(self, fan: Task) -> list[Task]:
        return [t for t in self.tasks.values() if t.parent == fan.id]

    def satisfied(self, name: str) -> bool:
        if name in self.phases:
            return self.phases[name].state in ("completed", "skipped")
        task = self.tasks[name]
        return task.state in ("completed", "skipped") or (task.continues and task.state in ("failed", "cancelled"))

    def lost(self, name: str) -> bool:
        state = self.phases[name].state if name in self.phases else self.tasks[name].state
        return state in OVER and not self.satisfied(name)

    def cuts(self, name: str) -> bool:
        """What was cancelled with all else cuts off nobody: whoever depends on it is cancelled too."""
        state = self.phases[name].state if name in self.phases else self.tasks[name].state
        return self.lost(name) and not (self.ending and state == "cancelled")

    def failures(self) -> list[Task]:
        """Those that failed by themselves, so that it counts."""
        return [
            t for t in self.own()
            if t.parent is None and not t.continues and t.state in ("failed", "cancelled")
        ]  # fmt: skip

    def released(self) -> list[Task]:
        """What may run, or runs."""
        return [t for t in self.tasks.values() if t.kind == "task" and t.state == "open"]

    def asked(self) -> list[Task]:
        return [t for t in self.tasks.values() if t.kind == "approval" and t.state == "open"]

    def is_final(self) -> bool:
        return self.status in ("completed", "failed", "cancelled")

    def evaluate(self, text: str, task: Task | Phase) -> Any:
        if found := re.fullmatch(r"params\.(\w+)", text):
            return self.params[found[1]]
        if found := re.fullmatch(r"tasks\.(\w+)\.status == '(\w+)'", text):
            state = self.tasks[found[1]].state
            return ("failed" if state == "cut" else state) == found[2]
        if found := re.fullmatch(r"tasks\.(\w+)\.output", text):
            return self.tasks[found[1]].output
        if found := re.fullmatch(r"round < (\d+)", text):
            return task.round < int(found[1])
        if found := re.fullmatch(r"index != (\d+)", text):
            assert isinstance(task, Task)
            return task.index != int(found[1])
        assert text == "params.text.nothing", text
        raise Bad

    # -- what happens to it

    def begin(self) -> None:
        self.status, self.started_at = "running", self.now
        self.settle()

    def finish(self, task_id: str, status: str, output: Any = None) -> None:
        task = self.tasks[task_id]
        assert task.state == "open", task
        task.claimed = task.stopping = False
        self._over(task, status, "exit" if status == "failed" else status, None if status == "cancelled" else output)

    def answer(self, task_id: str, approved: bool) -> None:
        self._over(self.tasks[task_id], "completed" if approved else "failed", "rejected")

    def send(self, name: str) -> None:
        self.signals.add(name)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def cancel(self) -> None:
        if self.ending != "cancel":
            self.ending, self.paused = "cancel", False
            self._cancel_rest()

    def retry(self, phase: str | None) -> None:
        """A person's: all that did not end well, or a phase and all after it."""
        if phase is None:
            tasks = {t.id for t in self.own() if t.state in ("failed", "cut", "cancelled")}
            tasks |= {t.parent for t in self.tasks.values() if t.id in tasks and t.parent is not None}
            phases = {p.id for p in self.phases.values() if p.state in ("failed", "cut", "cancelled")}
            phases |= {self.tasks[name].phase for name in tasks}
            begin = {p for p in phases if not self.phases[p].begun}
            while more := {p for p in phases - begin if set(self.needs(p)) & (tasks | phases)}:
                begin |= more
        else:
            tasks, begin = self.following({phase})
            self._forget_children(tasks)
            phases = begin | {self.tasks[name].phase for name in tasks}
        self.ending, self.status, self.paused, self.rolling = None, "running", False, False
        if self.started_at is None:
            self.started_at = self.now
        for task in [*(self.tasks[name] for name in tasks), *self.rollback]:
            self._reset(task)
            task.asked = 0
        self._reopen(phases, begin)

    def needs(self, name: str) -> list[str]:
        return list((self.phases.get(name) or self.tasks[name]).rule.get("depends_on", []))

    # -- ends

    def _over(self, task: Task, state: str, kind: str | None = None, output: Any = None) -> None:
        task.wake = None
        task.kind_of_error = None if state in ("completed", "skipped") else kind
        task.output = output
        if state == "failed" and self._asks_again(task):
            task.state = "again"
            return
        task.state = state
        if task.kind == "fan":
            for child in self.children(task):
                self._stop(child)
        if task in self.failures():
            self._failed()

    def _asks_again(self, task: Task) -> bool:
        rule = task.retries
        may = not self.ending and task.parent is None and task.phase != ROLLBACK
        return may and rule is not None and task.asked < rule["max"]

    def _failed(self) -> None:
        if self.definition.get("fail_fast") and not self.ending:
            self.ending, self.stops = "fail", True

    def _stop_rest(self) -> bool:
        """At the first failure, once it has cut off what it does."""
        stops, self.stops = self.stops, False
        if stops:
            self._cancel_rest()
        return stops

    def _cancel_rest(self) -> None:
        for task in list(self.tasks.values()):
            if task.phase != ROLLBACK or (self.ending == "cancel" and self.rolling):
                self._stop(task)

    def _stop(self, task: Task) -> None:
        if task.state in OVER or (task.kind == "fan" and task.state == "open"):
            return
        if task.claimed:
            task.stopping = True
        elif task.state == "again":
            self._over(task, "failed", task.kind_of_error)
        else:
            self._over(task, "cancelled", "cancelled")

    # -- rules

    def settle(self, *, evaluates: bool = True) -> None:
        """`evaluates`: whether the engine comes by, which reads expressions and looks at the clock."""
        if self.started_at is None and self.ending is None:
            return
        if evaluates:
            self._pass_time()
        self._apply_rules()
        while evaluates and (due := [one for one in self._all_in_order() if self._is_due(one)]):
            for one in due:
                if self._is_due(one):
                    self._decide(one)
                    self._apply_rules()

    def _apply_rules(self) -> None:
        while self._move() or self._stop_rest() or self._run_again() or self._close():
            pass

    def _pass_time(self) -> None:
        late = [t for t in self.tasks.values() if t.wake is not None and t.wake <= self.now]
        for task in sorted(late, key=lambda t: (t.wake, t.id)):
            if task.wake is not None and task.wake <= self.now:
                self._due(task)
                self._apply_rules()

    def _all_in_order(self) -> list[Phase | Task]:
        found: list[Phase | Task] = []
        for phase in self.phases.values():
            found.append(phase)
            for task in self.members(phase.id):
                found += [task, *self.children(task)]
        return found + self.rollback

    def _is_due(self, one: Phase | Task) -> bool:
        if isinstance(one, Phase):
            return one.state == "when"
        return one.id in self.tasks and one is self.tasks[one.id] and one.state in ("when", "render")

    def _decide(self, one: Phase | Task) -> None:
        """The engine evaluates what there is to be evaluated."""
        if isinstance(one, Phase):
            self._begin_phase(one)
            return
        try:
            if one.state == "when":
                self._decide_task(one)
            else:
                self._release(one)
        except Bad:
            self._over(one, "failed", "template")

    def _due(self, task: Task) -> None:
        if task.state == "timed":
            task.wake = None
        elif task.state == "open" and task.rule.get("on_timeout") == "approve":
            self._over(task, "completed")
        else:
            self._over(task, "failed", "timeout")

    def _move(self) -> bool:
        phases = [self._phase(phase) for phase in self.phases.values()]
        return any(phases + [self._go(task) for task in list(self.tasks.values())])

    def _phase(self, phase: Phase) -> bool:
        members = self.members(phase.id)
        before = phase.state
        if phase.state == "waiting":
            if any(map(self.cuts, self.needs(phase.id))):
                phase.state = "cut"
                self._all(members, "cut")
            elif not self.ending and all(map(self.satisfied, self.needs(phase.id))):
                phase.state = "when" if "when" in phase.rule else "open"
        elif phase.state == "when" and self.ending:
            phase.state = "waiting"
        elif phase.state == "open" and all(t.state in OVER for t in members):
            named = any(phase.id in p.rule.get("depends_on", ()) for p in self.phases.values())
            named |= any(phase.id in t.rule.get("depends_on", ()) for t in self.own())
            if members or named:
                self._end_phase(phase, members)
        phase.begun |= phase.state == "open"
        return phase.state != before

    def _begin_phase(self, phase: Phase) -> None:
        try:
            phase.state = "open" if self.evaluate(phase.rule["when"], phase) else "skipped"
        except Bad:
            phase.state = "failed"
            self._failed()
        phase.begun = phase.state == "open"
        self._all(self.members(phase.id), {"open": "", "skipped": "skipped", "failed": "cut"}[phase.state])

    def _end_phase(self, phase: Phase, members: list[Task]) -> None:
        if self.ending and any(t.state == "cancelled" for t in members):
            phase.state = "cancelled"
        else:
            bad = any(self.lost(t.id) for t in members)
            phase.state = "failed" if bad else "completed"

    def _all(self, members: list[Task], state: str) -> None:
        for task in members:
            if state and task.state not in OVER:
                self._over(task, state, "dependency_failed")

    def _go(self, task: Task) -> bool:
        """One step of a task on its way."""
        before = task.state
        if task.state in OVER or task.state == "again":
            return False
        if task.state == "open":
            self._end_fan(task)
        elif task.state == "waiting":
            self._start(task)
        elif self.ending and task.phase != ROLLBACK:
            self._over(task, "cancelled", "cancelled")
        else:
            self._step(task)
        return task.state != before

    def _start(self, task: Task) -> None:
        needs = [] if task.parent else self.needs(task.id)
        if task.parent is not None:
            task.state = "full" if self.tasks[task.parent].state == "open" else "waiting"
        elif task.phase == ROLLBACK:
            earlier = self.rollback[: self.rollback.index(task)]
            if self.rolling and all(t.state in OVER for t in earlier):
                task.state = "when"
        elif any(map(self.cuts, needs)):
            self._over(task, "cut", "dependency_failed")
        elif self.phases[task.phase].state == "open" and all(map(self.satisfied, needs)):
            task.state = "when"

    def _step(self, task: Task) -> None:
        rule = task.rule
        own_when = "when" in rule and task.kind != "fan" and task.parent is None
        if task.state == "when" and not own_when and "not_before" not in rule:
            task.state = "timed"
        elif task.state == "timed" and task.wake is None:
            task.state = "held"
            if "wait_timeout" in rule and not self.signals.issuperset(rule["wait_for"]):
                task.wake = self.now + int(rule["wait_timeout"].removesuffix("s"))
        elif task.state == "held" and self.signals.issuperset(rule.get("wait_for", ())):
            task.state, task.wake = "full", None
        elif task.state == "full" and not self.paused:
            task.state = "render"
        elif task.state == "render" and self._is_plain(task):
            self._release(task)

    def _decide_task(self, task: Task) -> None:
        rule = task.rule
        if "when" in rule and task.kind != "fan" and not self.evaluate(rule["when"], task):
            self._over(task, "skipped")
            return
        task.state = "timed"
        if "not_before" in rule:
            assert self.started_at is not None
            at = self.started_at + int(rule["not_before"].strip("+s"))
            task.wake = at if at > self.now else None

    def _is_plain(self, task: Task) -> bool:
        if task.kind == "fan":
            return bool(self.children(task))
        text = str(task.rule.get("command", ""))
        return task.kind == "task" and "{{" not in text and not (task.parent and "when" in task.rule)

    def _release(self, task: Task) -> None:
        rule = task.rule
        if task.parent is not None and "when" in rule and not self.evaluate(rule["when"], task):
            self._over(task, "skipped")
            return
        items = self.evaluate(rule["for_each"], task) if task.kind == "fan" and not self.children(task) else []
        if not isinstance(items, list):
            raise Bad
        if self.paused and task.kind != "task":
            task.state = "full"
            return
        if task.kind == "fan":
            for n, item in enumerate(items):
                child = Task(f"{task.id}.{n}", task.phase, "task", rule, task.id, n, item, round=task.round)
                self.tasks[child.id] = child
        task.state = "open"
        if task.kind == "task":
            self.runs[task.id, task.round] += 1
        if task.kind == "approval" and "timeout" in rule:
            task.wake = self.now + int(rule["timeout"].removesuffix("s"))

    def _end_fan(self, fan: Task) -> None:
        children = self.children(fan)
        if fan.kind != "fan" or not all(c.state in OVER for c in children):
            return
        outputs = [c.output if c.state == "completed" else None for c in children]
        if self.ending and any(c.state == "cancelled" for c in children):
            self._over(fan, "cancelled", "cancelled")
        elif any(c.state not in ("completed", "skipped") for c in children):
            self._over(fan, "failed", "dependency_failed", outputs)
        else:
            self._over(fan, "completed", output=outputs)

    def _close(self) -> bool:
        if self.is_final() or any(t.state not in OVER for t in self.own()):
            return False
        left = [p for p in self.phases.values() if p.state not in OVER]
        if any(p.state == "when" for p in left) and not self.ending:
            return False
        if left:
            for phase in left:
                phase.state = "cancelled" if self.ending else "completed"
            return True
        failed = bool(self.ending == "fail" or self.failures() or self._unclear())
        rolls = failed if self.ending is None or self.ending == "fail" else self._rolls_on_cancel()
        if rolls and self.rollback and not self.rolling:
            self.rolling = True
            return True
        if self.rolling and any(t.state not in OVER for t in self.rollback):
            return False
        self.status = "cancelled" if self.ending == "cancel" else "failed" if failed else "completed"
        self._all(self.rollback, "skipped" if self.status == "completed" else "cancelled")
        return True

    def _unclear(self) -> list[Phase]:
        """Phases whose condition could not be told."""
        return [p for p in self.phases.values() if p.state == "failed" and not p.begun]

    def _rolls_on_cancel(self) -> bool:
        return self.definition.get("on_cancel") == "rollback" and self.started_at is not None

    # -- again

    def following(self, roots: set[str]) -> tuple[set[str], set[str]]:
        """Phases with their tasks and all that depends on these; and the phases of them that begin again."""
        tasks: set[str] = set()
        begin = set(roots)
        while True:
            touched = tasks | begin | {self.tasks[name].phase for name in tasks}
            more = {p.id for p in self.phases.values() if set(self.needs(p.id)) & touched} - begin
            also = {t.id for t in self._movable(begin) if t.phase in begin or set(self.needs(t.id)) & touched}
            if not more and also <= tasks:
                return tasks, begin
            begin |= more
            tasks |= also

    def _movable(self, begin: set[str]) -> Iterator[Task]:
        """Without the tasks of phases that never began and never will."""
        for task in self.own():
            phase = self.phases[task.phase]
            if task.parent is None and (phase.id in begin or phase.begun or phase.state not in OVER):
                yield task

    def _group(self, first: Task) -> tuple[list[Task], set[str], set[str]]:
        """Those who ask together with one, since what it wants again has them in it."""
        group = [first]
        while True:
            tasks, begin = self.following({t.retries["retry_phase"] for t in group if t.retries})
            more = [t for t in self.own() if t.state == "again" and t.id in tasks and t not in group]
            if not more:
                return group, tasks, begin
            group += more

    def _run_again(self) -> bool:
        groups = [self._group(t) for t in self.own() if t.state == "again"]
        order = list(self.phases)
        groups.sort(key=lambda g: order.index(g[0][0].retries["retry_phase"]))  # type: ignore[index]
        for group, tasks, begin in groups:
            within = any(group[0] in other[0] and other[0][0] not in group for other in groups)
            if not within and self._is_quiet(tasks, begin):
                for task in group:
                    task.asked += 1
                self._forget_children(tasks)
                for name in tasks:
                    self._reset(self.tasks[name])
                    self.tasks[name].round += 1
                for name in begin:
                    self.phases[name].round += 1
                self._reopen(begin | {self.tasks[name].phase for name in tasks}, begin)
                return True
        return False

    def _is_quiet(self, tasks: set[str], begin: set[str]) -> bool:
        found = [t for t in self.own() if t.id in tasks or t.parent in tasks]
        runs = any(t.state in MOVING or (t.kind == "task" and t.state == "open") for t in found)
        return not runs and not any(self.phases[name].state == "when" for name in begin)

    def _forget_children(self, tasks: set[str]) -> None:
        for child in [t for t in self.tasks.values() if t.parent in tasks]:
            del self.tasks[child.id]

    @staticmethod
    def _reset(task: Task) -> None:
        task.state, task.wake, task.kind_of_error, task.output = "waiting", None, None, None

    def _reopen(self, phases: set[str], begin: set[str]) -> None:
        for name in phases:
            phase = self.phases[name]
            if name in begin:
                phase.state, phase.begun = "waiting", False
            elif phase.begun:
                phase.state = "open"

    # -- to the end

    def run(self, plan: Plan, chance: random.Random) -> None:
        """As the plan says, in some order; approvals and signals come when there is nothing else."""
        self.begin()
        while not self.is_final():
            runs = self.released()
            task = chance.choice(runs) if runs else None
            assert task is not None, "stuck"
            self.finish(task.id, *plan(task.id, task.round))
            self.settle()
