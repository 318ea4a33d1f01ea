"""Starting workflows: what is found outside of the definition, what is refused, and that nobody else waits for it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestr8d import config_sections
from orchestr8d.core.errors import Problem
from orchestr8d.core.workflow_input import WorkflowIn
from orchestr8d.status_api import workflow_start
from orchestr8d.tokens import Caller
from tests.status_api.conftest import Api, running

ME = Caller(token_id="", name="me", scope="submit", user_id="me")
A_TASK = {"id": "t", "command": ["true"]}


def one(*tasks: dict[str, Any], **more: Any) -> WorkflowIn:
    return WorkflowIn(definition={"name": "w", "phases": [{"id": "p", "tasks": list(tasks)}]}, **more)


async def told(api: Api, asked: WorkflowIn, **more: Any) -> tuple[int, list[str]]:
    with pytest.raises(Problem) as error:
        await workflow_start.resolved(api.services, ME, asked, **more)
    return error.value.status, [f"{fault.path}: {fault.message}" for fault in error.value.faults]


@pytest.fixture
async def api(tmp_path: Path) -> Any:
    own = tmp_path / "own"
    own.mkdir()
    uses_of = {"round-a": "round-b", "round-b": "round-a", "one": "two", "two": "three", "three": "four"}
    for name, uses in uses_of.items():
        (own / f"{name}.yaml").write_text(
            f"name: {name}\nparams: {{n: {{type: integer, required: true}}}}\n"
            f"phases: [{{id: p, tasks: [{{id: t, workflow: {uses}, params: {{n: 1}}}}]}}]\n"
        )
    (own / "four.yaml").write_text("name: four\nparams: {n: {type: integer}}\nphases: []\n")
    async with running(tmp_path / "state", workflows=config_sections.WorkflowsConfig([str(own)])) as api:
        yield api


async def test_what_is_meant_is_found(api: Api, tmp_path: Path) -> None:
    made = await workflow_start.resolved(api.services, ME, one(
        {"id": "a", "agent": ["{{ 'no' }}-such-agent", "code-reviewer", "architect"], "prompt": "x"},
        {"id": "b", "workflow": "four", "params": {"n": "{{ round }}"}},
        {"id": "c", "command": ["x"], "priority": "low"},
        cwd=str(tmp_path), priority="high", tags=["a", "a"], deadline="1h",
    ))  # fmt: skip
    step = made.definition.phases[0].tasks[0]
    agent = made.drafts["a"].spec.agent
    assert step.task is not None and agent is not None and (step.task["agent"], agent.name) == ("code-reviewer",) * 2
    assert {name: draft.priority for name, draft in made.drafts.items()} == {"a": 10, "c": -10}
    assert {(draft.spec.cwd, draft.user_id) for draft in made.drafts.values()} == {(str(tmp_path), "me")}
    assert (made.cwd, made.user_id, made.priority, made.tags, made.deadline, made.start) == (
        str(tmp_path), "me", 10, ["a"], 3600, True)  # fmt: skip
    # Filled step by step.
    empty = await workflow_start.resolved(api.services, ME, WorkflowIn(name="later"))
    assert (empty.name, empty.start, empty.definition.phases) == ("later", False, [])
    built_in = await workflow_start.resolved(
        api.services, ME, WorkflowIn(template="four", name="mine", params={"n": "7"}), loose=True
    )
    assert (built_in.name, built_in.template, built_in.params) == ("mine", "four", {"n": 7})


async def test_everything_that_is_wrong_is_told(api: Api) -> None:
    assert await told(api, one({"id": "a", "agent": ["kod-reviewer", "nobody"], "prompt": "x"})) == (422, [
        "phases[0].tasks[0].agent: there is no agent 'kod-reviewer' (did you mean 'code-reviewer'?); "
        "there is no agent 'nobody'"])  # fmt: skip
    assert await told(api, one(
        {"id": "a", "agent": "kod-reviewer", "prompt": "x", "depends_on": ["a"], "max_retries": 1000},
        {"id": "b", "workflow": "round-a", "params": {"n": "x", "m": 1}},
        {"id": "c", "workflow": "fuor", "for_each": "[1"},
        {"id": "d", "workflow": "one", "params": {"n": "{{ round }}"}},
        cwd="x", callback_url="ftp://x", params={"x": 1},
    )) == (400, [
        "cwd: must be an absolute path: the daemon has a working directory of its own",
        "callback_url: expected a URL that begins with http:// or https://",
        "params.x: unknown parameter",
        "phases[0].tasks[0].depends_on[0]: a cycle: a → a",
        "phases[0].tasks[0].max_retries: at most 100 ([limits] max_retries)",
        "phases[0].tasks[2].for_each: unexpected end of template, expected ','.",
        "phases[0].tasks[0].agent: there is no agent 'kod-reviewer' (did you mean 'code-reviewer'?)",
        "phases[0].tasks[1].params.n: expected a whole number, not a text",
        "phases[0].tasks[1].params.m: unknown parameter",
        "phases[0].tasks[1].workflow: goes in circles: round-a → round-b → round-a",
        "phases[0].tasks[2].workflow: there is no template 'fuor' (did you mean 'four'?)",
        "phases[0].tasks[3].workflow: workflows in workflows go 3 deep at most: one → two → three → four",
    ])  # fmt: skip
    for asked, status, wrong in (
        (WorkflowIn(), 400, "template: give a template, a definition, or a name for what is filled step by step"),
        (one(A_TASK, template="four"), 400, "definition: give a template or a definition, not both"),
        (WorkflowIn(template="fuor"), 422, "template: there is no template 'fuor' (did you mean 'four'?)"),
        (WorkflowIn(template="one"), 400, "params.n: required, but missing"),
    ):
        found_status, found = await told(api, asked)
        assert (found_status, found[0]) == (status, wrong)
    assert (await told(api, one(A_TASK), depth=4))[1] == [
        ": workflows in workflows go 3 deep at most ([limits] depth)"]  # fmt: skip
    with pytest.raises(Problem, match="the user 'me' only"):
        await workflow_start.resolved(api.services, ME, one(A_TASK, user_id="you"))


async def test_what_is_released_is_held_against_the_same(api: Api) -> None:
    body = {"definition": one({"id": "t", "command": ["x", "{{ round }}"]}).definition, "priority": "high", "cwd": "/"}
    status, answer = await api.call("POST", "/api/v1/workflows", body)
    assert status == 202
    workflow = await api.services.store.workflow(answer["workflow_id"])
    view = await api.services.store.workflow_view(workflow.id)
    node = view.tasks[0].node
    body = {"command": ["x", "0"], "options": {"callback_url": "/internal/go"}}
    made = await workflow_start.made(api.services, workflow, node, body)
    assert (made.spec.command, made.spec.cwd, made.priority, made.user_id) == (["x", "0"], "/", 10, "local")
    for wrong, path in (({"command": "x"}, "command"),
                        ({"command": ["x"], "options": {"timeout": -1}}, "options.timeout"),
                        ({"agent": "nobody", "prompt": "x"}, "agent")):  # fmt: skip
        with pytest.raises(Problem) as error:
            await workflow_start.made(api.services, workflow, node, wrong)
        assert [fault.path for fault in error.value.faults] == [path]


@pytest.mark.slow
async def test_others_are_answered_meanwhile(api: Api) -> None:
    tasks = [{"id": f"t{n}", "command": ["x", f"{{{{ tasks.t{n - 1}.result }}}}" if n else ""],
              "depends_on": [f"t{n - 1}"] if n else []} for n in range(4000)]  # fmt: skip
    chain = {"name": "w", "phases": [{"id": "p", "tasks": [*tasks, {"id": "t0"}]}]}
    yaml = msgspec.json.encode({"name": "w", "phases": [{"id": "p", "tasks": [
        {"id": f"t{n}", "command": ["x"]} for n in range(10_000)]}]})  # fmt: skip
    as_yaml = {"Content-Type": "application/yaml"}
    slow = [
        asyncio.create_task(api.call("POST", "/api/v1/workflows", {"definition": chain})),
        asyncio.create_task(api.call("POST", "/api/v1/workflows", data=yaml, headers=as_yaml)),
    ]
    waits = []
    while not all(task.done() for task in slow):
        began = time.perf_counter()
        assert (await api.call("GET", "/api/v1/queues"))[0] == 200
        waits.append(time.perf_counter() - began)
        await asyncio.sleep(0.01)
    (status, answer), (status_2, answer_2) = [task.result() for task in slow]
    assert status == 400 and [fault["path"] for fault in answer["errors"]] == [
        "phases[0].tasks[4000]", "phases[0].tasks[4000].id"]  # fmt: skip
    assert status_2 == 422 and answer_2["errors"][0]["path"] == "phases[0].tasks[5000]"
    assert len(waits) > 5 and sorted(waits)[len(waits) // 2] < 0.3
