"""`orchestr8d migrate`, `backup`, `restore`: the database as a file."""

from __future__ import annotations

import os
from pathlib import Path

import click

from orchestr8d.cli import exits
from orchestr8d.cli.state import no_daemon

_file = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="The configuration to find the database by."
)


def _place(config_path: Path | None) -> tuple[Path, Path]:
    """The database's file and the state directory."""
    from orchestr8d import config

    state = config.state_dir(os.environ)
    return config.store_path(config.load(config.find(config_path, os.environ), os.environ), state), state


@click.command(epilog="Example: orchestr8d migrate")
@_file
def migrate(config_path: Path | None) -> None:
    """Bring the database to this version's schema (`serve` does it too, when it starts)."""
    from orchestr8d.store.sqlite import migrate_file

    db, state = _place(config_path)
    if not db.exists():
        exits.fail(exits.NOT_FOUND, f"there is no database at {db}; `orchestr8d serve` makes one")
    with no_daemon(state):
        before, after = migrate_file(db)
    done = f"from version {before} to {after}" if before != after else f"is at version {after} already"
    click.echo(f"{db}: {'migrated ' if before != after else ''}{done}")


@click.command(epilog="Example: orchestr8d backup ~/orchestr8d-backup.db")
@click.argument("target", type=click.Path(path_type=Path))
@_file
def backup(target: Path, config_path: Path | None) -> None:
    """Write a copy of the database to TARGET, also while the daemon runs. Outputs of tasks are not in it."""
    from orchestr8d.store.sqlite import backup_file

    db, _ = _place(config_path)
    if not db.exists():
        exits.fail(exits.NOT_FOUND, f"there is no database at {db}")
    if target.is_dir():
        target = target / db.name
    if target.exists():
        exits.fail(exits.FAILED, f"{target} exists; give another name")
    backup_file(db, target)
    click.echo(f"{target}: {target.stat().st_size:,} bytes")


@click.command(epilog="Example: orchestr8d restore ~/orchestr8d-backup.db")
@click.argument("backup", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--yes", is_flag=True, help="Do not ask.")
@_file
def restore(backup: Path, yes: bool, config_path: Path | None) -> None:
    """Replace the database by a backup; the daemon must be stopped."""
    from orchestr8d.store.sqlite import restore_file

    db, state = _place(config_path)
    with no_daemon(state):
        if db.exists() and not yes:
            click.confirm(f"{db} will be replaced by {backup}. Go on?", abort=True, err=True)
        restore_file(backup, db)
    click.echo(f"{db}: restored from {backup}")
