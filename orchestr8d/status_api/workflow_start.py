"""From what starts or extends a workflow to what the store takes: definitions are checked beside the loop, agents and
sub-workflows are found."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from orchestr8d.core import addresses, definition, durations, step_input, submit, workflow_params
from orchestr8d.core.decode import convert
from orchestr8d.core.definition import Bounds, Checked
from orchestr8d.core.errors import Fault, Problem, enough, refuse
from orchestr8d.core.model import NewTask
from orchestr8d.core.step_templates import strings
from orchestr8d.core.submit import Policy
from orchestr8d.core.task_input import TaskIn
from orchestr8d.core.workflow import Extension, Head, NewWorkflow, Node, Param, Step, Workflow
from orchestr8d.core.workflow_input import Raw, WorkflowIn
from orchestr8d.status_api import submit as submitting
from orchestr8d.status_api.services import Services
from orchestr8d.tokens import Caller

# Sub-workflows are followed so far; [limits] depth is less.
_DEEPEST: Final = 100
# Whose tasks the engine makes: what they may be was decided when the workflow was started.
ENGINE = Caller(token_id="", name="workflow", scope="submit")


async def resolved(
    services: Services, caller: Caller, asked: WorkflowIn, *, depth: int = 0, parent_task: str | None = None,
    loose: bool = False,
) -> NewWorkflow:  # fmt: skip
    """The workflow that is asked for, as the store takes it. With `loose` parameters that are texts are taken for what
    they spell. Raises Problem with all faults."""
    faults: list[Fault] = []
    cwd = _cwd(services, asked, faults)
    _check_start(services, asked, depth, faults)
    raw = await asyncio.to_thread(_raw, services, asked, faults)
    if raw is None:
        refuse(faults)
        raise AssertionError("a definition is missing, and nothing is wrong")
    policy = _policy(services, caller, cwd, asked.user_id)
    priority = submit.priority(asked.priority)
    checked = await asyncio.to_thread(
        definition.check, raw, asked.params, policy, _bounds(services), priority=priority, loose=loose
    )
    faults += checked.faults
    await _find_agents(services, checked, faults)
    faults += await asyncio.to_thread(_check_workflows, services, checked, depth)
    refuse(faults)
    _check_user(caller, policy)
    found = checked.definition
    return NewWorkflow(
        name=asked.name or found.name, definition=found, drafts=checked.drafts, template=asked.template,
        params=checked.params, cwd=cwd, user_id=policy.user_id, start=asked.start and bool(found.phases),
        callback_url=asked.callback_url, priority=priority,
        deadline=None if asked.deadline is None else durations.seconds(asked.deadline),
        max_cost_usd=asked.max_cost_usd, tags=list(dict.fromkeys(asked.tags)), metadata=asked.metadata,
        parent_task=parent_task, depth=depth,
    )  # fmt: skip


async def extended(
    services: Services, caller: Caller, workflow: Workflow, phases: Mapping[str, Raw], steps: Mapping[str, Raw]
) -> Extension:
    """Phases and tasks to be added to a workflow, as they were written, by the beginning of their faults' paths
    (`tasks[1].`). A task names its `phase`. Raises Problem with all faults."""
    policy = _policy(services, caller, workflow.cwd, workflow.user_id)
    before = workflow.read_definition()
    params = msgspec.json.decode(workflow.params)
    checked = await asyncio.to_thread(
        definition.extend, before, params, phases, steps, policy, _bounds(services), priority=workflow.priority
    )
    faults = checked.faults
    await _find_agents(services, checked, faults)
    faults += await asyncio.to_thread(_check_workflows, services, checked, workflow.depth)
    refuse(faults)
    _check_user(caller, policy)
    return Extension(workflow.definition, checked.definition, checked.drafts)


async def sub_workflow(services: Services, workflow: Head, node: Node, params: dict[str, Any]) -> NewWorkflow:
    """The workflow that a task of another one stands for, with what its parameters came to. Raises Problem."""
    step = node.read_step()
    asked = WorkflowIn(
        template=step.workflow, params=params, cwd=workflow.cwd, user_id=workflow.user_id, priority=workflow.priority
    )
    assert node.task_id is not None
    return await resolved(services, ENGINE, asked, depth=workflow.depth + 1, parent_task=node.task_id)


async def made(services: Services, workflow: Head, node: Node, body: dict[str, Any]) -> NewTask:
    """The task that a rendered body asks for. Where its step goes on with a conversation the body has that task's id as
    `options.resume_from`. Raises Problem."""
    policy = _policy(services, ENGINE, workflow.cwd, workflow.user_id)
    task, faults = convert(body, TaskIn)
    refuse(faults)
    assert task is not None
    new = submit.new_task(task, policy, faults)
    refuse(faults)
    assert new is not None
    refuse(await submitting.unresolved(services, [new], {}))
    return step_input.finished(new, body.get("options", {}), workflow.priority)


def _policy(services: Services, caller: Caller, cwd: str, user_id: str | None) -> Policy:
    """What a workflow's tasks are held against: they run where it runs, for whom it runs."""
    rules = submitting.policy(services, caller)
    return msgspec.structs.replace(rules, home=cwd, user_id=user_id or rules.user_id, in_workflow=True)


def _bounds(services: Services) -> Bounds:
    limits = services.config().limits
    return Bounds(limits.workflow_tasks, limits.fan)


def _cwd(services: Services, asked: WorkflowIn, faults: list[Fault]) -> str:
    """Where the workflow runs."""
    if asked.cwd is None:
        return services.home
    before = len(faults)
    submit.check_cwd(asked.cwd, "cwd", faults)
    return asked.cwd if len(faults) == before else services.home


