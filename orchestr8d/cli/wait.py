"""`orchestr8d wait`: waits for tasks to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestr8d.cli import common, exits, output
from orchestr8d.core.states import BUSY, WAITING

if TYPE_CHECKING:
    from orchestr8d.client.answers import Json
    from orchestr8d.client.sync import Client


@click.command(epilog="Example: orchestr8d wait --timeout 10m 3f2a9c1d 77b0e4a2")
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--all", "everything", is_flag=True, help="Wait for every task that is unfinished now.")
@click.option("--timeout", type=common.Seconds(), help="Stop waiting after this long, with exit code 124.")
@common.json_option
def wait(ids: tuple[str, ...], everything: bool, timeout: float | None, as_json: bool) -> None:
    """Wait until tasks have ended.

    Exits with 0 if all of them succeeded, else with 1. Goes on over restarts of the daemon.
    """
    if bool(ids) == everything:
        raise click.UsageError("give the ids of tasks, or --all")
    with common.connect() as client:
        tasks = _unfinished(client) if everything else [common.resolve(client, typed) for typed in ids]
        ended = _wait(client, tasks, timeout, as_json)
    if as_json:
        output.print_json(ended)
    if any(status["status"] not in {"completed", "skipped"} for status in ended):
        exits.fail(exits.FAILED)


def _unfinished(client: Client) -> list[str]:
    return [task["id"] for task in client.tasks(status=sorted(WAITING | BUSY))]


def _wait(client: Client, tasks: list[str], timeout: float | None, quiet: bool) -> list[Json]:
    """The final statuses. One after the other is as quick as all at once: the last one to end decides."""
    from orchestr8d.clock import SystemClock

    clock = SystemClock()
    until = None if timeout is None else clock.monotonic() + timeout
    ended: list[Json] = []
    for task_id in dict.fromkeys(tasks):
        left = None if until is None else max(until - clock.monotonic(), 0)
        try:
            status = client.wait(task_id, left)
        except KeyboardInterrupt:
            raise exits.Left("the tasks go on") from None
        except TimeoutError as error:
            exits.fail(exits.TIMED_OUT, f"--timeout passed: {error}")
        ended.append(status)
        if not quiet:
            click.echo(f"{output.short(task_id)}  {output.paint(status['status'])}")
    return ended
