"""The life of a task over HTTP: submit, list, look, steer, result."""

import asyncio
import json

import msgspec
import pytest

from orchestr8d.core.outcome import Outcome


async def test_submit_answers_what_the_contract_says(api):
    async with api.http.post(
        api.url + "/api/v1/tasks", json={"command": ["make", "test"], "cwd": "/"}, headers=api.auth
    ) as response:
        assert response.status == 202
        answer = await response.json()
        assert response.headers["Location"] == f"/api/v1/tasks/{answer['task_id']}"
    assert answer.keys() == {
        "task_id", "status", "workflow_id", "estimated_duration", "check_status_url", "message"
    }  # fmt: skip
    assert answer["status"] == "queued"
    assert answer["check_status_url"] == f"/api/v1/tasks/{answer['task_id']}/status"
    status, task = await api.call("GET", f"/api/v1/tasks/{answer['task_id']}")
    assert status == 200
    assert task["id"] == task["task_id"] == answer["task_id"]
    assert (task["command"], task["attempts"], task["waiting_for"]) == (["make", "test"], [], [{"kind": "slot"}])
    fields = (
        "kind title status waiting_for agent command prompt cwd priority queue concurrency_key unique_key tags "
        "metadata user_id workflow_id phase schedule_id executor_id session_id retry_of retry_count max_retries "
        "next_retry_at depends_on created_at updated_at queued_at started_at completed_at result_type error usage"
    )
    assert set(fields.split()) <= task.keys()


async def test_a_batch_is_all_or_none(api):
    status, answer = await api.call("POST", "/api/v1/tasks:batch", {"tasks": [{"command": ["a"]}, {"command": ["b"]}]})
    assert status == 202
    assert len(answer["tasks"]) == 2
    bad = {"tasks": [{"command": ["a"]}, {"command": ["b"], "env": {"1x": ""}, "options": {"timeout": "1 h"}}]}
    status, answer = await api.call("POST", "/api/v1/tasks:batch", bad)
    assert status == 400
    assert [e["path"] for e in answer["errors"]] == ["tasks[1].options.timeout", "tasks[1].env.1x"]
    bad["tasks"][1]["options"] = {"max_retries": 101}
    status, answer = await api.call("POST", "/api/v1/tasks:batch", bad)
    assert [e["path"] for e in answer["errors"]] == ["tasks[1].env.1x", "tasks[1].options.max_retries"]
    _, listed = await api.call("GET", "/api/v1/tasks")
    assert len(listed["tasks"]) == 2
    status, _ = await api.call("POST", "/api/v1/tasks:batch", {"tasks": [{"command": ["a"]}] * 1001})
    assert status == 400


async def test_what_comes_later_is_not_there(api):
    status, answer = await api.call("POST", "/api/v1/tasks", {"command": ["a"], "workflow_id": "w"})
    assert (status, answer["errors"][0]["path"]) == (400, "workflow_id")
    task_id = await api.submit()
    status, answer = await api.call("POST", f"/api/v1/tasks/{task_id}/answer", {})
    assert (status, answer["type"]) == (404, "urn:orchestr8d:not-found")


async def test_faults_of_query_body_and_key_come_together(api):
    status, answer = await api.call(
        "POST", "/api/v1/tasks?wat=1", {"comand": ["a"]}, headers={"Idempotency-Key": "a b"}
    )
    assert status == 400
    assert [e["path"] for e in answer["errors"]] == ["wat", "Idempotency-Key", "comand", "command"]
    assert "did you mean 'command'" in answer["errors"][2]["message"]
    status, answer = await api.call("GET", "/api/v1/tasks?limt=3&queue=a&queue=b&limit=0&status=runing")
    assert status == 400
    assert {e["path"] for e in answer["errors"]} == {"limt", "queue", "limit"}
    status, answer = await api.call("GET", "/api/v1/tasks?status=queued,runing")
    assert "did you mean 'running'" in answer["errors"][0]["message"]


