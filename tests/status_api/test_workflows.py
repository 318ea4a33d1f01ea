"""Workflows over HTTP: started, filled, steered and read; what tokens may do with them, those of tasks above all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestr8d import config_sections
from orchestr8d.core.model import Error, Usage
from orchestr8d.core.outcome import Outcome, failed
from tests.status_api.conftest import Api, running

W = "/api/v1/workflows"
TRUE = {"command": ["true"]}
PLAN = {
    "name": "plan",
    "params": {"what": {"required": True}, "times": {"type": "integer", "default": 1}},
    "phases": [
        {"id": "first", "progress": [0, 40], "tasks": [{"id": "look", **TRUE, "env": {"KEY": "secret"}},
                                                       {"id": "read", "command": ["read", "{{ params.what }}"]}]},
        {"id": "second", "title": "Second", "depends_on": ["first"], "tasks": [
            {"id": "ask", "approval": "Ship {{ params.what }}?"},
            {"id": "ship", **TRUE, "depends_on": ["ask"], "wait_for": ["go"]}]},
    ],
    "on_failure": [{"id": "undo", **TRUE}],
}  # fmt: skip
NOWHERE = "01900000-0000-7000-8000-000000000009"


class Flow:
    """An API with an engine, whose tasks end when a test says so."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.call = api.call
        self.claims: dict[str, tuple[str, str]] = {}

    async def start(self, definition=None, headers=None, **more) -> str:
        body = {"definition": definition or {"name": "w", "phases": [{"id": "p", "tasks": [{"id": "t", **TRUE}]}]}}
        status, answer = await self.call("POST", W, body | more, headers=headers or {})
        assert status == 202, answer
        return answer["workflow_id"]

    async def run(self, name: str, workflow_id: str | None = None) -> tuple[str, str]:
        """Waits until a task (by its local id) runs; its id, and that of its attempt."""
        async with asyncio.timeout(5):
            while True:
                ready = self.api.services.bus.next()
                for claim in await self.api.pool.claim(4):
                    self.claims[claim.task.local_id or claim.task.id] = (claim.task.id, claim.attempt.id)
                if name in self.claims:
                    return self.claims[name]
                await ready

    async def end(self, name: str, outcome: Outcome | None = None) -> None:
        task_id, attempt_id = await self.run(name)
        del self.claims[name]
        done = Outcome(status="completed", exit_code=0, result=f"{name}\n".encode(), result_type="text")
        await self.api.pool.finish(task_id, attempt_id, outcome or done)

    async def until(self, workflow_id: str, what, path: str = "") -> dict:
        """Waits until `what` holds of what GET answers."""
        async with asyncio.timeout(5):
            while True:
                ready = self.api.services.bus.next()
                status, answer = await self.call("GET", f"{W}/{workflow_id}{path}")
                assert status == 200, answer
                if what(answer):
                    return answer
                await ready

    async def task(self, workflow_id: str, name: str) -> dict:
        _, answer = await self.call("GET", f"{W}/{workflow_id}/tasks")
        [found] = [task for task in answer["tasks"] if task["id"] == name]
        return found

    def inside(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.api.services.tokens.attempt_token(self.claims[name][1])}"}


@pytest.fixture
async def flow(tmp_path: Path) -> AsyncIterator[Flow]:
    async with running(tmp_path / "state") as api:
        api.services.bus.observe_work("workflows", api.engine.hint)
        running_engine = asyncio.create_task(api.engine.run())
        yield Flow(api)
        running_engine.cancel()


