"""What a task asks for its end, over HTTP: how it is shown, who may ask for it, and how what follows is made."""

import pytest

from orchestr8d.config_sections import WebhooksConfig
from orchestr8d.core.errors import Problem
from orchestr8d.status_api import submit

NEXT = {"submit": {"command": ["echo", "{{ task.result }}"], "env": {"A": "secret"}, "stdin": "secret"}}


async def shown(api, task_id):
    _, task = await api.call("GET", f"/api/v1/tasks/{task_id}")
    return task["options"]


async def test_it_is_shown_changed_and_kept_by_a_retry(api):
    task_id = await api.submit(on_completion=["notification", NEXT], callback_url="http://localhost:1/x")
    options = await shown(api, task_id)
    assert options["on_completion"] == ["notification", {"submit": {"command": ["echo", "{{ task.result }}"]}}]
    assert (options["callback_url"], options["callback_method"]) == ("http://localhost:1/x", "POST")
    patch = {"options": {"on_completion": "callback_url", "callback_method": "PUT", "on_failure": "callback"}}
    status, _ = await api.call("PATCH", f"/api/v1/tasks/{task_id}", patch)
    assert status == 200
    status, answer = await api.call("PATCH", f"/api/v1/tasks/{task_id}", {"options": {"callback_url": None}})
    assert (status, [e["path"] for e in answer["errors"]]) == (400, ["options.on_completion", "options.on_failure"])
    [claim] = await api.pool.claim()
    await api.fail(task_id, claim.attempt.id)
    _, again = await api.call("POST", f"/api/v1/tasks/{task_id}/retry")
    options = again["options"]
    assert (options["on_completion"], options["callback_method"]) == (["callback_url"], "PUT")
    assert (await shown(api, await api.submit()))["on_completion"] == []


async def test_all_faults_come_at_once_with_their_paths(api):
    body = {"command": ["a"], "options": {"callback_url": "http://10.0.0.1/", "on_completion": [
        "go", {"submit": {"command": ["", 5], "cwd": "x"}}, {"submit": {"comand": ["a"]}},
    ]}}  # fmt: skip
    status, answer = await api.call("POST", "/api/v1/tasks", body)
    at = "options.on_completion"
    assert status == 400
    assert {e["path"] for e in answer["errors"]} == {
        f"{at}[1].submit.command[1]", f"{at}[2].submit.comand", "options.callback_url", f"{at}[0]",
        f"{at}[1].submit.cwd", f"{at}[2].submit.command",
    }  # fmt: skip
    for options in ({"on_completion": "go"}, {"callback_url": "/internal/go"}, {"on_completion": {"signal": "go"}}):
        status, answer = await api.call("POST", "/api/v1/tasks", {"command": ["a"], "options": options})
        assert (status, answer["type"]) == (422, "urn:orchestr8d:unprocessable"), options


async def test_the_configuration_says_where_callbacks_may_go(serve):
    api = await serve(webhooks=WebhooksConfig(allow=["10.0.0.0/8"]))
    await api.submit(callback_url="http://10.0.0.1/")
    status, _ = await api.call(
        "POST", "/api/v1/tasks", {"command": ["a"], "options": {"callback_url": "http://127.0.0.1/"}}
    )  # fmt: skip
    assert status == 400


@pytest.mark.parametrize("deep", [False, True])
async def test_a_token_cannot_ask_for_what_it_may_not_submit(api, deep):
    follow = {"agent": "general-purpose", "prompt": "go"}
    if deep:
        follow = {"command": ["true"], "options": {"on_completion": ["none", {"submit": follow}][1]}}
    options = {"on_completion": [{"submit": follow}]}
    token = await api.make_token(scope="submit", runners=["command"])
    headers = {"Authorization": f"Bearer {token}"}
    status, _ = await api.call("POST", "/api/v1/tasks", {"command": ["a"], "options": options}, headers=headers)
    assert status == 403
    plain = await api.submit()
    status, _ = await api.call("PATCH", f"/api/v1/tasks/{plain}", {"options": options}, headers=headers)
    assert status == 403
    assert (await shown(api, plain))["on_completion"] == []
    status, _ = await api.call("POST", "/api/v1/tasks", {"command": ["a"], "options": {}}, headers=headers)
    assert status == 202
    await api.submit(**options)


async def test_what_follows_is_held_against_the_rules_of_its_time(api):
    task_id, attempt_id = await api.run(on_completion=NEXT, user_id="ann")
    await api.complete(task_id, attempt_id)
    [due] = await api.services.store.followups(0, 10)
    for wrong in ({"command": ["a\0"]}, {"command": [5]}, {"agent": "nobody-knows", "prompt": "x"}):
        with pytest.raises(Problem):
            await submit.follow_up(api.services, due, wrong)
    api.draining = True
    with pytest.raises(Problem) as caught:
        await submit.follow_up(api.services, due, {"command": ["echo"]})
    assert caught.value.kind == "unavailable"
    api.draining = False
    made = await submit.follow_up(api.services, due, {"command": ["echo"]})
    _, task = await api.call("GET", f"/api/v1/tasks/{made}")
    assert (task["user_id"], task["metadata"]) == ("ann", {"followup_of": task_id})
    assert await submit.follow_up(api.services, due, {"command": ["echo"]}) is None


@pytest.mark.parametrize("part", [
    {"command": 5}, {"command": ["a"], "env": {"A": 1}}, {"command": ["a"], "options": {"timeout": "x"}}, 3,
    {"command": ["a"], "options": 3}, {"command": ["a"], "options": {"on_completion": [3, {"submit": {"prompt": []}}]}},
])  # fmt: skip
async def test_half_a_task_that_is_to_follow_is_explained(api, part):
    task_id = await api.submit()
    for method, path in (("POST", "/api/v1/tasks"), ("PATCH", f"/api/v1/tasks/{task_id}")):
        body = {"options": {"on_completion": [{"submit": part}, "go"]}}
        status, answer = await api.call(method, path, body if method == "PATCH" else body | {"command": ["a"]})
        assert status == 400, answer
        paths = [e["path"] for e in answer["errors"]]
        assert any(path.startswith("options.on_completion[0].submit") for path in paths), paths
        assert "options.on_completion[1]" in paths
