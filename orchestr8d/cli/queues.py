"""`orchestr8d queue`: queues, their limits and pauses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestr8d.cli import common, output

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestr8d.client.answers import Json


@click.group()
def queue() -> None:
    """See and steer queues."""


@queue.command("list", epilog="Example: orchestr8d queue list")
@common.json_option
def list_queues(as_json: bool) -> None:
    """List queues with what waits and runs in them."""
    with common.connect() as client:
        queues = client.queues()
    if as_json:
        output.print_json({"queues": queues})
    else:
        _print(queues)


@queue.command("set", epilog="Example: orchestr8d queue set builds --limit 2 --rate 30/m")
@click.argument("name")
@click.option("--limit", metavar="N", help="How many run at once; none takes the limit away.")
@click.option("--rate", metavar="N/TIME", help="How many start in a time, such as 30/m or 5/10s; none takes it away.")
@common.json_option
def set_queue(name: str, limit: str | None, rate: str | None, as_json: bool) -> None:
    """Set a queue's limit or rate; a new name makes a queue."""
    changes: dict[str, object] = {}
    if limit is not None:
        changes["limit"] = None if limit == "none" else common.whole_number(limit)
    if rate is not None:
        changes["rate"] = None if rate == "none" else rate
    if not changes:
        raise click.UsageError("nothing to set: give --limit or --rate")
    with common.connect() as client:
        _print_one(client.set_queue(name, **changes), as_json)


@queue.command(epilog="Example: orchestr8d queue pause builds")
@click.argument("name")
@common.json_option
def pause(name: str, as_json: bool) -> None:
    """Start nothing more from a queue, until `queue resume`; what runs goes on."""
    with common.connect() as client:
        _print_one(client.pause_queue(name), as_json)


@queue.command(epilog="Example: orchestr8d queue resume builds")
@click.argument("name")
@common.json_option
def resume(name: str, as_json: bool) -> None:
    """Start tasks from a paused queue again."""
    with common.connect() as client:
        _print_one(client.resume_queue(name), as_json)


def _print_one(one: Json, as_json: bool) -> None:
    if as_json:
        output.print_json(one)
    else:
        _print([one])


def _print(queues: Sequence[Json]) -> None:
    def line(q: Json) -> list[object]:
        state = "paused" if q["paused"] else "open"
        return [q["name"], state, q["limit"] or "-", q["rate"] or "-", q["depth"], q["running"]]

    output.print_table(
        ("QUEUE", "STATE", "LIMIT", "RATE", "WAITING", "RUNNING"), [line(q) for q in queues], "no queues"
    )
