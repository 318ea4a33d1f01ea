"""`orchestr8d workflow cancel`, `pause`, `resume`, `retry`, `signal`, `approve`, `reject`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from orchestr8d.cli import common, exits, output, workflow_follow

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestr8d.client.answers import Json
    from orchestr8d.client.sync import Client

_ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")


def _steer(ids: tuple[str, ...], as_json: bool, act: Callable[[Client, str], Json]) -> None:
    """Does `act` for each workflow and prints what it is now."""
    with common.connect() as client:

        def one(workflow_id: str) -> None:
            now = act(client, workflow_id)
            if as_json:
                output.print_json(now, compact=len(ids) > 1)
            else:
                workflow_follow.print_standing(now)

        common.each(client, ids, one, common.resolve_workflow)


@click.command(epilog="Example: orchestr8d workflow cancel 3f2a9c1d")
@_ids
@common.json_option
def cancel(ids: tuple[str, ...], as_json: bool) -> None:
    """Cancel workflows: what runs is ended, the rest never starts."""
    _steer(ids, as_json, lambda client, workflow_id: client.cancel_workflow(workflow_id))


@click.command(epilog="Example: orchestr8d workflow pause 3f2a9c1d")
@_ids
@common.json_option
def pause(ids: tuple[str, ...], as_json: bool) -> None:
    """Let nothing more of workflows start, until `workflow resume`; what runs goes on."""
    _steer(ids, as_json, lambda client, workflow_id: client.pause_workflow(workflow_id))


@click.command(epilog="Example: orchestr8d workflow resume 3f2a9c1d")
@_ids
@common.json_option
def resume(ids: tuple[str, ...], as_json: bool) -> None:
    """Let workflows go on that were paused."""
    _steer(ids, as_json, lambda client, workflow_id: client.resume_workflow(workflow_id))


@click.command(epilog="Example: orchestr8d workflow retry --from build 3f2a9c1d")
@click.argument("typed", metavar="ID")
@click.option("--from", "phase", metavar="PHASE", help="Run this phase again, and all after it.")
@workflow_follow.waiting_options
@common.json_option
def retry(typed: str, phase: str | None, wait: bool, follow: bool, timeout: float | None, as_json: bool) -> None:
    """Run again what failed or was cancelled; what is completed is kept."""
    workflow_follow.check(wait, follow, timeout)
    with common.connect() as client:
        answer = client.retry_workflow(common.resolve_workflow(client, typed), phase)
        workflow_follow.see_through(client, answer, wait, follow, timeout, as_json)


@click.command(epilog='Example: orchestr8d workflow signal 3f2a9c1d go-ahead \'{"by": "me"}\'')
@click.argument("typed", metavar="ID")
@click.argument("name")
@click.argument("payload", required=False)
@common.json_option
def signal(typed: str, name: str, payload: str | None, as_json: bool) -> None:
    """Send a workflow a signal. PAYLOAD is JSON, else text; - is read from stdin."""
    if payload == "-":
        payload = sys.stdin.read()
    value: Any = None if payload is None else common.parsed(payload)
    with common.connect() as client:
        sent = client.signal(name, value, workflow_id=common.resolve_workflow(client, typed))
    if as_json:
        output.print_json(sent)
    else:
        click.echo(f"sent {output.printable(sent['name'])}")


@click.command(epilog="Example: orchestr8d workflow approve 3f2a9c1d signoff --comment 'looks good'")
@click.argument("typed", metavar="ID")
@click.argument("task", required=False)
@click.option("--comment", metavar="TEXT", help="What the task's result will be.")
@common.json_option
def approve(typed: str, task: str | None, comment: str | None, as_json: bool) -> None:
    """Say yes to what a workflow asks. TASK may be left out where it asks one thing only."""
    _answer(typed, task, as_json, lambda client, at, name: client.approve(at, name, comment))


@click.command(epilog="Example: orchestr8d workflow reject 3f2a9c1d signoff --comment 'not on a Friday'")
@click.argument("typed", metavar="ID")
@click.argument("task", required=False)
@click.option("--comment", metavar="TEXT", help="Why not.")
@common.json_option
def reject(typed: str, task: str | None, comment: str | None, as_json: bool) -> None:
    """Say no to what a workflow asks: the task fails. TASK may be left out where it asks one thing only."""
    _answer(typed, task, as_json, lambda client, at, name: client.reject(at, name, comment))


def _answer(typed: str, task: str | None, as_json: bool, act: Callable[[Client, str, str], Json]) -> None:
    with common.connect() as client:
        workflow_id = common.resolve_workflow(client, typed)
        answered = act(client, workflow_id, task or _asked(client, workflow_id))
    if as_json:
        output.print_json(answered)
    else:
        click.echo(f"{answered['id']}  {output.paint(answered['status'])}")


def _asked(client: Client, workflow_id: str) -> str:
    """The one task that waits for an answer."""
    asking = [task for task in client.workflow_tasks(workflow_id) if workflow_follow.asks(task)]
    if not asking:
        exits.fail(exits.WRONG_STATE, "nothing is asked")
    if len(asking) > 1:
        exits.say("more than one thing is asked; name one:")
        for task in asking:
            click.echo(f"  {task['id']}  {output.printable(task['approval'])}", err=True)
        exits.fail(exits.USAGE)
    return str(asking[0]["id"])


COMMANDS = (cancel, pause, resume, retry, signal, approve, reject)
