"""Starting a workflow, and filling one phase by phase and task by task."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from orchestr8d.core import graph, yaml_text
from orchestr8d.core.errors import Fault, Problem, refuse
from orchestr8d.core.model import Task
from orchestr8d.core.workflow import Extension, Workflow
from orchestr8d.core.workflow_input import STEP_FIELDS, PhaseIn, Raw, WorkflowIn
from orchestr8d.core.workflow_shown import shown
from orchestr8d.core.yaml_text import YamlError
from orchestr8d.status_api import adding, respond, rights, workflow_start
from orchestr8d.status_api import workflow_views as views
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.status_api.submit import accepting
from orchestr8d.store.types import Answer

_LOCATION = {"Location": "the workflow that was made"}


def _open(name: str, fields: Sequence[str], **more: Any) -> type[msgspec.Struct]:
    """Fields that may be templates: their names are checked by the gate, their values with the definition."""
    names = [(field, Any | UnsetType, UNSET) for field in dict.fromkeys(fields) if field not in more]
    return msgspec.defstruct(
        name, [*names, *((field, kind, UNSET) for field, kind in more.items())], forbid_unknown_fields=True
    )


StepToAdd = _open("StepToAdd", ("phase", *STEP_FIELDS))
# One task, or `tasks`: all or none.
StepsToAdd = _open(
    "StepsToAdd", ("phase", *STEP_FIELDS),
    tasks=Annotated[list[StepToAdd], Meta(min_length=1, max_length=1000)] | UnsetType,  # type: ignore[valid-type]
)  # fmt: skip
PhaseToAdd = _open("PhaseToAdd", PhaseIn.__struct_fields__, tasks=list[StepToAdd] | UnsetType)  # type: ignore[valid-type]


async def start(services: Services, call: Call) -> web.Response:
    accepting(services)
    asked = await asyncio.to_thread(_read_yaml, call) if isinstance(call.body, bytes) else call.body
    new = await workflow_start.resolved(services, call.caller, asked, loose=isinstance(call.body, bytes))
    rights.check_definition(call.caller, new.definition)
    if asked.dry_run:
        drawn = views.graph(graph.of_definition(new.definition))
        return respond.json(views.DryRun(shown(new.definition, secrets=True), drawn))
    body, replayed = await services.store.add_workflow(
        new, lambda made: respond.encode(views.started(made)), call.once
    )
    location = views.url(msgspec.json.decode(body)["workflow_id"])
    return respond.raw(body, 200 if replayed else 202, {"Location": location})


def _read_yaml(call: Call) -> WorkflowIn:
    """A bare definition; the query has its parameters."""
    try:
        definition = yaml_text.read(call.body)
    except YamlError as error:
        raise Problem("invalid", f"the body is not taken: {error}", [Fault("", str(error))]) from None
    if not isinstance(definition, dict):
        refuse([Fault("", "a definition is a mapping")])
    params = {name: given[0] if len(given) == 1 else given for name, given in call.query.items()}
    return WorkflowIn(definition=definition, params=params)


def _raw(said: msgspec.Struct) -> Raw:
    """What was given, as it was written."""
    found: Raw = msgspec.to_builtins(said)
    return found


async def _extended(
    services: Services, call: Call, phases: Mapping[str, Raw], steps: Mapping[str, Raw], answer: Answer
) -> tuple[bytes, bool]:
    accepting(services)
    workflow_id = call.path("id")
    rights.check_workflow(call.caller, await services.store.workflow(workflow_id))
    caller = await adding.as_itself(services, call.caller)

    async def more(workflow: Workflow) -> Extension:
        extension = await workflow_start.extended(services, caller, workflow, phases, steps)
        rights.check_definition(caller, extension.definition)
        return extension

    return await adding.extend(services, call, workflow_id, more, answer)


async def add_phase(services: Services, call: Call) -> web.Response:
    said = _raw(call.body)
    workflow_id = call.path("id")

    def answer(made: Sequence[Task]) -> bytes:
        return respond.encode(views.AddedPhase(workflow_id, said["id"], views.added(made)))

    body, replayed = await _extended(services, call, {"": said}, {}, answer)
    return respond.raw(body, 200 if replayed else 201)


async def add_tasks(services: Services, call: Call) -> web.Response:
    said = _raw(call.body)
    workflow_id = call.path("id")
    tasks = said.pop("tasks", None)
    if tasks is not None and said:
        refuse([Fault(name, "stands beside `tasks`, not in one of them") for name in said])
    steps = {"": said} if tasks is None else {f"tasks[{n}].": one for n, one in enumerate(tasks)}

    def answer(made: Sequence[Task]) -> bytes:
        return respond.encode(views.AddedTasks(workflow_id, views.added(made)))

    body, replayed = await _extended(services, call, {}, steps, answer)
    return respond.raw(body, 200 if replayed else 202)


ROUTES = (
    Route(
        "POST", "/api/v1/workflows", start, "Start a workflow; as YAML a bare definition, with its params in the query",
        "submit", {202: views.Started, 200: (views.Started, views.DryRun)}, (409, 422),
        body=WorkflowIn, body_required=True, yaml=True, once=True, response_headers={202: _LOCATION},
    ),
    Route(
        "POST", "/api/v1/workflows/{id}/phases", add_phase, "Add a phase, with its tasks", "submit",
        {201: views.AddedPhase, 200: views.AddedPhase}, (409, 422), body=PhaseToAdd, body_required=True, once=True,
    ),
    Route(
        "POST", "/api/v1/workflows/{id}/tasks", add_tasks, "Add a task, or `tasks`, all or none", "submit",
        {202: views.AddedTasks, 200: views.AddedTasks}, (409, 422), body=StepsToAdd, body_required=True, once=True,
        inside="workflow",
    ),
)  # fmt: skip
