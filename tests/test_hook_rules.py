"""Rules over hooks: which match, what they ask for, and that nothing of a hook stops the loop."""

from __future__ import annotations

import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from orchestr8d import hook_rules
from orchestr8d.clock import FakeClock
from orchestr8d.core import hooks
from orchestr8d.core.errors import Problem
from orchestr8d.core.hooks import Rule
from orchestr8d.hook_rules import Asked, HookRules
from orchestr8d.tokens import Caller
from tests.hook_samples import SAMPLES, sample

CALLER = Caller(token_id="t", name="t", scope="submit")


def rule(event: str, task: dict[str, Any] | None = None, **more: Any) -> Rule:
    made, faults = hooks.rule({"event": event, "task": task or {"command": ["true"]}, **more})
    assert made is not None, faults
    return made


class Box:
    """The loop with rules, and what it asked for."""

    def __init__(self, *rules: Rule) -> None:
        self.clock = FakeClock()
        self.asked: list[Asked] = []
        self.counted: list[str] = []
        self.error: Exception | None = None
        self.loop = HookRules(self.clock, lambda: rules, self.submit, self.counted.append)

    async def submit(self, caller: Caller, asked: Asked) -> str:
        assert caller is CALLER
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return "id"

    async def take(self, hook: dict[str, Any]) -> None:
        self.loop.take(hook, CALLER, 100)
        await self.loop.run_once()


@pytest.mark.parametrize(("more", "hook", "expected"), [
    ({"event": "Stop"}, sample("Stop"), True),
    ({"event": "Stop"}, sample("SubagentStop"), False),
    ({"event": ".*Stop"}, sample("SubagentStop"), True),
    ({"event": "Stop"}, {"hook_event_name": 3}, False),
    ({"event": "Stop"}, {}, False),
    ({"event": ".*", "tool_name": "^(Edit|Bash)$"}, sample("PreToolUse"), True),
    ({"event": ".*", "tool_name": "^Edit$"}, sample("PreToolUse"), False),
    ({"event": ".*", "tool_name": "."}, sample("Stop"), False),
    ({"event": ".*", "cwd": "work"}, sample("Stop"), True),
    ({"event": ".*", "cwd": "^work"}, sample("Stop"), False),
    ({"event": ".*", "prompt": "deploy"}, sample("UserPromptSubmit", prompt="please deploy"), True),
    ({"event": ".*", "prompt": "deploy"}, sample("UserPromptSubmit", prompt=["deploy"]), False),
    ({"event": ".*", "prompt": "deploy"}, sample("UserPromptSubmit", prompt="x" * 4096 + "deploy"), False),
    ({"event": ".*", "prompt": ".*deploy"}, sample("UserPromptSubmit", prompt="please\ndeploy it"), True),
    ({"event": ".*", "prompt": ".*?deploy"}, sample("UserPromptSubmit", prompt="please deploy"), True),
    ({"event": ".*", "prompt": ".*"}, sample("UserPromptSubmit", prompt=""), True),
    ({"event": ".*", "prompt": ".*|x{2}"}, sample("UserPromptSubmit", prompt="y"), True),
])  # fmt: skip
def test_what_matches(more: dict[str, Any], hook: dict[str, Any], expected: bool) -> None:
    assert hooks.matches(rule(**more), hook) is expected


@pytest.mark.parametrize("pattern", [
    ".*foo.*bar", ".*(deploy|ship).*", r"\s+!", r"\w+@\w+\.com", "(?i)please.*review.*now",
])  # fmt: skip
def test_a_pattern_as_people_write_it_holds_nobody_up(pattern: str) -> None:
    asked = rule(".*", prompt=pattern)
    begun = time.process_time()
    for prompt in ("a" * 100_000, " " * 100_000 + "x", "please review bug fix foo " * 4000):
        assert not hooks.matches(asked, {"hook_event_name": "Stop", "prompt": prompt})
    assert time.process_time() - begun < 0.4


def test_every_sample_is_matched_by_its_event_alone() -> None:
    names = {hook["hook_event_name"] for hook in SAMPLES}
    assert len(names) >= 11
    for hook in SAMPLES:
        assert [name for name in names if hooks.matches(rule(name), hook)] == [hook["hook_event_name"]]


