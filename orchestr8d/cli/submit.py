"""`orchestr8d submit`: hands a command or a prompt over, from where and with what environment the caller has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestr8d.cli import common, output, task_options

if TYPE_CHECKING:
    from orchestr8d.client.answers import Json
    from orchestr8d.client.sync import Client


class _Submit(task_options.TaskCommand):
    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", task_options.SUBJECT]


@click.command(cls=_Submit, epilog="Example: orchestr8d submit --follow -o timeout=10m -- make test")
@click.argument("prompt", nargs=-1)
@task_options.task_options
@click.option("--wait", "wait", is_flag=True, help="Wait for the end; exit with 0 only if the task succeeded.")
@click.option("--follow", "-f", is_flag=True, help="Show the output as it comes, and wait.")
@click.option("--timeout", type=common.Seconds(), help="Stop waiting after this long, with exit code 124.")
@common.json_option
@click.pass_context
def submit(ctx: click.Context, /, wait: bool, follow: bool, timeout: float | None, as_json: bool,
           **said: Any) -> None:  # fmt: skip
    """Hand over a command, or a prompt for an agent.

    Prints its task's id once that is safely stored. It runs in the current directory, with PATH, HOME, LANG,
    LC_*, USER, TMPDIR, TZ, XDG_* and VIRTUAL_ENV of the caller. There is no shell, unless the command is one:
    -- sh -c 'make && make install'. A prompt that is - is read from stdin.

    \b
    orchestr8d submit --agent code-reviewer --follow "Review the last commit"
    git diff | orchestr8d submit --agent code-reviewer --wait -
    """
    check_waiting(wait, follow, timeout, as_json)
    task = task_options.read(ctx, **said)
    with common.connect() as client:
        task_options.resolve(client, task)
        answer = client.submit(**task)
        see_through(client, answer, wait, follow, timeout, as_json)


def check_waiting(wait: bool, follow: bool, timeout: float | None, as_json: bool) -> None:
    """Refuses what `see_through` could not do, before anything is sent."""
    if timeout is not None and not (wait or follow):
        raise click.UsageError("--timeout limits the waiting of --wait or --follow; a task's limit is -o timeout=10m")
    if follow and as_json:
        raise click.UsageError(
            "with --follow, stdout is the task's own: use --wait --json, or `orchestr8d result --json`"
        )


def see_through(client: Client, answer: Json, wait: bool, follow: bool, timeout: float | None, as_json: bool) -> None:
    """Prints what was submitted, and stays with it as asked for."""
    from orchestr8d.cli import follow as following

    task_id = answer["task_id"]
    if follow:
        # stdout belongs to the task.
        click.echo(f"task {task_id}", err=True)
        last = following.follow(client, task_id, timeout)
    elif wait:
        last = following.wait(client, task_id, timeout)
    else:
        if as_json:
            output.print_json(answer)
        else:
            _print(task_id, answer["status"])
        return
    if as_json:
        output.print_json(client.result(task_id))
    elif not follow:
        _print(task_id, last["status"])
    following.outcome(last, lambda: following.failure(client, task_id))


def _print(task_id: str, status: str) -> None:
    """For a person the short id and the status, for $(…) the whole id."""
    click.echo(f"{output.short(task_id)}  {output.paint(status)}" if output.on_terminal() else task_id)
