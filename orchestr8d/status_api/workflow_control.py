"""What a person does with a workflow that exists, or one of its tasks for it: start it, hold it, end it, answer it."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from orchestr8d.core.decode import convert
from orchestr8d.core.durations import iso
from orchestr8d.core.errors import Fault, refuse
from orchestr8d.core.task_input import Name
from orchestr8d.core.workflow import FINAL, Workflow
from orchestr8d.status_api import respond, rights, workflow_reads
from orchestr8d.status_api import workflow_views as views
from orchestr8d.status_api.route import ANY, Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.status_api.steering import AFTER_GRACE, Cancel
from orchestr8d.status_api.submit import accepting
from orchestr8d.status_api.watch import MAX_WAIT


class RetryIn(msgspec.Struct, forbid_unknown_fields=True, rename={"phase": "from"}):
    """A phase that shall run again with all that follows from it; without one, what did not end well does."""

    phase: str | None = None


class AnswerIn(msgspec.Struct, forbid_unknown_fields=True):
    """The comment becomes the result of the approval's task."""

    comment: Annotated[str, msgspec.Meta(max_length=65_536)] | None = None


class MilestoneIn(msgspec.Struct, forbid_unknown_fields=True):
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=10_000)]


async def _steered(services: Services, call: Call) -> str:
    """The id of the workflow that the path names, for a caller who may change it."""
    workflow = await services.store.workflow(call.path("id"))
    rights.check_workflow(call.caller, workflow)
    return workflow.id


async def _shown(services: Services, workflow: Workflow) -> web.Response:
    return await workflow_reads.shown(services, workflow.id)


async def begin(services: Services, call: Call) -> web.Response:
    accepting(services)
    return await _shown(services, await services.store.begin_workflow(await _steered(services, call)))


async def pause(services: Services, call: Call) -> web.Response:
    return await _shown(services, await services.store.pause_workflow(await _steered(services, call)))


async def resume(services: Services, call: Call) -> web.Response:
    return await _shown(services, await services.store.resume_workflow(await _steered(services, call)))


async def cancel(services: Services, call: Call) -> web.Response:
    before = await services.store.workflow(await _steered(services, call))
    workflow = await services.store.cancel_workflow(before.id)

    def is_over(now: Workflow) -> bool:
        """Nothing of it runs any more, or what runs has begun since to undo it; what undid a failure is ended too."""
        return now.status in FINAL or bool(now.rollback and not before.rollback)

    wanted: Cancel = call.query
    bound = services.config().executor.grace + AFTER_GRACE
    patience = bound if wanted.wait is None else min(wanted.wait, max(bound, MAX_WAIT))
    if not is_over(workflow) and patience > 0:
        await workflow_reads.until(services, workflow.id, is_over, patience)
    return await _shown(services, workflow)


async def retry(services: Services, call: Call) -> web.Response:
    accepting(services)
    said: RetryIn = call.body
    workflow_id = await _steered(services, call)
    return await _shown(services, await services.store.retry_workflow(workflow_id, said.phase))


async def signal(services: Services, call: Call) -> web.Response:
    name, faults = convert(call.path("name"), Name)
    refuse([Fault("name", fault.message) for fault in faults])
    assert name is not None
    workflow_id = await _steered(services, call)
    sent = await services.store.send_signal(workflow_id, name, call.body)
    return respond.json(views.SignalView(workflow_id, sent.name, sent.payload, iso(sent.at) or ""))


async def approve(services: Services, call: Call) -> web.Response:
    return await _answer(services, call, approved=True)


async def reject(services: Services, call: Call) -> web.Response:
    return await _answer(services, call, approved=False)


async def _answer(services: Services, call: Call, *, approved: bool) -> web.Response:
    said: AnswerIn = call.body
    workflow_id = await _steered(services, call)
    answered = await services.store.answer_approval(workflow_id, call.path("task"), approved, said.comment)
    return respond.json(views.task(answered, paused=False))


async def milestone(services: Services, call: Call) -> web.Response:
    said: MilestoneIn = call.body
    return await _shown(services, await services.store.add_milestone(await _steered(services, call), said.text))


ROUTES = (
    Route(
        "POST", "/api/v1/workflows/{id}/start", begin, "Start a workflow that waits to be started", "submit",
        {200: views.WorkflowFull}, (409, 422),
    ),
    Route(
        "POST", "/api/v1/workflows/{id}/pause", pause, "Start nothing more of a workflow", "submit",
        {200: views.WorkflowFull}, (409,),
    ),
    Route(
        "POST", "/api/v1/workflows/{id}/resume", resume, "Let a workflow go on", "submit",
        {200: views.WorkflowFull}, (409,),
    ),
    Route(
        "POST", "/api/v1/workflows/{id}/cancel", cancel, "Cancel a workflow; what runs of it is ended", "submit",
        {200: views.WorkflowFull}, (409,), query=Cancel,
    ),
    Route(
        "POST", "/api/v1/workflows/{id}/retry", retry, "Run again what did not end well, or from a phase on", "submit",
        {200: views.WorkflowFull}, (409, 422), body=RetryIn,
    ),
    Route(
        "POST", "/api/v1/workflows/{id}/signals/{name}", signal, "Send a signal; the body is its payload", "submit",
        {200: views.SignalView}, (409,), body=ANY, inside="workflow",
    ),
    Route(
        "POST", "/api/v1/workflows/{id}/tasks/{task}/approve", approve, "Say yes to an approval", "submit",
        {200: views.WorkflowTask}, (409,), body=AnswerIn,
    ),
    Route(
        "POST", "/api/v1/workflows/{id}/tasks/{task}/reject", reject, "Say no to an approval", "submit",
        {200: views.WorkflowTask}, (409,), body=AnswerIn,
    ),
    Route(
        "POST", "/api/v1/workflows/{id}/milestones", milestone, "Note a milestone", "submit",
        {200: views.WorkflowFull}, (409,), body=MilestoneIn, body_required=True, inside="workflow",
    ),
)  # fmt: skip
