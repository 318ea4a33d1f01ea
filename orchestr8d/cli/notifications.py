"""`orchestr8d notifications` and `notify`: what users were told, and telling them something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestr8d.cli import common, exits, output
from orchestr8d.core import notices

if TYPE_CHECKING:
    from orchestr8d.client.answers import Json
    from orchestr8d.client.sync import Client


@click.group(invoke_without_command=True, epilog="Example: orchestr8d notifications")
@click.option("--user", "user_id", metavar="NAME", help="Only those for this user.")
@click.option("--unread", is_flag=True, help="Only those that were not acknowledged.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="The most to show.")
@common.json_option
@click.pass_context
def notifications(context: click.Context, user_id: str | None, unread: bool, limit: int, as_json: bool) -> None:
    """List notifications: first those that were not acknowledged, each newest first."""
    if context.invoked_subcommand is not None:
        return
    with common.connect() as client:
        found = client.notification_page(limit, user_id=user_id, unread=True)["notifications"]
        if not unread and len(found) < limit:
            newest = client.notification_page(limit, user_id=user_id)["notifications"]
            found += [one for one in newest if one["acked_at"]][: limit - len(found)]
    if as_json:
        output.print_json({"notifications": found})
        return
    rows = [
        (output.short(one["notification_id"]), "" if one["acked_at"] else "unread", one["user_id"],
         one["notification_type"], one["priority"], output.local(one["created_at"]), _said(one))
        for one in found
    ]  # fmt: skip
    output.print_table(("ID", "", "USER", "TYPE", "PRIORITY", "TIME", "MESSAGE"), rows, "no notifications")


@notifications.command(epilog="Example: orchestr8d notifications show 3f9c2a1b")
@click.argument("notification_id", metavar="ID")
@common.json_option
def show(notification_id: str, as_json: bool) -> None:
    """Show a notification, and what became of it on each channel."""
    with common.connect() as client:
        one = client.notification(_resolve(client, notification_id))
    if as_json:
        output.print_json(one)
        return
    hidden = ("channels", "message", "delivered")
    output.print_fields([(name, value) for name, value in one.items() if name not in hidden])
    click.echo("\n" + "\n".join(map(output.printable, one["message"].splitlines())))
    if one["channels"]:
        click.echo()
        rows = [(c["channel"], c["status"], c["attempts"], c["error"] or "") for c in one["channels"]]
        output.print_table(("CHANNEL", "STATUS", "ATTEMPTS", "ERROR"), rows)


@notifications.command(epilog="Example: orchestr8d notifications ack 3f9c2a1b")
@click.argument("notification_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All there are.")
@click.option("--user", "user_id", metavar="NAME", help="With --all: those for this user.")
@common.json_option
def ack(notification_ids: tuple[str, ...], every: bool, user_id: str | None, as_json: bool) -> None:
    """Acknowledge notifications, by the ends of their ids."""
    if every == bool(notification_ids) or (user_id is not None and not every):
        exits.fail(exits.USAGE, "give the ids of notifications, or --all (and --user with it)")
    with common.connect() as client:
        if every:
            acked = client.ack_notifications(user_id)
            _print(acked, f"acknowledged {acked['count']}", as_json)
        for typed in notification_ids:
            one = client.ack_notification(_resolve(client, typed))
            said = f"acknowledged {output.short(one['notification_id'])}  {_said(one)}"
            _print(one, said, as_json, compact=len(notification_ids) > 1)


@click.command(epilog="Example: orchestr8d notify --type milestone 'the release is out'")
@click.argument("message")
@click.option("--user", "user_id", default=notices.DEFAULT_USER, show_default=True, metavar="NAME", help="Whom.")
@click.option(
    "--type", "notification_type", type=click.Choice([*notices.TYPES, *notices.ALIASES]), default="update",
    show_default=True, help="What sort of message it is.",
)  # fmt: skip
@click.option("--title", help="A title; default: the type in words.")
@click.option("--priority", type=click.Choice(["low", "normal", "high", "critical"]), help="Default: as its type is.")
@click.option("--task", "task_id", metavar="ID", help="The task that it is about.")
@click.option("--workflow", "workflow_id", metavar="ID", help="The workflow that it is about.")
@common.json_option
def notify(message: str, user_id: str, task_id: str | None, as_json: bool, **more: Any) -> None:
    """Send a notification to a user: it is stored, and goes to the user's channels."""
    with common.connect() as client:
        about = None if task_id is None else common.resolve(client, task_id)
        kind = more.pop("notification_type")
        sent = client.send_notification(user_id, kind, message, task_id=about, **more)
    _print(sent, sent["notification_id"], as_json)


def _print(answer: Json, text: str, as_json: bool, compact: bool = False) -> None:
    if as_json:
        output.print_json(answer, compact)
    else:
        click.echo(text)


def _said(one: Json) -> str:
    title, message = one["title"], one["message"]
    return notices.one_line(message if not title or message.startswith(title) else f"{title}: {message}")


def _resolve(client: Client, typed: str) -> str:
    """The notification that an id or the end of one means. Exits when there is none, or more than one."""

    def find(tail: str) -> dict[str, str]:
        return {n["notification_id"]: _said(n) for n in client.notification_page(common.NEWEST)["notifications"]}

    return common.whole_id("notification", typed, find, common.AMONG_NEWEST)
