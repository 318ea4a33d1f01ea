"""Draws a workflow in a terminal: as a tree with times and costs, and its graph in layers."""

from __future__ import annotations

import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import click

from orchestr8d.cli import output
from orchestr8d.client.answers import Json
from orchestr8d.core.graph import counted, depths, mark
from orchestr8d.core.workflow import ROLLBACK

# Pieces of text, each with its colour ('' for none).
Line = list[tuple[str, str]]
# Children of a fan that are shown one by one.
FOLD = 8
# Those are shown first.
TELLING = frozenset({"running", "failed", "needs_input", "retrying", "parked"})


def show(lines: Iterable[Line]) -> None:
    """Prints lines; on a terminal in colours, and cut to its width."""
    width = shutil.get_terminal_size().columns if output.on_terminal() else None
    for line in lines:
        kept = line if width is None else cut(line, width)
        texts = [click.style(text, fg=colour) if colour and output.coloured() else text for text, colour in kept]
        click.echo("".join(texts).rstrip())


def cut(line: Line, width: int) -> Line:
    """A line of at most `width` cells."""
    from rich.cells import cell_len, set_cell_size

    if sum(cell_len(text) for text, _ in line) <= width:
        return line
    kept: Line = []
    room = width - 1
    for text, colour in line:
        if cell_len(text) > room:
            return [*kept, (set_cell_size(text, room), colour), ("…", "")]
        kept.append((text, colour))
        room -= cell_len(text)
    return kept


def tree(status: Json, tasks: Sequence[Json], now: float, fold: int = FOLD) -> Iterator[Line]:
    """A workflow with its phases and tasks, from its status and its tasks; `now` is in seconds since the epoch.

    Of a fan at most `fold` children, what runs or failed first, and how the others stand.
    """
    yield _head(status, now)
    for told in (("waiting for", output.reasons(status)), ("error", output.fault(status))):
        if told[1]:
            yield [(f"{told[0]}: {output.printable(told[1])}", "")]
    for passed in status["milestones"]:
        yield [(f"{output.local(passed['at'])}  {output.printable(passed['text'])}", "bright_black")]
    inside: dict[str | None, list[Json]] = {phase["id"]: [] for phase in status["phases"]}
    for task in tasks:
        inside.setdefault(task["phase"], []).append(task)
    phases = {phase["id"]: phase for phase in status["phases"]}
    for at, (name, members) in enumerate(inside.items()):
        last = at == len(inside) - 1
        phase = phases.get(name)
        head = _phase(phase, now) if phase is not None else [(f"{name or '(no phase)'}", "")]
        if name == ROLLBACK:
            head.append(("  after a failure", "bright_black"))
        yield [("└─ " if last else "├─ ", ""), *head]
        for line in _members(members, now, fold):
            yield [("   " if last else "│  ", ""), *line]


def _head(status: Json, now: float) -> Line:
    progress = status["progress"]
    left = progress.get("estimated_time_remaining")
    cost = (status.get("usage") or {}).get("cost_usd") or 0
    return _joined([
        (output.printable(status["name"]), ""), (status["status"], output.COLOURS.get(status["status"], "")),
        (output.progress({"percent": progress.get("percent")}), ""), (output.took(status, now), ""),
        (f"about {output.span(left)} left" if left else "", ""), (f"${cost:.2f}" if cost else "", ""),
        (output.short(status["workflow_id"]), "bright_black"),
    ])  # fmt: skip


def _phase(phase: Json, now: float) -> Line:
    title = f"{phase['id']}: {phase['title']}" if phase.get("title") else phase["id"]
    percent = phase.get("percent")
    before = ", ".join(phase["depends_on"]) if phase["status"] == "pending" else ""
    return _joined([
        (f"{mark(phase['status'])} {output.printable(title)}", output.COLOURS.get(phase["status"], "")),
        (phase["status"], ""), (f"{percent:g} %" if phase["status"] == "running" and percent is not None else "", ""),
        (output.took(phase, now), ""), (f"after {before}" if before else "", "bright_black"),
    ])  # fmt: skip


def _members(tasks: Sequence[Json], now: float, fold: int) -> Iterator[Line]:
    children: dict[str, list[Json]] = {}
    for task in tasks:
        if task.get("parent"):
            children.setdefault(task["parent"], []).append(task)
    tops = [task for task in tasks if not task.get("parent")]
    width = max((len(task["id"]) for task in tops), default=0)
    for at, task in enumerate(tops):
        last = at == len(tops) - 1
        yield [("└─ " if last else "├─ ", ""), *_task(task, now, width)]
        for line in _fan(children.get(task["id"], []), now, fold):
            yield [("   " if last else "│  ", ""), *line]


