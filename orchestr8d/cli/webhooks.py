"""`orchestr8d webhook` and `deliveries`: who is told of events, what became of each, and sending it again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from orchestr8d.cli import common, exits, output
from orchestr8d.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestr8d.client.answers import Json
    from orchestr8d.client.sync import Client

# How long `test` waits for what became of it; a little more than an attempt may take.
PATIENCE = 20.0


@click.group(epilog="Example: orchestr8d webhook add https://example.com/hook --event 'task.*'")
def webhook() -> None:
    """Send events to URLs: make, see and steer webhooks."""


@webhook.command(epilog="Example: orchestr8d webhook add https://example.com/hook --event 'task.*'")
@click.argument("url")
@click.option("--event", "events", multiple=True, required=True, metavar="TYPE",
              help="task.completed, a group like task.*, or *; may be repeated.")  # fmt: skip
@click.option("--secret", metavar="whsec_…", help="Sign with this one; default: one is made.")
@click.option("--user", "user_id", metavar="NAME", help="Only what is of this user.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="Send it along; may be repeated.")
@common.json_option
def add(url: str, events: tuple[str, ...], secret: str | None, user_id: str | None, headers: tuple[str, ...],
        as_json: bool) -> None:  # fmt: skip
    """Subscribe a URL to events and print the secret that signs them: this once."""
    given = dict(_header(text) for text in headers)
    with common.connect() as client:
        made = client.add_webhook(url, events, secret=secret, user_id=user_id, headers=given or None)
    if as_json:
        output.print_json(made)
    else:
        output.print_fields([("id", made["webhook_id"]), ("secret", made["secret"])])


def _header(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--header {text}: expected NAME=VALUE")
    return name, value


@webhook.command("list", epilog="Example: orchestr8d webhook list")
@common.json_option
def list_webhooks(as_json: bool) -> None:
    """List webhooks."""
    with common.connect() as client:
        found = client.webhooks()
    if as_json:
        output.print_json({"webhooks": found})
        return
    rows = [
        [output.short(w["webhook_id"]), w["status"], ", ".join(w["events"]), w["user_id"] or "-", w["failures"],
         w["url"]]
        for w in found
    ]  # fmt: skip
    output.print_table(("ID", "STATUS", "EVENTS", "USER", "FAILURES", "URL"), rows, "no webhooks")


@webhook.command(epilog="Example: orchestr8d webhook show 3f9c2a1b")
@click.argument("webhook_id", metavar="ID")
@common.json_option
def show(webhook_id: str, as_json: bool) -> None:
    """Show a webhook, and why it is not active."""
    _each(webhook_id, as_json, lambda client, found: client.webhook(found))


@webhook.command(epilog="Example: orchestr8d webhook pause 3f9c2a1b")
@click.argument("webhook_id", metavar="ID")
@common.json_option
def pause(webhook_id: str, as_json: bool) -> None:
    """Hold what is for a webhook, until `webhook resume`."""
    _each(webhook_id, as_json, lambda client, found: client.pause_webhook(found))


@webhook.command(epilog="Example: orchestr8d webhook resume 3f9c2a1b")
@click.argument("webhook_id", metavar="ID")
@common.json_option
def resume(webhook_id: str, as_json: bool) -> None:
    """Let a paused or disabled webhook go on."""
    _each(webhook_id, as_json, lambda client, found: client.resume_webhook(found))


@webhook.command(epilog="Example: orchestr8d webhook rotate-secret 3f9c2a1b")
@click.argument("webhook_id", metavar="ID")
@common.json_option
def rotate_secret(webhook_id: str, as_json: bool) -> None:
    """Make a new secret and print it: this once. The old one signs beside it for 24 hours."""
    with common.connect() as client:
        made = client.rotate_secret(_resolve(client, webhook_id))
    if as_json:
        output.print_json(made)
    else:
        click.echo(made["secret"])


@webhook.command(epilog="Example: orchestr8d webhook remove 3f9c2a1b")
@click.argument("webhook_id", metavar="ID")
@common.json_option
def remove(webhook_id: str, as_json: bool) -> None:
    """Remove a webhook; what waits for it is given up."""
    _each(webhook_id, as_json, lambda client, found: client.remove_webhook(found))


@webhook.command(epilog="Example: orchestr8d webhook test 3f9c2a1b")
@click.argument("webhook_id", metavar="ID")
@common.json_option
def test(webhook_id: str, as_json: bool) -> None:
    """Send `webhook.test` and say what became of it; exits with 1 when it was not taken."""
    with common.connect() as client:
        found = _resolve(client, webhook_id)
        sent = client.test_webhook(found)
        clock = SystemClock()
        end = clock.monotonic() + PATIENCE
        while sent["status"] == "pending" and clock.monotonic() < end:
            time.sleep(0.05)
            sent = client.delivery(sent["delivery_id"])
    if as_json:
        output.print_json(sent)
    else:
        click.echo(f"{sent['status']}: {_outcome(sent)}")
    if sent["status"] != "delivered":
        exits.fail(exits.FAILED)


@click.group(epilog="Example: orchestr8d deliveries list --status dead")
def deliveries() -> None:
    """See what became of events on their way to webhooks and callbacks, and send them again."""


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--since", metavar="TIME", help="Only those made since, such as 2026-03-01T00:00:00Z."),
        click.option("--task", metavar="ID", help="Only those about a task."),
        click.option("--webhook", metavar="ID", help="Only those for a webhook."),
        click.option("--status", type=click.Choice(["pending", "delivered", "dead"]), help="Only those."),
    ):
        command = option(command)
    return command


@deliveries.command("list", epilog="Example: orchestr8d deliveries list --status dead")
@_filters
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="The most to show.")
@common.json_option
def list_deliveries(status: Any, webhook: str | None, task: str | None, since: str | None, limit: int,
                    as_json: bool) -> None:  # fmt: skip
    """List deliveries, newest first."""
    with common.connect() as client:
        wanted = _query(client, status, webhook, task, since)
        found = client.delivery_page(limit, **wanted)["deliveries"]
    if as_json:
        output.print_json({"deliveries": found})
        return
    rows = [
        [output.short(d["delivery_id"]), d["status"], d["type"], output.local(d["created_at"]), len(d["attempts"]),
         _outcome(d), d["url"]]
        for d in found
    ]  # fmt: skip
    output.print_table(("ID", "STATUS", "TYPE", "MADE", "TRIED", "LAST", "URL"), rows, "no deliveries")


@deliveries.command(epilog="Example: orchestr8d deliveries redeliver --status dead --webhook 3f9c2a1b")
@click.argument("delivery_ids", metavar="[ID]...", nargs=-1)
@_filters
@common.json_option
def redeliver(delivery_ids: tuple[str, ...], status: Any, webhook: str | None, task: str | None, since: str | None,
              as_json: bool) -> None:  # fmt: skip
    """Send deliveries again: those that are named, or all that match."""
    has_filter = any(value is not None for value in (status, webhook, task, since))
    if bool(delivery_ids) == has_filter:
        raise click.UsageError("give ids, or filters such as --status dead")
    with common.connect() as client:
        if has_filter:
            count: int = client.redeliver_all(**_query(client, status, webhook, task, since))["count"]
        else:
            for delivery_id in [_resolve_delivery(client, typed) for typed in delivery_ids]:
                client.redeliver(delivery_id)
            count = len(delivery_ids)
    if as_json:
        output.print_json({"count": count})
    else:
        click.echo(f"{count} will be sent again")


def _query(client: Client, status: Any, webhook: str | None, task: str | None, since: str | None) -> dict[str, Any]:
    return {
        "status": status,
        "webhook_id": None if webhook is None else _resolve(client, webhook),
        "task_id": None if task is None else common.resolve(client, task),
        "since": since,
    }


def _outcome(delivery: Json) -> str:
    """What the last attempt came to."""
    if not delivery["attempts"]:
        return "not tried yet"
    last = delivery["attempts"][-1]
    return str(last["error"]["message"] if last["error"] else f"answered with {last['status_code']}")


def _each(typed: str, as_json: bool, act: Callable[[Client, str], Json]) -> None:
    with common.connect() as client:
        one = act(client, _resolve(client, typed))
    if as_json:
        output.print_json(one)
    else:
        output.print_fields([(name, _text(value)) for name, value in one.items()])


def _text(value: object) -> object:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {item}" for name, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _resolve(client: Client, typed: str) -> str:
    """The webhook that an id, the end of one, or its URL means."""
    if "://" not in typed:
        return common.whole_id("webhook", typed, lambda _: {w["webhook_id"]: w["url"] for w in client.webhooks()})
    found: list[str] = [w["webhook_id"] for w in client.webhooks() if w["url"] == typed]
    if len(found) != 1:
        many = "there is more than one webhook" if found else "there is no webhook"
        exits.fail(exits.USAGE if found else exits.NOT_FOUND, f"{many} for {typed}")
    return found[0]


def _resolve_delivery(client: Client, typed: str) -> str:
    def find(tail: str) -> dict[str, str]:
        return {d["delivery_id"]: f"{d['type']}  {d['url']}" for d in client.delivery_page(common.NEWEST)["deliveries"]}

    return common.whole_id("delivery", typed, find, common.AMONG_NEWEST)