def _check_start(services: Services, asked: WorkflowIn, depth: int, faults: list[Fault]) -> None:
    if asked.callback_url is not None:
        allow = addresses.read_allow(services.config().webhooks.allow)
        if (wrong := addresses.fault(asked.callback_url, allow)) is not None:
            faults.append(Fault("callback_url", wrong))
    if submit.is_deeper(asked.metadata, submit.MAX_DEPTH):
        faults.append(Fault("metadata", f"nested more than {submit.MAX_DEPTH} levels deep"))
    if asked.template is not None and asked.definition is not None:
        faults.append(Fault("definition", "give a template or a definition, not both"))
    elif asked.template is None and asked.definition is None and asked.name is None:
        faults.append(Fault("template", "give a template, a definition, or a name for what is filled step by step"))
    if depth > services.config().limits.depth:
        most = f"workflows in workflows go {services.config().limits.depth} deep at most ([limits] depth)"
        faults.append(Fault("", most, "unprocessable"))


def _raw(services: Services, asked: WorkflowIn, faults: list[Fault]) -> Raw | None:
    """The definition as it was written."""
    if asked.definition is not None:
        return asked.definition
    if asked.template is None:
        return None if asked.name is None else {"name": asked.name}
    try:
        return services.templates.get(asked.template)
    except Problem as problem:
        faults += problem.faults or [Fault("template", problem.detail, "unprocessable")]
        return None


async def _find_agents(services: Services, checked: Checked, faults: list[Fault]) -> None:
    """Puts into each agent's task the first of its agents that there is."""
    said: dict[tuple[str, str], str | None] = {}
    for wish in checked.wishes:
        if enough(faults):
            return
        why: list[str] = []
        for name in wish.names:
            unknown = await submitting.unknown_agent(services, name, wish.cwd, said)
            if unknown is None:
                _choose(checked, wish.task, name)
                break
            why.append(unknown)
        else:
            faults.append(Fault(wish.path, "; ".join(why), "unprocessable"))


def _choose(checked: Checked, step: Step, name: str) -> None:
    assert step.task is not None
    step.task["agent"] = name
    draft = checked.drafts.get(step.id)
    if draft is not None and draft.spec.agent is not None:
        agent = msgspec.structs.replace(draft.spec.agent, name=name)
        draft.spec = msgspec.structs.replace(draft.spec, agent=agent)


def _check_user(caller: Caller, policy: Policy) -> None:
    """Raises Problem when the caller's token is for another user's tasks."""
    if caller.user_id is not None and policy.user_id != caller.user_id:
        raise Problem("forbidden", f"this token is for tasks of the user {caller.user_id!r} only")


def _check_workflows(services: Services, checked: Checked, depth: int) -> list[Fault]:
    """What is wrong with the sub-workflows that are named: what they are given, and how deep they go."""
    faults: list[Fault] = []
    known = _Known(services)
    left = services.config().limits.depth - depth
    for at, step in checked.workflows:
        if enough(faults):
            break
        assert step.workflow is not None
        raw = known.get(step.workflow)
        if isinstance(raw, str):
            faults.append(Fault(f"{at}workflow", raw, "unprocessable"))
            continue
        faults += _check_given(step, definition.read_params(raw, []), at)
        way = known.way(step.workflow)
        if way[-1] in way[:-1]:
            faults.append(Fault(f"{at}workflow", f"goes in circles: {' → '.join(way)}", "unprocessable"))
        elif len(way) > left:
            most = f"workflows in workflows go {left + depth} deep at most: {' → '.join(way)}"
            faults.append(Fault(f"{at}workflow", most, "unprocessable"))
    return faults


def _check_given(step: Step, params: Mapping[str, Param], at: str) -> list[Fault]:
    """What is wrong with what a sub-workflow is given, as far as that is told before templates have values."""
    untold = {path.split(".")[0].split("[")[0] for path, _ in strings(step.params)} & set(params)
    given = {name: None if name in untold else value for name, value in step.params.items()}
    found: list[Fault] = []
    workflow_params.values(params, given, found, f"{at}params")
    return [fault for fault in found if fault.path not in {f"{at}params.{name}" for name in untold}]


class _Known:
    """The templates that one request names, each looked up once."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._raw: dict[str, Raw | str] = {}
        self._ways: dict[str, tuple[str, ...]] = {}

    def get(self, name: str) -> Raw | str:
        """A definition, or why there is none."""
        if name not in self._raw:
            try:
                self._raw[name] = self._services.templates.get(name)
            except Problem as problem:
                self._raw[name] = problem.detail
        return self._raw[name]

    def way(self, name: str, above: tuple[str, ...] = ()) -> tuple[str, ...]:
        """The longest way from a workflow to one in it, and so on; one that comes back to itself, if there is one."""
        if name in above or len(above) > _DEEPEST:
            return (name,)
        if name not in self._ways:
            raw = self.get(name)
            ways = [self.way(one, (*above, name)) for one in ([] if isinstance(raw, str) else _named(raw))]
            circle = next((way for way in ways if way[-1] in (*above, name) or way[-1] in way[:-1]), None)
            if circle is not None:
                return (name, *circle)
            self._ways[name] = (name, *max(ways, key=len, default=()))
        return self._ways[name]


def _named(raw: Raw) -> list[str]:
    """The workflows that a definition names as they are, wherever."""
    lists: Sequence[Any] = [raw.get("on_failure"), *(
        phase.get("tasks") for phase in raw.get("phases") or () if isinstance(phase, dict)
    )]  # fmt: skip
    tasks = [task for one in lists if isinstance(one, list) for task in one if isinstance(task, dict)]
    names = [task.get("workflow") for task in tasks]
    return list(dict.fromkeys(name for name in names if isinstance(name, str) and not list(strings(name))))