async def test_all_that_is_wrong_comes_in_one_answer(api):
    body = {
        "cwd": "x", "env": {"1A": "", "B": 1}, "comand": ["a"],
        "options": {"priority": "hihg", "depends_on": ["nope"], "max_retries": 1000, "timeout": "90s\n"},
    }  # fmt: skip
    status, answer = await api.call("POST", "/api/v1/tasks", body)
    expected = [
        "env.B", "comand", "options.priority", "options.timeout", "command", "env.1A", "cwd", "options.max_retries",
        "options.depends_on[0]",
    ]  # fmt: skip
    assert (status, [e["path"] for e in answer["errors"]]) == (400, expected)
    known = await api.submit()
    tasks = [{"command": ["a"], "cwd": "x"}, {"command": ["a"], "options": {"depends_on": [known, "nope"]}}, 3]
    status, answer = await api.call("POST", "/api/v1/tasks:batch", {"tasks": tasks})
    expected = ["tasks[2]", "tasks[0].cwd", "tasks[1].options.depends_on[1]"]
    assert (status, [e["path"] for e in answer["errors"]]) == (400, expected)
    status, answer = await api.call("POST", "/api/v1/tasks:batch", {"tasks": tasks[:2]})
    assert (status, [e["path"] for e in answer["errors"]]) == (400, expected[1:])
    status, answer = await api.call("POST", "/api/v1/tasks:batch", {"tasks": tasks[1:2]})
    assert (status, [e["path"] for e in answer["errors"]]) == (422, ["tasks[0].options.depends_on[1]"])
    patch = {"cwd": "x", "options": {"tgas": [], "run_at": "x"}}
    status, answer = await api.call("PATCH", f"/api/v1/tasks/{known}", patch)
    assert (status, [e["path"] for e in answer["errors"]]) == (400, ["options.tgas", "cwd", "options.run_at"])


async def test_metadata_too_deep_to_be_shown_is_refused(api):
    deep = {"a": json.loads("[" * 900 + "]" * 900)}
    status, answer = await api.call("POST", "/api/v1/tasks", {"command": ["a"], "options": {"metadata": deep}})
    assert (status, [e["path"] for e in answer["errors"]]) == (400, ["options.metadata"])
    task_id = await api.submit(metadata={"a": json.loads("[" * 63 + "]" * 63)})
    status, answer = await api.call("PATCH", f"/api/v1/tasks/{task_id}", {"options": {"metadata": deep}})
    assert (status, [e["path"] for e in answer["errors"]]) == (400, ["options.metadata"])
    assert (await api.call("GET", "/api/v1/tasks"))[0] == 200


async def test_lists_page_without_doubles_while_tasks_come(api):
    ids = [await api.submit(tags=["x"]) for _ in range(7)]
    seen, cursor = [], None
    while True:
        query = "/api/v1/tasks?limit=3&tag=x" + (f"&cursor={cursor}" if cursor else "")
        status, page = await api.call("GET", query)
        assert status == 200
        seen += [task["id"] for task in page["tasks"]]
        await api.submit(tags=["x"])
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids[::-1]
    _, page = await api.call("GET", "/api/v1/tasks?limit=3")
    for bad in ("x", page["next_cursor"][:-2], page["next_cursor"] + "AA", "AAAA", "%ff", "€"):
        status, _ = await api.call("GET", f"/api/v1/tasks?cursor={bad}")
        assert status == 400, bad
    status, _ = await api.call("GET", f"/api/v1/queues?cursor={page['next_cursor']}")
    assert status == 400


