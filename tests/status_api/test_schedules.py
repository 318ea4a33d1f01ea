"""Schedules over HTTP: made, refused with all that is wrong, read, changed, held, fired by hand; who may do so."""

from __future__ import annotations

from datetime import datetime

import msgspec
import pytest

from orchestr8d import assembly, config_sections
from orchestr8d.core.schedule_input import ScheduleIn
from orchestr8d.core.task_input import TaskIn
from tests.status_api.conftest import Api

S = "/api/v1/schedules"
TRUE = {"command": ["true"]}
FLOW = {"definition": {"name": "w", "phases": [{"id": "p", "tasks": [{"id": "t", **TRUE, "env": {"KEY": "hunter2"}}]}]}}
# Bad rule, and where the fault is if not at `schedule`.
BAD: list[tuple[object, ...]] = [
    ("",), (" ",), ("x",), ("* * * *",), ("* * * * * * *",), ("60 * * * *",), ("* 24 * * *",), ("* * 0 * *",),
    ("* * 32 * *",), ("* * * 0 *",), ("* * * 13 *",), ("* * * * 8",), ("-1 * * * *",), ("1- * * * *",),
    ("1,, * * * *",),
    ("*/0 * * * *",), ("*/90 * * * *",), ("1/61 * * * *",), ("1.5 * * * *",), ("* * * * MOO",), ("* * * MON *",),
    ("* * 15W * *",), ("H * * * *",), ("R * * * *",), ("* * L-3 * *",), ("* * * * 5#6",), ("* * * * 9L",),
    ("0 0 30 2 *",), ("0 0 1 1 * 2030 x",), ("@reboot",), ("@dayly",), ("@every",), ("@every 0s",), ("@every 1.5s",),
    ("@every 10 m",), ("hourly",), ("10m",), ("2026-03-01T09:00:00Z",), ("9" * 2000,),
    ({"at": "2020-01-01T00:00:00Z"}, "schedule.at"), ({"at": "2030-01-01T00:00:00"}, "schedule.at"),
    ({"at": "soon"}, "schedule.at"),
]  # fmt: skip
ZONES = ["", "CEST", "Europe/Berlim", "europe/berlin", "../UTC", "/etc/passwd", "UTC+1", "x\0"]


async def make(api: Api, name: str, rule: object = "@yearly", **more: object) -> str:
    body = {"name": name, "schedule": rule, **({} if "workflow" in more else {"task": TRUE}), **more}
    status, answer = await api.call("POST", S, body)
    assert status == 201, answer
    return answer["schedule_id"]


async def get(api: Api, name: str) -> dict:
    status, answer = await api.call("GET", f"{S}/{name}")
    assert status == 200, answer
    return answer


async def paths(api: Api, body: object, status: int, method: str = "POST", path: str = S) -> list[str]:
    got, answer = await api.call(method, path, body)
    assert got == status, answer
    return [fault["path"] for fault in answer["errors"]]


