"""Agents: which there are, and what a name means."""

from __future__ import annotations

import msgspec
from aiohttp import web

from orchestr8d.agents import Agent, AmbiguousAgent, UnknownAgent, is_path
from orchestr8d.core.errors import Fault, Problem
from orchestr8d.status_api import cursors, respond
from orchestr8d.status_api.cursors import Page
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services


class There(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The directory of the task that names the agent; the user's home when there is none."""

    cwd: str | None = None


class Wanted(Page, frozen=True, forbid_unknown_fields=True):
    """How much of the list, for tasks in which directory."""

    cwd: str | None = None


class Listed(msgspec.Struct):
    """An agent. `id` is `plugin:category:name`; `path` is null for those that the CLI brings; `model` and `tools` are
    null where it leaves them open."""

    name: str
    id: str
    path: str | None
    description: str
    model: str | None
    tools: list[str] | None


class Agents(msgspec.Struct):
    """`ignored`: what lies where agents are looked for and cannot be used, as `PATH: why`."""

    agents: list[Listed]
    ignored: list[str]
    next_cursor: str | None


class Shown(Listed):
    """`ignored`: what its file says that is not used, or could not be read."""

    ignored: list[str]


async def index(services: Services, call: Call) -> web.Response:
    wanted: Wanted = call.query
    cwd = _directory(wanted.cwd, services)
    found = await services.agents.list(cwd)
    shown, more = cursors.page("agents", found, lambda agent: f"{agent.id}\0{agent.path}", wanted)
    answer = Agents([Listed(*_fields(agent)) for agent in shown], list(await services.agents.ignored(cwd)), more)
    return respond.json(answer)


async def show(services: Services, call: Call) -> web.Response:
    wanted: There = call.query
    name = call.path("name")
    if is_path(name) and call.caller.scope == "read":
        raise Problem("forbidden", "a token of scope 'read' may ask for agents by name, not for files by path")
    try:
        agent = await services.agents.resolve(name, _directory(wanted.cwd, services))
    except UnknownAgent as e:
        raise Problem("not-found", str(e)) from None
    except AmbiguousAgent as e:
        raise Problem("unprocessable", str(e)) from None
    return respond.json(Shown(*_fields(agent), agent.ignored))


def _fields(agent: Agent) -> tuple[str, str, str | None, str, str | None, list[str] | None]:
    return agent.name, agent.id, agent.path, agent.description, agent.model, agent.tools


def _directory(cwd: str | None, services: Services) -> str:
    if cwd is None:
        return services.home
    if not cwd.startswith("/") or "\0" in cwd:
        raise Problem("invalid", "cwd: expected an absolute path", [Fault("cwd", "expected an absolute path")])
    return cwd


ROUTES = (
    Route("GET", "/api/v1/agents", index, "List agents that a task can name", "read", {200: Agents}, query=Wanted),
    Route(
        "GET", "/api/v1/agents/{name}", show, "What a name of an agent means", "read", {200: Shown}, (422,),
        query=There,
    ),
)  # fmt: skip
