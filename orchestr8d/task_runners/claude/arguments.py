"""The CLI's command line, its input and its files, from what was asked for."""

from __future__ import annotations

import json
from typing import Literal, Protocol

import msgspec
from msgspec import Struct

from orchestr8d.config_sections import ClaudeConfig
from orchestr8d.core.model import AgentSpec, Session
from orchestr8d.processes import Files

CONTINUE = "Continue."
# How the conversation begins: as a new one, by going on with the same, or with a copy of another task's.
How = Literal["new", "resume", "fork"]


class Agent(Protocol):
    """An agent's definition; without a `path` the CLI brings it."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str | None: ...
    @property
    def description(self) -> str: ...
    @property
    def model(self) -> str | None: ...
    @property
    def tools(self) -> list[str] | None: ...
    @property
    def body(self) -> str | None: ...


class Call(Struct, frozen=True):
    """What to start; `files` are to be written before, by path."""

    argv: list[str]
    stdin: bytes
    files: dict[str, bytes]


def call(
    asked: AgentSpec, prompt: str, session: Session, agent: Agent, how: How, settings: ClaudeConfig, files: Files
) -> Call:
    """Values that a task gives are joined to their flag by `=`, so that none is taken for a flag or for the prompt."""
    written: dict[str, bytes] = {}
    argv = [settings.bin, "-p", "--output-format", "stream-json", "--verbose", *_session(asked, session, how)]
    if agent.path is not None:
        written[files.agents] = definition(agent, asked)
        argv += ["--agents", files.agents]
    argv.append(f"--agent={agent.name}")
    if asked.model is not None:
        argv.append(f"--model={asked.model}")
    argv.append(f"--permission-mode={asked.permission_mode or settings.permission_mode}")
    argv += [f"--allowedTools={tool}" for tool in _given(asked.allowed_tools, settings.allowed_tools)]
    argv += [f"--disallowedTools={tool}" for tool in _given(asked.disallowed_tools, settings.disallowed_tools)]
    if asked.max_turns is not None:
        argv.append(f"--max-turns={asked.max_turns}")
    if (most := may_spend(asked, session)) is not None:
        argv.append(f"--max-budget-usd={max(most, 1e-6):.6f}")
    if asked.json_schema is not None:
        argv.append(f"--json-schema={msgspec.json.encode(asked.json_schema).decode()}")
    if isinstance(asked.mcp_config, dict):
        # Not in the command line, which everybody on the machine may read.
        written[files.mcp] = msgspec.json.encode(asked.mcp_config)
        argv.append(f"--mcp-config={files.mcp}")
    elif path := asked.mcp_config or settings.mcp_config:
        argv.append(f"--mcp-config={path}")
    argv += asked.runner_args
    return Call(argv, stdin(CONTINUE if how == "resume" else prompt), written)


def stdin(prompt: str) -> bytes:
    """The prompt as the CLI takes it. It would run one that begins with a slash as a command of its own, in whatever
    form it gets it; a space before it is all that stops that."""
    return (f" {prompt}" if prompt.startswith("/") else prompt).encode()


def definition(agent: Agent, asked: AgentSpec) -> bytes:
    """The agent as the CLI reads it, which wants a description. Who has a list of tools has no others: a structured
    answer is given by one, too."""
    said = {"description": agent.description or agent.name, "prompt": agent.body or ""}
    by_tool = [] if asked.json_schema is None else ["StructuredOutput"]
    tools = {} if agent.tools is None else {"tools": [*agent.tools, *by_tool]}
    model = {} if agent.model is None else {"model": agent.model}
    # All of it in ASCII: a description may hold what is no text in UTF-8.
    return json.dumps({agent.name: said | tools | model}).encode()


def may_spend(asked: AgentSpec, session: Session) -> float | None:
    """US dollars for this attempt; the CLI counts from its start. None: as much as it likes."""
    return min((x for x in (_left(asked, session), session.cap_usd) if x is not None), default=None)


def capped(asked: AgentSpec, session: Session) -> bool:
    """Whether it is what was set aside for the attempt that bounds it, not what its task may spend."""
    left = _left(asked, session)
    return session.cap_usd is not None and (left is None or session.cap_usd < left)


def _left(asked: AgentSpec, session: Session) -> float | None:
    return None if asked.max_cost_usd is None else asked.max_cost_usd - session.spent_usd


def _session(asked: AgentSpec, session: Session, how: How) -> list[str]:
    match how:
        case "new":
            return ["--session-id", session.id]
        case "resume":
            return ["--resume", session.id]
        case "fork":
            return ["--resume", asked.session_id or "", "--fork-session", "--session-id", session.id]


def _given(task: list[str] | None, settings: list[str]) -> list[str]:
    return settings if task is None else task
