"""`orchestr8d workflow`: what is known of workflows. Starting and steering them is in modules of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestr8d.cli import common, output, tree, workflow_run, workflow_steer
from orchestr8d.clock import SystemClock

if TYPE_CHECKING:
    from orchestr8d.client.answers import Json

STATES = ("pending", "running", "paused", "blocked", "completed", "failed", "cancelled")
COLUMNS = ("ID", "STATUS", "AGE", "TOOK", "NAME")
PICTURES = ("mermaid", "dot", "json", "svg")


@click.group(epilog="Example: orchestr8d workflow run research -p question='Why is the sky blue?' --follow")
def workflow() -> None:
    """Start workflows, see how they stand, steer them."""


for command in (*workflow_run.COMMANDS, *workflow_steer.COMMANDS):
    workflow.add_command(command)


def _now() -> float:
    return SystemClock().now() / 1000


@workflow.command("list", epilog="Example: orchestr8d workflow list --status running,blocked")
@click.option("--status", "states", multiple=True, metavar="STATE", help=f"Only these: {', '.join(STATES)}.")
@click.option("--name", metavar="NAME", help="Only those of this name.")
@click.option("--user", "user_id", metavar="NAME", help="Only those of this user.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only those with it; may be repeated.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="The most to show.")
@click.option("--cursor", metavar="CURSOR", help="Go on after a page (next_cursor of its JSON).")
@common.json_option
def list_workflows(states: tuple[str, ...], name: str | None, user_id: str | None, tags: tuple[str, ...], limit: int,
                   cursor: str | None, as_json: bool) -> None:  # fmt: skip
    """List workflows, newest first."""
    wanted = [state for item in states for state in item.split(",") if state]
    for state in wanted:
        if state not in STATES:
            raise click.BadParameter(f"{state!r} is none of {', '.join(STATES)}", param_hint="--status")
    with common.connect() as client:
        page = client.workflow_page(limit, cursor, status=wanted, name=name, user_id=user_id, tag=list(tags))
    if as_json:
        output.print_json(page)
        return
    rows = [_row(one, _now()) for one in page["workflows"]]
    output.print_table(COLUMNS, rows, "no workflows")
    if page["next_cursor"] and output.on_terminal():
        click.echo(f"the newest {limit}; --limit shows more", err=True)


def _row(one: Json, now: float) -> list[str]:
    why = output.fault(one)
    return [
        output.short(one["id"]), one["status"], output.span(now - output.moment(one["created_at"])),
        output.took(one, now), one["name"] + (f"  [{why}]" if why else ""),
    ]  # fmt: skip


@workflow.command(epilog="Example: orchestr8d workflow show 3f2a9c1d")
@click.argument("typed", metavar="ID")
@click.option("-a", "--all", "everything", is_flag=True, help="All children of fans, however many.")
@common.json_option
def show(typed: str, everything: bool, as_json: bool) -> None:
    """Show a workflow with its phases and tasks."""
    with common.connect() as client:
        workflow_id = common.resolve_workflow(client, typed)
        if as_json:
            output.print_json(client.workflow(workflow_id) | {"tasks": client.workflow_tasks(workflow_id)})
            return
        status, tasks = client.workflow_status(workflow_id), client.workflow_tasks(workflow_id)
    tree.show(tree.tree(status, tasks, _now(), len(tasks) if everything else tree.FOLD))


@workflow.command(epilog="Example: orchestr8d workflow graph --format svg 3f2a9c1d > graph.svg")
@click.argument("typed", metavar="ID")
@click.option("--format", "picture", type=click.Choice(PICTURES),
              help="Default: drawn as text on a terminal, else mermaid.")  # fmt: skip
@common.json_option
def graph(typed: str, picture: str | None, as_json: bool) -> None:
    """Draw the graph of a workflow."""
    if as_json and picture not in (None, "json"):
        raise click.UsageError(f"give --json or --format {picture}, not both")
    with common.connect() as client:
        workflow_id = common.resolve_workflow(client, typed)
        if as_json or picture == "json":
            output.print_json(client.workflow_graph(workflow_id))
        elif picture is None and output.on_terminal():
            tree.show(tree.graph(client.workflow_graph(workflow_id)))
        else:
            form: Any = picture or "mermaid"
            click.echo(client.workflow_picture(form, workflow_id), nl=False)


@workflow.command(epilog="Example: orchestr8d workflow report 3f2a9c1d > report.md")
@click.argument("typed", metavar="ID")
@common.json_option
def report(typed: str, as_json: bool) -> None:
    """Print the report of a workflow, in Markdown: its answer, what was asked and done, what failed."""
    with common.connect() as client:
        workflow_id = common.resolve_workflow(client, typed)
        text = client.workflow_report(workflow_id)
    if as_json:
        output.print_json({"workflow_id": workflow_id, "report": text})
    else:
        click.echo(text, nl=False)


@workflow.command(epilog="Example: orchestr8d workflow templates research")
@click.argument("name", required=False)
@common.json_option
def templates(name: str | None, as_json: bool) -> None:
    """List what can be started by name; of one that is named, what it asks for and does."""
    with common.connect() as client:
        if name is not None:
            one = client.template(name)
            if as_json:
                output.print_json(one)
            else:
                _print_template(one)
            return
        found = client.templates()
    if as_json:
        output.print_json({"templates": found})
        return
    rows = [(one["name"], _needed(one), _sentence(one["description"])) for one in found]
    output.print_table(("NAME", "NEEDS", "WHAT"), rows, "no templates")


def _needed(one: Json) -> str:
    return ", ".join(name for name, param in one["params"].items() if param["required"])


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())


def _print_template(one: Json) -> None:
    given = " ".join(f"-p {name}=…" for name, param in one["params"].items() if param["required"])
    output.print_fields([
        ("name", one["name"]), ("what", _sentence(one["description"])), ("phases", ", ".join(one["phases"])),
        ("start with", f"orchestr8d workflow run {one['name']} {given}".rstrip()),
    ])  # fmt: skip
    if one["params"]:
        click.echo()
        rows = [(name, param["type"], _default(param), _meaning(param)) for name, param in one["params"].items()]
        output.print_table(("PARAM", "TYPE", "DEFAULT", "MEANS"), rows)


def _default(param: Json) -> str:
    default = param["default"]
    if default is None:
        return "(required)" if param["required"] else ""
    return default if isinstance(default, str) else common.as_text(default)


def _meaning(param: Json) -> str:
    words = ", ".join(map(str, param["enum"])) if param["enum"] else ""
    return "; ".join(part for part in (_sentence(param["description"]), words and f"one of {words}") if part)
