"""`orchestr8d token`: who may use the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestr8d.cli import common, exits, output

if TYPE_CHECKING:
    from orchestr8d.client.answers import Json


@click.group()
def token() -> None:
    """Make, list and revoke tokens."""


@token.command(epilog="Example: orchestr8d token create ci --scope submit --expires 90d")
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(["read", "submit", "admin"]),
    required=True,
    help="What it may do; each one includes those before it.",
)
@click.option("--expires", metavar="TIME", help="A duration such as 90d, or a time such as 2027-01-01T00:00:00Z.")
@click.option("--user", "user_id", metavar="NAME", help="Bind it to a user: what it submits is theirs.")
@click.option("--runner", "runners", multiple=True, metavar="KIND", help="Bind it to kinds of task, such as command.")
@click.option("--agent", "agents", multiple=True, metavar="NAME", help="Bind it to agents, as tasks name them.")
@common.json_option
def create(name: str, scope: str, expires: str | None, user_id: str | None, runners: tuple[str, ...],
           agents: tuple[str, ...], as_json: bool) -> None:  # fmt: skip
    """Make a token and print it: this once, it is stored as a hash."""
    with common.connect() as client:
        made = client.create_token(
            name, scope, expires=expires, user_id=user_id, runners=list(runners) or None, agents=list(agents) or None
        )
    if as_json:
        output.print_json(made)
        return
    click.echo(made["token"])
    if output.on_terminal():
        click.echo("keep it now: it is not shown again", err=True)


@token.command("list", epilog="Example: orchestr8d token list")
@common.json_option
def list_tokens(as_json: bool) -> None:
    """List tokens (not their text)."""
    with common.connect() as client:
        tokens = client.tokens()
    if as_json:
        output.print_json({"tokens": tokens})
        return
    rows = [
        [output.short(_id(t)), t["name"], t["scope"], t["user_id"], output.local(t["created_at"]),
         output.local(t["expires_at"]) or "never"]
        for t in tokens
    ]  # fmt: skip
    output.print_table(("ID", "NAME", "SCOPE", "USER", "CREATED", "EXPIRES"), rows, "no tokens")


@token.command(epilog="Example: orchestr8d token revoke ci")
@click.argument("name")
@common.json_option
def revoke(name: str, as_json: bool) -> None:
    """Revoke a token, by its name or the end of its id; it stops working at once."""
    with common.connect() as client:
        tokens = client.tokens()
        found = [t for t in tokens if t["name"] == name] or [t for t in tokens if _is_tail(name, _id(t))]
        if not found:
            exits.fail(exits.NOT_FOUND, f"there is no token {name!r}")
        if len(found) > 1:
            exits.say(f"there is more than one token {name!r}; give the id of one:")
            for t in found:
                click.echo(f"  {_id(t)}  {t['scope']}  {output.local(t.get('created_at'))}", err=True)
            exits.fail(exits.USAGE)
        revoked = client.revoke_token(_id(found[0]))
    if as_json:
        output.print_json(revoked)
    else:
        click.echo(f"revoked {output.printable(revoked['name'])}")


def _is_tail(typed: str, token_id: str) -> bool:
    return len(typed) >= 6 and token_id.endswith(typed.lower())


def _id(one: Json) -> str:
    found: str = one["token_id"]
    return found