async def test_a_schedule_is_made_and_read(serve):
    api = await serve(cron=config_sections.CronConfig("Europe/Berlin"))
    body = {
        "name": "weekly", "schedule": "0 9 * * MON", "catch_up": "all", "catch_up_window": "24h", "overlap": "queue",
        "jitter": "1m", "task": {**TRUE, "env": {"KEY": "hunter2"}, "stdin": "hunter2",
                                 "options": {"priority": "high", "timeout": "10m"}},
    }  # fmt: skip
    key = {"Idempotency-Key": "one"}
    async with api.http.post(api.url + S, json=body, headers=api.auth | key) as response:
        made = await response.json()
        assert response.status == 201
        assert response.headers["Location"] == f"{S}/{made['schedule_id']}"
    assert await api.call("POST", S, body, headers=key) == (200, made)
    assert (await api.call("POST", S, body | {"name": "x"}, headers=key))[0] == 409
    runs = made.pop("next_runs")
    assert made == {
        "schedule_id": made["schedule_id"], "name": "weekly", "schedule": "0 9 * * MON", "timezone": "Europe/Berlin",
        "task": {**TRUE, "options": {"priority": "high", "timeout": "10m"}}, "workflow": None, "catch_up": "all",
        "catch_up_window": 86400, "overlap": "queue", "jitter": 60, "active": True, "source": "api", "user_id": "local",
        "alerting": False, "created_at": made["created_at"], "updated_at": made["created_at"], "last_run": None,
        "next_run": runs[0], "words": "every Monday at 09:00",
    }  # fmt: skip
    at = [datetime.fromisoformat(run) for run in runs]
    assert len(at) == 5 and {(run.weekday(), run.second) for run in at} == {(0, 0)} and at == sorted(at)
    for name in ("weekly", made["schedule_id"]):
        assert await get(api, name) == made | {"next_runs": runs}
    flow = await get(api, await make(api, "flow", workflow=FLOW, timezone="UTC"))
    assert (flow["task"], flow["catch_up"], flow["overlap"]) == (None, "none", "skip")
    assert flow["catch_up_window"] is None
    assert "hunter2" not in str(flow) and flow["workflow"]["definition"]["phases"][0]["tasks"] == [{"id": "t", **TRUE}]
    once = await get(api, await make(api, "once", {"at": "2100-01-01T01:00:00+01:00"}))
    assert once["next_runs"] == ["2100-01-01T00:00:00.000Z"] and once["schedule"] == {"at": "2100-01-01T01:00:00+01:00"}
    status, answer = await api.call("GET", f"{S}?limit=2")
    assert status == 200 and [one["name"] for one in answer["schedules"]] == ["once", "flow"]
    assert not answer["schedules"][0].keys() & {"next_runs", "words"}
    assert answer["schedules"][0]["next_run"] == once["next_run"]
    _, rest = await api.call("GET", f"{S}?limit=2&cursor={answer['next_cursor']}")
    assert [one["name"] for one in rest["schedules"]] == ["weekly"] and rest["next_cursor"] is None
    assert [one["name"] for one in (await api.call("GET", f"{S}?q=EEK"))[1]["schedules"]] == ["weekly"]


async def test_every_bad_rule_is_told_with_its_place(api):
    bad = [{"name": f"n{n}", "schedule": rule, "task": TRUE} for n, (rule, *_) in enumerate(BAD)]
    bad += [{"name": f"z{n}", "schedule": "@daily", "timezone": zone, "task": TRUE} for n, zone in enumerate(ZONES)]
    expected = [f"schedules[{n}].{at[0] if at else 'schedule'}" for n, (_, *at) in enumerate(BAD)]
    expected += [f"schedules[{len(BAD) + n}].timezone" for n in range(len(ZONES))]
    # A rule may have more than one fault.
    assert list(dict.fromkeys(await paths(api, {"schedules": bad}, 422, path=f"{S}:batch"))) == expected
    for rule, *_ in BAD:
        text = rule if isinstance(rule, str) else msgspec.json.encode(rule).decode()
        status, answer = await api.call("GET", f"{S}:preview", params={"schedule": text})
        # A time that has passed is no rule to be made, but can be looked at.
        assert status == (200 if "2020" in text else 422), (rule, answer)
    for zone in ZONES:
        status, answer = await api.call("GET", f"{S}:preview", params={"schedule": "@daily", "timezone": zone})
        assert (status, answer["errors"][0]["path"]) == (422, "timezone"), answer
    assert (await api.call("GET", S))[1]["schedules"] == []