async def test_from_start_to_end(flow):
    call = flow.call
    status, answer = await call("POST", W, {"definition": PLAN, "params": {"what": "it"}, "tags": ["x"], "user_id": "u",
                                            "metadata": {"n": 1}, "callback_url": "http://127.0.0.1:1/"})  # fmt: skip
    assert (status, answer["status"]) == (202, "running")
    one = answer["workflow_id"]
    assert answer["check_status_url"] == f"{W}/{one}/status"
    look = await flow.task(one, "look")
    assert (look["status"], look["started_at"]) == ("queued", None)
    await flow.run("read")
    stands = await flow.until(one, lambda w: True, "/status")
    assert stands["progress"] == {"percent": 0, "current_step": "first: look, read", "estimated_time_remaining": None}
    assert [(p["id"], p["title"], p["status"], p["progress"], p["depends_on"]) for p in stands["phases"]] == [
        ("first", None, "running", [0, 40], []), ("second", "Second", "pending", [40, 100], ["first"])
    ]  # fmt: skip
    assert stands["counts"] == {"running": 2, "pending": 3}
    read = await flow.task(one, "read")
    assert (read["command"], read["status"], read["attempt"]) == (["read", "it"], "running", 1)
    ship = await flow.task(one, "ship")
    assert ship["depends_on"] == ["ask"]
    assert {(w["kind"], w["name"]) for w in ship["waiting_for"]} == {
        ("workflow_task", "ask"), ("workflow_task", "second")
    }  # fmt: skip
    used = Outcome(status="completed", exit_code=0, result=b'{"a": 1}', result_type="json", usage=Usage(cost_usd=0.5))
    await flow.end("look", used)
    await flow.end("read")
    stands = await flow.until(one, lambda w: w["status"] == "blocked", "/status")
    assert [(w["kind"], w["name"]) for w in stands["waiting_for"]] == [("approval", "ask")]
    assert (stands["progress"]["percent"], stands["usage"]["cost_usd"]) == (40, 0.5)
    look = await flow.task(one, "look")
    assert (look["result"], look["output"], look["exit_code"]) == ('{"a": 1}', {"a": 1}, 0)
    ask = await flow.task(one, "ask")
    assert (ask["approval"], ask["status"], [w["kind"] for w in ask["waiting_for"]]) == (
        "Ship it?", "pending", ["approval"]
    )  # fmt: skip
    status, alone = await call("GET", f"/api/v1/tasks/{ask['task_id']}")
    assert (status, [w["kind"] for w in alone["waiting_for"]]) == (200, ["approval"])
    assert (await call("POST", f"{W}/{one}/tasks/ship/approve"))[0] == 409
    status, answer = await call("POST", f"{W}/{one}/tasks/ask/approve", {"comment": "fine"})
    assert (status, answer["status"], answer["result"]) == (200, "completed", "fine")
    assert (await call("POST", f"{W}/{one}/tasks/ask/reject"))[0] == 409
    stands = await flow.until(one, lambda w: w["waiting_for"], "/status")
    assert [(w["kind"], w["name"]) for w in stands["waiting_for"]] == [("signal", "go")]
    status, sent = await call("POST", f"{W}/{one}/signals/go", [1, None])
    assert (status, sent["name"], sent["payload"]) == (200, "go", [1, None])
    await flow.end("ship")
    whole = await flow.until(one, lambda w: w["status"] == "completed")
    assert whole["progress"]["percent"] == 100
    assert whole["progress"]["current_step"] is None
    assert whole["estimated_completion"] is None
    assert whole["completed_at"] is not None
    assert whole["counts"] == {"completed": 4, "skipped": 1}
    assert (whole["id"], whole["params"], whole["tags"]) == (one, {"what": "it", "times": 1}, ["x"])
    assert (whole["user_id"], whole["metadata"]) == ("u", {"n": 1})
    assert "secret" not in str(whole["definition"])
    status, text = await call("GET", f"{W}/{one}/report")
    assert (status, text.decode().startswith("# plan: completed")) == (200, True)
    for verb in ("start", "pause", "resume", "cancel", "retry"):
        assert (await call("POST", f"{W}/{one}/{verb}"))[0] == 409, verb
    for path, body in (("phases", {"id": "z"}), ("tasks", {"phase": "first", "id": "z", **TRUE})):
        assert (await call("POST", f"{W}/{one}/{path}", body))[0] == 409, path


