"""Hooks of Claude Code: taken in at once and without a verdict; what the rules make of them follows behind."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from orchestr8d.core.decode import convert
from orchestr8d.core.errors import Problem, refuse
from orchestr8d.core.model import NewTask
from orchestr8d.core.task_input import TaskIn
from orchestr8d.hook_rules import Asked
from orchestr8d.status_api import respond, rights
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.status_api.submit import made
from orchestr8d.tokens import Caller


class NoVerdict(msgspec.Struct):
    """An empty object: whoever sends a hook goes on as if there were none."""


async def claude_code(services: Services, call: Call) -> web.Response:
    size = call.request.content_length
    services.hooks.take(call.body, call.caller, services.config().server.max_body if size is None else size)
    return respond.json(NoVerdict())


async def submit(services: Services, caller: Caller, asked: Asked) -> str:
    """Makes the task that a rule asks for, as if the caller had submitted it; answers its id. Raises Problem.

    A debounced one waits under its key, and is changed and put off again by the next of its kind. Once it runs, it is
    replaced: it works on what is outdated.
    """
    task, faults = convert(asked.task, TaskIn)
    refuse(faults)
    assert task is not None
    (new,) = await made(services, caller, task)
    if asked.debounce is None:
        return await _submitted(services, new)
    new = msgspec.structs.replace(new, unique_key=asked.key, on_conflict="existing", delay=asked.debounce)
    created = await services.store.submit([new], _unread)
    (holder,) = created.tasks
    if not created.existing:
        return holder.id
    rights.check(caller, holder)
    try:
        return (await services.store.edit(holder.id, lambda _: new)).id
    except Problem as problem:
        if problem.kind not in ("conflict", "not-found"):
            raise
    return await _submitted(services, msgspec.structs.replace(new, on_conflict="replace"))


async def _submitted(services: Services, new: NewTask) -> str:
    return (await services.store.submit([new], _unread)).tasks[0].id


def _unread(_: object) -> bytes:
    return b""


ROUTES = (
    Route(
        "POST", "/hooks/claude-code", claude_code, "Take in a hook of Claude Code", "submit", {200: NoVerdict},
        body=dict[str, Any], body_required=True,
    ),
)  # fmt: skip
