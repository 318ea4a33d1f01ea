"""The templates of a task of a workflow: where they stand in it, what they name, and what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from orchestr8d.core import template
from orchestr8d.core.template_names import References
from orchestr8d.core.template_work import LONG, Limits, Work, Wrong, size
from orchestr8d.core.workflow import Step

# Where text is due, whatever a template comes to: fields of a task, and options.
_TEXTS: Final = ("command", "prompt", "env", "stdin")
_TEXT_OPTIONS: Final = ("check", "tags", "title")
# Of those, one text each; what templates make of the first two is a text even when it is null.
_ONE_TEXT: Final = ("prompt", "stdin", "title")
# What becomes part of a command line.
_ARGUMENTS: Final = ("command", "env", "check")


def templates(task: Mapping[str, Any], *, raw: bool) -> dict[str, Any]:
    """What of a task's body is rendered: not what it asks for its end, where templates are over that end."""
    found = {name: value for name, value in task.items() if not (raw and name == "command")}
    if isinstance(found.get("options"), dict):
        found["options"] = {name: value for name, value in found["options"].items() if name != "on_completion"}
    return found


def named(step: Step) -> References:
    """All that a step names, in its templates and expressions."""
    expressions = [text for text in (step.when, step.for_each) if text is not None]
    values = [step.not_before, step.milestone, step.approval, step.params]
    values += [] if step.task is None or step.plain else [templates(step.task, raw=step.raw)]
    return template.references(values, expressions)


def rendered(
    step: Step, names: Mapping[str, Any], spill: Callable[[str], str], limits: Limits = template.DEFAULT
) -> dict[str, Any]:
    """The body of the step's task with what its templates come to. `spill` puts a text that is too long for a prompt
    into a file, and answers its path. Raises TemplateError."""
    assert step.task is not None
    work = Work(limits)
    done = dict(step.task)
    for name, value in templates(step.task, raw=step.raw).items():
        if name != "options":
            done[name] = _field(name, value, names, work, spill)
    if "options" in step.task:
        done["options"] = dict(step.task["options"])
        for name, value in templates(step.task, raw=step.raw)["options"].items():
            done["options"][name] = _field(name, value, names, work, spill, "options.")
    return done


def _field(
    name: str, value: Any, names: Mapping[str, Any], work: Work, spill: Callable[[str], str], at: str = ""
) -> Any:  # fmt: skip
    if value is None:
        return None
    work.place = spill if name == "prompt" else _too_long if name in _ARGUMENTS else None
    try:
        found = template.render({at + name: value}, names, work=work)[at + name]
        if name == "prompt" and not isinstance(found, str):
            return work.placed(found)
    finally:
        work.place = None
    return as_due(name, found)


def as_due(path: str, value: Any) -> Any:
    """What a template in a field or option comes to where it stands (`command[1]`), or a field as a whole."""
    name = re.split(r"[.[]", path, maxsplit=1)[0]
    if name not in (*_TEXTS, *_TEXT_OPTIONS):
        return value
    if path == name and value is None and name not in _ONE_TEXT[:2]:
        return None
    return template.as_text(value) if path != name or name in _ONE_TEXT else template.texts(value)


def _too_long(text: str) -> str:
    raise Wrong(f"a text of {size(text):,} bytes in a command line, where {LONG:,} are the most: use stdin")


def strings(value: Any, path: str = "") -> list[tuple[str, str]]:
    """The path and the text of each template in a value."""
    found: list[tuple[str, str]] = []

    def look(text: str, at: str) -> str:
        found.append((at, text))
        return text

    template.mapped(value, path, look)
    return found
