"""`orchestr8d top`: what runs, what waits and why, queues and limits on one screen, redrawn as they change."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from orchestr8d.cli import common, exits, output
from orchestr8d.cli.watch import ROWS, bar
from orchestr8d.client import requests, streams
from orchestr8d.client.answers import ApiError, Json, NoDaemon
from orchestr8d.client.sync import Client
from orchestr8d.clock import SystemClock
from orchestr8d.core.states import BUSY, WAITING

if TYPE_CHECKING:
    from rich.console import RenderableType

# Seconds: what no event tells of (another's claim on a slot, a time that has passed) shows after so long at the latest,
# a key is looked for so often, and events are followed by a look no more often than that.
REFRESH = 2.0
TICK = 0.25


class Table(NamedTuple):
    """One part of the screen."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[str]]


class Frame(NamedTuple):
    """All that is shown at once."""

    line: str
    tables: list[Table]


@click.command(epilog="Example: orchestr8d top")
@click.option("--once", is_flag=True, help="Print one frame and end; so it is where stdout is no terminal.")
@common.json_option
def top(once: bool, as_json: bool) -> None:
    """Show what runs, what waits and why, queues and limits, until q or Ctrl-C."""
    with common.connect() as client:
        if as_json:
            output.print_json(read(client))
        elif once or not output.on_terminal():
            _print(look(client, SystemClock().now() / 1000))
        else:
            try:
                _live(client)
            except KeyboardInterrupt:
                raise exits.Left("") from None


def read(client: Client) -> Json:
    """Everything anew, as the API has it; of the tasks those that would show, with the progress of what runs."""
    busy = client.task_page(ROWS, status=sorted(BUSY))["tasks"]
    return {
        "executors": [one for one in client.executors() if one["state"] in {"running", "draining"}],
        "running": [task | {"progress": client.status(task["id"])["progress"]} for task in busy],
        "waiting": client.task_page(ROWS, status=sorted(WAITING))["tasks"],
        "queues": client.queues(),
        "limits": client.limits(),
    }


def look(client: Client, now: float) -> Frame:
    """Reads everything anew. `now` is in seconds since the epoch."""
    seen = read(client)
    executors, queues = seen["executors"], seen["queues"]
    running = sum(queue["running"] for queue in queues)
    depth = sum(queue["depth"] for queue in queues)
    slots = sum(one["slots"] for one in executors)
    line = f"{running} running of {slots} slots, {depth} waiting, {output.clock(now)}"
    if any(one["state"] == "draining" for one in executors):
        line += ", draining"
    tables = [
        Table("RUNNING", ("ID", "TOOK", "PROGRESS", "WHAT"), [_running(task, now) for task in seen["running"]]),
        Table("WAITING", ("ID", "STATUS", "WHY", "WHAT"), [_waiting(task) for task in seen["waiting"]]),
        Table("QUEUES", ("QUEUE", "STATE", "LIMIT", "RATE", "WAITING", "RUNNING"), [_queue(queue) for queue in queues]),
        Table("LIMITS", ("NAME", "STATE", "USED", "REASON"), _limits(seen["limits"])),
    ]
    return Frame(line, [table for table in tables if table.rows])


def _running(task: Json, now: float) -> list[str]:
    return [output.short(task["id"]), output.took(task, now), bar(task["progress"]), output.what(task)]


def _waiting(task: Json) -> list[str]:
    return [output.short(task["id"]), task["status"], output.reasons(task), output.what(task)]


def _queue(queue: Json) -> list[str]:
    state = "paused" if queue["paused"] else "open"
    return [queue["name"], state, str(queue["limit"] or "-"), str(queue["rate"] or "-"), str(queue["depth"]),
            str(queue["running"])]  # fmt: skip


