"""`orchestr8d schedule`: what starts when a rule is due: made, seen, changed, held, fired by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestr8d.cli import common, exits, output, task_options, workflow_run
from orchestr8d.clock import SystemClock

if TYPE_CHECKING:
    from orchestr8d.client.answers import Json
    from orchestr8d.client.sync import Client

Command = TypeVar("Command", bound=Callable[..., Any])
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ].*)?")
COLUMNS = ("NAME", "STATE", "NEXT", "LAST", "RULE", "STARTS")
ZONE = "The rule's time zone; default: the daemon's [cron] timezone."
# The flags that say what a task is, and nothing of a workflow.
_OF_TASKS = ("agent", "prompt_file", "pairs", "env", "clean_env", "stdin", "title", "queue")


@click.group(epilog="Example: orchestr8d schedule add nightly '0 3 * * *' --tz Europe/Berlin -- make nightly")
def schedule() -> None:
    """Start tasks and workflows when a rule is due.

    \b
    A rule is one of
      '0 9 * * MON'      minute, hour, day of month, month, weekday; a sixth field before them is the second
      @daily             also @hourly, @weekly, @monthly, @yearly
      '@every 10m'
      2026-03-01T09:00   once
    """


class _Add(task_options.TaskCommand):
    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        subject = f"{task_options.SUBJECT[:-1]} | --workflow NAME|FILE [-p KEY=VALUE]...)"
        given = " ".join(str(name) for name in ("NAME", "RULE") if ctx.command.name == "add" or name == "NAME")
        return [given, "[OPTIONS]", subject if ctx.command.name == "add" else f"[{subject[1:-1]}]"]


def _rule_options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--tz", "timezone", metavar="ZONE", help=ZONE),
    click.option("--catch-up", "catch_up", type=click.Choice(["none", "one", "all"]),
                 help="What was due while the daemon was away: dropped, the latest, or all."),
    click.option("--catch-up-window", "catch_up_window", metavar="DURATION",
                 help="Catch up with nothing older; none: however old."),
    click.option("--overlap", type=click.Choice(["skip", "queue", "allow", "replace"]),
                 help="What happens while the one before still runs."),
    click.option("--jitter", metavar="DURATION", help="Start up to so much later, by chance."),
)  # fmt: skip
_workflow_options: tuple[Callable[[Any], Any], ...] = (
    click.option("--workflow", "source", metavar="NAME|FILE", help="Start a workflow: a template, or a definition."),
    click.option("-p", "--param", "params", multiple=True, metavar="KEY=VALUE", help="A parameter of the workflow."),
)  # fmt: skip


def _subject_options(command: Command) -> Command:
    for option in reversed(_workflow_options):
        command = option(command)
    return task_options.task_options(command)


# -- made and changed


@schedule.command(cls=_Add, epilog="Example: orchestr8d schedule add weekly '0 9 * * MON' --agent reviewer 'Look'")
@click.argument("name")
@click.argument("rule")
@click.argument("prompt", nargs=-1)
@_rule_options
@_subject_options
@click.option("--paused", is_flag=True, help="Start nothing until `schedule resume`.")
@common.json_option
@click.pass_context
def add(ctx: click.Context, /, name: str, rule: str, paused: bool, as_json: bool, timezone: str | None,
        catch_up: str | None, catch_up_window: str | None, overlap: str | None, jitter: str | None,
        **said: Any) -> None:  # fmt: skip
    """Start a command, an agent or a workflow whenever RULE is due.

    It runs in the current directory, with the caller's environment as `submit` takes it.
    """
    fields: dict[str, Any] = {
        "catch_up": catch_up, "catch_up_window": _duration(catch_up_window), "overlap": overlap,
        "jitter": _duration(jitter), "active": False if paused else None,
    }  # fmt: skip
    with common.connect() as client:
        fields |= _body(ctx, client, said)
        made = client.add_schedule(name, _rule(rule, timezone), timezone=timezone, **fields)
    _print(made, as_json)


@schedule.command(cls=_Add, epilog="Example: orchestr8d schedule edit nightly --rule '30 2 * * *' --overlap queue")
@click.argument("name")
@click.argument("prompt", nargs=-1)
@click.option("--rule", metavar="RULE", help="Another rule.")
@click.option("--name", "renamed", metavar="NAME", help="Another name.")
@_rule_options
@_subject_options
@common.json_option
@click.pass_context
def edit(ctx: click.Context, /, name: str, rule: str | None, renamed: str | None, as_json: bool, timezone: str | None,
         catch_up: str | None, catch_up_window: str | None, overlap: str | None, jitter: str | None,
         **said: Any) -> None:  # fmt: skip
    """Change a schedule. What it starts is said whole: it takes the place of what was there."""
    changes: dict[str, Any] = {
        "name": renamed, "timezone": timezone, "catch_up": catch_up, "overlap": overlap, "jitter": _duration(jitter)
    }  # fmt: skip
    changes = {field: value for field, value in changes.items() if value is not None}
    if catch_up_window is not None:
        changes["catch_up_window"] = _duration(catch_up_window)
    if rule is not None:
        changes["schedule"] = _rule(rule, timezone)
    with common.connect() as client:
        if _says_what(ctx, said):
            changes |= _body(ctx, client, said)
        if not changes:
            raise click.UsageError("nothing to change: give --rule, --overlap, a command after --, …")
        changed = client.change_schedule(_find(client, name), **changes)
    _print(changed, as_json)


def _rule(text: str, timezone: str | None) -> Any:
    """A rule as the API takes it; a single time without an offset is one of `timezone`, else of the caller's zone."""
    if text.startswith("{"):
        return common.parsed(text)
    if not _TIME.fullmatch(text):
        return text
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return {"at": text}
    if at.tzinfo is None:
        at = at.astimezone() if timezone is None else at.replace(tzinfo=_zone(timezone))
    return {"at": at.isoformat()}


