"""`orchestr8d workflow run`: starts a workflow of a template, of a file, or of what comes by stdin."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestr8d.cli import common, exits, output, tree, workflow_follow

if TYPE_CHECKING:
    from orchestr8d.client.answers import Json

FILES = (".yaml", ".yml", ".json")
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@click.command(epilog="Example: orchestr8d workflow run add-feature -p feature='export as CSV' --follow")
@click.argument("source", metavar="NAME|FILE|-")
@click.option("-p", "--param", "pairs", multiple=True, metavar="KEY=VALUE",
              help="A parameter, by its type; a list as JSON, with commas, or repeated.")  # fmt: skip
@click.option("--cwd", type=click.Path(path_type=Path), help="Work there instead of in the current directory.")
@click.option("--priority", metavar="P", help="critical, high, normal, low, or -100 to 100.")
@click.option("--max-cost", "max_cost_usd", type=float, metavar="USD", help="What its agents may spend together.")
@click.option("--deadline", type=common.Seconds(), help="End it after this long.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="May be repeated.")
@click.option("--user", "user_id", metavar="NAME", help="Whose it is: who is told.")
@click.option("--dry-run", is_flag=True, help="Check it and show what would be done; start nothing.")
@workflow_follow.waiting_options
@common.json_option
def run(source: str, pairs: tuple[str, ...], cwd: Path | None, priority: str | None, dry_run: bool, wait: bool,
        follow: bool, timeout: float | None, as_json: bool, tags: tuple[str, ...], **fields: Any) -> None:  # fmt: skip
    """Start a workflow, and print its id once it is safely stored.

    NAME is a template (orchestr8d workflow templates); FILE is a definition in YAML or JSON, - one on stdin.
    """
    workflow_follow.check(wait, follow, timeout)
    if dry_run and (wait or follow):
        raise click.UsageError("--dry-run starts nothing to wait for")
    fields |= {"priority": None if priority is None else common.whole_number(priority), "tags": list(tags) or None}
    definition = read(source)
    with common.connect() as client:
        known = client.template(source)["params"] if definition is None else definition.get("params")
        which: dict[str, Any] = {"template": source} if definition is None else {"definition": definition}
        answer = client.start_workflow(
            **which, params=parse(pairs, known), cwd=str(cwd.absolute()) if cwd else None,
            dry_run=dry_run or None, **fields,
        )  # fmt: skip
        if dry_run:
            _show_plan(answer, as_json)
        else:
            workflow_follow.see_through(client, answer, wait, follow, timeout, as_json)


def read(source: str) -> dict[str, Any] | None:
    """The definition in a file or on stdin; None when `source` is the name of a template."""
    from orchestr8d.core import yaml_text

    if source != "-" and "/" not in source and not source.endswith(FILES):
        return None
    data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    where = "stdin" if source == "-" else source
    try:
        found = json.loads(data) if source.endswith(".json") else yaml_text.read(data)
    except ValueError as error:
        exits.fail(exits.FAILED, f"{where}: {error}")
    if not isinstance(found, dict):
        exits.fail(exits.FAILED, f"{where}: expected a definition: a mapping with name and phases")
    return found


def parse(pairs: Iterable[str], params: Any) -> dict[str, Any]:
    """`-p key=value` as values; `params` is what a definition or a template says of them."""
    known: Mapping[str, Any] = params if isinstance(params, dict) else {}
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise click.UsageError(f"-p {pair}: expected key=value")
        form = _type(known.get(name))
        if form == "list":
            found[name] = [*found.get(name, []), *_items(text)]
        elif name in found:
            raise click.UsageError(f"-p {pair}: {name} was given a value already")
        else:
            found[name] = _value(text, form, pair)
    return found


def _type(param: Any) -> str:
    """Without a type it is that of the default, or of the first word that is allowed."""
    said = param if isinstance(param, dict) else {}
    if isinstance(said.get("type"), str):
        return str(said["type"])
    enum = said.get("enum")
    default = said.get("default", enum[0] if isinstance(enum, list) and enum else None)
    names = {bool: "boolean", int: "integer", float: "number", list: "list"}
    return names.get(type(default), "string")


def _items(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        value = common.parsed(text)
        if isinstance(value, list):
            return value
    return [item.strip() for item in text.split(",") if item.strip()]


def _value(text: str, form: str, pair: str) -> Any:
    if form == "boolean":
        if text.lower() not in WORDS:
            raise click.UsageError(f"-p {pair}: expected true or false")
        return WORDS[text.lower()]
    if form in ("integer", "number"):
        try:
            number = int(text) if form == "integer" else float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise click.UsageError(f"-p {pair}: expected a {'whole ' if form == 'integer' else ''}number")
        return number
    return text


def _show_plan(plan: Json, as_json: bool) -> None:
    if as_json:
        output.print_json(plan)
        return
    tree.show(tree.graph(plan["graph"]))


COMMANDS = (run,)