async def test_all_faults_at_once(api):
    await make(api, "there")
    assert await paths(api, {"name": "there", "schedule": "@daily", "task": TRUE}, 409) == ["name"]
    assert await paths(api, {"name": "a b", "schedule": 5, "task": TRUE, "workflow": FLOW, "tsk": 1}, 400) == [
        "name", "schedule", "tsk", "workflow",
    ]  # fmt: skip
    assert await paths(api, {}, 400) == ["name", "schedule", "task"]
    assert await paths(api, {"name": "n", "schedule": {"on": 1}, "task": TRUE}, 400) == ["schedule.on", "schedule.at"]
    an_id = "01900000-0000-7000-8000-000000000009"
    body = {"name": an_id, "schedule": "x", "task": {"command": ["a"], "prompt": "p", "options": {"timeut": 1}}}
    assert await paths(api, body, 400) == ["task.options.timeut", "name", "schedule", "task.prompt"]
    body = {"name": "n", "schedule": "x", "timezone": "y", "task": {
        "agent": "nobody", "prompt": "p", "options": {"depends_on": [an_id], "account": "none"}}}  # fmt: skip
    assert set(await paths(api, body, 422)) == {
        "schedule", "timezone", "task.agent", "task.options.depends_on[0]", "task.options.account",
    }  # fmt: skip
    broken = {"definition": {"name": "w", "phases": [{"id": "p", "depends_on": ["q"]}]}, "dry_run": True}
    assert await paths(api, {"name": "n", "schedule": "x", "workflow": broken}, 400) == [
        "workflow.dry_run", "schedule", "workflow.phases[0].depends_on[0]",
    ]  # fmt: skip
    many = [
        {"name": "m", "schedule": "@daily", "task": {"command": ["a"], "cwd": "b"}},
        {"name": "m", "schedule": "@daily"},
        {"name": "o", "schedule": "@daily", "overlap": "skipp", "workflow": {"template": "none-such"}},
        {"name": "p", "schedule": "@daily", "workflow": {"template": "none-such"}},
    ]
    assert await paths(api, {"schedules": many}, 400, path=f"{S}:batch") == [
        "schedules[2].overlap", "schedules[1].task", "schedules[0].task.cwd", "schedules[2].workflow.template",
        "schedules[3].workflow.template",
    ]  # fmt: skip
    twice = [{"name": name, "schedule": "@daily", "task": TRUE} for name in ("a", "b", "a", "there")]
    assert await paths(api, {"schedules": twice}, 409, path=f"{S}:batch") == ["schedules[2].name", "schedules[3].name"]
    status, answer = await api.call("POST", f"{S}:batch", {"schedules": twice[:2]}, headers={"Idempotency-Key": "k"})
    assert status == 201 and [one["name"] for one in answer["schedules"]] == ["a", "b"]
    again = await api.call("POST", f"{S}:batch", {"schedules": twice[:2]}, headers={"Idempotency-Key": "k"})
    assert again == (200, answer)
    api.draining = True
    assert (await api.call("POST", S, {"name": "c", "schedule": "@daily", "task": TRUE}))[0] == 503


async def test_previews(api):
    async def runs(**query: object) -> list[str]:
        status, answer = await api.call("GET", f"{S}:preview", params=query)
        assert status == 200, answer
        return answer["runs"]

    berlin = {"schedule": "30 2 * * *", "timezone": "Europe/Berlin", "after": "2026-03-28T00:00:00Z", "count": 2}
    assert await runs(**berlin) == ["2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z"]
    assert await runs(schedule="@every 90s", after="2026-01-01T01:00:00+01:00", count=2) == [
        "2026-01-01T00:01:30.000Z", "2026-01-01T00:03:00.000Z",
    ]  # fmt: skip
    assert await runs(schedule="0 0 * * *", after="2026-01-01T00:00:00Z", count=1) == ["2026-01-02T00:00:00.000Z"]
    assert await runs(schedule='{"at": "2100-01-01T00:00:00Z"}') == ["2100-01-01T00:00:00.000Z"]
    assert await runs(schedule='{"at": "2100-01-01T00:00:00Z"}', after="2100-01-01T00:00:00Z") == []
    assert len(await runs(schedule="* * * * * *", count=10_000)) == 10_000
    assert len(await runs(schedule="@hourly")) == 10
    for query, path in (
        ({"schedule": []}, "schedule"), ({"count": "10001"}, "count"), ({"count": "0"}, "count"), ({"at": "x"}, "at"),
        ({"after": "2026-01-01T00:00:00"}, "after"),
    ):  # fmt: skip
        status, answer = await api.call("GET", f"{S}:preview", params={"schedule": "@daily"} | query)
        assert (status, [fault["path"] for fault in answer["errors"]]) == (400, [path]), query