def _fan(children: list[Json], now: float, fold: int) -> Iterator[Line]:
    telling = sorted(children, key=lambda one: (one["status"] not in TELLING, one["index"]))
    kept = sorted(telling[:fold], key=lambda one: one["index"])
    rest = Counter(one["status"] for one in telling[fold:])
    width = max((len(one["id"]) for one in kept), default=0)
    for at, one in enumerate(kept):
        yield [("├─ " if rest or at < len(kept) - 1 else "└─ ", ""), *_task(one, now, width)]
    if rest:
        yield [(f"└─ … {rest.total()} more: {counted(dict(rest))}", "bright_black")]


def _task(task: Json, now: float, width: int) -> Line:
    status = task["status"]
    again = [f"round {task['round']}"] if task.get("round") else []
    again += [f"attempt {task['attempt']}"] if (task.get("attempt") or 0) > 1 else []
    cost = (task.get("usage") or {}).get("cost_usd") or 0
    why = _held(task) or output.fault(task)
    return _joined([
        (f"{mark(status)} {task['id']:<{width}}", output.COLOURS.get(status, "")), (status, ""),
        (output.took(task, now), ""), (", ".join(again), ""), (f"${cost:.2f}" if cost else "", ""),
        (output.printable(what(task))[:60], "bright_black"), (f"[{output.printable(why)}]" if why else "", ""),
    ])  # fmt: skip


def _held(task: Json) -> str:
    """What a task waits for; that its own phase has not begun is seen above it."""
    reasons = task.get("waiting_for") or []
    before = [reason["name"] for reason in reasons if reason["kind"] == "workflow_task"]
    others = output.reasons({"waiting_for": [reason for reason in reasons if reason["kind"] != "workflow_task"]})
    told = ", ".join(name for name in before if name != task["phase"])
    return ", ".join(filter(None, [f"after {told}" if told else "", others]))


def what(task: Json) -> str:
    """What a task of a workflow is for."""
    if task.get("approval"):
        return f"approval: {task['approval']}"
    if task.get("workflow"):
        return f"workflow {task['workflow']}"
    said, agent = task.get("command"), task.get("agent")
    if said:
        said = shlex.join(map(str, said)) if isinstance(said, list) else str(said)
    else:
        said = " | ".join(map(str, agent)) if isinstance(agent, list) else str(agent or "")
    return f"for each: {said}" if task.get("for_each") and not task.get("parent") else said


def _joined(parts: Iterable[tuple[str, str]]) -> Line:
    line: Line = []
    for text, colour in parts:
        if text:
            line += [("  ", ""), (text, colour)] if line else [(text, colour)]
    return line


def graph(picture: Json) -> Iterator[Line]:
    """The graph in layers from above: a phase after those before it, in it a line for each layer of its tasks."""
    nodes = {node["id"]: node for node in picture["nodes"]}
    edges = [(edge["from"], edge["to"]) for edge in picture["edges"]]
    sections: dict[str, list[str]] = {one: [] for one, node in nodes.items() if node["kind"] == "phase"}
    for one, node in nodes.items():
        if node["kind"] == "task":
            sections.setdefault(node["phase"] or "", []).append(one)
    of = {one: node["phase"] or "" if node["kind"] == "task" else one for one, node in nodes.items()}
    depth = depths(list(sections), [(of[a], of[b]) for a, b in edges if a in of and b in of])
    before: dict[str, list[str]] = {}
    for a, b in edges:
        before.setdefault(b, []).append(a)
    # What is no phase (a rollback) comes last.
    order = sorted(sections, key=lambda one: (one not in nodes, depth[one]))
    for at, name in enumerate(order):
        if at:
            joined = name in nodes and depth[name] > depth[order[at - 1]]
            yield [("▼", "bright_black")] if joined else [("", "")]
        yield _node(name, nodes.get(name), before.get(name, []))
        yield from _layers(sections[name], nodes, edges, before)


def _layers(
    tasks: list[str], nodes: dict[str, Json], edges: list[tuple[str, str]], before: dict[str, list[str]]
) -> Iterator[Line]:
    depth = depths(tasks, edges)
    layers: dict[int, list[str]] = {}
    for task in tasks:
        layers.setdefault(depth[task], []).append(task)
    for at, (_, layer) in enumerate(sorted(layers.items())):
        if at:
            yield [("│   ▼", "bright_black")]
        # With one before it, the arrow says it all.
        implied = layers[at - 1] if at and len(layers[at - 1]) == 1 else []
        for task in layer:
            told = before.get(task, [])
            shown = _node(task, nodes[task], [] if told == implied else told)
            yield [("├─ ", "bright_black"), *shown]


def _node(name: str, node: Json | None, before: list[str]) -> Line:
    told = ", ".join(before)
    status = node["status"] if node else ""
    return _joined([
        (f"{mark(status)} {name}" if node else name or "(no phase)", output.COLOURS.get(status, "")), (status, ""),
        (f"after {told}" if told else "", "bright_black"),
    ])  # fmt: skip