async def test_lists_filter(api):
    first = await api.submit("echo", "needle", tags=["a", "b"], queue="q1", user_id="ann")
    await api.submit("echo", "other", tags=["a"])
    for query in (
        "tag=a&tag=b", "queue=q1", "user_id=ann", "q=needle", f"tail={first[-8:]}", "status=queued,running&queue=q1"
    ):  # fmt: skip
        _, page = await api.call("GET", f"/api/v1/tasks?{query}")
        assert [task["id"] for task in page["tasks"]] == [first], query
        assert "attempts" not in page["tasks"][0]
    _, page = await api.call("GET", "/api/v1/tasks?status=completed")
    assert page == {"tasks": [], "next_cursor": None}


async def test_filters_have_so_many_values(api):
    first = await api.submit(tags=["a"])
    _, page = await api.call("GET", "/api/v1/tasks?" + "&".join(["tag=a"] * 500))
    assert [task["id"] for task in page["tasks"]] == [first]
    for query in ("&".join(f"tag={i}" for i in range(101)), "status=" + ",".join(str(i) for i in range(101))):
        status, answer = await api.call("GET", f"/api/v1/tasks?{query}")
        assert (status, len(answer["errors"])) == (400, 1)
    assert (await api.call("GET", "/api/v1/tasks?" + "&".join(f"tag={i}" for i in range(100))))[0] == 200


@pytest.mark.parametrize("path", ["", "/status", "/result", "/logs", "/attempts", "/events", "/files/x"])
async def test_an_unknown_task_is_404(api, path):
    for task_id in ("01900000-0000-7000-8000-000000000009", "x", "%00", "..%2f..%2fetc", "%F0%9F%8E%89"):
        status, answer = await api.call("GET", f"/api/v1/tasks/{task_id}{path}")
        assert (status, answer["type"]) == (404, "urn:orchestr8d:not-found")


async def test_result(api):
    task_id, attempt_id = await api.run()
    status, _ = await api.call("GET", f"/api/v1/tasks/{task_id}/result")
    assert status == 409
    await api.complete(task_id, attempt_id, b"\xc3\xa9\n")
    status, result = await api.call("GET", f"/api/v1/tasks/{task_id}/result")
    assert status == 200
    assert result["result"] == "é\n"
    assert (result["result_type"], result["exit_code"], result["output_bytes"]) == ("text", 0, 3)
    assert result["resources"] == {"cpu_seconds": 0.5, "max_rss_bytes": 1 << 20}
    task_id, attempt_id = await api.run()
    await api.complete(task_id, attempt_id, b'{"a": [1, null]}', "json")
    _, result = await api.call("GET", f"/api/v1/tasks/{task_id}/result")
    assert result["result"] == {"a": [1, None]}
    task_id, attempt_id = await api.run()
    await api.pool.finish(task_id, attempt_id, Outcome(status="completed", exit_code=0, result_type="file"))
    _, result = await api.call("GET", f"/api/v1/tasks/{task_id}/result")
    assert (result["result"], result["result_url"]) == (None, f"/api/v1/tasks/{task_id}/logs?stream=stdout")
    task_id, attempt_id = await api.run()
    await api.fail(task_id, attempt_id)
    _, result = await api.call("GET", f"/api/v1/tasks/{task_id}/result")
    assert (result["status"], result["error"]["kind"], result["exit_code"]) == ("failed", "exit", 3)
    _, [attempt] = await api.call("GET", f"/api/v1/tasks/{task_id}/attempts")
    assert (attempt["attempt"], attempt["status"], attempt["exit_code"]) == (1, "failed", 3)


async def test_cancel_of_what_waits_and_of_what_runs(api):
    task_id = await api.submit()
    status, task = await api.call("POST", f"/api/v1/tasks/{task_id}/cancel")
    assert (status, task["status"]) == (200, "cancelled")
    status, _ = await api.call("POST", f"/api/v1/tasks/{task_id}/cancel", {})
    assert status == 409
    task_id, _ = await api.run()
    status, task = await api.call("POST", f"/api/v1/tasks/{task_id}/cancel")
    assert (status, task["status"], task["attempts"][0]["status"]) == (200, "cancelled", "cancelled")
    api.pool.stubborn = True
    task_id, _ = await api.run()
    for wait in ("0", "0.05"):
        status, task = await api.call("POST", f"/api/v1/tasks/{task_id}/cancel?wait={wait}")
        assert (status, task["status"]) == (200, "running")


