"""Handing over tasks: one, many at once, an earlier one again, and more for the agent of an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from orchestr8d.agents import Unresolved
from orchestr8d.core import model, steering
from orchestr8d.core.decode import convert
from orchestr8d.core.errors import Fault, Problem, enough, refuse
from orchestr8d.core.model import NewTask
from orchestr8d.core.submit import Policy, check, check_programs, new_task, patched
from orchestr8d.core.task_input import Batch, Options, OptionsPatch, Prompt, TaskIn, TaskPatch
from orchestr8d.core.waiting import Why, waiting_for
from orchestr8d.status_api import adding, respond, rights, views
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.store.types import Answer, Created, Followup
from orchestr8d.tokens import Caller

# Of a submit that is refused, so many dependencies are looked up at most.
MOST_LOOKED_UP = 1000
Tasks = list[tuple[str, TaskIn]]
# What names of agents mean in directories, as it was found for one request: a name that means nothing has the disk
# looked at again.
Said = dict[tuple[str, str], str | None]
_LOCATION = {"Location": "the task that was made"}


class ContinueIn(msgspec.Struct, forbid_unknown_fields=True):
    """What to say; `options` as far as they shall differ from those of the task that is gone on with."""

    prompt: Prompt
    options: OptionsPatch | UnsetType = UNSET


def policy(services: Services, caller: Caller) -> Policy:
    """What this caller's tasks are held against."""
    rules = services.policy()
    if caller.user_id is None and caller.task_id is None:
        return rules
    # What a task adds is of its workflow.
    return msgspec.structs.replace(
        rules, user_id=caller.user_id or rules.user_id, in_workflow=caller.task_id is not None
    )


def _one(tasks: Sequence[model.Task]) -> bytes:
    return respond.encode(views.submitted(tasks[0]))


def _many(tasks: Sequence[model.Task]) -> bytes:
    return respond.encode(views.SubmittedBatch([views.submitted(task) for task in tasks]))


def _again(tasks: Sequence[model.Task]) -> bytes:
    task = tasks[0]
    return respond.encode(views.task(model.TaskView(task, waiting_for(task, Why()))))


def _admit(services: Services, caller: Caller, new: Sequence[NewTask]) -> None:
    """What a submit needs beside valid fields. Raises Problem."""
    for task in new:
        rights.check(caller, task)
    accepting(services)


def accepting(services: Services) -> None:
    """Raises Problem while the daemon drains: what is running is finished, nothing is added."""
    if services.draining():
        raise Problem("unavailable", "the daemon is shutting down", retry_after=5)


def _created(created: Created) -> web.Response:
    """202 for what is new, 200 for what was there: an earlier request's answer, or the holder of the key."""
    task_id = created.tasks[0].id if created.tasks else msgspec.json.decode(created.body)["task_id"]
    there = created.replayed or created.existing
    return respond.raw(created.body, 200 if there else 202, {"Location": views.task_url(task_id)})


async def _unknown(services: Services, given: Tasks) -> list[Fault]:
    """The dependencies that do not exist. Only what is refused anyway asks here: for the rest, the store looks."""
    known: dict[str, bool] = {}
    faults: list[Fault] = []
    for at, task in given:
        options = task.options or Options()  # UNSET when wrong
        for n, other in enumerate(options.depends_on or ()):
            if enough(faults) or len(known) >= MOST_LOOKED_UP:
                return faults
            if other not in known:
                known[other] = await _exists(services, other)
            if not known[other]:
                path = f"{at}options.depends_on[{n}]"
                faults.append(Fault(path, f"there is no task {other!r}", "unprocessable"))
    return faults


async def _exists(services: Services, task_id: str) -> bool:
    try:
        await services.store.task(task_id)
    except Problem as problem:
        if problem.kind != "not-found":
            raise
        return False
    return True


async def _also(services: Services, call: Call) -> list[Fault]:
    return await all_also(services, call.caller, _given(call.body))


async def all_also(services: Services, caller: Caller, given: Tasks) -> list[Fault]:
    """What else is wrong with tasks that are refused, each with the beginning of its paths."""
    faults: list[Fault] = []
    rules = policy(services, caller)
    for at, task in given:
        if not enough(faults):
            check(task, rules, faults, at)
    faults += await _nowhere(services, given, {})
    return faults + await _unknown(services, given)


def _given(body: TaskIn | Batch) -> Tasks:
    """The tasks of a body, each with the beginning of its path; without those of which nothing is right."""
    if isinstance(body, TaskIn):
        return [("", body)]
    return [(f"tasks[{i}].", task) for i, task in enumerate(body.tasks or ()) if task]


async def made(services: Services, caller: Caller, body: TaskIn | Batch) -> list[NewTask]:
    """The tasks of a good body as the store takes them. Raises Problem."""
    return await all_made(services, caller, _given(body))


async def all_made(services: Services, caller: Caller, given: Tasks) -> list[NewTask]:
    """The same of tasks, each with the beginning of its paths."""
    rules = policy(services, caller)
    faults: list[Fault] = []
    found: list[NewTask] = []
    for at, task in given:
        if enough(faults):
            break
        new = new_task(task, rules, faults, at)
        if new is not None:
            found.append(new)
    said: Said = {}
    if any(new.spec.agent is not None for new in found):
        faults += await unresolved(services, found, said)
    if faults:
        whole = {new.at for new in found}
        faults += await _nowhere(services, [(at, task) for at, task in given if at not in whole], said)
        refuse(faults + await _unknown(services, given))
    _admit(services, caller, found)
    return found


