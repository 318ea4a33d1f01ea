"""`orchestr8d logs`: what a task has written."""

from __future__ import annotations

import click

from orchestr8d.cli import common
from orchestr8d.cli import follow as following
from orchestr8d.cli.follow import STREAMS, Stream, streams_of


@click.command(epilog="Example: orchestr8d logs -f 3f2a9c1d")
@click.argument("typed", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until the task ends.")
@click.option("--stream", type=click.Choice(list(STREAMS)), help="Only this one (else both, each to its own).")
@click.option("--attempt", type=click.IntRange(1), metavar="N", help="Of this attempt (else of the last one).")
@click.option("-n", "--tail", type=click.IntRange(0), metavar="N", help="Only the last N lines of what is there.")
def logs(typed: str, follow: bool, stream: Stream | None, attempt: int | None, tail: int | None) -> None:
    """Print the output of a task.

    Its stdout goes to our stdout, its stderr to our stderr. Of an agent's task the transcript takes the place of its
    stdout, whose records are for programs (--stream stdout).
    """
    with common.connect() as client:
        task_id = common.resolve(client, typed)
        streams = [stream] if stream else streams_of(client.task(task_id))
        if follow:
            first = attempt or client.status(task_id)["attempt"] or 1
            following.follow(client, task_id, None, following.What(first, attempt is not None, tail), streams)
            return
        for name in streams:
            for chunk in client.logs(task_id, stream=name, attempt=attempt, tail=tail):
                following.write(STREAMS[name], chunk)