async def test_retry_makes_a_new_task(api):
    task_id, attempt_id = await api.run("false")
    status, _ = await api.call("POST", f"/api/v1/tasks/{task_id}/retry")
    assert status == 409
    await api.fail(task_id, attempt_id)
    headers = {"Idempotency-Key": "once"}
    status, new = await api.call("POST", f"/api/v1/tasks/{task_id}/retry", headers=headers)
    assert status == 202
    _, task = await api.call("GET", f"/api/v1/tasks/{new['task_id']}")
    assert (task["retry_of"], task["retry_count"], task["command"]) == (task_id, 0, ["false"])
    assert await api.call("POST", f"/api/v1/tasks/{task_id}/retry", headers=headers) == (200, new)
    # The same key for another task's retry is no repetition.
    other = await api.submit()
    await api.call("POST", f"/api/v1/tasks/{other}/cancel")
    status, _ = await api.call("POST", f"/api/v1/tasks/{other}/retry", headers=headers)
    assert status == 409


async def test_pause_resume_priority_and_patch(api):
    task_id = await api.submit()
    status, task = await api.call("POST", f"/api/v1/tasks/{task_id}/pause")
    assert (status, task["status"], task["waiting_for"]) == (200, "pending", [{"kind": "paused"}])
    assert (await api.call("POST", f"/api/v1/tasks/{task_id}/pause"))[0] == 409
    status, task = await api.call("POST", f"/api/v1/tasks/{task_id}/resume")
    assert (status, task["status"]) == (200, "queued")
    assert (await api.call("POST", f"/api/v1/tasks/{task_id}/resume"))[0] == 409
    status, task = await api.call("POST", f"/api/v1/tasks/{task_id}/priority", {"priority": "high"})
    assert (status, task["priority"]) == (200, 10)
    change = {"command": ["b"], "options": {"timeout": "1m", "tags": ["n"], "priority": -3}}
    status, task = await api.call("PATCH", f"/api/v1/tasks/{task_id}", change)
    assert (status, task["command"], task["options"]["timeout"], task["tags"], task["priority"]) == (
        200, ["b"], 60, ["n"], -3
    )  # fmt: skip
    _, page = await api.call("GET", "/api/v1/tasks?tag=n")
    assert [t["id"] for t in page["tasks"]] == [task_id]
    status, answer = await api.call("PATCH", f"/api/v1/tasks/{task_id}", {"command": [], "options": {"tgas": []}})
    assert (status, len(answer["errors"])) == (400, 2)
    assert await api.pool.claim()
    for method, path, body in (
        ("POST", "pause", None), ("POST", "priority", {"priority": 1}), ("PATCH", "", {"cwd": "/"})
    ):  # fmt: skip
        status, _ = await api.call(method, f"/api/v1/tasks/{task_id}/{path}".rstrip("/"), body)
        assert status == 409, path


async def test_what_was_not_used_yet_can_change_after_a_failure(api):
    task_id, attempt_id = await api.run(max_retries=1, retry_backoff={"base": "1h"})
    await api.fail(task_id, attempt_id)
    options = {
        "title": "T", "tags": ["x"], "metadata": {"a": 1}, "max_retries": 3, "retry_backoff": "fixed",
        "on_failure": "fail", "deadline": "1d", "priority": 4, "allow_failed": True,
    }  # fmt: skip
    status, task = await api.call("PATCH", f"/api/v1/tasks/{task_id}", {"options": options})
    assert (status, task["status"], task["title"], task["max_retries"], task["priority"]) == (
        200, "retrying", "T", 3, 4
    )  # fmt: skip
    assert (task["options"]["deadline"], task["options"]["allow_failed"]) == (86_400, True)
    for used in ({"command": ["b"]}, {"cwd": "/tmp"}, {"env": {"A": "1"}}, {"stdin": "x"}, *(
        {"options": {name: value}} for name, value in (
            ("check", ["a"]), ("timeout", 1), ("stall_timeout", 1), ("queue", "q"), ("concurrency_key", "k"),
            ("delay", 1),
        )
    )):  # fmt: skip
        status, answer = await api.call("PATCH", f"/api/v1/tasks/{task_id}", used)
        assert (status, "can no longer be changed" in answer["detail"]) == (409, True), used


