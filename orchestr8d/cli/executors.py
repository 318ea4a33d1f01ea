"""`orchestr8d executors`: the daemons that run tasks."""

from __future__ import annotations

import click

from orchestr8d.cli import common, output


@click.command(epilog="Example: orchestr8d executors")
@common.json_option
def executors(as_json: bool) -> None:
    """List executors: one for each start of a daemon."""
    with common.connect() as client:
        found = client.executors()
    if as_json:
        output.print_json({"executors": found})
        return
    rows = [
        [output.short(e["id"]), e["state"], e["host"], e["pid"], e["version"], f"{e['running']}/{e['slots']}",
         output.local(e["started_at"]), output.local(e["heartbeat_at"]), ", ".join(e["labels"])]
        for e in found
    ]  # fmt: skip
    columns = ("ID", "STATUS", "HOST", "PID", "VERSION", "RUNNING", "STARTED", "HEARTBEAT", "LABELS")
    output.print_table(columns, rows, "no executors")