async def test_a_dry_run_stores_nothing_and_yaml_is_a_bare_definition(flow):
    call = flow.call
    status, answer = await call("POST", W, {"definition": PLAN, "params": {"what": "it"}, "dry_run": True})
    assert status == 200
    first = answer["definition"]["phases"][0]["tasks"]
    assert first[0]["command"] == ["true"]
    assert first[0]["env"] == {"KEY": "secret"}
    assert {"from": "first", "to": "second"} in answer["graph"]["edges"]
    assert {n["id"] for n in answer["graph"]["nodes"]} == {"first", "look", "read", "second", "ask", "ship", "undo"}
    assert (await call("GET", W))[1] == {"workflows": [], "next_cursor": None}

    text = b"""
    name: typed
    params: {n: {type: integer}, yes: {default: false}, l: {type: list}, s: {type: string, required: true}}
    phases: [{id: p, tasks: [{id: t, command: ["true", "{{ params.s }}"]}]}]
    """
    headers = {"Content-Type": "application/yaml"}
    for key, query, expected in (
        (None, "?n=3&yes=true&l=a&l=b&s=4", 202), ("k", "?n=3&s=4", 202), ("k", "?n=3&s=4", 200),
        ("k", "?n=3&s=5", 409),
        (None, "?n=three&s=4", 400), (None, "", 400), (None, "?s=1&m=2", 400),
    ):  # fmt: skip
        more = headers | ({"Idempotency-Key": key} if key else {})
        status, answer = await call("POST", W + query, data=text, headers=more)
        assert status == expected, (query, answer)
    _, answer = await call("GET", W, params={"name": "typed", "limit": 1})
    cursor = answer["next_cursor"]
    _, rest = await call("GET", W, params={"name": "typed", "cursor": cursor})
    _, whole = await call("GET", f"{W}/{rest['workflows'][0]['id']}")
    assert whole["params"] == {"n": 3, "yes": True, "l": ["a", "b"], "s": "4"}
    for bad in (b"[1]", b"a: b: c", b"a: 1\na: 2", b"\xff"):
        status, answer = await call("POST", W, data=bad, headers=headers)
        assert (status, answer["errors"][0]["path"]) == (400, ""), bad
    assert (await call("POST", f"{W}/x/tasks", data=b"a: 1", headers=headers))[0] == 415


async def test_all_that_is_wrong_is_told_at_once(flow):
    phases = [
        {"id": "p", "depends_on": ["q"], "tasks": [{"id": "a", "agent": "nobody-knows", "prompt": "x"},
                                                   {"id": "a", "comand": ["x"]}]},
        {"id": "q", "depends_on": ["p"], "tasks": [{"id": "b", "command": ["{{ tasks.zzz.result }}"]}]},
    ]  # fmt: skip
    status, answer = await flow.call("POST", W, {"definition": {"name": "n", "phases": phases}, "template": "x"})
    assert status == 400
    paths = {fault["path"] for fault in answer["errors"]}
    at = "phases[0].tasks"
    assert {"definition", f"{at}[1].comand", f"{at}[1].id", f"{at}[0].agent"} <= paths, paths
    status, answer = await flow.call("POST", W, {"definition": {"name": "n"}, "nam": 1, "priority": "x"})
    assert (status, {fault["path"] for fault in answer["errors"]}) == (400, {"nam", "priority"})
    for body, expected in (({}, 400), ({"template": "no-such"}, 422), ({"template": "add-featur"}, 422)):
        status, answer = await flow.call("POST", W, body)
        assert status == expected, answer
    assert "add-feature" in answer["detail"]


