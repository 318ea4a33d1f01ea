"""`orchestr8d cancel`, `retry`, `edit`, `pause`, `resume`: changes what becomes of tasks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestr8d.cli import common, output

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestr8d.client.answers import Json
    from orchestr8d.client.sync import Client


def _steer(ids: tuple[str, ...], as_json: bool, act: Callable[[Client, str], Json]) -> None:
    """Does `act` for each task and prints what the task is now."""
    with common.connect() as client:

        def one(task_id: str) -> None:
            _print(act(client, task_id), as_json, compact=len(ids) > 1)

        common.each(client, ids, one)


def _print(task: Json, as_json: bool, compact: bool = False) -> None:
    if as_json:
        output.print_json(task, compact)
    else:
        reasons = output.reasons(task)
        click.echo(f"{output.short(task['task_id'])}  {output.paint(task['status'])}  {reasons}".rstrip())


_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")


@click.command(epilog="Example: orchestr8d cancel 3f2a9c1d")
@_ids
@click.option("--no-wait", is_flag=True, help="Do not wait until the processes are gone.")
@common.json_option
def cancel(ids: tuple[str, ...], no_wait: bool, as_json: bool) -> None:
    """Cancel tasks.

    What waits never runs, what runs is ended with all its processes.
    """
    _steer(ids, as_json, lambda client, task_id: client.cancel(task_id, wait=not no_wait))


@click.command(epilog="Example: orchestr8d pause 3f2a9c1d")
@_ids
@common.json_option
def pause(ids: tuple[str, ...], as_json: bool) -> None:
    """Hold tasks back that have not started, until `resume`."""
    _steer(ids, as_json, lambda client, task_id: client.pause(task_id))


@click.command(epilog="Example: orchestr8d resume 3f2a9c1d")
@_ids
@common.json_option
def resume(ids: tuple[str, ...], as_json: bool) -> None:
    """Let tasks go that were paused."""
    _steer(ids, as_json, lambda client, task_id: client.resume(task_id))


@click.command(epilog="Example: orchestr8d retry --follow 3f2a9c1d")
@click.argument("typed", metavar="ID")
@click.option("--wait", "wait", is_flag=True, help="Wait for the end; exit with 0 only if the task succeeded.")
@click.option("--follow", "-f", is_flag=True, help="Show the output as it comes, and wait.")
@click.option("--timeout", type=common.Seconds(), help="Stop waiting after this long, with exit code 124.")
@common.json_option
def retry(typed: str, wait: bool, follow: bool, timeout: float | None, as_json: bool) -> None:
    """Run a failed or cancelled task again, as a new one."""
    from orchestr8d.cli.submit import check_waiting, see_through

    check_waiting(wait, follow, timeout, as_json)
    with common.connect() as client:
        answer = client.retry(common.resolve(client, typed))
        see_through(client, answer, wait, follow, timeout, as_json)


class _Edit(click.Command):
    """Keeps what stands after `--` apart: that is the new command, word for word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours, ctx.meta["command"] = common.cut_at_dashes(args)
        return super().parse_args(ctx, ours)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- COMMAND...]"]


@click.command(cls=_Edit, epilog="Example: orchestr8d edit 3f2a9c1d --priority high -o timeout=1h")
@click.argument("typed", metavar="ID")
@click.option(
    "-o", "--option", "pairs", multiple=True, metavar="KEY=VALUE", help="An option to change; null takes one back."
)
@click.option("--priority", metavar="P", help="critical, high, normal, low, or -100 to 100.")
@click.option("--queue", metavar="NAME", help="The queue to wait in.")
@click.option("--cwd", type=click.Path(path_type=Path), help="The directory to run in.")
@common.json_option
@click.pass_context
def edit(ctx: click.Context, typed: str, pairs: tuple[str, ...], priority: str | None, queue: str | None,
         cwd: Path | None, as_json: bool) -> None:  # fmt: skip
    """Change a task that has not started."""
    changes: dict[str, Any] = {}
    options = common.parse_options(pairs)
    if queue is not None:
        options["queue"] = queue
    if options:
        changes["options"] = options
    if priority is not None:
        changes["priority"] = common.whole_number(priority)
    if cwd is not None:
        changes["cwd"] = str(cwd.absolute())
    if ctx.meta["command"]:
        changes["command"] = ctx.meta["command"]
    if not changes:
        raise click.UsageError("nothing to change: give -o, --priority, --queue, --cwd or a command after --")
    with common.connect() as client:
        task_id = common.resolve(client, typed)
        common.resolve_dependencies(client, options)
        _print(client.edit(task_id, changes), as_json)
