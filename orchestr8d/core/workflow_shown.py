"""A definition as a person writes it: what was resolved of it, in the form in which it can be started again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from orchestr8d.core import endings
from orchestr8d.core.workflow import Definition

# Of a step, what only the engine needs.
_INNER: Final = ("kind", "plain", "task")


def shown(definition: Definition, *, secrets: bool = False) -> dict[str, Any]:
    """The definition as JSON has it; without `secrets` not the tasks' environment and stdin, in which some may be."""
    found: dict[str, Any] = msgspec.to_builtins(definition)
    for phase in found.get("phases", ()):
        phase["tasks"] = [_step(step, secrets) for step in phase.get("tasks", ())]
    if "on_failure" in found:
        found["on_failure"] = [_step(step, secrets) for step in found["on_failure"]]
    if not secrets and "defaults" in found:
        found["defaults"] = endings.without_secrets(found["defaults"])
    return found


def _step(step: Mapping[str, Any], secrets: bool) -> dict[str, Any]:
    """A task with its fields and options side by side."""
    body = step.get("task") or {}
    if not secrets:
        body = endings.without_secrets(body)
    options = body.get("options") or {}
    rest = {name: value for name, value in step.items() if name not in _INNER}
    fields = {name: value for name, value in body.items() if name != "options"}
    return {"id": step["id"], **fields, **options, **rest}