async def test_step_by_step(flow):
    call = flow.call
    status, answer = await call("POST", W, {"name": "by hand"})
    assert (status, answer["status"]) == (202, "pending")
    one = answer["workflow_id"]
    assert (await call("POST", f"{W}/{one}/start"))[0] == 409  # there is nothing in it
    first = {"id": "first", "title": "First", "tasks": [{"id": "a", **TRUE}]}
    for expected in (201, 200):
        status, answer = await call("POST", f"{W}/{one}/phases", first, headers={"Idempotency-Key": "p"})
        assert (status, answer["phase"], [t["id"] for t in answer["tasks"]]) == (expected, "first", ["a"])
    status, answer = await call("POST", f"{W}/{one}/phases", first)
    assert status == 400, answer
    assert answer["errors"][0]["path"] == "id"
    b, c = ({"phase": "first", "id": name, **TRUE} for name in "bc")
    status, answer = await call("POST", f"{W}/{one}/tasks", {"tasks": [b, c | {"depends_on": ["b"]}]})
    assert (status, [(t["id"], t["phase"], t["status"]) for t in answer["tasks"]]) == (
        202, [("b", "first", "pending"), ("c", "first", "pending")]
    )  # fmt: skip
    for body, paths in (
        ({"phase": "frist", "id": "x", **TRUE}, ["phase"]),
        ({"tasks": [{"phase": "first", "id": "x", **TRUE}, {"phase": "first", "id": "y", "command": [1]}]},
         ["tasks[1].command[0]"]),
        ({"tasks": [{"phase": "first", "id": "x", **TRUE}], "phase": "first"}, ["phase"]),
        ({"phase": "first", "id": "x", **TRUE, "timout": 3}, ["timout"]),
        ({"phase": "first", "id": "x", **TRUE, "depends_on": ["nope"]}, ["depends_on[0]"]),
        ({"tasks": []}, ["tasks"]),
    ):  # fmt: skip
        status, answer = await call("POST", f"{W}/{one}/tasks", body)
        assert status in (400, 422), body
        assert [fault["path"] for fault in answer["errors"]] == paths
    _, answer = await call("GET", f"{W}/{one}/tasks")
    assert [task["id"] for task in answer["tasks"]] == ["a", "b", "c"]
    assert [w["kind"] for w in answer["tasks"][0]["waiting_for"]][:1] == ["paused"]
    status, answer = await call("POST", f"{W}/{one}/start")
    assert (status, answer["status"]) == (200, "running")
    await flow.end("a")
    status, _ = await call("POST", f"{W}/{one}/tasks", {"phase": "first", "id": "d", **TRUE, "depends_on": ["a"]})
    assert status == 202  # while it runs
    for name in "bcd":
        await flow.end(name)
    await flow.until(one, lambda w: w["status"] == "completed")
    for path, body in (("phases", {"id": "z"}), ("tasks", {"phase": "first", "id": "z", **TRUE})):
        assert (await call("POST", f"{W}/{one}/{path}", body))[0] == 409, path


async def test_steering(flow):
    call = flow.call
    tasks = [{"id": "a", **TRUE}, {"id": "b", **TRUE, "depends_on": ["a"]}]
    one = await flow.start({"name": "w", "phases": [{"id": "p", "tasks": tasks}]})
    await flow.run("a")
    status, answer = await call("POST", f"{W}/{one}/pause")
    assert (status, answer["status"], [w["kind"] for w in answer["waiting_for"]]) == (200, "paused", ["paused"])
    assert (await call("POST", f"{W}/{one}/pause"))[0] == 409
    await flow.end("a")
    assert await flow.api.pool.claim(4) == []
    status, answer = await call("POST", f"{W}/{one}/resume")
    assert (status, answer["status"]) == (200, "running")
    await flow.run("b")
    status, answer = await call("POST", f"{W}/{one}/milestones", {"text": "half"})
    assert (status, [m["text"] for m in answer["milestones"]]) == (200, ["half"])
    polled = asyncio.create_task(call("GET", f"{W}/{one}/status?wait=20"))
    flow.api.pool.stubborn = True
    status, answer = await call("POST", f"{W}/{one}/cancel?wait=0")
    assert (status, answer["status"]) == (200, "running")
    waits = asyncio.create_task(call("POST", f"{W}/{one}/cancel"))
    while len(flow.api.services.waits._waiting) < 2:  # the poll, and the cancel
        await asyncio.sleep(0)
    await flow.end("b", Outcome(status="cancelled"))
    status, answer = await waits
    assert (status, answer["status"], answer["counts"]) == (200, "cancelled", {"completed": 1, "cancelled": 1})
    status, answer = await polled
    assert (status, answer["status"]) == (200, "cancelled")
    for body, expected in (({"from": "q"}, 422), ({"phase": "p"}, 400), ({"from": "p"}, 200)):
        status, answer = await call("POST", f"{W}/{one}/retry", body)
        assert status == expected, answer
    assert answer["status"] == "running"
    for name in "ab":
        await flow.end(name)
    await flow.until(one, lambda w: w["status"] == "completed")
    assert (await call("GET", f"{W}/{one}/status?wait=20&until=final"))[1]["status"] == "completed"
    undone = await flow.start({"name": "w", "phases": [{"id": "p", "tasks": [{"id": "c", **TRUE}]}],
                               "on_failure": [{"id": "undo", **TRUE}]})  # fmt: skip
    await flow.end("c", Outcome(status="failed", error=Error("exit", "no")))
    await flow.run("undo")
    waits = asyncio.create_task(call("POST", f"{W}/{undone}/cancel"))
    while not flow.api.services.waits._waiting:
        assert not waits.done(), "it has not waited for what runs"
        await asyncio.sleep(0)
    await flow.end("undo", Outcome(status="cancelled"))
    status, answer = await waits
    assert (status, answer["status"]) == (200, "cancelled")
    for method, path in (("GET", ""), ("GET", "/status"), ("GET", "/tasks"), ("GET", "/graph"), ("GET", "/report"),
                         ("POST", "/start"), ("POST", "/pause"), ("POST", "/resume"), ("POST", "/cancel"),
                         ("POST", "/retry"), ("POST", "/signals/x"), ("POST", "/tasks/t/approve")):  # fmt: skip
        assert (await call(method, f"{W}/{NOWHERE}{path}"))[0] == 404, path
    assert (await call("POST", f"{W}/{one}/tasks/nope/approve"))[0] == 404
    assert (await call("POST", f"{W}/{one}/signals/a%20b"))[0] == 400


