"""Rules that turn a hook of Claude Code into a task: what a rule may say, whether it matches, what it asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from orchestr8d.core import durations
from orchestr8d.core.addresses import Allow
from orchestr8d.core.decode import convert
from orchestr8d.core.errors import Fault
from orchestr8d.core.task_input import Duration, TaskIn

# So many characters of a text a pattern sees, as many as a path can have: what people write without a thought takes
# the square of the length, or its cube, and nothing can interrupt it.
LONGEST: Final = 4096
# Of no use before what is found anywhere, and it makes the search longer by the length of the text.
_IDLE: Final = re.compile(r"(?:\.\*)+(?![?+])")
# What a debounced task gets from its rule.
_OWN: Final = ("unique_key", "on_conflict", "delay", "run_at")


class RuleIn(Struct, frozen=True, forbid_unknown_fields=True):
    """`[[hooks]]` as it is written."""

    event: str
    task: dict[str, Any]
    tool_name: str | None = None
    cwd: str | None = None
    prompt: str | None = None
    debounce: Duration | None = None


class Rule(Struct, frozen=True):
    """A rule: `event` is matched as a whole, the other patterns anywhere in the hook's field of that name. `task` is a
    task as it is submitted, with templates over `hook`. `debounce` in seconds."""

    event: str
    tool_name: str | None
    cwd: str | None
    prompt: str | None
    task: dict[str, Any]
    debounce: float | None


def rule(value: object) -> tuple[Rule | None, list[Fault]]:
    """The rule that was written, or None and all that is wrong with it."""
    written, faults = convert(value, RuleIn)
    if written is None:
        if isinstance(value, dict) and isinstance(value.get("task"), dict):
            faults += _task_faults(value["task"])
        return None, faults
    for name in ("event", "tool_name", "cwd", "prompt"):
        pattern = getattr(written, name)
        try:
            re.compile(pattern or "")
        except (re.error, RecursionError, OverflowError) as e:
            faults.append(Fault(name, f"not a regular expression: {e}"))
    faults += _task_faults(written.task)
    debounce = None if written.debounce is None else durations.seconds(written.debounce)
    options = written.task.get("options")
    if debounce and isinstance(options, dict):
        faults += [
            Fault(f"task.options.{name}", "does not go together with debounce, which sets it")
            for name in _OWN
            if name in options
        ]
    if faults:
        return None, faults
    tool_name, cwd, prompt = map(_found_anywhere, (written.tool_name, written.cwd, written.prompt))
    return Rule(written.event, tool_name, cwd, prompt, written.task, debounce or None), []


def _found_anywhere(pattern: str | None) -> str | None:
    """A shorter pattern that is found in the same texts."""
    idle = _IDLE.match(pattern or "")
    return pattern if pattern is None or idle is None else pattern[idle.end() :]


def _task_faults(task: dict[str, Any]) -> list[Fault]:
    """What is wrong with a rule's task whatever hook comes: not what a template stands for."""
    from orchestr8d.core import submit, template  # late: only who has rules needs them, and importing takes time

    made, faults = convert(task, TaskIn)
    if made is not None:
        submit.check(made, submit.Policy(max_retries=2**53, addresses=Allow(private=True)), faults)
    task = _without_follow_ups(task)
    unsure = template.places(task)
    certain = [fault for fault in faults if fault.path not in unsure]
    return [
        msgspec.structs.replace(fault, path=f"task.{fault.path}" if fault.path else "task")
        for fault in certain + template.check(task, ("hook",))
    ]


def may_match(rule: Rule, event: object) -> bool:
    """Whether the rule is for this event at all."""
    return isinstance(event, str) and re.fullmatch(rule.event, event[:LONGEST]) is not None


def matches(rule: Rule, hook: Mapping[str, Any]) -> bool:
    """Whether all of the rule's patterns are found. What a hook does not have, or has not as text, matches none."""
    if not may_match(rule, hook.get("hook_event_name")):
        return False
    for name, pattern in (("tool_name", rule.tool_name), ("cwd", rule.cwd), ("prompt", rule.prompt)):
        text = hook.get(name)
        if pattern is not None and not (isinstance(text, str) and re.search(pattern, text[:LONGEST])):
            return False
    return True


def _without_follow_ups(task: dict[str, Any]) -> dict[str, Any]:
    """The same without what is to be done at its end: templates of tasks that follow are over that end."""
    options = task.get("options")
    if not isinstance(options, dict):
        return task
    return task | {"options": {name: value for name, value in options.items() if name != "on_completion"}}


def task(rule: Rule, hook: Mapping[str, Any]) -> dict[str, Any]:
    """The task that the rule asks for. Raises TemplateError."""
    from orchestr8d.core import template

    asked: dict[str, Any] = template.render(_without_follow_ups(rule.task), {"hook": hook})
    options = asked.get("options")
    if isinstance(options, dict) and "on_completion" in rule.task["options"]:
        options["on_completion"] = rule.task["options"]["on_completion"]
    for at, names in ((asked, ("command", "prompt", "env", "stdin")), (options, ("check", "tags", "title"))):
        if isinstance(at, dict):
            at.update({name: template.texts(at[name]) for name in names if at.get(name) is not None})
    return asked
