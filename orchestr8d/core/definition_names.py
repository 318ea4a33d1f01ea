"""What templates and expressions of a definition may name: parameters, signals, and the tasks that come before."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from orchestr8d.core.decode import unknown
from orchestr8d.core.errors import Fault, did_you_mean, enough
from orchestr8d.core.step_templates import strings, templates
from orchestr8d.core.submit_time import NAMES, SubmitTime
from orchestr8d.core.template_names import Use
from orchestr8d.core.workflow import Step

OUTSIDE: Final = NAMES[:-2]
TASK_FIELDS: Final = (
    "status", "result", "output", "exit_code", "error", "task_id", "usage", "files_created", "result_file",
)  # fmt: skip
WORKFLOW_FIELDS: Final = ("id", "name", "user_id", "started_at", "failed")
# Near names are looked for among so many.
_MOST_KNOWN: Final = 500

# Whether the task of this id can be seen.
Seen = Callable[[str], bool]
# From a path in a value to where it stands in the definition.
Place = Callable[[str], str]


class Naming:
    """Looks at templates one by one. `tasks` and `phases` are all ids that there are."""

    def __init__(self, known: SubmitTime, tasks: Collection[str], phases: Collection[str], faults: list[Fault]) -> None:
        self._known = known
        self._tasks = tasks
        self._phases = phases
        self._faults = faults

    def templates(self, value: Any, place: Place, names: Sequence[str], seen: Seen) -> set[str]:
        """Adds what is wrong with the templates in a value; answers the paths in it of those that name nothing but
        parameters."""
        own: set[str] = set()
        for path, text in strings(value):
            if enough(self._faults):
                break
            where = place(path)
            named, faults = self._known.check(text, where, names)
            faults = faults + self._wrong(named, where, seen)
            self._faults += faults
            if not faults and not any(use.name != "params" and use.name in NAMES for use in named):
                own.add(path)
        return own

    def expression(self, text: str | None, at: str, names: Sequence[str], seen: Seen) -> None:
        """Adds what is wrong with an expression, if there is one."""
        if text is not None:
            named, faults = self._known.check_expression(text, at, names)
            self._faults += faults + self._wrong(named, at, seen)

    def step(self, step: Step, at: str, place: Place, seen: Seen) -> set[str]:
        """Looks at all of a task; `place` tells where a path of its body was written. Answers the paths in its body of
        the templates over nothing but parameters."""
        inside = NAMES if step.for_each is not None else OUTSIDE
        self.expression(step.for_each, f"{at}for_each", OUTSIDE, seen)
        self.expression(step.when, f"{at}when", inside, seen)
        for name in ("not_before", "approval", "params"):
            self.templates({name: getattr(step, name)}, at.__add__, inside, seen)
        # It is reached at the task's end.
        self.templates({"milestone": step.milestone}, at.__add__, inside, lambda one: one == step.id or seen(one))
        if step.task is None:
            return set()
        return self.templates(templates(step.task, raw=step.raw), place, inside, seen)

    def task(self, name: str, path: str, seen: Seen) -> None:
        """Adds that a task cannot be named here, if it cannot."""
        self._faults += self._task(name, path, seen)

    def _wrong(self, named: Sequence[Use], path: str, seen: Seen) -> list[Fault]:
        found: list[Fault] = []
        for use in dict.fromkeys(named):
            if use.name in ("tasks", "signals") and not use.keys:
                found.append(Fault(path, f"{use.name} are named one by one, as they are written: {use.name}.NAME"))
            elif use.name == "tasks":
                found += self._task(str(use.keys[0]), path, seen)
                if len(use.keys) > 1 and use.keys[1] not in TASK_FIELDS:
                    found.append(unknown(path, str(use.keys[1]), TASK_FIELDS, what=f"field {use.keys[1]!r} of a task"))
            elif use.name == "workflow" and use.keys and use.keys[0] not in WORKFLOW_FIELDS:
                what = f"field {use.keys[0]!r} of workflow"
                found.append(unknown(path, str(use.keys[0]), WORKFLOW_FIELDS, what=what))
        return list(dict.fromkeys(found))

    def _task(self, name: str, path: str, seen: Seen) -> list[Fault]:
        if name in self._phases:
            return [Fault(path, f"{name!r} is a phase: only tasks have results", "unprocessable")]
        if name not in self._tasks:
            return [Fault(path, f"there is no task {name!r}{self._near(name)}", "unprocessable")]
        if not seen(name):
            why = "does not come before: make what names it depend on it"
            return [Fault(path, f"task {name!r} {why}", "unprocessable")]
        return []

    def _near(self, name: str) -> str:
        dashed = next((one for one in self._tasks if one.startswith(f"{name}-")), None)
        if dashed is not None:
            return f" (a name with a dash is written tasks[{dashed!r}])"
        return did_you_mean(name, list(self._tasks)[:_MOST_KNOWN])