async def test_signals_take_any_json(flow):
    one = await flow.start()
    for sent, expected in ((b"", None), (b"null", None), (b"0", 0), (b'"x"', "x"), (b'{"a": [1]}', {"a": [1]})):
        headers = {"Content-Type": "application/json"}
        status, answer = await flow.call("POST", f"{W}/{one}/signals/s", data=sent, headers=headers)
        assert (status, answer["payload"]) == (200, expected), sent
    assert (await flow.call("POST", f"{W}/{one}/signals/s", data=b"{", headers=headers))[0] == 400


async def test_lists_and_pictures(flow):
    call = flow.call
    ids = [await flow.start(user_id=user, tags=tags) for user, tags in (("ann", ["x", "y"]), ("bob", ["x"]))]
    for query, expected in (
        ("", ids[::-1]), ("user_id=ann", ids[:1]), ("tag=x", ids[::-1]), ("tag=x&tag=y", ids[:1]),
        ("name=w&limit=1", ids[1:]), ("status=completed", []), ("status=running,failed", ids[::-1]),
        (f"tail={ids[0][-8:]}", ids[:1]),
    ):  # fmt: skip
        status, answer = await call("GET", f"{W}?{query}")
        assert (status, [one["id"] for one in answer["workflows"]]) == (200, expected), query
    for query in ("status=done", "stauts=running", "cursor=x", "limit=0"):
        assert (await call("GET", f"{W}?{query}"))[0] == 400, query
    fan = {"id": "t", "for_each": "[1, 2]", "command": ["echo", "{{ item }}"]}
    after = {"id": "u", **TRUE, "depends_on": ["t"]}
    one = await flow.start({"name": "f", "phases": [{"id": "p", "tasks": [fan, after]}]})
    await flow.run("t.1")
    status, answer = await call("GET", f"{W}/{one}/graph")
    assert answer["edges"] == [{"from": "t", "to": "u"}]
    assert {n["id"]: (n["kind"], n["phase"]) for n in answer["nodes"]} == {
        "p": ("phase", None), "t": ("task", "p"), "u": ("task", "p")
    }  # fmt: skip
    await flow.end("t.0", Outcome(status="completed", exit_code=0, result=b"[1]", result_type="json"))
    await flow.end("t.1", failed("exit", "exited with 3", exit_code=3))
    await flow.until(one, lambda w: w["status"] == "failed")
    task = await flow.task(one, "t")
    assert (task["for_each"], task["status"], task["result"], task["output"]) == (
        "[1, 2]", "failed", ["[1]", None], [[1], None]
    )  # fmt: skip
    child = await flow.task(one, "t.1")
    assert (child["parent"], child["index"], child["exit_code"], child["error"]["kind"]) == ("t", 1, 3, "exit")
    cut = await flow.task(one, "u")
    assert (cut["status"], cut["error"]["kind"]) == ("failed", "dependency_failed")
    for form, start in (("mermaid", b"flowchart"), ("dot", b"digraph"), ("svg", b"<svg")):
        status, text = await call("GET", f"{W}/{one}/graph?format={form}")
        assert status == 200
        assert start in text[:200], form
    assert (await call("GET", f"{W}/{one}/graph?format=png"))[0] == 400
    async with asyncio.timeout(5):
        while not (found := (await call("GET", "/api/v1/archive?q=failed"))[1]["archive"]):
            await asyncio.sleep(0.01)
    assert [row["workflow_id"] for row in found] == [one]
    status, answer = await call("GET", f"/api/v1/archive/{one}")
    assert (status, answer["report"].startswith("# f: failed")) == (200, True)
    assert (await call("GET", f"/api/v1/archive/{NOWHERE}"))[0] == 404


