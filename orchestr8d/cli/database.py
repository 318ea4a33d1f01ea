"""`orchestr8d migrate`, `backup`, `restore`: the database as a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import click

from orchestr8d.cli import common, exits, output
from orchestr8d.cli.state import no_daemon

_file = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), help="The configuration to find the database by."
)


def _place(config_path: Path | None) -> tuple[Path, Path]:
    """The database's file and the state directory."""
    from orchestr8d import config

    state = config.state_dir(os.environ)
    return config.store_path(config.load(config.find(config_path, os.environ), os.environ), state), state


@contextlib.contextmanager
def _naming(file: Path) -> Iterator[None]:
    """What is wrong is wrong with a file: name it."""
    import sqlite3

    from orchestr8d.core.errors import Problem

    try:
        yield
    except (sqlite3.Error, Problem) as error:
        text = str(error)
        exits.fail(exits.FAILED, text if str(file) in text else f"{file}: {text}")


def _existing(db: Path) -> None:
    if not db.exists():
        exits.fail(exits.NOT_FOUND, f"there is no database at {db}; `orchestr8d serve` makes one")


def _tell(as_json: bool, text: str, **values: object) -> None:
    if as_json:
        output.print_json({name: str(value) if isinstance(value, Path) else value for name, value in values.items()})
    else:
        click.echo(text)


@click.command(epilog="Example: orchestr8d migrate")
@_file
@common.json_option
def migrate(config_path: Path | None, as_json: bool) -> None:
    """Bring the database to this version's schema.

    `serve` does it too, when it starts; this one needs the daemon to be stopped.
    """
    from orchestr8d.store.sqlite import migrate_file

    db, state = _place(config_path)
    _existing(db)
    with no_daemon(state, db), _naming(db):
        before, after = migrate_file(db)
    done = f"migrated from version {before} to {after}" if before != after else f"is at version {after} already"
    _tell(as_json, f"{db}: {done}", **{"database": db, "from": before, "to": after})


@click.command(epilog="Example: orchestr8d backup ~/orchestr8d-backup.db")
@click.argument("target", type=click.Path(path_type=Path))
@_file
@common.json_option
def backup(target: Path, config_path: Path | None, as_json: bool) -> None:
    """Copy the database to TARGET, also while the daemon runs.

    What tasks wrote is not in it: that is in `attempts/` of the state directory.
    """
    from orchestr8d.store.sqlite import backup_file

    db, _ = _place(config_path)
    _existing(db)
    if target.is_dir():
        target = target / db.name
    if target.exists():
        exits.fail(exits.FAILED, f"{target} exists; give another name")
    with _naming(db):
        backup_file(db, target)
    size = target.stat().st_size
    _tell(as_json, f"{target}: {size:,} bytes", backup=target, bytes=size)


@click.command(epilog="Example: orchestr8d restore ~/orchestr8d-backup.db")
@click.argument("backup", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--yes", is_flag=True, help="Do not ask.")
@_file
@common.json_option
def restore(backup: Path, yes: bool, config_path: Path | None, as_json: bool) -> None:
    """Replace the database by a backup; the daemon must be stopped."""
    from orchestr8d.store.sqlite import restore_file

    db, state = _place(config_path)
    with no_daemon(state, db), _naming(backup):
        if db.exists() and not yes:
            click.confirm(f"{db} will be replaced by {backup}. Go on?", abort=True, err=True)
        restore_file(backup, db)
    _tell(as_json, f"{db}: restored from {backup}", database=db, backup=backup)
