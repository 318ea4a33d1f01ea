"""Writes the report of a workflow in Markdown: what failed and the answer first, then what was asked and was done."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from orchestr8d.core.durations import iso, span
from orchestr8d.core.graph import done, mark, status_of
from orchestr8d.core.model import Error, Usage
from orchestr8d.core.workflow import ROLLBACK, NodeView, WorkflowView

# Bytes of one answer, of one other result, and of all of them together.
ANSWER = 64 << 10
RESULT = 4 << 10
TOTAL = 1 << 20
# Children of a fan with a line of their own.
FAN = 50


def markdown(view: WorkflowView) -> str:
    """The report; `view` is one with results."""
    room = _Room(TOTAL)
    answers = last_words(view)
    parts = [
        [f"# {_inline(view.workflow.name)}: {view.workflow.status}"],
        _failures(view),
        list(_answers(view, answers, room)),  # before the others have used the room up
        _about(view),
        _asked(view),
        _milestones(view),
        *_phases(view, {answer.node.id for answer in answers}, room),
    ]
    return "\n\n".join(line for part in parts for line in part) + "\n"


class _Room:
    """How much of results the report still takes."""

    def __init__(self, left: int) -> None:
        self._left = left

    def fenced(self, seen: NodeView, most: int) -> str:
        """A result as a block of code that ends where it shall, whatever is in it."""
        body = seen.result or b""
        kept = body[: min(most, self._left)]
        if body and not kept:
            return f"*{len(body):,} bytes, left out.*"
        self._left -= len(kept)
        text = "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in kept.decode(errors="replace"))
        longest = max(map(len, re.findall(r"`+", text)), default=0)
        fence = "`" * max(3, longest + 1)
        form = "json" if seen.task is not None and seen.task.result_type == "json" else ""
        cut = f"\n\n*{len(body) - len(kept):,} bytes more.*" if len(kept) < len(body) else ""
        return f"{fence}{form}\n{text.rstrip()}\n{fence}{cut}"


def last_words(view: WorkflowView) -> list[NodeView]:
    """The results that nothing was made of: of the tasks that nothing depends on. Else the last one that there is."""
    used = {before for before, _ in view.edges}
    told = [one for one in view.tasks if one.node.parent is None and _told(one)]
    ends = [one for one in told if one.node.id not in used and one.node.phase not in used]
    if ends:
        return ends
    told.sort(key=lambda one: one.node.completed_at or 0)
    return told[-1:]


def _told(one: NodeView) -> bool:
    """Whether it has something to tell: what the rollback did and what a person said to a question are no answers."""
    if one.node.kind == "approval" or one.node.phase == ROLLBACK or status_of(one) != "completed":
        return False
    return one.result not in (None, b"", b"null", b"[]")


def _failures(view: WorkflowView) -> Iterator[str]:
    failed = [(one, error) for one in view.tasks if (error := _error(one)) and status_of(one) == "failed"]
    own = [(one, error) for one, error in failed if error.kind != "dependency_failed" and one.node.phase != ROLLBACK]
    cut = [one.node.id for one, error in failed if error.kind == "dependency_failed"]
    whole = msgspec.json.decode(view.workflow.error, type=Error) if view.workflow.error else None
    if not (own or cut or whole):
        return
    yield "## What failed"
    lines = [f"- {_inline(f'{whole.kind}: {whole.message}')}"] if whole else []
    lines += [f"- **{_inline(one.node.id)}**: {_inline(f'{error.kind}: {error.message}')}" for one, error in own]
    lines += [f"- cut off by that: {_inline(', '.join(cut))}"] if cut else []
    yield "\n".join(lines)


def _answers(view: WorkflowView, answers: Sequence[NodeView], room: _Room) -> Iterator[str]:
    if not answers:
        return
    yield "## Answer" if view.workflow.status == "completed" else "## Last result"
    for one in answers:
        if len(answers) > 1 or view.workflow.status != "completed":
            yield f"**{_inline(one.node.id)}**"
        yield room.fenced(one, ANSWER)


def _about(view: WorkflowView) -> Iterator[str]:
    workflow = view.workflow
    definition = workflow.read_definition()
    if definition.description:
        yield _inline(definition.description, 1000)
    usage = [used for one in view.tasks if (used := _usage(one))]
    taken = sum(used.input_tokens + used.cache_read_tokens + used.cache_creation_tokens for used in usage)
    made = sum(used.output_tokens for used in usage)
    rows = [
        ("state", workflow.status),
        ("workflow", workflow.id),
        ("template", workflow.template),
        ("for", workflow.user_id),
        ("in", workflow.cwd),
        ("tags", ", ".join(msgspec.json.decode(workflow.tags))),
        ("created", iso(workflow.created_at)),
        ("started", iso(workflow.started_at)),
        ("ended", iso(workflow.completed_at)),
        ("took", _took(workflow.started_at, workflow.completed_at)),
        ("cost", f"${view.cost_usd:.2f}" if view.cost_usd else ""),
        ("tokens", f"{taken:,} in, {made:,} out" if usage else ""),
    ]
    yield "## About"
    yield "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {_inline(str(v))} |" for name, v in rows if v)])


def _asked(view: WorkflowView) -> Iterator[str]:
    params: dict[str, Any] = msgspec.json.decode(view.workflow.params)
    if params:
        yield "## What was asked"
        yield "\n".join(f"- **{_inline(name)}**: {_inline(_value(value), 1000)}" for name, value in params.items())


def _value(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _milestones(view: WorkflowView) -> Iterator[str]:
    passed: list[dict[str, Any]] = msgspec.json.decode(view.workflow.milestones)
    if passed:
        yield "## Milestones"
        yield "\n".join(f"- {_when(one.get('at'))} {_inline(str(one.get('text')))}" for one in passed)


def _when(at: Any) -> str:
    return iso(at) or "" if isinstance(at, int) else str(at or "")


def _phases(view: WorkflowView, shown: set[str], room: _Room) -> Iterator[list[str]]:
    titles = {phase.node.id: phase for phase in view.phases if phase.node.id != ROLLBACK}
    inside: dict[str, list[NodeView]] = {name: [] for name in titles}
    for one in view.tasks:
        inside.setdefault(one.node.phase or "", []).append(one)
    for name, tasks in inside.items():
        phase = titles.get(name)
        if phase is not None:
            title = phase.node.read_phase().title
            took = _took(phase.node.started_at, phase.node.completed_at)
            head = f"## Phase {name}" + (f": {_inline(title)}" if title else "")
            yield [head, " ".join(filter(None, [mark(status_of(phase)), status_of(phase), took]))]
        elif name == ROLLBACK:
            ran = [one for one in tasks if status_of(one) != "skipped"]
            if not ran:
                continue
            yield ["## What was rolled back"]
        if tasks:
            yield [_table(tasks), *_results(tasks, shown, room)]


def _table(tasks: Sequence[NodeView]) -> str:
    rows = ["| task | state | took | cost | what |", "| --- | --- | --- | --- | --- |"]
    left_out = 0
    for one in tasks:
        if (one.node.index or 0) >= FAN:
            left_out += 1
            continue
        status, used, error = status_of(one), _usage(one), _error(one)
        round_ = f" (round {one.node.round})" if one.node.round else ""
        state = f"{mark(status)} {status}{round_}" + (f": {error.kind}" if error else "")
        cost = f"${used.cost_usd:.2f}" if used else ""
        took = _took(one.started_at, _end(one))
        cells = (one.node.id, state, took, cost, done(one))
        rows.append("| " + " | ".join(map(_inline, cells)) + " |")
    if left_out:
        rows.append(f"| … | {left_out} children more | | | |")
    return "\n".join(rows)


def _results(tasks: Sequence[NodeView], shown: set[str], room: _Room) -> Iterator[str]:
    """What each task left or why it has nothing; an answer stands above already, and a fan's are its children's."""
    fans = {one.node.parent for one in tasks if one.node.parent is not None}
    for one in tasks:
        if (one.node.index or 0) >= FAN or one.node.id in shown or one.node.id in fans:
            continue
        error = _error(one)
        if one.result or (error is not None and error.kind != "dependency_failed"):
            yield f"### {_inline(one.node.id)}"
        if error is not None and error.kind != "dependency_failed":
            yield _inline(f"{error.kind}: {error.message}", 2000)
        if one.result:
            yield room.fenced(one, RESULT)


def _end(one: NodeView) -> int | None:
    return one.node.completed_at or (one.task.completed_at if one.task else None)


def _took(start: int | None, end: int | None) -> str:
    return span((end - start) / 1000) if start is not None and end is not None else ""


def _usage(one: NodeView) -> Usage | None:
    if one.task is None or one.task.usage is None:
        return None
    return msgspec.json.decode(one.task.usage, type=Usage)


def _error(one: NodeView) -> Error | None:
    return one.task.read_error() if one.task is not None else None


def _inline(text: str, most: int = 300) -> str:
    """Text in one line that is nothing but text, in a table too."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: most * 4]).split())
    line = line if len(line) <= most else line[: most - 1] + "…"
    return re.sub(r"([\\`*\[\]<>|#~]|(?<!\w)_|_(?!\w)|&(?=[#\w]+;)|!(?=\[))", r"\\\1", line)
