"""One task of a definition: from what was written to a Step and to what it becomes, all its faults at once."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from orchestr8d.core import decode, durations, submit, template
from orchestr8d.core.errors import Fault
from orchestr8d.core.model import NewTask
from orchestr8d.core.step_templates import templates
from orchestr8d.core.submit import Policy
from orchestr8d.core.submit_time import SubmitTime
from orchestr8d.core.task_input import AGENT_OPTIONS, Duration, TaskIn
from orchestr8d.core.workflow import RetryPhase, Step, StepKind
from orchestr8d.core.workflow_input import (
    ELSEWHERE,
    OPTIONS,
    STEP_FIELDS,
    TASK_FIELDS,
    Raw,
    RetryPhaseIn,
    StepIn,
)

KINDS: Final = ("command", "agent", "approval", "workflow")
# Templates in these are over parameters alone: what they come to is needed at once.
_SETTLED: Final = (
    "agent", "workflow", "max_parallel", "wait_for", "wait_timeout", "on_failure", "on_timeout", "resume_from", "raw",
)  # fmt: skip
_FLAT: Final = "the options of a task stand beside its id here, not in `options`"
# Fields of StepIn that a kind has none of.
_NOT_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "task": ("params", "on_timeout"),
    "approval": ("params", "for_each", "max_parallel", "resume_from", "raw"),
    "workflow": ("on_timeout", "resume_from", "raw"),
}


class TimeoutIn(Struct, frozen=True):
    timeout: Duration | None = None


class Sketch(Struct):
    """A task that is being checked. `at` is where it stands; `raw` what was written there; `named` the `depends_on` as
    it was written; `agents` those of whom the first that resolves is meant; `draft` what it becomes."""

    at: str
    raw: Raw
    step: Step
    phase: str | None
    named: list[str]
    agents: list[str] = []
    draft: NewTask | None = None


class Setting(Struct, frozen=True):
    """What tasks are read in: what goes for all of a definition, and what they are held against. `priority` is that of
    tasks that say none."""

    defaults: Raw
    known: SubmitTime
    policy: Policy
    priority: int


def read(raw: Raw, at: str, phase: str | None, setting: Setting, faults: list[Fault]) -> Sketch:
    """The task without its draft; what is wrong is added to `faults`, with paths that begin with `at`. `phase` None:
    it is of the rollback."""
    kind = _kind(raw, at, faults)
    _check_names(raw, at, kind, faults)
    own = {name: value for name, value in raw.items() if name in StepIn.__struct_fields__}
    said, wrong = decode.right(setting.known.settle(own, _SETTLED, at, faults), StepIn)
    faults += [Fault(at + fault.path, fault.message, fault.kind) for fault in wrong]
    if said is None:
        said = StepIn(id=UNSET)  # type: ignore[arg-type]  # nothing is right of it
    step = Step(
        # What has no id can be named by none.
        id=said.id or at, kind=kind, depends_on=list(dict.fromkeys(said.depends_on or ())),
        when=expression(said.when), for_each=said.for_each or None, max_parallel=said.max_parallel or None,
        wait_for=list(dict.fromkeys(said.wait_for or ())), wait_timeout=_seconds(said.wait_timeout),
        not_before=setting.known.early(_not_before(said, at, faults)), milestone=said.milestone or None,
        on_failure=_on_failure(said.on_failure), raw=bool(said.raw), resume_from=said.resume_from or None,
        approval=said.approval or None, on_timeout=said.on_timeout or "fail", workflow=said.workflow or None,
        params=said.params or {}, timeout=_timeout(raw, at, setting.known, faults) if kind == "approval" else None,
        task=_body(raw, setting.defaults) if raw.get("command") or raw.get("agent") else None,
    )  # fmt: skip
    agents = [said.agent] if isinstance(said.agent, str) else said.agent or []
    if step.task is not None and raw.get("agent") is not None:
        step.task["agent"] = agents[0] if agents else "wrong"
    _check_together(said, step, phase, at, faults)
    return Sketch(at, raw, step, phase, said.depends_on or [], agents)


def _kind(raw: Raw, at: str, faults: list[Fault]) -> StepKind:
    given = [name for name in KINDS if raw.get(name) is not None]
    if len(given) != 1 and given != ["command", "agent"]:  # told of any task
        path = at + given[1] if given else at.rstrip(".")
        faults.append(Fault(path, "a task has one of agent, command, approval and workflow"))
    return given[0] if given and given[0] in ("approval", "workflow") else "task"  # type: ignore[return-value]


def _check_names(raw: Raw, at: str, kind: StepKind, faults: list[Fault]) -> None:
    of_task = (*TASK_FIELDS, *OPTIONS)
    for name in raw:
        if name == "options":
            faults.append(Fault(f"{at}options", _FLAT))
        elif ELSEWHERE.get(name):
            faults.append(Fault(at + name, ELSEWHERE[name]))
        elif name not in STEP_FIELDS:
            faults.append(decode.unknown(at + name, name, STEP_FIELDS))
        elif raw[name] is not None and (
            name in _NOT_OF[kind] or (kind != "task" and name in of_task and (kind, name) != ("approval", "timeout"))
        ):
            faults.append(Fault(at + name, f"not of {'an' if kind == 'approval' else 'a'} {kind}"))


def expression(said: str | bool | None) -> str | None:
    """An expression, which may have been written in braces, or as true or false."""
    if isinstance(said, bool):
        return "true" if said else "false"
    if not said:
        return None
    inner = re.fullmatch(r"\s*\{\{(.*)\}\}\s*", said, re.DOTALL)
    return inner[1].strip() if inner and not template.is_template(inner[1]) else said


def _seconds(value: str | float | None) -> float | None:
    return None if value is None or isinstance(value, UnsetType) else durations.seconds(value)


def _not_before(said: StepIn, at: str, faults: list[Fault]) -> str | None:
    given = [name for name in ("not_before", "run_at", "delay") if getattr(said, name) is not None]
    if len(given) > 1:
        faults.append(Fault(at + given[1], f"give {given[0]} or {given[1]}, not both"))
    if said.delay:
        return f"+{durations.seconds(said.delay):.3f}s"
    return said.not_before or said.run_at or None


def _on_failure(said: Any) -> Any:
    if isinstance(said, RetryPhaseIn):
        return RetryPhase(said.retry_phase, said.max or 1) if said.retry_phase else "fail"
    return said or "fail"


def _timeout(raw: Raw, at: str, known: SubmitTime, faults: list[Fault]) -> float | None:
    given = known.settle({name: raw[name] for name in ("timeout",) if name in raw}, ("timeout",), at, faults)
    said, wrong = decode.convert(given, TimeoutIn)
    faults += [Fault(at + fault.path, fault.message) for fault in wrong]
    return None if said is None else _seconds(said.timeout)


def _body(raw: Raw, defaults: Raw) -> dict[str, Any]:
    """A task's own fields and options over the definition's."""
    is_agent = raw.get("agent") is not None
    usual = {name: value for name, value in defaults.items() if is_agent or name not in AGENT_OPTIONS}
    body = {name: raw[name] for name in TASK_FIELDS if name in raw}
    for name in ("cwd", "env"):
        if name in usual:
            body[name] = _over(usual[name], body.get(name, UNSET))
    options = {name: value for name, value in usual.items() if name in OPTIONS}
    options |= {name: _over(options.get(name), raw[name]) for name in OPTIONS if name in raw}
    return body | ({"options": options} if options else {})


def _over(usual: Any, own: Any) -> Any:
    """Of mappings both, name by name."""
    if own is UNSET:
        return usual
    return usual | own if isinstance(usual, dict) and isinstance(own, dict) else own


def _check_together(said: StepIn, step: Step, phase: str | None, at: str, faults: list[Fault]) -> None:
    if step.wait_timeout is not None and said.wait_for == []:
        faults.append(Fault(f"{at}wait_timeout", "only with wait_for: there is nothing to wait for"))
    if said.max_parallel is not None and said.for_each is None and step.kind != "approval":
        faults.append(Fault(f"{at}max_parallel", "only with for_each: one task is never more than one at once"))
    if phase is None:
        if said.depends_on:
            faults.append(Fault(f"{at}depends_on", "tasks of on_failure run in the order in which they are listed"))
        if isinstance(step.on_failure, RetryPhase):
            faults.append(Fault(f"{at}on_failure", "a task of on_failure can have no phase run again"))


def finish(sketch: Sketch, own: Collection[str], setting: Setting, faults: list[Fault]) -> None:
    """Adds what is wrong with the fields and options that a task takes; without faults it has its draft then. `own` are
    the paths in its body of the templates over nothing but parameters."""
    task = sketch.step.task
    if task is None:
        return
    found: list[Fault] = []
    done, left = setting.known.body(templates(task, raw=sketch.step.raw), own, found)
    body = task | done
    if "options" in task:
        body["options"] = task["options"] | done["options"]
    said, wrong = decode.right(body, TaskIn)
    if said is not None:
        submit.check(said, setting.policy, wrong)
        if said.agent is not None and setting.policy.agents.off is not None:
            wrong.append(Fault("agent", setting.policy.agents.off, "unprocessable"))
    if body.get("options", {}).get("on_conflict") == "existing":
        wrong.append(Fault("options.on_conflict", "a task of a workflow is its own: reject or replace"))
    found += [fault for fault in wrong if fault.path not in left]
    faults += [Fault(place(fault.path, sketch, setting.defaults), fault.message, fault.kind) for fault in found]
    if found:
        return
    if not left:
        sketch.step = msgspec.structs.replace(sketch.step, task=body, plain=True)
    sketch.draft = _draft(body, {fault.path for fault in wrong}, setting, sketch.at)


def place(path: str, sketch: Sketch, defaults: Raw) -> str:
    """Where that of a submit's body stands in the definition: in the task, or in the defaults."""
    path = path.removeprefix("options.")
    name = re.split(r"[.[]", path, maxsplit=1)[0]
    return ("defaults." if name in defaults and name not in sketch.raw else sketch.at) + path


def _draft(body: dict[str, Any], untold: set[str], setting: Setting, at: str) -> NewTask:
    """What the task becomes, without what its templates do not tell yet."""
    options = dict(body.get("options", {}))
    known = {name: value for name, value in body.items() if name != "options"}
    for path in untold:
        known.pop(re.split(r"[.[]", path, maxsplit=1)[0], None)
        options.pop(re.split(r"[.[]", path.removeprefix("options."), maxsplit=1)[0], None)
    if "command" in body and "command" not in known:
        said = body["command"]
        known["command"] = [str(word) for word in said] if isinstance(said, list) else [str(said)]
    new = submit.built(msgspec.convert(known | {"options": options}, TaskIn), setting.policy, at)
    return finished(new, options, setting.priority)


def finished(new: NewTask, options: Mapping[str, Any], priority: int) -> NewTask:
    """The task with its workflow's priority, unless it says one."""
    if "priority" not in options:
        new.priority = priority
    return new