async def test_changes_pauses_and_removal(api):
    one = await make(api, "one", task={**TRUE, "options": {"user_id": "anna"}})
    await make(api, "two")
    status, after = await api.call("PATCH", f"{S}/one", {"schedule": "@daily", "timezone": "Asia/Tokyo", "jitter": 3,
                                                         "catch_up_window": "1h", "overlap": "allow"})  # fmt: skip
    assert status == 200, after
    assert (after["schedule"], after["timezone"], after["jitter"], after["overlap"], after["catch_up_window"]) == (
        "@daily", "Asia/Tokyo", 3, "allow", 3600
    )  # fmt: skip
    assert after["next_run"].endswith("T15:00:00.000Z") and after["user_id"] == "anna"
    assert after["updated_at"] > after["created_at"]
    assert (await api.call("PATCH", f"{S}/one", {"catch_up_window": None}))[1]["catch_up_window"] is None
    # What it starts is replaced as a whole; whose it is stays, unless it is said.
    status, after = await api.call("PATCH", f"{S}/one", {"workflow": FLOW, "name": "three"})
    assert status == 200 and after["task"] is None and (after["name"], after["user_id"]) == ("three", "anna")
    status, after = await api.call("PATCH", f"{S}/three", {"task": {**TRUE, "options": {"user_id": "bo"}}})
    assert status == 200 and after["workflow"] is None and after["user_id"] == "bo"
    for wrong, status, at in (
        ({"schedule": "x", "timezone": "y"}, 422, ["schedule", "timezone"]), ({"timezone": "y"}, 422, ["timezone"]),
        ({"schedule": {"at": "2020-01-01T00:00:00Z"}}, 422, ["schedule.at"]), ({"name": "two"}, 409, ["name"]),
        ({"task": {"command": ["a"], "cwd": "b"}, "workflow": FLOW}, 400, ["workflow", "task.cwd"]),
        ({"task": None}, 400, ["task"]), ({"source": "config"}, 400, ["source"]),
        ({"workflow": {"template": "none-such"}}, 422, ["workflow.template"]),
    ):  # fmt: skip
        assert await paths(api, wrong, status, "PATCH", f"{S}/three") == at, wrong
    for _ in range(2):
        status, held = await api.call("POST", f"{S}/{one}/pause")
        assert status == 200
        assert (held["active"], held["next_run"], held["next_runs"]) == (False, None, [])
    status, after = await api.call("POST", f"{S}/three/resume")
    assert status == 200 and after["active"] and len(after["next_runs"]) == 5
    await make(api, "spent", {"at": "2100-01-01T00:00:00Z"}, active=False)
    async with api.http.delete(f"{api.url}{S}/three", headers=api.auth) as response:
        assert (response.status, await response.read()) == (204, b"")
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/pause"), ("POST", "/resume"),
                         ("POST", "/trigger"), ("GET", "/history")):  # fmt: skip
        assert (await api.call(method, f"{S}/three{path}", {} if method == "PATCH" else None))[0] == 404
    assert await make(api, "three") != one