async def test_a_full_queue_is_full_for_those_who_move_too(api):
    moved = await api.submit()
    await api.submit(queue="q")
    limits = api.services.store.limits
    api.services.store.limits = msgspec.structs.replace(limits, queue_depth=1)
    status, answer = await api.call("PATCH", f"/api/v1/tasks/{moved}", {"options": {"queue": "q"}})
    assert (status, answer["type"]) == (429, "urn:orchestr8d:rate-limited")
    assert (await api.call("PATCH", f"/api/v1/tasks/{moved}", {"options": {"queue": "r"}}))[0] == 200
    assert (await api.call("PATCH", f"/api/v1/tasks/{moved}", {"options": {"title": "T"}}))[0] == 200


async def test_unique_keys(api):
    first = await api.submit(unique_key="k")
    status, answer = await api.call("POST", "/api/v1/tasks", {"command": ["a"], "options": {"unique_key": "k"}})
    assert status == 409
    assert first in answer["detail"]
    existing = {"command": ["a"], "options": {"unique_key": "k", "on_conflict": "existing"}}
    status, answer = await api.call("POST", "/api/v1/tasks", existing)
    assert (status, answer["task_id"]) == (200, first)
    status, answer = await api.call("POST", "/api/v1/tasks", {"command": ["a"], "options": {"depends_on": ["nope"]}})
    assert (status, answer["errors"][0]["path"]) == (422, "options.depends_on[0]")


async def test_idempotency(api):
    body = json.dumps({"command": ["a"]}).encode()
    json_type = {"Content-Type": "application/json"}

    async def post(key: str, data: bytes, path: str = "/api/v1/tasks", token: str | None = None):
        headers = {**json_type, "Idempotency-Key": key} | ({"Authorization": f"Bearer {token}"} if token else {})
        return await api.call("POST", path, data=data, headers=headers)

    answers = await asyncio.gather(*[post("k1", body) for _ in range(8)])
    assert sorted(status for status, _ in answers) == [200] * 7 + [202]
    assert len({answer["task_id"] for _, answer in answers}) == 1
    assert (await post("k1", body + b" "))[0] == 409
    other = await api.make_token(scope="submit")
    assert (await post("k1", body, token=other))[0] == 202
    assert (await post("k1", b'{"tasks":[{"command":["a"]}]}', "/api/v1/tasks:batch"))[0] == 202
    assert (await post("k1", b'{"tasks":[{"command":["a"]}]}', "/api/v1/tasks:batch"))[0] == 200
    # One that failed leaves nothing behind.
    assert (await post("k2", b'{"command":[]}'))[0] == 400
    assert (await post("k2", body))[0] == 202
    for key in ("", "é", "a" * 256):
        assert (await post(key, body))[0] == 400, key
    _, page = await api.call("GET", "/api/v1/tasks")
    assert len(page["tasks"]) == 4


async def test_draining_refuses_submits_and_nothing_else(api):
    task_id = await api.submit()
    api.draining = True
    async with api.http.post(api.url + "/api/v1/tasks", json={"command": ["a"]}, headers=api.auth) as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
    assert (await api.call("GET", f"/api/v1/tasks/{task_id}"))[0] == 200
    assert (await api.call("GET", "/healthz"))[0] == 200
    assert (await api.call("GET", "/readyz"))[0] == 503
