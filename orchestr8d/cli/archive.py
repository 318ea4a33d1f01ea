"""`orchestr8d archive`: finished workflows, found by what is in their reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestr8d.cli import common, output

if TYPE_CHECKING:
    from orchestr8d.client.sync import Client

# So many of the newest are looked through for the end of an id.
CANDIDATES = 1000


class _Archive(click.Group):
    """A word that is no command is what to look for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args = ["search", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Archive, epilog="Example: orchestr8d archive 'rate limits'")
def archive() -> None:
    """Find finished workflows by words of their reports (archive [search] WORDS), or show one."""


@archive.command(epilog="Example: orchestr8d archive search 'rate limits'")
@click.argument("words", nargs=-1, metavar="[WORDS]...")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="The most to show.")
@click.option("--cursor", metavar="CURSOR", help="Go on after a page (next_cursor of its JSON).")
@common.json_option
def search(words: tuple[str, ...], limit: int, cursor: str | None, as_json: bool) -> None:
    """List finished workflows, newest first; with WORDS those whose reports have them."""
    with common.connect() as client:
        page = client.archive_page(" ".join(words) or None, limit, cursor)
    if as_json:
        output.print_json(page)
        return
    rows = [
        (output.short(one["workflow_id"]), one["status"], output.local(one["completed_at"]), one["name"])
        for one in page["archive"]
    ]
    output.print_table(("ID", "STATUS", "ENDED", "NAME"), rows, "nothing found" if words else "nothing yet")


@archive.command(epilog="Example: orchestr8d archive show 3f2a9c1d")
@click.argument("typed", metavar="ID")
@common.json_option
def show(typed: str, as_json: bool) -> None:
    """Print the report of a finished workflow."""
    with common.connect() as client:
        one = client.archived(_resolve(client, typed))
    if as_json:
        output.print_json(one)
    else:
        click.echo(one["report"], nl=False)


def _resolve(client: Client, typed: str) -> str:
    """The finished workflow that an id or the end of one means. It may be kept here for longer than elsewhere."""

    def find(_: str) -> dict[str, str]:
        newest = client.archive_page(limit=CANDIDATES)["archive"]
        return {one["workflow_id"]: f"{one['status']}  {one['name']}" for one in newest}

    return common.whole_id("finished workflow", typed, find, f" among the last {CANDIDATES}")