async def test_fired_by_hand_and_its_history(api):
    one = await make(api, "one", task={**TRUE, "env": {"KEY": "v"}}, active=False)
    key = {"Idempotency-Key": "t"}
    status, fired = await api.call("POST", f"{S}/one/trigger", headers=key)
    assert (status, fired["state"], fired["trigger"], fired["schedule_id"]) == (202, "fired", "manual", one), fired
    assert await api.call("POST", f"{S}/one/trigger", headers=key) == (200, fired)
    task = (await api.call("GET", fired["check_status_url"].removesuffix("/status")))[1]
    assert (task["id"], task["schedule_id"], task["status"]) == (fired["task_id"], one, "queued")
    [claim] = await api.pool.claim()
    assert claim.task.read_spec().env == {
        "KEY": "v", "ORCHESTR8_DUE_AT": fired["time"], "ORCHESTR8_SCHEDULE": "one"
    }  # fmt: skip
    # It runs still.
    status, skipped = await api.call("POST", f"{S}/{one}/trigger")
    assert (status, skipped["state"], skipped["reason"], skipped["task_id"]) == (200, "skipped", "overlap", None)
    await api.complete(claim.task.id, claim.attempt.id)
    assert (await api.call("POST", f"{S}/one/trigger"))[0] == 202
    _, page = await api.call("GET", f"{S}/one/history?limit=2")
    _, rest = await api.call("GET", f"{S}/one/history?cursor={page['next_cursor']}")
    assert [(f["state"], f["outcome"]) for f in page["firings"]] == [("fired", "queued"), ("skipped", None)]
    assert rest == {
        "firings": [{
            "time": fired["time"], "state": "fired", "reason": None, "task_id": task["id"], "workflow_id": None,
            "outcome": "completed", "fired_at": rest["firings"][0]["fired_at"], "trigger": "manual", "count": 1,
            "until": None,
        }],
        "next_cursor": None,
    }  # fmt: skip
    assert (await get(api, "one"))["last_run"] == page["firings"][0]["time"]
    flow = await make(api, "flow", workflow=FLOW)
    status, begun = await api.call("POST", f"{S}/flow/trigger")
    assert status == 202 and begun["check_status_url"] == f"/api/v1/workflows/{begun['workflow_id']}/status"
    assert (await api.call("GET", begun["check_status_url"]))[1]["status"] == "running"
    _, found = await api.call("GET", f"/api/v1/tasks?schedule_id={one}")
    assert len(found["tasks"]) == 2 and {task["schedule_id"] for task in found["tasks"]} == {one}
    # What it has started stays.
    assert (await api.call("DELETE", f"{S}/{one}"))[0] == (await api.call("DELETE", f"{S}/{flow}"))[0] == 204
    assert (await api.call("GET", f"/api/v1/tasks/{task['id']}"))[0] == 200


async def test_what_is_due_fires_and_what_is_missed_is_one_row(api):
    await make(api, "s", "* * * * * *", overlap="allow")
    # It was due for a day while nobody looked.
    long_ago = api.services.clock.now() // 1000 * 1000 - 86_400_000
    writer = api.services.store._writer
    await writer.do(lambda tx: tx.db.execute("UPDATE schedules SET next_at = ?", (long_ago,)))
    await api.ticker.run_once()
    _, page = await api.call("GET", f"{S}/s/history?limit=1000")
    [missed] = [firing for firing in page["firings"] if firing["state"] == "missed"]
    assert (missed["reason"], missed["trigger"]) == ("late", "due") and missed["until"] > missed["time"]
    assert 86_300 < missed["count"] <= 86_400
    assert [f["count"] for f in page["firings"] if f["state"] == "fired"] == [1] * (len(page["firings"]) - 1)


async def test_those_of_the_configuration(api):
    said = ScheduleIn(name="nightly", schedule="0 3 * * *", task=TaskIn(command=["true"]))
    api.config = msgspec.structs.replace(api.config, schedules=[said])
    done = await api.ticker.reconcile(assembly.schedules(api.config))
    assert (done.added, done.changed, done.removed) == (["nightly"], [], [])
    found = await get(api, "nightly")
    assert (found["source"], found["timezone"], found["task"]["command"]) == ("config", "UTC", ["true"])
    for method in ("PATCH", "DELETE"):
        status, answer = await api.call(method, f"{S}/nightly", {"overlap": "queue"} if method == "PATCH" else None)
        assert status == 409 and str(api.state / "config.toml") in answer["detail"]
    assert (await api.call("POST", f"{S}/nightly/pause"))[0] == 200
    assert (await api.call("POST", f"{S}/nightly/trigger"))[0] == 202
    api.config = msgspec.structs.replace(api.config, cron=config_sections.CronConfig("Asia/Tokyo"))
    assert (await api.ticker.reconcile(assembly.schedules(api.config))).changed == ["nightly"]
    assert (await get(api, "nightly"))["next_run"].endswith("T18:00:00.000Z")
    api.config = msgspec.structs.replace(api.config, schedules=[])
    assert (await api.ticker.reconcile(assembly.schedules(api.config))).removed == ["nightly"]
    assert (await get(api, "nightly"))["next_runs"] == []
    # Nothing brings it back.
    assert (await api.call("DELETE", f"{S}/nightly"))[0] == 204