async def test_a_task_of_a_workflow_adds_to_it(flow):
    """By its own token: it reads its workflow, adds tasks, sends signals and notifications, and nothing else."""
    call = flow.call
    other = await flow.start(user_id="ann")
    await flow.end("t")
    one = await flow.start(user_id="ann")
    task_id, _ = await flow.run("t")
    mine = flow.inside("t")
    for path in ("", "/status", "/tasks", "/graph", "/report"):
        assert (await call("GET", f"{W}/{one}{path}", headers=mine))[0] == 200, path
        assert (await call("GET", f"{W}/{other}{path}", headers=mine))[0] == 403, path
    for method, path, body in (
        ("GET", W, None), ("POST", W, {"name": "x"}), ("POST", f"{W}/{one}/cancel", None),
        ("POST", f"{W}/{one}/retry", None), ("POST", f"{W}/{one}/pause", None), ("GET", "/api/v1/archive", None),
        ("POST", f"{W}/{one}/phases", {"id": "x"}), ("POST", f"{W}/{one}/tasks/t/approve", None),
        ("POST", f"{W}/{other}/tasks", {"phase": "p", "id": "x", **TRUE}), ("POST", f"{W}/{other}/signals/x", None),
        ("POST", f"{W}/{other}/milestones", {"text": "x"}),
    ):  # fmt: skip
        assert (await call(method, path, body, headers=mine))[0] == 403, path
    assert (await call("POST", f"{W}/{one}/signals/done", {"n": 1}, headers=mine))[0] == 200
    assert (await call("POST", f"{W}/{one}/milestones", {"text": "half"}, headers=mine))[0] == 200
    said = {"notification_type": "update", "message": "m"}
    status, answer = await call("POST", "/api/v1/notifications", said, headers=mine)
    _, told = await call("GET", f"/api/v1/notifications/{answer['notification_id']}")
    assert (status, told["user_id"], told["task_id"], told["workflow_id"]) == (201, "ann", task_id, one)
    for more in ({"workflow_id": other}, {"task_id": NOWHERE}, {"user_id": "bob"}):
        assert (await call("POST", "/api/v1/notifications", said | more, headers=mine))[0] == 403, more
    status, answer = await call("POST", "/api/v1/notifications", said)
    assert (status, answer["errors"][0]["path"]) == (400, "user_id")

    status, answer = await call("POST", f"{W}/{one}/tasks", {"phase": "p", "id": "more", **TRUE}, headers=mine)
    assert status == 202
    signals = {"callback_url": "/internal/lit", "on_completion": "go"}
    for expected in (202, 200):
        keyed = mine | {"Idempotency-Key": "a"}
        status, first = await call("POST", "/api/v1/tasks", {**TRUE, "options": signals}, headers=keyed)
        assert (status, first["workflow_id"]) == (expected, one)
    needs = {"depends_on": [first["task_id"]], "title": "{{ raw }}"}
    batch = {"tasks": [{**TRUE, "options": needs}, TRUE]}
    status, answer = await call("POST", "/api/v1/tasks:batch", batch, headers=mine)
    assert status == 202
    second, third = answer["tasks"]
    assert (await call("GET", f"/api/v1/tasks/{second['task_id']}/status", headers=mine))[0] == 200
    assert (await call("POST", f"/api/v1/tasks/{second['task_id']}/progress", {"percent": 1}, headers=mine))[0] == 403
    _, answer = await call("GET", f"{W}/{one}/tasks")
    names = {task["task_id"]: (task["id"], task["phase"], task["depends_on"]) for task in answer["tasks"]}
    assert [names[task["task_id"]] for task in (first, second, third)] == [
        ("added-1", "p", []), ("added-2", "p", ["added-1"]), ("added-3", "p", [])
    ]  # fmt: skip
    _, shown = await call("GET", f"/api/v1/tasks/{first['task_id']}")
    assert (shown["user_id"], shown["workflow_id"]) == ("ann", one)
    assert shown["options"]["on_completion"] == [{"signal": "go"}]
    for options, expected, path in (
        ({"depends_on": [NOWHERE]}, 422, "options.depends_on[0]"),
        ({"callback_url": "/internal/a b"}, 400, "options.callback_url"),
    ):
        status, answer = await call("POST", "/api/v1/tasks", {**TRUE, "options": options}, headers=mine)
        assert (status, answer["errors"][0]["path"]) == (expected, path)
    assert (await call("POST", "/api/v1/tasks", {**TRUE, "options": {"user_id": "bob"}}, headers=mine))[0] == 403
    # A task that was added adds another, and that another, as deep as tasks may go.
    limits = flow.api.config.limits
    flow.api.config = type(flow.api.config)(limits=type(limits)(depth=1))
    await flow.run("added-1")
    for path, body in (("/api/v1/tasks", TRUE), (f"{W}/{one}/tasks", {"phase": "p", "id": "deep", **TRUE})):
        assert (await call("POST", path, body, headers=flow.inside("added-1")))[0] == 422, path
    assert (await call("POST", "/api/v1/tasks", TRUE, headers=mine))[0] == 202
    for name in ("t", "more", "added-1", "added-2", "added-3", "added-4"):
        await flow.end(name)
    await flow.until(one, lambda w: w["status"] == "completed")