def test_texts_become_texts() -> None:
    task = {
        "command": ["a", "{{ hook.tool_input }}", "{{ hook.duration_ms }}"], "env": {"N": "{{ hook.duration_ms }}"},
        "stdin": "{{ hook.tool_response.interrupted }}",
        "options": {"priority": "{{ 2 + 3 }}", "title": "{{ hook.duration_ms }}"},
    }  # fmt: skip
    hook = {"tool_input": {"a": [1]}, "duration_ms": 5, "tool_response": {"interrupted": False}}
    assert hooks.task(rule("x", task), hook) == {
        "command": ["a", '{"a":[1]}', "5"], "env": {"N": "5"}, "stdin": "false",
        "options": {"priority": 5, "title": "5"},
    }  # fmt: skip


async def test_each_rule_that_fits_asks_for_its_task() -> None:
    box = Box(rule("Stop", {"command": ["{{ hook.cwd }}"]}), rule("PreToolUse"), rule("S.*", debounce="5s"))
    with capture_logs() as logs:
        await box.take(sample("Stop", session_id="s"))
    first, second = box.asked
    assert first == Asked({"command": ["/home/user/work"]})
    assert (second.task, second.debounce) == ({"command": ["true"]}, 5.0)
    assert [(log["hook"], log["rule"], log["task_id"]) for log in logs] == [("Stop", 0, "id"), ("Stop", 2, "id")]
    assert box.counted == ["submitted", "submitted"]


async def test_debounced_tasks_share_a_key_per_rule_and_session() -> None:
    box = Box(rule("Stop", debounce=5), rule("Stop", debounce=5))
    for session in ("a", "a", "b", 3, None):
        await box.take(sample("Stop", session_id=session))
    keys = [asked.key for asked in box.asked]
    assert keys[0:2] == keys[2:4]
    assert len(set(keys)) == 8


async def test_what_fails_is_logged_and_counted_and_the_next_goes_on() -> None:
    box = Box(rule("Stop", {"command": ["{{ hook.nope }}"]}), rule("Stop"), rule("SessionEnd"))
    box.error = Problem("forbidden", "not for you")
    with capture_logs() as logs:
        await box.take(sample("Stop"))
        box.error = RuntimeError("broken")
        await box.take(sample("SessionEnd"))
        box.error = None
        await box.take(sample("SessionEnd"))
    assert [(log["log_level"], log.get("reason")) for log in logs] == [
        ("warning", "task.command[0]: hook.nope is not there"), ("warning", "not for you"), ("error", None),
        ("info", None),
    ]  # fmt: skip
    assert box.counted == ["failed", "failed", "submitted"]


async def test_hooks_that_nobody_wants_are_not_kept() -> None:
    box = Box(rule("Stop", prompt="x"))
    for _ in range(hook_rules.MOST + 10):
        box.loop.take(sample("PreToolUse"), CALLER, 100)
    assert box.counted == ["unmatched"] * (hook_rules.MOST + 10)
    await box.take(sample("Stop"))
    assert box.counted[-1] == "unmatched" and box.asked == []


async def test_past_the_bounds_hooks_are_dropped_and_that_is_said_rarely() -> None:
    box = Box(rule("Stop"))
    with capture_logs() as logs:
        for _ in range(hook_rules.MOST + 5):
            box.loop.take(sample("Stop"), CALLER, 1)
        assert len(logs) == 1
        box.clock.advance(hook_rules.QUIET)
        box.loop.take(sample("Stop"), CALLER, 1)
    assert [log["dropped"] for log in logs] == [1, 5]
    assert box.counted == ["dropped"] * 6
    await box.loop.run_once()
    box.loop.take(sample("Stop"), CALLER, hook_rules.MOST_BYTES)
    assert box.counted[-1] == "dropped"


def test_what_follows_from_a_rules_task_sees_the_end_and_not_the_hook() -> None:
    follow = {"submit": {"command": ["echo", "{{ task.result }}"]}}
    asked = {"command": ["echo", "{{ hook.cwd }}"], "options": {"on_completion": follow, "title": "{{ hook.cwd }}"}}
    made = hooks.task(rule("Stop", asked), {"cwd": "/x"})
    assert made == {"command": ["echo", "/x"], "options": {"on_completion": follow, "title": "/x"}}
    wrong = {"submit": {"command": ["echo", "{{ hook.cwd }}"]}}
    _, faults = hooks.rule({"event": "Stop", "task": {"command": ["a"], "options": {"on_completion": wrong}}})
    assert [fault.path for fault in faults] == ["task.options.on_completion.submit.command[1]"]
