"""`orchestr8d watch`: tasks as they go, redrawn on a terminal, a line an event elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import click

from orchestr8d.cli import common, exits, follow, output
from orchestr8d.client import requests, streams
from orchestr8d.client.answers import ApiError, Json, NoDaemon
from orchestr8d.client.sync import Client
from orchestr8d.clock import SystemClock
from orchestr8d.core.states import BUSY, FINAL, WAITING

# Rows of the table: more would not fit a screen.
ROWS = 40
# How many finished ones stay in sight.
ENDED = 10
COLUMNS = ("ID", "STATUS", "TOOK", "PROGRESS", "WHAT")


@click.command(epilog="Example: orchestr8d watch 3f2a9c1d")
@click.argument("typed", metavar="[ID]", required=False)
@common.json_option
def watch(typed: str | None, as_json: bool) -> None:
    """Watch tasks as they go.

    All of them, until Ctrl-C; or one, until it ends (then exits with 0 if it succeeded, else with 1).
    """
    with common.connect() as client:
        task_id = common.resolve(client, typed) if typed else None
        board = Board(client, task_id)
        request = requests.events(type=["task.*"], task_id=task_id)
        heard = board.hear(client.pump(streams.Opened(streams.Events(request, 0, SystemClock()))))
        try:
            _show(board, heard, as_json)
        except KeyboardInterrupt:
            raise exits.Left("" if task_id is None else f"task {output.short(task_id)} goes on") from None
        if task_id is not None:
            follow.outcome(board.tasks[task_id], lambda: follow.failure(client, task_id))


class Board:
    """The tasks in sight. What is heard only marks them stale; they are read anew when drawn, however much happens."""

    def __init__(self, client: Client, task_id: str | None) -> None:
        self._client = Client(client.endpoint)  # beside the stream
        self._task_id = task_id
        self._reading = threading.Lock()  # rich draws in a thread of its own
        self._stale = True
        self._ended: dict[str, None] = {}  # a set in the order of their ends
        self._progress: dict[str, Json] = {}
        self.tasks: dict[str, Json] = {}

    def hear(self, events: Iterable[Json]) -> Iterator[Json]:
        """Passes events on; ends with the final one of a single task."""
        for event in events:
            about = event.get("task_id") or ""
            if event["type"] == "task.progress":
                self._progress[about] = event["data"]
            elif event["type"].removeprefix("task.") in FINAL:
                self._ended[about] = None
            self._stale = True
            if event["type"] in {"open", "gap"} and self._task_id is not None:
                self.read()
            yield event
            if self._is_over(event):
                self.read()
                return

    def _is_over(self, event: Json) -> bool:
        if self._task_id is None:
            return False
        task = self.tasks.get(self._task_id)
        return self._task_id in self._ended or (task is not None and task["status"] in FINAL)

    def read(self) -> None:
        with self._reading:
            self._read()

    def _read(self) -> None:
        self._stale = False
        if self._task_id is not None:
            found = [self._client.task(self._task_id)]
        else:
            busy = self._client.task_page(ROWS, status=sorted(BUSY))["tasks"]
            waiting = self._client.task_page(ROWS, status=sorted(WAITING))["tasks"]
            found = [*busy, *waiting, *self._newly_ended()]
        for task in found:
            if task["status"] in BUSY and task["id"] not in self._progress:
                self._progress[task["id"]] = self._client.status(task["id"])["progress"]
        self.tasks = {task["id"]: task for task in found}

    def _newly_ended(self) -> list[Json]:
        last = list(self._ended)[-ENDED:]
        self._ended = dict.fromkeys(last)
        kept = [task for task in map(self.tasks.get, last) if task and task["status"] in FINAL]
        known = {task["id"] for task in kept}
        return [*kept, *(self._client.task(task_id) for task_id in last if task_id not in known)]

    def rows(self, now: float) -> list[list[str]]:
        """What runs first, then what waits, then what ended."""
        if self._stale:
            self.read()
        order = sorted(self.tasks.values(), key=lambda t: (t["status"] in FINAL, t["status"] not in BUSY, t["id"]))
        return [self._row(task, now) for task in order[:ROWS]]

    def _row(self, task: Json, now: float) -> list[str]:
        progress = bar(self._progress.get(task["id"]) or {}) if task["status"] in BUSY else ""
        cells = [output.short(task["id"]), task["status"], output.took(task, now), progress]
        return [output.printable(cell) for cell in (*cells, output.line(task))]


def bar(progress: Json, width: int = 10) -> str:
    """`████░░░░░░ 40 % compiling`."""
    text = output.progress(progress)[:40]
    if progress.get("percent") is None:
        return text
    full = round(width * progress["percent"] / 100)
    return f"{'█' * full}{'░' * (width - full)} {text}"


def _show(board: Board, events: Iterable[Json], as_json: bool) -> None:
    if as_json:
        for event in events:
            if event["type"] != "open":
                output.print_json(event, compact=True)
    elif output.on_terminal():
        _draw(board, events)
    else:
        told = ""
        for event in events:
            text = standing(board) if event["type"] == "open" else line(event)
            if text and text != told:
                click.echo(text)
            told = text


def standing(board: Board) -> str:
    """The one task that is watched as it is when we begin: it may have ended long ago."""
    for task in board.tasks.values():
        return f"{output.local(task['updated_at'])}  {output.short(task['id'])}  {task['status']}"
    return ""


def line(event: Json) -> str:
    """An event for a pipe: time, task, what happened, and what is known of it."""
    if event["type"] == "gap":
        return "some events are no longer kept"
    data: dict[str, Any] = event.get("data") or {}
    error = data.get("error") or {}
    parts = [
        output.local(event["timestamp"]),
        output.short(event["task_id"] or ""),
        event["type"].removeprefix("task."),
    ]
    if event["type"] == "task.progress":
        parts.append(output.progress(data))
    parts += [f"{name} {data[name]}" for name in ("attempt", "exit_code", "signal", "reason") if data.get(name)]
    parts += [": ".join(str(error[k]) for k in ("kind", "message") if error.get(k))] if error else []
    return output.printable("  ".join(parts))


def _draw(board: Board, events: Iterable[Json]) -> None:
    """Redraws four times a second, in a thread of rich's own, so that the times run."""
    from rich.console import Console
    from rich.live import Live

    clock = SystemClock()
    console = Console(highlight=False)

    def table() -> Any:
        try:
            rows = board.rows(clock.now() / 1000)
        except (NoDaemon, ApiError) as error:  # the stream comes back by itself, or ends the command
            return f"({error})"
        return output.rich_table(COLUMNS, rows, console.width) if rows else "no tasks"

    with Live(get_renderable=table, console=console, refresh_per_second=4):
        for _ in events:
            pass
