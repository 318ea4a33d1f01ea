"""Queues, executors, tokens, health, metrics, and the OpenAPI document."""

import json

import pytest

from orchestr8d.status_api.app import table


async def test_queues(api):
    await api.submit(queue="a")
    status, queue = await api.call("PUT", "/api/v1/queues/b", {"limit": 2, "rate": "30/m"})
    assert (status, queue) == (
        200, {"name": "b", "limit": 2, "rate": "30/m", "paused": False, "depth": 0, "running": 0}
    )  # fmt: skip
    status, queue = await api.call("PUT", "/api/v1/queues/b", {"limit": None})
    assert (queue["limit"], queue["rate"]) == (None, "30/m")
    status, queue = await api.call("POST", "/api/v1/queues/a/pause")
    assert (status, queue["paused"], queue["depth"]) == (200, True, 1)
    _, page = await api.call("GET", "/api/v1/tasks?queue=a")
    assert page["tasks"][0]["waiting_for"] == [{"kind": "queue_paused", "name": "a"}]
    status, queue = await api.call("POST", "/api/v1/queues/a/resume")
    assert (status, queue["paused"]) == (200, False)
    status, first = await api.call("GET", "/api/v1/queues?limit=1")
    status, rest = await api.call("GET", f"/api/v1/queues?cursor={first['next_cursor']}")
    assert {"a", "b"} <= {q["name"] for q in first["queues"] + rest["queues"]}
    for body in ({"limit": 0}, {"limit": "x"}, {"rate": "0/m"}, {"rate": "5/00m"}, {"rate": "fast"}, {"limti": 1},
                 {"rate": "5/m\n"}):  # fmt: skip
        assert (await api.call("PUT", "/api/v1/queues/b", body))[0] == 400, body
    for name in ("%00", "a%2fb", "%20", "a" * 200, "%C3%A9", "a%0a"):
        assert (await api.call("PUT", f"/api/v1/queues/{name}", {"limit": 1}))[0] == 400, name


async def test_executors(api):
    status, answer = await api.call("GET", "/api/v1/executors")
    assert status == 200
    [executor] = answer["executors"]
    assert executor.keys() == {
        "id", "host", "pid", "version", "started_at", "heartbeat_at", "labels", "slots", "running", "state"
    }  # fmt: skip


async def test_tokens(api):
    body = {"name": "ci", "scope": "submit", "user_id": "ann", "runners": ["command"], "expires": "30d"}
    headers = {"Idempotency-Key": "t1"}
    status, made = await api.call("POST", "/api/v1/tokens", body, headers=headers)
    assert status == 201
    assert made["token"].startswith("o8d_")
    assert await api.call("POST", "/api/v1/tokens", body, headers=headers) == (200, made)
    status, listed = await api.call("GET", "/api/v1/tokens")
    assert [t["token_id"] for t in listed["tokens"]] == [made["token_id"]]
    assert "token" not in listed["tokens"][0]
    stored = (api.state / "o.db").read_bytes() + (api.state / "o.db-wal").read_bytes()
    assert made["token"].encode() not in stored
    for wrong in ({"scope": "root"}, {"name": ""}, {"expires": "yesterday"}, {"expires": "2020-01-01T00:00:00Z"},
                  {"expires": "2099-01-01T00:00:00"}, {"expires": -1}, {"expires": "0s"}, {"expires": "90s\n"},
                  {"runners": ["command\n"]}, {"runners": []}):  # fmt: skip
        status, answer = await api.call("POST", "/api/v1/tokens", {"name": "x", "scope": "read"} | wrong)
        assert (status, len(answer["errors"])) == (400, 1), wrong
    status, made = await api.call(
        "POST", "/api/v1/tokens", {"name": "x", "scope": "read", "expires": "2099-01-01T01:00:00+01:00"}
    )
    assert (status, made["expires_at"]) == (201, "2099-01-01T00:00:00.000Z")


async def test_health_and_readiness(api):
    assert await api.call("GET", "/healthz") == (200, {"status": "ok"})
    assert await api.call("GET", "/readyz") == (200, {"status": "ready"})
    api.services.health = lambda: {"status": "writer dead"}
    assert await api.call("GET", "/healthz") == (503, {"status": "writer dead"})
    assert await api.call("GET", "/readyz") == (503, {"status": "failing"})


async def test_metrics(api):
    task_id, attempt_id = await api.run()
    await api.complete(task_id, attempt_id)
    task_id, attempt_id = await api.run(queue="q2")
    await api.fail(task_id, attempt_id)
    await api.submit()
    await api.call("GET", "/nope")
    status, body = await api.call("GET", "/metrics")
    assert status == 200
    lines = set(body.decode().split("\n"))
    for line in (
        'orchestr8d_submitted_total{kind="command",queue="default"} 2.0',
        'orchestr8d_tasks_total{kind="command",queue="default",status="completed"} 1.0',
        'orchestr8d_tasks_total{kind="command",queue="q2",status="failed"} 1.0',
        'orchestr8d_failures_total{error="exit",kind="command"} 1.0',
        'orchestr8d_attempts_total{kind="command",queue="q2"} 1.0',
        'orchestr8d_queue_wait_seconds_count{queue="q2"} 1.0',
        'orchestr8d_run_seconds_count{kind="command"} 2.0',
        'orchestr8d_queue_depth{queue="default"} 1.0',
        'orchestr8d_http_requests_total{method="POST",route="/api/v1/tasks",status="202"} 3.0',
        'orchestr8d_http_requests_total{method="other",route="unknown",status="404"} 1.0',
        "orchestr8d_running 0.0",
        "orchestr8d_slots 4.0",
    ):
        assert line in lines, (line, body.decode())
    for name in ("commits_total", "commit_batch_size_count", "commit_seconds_count"):
        assert any(line.startswith(f"orchestr8d_{name} ") for line in lines), name


async def test_the_document_has_every_route(api):
    status, document = await api.call("GET", "/openapi.json")
    assert (status, document["openapi"]) == (200, "3.1.0")
    for route in table("0"):
        operation = document["paths"][route.template][route.method.lower()]
        assert {"200", "202", "201", "204"} & operation["responses"].keys()
        if route.scope is not None:
            assert {"400", "401", "403", "503"} <= operation["responses"].keys()
        if route.writes:
            assert {"413", "415"} <= operation["responses"].keys()
            assert "application/json" in operation["requestBody"]["content"]
    assert sum(map(len, document["paths"].values())) == len(table("0"))
    assert "\\Z" not in json.dumps(document)  # no word of ECMA's patterns
    names = [o["operationId"] for path in document["paths"].values() for o in path.values()]
    assert len(set(names)) == len(names)
    submit = document["paths"]["/api/v1/tasks"]["post"]
    assert "Location" in submit["responses"]["202"]["headers"]
    assert {p["name"] for p in submit["parameters"]} == {"Idempotency-Key"}
    text = json.dumps(document)
    for ref in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert ref in document["components"]["schemas"], ref


@pytest.mark.parametrize("path", ["/docs", "/", "/mcp"])
async def test_what_comes_later_does_not_exist(api, path):
    assert (await api.call("GET", path))[0] == 404