def _limits(seen: Json) -> list[list[str]]:
    """The accounts, the breaker while it holds something back, and the budgets."""
    rows = [
        [a["name"], a["state"], f"{a['running']}/{a['concurrency']}", _until(a["reason"], a["reset_at"])]
        for a in seen["accounts"]
    ]
    breaker = seen["breaker"]
    if breaker["state"] != "closed":
        rows.append(["breaker", breaker["state"], "", _until(None, breaker["until"])])
    for b in seen["budgets"]:
        state = "spent" if b["used"] + b["reserved"] >= b["limit"] else "open"
        rows.append([b["name"], state, f"{b['used']:g}/{b['limit']:g} {b['unit']}", b["key"] or b["period"]])
    return rows


def _until(reason: str | None, until: str | None) -> str:
    return " ".join(part for part in (reason, until and f"until {output.local(until)}") if part)


def _print(frame: Frame) -> None:
    click.echo(frame.line)
    for table in frame.tables:
        click.echo(f"\n{table.title}")
        output.print_table(table.columns, table.rows)


def _live(client: Client) -> None:
    from rich.console import Console
    from rich.live import Live

    clock = SystemClock()
    console = Console(highlight=False)
    news = _News(Client(client.endpoint))
    frame = look(client, clock.now() / 1000)
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        read_at = clock.monotonic()
        while True:
            live.update(_drawn(frame, console.width, console.height), refresh=True)
            if pressed(TICK) in {"q", "Q", "\x03"}:
                return
            if news.error is not None:
                raise news.error
            if news.came() or clock.monotonic() - read_at >= REFRESH:
                try:
                    frame = look(client, clock.now() / 1000)
                except (NoDaemon, ApiError) as error:  # it may come back; who listens gives up after a while
                    frame = Frame(f"({error})", frame.tables)
                read_at = clock.monotonic()


class _News:
    """Whether something has happened, told by the stream of events in a thread of its own."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._flag = threading.Event()
        self.error: Exception | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        try:
            for _ in self._client.pump(streams.Events(requests.events(), 0, SystemClock())):
                self._flag.set()
        except Exception as error:
            self.error = error

    def came(self) -> bool:
        """Since the last time that it was asked."""
        came = self._flag.is_set()
        self._flag.clear()
        return came


@contextmanager
def _keys() -> Iterator[Any]:
    """Gives a function that waits so many seconds for a key and answers it, '' when none was pressed. Whatever ends
    the program in between, the terminal is as it was."""
    import termios
    import tty

    def pressed(seconds: float) -> str:
        if not typed:
            threading.Event().wait(seconds)
            return ""
        if not select.select([fd], [], [], seconds)[0]:
            return ""
        return os.read(fd, 1).decode(errors="replace")

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    typed = sys.stdin.isatty()
    fd = sys.stdin.fileno() if typed else -1
    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    saved = termios.tcgetattr(fd) if typed else []
    try:
        if typed:
            tty.setcbreak(fd)
        yield pressed
    finally:
        if typed:
            termios.tcsetattr(fd, termios.TCSADRAIN, saved)
        for number, handler in before.items():
            signal.signal(number, handler)


def _drawn(frame: Frame, width: int, height: int) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(output.printable(frame.line), no_wrap=True)]
    rooms = shares([len(table.rows) for table in frame.tables], height - 1 - 3 * len(frame.tables))
    for table, room in zip(frame.tables, rooms, strict=True):
        hidden = len(table.rows) - room
        title = table.title + (f" ({room} of {len(table.rows)})" if hidden else "")
        cells = [[output.printable(cell) for cell in row] for row in table.rows[:room]]
        parts += [Text(""), Text(title, style="bold")]
        if cells:
            parts.append(output.rich_table(table.columns, cells, width))
    return Group(*parts)


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """How many rows each table gets of `room`: what it wants, or where that is too much an equal part of the rest."""
    given = [0] * len(wanted)
    left = max(room, 0)
    while left and (open_ := [n for n, want in enumerate(wanted) if given[n] < want]):
        for n in open_[:left]:
            given[n] += 1
        left -= min(left, len(open_))
    return given