async def test_a_task_outside_of_workflows_makes_one_of_itself(flow):
    call = flow.call
    alone = await flow.api.submit("gather", user_id="ann", title="gather")
    await flow.run(alone)
    mine = flow.inside(alone)
    assert (await call("POST", "/api/v1/tasks", {"command": [1]}, headers=mine))[0] == 400
    bodies = [{**TRUE, "options": {"callback_url": "/internal/lit", "on_completion": "go"}} for _ in range(3)]
    answers = await asyncio.gather(*[call("POST", "/api/v1/tasks", body, headers=mine) for body in bodies])
    assert [status for status, _ in answers] == [202] * 3
    [one] = {answer["workflow_id"] for _, answer in answers}
    _, own = await call("GET", f"/api/v1/tasks/{alone}")
    assert (own["workflow_id"], own["status"]) == (one, "running")
    _, whole = await call("GET", f"{W}/{one}", headers=mine)
    assert (whole["name"], whole["user_id"], whole["status"]) == ("gather", "ann", "running")
    last = {**TRUE, "options": {"depends_on": [answer["task_id"] for _, answer in answers]}}
    status, answer = await call("POST", "/api/v1/tasks", last, headers=mine)
    assert (status, answer["status"]) == (202, "pending")
    task = await flow.task(one, "added-4")
    assert [w["name"] for w in task["waiting_for"]] == ["added-1", "added-2", "added-3"]
    waits = {"phase": "tasks", "id": "synthesis", "command": ["{{ signals.lit.result }}", "{{ signals.go.task_id }}"],
             "wait_for": ["lit", "go"]}  # fmt: skip
    assert (await call("POST", f"{W}/{one}/tasks", waits, headers=mine))[0] == 202
    await flow.end(alone)
    for name in ("added-1", "added-2", "added-3", "added-4"):
        if name == "added-1":
            task = await flow.task(one, "synthesis")
            assert [(w["kind"], w["name"]) for w in task["waiting_for"]] == [("signal", "go"), ("signal", "lit")]
        await flow.end(name)
        await flow.run("synthesis")  # by the signals of the first
    await flow.end("synthesis")
    done = await flow.until(one, lambda w: w["status"] == "completed")
    assert done["counts"] == {"completed": 6}
    command = (await flow.task(one, "synthesis"))["command"]
    assert command == ["added-1", (await flow.task(one, "added-1"))["task_id"]]


