"""`orchestr8d serve`: the daemon itself."""

from __future__ import annotations

from pathlib import Path

import click

from orchestr8d.cli import exits


@click.command(epilog="Example: orchestr8d serve --config ./config.toml")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="The configuration to use.")
@click.option("--ready-fd", type=int, metavar="N", help="Write a line to this file descriptor when ready.")
@click.option("--log-format", type=click.Choice(["auto", "json", "pretty"]), help="How to write the log.")
def serve(config_path: Path | None, ready_fd: int | None, log_format: str | None) -> None:
    """Start the daemon, in the foreground.

    Ctrl-C or SIGTERM end it in good order, SIGHUP makes it read its configuration again.
    """
    from orchestr8d import daemon
    from orchestr8d.config import ConfigError

    try:
        code = daemon.serve(config_path, log_format=log_format, ready_fd=ready_fd)
    except ConfigError as error:
        click.echo(str(error), err=True)
        code = exits.USAGE
    if code:
        exits.fail(code)
