"""`orchestr8d agents`: which agents there are, and what a name means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from orchestr8d.cli import common, output

Command = TypeVar("Command", bound=Callable[..., Any])


def _cwd_option(command: Command) -> Command:
    return click.option("--cwd", metavar="DIR", default=".", help="As seen from there; default: here.")(command)


@click.group(invoke_without_command=True, epilog="Example: orchestr8d agents --cwd ~/app")
@_cwd_option
@common.json_option
@click.pass_context
def agents(ctx: click.Context, cwd: str, as_json: bool) -> None:
    """List agents: the project's, yours, those of plugins, those that came along."""
    if ctx.invoked_subcommand is not None:
        return
    with common.connect() as client:
        found = client.agents(str(Path(cwd).absolute()))
    if as_json:
        output.print_json({"agents": found})
        return
    rows = [[agent["name"], agent["id"], agent["model"] or "-", agent["description"]] for agent in found]
    output.print_table(("NAME", "ID", "MODEL", "DESCRIPTION"), rows)


@agents.command(epilog="Example: orchestr8d agents show code-reviewer")
@click.argument("name")
@_cwd_option
@common.json_option
def show(name: str, cwd: str, as_json: bool) -> None:
    """Show what a name means, and what of its file is not used."""
    with common.connect() as client:
        agent = client.agent(name, str(Path(cwd).absolute()))
    if as_json:
        output.print_json(agent)
        return
    tools = "all" if agent["tools"] is None else ", ".join(agent["tools"]) or "none"
    output.print_fields([
        ("name", agent["name"]), ("id", agent["id"]), ("path", agent["path"]), ("model", agent["model"]),
        ("tools", tools), ("description", agent["description"]),
        *[("ignored", sentence) for sentence in agent["ignored"]],
    ])  # fmt: skip
