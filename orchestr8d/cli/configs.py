"""`orchestr8d config`: the configuration, checked and shown."""

from __future__ import annotations

import os
from pathlib import Path

import click

from orchestr8d.cli import common, exits, output

_file = click.option(
    "--config", "path", type=click.Path(path_type=Path), help="This file instead of the one that serve finds."
)


@click.group()
def config() -> None:
    """Check and show the configuration."""


@config.command(epilog="Example: orchestr8d config check --config ./config.toml")
@_file
@common.json_option
def check(path: Path | None, as_json: bool) -> None:
    """Say whether the configuration is valid; name every fault with file, line and key."""
    from orchestr8d import config as configuration

    found = configuration.find(path, os.environ)
    try:
        configuration.load(found, os.environ)
        faults = []
    except configuration.ConfigError as error:
        faults = list(error.faults)
    if as_json:
        shown = [{"where": f.where, "key": f.key, "value": f.value, "message": f.message} for f in faults]
        output.print_json({"file": str(found) if found else None, "valid": not faults, "faults": shown})
    elif not faults:
        click.echo(f"{found}: valid" if found else "no file: the defaults and the environment are valid")
    else:
        for fault in faults:
            click.echo(str(fault), err=True)
    if faults:
        exits.fail(exits.FAILED)


@config.command(epilog="Example: orchestr8d config show > config.toml")
@_file
@common.json_option
def show(path: Path | None, as_json: bool) -> None:
    """Print the settings in force: file, environment and defaults; secrets are hidden."""
    from orchestr8d import config as configuration

    settings = configuration.load(configuration.find(path, os.environ), os.environ)
    if as_json:
        output.print_json(configuration.to_tree(settings, secrets=False))
    else:
        click.echo(configuration.to_toml(settings, secrets=False), nl=False)
