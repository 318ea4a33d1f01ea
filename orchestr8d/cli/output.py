"""Prints answers: JSON, tables (rich on a terminal, aligned text elsewhere) and times for people."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click

from orchestr8d.client.answers import Json
from orchestr8d.core.durations import span as span  # for the verbs, too

COLOURS = {
    "completed": "green", "failed": "red", "lost": "red", "cancelled": "yellow", "running": "cyan",
    "retrying": "magenta", "parked": "magenta", "interrupted": "magenta", "needs_input": "magenta",
}  # fmt: skip
SHORT = 8


def on_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def coloured() -> bool:
    return on_terminal() and not os.environ.get("NO_COLOR")


def paint(status: str) -> str:
    """A status in its colour, where there are colours."""
    colour = COLOURS.get(status)
    return click.style(status, fg=colour) if colour and coloured() else status


def short(task_id: str) -> str:
    """The end of an id: its random part, which tells tasks apart that were made together."""
    return task_id[-SHORT:]


def printable(value: object) -> str:
    """A value from outside in one line that cannot steer a terminal."""
    text = "" if value is None else str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def print_json(value: object, compact: bool = False) -> None:
    """One JSON document; `compact` in one line, where many follow each other."""
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    click.echo(json.dumps(value, ensure_ascii=ascii_only, indent=None if compact else 2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], empty: str = "") -> None:
    """Rows under their headings. A column named STATUS is coloured; the last one is cut to fit a terminal."""
    cells = [[printable(value) for value in row] for row in rows]
    if on_terminal():
        if cells:
            _rich_table(columns, cells)
        elif empty:
            click.echo(empty)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in [columns, *cells]:
        padded = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        click.echo("  ".join(padded).rstrip())


def rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]], width: int) -> Any:
    """The table for a terminal of `width` columns, as rich draws it; the last column gives way when all do not fit."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    room = width
    for name, column in zip(columns, zip(*cells, strict=True), strict=True):
        least = max(cell_len(name), *map(cell_len, column))
        if name != columns[-1]:
            room -= least + 2
        table.add_column(name, no_wrap=True, min_width=min(least, max(room, 1)) if name == columns[-1] else least)
    for row in cells:
        styles = [COLOURS.get(cell, "") if name == "STATUS" else "" for name, cell in zip(columns, row, strict=True)]
        texts = [Text(cell, style) for cell, style in zip(row, styles, strict=True)]
        texts[-1].truncate(max(room, 1), overflow="ellipsis")
        table.add_row(*texts)
    return table


def _rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(rich_table(columns, cells, console.width))


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Names and values, one a line; those without a value are left out."""
    shown = [(name, value) for name, value in fields if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        text = paint(str(value)) if name == "status" else printable(value)
        click.echo(f"{name.ljust(width)}  {text}")


def what(task: Json) -> str:
    """A task in a few words: its title, else its command, or its agent and the first line of the prompt."""
    import shlex

    command = task.get("command")
    if command:
        return str(task.get("title") or shlex.join(command))
    said = task.get("title") or str(task.get("prompt") or "").strip().partition("\n")[0]
    return f"{task['agent']}: {said}" if task.get("agent") else str(said)


def fault(task: Json) -> str:
    """Why a task failed or was cancelled, as far as it is known: `exit: exit code 2`, `cancelled on request`."""
    error = task.get("error") or {}
    kind, message = str(error.get("kind") or ""), str(error.get("message") or "")
    return message if message.startswith(f"{kind} ") else f"{kind}: {message}" if message else kind


def line(task: Json) -> str:
    """What it is, what it took, and why it waits or failed: `reviewer: Look at it  ($0.42, 14 turns)  [max_turns]`."""
    why = reasons(task) or (task.get("error") or {}).get("kind") or ""
    took = spent(task)
    return what(task) + (f"  ({took})" if took else "") + (f"  [{why}]" if why else "")


def spent(task: Json) -> str:
    """What a model did for a task: `$0.42, 14 turns`."""
    usage = task.get("usage") or {}
    if not usage:
        return ""
    turns = usage.get("num_turns") or 0
    cost = usage.get("cost_usd") or 0
    return f"${cost:.{2 if cost >= 0.1 else 4}f}, {turns} turn{'s' * (turns != 1)}"


def tokens(task: Json) -> str:
    """`12,345 in, 678 out` with what was read from caches counted in."""
    usage = task.get("usage") or {}
    if not usage:
        return ""
    taken = sum(usage.get(name) or 0 for name in ("input_tokens", "cache_read_tokens", "cache_creation_tokens"))
    return f"{taken:,} in, {usage.get('output_tokens') or 0:,} out"


def reasons(task: Json) -> str:
    """Why a task does not run yet: `queue_paused default, time 2026-03-01T09:00:00.000Z`."""
    return ", ".join(_reason(reason) for reason in task.get("waiting_for") or [])


def _reason(reason: Json) -> str:
    ids = [short(reason["id"])] if reason.get("id") else []
    rest = [str(reason[name]) for name in ("name", "account") if reason.get(name)]
    until = [f"until {local(reason['until'])}"] if reason.get("until") else []
    return " ".join([reason["kind"], *ids, *rest, *until])


def progress(now: Json) -> str:
    """`40 % compiling`, as far as it is known."""
    percent = now.get("percent")
    parts = [f"{percent:g} %" if percent is not None else "", str(now.get("current_step") or "")]
    return " ".join(part for part in parts if part)


def local(time: str | None) -> str:
    """A time of the API in the reader's zone, to the second."""
    if not time:
        return ""
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def clock(now: float) -> str:
    """The time of day in the reader's zone; `now` is in seconds since the epoch."""
    return datetime.fromtimestamp(now).astimezone().strftime("%H:%M:%S")


def moment(time: str) -> float:
    """Seconds since the epoch."""
    return datetime.fromisoformat(time).timestamp()


def took(task: Json, now: float) -> str:
    """How long a task has run, from its first start to its end or `now` (seconds since the epoch)."""
    if not task.get("started_at"):
        return ""
    end = moment(task["completed_at"]) if task.get("completed_at") else now
    return span(end - moment(task["started_at"]))