def _zone(name: str) -> Any:
    from orchestr8d.core.cron_zone import zone

    try:
        return zone(name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--tz") from None


def _duration(text: str | None) -> str | float | None:
    if text is None or text == "none":
        return None
    found: float = common.Seconds().convert(text, None, None)
    return found


def _says_what(ctx: click.Context, said: dict[str, Any]) -> bool:
    """Whether there is anything of a task or a workflow on the command line."""
    return ctx.meta["command"] is not None or any(said.values()) or bool(ctx.meta.get("agent options"))


def _body(ctx: click.Context, client: Client, said: dict[str, Any]) -> dict[str, Any]:
    """`task` or `workflow`."""
    source, pairs = said.pop("source"), said.pop("params")
    if source is None:
        if pairs:
            raise click.UsageError("-p gives a parameter to a workflow: --workflow NAME")
        task = task_options.read(ctx, **said)
        task_options.resolve(client, task)
        return {"task": {name: value for name, value in task.items() if value is not None}}
    if ctx.meta["command"] is not None or said["prompt"] or any(said[name] for name in _OF_TASKS):
        raise click.UsageError("give a task or --workflow, not both")
    definition = workflow_run.read(source)
    known = client.template(source)["params"] if definition is None else definition.get("params")
    which: dict[str, Any] = {"template": source} if definition is None else {"definition": definition}
    priority = said["priority"]
    return {
        "workflow": which
        | {"params": workflow_run.parse(pairs, known), "cwd": task_options.directory(said["cwd"])}
        | ({} if priority is None else {"priority": common.whole_number(priority)})
    }


# -- seen


@schedule.command("list", epilog="Example: orchestr8d schedule list nightly")
@click.argument("q", metavar="[TEXT]", required=False)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="The most to show.")
@click.option("--cursor", metavar="CURSOR", help="Go on after a page (next_cursor of its JSON).")
@common.json_option
def list_schedules(q: str | None, limit: int, cursor: str | None, as_json: bool) -> None:
    """List schedules, newest first; with TEXT those whose names have it in them."""
    with common.connect() as client:
        page = client.schedule_page(q, limit, cursor)
    if as_json:
        output.print_json(page)
        return
    rows = [
        (one["name"], _state(one), output.local(one["next_run"]), output.local(one["last_run"]), _text(one),
         _starts(one))
        for one in page["schedules"]
    ]  # fmt: skip
    output.print_table(COLUMNS, rows, "no schedules")
    if page["next_cursor"] and output.on_terminal():
        click.echo(f"the newest {limit}; --limit shows more", err=True)


@schedule.command(epilog="Example: orchestr8d schedule show nightly")
@click.argument("name")
@common.json_option
def show(name: str, as_json: bool) -> None:
    """Show a schedule and its next runs, in your own time zone."""
    with common.connect() as client:
        found = client.schedule(_find(client, name))
    _print(found, as_json)


@schedule.command(epilog="Example: orchestr8d schedule history nightly --limit 10")
@click.argument("name")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="The most to show.")
@click.option("--cursor", metavar="CURSOR", help="Go on after a page (next_cursor of its JSON).")
@common.json_option
def history(name: str, limit: int, cursor: str | None, as_json: bool) -> None:
    """Show what became of a schedule's due times, newest first."""
    with common.connect() as client:
        page = client.schedule_history(_find(client, name), limit, cursor)
    if as_json:
        output.print_json(page)
        return
    rows = [
        (output.local(one["time"]), one["state"], output.short(one["task_id"] or one["workflow_id"] or ""),
         one["outcome"] or "", _why(one))
        for one in page["firings"]
    ]  # fmt: skip
    output.print_table(("DUE", "STATE", "ID", "STATUS", "WHY"), rows, "it has not been due yet")


def _why(firing: Json) -> str:
    said = firing["reason"] or ("" if firing["trigger"] == "due" else firing["trigger"])
    return f"{said}: {firing['count']} until {output.local(firing['until'])}" if firing["count"] > 1 else said


