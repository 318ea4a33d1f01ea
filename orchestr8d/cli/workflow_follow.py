"""Seeing a workflow through: what happens in it as lines, its end as an exit code."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click

from orchestr8d.cli import common, exits, output
from orchestr8d.client import requests, streams
from orchestr8d.client.answers import Json
from orchestr8d.client.streams import PATIENCE
from orchestr8d.client.sync import Client
from orchestr8d.clock import SystemClock
from orchestr8d.core.graph import mark
from orchestr8d.core.workflow import FINAL

Command = TypeVar("Command", bound=Callable[..., Any])
# What is told of a task; not each time that it waits for a moment.
TOLD = {
    "task.started": "running", "task.retrying": "retrying", "task.parked": "parked", "task.needs_input": "needs_input",
    "task.completed": "completed", "task.failed": "failed", "task.cancelled": "cancelled", "task.skipped": "skipped",
}  # fmt: skip
PHASES = {
    "workflow.phase_started": "running", "workflow.phase_completed": "completed", "workflow.phase_failed": "failed",
}  # fmt: skip
# For the last lines, once the end is known.
AFTER = 5.0


def waiting_options(command: Command) -> Command:
    timeout = click.option(
        "--timeout", type=common.Seconds(), help="Stop waiting after this long, with exit code 124."
    )  # fmt: skip
    follow = click.option("--follow", "-f", is_flag=True, help="Print what happens as it happens, and wait.")
    wait = click.option("--wait", "wait", is_flag=True, help="Wait for the end; exit with 0 only if it is completed.")
    return wait(follow(timeout(command)))


def check(wait: bool, follow: bool, timeout: float | None) -> None:
    """Refuses what `see_through` could not do, before anything is sent."""
    if timeout is not None and not (wait or follow):
        raise click.UsageError("--timeout limits the waiting of --wait or --follow; a workflow's limit is --deadline")


def print_standing(now: Json) -> None:
    """A workflow in a line: `3f2a9c1d  blocked  approval signoff`."""
    why = output.reasons(now) or output.fault(now)
    line = f"{output.short(now['workflow_id'])}  {output.paint(now['status'])}  {output.printable(why)}"
    click.echo(line.rstrip())


def asks(task: Json) -> bool:
    """Whether a task waits for a person's yes or no."""
    return any(reason["kind"] == "approval" for reason in task["waiting_for"])


def see_through(client: Client, answer: Json, wait: bool, follow: bool, timeout: float | None, as_json: bool) -> None:
    """Prints what was started, and stays with it as asked for."""
    workflow_id = answer["workflow_id"]
    if not (wait or follow):
        if as_json:
            output.print_json(answer)
        elif output.on_terminal():
            click.echo(f"{output.short(workflow_id)}  {output.paint(answer['status'])}")
        else:
            click.echo(workflow_id)
        return
    teller = _Teller(client, workflow_id, as_json) if follow else None
    if teller is not None:
        click.echo(f"workflow {workflow_id}", err=True)
        teller.start()
    last = _wait(client, workflow_id, timeout)
    if teller is not None:
        teller.finish()
    if as_json:
        output.print_json(last, compact=follow)
    if not as_json:
        cost = (last.get("usage") or {}).get("cost_usd") or 0
        told = [output.took(last, 0), f"${cost:.2f}" if cost else ""]
        click.echo("  ".join(filter(None, [output.short(workflow_id), output.paint(last["status"]), *told])))
    if last["status"] != "completed":
        why = output.printable(output.fault(last))
        exits.fail(exits.FAILED, f"workflow {output.short(workflow_id)} {last['status']}" + (f": {why}" if why else ""))


def _wait(client: Client, workflow_id: str, timeout: float | None) -> Json:
    name = output.short(workflow_id)
    goes_on = f"workflow {name} goes on; `orchestr8d workflow cancel {name}` ends it"
    try:
        return client.wait_workflow(workflow_id, timeout)
    except KeyboardInterrupt:
        raise exits.Left(goes_on) from None
    except TimeoutError:
        exits.fail(exits.TIMED_OUT, f"--timeout passed; {goes_on}")


