"""Hooks over HTTP: always `{}`, and a task behind it with the rights of whoever sent the hook."""

from __future__ import annotations

import asyncio
import json
import time

import msgspec
import pytest

from orchestr8d import config
from orchestr8d.core import hooks
from tests.hook_samples import SAMPLES, sample

PATH = "/hooks/claude-code"


def rule(event, task=None, **more):
    made, faults = hooks.rule({"event": event, "task": task or {"command": ["true"]}, **more})
    assert made is not None, faults
    return made


async def tasks(api):
    _, answer = await api.call("GET", "/api/v1/tasks")
    return answer["tasks"]


async def send(api, hook, **more):
    assert await api.call("POST", PATH, hook, **more) == (200, {})


@pytest.fixture
async def worked(serve):
    """Starts an API whose rules are worked on."""
    running = []

    async def start(*rules):
        api = await serve(hooks=list(rules))
        running.append(asyncio.create_task(api.services.hooks.run()))
        return api

    yield start
    for task in running:
        task.cancel()


async def made(api, count):
    async with asyncio.timeout(10):
        while len(found := await tasks(api)) < count:
            await asyncio.sleep(0.005)
    return found


@pytest.mark.parametrize("hook", [*SAMPLES, {"hook_event_name": "NewEvent", "x": [1]}, {}, {"hook_event_name": None}])
async def test_every_hook_is_taken(api, hook):
    await send(api, hook)
    assert await tasks(api) == []


async def test_what_is_no_object_is_refused(api):
    for body in (b"[]", b"{", b'"x"', b"", b"null"):
        headers = {**api.auth, "Content-Type": "application/json"}
        async with api.http.post(api.url + PATH, data=body, headers=headers) as response:
            assert response.status == 400
            assert response.content_type == "application/problem+json"


async def test_a_rule_makes_a_task(worked):
    task = {"command": ["echo", "{{ hook.tool_name }}"], "cwd": "{{ hook.cwd }}", "options": {"tags": ["h"]}}
    api = await worked(rule("PostToolUse", task, tool_name="Bash"))
    await send(api, sample("PostToolUse"))
    [found] = await made(api, 1)
    assert (found["command"], found["cwd"], found["tags"]) == (["echo", "Bash"], "/home/user/work", ["h"])
    _, metrics = await api.call("GET", "/metrics")
    assert b'orchestr8d_hooks_total{outcome="submitted"} 1.0' in metrics


async def test_the_senders_rights_hold(worked):
    api = await worked(rule("Stop", {"command": ["a"], "options": {"user_id": "bob"}}), rule("SessionEnd"))
    ann = {"Authorization": f"Bearer {await api.make_token(scope='submit', user_id='ann')}"}
    await send(api, sample("Stop"), headers=ann)
    await send(api, sample("SessionEnd"), headers=ann)
    [found] = await made(api, 1)
    assert (found["command"], found["user_id"]) == (["true"], "ann")


async def test_a_task_sends_no_hooks(serve):
    api = await serve(hooks=[rule("Stop")])
    _, attempt_id = await api.run()
    inside = {"Authorization": f"Bearer {api.services.tokens.attempt_token(attempt_id)}"}
    assert (await api.call("POST", PATH, sample("Stop"), headers=inside))[0] == 403


async def test_of_debounced_hooks_one_task_is_made_of_the_last(worked):
    task = {"command": ["echo", "{{ hook.tool_use_id }}"]}
    api = await worked(rule("PostToolUse", task, debounce="1h"))
    for n in range(5):
        await send(api, sample("PostToolUse", tool_use_id=str(n)))
    await send(api, sample("PostToolUse", session_id="other"))
    found = await made(api, 2)
    assert len(found) == 2
    assert [one["command"][1] for one in found if len(one["command"][1]) == 1] == ["4"]
    assert {one["status"] for one in found} == {"pending"}


async def test_a_debounced_task_that_runs_is_replaced(worked):
    api = await worked(rule("Stop", debounce=0.05))
    await send(api, sample("Stop"))
    [first] = await made(api, 1)
    async with asyncio.timeout(10):
        while not (claims := await api.pool.claim()):
            await asyncio.sleep(0.01)
    assert claims[0].task.id == first["task_id"]
    await send(api, sample("Stop"))
    await made(api, 2)
    async with asyncio.timeout(10):
        while (await api.call("GET", f"/api/v1/tasks/{first['task_id']}"))[1]["status"] != "cancelled":
            await asyncio.sleep(0.01)


async def test_a_large_hook_is_answered_quickly(worked):
    api = await worked(rule("PostToolUse", {"command": ["echo", "{{ hook.tool_response.stdout|length }}"]}))
    hook = sample("PostToolUse", tool_response={"stdout": "x\n" * 200_000, "parts": [{"n": n} for n in range(1000)]})
    body = json.dumps(hook).encode()
    assert len(body) > 400_000
    took = []
    for _ in range(20):
        begun = time.monotonic()
        headers = {**api.auth, "Content-Type": "application/json"}
        async with api.http.post(api.url + PATH, data=body, headers=headers) as response:
            assert (response.status, await response.read()) == (200, b"{}")
        took.append(time.monotonic() - begun)
    assert sorted(took)[len(took) // 2] < 0.05
    assert (await made(api, 20))[0]["command"] == ["echo", "400000"]


async def test_rules_follow_a_reload(worked):
    api = await worked()
    await send(api, sample("Stop"))
    api.config = msgspec.structs.replace(api.config, hooks=[rule("Stop")])
    assert isinstance(api.config, config.Config)
    await send(api, sample("Stop"))
    assert len(await made(api, 1)) == 1
