"""Definitions: what becomes of a good one, and that of a bad one everything is told at once, at its place."""

from __future__ import annotations

import random
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from orchestr8d.core import definition, not_before, step_templates, yaml_text
from orchestr8d.core.definition import Bounds, Checked
from orchestr8d.core.precedence import Precedence
from orchestr8d.core.submit import AgentRules, Policy
from orchestr8d.core.template import TemplateError
from orchestr8d.core.workflow import Phase, RetryPhase, Step

POLICY = Policy(in_workflow=True, home="/home/me", user_id="me", max_retries=9, agents=AgentRules(accounts=("work",)))
BOUNDS = Bounds()


def check(raw: Any, given: dict[str, Any] | None = None, bounds: Bounds = BOUNDS, **more: Any) -> Checked:
    return definition.check(raw, given or {}, POLICY, bounds, **more)


def told(checked: Checked) -> list[str]:
    return [f"{'422 ' if f.kind == 'unprocessable' else ''}{f.path}: {f.message}" for f in checked.faults]


def steps(checked: Checked) -> dict[str, Step]:
    return {step.id: step for phase in checked.definition.phases for step in phase.tasks}


def with_tasks(*tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A definition of one phase; what `tasks` leave out is filled in."""
    filled = [{"id": f"t{n}", **({} if {"agent", "approval", "workflow", "command"} & set(task) else
               {"command": ["true"]}), **task} for n, task in enumerate(tasks)]  # fmt: skip
    return {"name": "w", "phases": [{"id": "p", "tasks": filled}], **more}


GOOD = """
name: good
params:
  feature: {type: string, required: true}
  ui: {default: true}
  test: {type: list, default: [make, test]}
  limit: {default: 15m}
  slow: {type: number, default: 2}
  who: {default: go}
defaults: {timeout: "{{ params.limit }}", max_retries: 2, env: {A: "1", B: "2"}, model: opus, metadata: {x: 1}}
max_parallel: "{{ params.slow }}"
report_every: 1d
phases:
  - id: one
    title: "About {{ params.feature }}"
    progress: [0, 40]
    milestone: "{{ tasks.look.result }}"
    tasks:
      - {id: look, agent: ["{{ params.who }}-developer", backend-developer], prompt: "Look at {{ params.feature }}",
         tags: ["{{ params.slow }}"], env: {B: "{{ params.slow }}"}, metadata: {"y": "{{ params.slow }}"}}
      - {id: test, command: "{{ params.test }}", max_retries: 0, depends_on: [look, look], delay: 90s}
      - {id: raw, command: [docker, ps, --format, "{{.Names}}"], raw: true, queue: q, priority: high}
  - id: two
    depends_on: [one]
    when: "{{ params.ui }}"
    progress: [40, 100]
    tasks:
      - {id: go-ahead, approval: "Ship {{ tasks.look.result }}?", timeout: 3d, on_timeout: approve}
      - {id: fan, for_each: "tasks.look.output.topics", when: "item != index", max_parallel: 2, agent: x,
         prompt: "{{ item }} of {{ index }}", depends_on: [go-ahead], allow_denied: true}
      - {id: after, command: [sh, -c, "{{ tasks['go-ahead'].result }} {{ signals.go.x }}", "{{ round }}{{ feedback }}"],
         depends_on: [fan], wait_for: [go], wait_timeout: "{{ params.slow }}", not_before: "fan+2h", when: true,
         on_failure: {retry_phase: one, max: 2}, callback_url: /internal/done, on_completion: done}
      - {id: more, agent: x, prompt: "{{ tasks.raw.exit_code }}", resume_from: look, isolation: worktree,
         milestone: "{{ tasks.more.result }}",
         on_completion: {submit: {command: [echo, "{{ task.result }}"]}}}
      - {id: sub, workflow: research, params: {topic: "{{ tasks.look.result }}", deep: true}, for_each: "[1]"}
on_failure:
  - {id: undo, command: [undo, "{{ workflow.failed }}", "{{ tasks.after.result }}"]}
  - {id: tell, command: [tell, "{{ tasks.undo.status }}"], when: "workflow.failed | length > 0"}
"""


def test_a_good_one() -> None:
    c = check(yaml_text.read(GOOD.encode()), {"feature": "{{ x }}"}, priority=10)
    assert told(c) == []
    assert c.params == {"feature": "{{ x }}", "ui": True, "test": ["make", "test"], "limit": "15m", "slow": 2,
                        "who": "go"}  # fmt: skip
    assert {name: param.type for name, param in c.definition.params.items()} == {
        "feature": "string", "ui": "boolean", "test": "list", "limit": "string", "slow": "number", "who": "string",
    }  # fmt: skip
    assert (c.definition.max_parallel, c.definition.report_every) == (2, 86400)
    one, two = c.definition.phases
    assert (one.title, one.progress, two.when, two.depends_on) == ("About {{ x }}", (0, 40), "params.ui", ["one"])
    s = steps(c)
    # What names parameters alone is rendered at submit, once; where text is due it is text.
    assert s["look"].plain and s["look"].task == {
        "agent": "go-developer", "prompt": "Look at {{ x }}", "env": {"A": "1", "B": "2"}, "options": {
            "timeout": "15m", "max_retries": 2, "model": "opus", "tags": ["2"],
            "metadata": {"x": 1, "y": 2}}}  # fmt: skip
    wish = c.wishes[0]
    assert (wish.path, wish.names, wish.cwd) == (
        "phases[0].tasks[0].agent", ["go-developer", "backend-developer"], "/home/me")  # fmt: skip
    assert s["test"].task is not None and s["test"].task["command"] == ["make", "test"]
    assert (s["test"].depends_on, s["test"].not_before, s["test"].task["options"]) == (
        ["look"], "+90.000s", {"timeout": "15m", "max_retries": 0, "metadata": {"x": 1}})  # fmt: skip
    raw = c.drafts["raw"].spec.command
    assert s["raw"].raw and s["raw"].plain and raw == ["docker", "ps", "--format", "{{.Names}}"]
    assert (s["go-ahead"].kind, s["go-ahead"].timeout, s["go-ahead"].on_timeout) == ("approval", 259200, "approve")
    assert (s["fan"].for_each, s["fan"].when, s["fan"].max_parallel, s["fan"].plain) == (
        "tasks.look.output.topics", "item != index", 2, False)  # fmt: skip
    after = s["after"]
    assert (after.wait_for, after.wait_timeout, after.not_before, after.when) == (["go"], 2, "fan+2h", "true")
    assert after.on_failure == RetryPhase("one", 2) and not after.plain
    assert s["more"].resume_from == "look" and s["sub"].params == {"topic": "{{ tasks.look.result }}", "deep": True}
    assert c.workflows == [("phases[1].tasks[4].", s["sub"])]
    # Drafts: of every task, with what is known by now.
    assert set(c.drafts) == {*s, "undo", "tell"} - {"go-ahead", "sub"}
    assert {draft.priority for draft in c.drafts.values()} == {10} and c.drafts["raw"].queue == "q"
    look, late = c.drafts["look"], c.drafts["after"]
    assert (look.spec.timeout, look.spec.cwd, look.user_id, look.kind) == (900, "/home/me", "me", "claude")
    assert look.spec.agent is not None and (look.spec.agent.name, look.spec.agent.model) == ("go-developer", "opus")
    assert late.spec.command is not None and late.spec.command[0] == "sh" and late.kind == "command"
    assert late.spec.on_completion == [{"signal": "done"}] and late.spec.callback_url == "/internal/done"
    assert [step.id for step in c.definition.on_failure] == ["undo", "tell"]
    named = step_templates.named(after)
    assert (named.tasks, named.signals) == ({"go-ahead"}, {"go"})


def test_what_is_released_has_texts_where_texts_are_due() -> None:
    long = "é" * 20_000
    names = {"tasks": {"a": {"result": long, "output": [1, {"b": long}], "exit_code": 3, "error": None}}, "params": {}}
    raw = with_tasks(
        {"id": "a"}, {"id": "b", "depends_on": ["a"], "command": ["{{ tasks.a.exit_code }}", "-{{ tasks.a.status }}"]},
        {"id": "c", "depends_on": ["a"], "agent": "x", "prompt": "See {{ tasks.a.result }} {{ tasks.a.exit_code }}",
         "max_turns": "{{ tasks.a.exit_code }}", "env": {"N": "{{ tasks.a.exit_code }}"}},
        {"id": "d", "depends_on": ["a"], "agent": "x", "prompt": "{{ tasks.a.output }}",
         "not_before": "+{{ 3 * ('1d'|seconds) }}s"},
        {"id": "e", "depends_on": ["a"], "command": ["cat"], "stdin": "{{ tasks.a.result }}"},
        {"id": "f", "depends_on": ["a"], "command": ["echo", "{{ tasks.a.result }}"]},
        {"id": "h", "depends_on": ["a"], "command": ["cat"], "stdin": "{{ tasks.a.error }}"},
        {"id": "i", "command": ["cat"], "stdin": "{{ {'n': [1, none]} }}", "title": "{{ [1] }}"},
        {"id": "g", "depends_on": ["a"], "command": ["{{.x}}"], "raw": True, "title": "{{ tasks.a.exit_code }}",
         "on_completion": {"submit": {"command": ["{{ task.result }}"]}}},
    )  # fmt: skip
    c = check(raw)
    assert told(c) == []
    spilt: list[str] = []

    def spill(text: str) -> str:
        spilt.append(text)
        return f"/spilt/{len(spilt)}"

    def rendered(name: str) -> dict[str, Any]:
        return step_templates.rendered(steps(c)[name], names, spill)

    with pytest.raises(TemplateError, match=r"^command\[1\]: tasks\.a\.status is not there"):
        rendered("b")
    assert rendered("c") == {"prompt": "See /spilt/1 3", "agent": "x", "env": {"N": "3"}, "options": {"max_turns": 3}}
    assert rendered("d")["prompt"] == "/spilt/2" and spilt == [long, f'[1,{{"b":"{long}"}}]']
    assert rendered("e")["stdin"] == long and steps(c)["d"].not_before == "+259200s"
    with pytest.raises(TemplateError, match=r"^command\[1\]: a text of 40,000 bytes in a command line"):
        rendered("f")
    assert rendered("h")["stdin"] == "null"
    assert steps(c)["i"].task == {"command": ["cat"], "stdin": '{"n":[1,null]}', "options": {"title": "[1]"}}
    assert rendered("g") == {"command": ["{{.x}}"], "options": {
        "title": "3", "on_completion": {"submit": {"command": ["{{ task.result }}"]}}}}  # fmt: skip


T = "phases[0].tasks[0]"
# A task and what is told of it; `T` is where it stands, a second task is `{id: b}`.
TASKS: list[tuple[dict[str, Any], list[str]]] = [
    ({"id": "9x"}, [f"{T}.id: expected an id: 1 to 64 letters, digits, _ or -, not beginning with a digit or -"]),
    ({"id": "x" * 65}, [f"{T}.id: expected an id: 1 to 64 letters, digits, _ or -, not beginning with a digit or -"]),
    ({"id": "b"}, ["phases[0].tasks[1].id: there is another 'b': phases and tasks share their names"]),
    ({"id": "p"}, [f"{T}.id: there is another 'p': phases and tasks share their names"]),
    ({"id": "on_failure"}, [f"{T}.id: on_failure is where the tasks are that run after a failure"]),
    ({"depends_on": ["b", "nope", "t0"]},
     [f"422 {T}.depends_on[1]: there is no phase or task 'nope'", f"422 {T}.depends_on[2]: a cycle: t0 → t0"]),
    ({"depends_on": ["p"]}, [f"422 {T}.depends_on[0]: a cycle: t0 → p → t0"]),
    ({"depends_on": ["bb"]}, [f"422 {T}.depends_on[0]: there is no phase or task 'bb' (did you mean 'b'?)"]),
    ({"depends_on": ["undo"]}, [f"422 {T}.depends_on[0]: 'undo' is a task of on_failure: nothing can wait for it"]),
    ({"depends_on": "b"}, [f"{T}.depends_on: expected `array`, got `str`"]),
    ({"agent": "x", "command": ["y"], "prompt": "z"}, [f"{T}.agent: give a command or an agent, not both"]),
    ({"command": None}, [f"{T}: a task has one of agent, command, approval and workflow"]),
    ({"approval": "x", "command": ["y"]}, [f"{T}.approval: a task has one of agent, command, approval and workflow"]),
    ({"agent": "x"}, [f"{T}.prompt: required with an agent, but missing"]),
    ({"approval": "x", "prompt": "y", "for_each": "[1]", "timeout": "1x"},
     [f"{T}.prompt: not of an approval", f"{T}.for_each: not of an approval",
      f'{T}.timeout: expected seconds as a number, or a duration like "90s", "15m", "2h", "3d", up to 100,000 days']),
    ({"workflow": "x", "resume_from": "b", "cwd": "/"},
     [f"{T}.resume_from: not of a workflow", f"{T}.cwd: not of a workflow"]),
    ({"options": {}, "promt": "x", "allow_failed": True, "user_id": "x"},
     [f"{T}.options: the options of a task stand beside its id here, not in `options`",
      f"{T}.promt: unknown field (did you mean 'prompt'?)",
      f"{T}.allow_failed: say `on_failure: continue` of the task that may fail",
      f"{T}.user_id: a workflow's tasks belong to its user"]),
    ({"isolation": "worktree", "cwd": "x", "env": {"1": "x"}, "stdin": 5},
     [f"{T}.stdin: expected `str | null`, got `int`", f"{T}.isolation: only for agents",
      f"{T}.cwd: must be an absolute path: the daemon has a working directory of its own",
      f"{T}.env.1: not a name for an environment variable: letters, digits and _ only"]),
    ({"max_retries": 10, "tags": [1], "priority": "hihg"},
     [f"{T}.priority: not one of critical, high, normal, low (did you mean 'high'?)",
      f"{T}.tags[0]: expected `str`, got `int`", f"{T}.max_retries: at most 9 ([limits] max_retries)"]),
    ({"agent": "x", "prompt": "y", "account": "wrk"},
     [f"422 {T}.account: there is no such account in [claude.accounts] (did you mean 'work'?)"]),
    ({"unique_key": "k", "on_conflict": "existing"},
     [f"{T}.on_conflict: a task of a workflow is its own: reject or replace"]),
    ({"on_failure": "retry"}, [f"{T}.on_failure: not one of fail, continue"]),
    ({"on_failure": {"retry_phase": "q"}}, [f"{T}.on_failure.max: required, but missing",
                                             f"422 {T}.on_failure.retry_phase: there is no phase 'q'"]),
    ({"on_failure": {"retry_phase": "later", "max": 1}},
     [f"422 {T}.on_failure.retry_phase: 'later' is neither the task's own phase nor one that is over before it "
      "begins"]),
    ({"wait_timeout": "1h"}, [f"{T}.wait_timeout: only with wait_for: there is nothing to wait for"]),
    ({"wait_for": ["a b"]}, [f"{T}.wait_for[0]: expected 1 to 128 letters, digits or _.:@- "
                             "that begin with a letter or digit"]),
    ({"max_parallel": 2}, [f"{T}.max_parallel: only with for_each: one task is never more than one at once"]),
    ({"not_before": "b+2h", "run_at": "x"}, [f"{T}.run_at: give not_before or run_at, not both"]),
    ({"run_at": "2026-03-01T10:00:00"}, [
        f'{T}.run_at: expected "+6d" (after the workflow\'s start), "TASK+2h" (after the end of that task), or a time: '
        "a time needs an offset: add Z, or one like +01:00"]),
    ({"resume_from": "agent"}, [f"{T}.resume_from: only for agents"]),
    # Templates and expressions.
    ({"command": ["{{ tasks.b.result }}", "{{ tasks.p.result }}", "{{ tasks.bb.result }}"]},
     [f"422 {T}.command[0]: task 'b' does not come before: make what names it depend on it",
      f"422 {T}.command[1]: 'p' is a phase: only tasks have results",
      f"422 {T}.command[2]: there is no task 'bb' (did you mean 'b'?)"]),
    ({"depends_on": ["go-ahead"], "stdin": "{{ tasks.go-ahead.result }}"},
     [f"{T}.stdin: 'ahead' is not known (a name with a dash is written tasks['go-ahead'])",
      f"422 {T}.stdin: there is no task 'go' (a name with a dash is written tasks['go-ahead'])"]),
    ({"depends_on": ["b"], "command": ["{{ tasks.b.reslt }}", "{{ tasks[params.x].result }}", "{{ tasks }}",
                                        "{% for t in tasks %}{% endfor %}", "{{ tasks.get('b') }}",
                                        "{{ signals|length }}"]},
     [f"{T}.command[0]: unknown field 'reslt' of a task (did you mean 'result'?)",
      *(f"{T}.command[{n}]: tasks are named one by one, as they are written: tasks.NAME" for n in (1, 2, 3, 4)),
      f"{T}.command[5]: signals are named one by one, as they are written: signals.NAME"]),
    ({"command": ["{{ params.y }}", "{{ workflow.nme }}", "{{ item }}", "{{ nope }}", "{{ loop }}",
                  "{% set tasks = 1 %}"]},
     [f"{T}.command[0]: unknown parameter 'y'",
      f"{T}.command[1]: unknown field 'nme' of workflow (did you mean 'name'?)",
      *(f"{T}.command[{n}]: {name!r} is not known" for n, name in ((2, "item"), (3, "nope"), (4, "loop"))),
      f"{T}.command[5]: 'tasks' cannot be set"]),
    ({"command": ["{{ 'a' * 10**9 }}", "{{ params.x.__class__ }}", "{{ ''['__class__'] }}", "{{ x.y( }}",
                  "{{ params.x|attr('a') }}", "{% include 'a' %}", "{{ self }}"]},
     [f"{T}.command[0]: pow is not available in templates",
      f"{T}.command[1]: params.x.__class__ is not available in templates",
      f"{T}.command[2]: this['__class__'] is not available in templates",
      f"{T}.command[3]: unexpected '}}', expected ')'",
      f"{T}.command[4]: there is no filter 'attr'", f"{T}.command[5]: include is not available in templates",
      f"{T}.command[6]: 'self' is not known"]),
    ({"stdin": "{{ 'a' * 9 }}", "title": "{{ params.x.y }}", "cwd": "{{ params.x }}", "timeout": "{{ params.x }}"},
     [f"{T}.title: params.x.y is not there: params.x is a text", f"{T}.stdin: a number is needed, not a text",
      f'{T}.timeout: expected seconds as a number, or a duration like "90s", "15m", "2h", "3d", up to 100,000 days',
      f"{T}.cwd: must be an absolute path: the daemon has a working directory of its own"]),
    ({"command": "{{ params.x }}"}, [f"{T}.command: expected `array | null`, got `str`"]),
    ({"stdin": "x" * 300_000 + "{{ params.x }}", "title": "{{ 1 }}" * 4000},
     [f"{T}.stdin: longer than 262,144 bytes", f"{T}.title: more than 10,000 words and signs"]),
    ({"when": "params.", "for_each": "{{ 1 }} {{ 2 }}", "milestone": "{{ tasks.b.result }}"},
     [f"{T}.for_each: an expression stands without braces: params.x, not {{{{ params.x }}}}",
      f"{T}.when: expected name or number",
      f"422 {T}.milestone: task 'b' does not come before: make what names it depend on it"]),
    ({"for_each": "item", "when": "item }} x"}, [f"{T}.for_each: 'item' is not known",
                                                  f"{T}.when: expected the end of the expression, found '}}}}'"]),
    ({"for_each": "params.many"}, [f"422 {T}.for_each: 3 items, where 2 are the most ([limits] fan)"]),
    ({"agent": ["{{ tasks.b.result }}", "x"], "prompt": "y"},
     [f"{T}.agent[0]: tasks is not known yet when this is decided"]),
    ({"workflow": "{{ item }}", "for_each": "[1]", "params": {"a": "{{ nope }}"}},
     [f"{T}.workflow: item is not known yet when this is decided", f"{T}.params.a: 'nope' is not known"]),
]  # fmt: skip


@pytest.mark.parametrize(("task", "faults"), TASKS)
def test_what_is_told_of_a_task(task: dict[str, Any], faults: list[str]) -> None:
    others = ({"id": "b"}, {"id": "go-ahead"}, {"id": "agent", "agent": "x", "prompt": "y"})
    raw = with_tasks(task, *others, on_failure=[{"id": "undo", "command": ["x"]}],
                     params={"x": {"default": "v"}, "many": {"default": [1, 2, 3]}})  # fmt: skip
    raw["phases"].append({"id": "later", "depends_on": ["p"]})
    c = check(raw, bounds=Bounds(fan=2))
    assert sorted(told(c)) == sorted(faults)


def test_everything_is_told_at_once() -> None:
    raw = yaml_text.read(b"""
name: bad
nmae: x
params:
  a: {type: string, required: true}
  b: {type: integer, default: "5"}
  c: {default: pyton, enum: [python, 7]}
  d: {tpye: list}
  e: {type: lst}
  "1f": {}
defaults: {max_retry: 3, queue: "a b", on_failure: continue, title: "{{ nope }}"}
max_parallel: 0
fail_fast: maybe
report_every: "{{ tasks.x.result }}"
phases:
  - {id: p, depends_on: [q, nowhere], progress: [50, 20], when: "tasks.x.status", tasks: [{id: x, command: [a]}, 17]}
  - {id: q, depends_on: [x], progress: [0, 110], max_parallel: "{{ params.b }}"}
  - {id: r, progress: [0, 60], colour: red, tasks: [{id: y, command: [a]}]}
  - {id: s, progress: [40, 100], milestone: "{{ tasks.y.result }}"}
  - 5
on_failure:
  - {id: z, command: ["{{ tasks.zz.result }} {{ tasks.x.result }}"], depends_on: [x]}
  - {id: zz, command: [a], on_failure: {retry_phase: p, max: 1}}
""")
    assert told(check(raw, {"g": 1, "c": "go"})) == [
        "params.b.default: expected a whole number, not a text",
        "params.c.enum[1]: expected a text, not a number",
        "params.c.default: not one of python, 7 (did you mean 'python'?)",
        "params.1f: a parameter's name is of 1 to 64 letters, digits, _ or -",
        "params.a: required, but missing",
        "params.c: not one of python, 7",
        "params.g: unknown parameter",
        "report_every: tasks is not known yet when this is decided",
        "nmae: unknown field (did you mean 'name'?)",
        "params.d.tpye: unknown field (did you mean 'type'?)",
        "params.e.type: not one of string, integer, number, boolean, list (did you mean 'list'?)",
        "max_parallel: expected `int` >= 1",
        "fail_fast: expected `bool`, got `str`",
        "phases[1].progress[1]: expected `float` <= 100.0",
        "phases[2].colour: unknown field",
        "phases[4]: expected `object`, got `int`",
        "defaults.max_retry: unknown field (did you mean 'max_retries'?)",
        "defaults.on_failure: unknown field",
        "defaults.queue: expected 1 to 128 letters, digits or _.:@- that begin with a letter or digit",
        "phases[0].tasks[1]: expected an object: a task with its id",
        "on_failure[0].depends_on: tasks of on_failure run in the order in which they are listed",
        "on_failure[1].on_failure: a task of on_failure can have no phase run again",
        "422 phases[0].depends_on[1]: there is no phase or task 'nowhere'",
        "422 phases[0].depends_on[0]: a cycle: p → q → x → p",
        "422 phases[3].milestone: task 'y' does not come before: make what names it depend on it",
        "defaults.title: 'nope' is not known",
        "422 on_failure[0].command[0]: task 'zz' does not come before: make what names it depend on it",
        "phases[0].progress: its begin is after its end",
    ]
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    assert told(check(with_tasks({"metadata": {"a": deep}})))[0] == ": nested more than 80 levels deep"
    added = definition.extend(check(with_tasks({})).definition, {}, {}, {"x.": {"phase": deep}}, POLICY, BOUNDS)
    assert told(added) == ["x: nested more than 80 levels deep", "x.phase: required, but missing"]
    assert definition.head([])[1] and definition.head(deep)[1] and definition.head({"a": deep})[1]
    templated = {"name": "w", "report_every": "{{ params.d }}", "phases": [{"id": "p", "progress": "{{ params.x }}"}]}
    assert definition.head(templated)[1] == []
    for wrong in ({}, {"name": ""}, {"name": 5}, {"name": "x", "phases": {}}, {"name": "x", "phases": [[]]}):
        assert told(check(wrong)) != []
    # More than anybody would read is not looked for.
    many = with_tasks(*({"nope": 1} for _ in range(400)))
    assert 100 < len(check(many).faults) < 120


@pytest.mark.parametrize(("param", "given", "value"), [
    ({}, "x", "x"), ({}, None, None), ({}, 5, "expected a text, not a number"), (None, "x", "x"),
    ({"default": "d"}, None, "d"), ({"required": True}, None, "required, but missing"),
    ({"required": True, "default": "d"}, None, "d"),
    ({"type": "integer"}, 5, 5), ({"type": "integer"}, 5.0, "expected a whole number, not a number"),
    ({"type": "integer"}, True, "expected a whole number, not true or false"),
    ({"type": "integer"}, "5", "expected a whole number, not a text"),
    ({"type": "number"}, 5, 5), ({"type": "number"}, 0.5, 0.5),
    ({"type": "boolean"}, False, False), ({"type": "boolean"}, "false", "expected true or false, not a text"),
    ({"type": "list"}, [1, "x"], [1, "x"]), ({"type": "list"}, "x", "expected a list, not a text"),
    ({"type": "list", "enum": ["a", "b"]}, ["a", "c"], "not one of a, b"), ({"enum": [1, 2]}, 2, 2),
    ({"enum": ["python", "go"]}, "pyton", "not one of python, go (did you mean 'python'?)"),
    ({"default": False}, 1, "expected true or false, not a number"),
])  # fmt: skip
def test_parameters(param: Any, given: Any, value: Any) -> None:
    c = check({"name": "w", "params": {"p": param}}, {} if given is None else {"p": given})
    assert (told(c) == [] and c.params == {"p": value}) or told(c) == [f"params.p: {value}"]


def test_parameters_of_a_query_are_taken_for_what_they_spell() -> None:
    kinds = ("string", "integer", "number", "boolean", "list")
    raw = {"name": "w", "params": {kind: {"type": kind} for kind in kinds}}
    for given, value in (("5", ("5", 5, 5, None, ["5"])), ("true", ("true", None, None, True, ["true"])),
                         ("[1]", ("[1]", None, None, None, [1])), ("x", ("x", None, None, None, ["x"])),
                         ("1.5", ("1.5", None, 1.5, None, ["1.5"])), ("[" * 5000, None)):  # fmt: skip
        for n, kind in enumerate(kinds if value else ()):
            c = check(raw, {kind: given}, loose=True)
            assert (c.params[kind] if not c.faults else None) == value[n], (kind, given)
    assert told(check(raw, {"list": "[" * 5000}, loose=True)) == ["params.list: expected a list, not a text"]


def test_what_is_added_fits_to_what_is_there() -> None:
    base = check({"name": "w", "params": {"x": {}}, "defaults": {"timeout": "1h"}, "phases": [
        {"id": "p", "tasks": [{"id": "a", "command": ["x", "{{ params.x }}"]}]}, {"id": "q", "depends_on": ["p"]}],
    }, {"x": "{{ y }}"}).definition  # fmt: skip

    def extend(phases: dict[str, Any], tasks: dict[str, Any], bounds: Bounds = BOUNDS) -> Checked:
        return definition.extend(base, {"x": "{{ y }}"}, phases, tasks, POLICY, bounds, priority=5)

    phase = {"id": "r", "depends_on": ["q", "b"], "tasks": [{"id": "c", "command": ["{{ tasks.b.result }}"]}]}
    good = extend({"": phase}, {"tasks[0].": {"phase": "p", "id": "b", "command": ["{{ tasks.a.result }}"],
                                              "depends_on": ["a"]}})  # fmt: skip
    assert told(good) == []
    assert [(one.id, [step.id for step in one.tasks]) for one in good.definition.phases] == [
        ("p", ["a", "b"]), ("q", []), ("r", ["c"])]  # fmt: skip
    assert good.definition.phases[0].tasks[0] is base.phases[0].tasks[0]
    assert {name: (draft.spec.timeout, draft.priority) for name, draft in good.drafts.items()} == {
        "b": (3600, 5), "c": (3600, 5)}  # fmt: skip
    assert told(extend({"": {"id": "a", "depends_on": ["z"], "max_parallel": 0}}, {
        "tasks[0].": {"phase": "p", "id": "b", "command": ["x"], "depends_on": ["q"]},
        "tasks[1].": {"phase": "pp", "id": "c", "command": ["x"]},
        "tasks[2].": {"id": "d", "command": ["x"]},
        "tasks[3].": {"phase": "q", "id": "a", "command": ["{{ params.y }}"]},
    })) == [
        "max_parallel: expected `int` >= 1", "id: there is another 'a': phases and tasks share their names",
        "422 tasks[1].phase: there is no phase 'pp' (did you mean 'p'?)", "tasks[2].phase: required, but missing",
        "tasks[3].id: there is another 'a': phases and tasks share their names",
        "422 depends_on[0]: there is no phase or task 'z'",
        "422 tasks[0].depends_on[0]: a cycle: b → q → p → b",
        "tasks[3].command[0]: unknown parameter 'y'",
    ]  # fmt: skip
    assert told(extend({}, {"": {"phase": "p", "id": "b", "command": ["x"]}}, Bounds(tasks=1))) == [
        "422 : more than 1 tasks ([limits] workflow_tasks)"]  # fmt: skip


def test_a_circle_is_found_in_any_graph_and_what_comes_before_is_known() -> None:
    chance = random.Random(7)
    for _ in range(300):
        count = chance.randint(1, 4)
        names = [f"p{n}" for n in range(count)] + [f"t{n}" for n in range(chance.randint(0, 6))]
        owner = {name: chance.randrange(count) for name in names if name[0] == "t"}
        needs = {name: chance.sample(names, min(len(names), chance.choice((0, 0, 1, 1, 2)))) for name in names}
        phases = [
            Phase(id=f"p{n}", depends_on=needs[f"p{n}"],
                  tasks=[Step(id=t, depends_on=needs[t]) for t, phase in owner.items() if phase == n])
            for n in range(count)
        ]  # fmt: skip
        # The same without nodes: x waits for y if it, or its phase, names y, or y is in what x waits for.
        waits = {(x, y) for x in names for y in needs[x]}
        waits |= {(t, y) for t, n in owner.items() for y in needs[f"p{n}"]}
        waits |= {(f"end of p{n}", t) for t, n in owner.items()}
        waits |= {(f"end of {x}", y) for x, y in waits if x[0] == "p"}
        closed = {(x, f"end of {y}" if y[0] == "p" else y) for x, y in waits}
        while more := {(x, z) for x, y in closed for y2, z in closed if y == y2} - closed:
            closed |= more
        in_circle = {x for x, y in closed if x == y}
        order = Precedence(phases)
        assert bool(order.cycles) == bool(in_circle)
        for (who, what), circle in order.cycles:
            assert what in needs[who] and circle[0] == circle[-1] and len(circle) > 1
        if not in_circle:
            for x in names:
                for y in names:
                    assert order.comes_before(y, x) == ((x, f"end of {y}" if y[0] == "p" else y) in closed), (x, y)


def test_when_a_task_may_start() -> None:
    for text, found in (("+6d", (None, 518400)), ("go-ahead+2h", ("go-ahead", 7200)), ("+0s", (None, 0)),
                        ("+1.500s", (None, 1.5)), ("a+90.0s", ("a", 90))):  # fmt: skip
        assert not_before.read(text) == not_before.After(*found)
    assert not_before.read("1970-01-01T01:00:01+01:00") == 1000
    for text in ("", "6d", "+6", "+-6d", "a-2h", "9a+2h", "+6d ", "a+b+2h", "tomorrow", "2026-03-01", "+1.5h"):
        with pytest.raises(ValueError, match="expected"):
            not_before.read(text)


CHAIN = [
    {"id": f"t{n}", "command": ["echo", f"{{{{ tasks.t{n - 1}.result }}}}" if n else ""],
     "depends_on": [f"t{n - 1}"] if n else []}
    for n in range(5000)
]  # fmt: skip
LOOPS = "{% for a in [1,2,3,4,5,6,7,8,9] %}" * 5 + "{% endfor %}" * 5


@pytest.mark.parametrize(("raw", "given", "first"), [
    pytest.param({"name": "w", "phases": [{"id": "p", "tasks": CHAIN}]}, {}, None, id="chain", marks=pytest.mark.slow),
    pytest.param(
        {"name": "w", "phases": [{"id": "p", "tasks": [{"id": f"t{n}", "command": ["x"]} for n in range(10_000)]}]}, {},
        "422 phases[0].tasks[5000]: more than 5,000 tasks ([limits] workflow_tasks)", id="tasks",
    ),
    pytest.param(
        with_tasks(*({"depends_on": [f"t{m}" for m in range(max(0, n - 1000), n)]} for n in range(1000))), {},
        "422 phases: more than 100,000 dependencies in all: let phases depend on each other", id="dependencies",
    ),
    pytest.param(
        with_tasks(*({"stdin": "{{ params.x }}"} for _ in range(2000)), params={"x": {}}), {"x": "x" * 30_000}, None,
        id="texts",
    ),
    pytest.param(with_tasks(*({"stdin": LOOPS} for _ in range(20))), {},
                 f"{T}.stdin: too much work: more than 50,000 steps", id="work"),
    pytest.param(with_tasks(*({"stdin": "{{ 1 }}" * 1500} for _ in range(100))), {},
                 "422 : more than 250,000 words and signs in templates and expressions", id="words",
                 marks=pytest.mark.slow),
    pytest.param(with_tasks({"metadata": {"x": [[[[]]]] * 100}, "stdin": "{{" * 100_000}), {}, f"{T}.stdin: more than "
                 "10,000 words and signs", id="braces"),
])  # fmt: skip
def test_what_is_large_takes_little(raw: Any, given: dict[str, Any], first: str | None) -> None:
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (told(check(raw, given)) or [None])[0] == first
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_the_built_in_ones_are_right() -> None:
    """As far as it can be told without agents."""
    from orchestr8d.templates import BUILT_IN

    given = {"list": ["x"], "boolean": True, "integer": 1, "number": 1}
    for path in sorted(Path(BUILT_IN).glob("*.yaml")):
        raw = yaml_text.read(path.read_bytes())
        faults: list[Any] = []
        params = definition.read_params(raw, faults)
        required = {name: one for name, one in params.items() if one.required}
        asked = {name: given.get(one.type, one.enum[0] if one.enum else "x") for name, one in required.items()}
        assert (path.stem, faults, told(check(raw, asked))) == (path.stem, [], [])


def test_who_names_anothers_end_depends_on_it() -> None:
    tasks = [
        {"id": "late", "command": ["x"], "not_before": "first+2h"}, {"id": "first", "agent": "a", "prompt": "p"},
        {"id": "more", "agent": "a", "prompt": "p", "resume_from": "first"},
        {"id": "said", "command": ["x"], "not_before": "late+1s", "depends_on": ["late"]},
        {"id": "round", "command": ["x"], "not_before": "trip+1s", "depends_on": []},
        {"id": "trip", "command": ["x"], "depends_on": ["round"]},
    ]  # fmt: skip
    c = definition.check({"name": "n", "phases": [{"id": "p", "tasks": tasks}]}, {}, Policy(in_workflow=True), Bounds())
    assert {step.id: step.depends_on for step in c.definition.phases[0].tasks} == {
        "late": ["first"], "first": [], "more": ["first"], "said": ["late"], "round": [], "trip": ["round"],
    }  # fmt: skip
    assert [fault.path for fault in c.faults] == ["phases[0].tasks[4].not_before"]
