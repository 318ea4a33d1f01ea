"""From a definition as it was written, and parameters, to what is stored of it; with all that is wrong, at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from orchestr8d.core import decode, durations, submit, workflow_params
from orchestr8d.core.definition_check import Bounds as Bounds
from orchestr8d.core.definition_check import Check
from orchestr8d.core.errors import Fault, did_you_mean
from orchestr8d.core.model import NewTask
from orchestr8d.core.step_input import Setting
from orchestr8d.core.step_templates import strings
from orchestr8d.core.submit import Policy
from orchestr8d.core.submit_time import SubmitTime
from orchestr8d.core.task_input import TaskIn
from orchestr8d.core.workflow import ROLLBACK, Definition, Param, Step
from orchestr8d.core.workflow_input import DEFAULTS, DefinitionIn, ParamIn, PhaseIn, Raw

# A task's own values may be submit.MAX_DEPTH deep in it.
_MAX_DEPTH = submit.MAX_DEPTH + 16
# Templates in these are over parameters alone: what they come to is needed at once.
_SETTLED = ("description", "max_parallel", "fail_fast", "on_cancel", "report_every")
_SETTLED_OF_PHASE = ("title", "max_parallel", "progress")


class Wish(Struct, frozen=True):
    """The agents of whom the first that resolves in `cwd` is meant by a task, and where they stand."""

    path: str
    task: Step
    names: list[str]
    cwd: str


class Checked(Struct):
    """What was read; with faults nothing of it is to be used. Agents and sub-workflows are still to be found: `wishes`,
    and the tasks that name workflows, with where they stand."""

    definition: Definition
    drafts: dict[str, NewTask]
    params: dict[str, Any]
    wishes: list[Wish]
    workflows: list[tuple[str, Step]]
    faults: list[Fault]


class _ParamsIn(Struct, frozen=True):
    params: dict[str, ParamIn | None] = {}


def read_params(raw: Raw, faults: list[Fault]) -> dict[str, Param]:
    """What a definition says of its parameters; without what its types refuse."""
    said, _ = decode.right({"params": raw.get("params", {})}, _ParamsIn)
    return workflow_params.declared((said.params or {}) if said is not None else {}, faults)


def head(raw: object) -> tuple[DefinitionIn | None, list[Fault]]:
    """What a definition says before there are parameters, and what is wrong with that; its tasks are not looked at."""
    if not isinstance(raw, dict):
        return decode.convert(raw, DefinitionIn)
    if submit.is_deeper(raw, _MAX_DEPTH):
        return None, [Fault("", f"nested more than {_MAX_DEPTH} levels deep")]
    return decode.convert(_settled(raw, SubmitTime({}, None), []), DefinitionIn)


def check(
    raw: Raw, given: Mapping[str, Any], policy: Policy, bounds: Bounds, *, priority: int = 0, loose: bool = False
) -> Checked:
    """All of a new workflow's definition. `policy.home` is where its tasks run that name no directory. With `loose`
    texts are taken for what they spell, in the parameters."""
    faults: list[Fault] = []
    raw = _flat(raw, "", faults)
    params = read_params(raw, faults)
    before = len(faults)
    values = workflow_params.values(params, given, faults, loose=loose)
    known = SubmitTime(params, None if len(faults) > before else values)
    said, wrong = decode.right(_settled(raw, known, faults), DefinitionIn)
    faults += wrong
    said = said or DefinitionIn(name="")
    setting = Setting(said.defaults or {}, known, policy, priority)
    _check_defaults(setting, faults)
    work = Check(setting, bounds, faults)
    for n, phase in enumerate(said.phases or ()):
        if isinstance(phase, PhaseIn):
            work.add_phase(phase, f"phases[{n}].")
    for n, task in enumerate(said.on_failure or ()):
        work.add_step(task, f"{ROLLBACK}[{n}].", None)
    work.run()
    _check_progress(said, faults)
    definition = Definition(
        name=said.name or "", description=said.description or None, params=params, defaults=setting.defaults,
        max_parallel=said.max_parallel or None, fail_fast=bool(said.fail_fast), on_cancel=said.on_cancel or None,
        report_every=durations.seconds(said.report_every) if said.report_every else None,
    )  # fmt: skip
    return _checked(definition, work, values, setting, faults)


def extend(
    definition: Definition, params: Mapping[str, Any], phases: Mapping[str, Raw], steps: Mapping[str, Raw],
    policy: Policy, bounds: Bounds, *, priority: int = 0,
) -> Checked:  # fmt: skip
    """A workflow's definition with phases and tasks (each names its `phase`) added, by where they stand in what was
    sent; drafts and wishes are those of what is new."""
    faults: list[Fault] = []
    known = SubmitTime(definition.params, params)
    setting = Setting(definition.defaults, known, policy, priority)
    work = Check(setting, bounds, faults, definition)
    there = [phase.id for phase in definition.phases]
    phases = {at: _flat(raw, at, faults) for at, raw in phases.items()}
    steps = {at: _flat(raw, at, faults) for at, raw in steps.items()}
    for at, raw in phases.items():
        said, wrong = decode.right(known.settle(raw, _SETTLED_OF_PHASE, at, faults), PhaseIn)
        faults += [Fault(at + fault.path, fault.message, fault.kind) for fault in wrong]
        if said is not None:
            work.add_phase(said, at)
            there += [said.id] if said.id else []
    for at, raw in steps.items():
        phase = raw.get("phase")
        if phase is None:
            faults.append(Fault(f"{at}phase", "required, but missing"))
        elif phase not in there:
            near = did_you_mean(phase, there) if isinstance(phase, str) else ""
            faults.append(Fault(f"{at}phase", f"there is no phase {phase!r}{near}", "unprocessable"))
        else:
            work.add_step({name: value for name, value in raw.items() if name != "phase"}, at, phase)
    work.run()
    return _checked(definition, work, dict(params), setting, faults)


def _flat(raw: Raw, at: str, faults: list[Fault]) -> Raw:
    """What was written, if everybody can go through it."""
    if submit.is_deeper(raw, _MAX_DEPTH):
        faults.append(Fault(at.rstrip("."), f"nested more than {_MAX_DEPTH} levels deep"))
        return {}
    return raw


def _settled(raw: Raw, known: SubmitTime, faults: list[Fault]) -> Raw:
    done = known.settle(raw, _SETTLED, "", faults)
    if isinstance(done.get("phases"), list):
        done["phases"] = [
            known.settle(phase, _SETTLED_OF_PHASE, f"phases[{n}].", faults) if isinstance(phase, dict) else phase
            for n, phase in enumerate(done["phases"])
        ]
    return done


def _checked(
    definition: Definition, work: Check, params: dict[str, Any], setting: Setting, faults: list[Fault]
) -> Checked:  # fmt: skip
    sketches = list(work.sketches())
    wishes = [
        Wish(f"{one.at}agent", one.step, one.agents, _cwd(one.step, setting)) for one in sketches if one.agents
    ]
    return Checked(
        msgspec.structs.replace(definition, phases=work.phases(), on_failure=work.rollback()),
        {one.step.id: one.draft for one in sketches if one.draft is not None}, params, wishes,
        [(one.at, one.step) for one in sketches if one.step.workflow is not None], list(dict.fromkeys(faults)),
    )  # fmt: skip


def _cwd(step: Step, setting: Setting) -> str:
    """Where the task looks for its agent; where its workflow runs, if it does not say that yet."""
    cwd = (step.task or {}).get("cwd")
    return cwd if isinstance(cwd, str) and cwd.startswith("/") else setting.policy.home


def _check_defaults(setting: Setting, faults: list[Fault]) -> None:
    """Adds what is wrong with them whatever the task. What the tasks would be told of them again is told once."""
    said = setting.defaults
    for name in said:
        if name not in DEFAULTS:
            faults.append(decode.unknown(f"defaults.{name}", name, DEFAULTS))
    body: Raw = {name: said[name] for name in ("cwd", "env") if name in said}
    options = {name: value for name, value in said.items() if name in DEFAULTS and name not in body}
    task, wrong = decode.right({"command": ["true"], **body, "options": options}, TaskIn)
    if task is not None:
        task.agent = task.prompt = "any"
        submit.check(task, setting.policy, wrong)
    body["options"] = options
    unsure = {path for path, _ in strings(body)}
    faults += [
        Fault(f"defaults.{fault.path.removeprefix('options.')}", fault.message, fault.kind)
        for fault in wrong
        if fault.path not in unsure and fault.path not in ("agent", "prompt", "command")
    ]


def _check_progress(said: DefinitionIn, faults: list[Fault]) -> None:
    total = 0.0
    for n, phase in enumerate(said.phases or ()):
        if not isinstance(phase, PhaseIn) or not phase.progress:
            continue
        begin, end = phase.progress
        if begin > end:
            faults.append(Fault(f"phases[{n}].progress", "its begin is after its end"))
        elif total <= 100 < total + end - begin:
            faults.append(Fault(f"phases[{n}].progress", "the phases have more than 100 percent together"))
        total += end - begin