async def test_tokens_are_bound_as_with_tasks(api):
    await make(api, "of-local")
    await make(api, "of-flow", workflow=FLOW)

    async def status(token: str, method: str, path: str, body: object = None) -> int:
        return (await api.call(method, path, body, headers={"Authorization": f"Bearer {token}"}))[0]

    body = {"name": "a", "schedule": "@daily", "task": TRUE}
    follow = TRUE | {"options": {"on_completion": {"submit": {"agent": "code-reviewer", "prompt": "p"}}}}
    read, anna, commands, agents = [
        await api.make_token(**fields)
        for fields in ({"scope": "read"}, {"scope": "submit", "user_id": "anna"},
                       {"scope": "submit", "runners": ["command"]}, {"scope": "submit", "agents": ["code-reviewer"]})
    ]  # fmt: skip
    for path in ("", "/of-local", ":preview?schedule=@daily"):
        assert await status(read, "GET", S + path) == 200
    assert await status(read, "POST", S, body) == await status(read, "POST", f"{S}/of-local/trigger") == 403
    for token in (anna, agents):
        for path in (f"{S}/of-local", f"{S}/of-flow"):
            assert await status(token, "PATCH", path, {}) == await status(token, "DELETE", path) == 403
            for verb in ("trigger", "pause", "resume"):
                assert await status(token, "POST", f"{path}/{verb}") == 403, (path, verb)
    assert await status(agents, "POST", S, body) == await status(agents, "POST", S, body | {"task": follow}) == 403
    assert await status(anna, "POST", S, body) == 201
    assert (await get(api, "a"))["user_id"] == "anna"
    assert await status(anna, "POST", f"{S}/a/trigger") == 202
    theirs = {"task": {**TRUE, "options": {"user_id": "bo"}}}
    assert await status(anna, "PATCH", f"{S}/a", theirs) == await status(anna, "POST", S, body | theirs) == 403
    assert await status(commands, "PATCH", f"{S}/a", {"task": follow}) == 403
    assert await status(commands, "PATCH", f"{S}/a", {"jitter": 1}) == 200
    assert await status(commands, "POST", f"{S}/of-flow/pause") == 200
    made = {"name": "b", "schedule": "@daily", "workflow": {"template": "research", "params": {"question": "q"}}}
    assert await status(commands, "POST", S, made) == 403
    assert await status(anna, "POST", S, made) == 201
    assert (await get(api, "b"))["user_id"] == "anna"
    # Whose token it was decides when it fires, too.
    [task] = (await api.call("GET", "/api/v1/tasks?user_id=anna"))[1]["tasks"]
    assert task["schedule_id"] == (await get(api, "a"))["schedule_id"]
    [claim] = await api.pool.claim()
    inside = api.services.tokens.attempt_token(claim.attempt.id)
    assert await status(inside, "GET", S) == await status(inside, "POST", S, body) == 403


@pytest.mark.parametrize("gone", ["agent", "template"])
async def test_what_cannot_be_made_any_more(api, gone, tmp_path):
    if gone == "agent":
        file = api.state / ".claude" / "agents" / "helper.md"
        file.parent.mkdir(parents=True)
        file.write_text("---\nname: helper\ndescription: d\n---\nBe kind.\n")
        body = {"task": {"agent": str(file), "prompt": "p"}}
    else:
        file = tmp_path / "own.yaml"
        file.write_text("name: own\nphases: [{id: p, tasks: [{id: t, command: ['true']}]}]\n")
        api.config = msgspec.structs.replace(api.config, workflows=config_sections.WorkflowsConfig([str(tmp_path)]))
        body = {"workflow": {"template": "own"}}
    await make(api, "x", **body)
    assert (await api.call("POST", f"{S}/x/trigger"))[0] == 202
    file.unlink()
    status, answer = await api.call("POST", f"{S}/x/trigger")
    assert status == 422, answer
    assert (await api.call("PATCH", f"{S}/x", {"jitter": 5}))[0] == 200
