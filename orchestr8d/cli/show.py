"""`orchestr8d status`, `result`, `list`: what is known of tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestr8d.cli import common, output

if TYPE_CHECKING:
    from orchestr8d.client.answers import Json
    from orchestr8d.client.requests import TaskQuery
    from orchestr8d.client.sync import Client

STATES = ("pending", "queued", "running", "needs_input", "retrying", "parked", "completed", "failed", "cancelled",
          "skipped")  # fmt: skip


@click.command(epilog="Example: orchestr8d status 3f2a9c1d")
@click.argument("typed", metavar="ID")
@common.json_option
def status(typed: str, as_json: bool) -> None:
    """Show where a task stands, and why it waits."""
    with common.connect() as client:
        task_id = common.resolve(client, typed)
        short = client.status(task_id)
        if as_json:
            output.print_json(short)
        else:
            output.print_fields(_fields(short, client.task(task_id)))


def _fields(short: Json, task: Json) -> list[tuple[str, object]]:
    return [
        ("task", task["id"]),
        ("status", short["status"]),
        ("what", output.what(task)),
        ("model", (task.get("options") or {}).get("model")),
        ("waiting for", output.reasons(short)),
        ("error", output.fault(task)),
        ("progress", output.progress(short["progress"])),
        ("attempt", _attempt(short, task)),
        ("next retry", output.local(short.get("next_retry_at"))),
        ("spent", output.spent(task)),
        ("tokens", output.tokens(task)),
        ("session", task.get("session_id")),
        ("continues", output.short(source) if (source := (task.get("options") or {}).get("resume_from")) else None),
        ("cwd", task.get("cwd")),
        ("queue", task.get("queue")),
        ("priority", task.get("priority") or None),
        ("tags", ", ".join(task.get("tags") or [])),
        ("retry of", output.short(task["retry_of"]) if task.get("retry_of") else None),
        ("created", output.local(short.get("created_at"))),
        ("started", output.local(short.get("started_at"))),
        ("ended", output.local(task.get("completed_at"))),
        ("expected", output.local(short.get("estimated_completion"))),
        ("took", output.took(task, _now())),
    ]


def _attempt(short: Json, task: Json) -> str:
    """`2 (1 of 3 retries)`."""
    if not short.get("attempt"):
        return ""
    retries = f" ({short['retry_count']} of {task['max_retries']} retries)" if task.get("max_retries") else ""
    return f"{short['attempt']}{retries}"


def _now() -> float:
    from orchestr8d.clock import SystemClock

    return SystemClock().now() / 1000


@click.command(epilog="Example: orchestr8d result 3f2a9c1d > report.txt")
@click.argument("typed", metavar="ID")
@common.json_option
def result(typed: str, as_json: bool) -> None:
    """Print what a finished task left.

    Exits with 1 if the task did not succeed, with 5 if it is not finished.
    """
    from orchestr8d.cli import follow

    with common.connect() as client:
        task_id = common.resolve(client, typed)
        answer = client.result(task_id)
        if as_json:
            output.print_json(answer)
        else:
            _print_result(client, task_id, answer)
            _remark(task_id, answer)
        follow.outcome(answer, lambda: "" if as_json else follow.failure(client, task_id))


def _print_result(client: Client, task_id: str, answer: Json) -> None:
    from orchestr8d.cli.follow import write

    value = answer.get("result")
    if answer.get("result_type") == "file":  # too large for an answer: the log has all of it
        for chunk in client.logs(task_id, stream="stdout"):
            write(1, chunk)
    elif answer.get("result_type") == "json":
        output.print_json(value)
    elif value:
        write(1, str(value).encode())


def _remark(task_id: str, answer: Json) -> None:
    """To a person beside the result: what it took, and where the changes are."""
    if not output.on_terminal():
        return
    if spent := output.spent(answer):
        click.echo(f"\n({spent})", err=True)
    if worktree := answer.get("worktree"):
        name, files = output.short(task_id), len(worktree["files_changed"])
        changed = f"{files} file{'s' * (files != 1)} changed on {worktree['branch']}"
        click.echo(f"({changed}; `orchestr8d diff {name}` shows it, `orchestr8d apply {name}` takes it)", err=True)


@click.command("list", epilog="Example: orchestr8d list --status running,queued --tag nightly")
@click.option("-s", "--status", "states", multiple=True, metavar="STATUS", help="Only those (repeat, or commas).")
@click.option("--agent", metavar="NAME", help="Only of this agent.")
@click.option("-t", "--tag", "tags", multiple=True, metavar="TAG", help="Only with this tag; all of them, if repeated.")
@click.option("--queue", metavar="NAME", help="Only in this queue.")
@click.option("--user", "user_id", metavar="NAME", help="Only of this user.")
@click.option("-q", "--search", "q", metavar="TEXT", help="Only with these words in command, prompt or title.")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many, newest first."
)
@click.option("-a", "--all", "everything", is_flag=True, help="All of them, however many.")
@click.option("--cursor", metavar="CURSOR", help="Go on after a page (next_cursor of its JSON).")
@common.json_option
def list_tasks(states: tuple[str, ...], agent: str | None, tags: tuple[str, ...], queue: str | None,
               user_id: str | None, q: str | None, limit: int, everything: bool, cursor: str | None,
               as_json: bool) -> None:  # fmt: skip
    """List tasks, newest first."""
    query: TaskQuery = {
        "status": _states(states), "agent": agent, "tag": list(tags), "queue": queue, "user_id": user_id, "q": q,
    }  # fmt: skip
    with common.connect() as client:
        if everything:
            page: dict[str, Any] = {"tasks": list(client.tasks(**query)), "next_cursor": None}
        else:
            page = client.task_page(limit, cursor, **query)
    if as_json:
        output.print_json(page)
        return
    output.print_table(COLUMNS, [row(task, _now()) for task in page["tasks"]], "no tasks")
    if page["next_cursor"] and output.on_terminal():
        click.echo(f"the newest {limit}; --all shows every one", err=True)


def _states(given: tuple[str, ...]) -> list[str]:
    states = [state for item in given for state in item.split(",") if state]
    for state in states:
        if state not in STATES:
            raise click.BadParameter(f"{state!r} is none of {', '.join(STATES)}", param_hint="--status")
    return states


COLUMNS = ("ID", "STATUS", "QUEUE", "AGE", "TOOK", "WHAT")


def row(task: Json, now: float) -> list[str]:
    """A task as a line of the list; after what it is, what it took, and why it waits or failed."""
    return [
        output.short(task["id"]), task["status"], task["queue"], output.span(now - output.moment(task["created_at"])),
        output.took(task, now), output.line(task),
    ]  # fmt: skip
