"""What is evaluated of a workflow's task before it runs: its `when`, its time, its items, its templates. Bounded, and
outside of any transaction; the answer is applied only if nothing has moved meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from orchestr8d.core import dag, not_before, step_templates, template
from orchestr8d.core.durations import iso
from orchestr8d.core.model import Error, NewTask
from orchestr8d.core.template_names import References
from orchestr8d.core.template_work import TemplateError
from orchestr8d.core.workflow import Head, NewWorkflow, Node, Phase, Step

_SHOWN: Final = 200


class Due(msgspec.Struct):
    """A node that is to be evaluated, with what it may see of others: by local id what templates know of tasks, when
    they ended, and payloads by the names of signals."""

    head: Head
    node: Node
    params: dict[str, Any]
    tasks: dict[str, Any] = {}
    ended_at: dict[str, int | None] = {}
    signals: dict[str, Any] = {}
    failed: list[str] = []


class Found(msgspec.Struct):
    """What the evaluation came to; of `body`, `params` the engine makes `new`, `sub`."""

    go: bool = True
    wake_at: int | None = None
    wake_is_delay: bool = False
    items: list[Any] | None = None
    question: str | None = None
    body: dict[str, Any] | None = None
    params: dict[str, Any] | None = None
    new: NewTask | None = None
    sub: NewWorkflow | None = None
    error: Error | None = None


class Decided(msgspec.Struct):
    """An answer for a node as it was: its state, round and task."""

    workflow_id: str
    node_id: str
    state: str
    round: int
    task_id: str | None
    found: Found

    @staticmethod
    def of(due: Due, found: Found) -> Decided:
        n = due.node
        return Decided(n.workflow_id, n.id, n.state, n.round, n.task_id, found)


def references(node: Node) -> References:
    """Which tasks and signals are to be known for it."""
    if node.kind == "phase":
        phase = node.read_phase()
        return template.references([phase.milestone], [] if phase.when is None else [phase.when])
    step = node.read_step()
    more = {step.resume_from} if step.resume_from is not None else set()
    if step.not_before is not None and "+" in step.not_before:
        more.add(step.not_before.partition("+")[0].strip())
    return step_templates.named(step) | References(tasks=frozenset(more - {""}))


def evaluate(due: Due, spill: Callable[[str], str]) -> Found:
    """Never raises; what goes wrong is the node's error, of kind `template`."""
    try:
        if due.node.kind == "phase":
            phase = due.node.read_phase()
            return Found(go=_holds(phase, due))
        step = due.node.read_step()
        return _decided(step, due) if due.node.state == "when" else _rendered(step, due, spill)
    except (TemplateError, ValueError) as e:
        return Found(error=Error("template", str(e)))


def milestone(due: Due) -> str:
    """The text of a milestone that was reached."""
    rule = due.node.read_phase() if due.node.kind == "phase" else due.node.read_step()
    try:
        return template.as_text(template.render(rule.milestone, _names(due)))
    except TemplateError as e:
        return f"{due.node.id} ({e})"


def _names(due: Due) -> dict[str, Any]:
    head, node = due.head, due.node
    names: dict[str, Any] = {
        "params": due.params, "tasks": due.tasks, "signals": due.signals, "round": node.round,
        "feedback": None if node.feedback is None else msgspec.json.decode(node.feedback),
        "workflow": {
            "id": head.id, "name": head.name, "user_id": head.user_id, "failed": due.failed,
            "started_at": iso(head.started_at),
        },
    }  # fmt: skip
    if node.item is not None:
        names |= {"item": msgspec.json.decode(node.item), "index": node.index}
    return names


def _holds(rule: Step | Phase, due: Due) -> bool:
    try:
        return rule.when is None or bool(template.evaluate(rule.when, _names(due)))
    except TemplateError as e:
        raise TemplateError("when", str(e)) from None


def _decided(step: Step, due: Due) -> Found:
    if step.when is not None and not dag.decides_late(step) and due.node.kind != "fan" and not _holds(step, due):
        return Found(go=False)
    if step.not_before is None:
        return Found()
    text = template.as_text(template.render(step.not_before, _names(due)))
    try:
        at = not_before.read(text)
    except ValueError as e:
        raise TemplateError("not_before", str(e)) from None
    if isinstance(at, int):
        return Found(wake_at=at)
    since = due.head.started_at if at.task is None else due.ended_at.get(at.task)
    if since is None:
        raise TemplateError("not_before", f"task {at.task} has not ended")
    return Found(wake_at=since + round(at.seconds * 1000), wake_is_delay=True)


def _rendered(step: Step, due: Due, spill: Callable[[str], str]) -> Found:
    node = due.node
    if (node.parent is not None or dag.decides_late(step)) and not _holds(step, due):
        return Found(go=False)
    names = _names(due)
    if node.kind == "fan":
        items = template.evaluate(step.for_each or "[]", names)
        if not isinstance(items, list):
            shown = template.as_text(items)[:_SHOWN]
            raise TemplateError("for_each", f"a list is needed, not {shown}")
        return Found(items=items)
    if node.kind == "approval":
        return Found(question=template.as_text(template.render(step.approval, names)))
    if node.kind == "workflow":
        return Found(params=template.render(step.params, names))
    # A task without templates is rendered too, where it has something else to be evaluated: nothing changes.
    body = dict(step.task or {}) if step.plain else step_templates.rendered(step, names, spill)
    if step.resume_from is not None:
        source = due.tasks.get(step.resume_from) or {}
        body["options"] = {**body.get("options", {}), "resume_from": source.get("task_id")}
    return Found(body=body)
