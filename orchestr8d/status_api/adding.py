"""Tasks for a workflow that exists: from outside, or by one of its own tasks, which makes one where there is none."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import msgspec

from orchestr8d.core.errors import Fault, Problem, refuse
from orchestr8d.core.model import NewTask, Task
from orchestr8d.core.task_input import TaskIn
from orchestr8d.core.workflow import ROLLBACK, Definition, Extension, NewWorkflow, Node, Phase, Step, Workflow
from orchestr8d.status_api.route import Call
from orchestr8d.status_api.services import Services
from orchestr8d.store.types import Answer, Stale
from orchestr8d.tokens import Caller

# Of a workflow that a task makes of itself: its only phase, and its own local id.
PHASE = "tasks"
FOUNDER = "main"


async def as_itself(services: Services, caller: Caller) -> Caller:
    """A task's own token is for its user's tasks only."""
    if caller.task_id is None:
        return caller
    return msgspec.structs.replace(caller, user_id=(await services.store.task(caller.task_id)).user_id)


async def check_depth(services: Services, caller: Caller) -> None:
    """Raises Problem for tasks that would be too deep: added by a task that was added, and so on."""
    node = None if caller.task_id is None else await services.store.node_of(caller.task_id)
    most = services.config().limits.depth
    if node is not None and node.depth + 1 > most:
        raise Problem("unprocessable", f"tasks that are added by tasks go {most} deep at most ([limits] depth)")


async def extend(
    services: Services, call: Call, workflow_id: str, more: Callable[[Workflow], Awaitable[Extension]], answer: Answer
) -> tuple[bytes, bool]:
    """Adds what `more` makes of the workflow as it was read, again when it was extended meanwhile. The answer, and
    whether it is an earlier request's."""
    await check_depth(services, call.caller)
    store, by = services.store, call.caller.task_id
    while True:
        workflow = await store.workflow(workflow_id)
        try:
            extension = await more(workflow)
        except Problem:
            # What an earlier request of this key has added may be what is wrong.
            extension = Extension("", workflow.read_definition(), {})
            if call.once is None or (body := await _first_answer(services, call, workflow_id, extension)) is None:
                raise
            return body, True
        try:
            return await store.extend_workflow(workflow_id, extension, by, answer, call.once)
        except Stale:
            continue


async def _first_answer(services: Services, call: Call, workflow_id: str, never: Extension) -> bytes | None:
    try:
        body, _ = await services.store.extend_workflow(workflow_id, never, call.caller.task_id, _unread, call.once)
    except (Stale, Problem):
        return None
    return body


def _unread(_: Sequence[Task]) -> bytes:
    return b""


async def add(
    services: Services, call: Call, asked: Sequence[TaskIn], new: Sequence[NewTask], answer: Answer
) -> tuple[bytes, bool]:
    """Adds plain tasks to the workflow of the task that asks, in its phase; as `extend`."""
    task_id = call.caller.task_id
    assert task_id is not None
    task = await services.store.task(task_id)
    workflow_id = task.workflow_id or await _found(services, task)
    node = await services.store.node_of(task_id)
    if node is None or node.phase is None or node.phase == ROLLBACK:
        raise Problem("conflict", "this task is none of its workflow's any more, or undoes what that did: it adds none")
    phase = node.phase
    faults: list[Fault] = []
    before = [await _local(services, workflow_id, one, faults) for one in new]
    refuse(faults)

    async def more(workflow: Workflow) -> Extension:
        return _extension(workflow, phase, asked, new, before, services.config().limits.workflow_tasks)

    return await extend(services, call, workflow_id, more, answer)


async def _local(services: Services, workflow_id: str, new: NewTask, faults: list[Fault]) -> list[Node]:
    """Those of its dependencies that are of the same workflow; not of a task that runs even if they fail."""
    found = []
    for n, other in enumerate(new.spec.depends_on):
        try:
            node = await services.store.node_of(other)
        except Problem as problem:
            faults.append(Fault(f"{new.at}options.depends_on[{n}]", problem.detail, "unprocessable"))
            continue
        if node is not None and node.workflow_id == workflow_id and not new.spec.allow_failed:
            found.append(node)
    return found


def _extension(
    workflow: Workflow, phase_id: str, asked: Sequence[TaskIn], new: Sequence[NewTask],
    before: Sequence[Sequence[Node]], most: int,
) -> Extension:  # fmt: skip
    definition = workflow.read_definition()
    there = {step.id for phase in definition.phases for step in phase.tasks}
    if len(there) + len(new) > most:
        raise Problem("unprocessable", f"a workflow has {most:,} tasks at most ([limits] workflow_tasks)")
    names = _names(there, len(new))
    drafts, steps = {}, []
    for name, said, draft, nodes in zip(names, asked, new, before, strict=True):
        inside = {node.task_id for node in nodes}
        rest = [other for other in draft.spec.depends_on if other not in inside]
        drafts[name] = msgspec.structs.replace(draft, spec=msgspec.structs.replace(draft.spec, depends_on=rest))
        body = msgspec.to_builtins(said)
        steps.append(Step(name, depends_on=list(dict.fromkeys(n.id for n in nodes)), task=body, plain=True))
    phases = [
        msgspec.structs.replace(phase, tasks=[*phase.tasks, *steps]) if phase.id == phase_id else phase
        for phase in definition.phases
    ]
    return Extension(workflow.definition, msgspec.structs.replace(definition, phases=phases), drafts)


def _names(there: set[str], count: int) -> list[str]:
    names: list[str] = []
    number = 0
    while len(names) < count:
        number += 1
        if f"added-{number}" not in there:
            names.append(f"added-{number}")
    return names


async def _found(services: Services, task: Task) -> str:
    """The id of the workflow that a task makes of itself; of the one that it has made meanwhile."""
    spec = task.read_spec()
    name = spec.title or task.agent or (spec.command or [task.kind])[0]
    body = {"agent": task.agent, "prompt": spec.prompt} if spec.agent is not None else {"command": spec.command}
    founder = Step(FOUNDER, task={**body, "cwd": spec.cwd}, plain=True)
    definition = Definition(name[:200] or task.kind, phases=[Phase(PHASE, tasks=[founder])])
    new = NewWorkflow(
        name=definition.name, definition=definition, drafts={}, cwd=spec.cwd or services.home, user_id=task.user_id,
        priority=task.priority, founder=(FOUNDER, task.id),
    )  # fmt: skip
    try:
        body_, _ = await services.store.add_workflow(new, lambda made: made.id.encode())
    except Problem as problem:
        made = (await services.store.task(task.id)).workflow_id
        if problem.kind != "conflict" or made is None:
            raise
        return made
    return body_.decode()
