"""Templates of workflows: which there are, and what each one asks for."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
from aiohttp import web

from orchestr8d.core.workflow import Param
from orchestr8d.status_api import cursors, respond
from orchestr8d.status_api.cursors import Page
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services
from orchestr8d.templates import Template


class ParamShown(msgspec.Struct):
    """`default` is null where there is none, `enum` where every value of the type will do."""

    type: Literal["string", "integer", "number", "boolean", "list"]
    required: bool
    default: Any
    enum: list[Any] | None
    description: str | None


class Listed(msgspec.Struct):
    """A template. `phases` are the ids, in the order of the definition."""

    name: str
    description: str
    params: dict[str, ParamShown]
    phases: list[str]


class Listing(msgspec.Struct):
    """`ignored`: what lies where templates are looked for and cannot be used, as `PATH: why`."""

    templates: list[Listed]
    ignored: list[str]
    next_cursor: str | None


class Shown(Listed):
    """`definition` is as it was written; `path` is the file that it was read from."""

    definition: dict[str, Any]
    path: str


async def index(services: Services, call: Call) -> web.Response:
    wanted: Page = call.query
    found, ignored = await asyncio.to_thread(services.templates.listed)
    shown, more = cursors.page("templates", found, lambda template: template.name, wanted)
    return respond.json(Listing([Listed(*_fields(template)) for template in shown], ignored, more))


async def show(services: Services, call: Call) -> web.Response:
    template = await asyncio.to_thread(services.templates.template, call.path("name"))
    return respond.json(Shown(*_fields(template), template.definition, template.path))


def _fields(template: Template) -> tuple[str, str, dict[str, ParamShown], list[str]]:
    params = {name: _param(param) for name, param in template.params.items()}
    return template.name, template.description, params, list(template.phases)


def _param(param: Param) -> ParamShown:
    return ParamShown(param.type, param.required, param.default, param.enum, param.description)


ROUTES = (
    Route("GET", "/api/v1/templates", index, "List templates of workflows", "read", {200: Listing}, query=Page),
    Route("GET", "/api/v1/templates/{name}", show, "A template with its definition", "read", {200: Shown}),
)