class _Teller(threading.Thread):
    """Prints what happens in a workflow, until it is over."""

    def __init__(self, client: Client, workflow_id: str, as_json: bool) -> None:
        super().__init__(daemon=True)
        self._client = Client(client.endpoint, patience=PATIENCE)
        self._story = Story(self._client, workflow_id)
        self._as_json = as_json
        self._error: Exception | None = None

    def run(self) -> None:
        events = self._client.pump(streams.Opened(streams.Events(
            requests.events(workflow_id=self._story.workflow_id), PATIENCE, SystemClock()
        )))  # fmt: skip
        try:
            for event in events:
                if self._as_json:
                    if event["type"] != "open":
                        output.print_json(event, compact=True)
                    over = self._story.is_over(event)
                else:
                    for line in self._story.lines(event):
                        click.echo(line)
                    over = self._story.over
                if over:
                    return
        except BrokenPipeError:
            os._exit(exits.BROKEN_PIPE)  # nobody reads on, and the main thread may sit in a request for a minute
        except Exception as error:
            self._error = error  # told by the thread that waits for us
        finally:
            self._client.close()

    def finish(self) -> None:
        self.join(AFTER)
        if self._error is not None:
            raise self._error


class Story:
    """Makes lines of the events of a workflow; what happened before they began is read once."""

    def __init__(self, client: Client, workflow_id: str) -> None:
        self._client = client
        self.workflow_id = workflow_id
        self.over = False
        # Local ids and rounds by the ids of tasks; what was last told of whom, and up to when that was read, not heard.
        self._names: dict[str, tuple[str, int]] = {}
        self._told: dict[str, str] = {}
        self._read: dict[str, str] = {}

    def is_over(self, event: Json) -> bool:
        """Whether nothing follows this event."""
        if event["type"] in ("open", "gap"):
            self.over = self._client.workflow_status(self.workflow_id)["status"] in FINAL
        elif event["type"].startswith("workflow."):
            self.over = event["type"].removeprefix("workflow.") in FINAL
        return self.over

    def lines(self, event: Json) -> Iterator[str]:
        kind, data = event["type"], event.get("data") or {}
        if kind in ("open", "gap"):
            yield from self._standing()
            return
        at = event["timestamp"]
        if kind in PHASES:
            yield from self._heard(f"phase {data['phase']}", data.get("status") or PHASES[kind], data, at)
        elif kind in TOLD:
            name, round_ = self._name(event["task_id"])
            yield from self._heard(name, TOLD[kind], data | {"round": round_}, at)
        elif kind == "workflow.milestone":
            yield _line(at, "★", str(data.get("text") or ""))
        elif kind == "workflow.blocked":
            yield from self._blocked(at)
        elif kind in ("workflow.paused", "workflow.resumed"):
            yield _line(at, kind.removeprefix("workflow."))
        self.is_over(event)

    def _standing(self) -> Iterator[str]:
        """What is not yet told of how it stands."""
        status, tasks = self._client.workflow_status(self.workflow_id), self._client.workflow_tasks(self.workflow_id)
        self._learn(tasks)
        for one, name in [(p, f"phase {p['id']}") for p in status["phases"]] + [(t, t["id"]) for t in tasks]:
            at = one["completed_at"] or one["started_at"]
            if at is not None and one["status"] in TOLD.values():
                self._read[name] = at
                if self._told.get(name) != one["status"]:
                    yield self._tell(name, one["status"], one, at)
        if status["status"] == "blocked":
            yield from self._blocked(status["created_at"])
        self.over = status["status"] in FINAL

    def _heard(self, name: str, status: str, data: Json, at: str) -> Iterator[str]:
        if at > self._read.get(name, "") and self._told.get(name) != status:
            yield self._tell(name, status, data, at)

    def _tell(self, name: str, status: str, data: Json, at: str) -> str:
        self._told[name] = status
        again = f"round {data['round']}" if data.get("round") else ""
        why = output.fault(data)
        return _line(at, mark(status), name, status, again, f"[{why}]" if why else "")

    def _blocked(self, at: str) -> Iterator[str]:
        name = output.short(self.workflow_id)
        for task in self._client.workflow_tasks(self.workflow_id):
            if asks(task):
                yield _line(at, "?", f"{task['id']}: {task['approval']}",
                            f"(orchestr8d workflow approve {name} {task['id']})")  # fmt: skip
            for reason in task["waiting_for"]:
                if reason["kind"] == "signal":
                    signal = reason.get("name")
                    yield _line(at, "?", f"{task['id']} waits for signal {signal}",
                                f"(orchestr8d workflow signal {name} {signal})")  # fmt: skip

    def _name(self, task_id: str) -> tuple[str, int]:
        if task_id not in self._names:
            self._learn(self._client.workflow_tasks(self.workflow_id))
        return self._names.setdefault(task_id, (output.short(task_id), 0))

    def _learn(self, tasks: list[Json]) -> None:
        self._names |= {task["task_id"]: (task["id"], task["round"]) for task in tasks if task["task_id"]}


def _line(at: str, *parts: str) -> str:
    time = output.clock(output.moment(at))
    return output.printable("  ".join([time, *(part for part in parts if part)]))
