"""`orchestr8d doctor`: what keeps the daemon from working well on this machine."""

from __future__ import annotations

import click

from orchestr8d.cli import common, exits, output

MARKS = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "broken": ("BROKEN", "red")}


@click.command(epilog="Example: orchestr8d doctor")
@common.json_option
def doctor(as_json: bool) -> None:
    """Check this machine, the configuration and the daemon.

    Exits with 1 if something is broken.
    """
    from orchestr8d.cli.checks import all_checks

    found = all_checks()
    if as_json:
        output.print_json({"checks": [{"name": c.name, "state": c.state, "message": c.message} for c in found]})
    else:
        width = max(len(c.name) for c in found)
        for c in found:
            mark, colour = MARKS[c.state]
            painted = click.style(mark.ljust(8), fg=colour) if output.coloured() else mark.ljust(8)
            click.echo(f"{painted} {c.name.ljust(width)}  {output.printable(c.message)}")
    if any(c.state == "broken" for c in found):
        exits.fail(exits.FAILED)
