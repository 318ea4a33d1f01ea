"""`orchestr8d limits`: why no agent's task starts and until when, and how to open an account again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestr8d.cli import common, output

if TYPE_CHECKING:
    from orchestr8d.client.answers import Json


@click.group(invoke_without_command=True, epilog="Example: orchestr8d limits")
@common.json_option
@click.pass_context
def limits(context: click.Context, as_json: bool) -> None:
    """Say why no agent's task starts and until when; list accounts and budgets."""
    if context.invoked_subcommand is None:
        with common.connect() as client:
            _show(client.limits(), as_json)


@limits.command("open", epilog="Example: orchestr8d limits open work")
@click.argument("name")
@common.json_option
def open_account(name: str, as_json: bool) -> None:
    """Open an account that is closed or limited: its tasks start again."""
    with common.connect() as client:
        _show(client.open_account(name), as_json)


def _show(seen: Json, as_json: bool) -> None:
    if as_json:
        output.print_json(seen)
        return
    click.echo(output.printable(seen["summary"]))
    click.echo()
    accounts = [
        (a["name"], a["state"], a["reset_at"] or "-", f"{a['running']}/{a['concurrency']}", a["reason"] or "")
        for a in seen["accounts"]
    ]
    output.print_table(("ACCOUNT", "STATE", "UNTIL", "RUNNING", "REASON"), accounts)
    if seen["budgets"]:
        click.echo()
        budgets = [
            (b["name"], b["key"] or b["period"], f"{b['limit']:g} {b['unit']}", f"{b['used']:g}", f"{b['reserved']:g}")
            for b in seen["budgets"]
        ]
        output.print_table(("BUDGET", "OF", "LIMIT", "USED", "RESERVED"), budgets)