@schedule.command(epilog="Example: orchestr8d schedule preview '0 9 * * MON' --tz Europe/Berlin")
@click.argument("rule")
@click.option("--tz", "timezone", metavar="ZONE", help=ZONE)
@click.option("--after", metavar="TIME", help="After that instead of now, such as 2026-03-01T00:00:00Z.")
@click.option("-n", "--count", type=click.IntRange(1, 10_000), default=10, show_default=True, help="How many runs.")
@common.json_option
def preview(rule: str, timezone: str | None, after: str | None, count: int, as_json: bool) -> None:
    """Say in words when a rule is due, and its next runs in your own time zone."""
    with common.connect() as client:
        found = client.preview_schedule(_rule(rule, timezone), timezone, after, count)
    if as_json:
        output.print_json(found)
        return
    click.echo(output.printable(found["words"]))
    for run in found["runs"]:
        click.echo(_run(run))


# -- steered


def _each(names: tuple[str, ...], as_json: bool, act: Callable[[Client, str], Json]) -> None:
    def do(found: str) -> None:
        one = act(client, found)
        if as_json:
            output.print_json(one, compact=len(names) > 1)
        elif one:
            click.echo(f"{output.printable(one['name'])}  {_state(one)}  {_next(one)}".rstrip())

    with common.connect() as client:
        common.each(client, names, do, _find)


@schedule.command(epilog="Example: orchestr8d schedule pause nightly")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@common.json_option
def pause(names: tuple[str, ...], as_json: bool) -> None:
    """Start nothing until `schedule resume`."""
    _each(names, as_json, lambda client, name: client.pause_schedule(name))


@schedule.command(epilog="Example: orchestr8d schedule resume nightly")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@common.json_option
def resume(names: tuple[str, ...], as_json: bool) -> None:
    """Let schedules go on, from now."""
    _each(names, as_json, lambda client, name: client.resume_schedule(name))


@schedule.command(epilog="Example: orchestr8d schedule remove nightly")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def remove(names: tuple[str, ...]) -> None:
    """Remove schedules; what they have started goes on."""
    _each(names, False, lambda client, name: client.remove_schedule(name))


@schedule.command(epilog="Example: orchestr8d schedule trigger nightly")
@click.argument("name")
@common.json_option
def trigger(name: str, as_json: bool) -> None:
    """Start it now, also while it is paused; print the id of what was started."""
    with common.connect() as client:
        fired = client.trigger_schedule(_find(client, name))
    started = fired["task_id"] or fired["workflow_id"]
    if as_json:
        output.print_json(fired)
    elif started:
        click.echo(output.short(started) if output.on_terminal() else started)
    if not started:
        exits.fail(exits.WRONG_STATE, f"nothing was started: {fired['reason']}")


# -- printed


def _find(client: Client, typed: str) -> str:
    """The name or id that was typed, or the id that ends so."""
    from orchestr8d.client.answers import ApiError

    text = typed.strip().lower()
    if not common.TAIL.fullmatch(text) or common.FULL_ID.fullmatch(text):
        return typed
    try:
        return str(client.schedule(typed)["schedule_id"])
    except ApiError as error:
        if error.status != 404:
            raise
    return common.whole_id("schedule", typed, lambda _: {s["schedule_id"]: s["name"] for s in client.schedules()})


def _print(one: Json, as_json: bool) -> None:
    if as_json:
        output.print_json(one)
        return
    catch_up = one["catch_up"]
    if catch_up != "none" and one["catch_up_window"] is not None:
        catch_up += f", up to {output.span(one['catch_up_window'])} old"
    runs = one["next_runs"]
    output.print_fields([
        ("name", one["name"]), ("id", one["schedule_id"]), ("state", _state(one)), ("rule", _text(one)),
        ("zone", one["timezone"]), ("when", one["words"]), ("starts", _starts(one)), ("overlap", one["overlap"]),
        ("catch-up", catch_up), ("jitter", output.span(one["jitter"]) if one["jitter"] else ""),
        ("source", one["source"]), ("last", output.local(one["last_run"])), ("next", _run(runs[0]) if runs else ""),
        *(("", _run(run)) for run in runs[1:]),
    ])  # fmt: skip


def _run(time: str) -> str:
    """A time to come in the reader's zone, with the day of the week and how far it is."""
    at = datetime.fromisoformat(time).astimezone()
    ahead = output.moment(time) - SystemClock().now() / 1000
    return f"{at:%a} {output.local(time)}" + (f"  (in {output.span(ahead)})" if ahead > 0 else "")


def _next(one: Json) -> str:
    return _run(one["next_run"]) if one["next_run"] else ""


def _state(one: Json) -> str:
    if one["alerting"]:
        return "alerting"
    return "active" if one["active"] else "inactive"


def _text(one: Json) -> str:
    rule = one["schedule"]
    return rule if isinstance(rule, str) else f"once, {output.local(rule['at'])}"


def _starts(one: Json) -> str:
    """What it starts, in a few words."""
    if one["task"] is not None:
        return output.what(one["task"] | {"title": one["task"].get("options", {}).get("title")})
    workflow = one["workflow"]
    return f"workflow {workflow.get('template') or workflow.get('name') or workflow['definition'].get('name')}"
