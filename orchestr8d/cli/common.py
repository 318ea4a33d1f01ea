"""What the verbs share: the client, ids as people type them, options as `-o key=value`, durations."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestr8d.cli import exits
from orchestr8d.core import durations

if TYPE_CHECKING:
    from orchestr8d.client.sync import Client

Command = TypeVar("Command", bound=Callable[..., Any])
FULL_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
TAIL = re.compile(r"[0-9a-f-]{6,36}")
# Tasks with one end of their ids that are shown; and so many of the newest of what the API cannot find by such an end.
CANDIDATES = 10
NEWEST = 1000
AMONG_NEWEST = f", among the last {NEWEST}"

# Options that are lists of strings, and those that are text even where they look like a number.
LISTS = frozenset({"tags", "depends_on", "allowed_tools", "disallowed_tools", "runner_args"})
ARGVS = frozenset({"check"})
TEXTS = frozenset({"title", "unique_key", "concurrency_key", "queue", "user_id", "run_at", "model", "account"})


def json_option(command: Command) -> Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def connect() -> Client:
    """The client for the daemon of this user or of $ORCHESTR8_URL."""
    from orchestr8d.client.sync import Client

    return Client()


class Seconds(click.ParamType[float]):
    """A duration such as 90, 90s, 15m, 2h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return durations.seconds(float(value) if re.fullmatch(r"[0-9.]+", str(value)) else value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def whole_id(what: str, typed: str, find: Callable[[str], Mapping[str, str]], among: str = "") -> str:
    """The id that was typed, or the one that ends so. `find` gives ids with a few words about each, `among` says of
    which it knows only. Exits when there is none, or more than one."""
    text = typed.strip().lower()
    if FULL_ID.fullmatch(text):
        return text
    if not TAIL.fullmatch(text):
        exits.fail(exits.USAGE, f"{typed!r} is no id of a {what}: give at least the last 6 characters of one")
    found = {one: about for one, about in find(text).items() if one.endswith(text)}
    if not found:
        exits.fail(exits.NOT_FOUND, f"there is no {what} whose id ends in {text!r}{among}")
    if len(found) > 1:
        from orchestr8d.cli.output import printable

        exits.say(f"{typed!r} is the end of more than one id; give more of it:")
        for one, about in found.items():
            click.echo(f"  {one}  {printable(about)[:70]}", err=True)
        exits.fail(exits.USAGE)
    return next(iter(found))


def resolve(client: Client, typed: str) -> str:
    """The task that an id or the end of one means. Exits when there is none, or more than one."""

    def find(tail: str) -> Mapping[str, str]:
        from orchestr8d.cli.output import what

        tasks = client.task_page(limit=CANDIDATES, tail=tail)["tasks"]
        return {task["id"]: f"{task['status']}  {what(task)}" for task in tasks}

    return whole_id("task", typed, find)


def resolve_workflow(client: Client, typed: str) -> str:
    """The same of a workflow."""

    def find(tail: str) -> Mapping[str, str]:
        found = client.workflow_page(CANDIDATES, tail=tail)["workflows"]
        return {one.get("workflow_id") or one["id"]: f"{one['status']}  {one['name']}" for one in found}

    return whole_id("workflow", typed, find)


def each(
    client: Client, typed: Iterable[str], act: Callable[[str], None], find: Callable[[Client, str], str] = resolve
) -> None:
    """Does `act` for every task (or what `find` finds), also after one that fails. Exits with the first failure's
    code."""
    from orchestr8d.client.answers import ApiError

    worst = exits.DONE
    for text in typed:
        try:
            act(find(client, text))
        except (ApiError, exits.Exit) as error:
            worst = worst or exits.explain(error)
    if worst:
        exits.fail(worst)


def parse_options(pairs: Iterable[str]) -> dict[str, Any]:
    """`-o key=value` as the `options` of a task.

    A value that is JSON is taken as JSON, else as text. Lists are repeated (`-o tags=a -o tags=b`); `check` is split
    into words as a shell would, but runs in none. `metadata.pr=12` sets one field of an object.
    """
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"-o {pair}: expected key=value")
        *path, last = name.split(".")
        at = options
        for part in path:
            at = at.setdefault(part, {})
            if not isinstance(at, dict):
                raise click.UsageError(f"-o {pair}: {part} was given a value already")
        if name in LISTS | ARGVS:
            at[last] = _more(at.get(last), name, text, pair)
        else:
            at[last] = text if name in TEXTS and text != "null" else _json(text, text)
    return options


def _more(before: Any, name: str, text: str, pair: str) -> Any:
    value = _json(text, None)
    if value is None and text == "null":
        return None
    if isinstance(value, list):
        return [*(before or []), *value]
    try:
        return [*(before or []), *(shlex.split(text) if name in ARGVS else [text])]
    except ValueError as error:
        raise click.UsageError(f"-o {pair}: {error}") from None


def parsed(text: str) -> Any:
    """What the text is the JSON of, else the text."""
    return _json(text, text)


def as_text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _json(text: str, otherwise: Any) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return otherwise


def whole_number(text: str) -> str | int:
    """A priority: a word, or a number."""
    return int(text) if re.fullmatch(r"-?[0-9]+", text) else text


def resolve_dependencies(client: Client, options: dict[str, Any]) -> None:
    """Ends of ids in `depends_on` and `resume_from` become whole ones."""
    if isinstance(options.get("resume_from"), str):
        options["resume_from"] = resolve(client, options["resume_from"])
    if isinstance(options.get("depends_on"), list):
        options["depends_on"] = [resolve(client, str(typed)) for typed in options["depends_on"]]


def cut_at_dashes(args: list[str]) -> tuple[list[str], list[str] | None]:
    """Our arguments, and the command after the first `--` (None without one)."""
    if "--" not in args:
        return args, None
    at = args.index("--")
    return args[:at], args[at + 1 :]