async def unresolved(services: Services, new: Sequence[NewTask], said: Said) -> list[Fault]:
    """The agents that nobody knows, and the tasks that cannot be gone on with."""
    faults: list[Fault] = []
    for task in new:
        agent = task.spec.agent
        if agent is None or enough(faults):
            continue
        if (why := await unknown_agent(services, agent.name, task.spec.cwd or services.home, said)) is not None:
            faults.append(Fault(f"{task.at}agent", why, "unprocessable"))
        if agent.resume_from is not None:
            try:
                task.spec = steering.resumed(task.spec, await services.store.task(agent.resume_from))
            except Problem as problem:
                faults.append(Fault(f"{task.at}options.resume_from", problem.detail, "unprocessable"))
    return faults


async def _nowhere(services: Services, given: Tasks, said: Said) -> list[Fault]:
    """The same of tasks that are refused for something else, as far as it can be told."""
    faults: list[Fault] = []
    for at, task in given:
        if enough(faults):
            break
        cwd = services.home if task.cwd is None else task.cwd  # UNSET when wrong, as all of its fields
        if task.agent and cwd and cwd.startswith("/"):
            why = await unknown_agent(services, task.agent, cwd, said)
            faults += [] if why is None else [Fault(f"{at}agent", why, "unprocessable")]
        source = (task.options or Options()).resume_from
        if task.agent and source and not await _exists(services, source):
            faults.append(Fault(f"{at}options.resume_from", f"there is no task {source!r}", "unprocessable"))
    return faults


async def unknown_agent(services: Services, name: str, cwd: str, said: Said) -> str | None:
    """Why the name means no one agent there; None when it does."""
    if (name, cwd) not in said:
        try:
            await services.agents.resolve(name, cwd)
        except Unresolved as e:
            said[name, cwd] = str(e)
        else:
            said[name, cwd] = None
    return said[name, cwd]


async def follow_up(services: Services, due: Followup, asked: dict[str, Any]) -> str | None:
    """Makes the task that follows from another's end, as if its user had submitted it; answers its id, None when it was
    made already. Raises Problem."""
    task, faults = convert(asked, TaskIn)
    refuse(faults)
    assert task is not None
    (new,) = await made(services, Caller(token_id="", name="follow-up", scope="submit"), task)
    found = await services.store.follow_up(due, new)
    return None if found is None else found.id


async def submit(services: Services, call: Call) -> web.Response:
    return _created(await _submitted(services, call, _one))


async def submit_batch(services: Services, call: Call) -> web.Response:
    created = await _submitted(services, call, _many)
    return respond.raw(created.body, 200 if created.replayed else 202)


async def _submitted(services: Services, call: Call, answer: Answer) -> Created:
    if call.caller.task_id is None:
        new = await made(services, call.caller, call.body)
        return await services.store.submit(new, answer, call.once)
    new = await made(services, await adding.as_itself(services, call.caller), call.body)
    body, replayed = await adding.add(services, call, [task for _, task in _given(call.body)], new, answer)
    return Created([], body, replayed)


async def retry(services: Services, call: Call) -> web.Response:
    accepting(services)
    task = await rights.steered(services, call)
    faults: list[Fault] = []
    check_programs(task.read_spec(), policy(services, call.caller), faults)
    refuse(faults)
    return _created(await services.store.retry(task.id, _again, call.once))


def _changes(body: ContinueIn) -> TaskPatch:
    return TaskPatch(prompt=body.prompt, options=body.options)


async def _also_continue(services: Services, call: Call) -> list[Fault]:
    faults: list[Fault] = []
    check(_changes(call.body), policy(services, call.caller), faults)
    return faults


async def continue_(services: Services, call: Call) -> web.Response:
    source = await rights.steered(services, call)
    rules = policy(services, call.caller)
    new = patched(steering.go_on(source, call.body.prompt), _changes(call.body), rules)
    faults = [] if rules.agents.off is None else [Fault("agent", rules.agents.off, "unprocessable")]
    check_programs(new.spec, rules, faults)
    refuse(faults + await unresolved(services, [new], {}))
    _admit(services, call.caller, [new])
    return _created(await services.store.submit([new], _one, call.once))


ROUTES = (
    Route(
        "POST", "/api/v1/tasks", submit, "Submit a task", "submit",
        {202: views.Submitted, 200: views.Submitted}, (409, 422, 429),
        body=TaskIn, body_required=True, also=_also, once=True, inside="any",
        response_headers={200: _LOCATION, 202: _LOCATION},
    ),
    Route(
        "POST", "/api/v1/tasks:batch", submit_batch, "Submit up to 1,000 tasks, all or none", "submit",
        {202: views.SubmittedBatch, 200: views.SubmittedBatch}, (409, 422, 429),
        body=Batch, body_required=True, also=_also, once=True, inside="any",
    ),
    Route(
        "POST", "/api/v1/tasks/{id}/retry", retry, "Submit a failed or cancelled task again, as a new task", "submit",
        {202: views.Task, 200: views.Task}, (409, 422, 429),
        once=True, response_headers={200: _LOCATION, 202: _LOCATION},
    ),
    Route(
        "POST", "/api/v1/tasks/{id}/continue", continue_, "Say more to an agent, as a new task", "submit",
        {202: views.Submitted, 200: views.Submitted}, (409, 422, 429),
        body=ContinueIn, body_required=True, also=_also_continue, once=True,
        response_headers={200: _LOCATION, 202: _LOCATION},
    ),
)  # fmt: skip