async def test_what_bound_tokens_may(flow, tmp_path):
    call = flow.call
    (tmp_path / "nightly.yaml").write_text("{name: nightly, phases: [{id: p, tasks: [{id: t, command: [a]}]}]}")
    flow.api.config = type(flow.api.config)(workflows=config_sections.WorkflowsConfig(paths=[str(tmp_path)]))
    agent = {"agent": "code-reviewer", "prompt": "p"}
    kinds = {"command": TRUE, "agent": agent, "follow": {**agent, "on_completion": {"submit": TRUE}},
             "sub": {"workflow": "nightly", "params": {}}, "ask": {"approval": "?"}}  # fmt: skip

    def definition(kind):
        phases = [{"id": "p", "tasks": [{"id": "t", **kinds[kind]}]}]
        return {"definition": {"name": "n", "phases": phases}, "dry_run": True}

    for fields, allowed in (
        ({"scope": "read"}, ""), ({"runners": ["claude"]}, "agent ask"), ({"runners": ["command"]}, "command ask"),
        ({"agents": ["code-reviewer"]}, "agent ask"), ({"agents": ["architect"]}, "ask"),
    ):  # fmt: skip
        headers = {"Authorization": f"Bearer {await flow.api.make_token(**({'scope': 'submit'} | fields))}"}
        for kind in kinds:
            status, answer = await call("POST", W, definition(kind), headers=headers)
            assert status == (200 if kind in allowed.split() else 403), (fields, kind, answer)
    ann = {"Authorization": f"Bearer {await flow.api.make_token(scope='submit', user_id='ann')}"}
    commands = {"Authorization": f"Bearer {await flow.api.make_token(scope='submit', runners=['claude'])}"}
    assert (await call("GET", f"{W}/{await flow.start(headers=ann)}"))[1]["user_id"] == "ann"
    assert (await call("POST", W, definition("command") | {"user_id": "bob"}, headers=ann))[0] == 403
    one = await flow.start()
    for path, body in (
        ("pause", None), ("cancel", None), ("signals/x", None), ("milestones", {"text": "x"}), ("retry", None),
        ("tasks", {"phase": "p", "id": "x", **TRUE}), ("phases", {"id": "x"}), ("tasks/t/approve", None),
    ):  # fmt: skip
        for headers in (ann, commands):
            assert (await call("POST", f"{W}/{one}/{path}", body, headers=headers))[0] == 403, path
    flow.api.draining = True
    assert (await call("POST", W, definition("command")))[0] == 503


async def test_signals_outside_of_a_workflow_are_refused(flow):
    for options in ({"on_completion": "go"}, {"callback_url": "/internal/x"}, {"on_completion": {"signal": "x"}}):
        status, answer = await flow.call("POST", "/api/v1/tasks", {**TRUE, "options": options})
        assert (status, answer["errors"][0]["path"]) == (422, f"options.{next(iter(options))}")
    tasks = [{"id": "a", **TRUE, "callback_url": "/webhook/a", "on_completion": "b"}]
    one = await flow.start({"name": "n", "phases": [{"id": "p", "tasks": tasks}]})
    task = await flow.task(one, "a")
    path = f"/api/v1/tasks/{task['task_id']}"
    status, answer = await flow.call("PATCH", path, {"options": {"on_completion": "/internal/c", "timeout": -1}})
    assert (status, [fault["path"] for fault in answer["errors"]]) == (400, ["options.timeout"])
    status, answer = await flow.call("PATCH", path, {"options": {"on_completion": "/internal/c"}})
    assert (status, answer["options"]["on_completion"]) == (200, [{"signal": "c"}])
