"""`orchestr8d schedule`, the verbs of the clients and `[[schedules]]`, against a real daemon."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from orchestr8d.client import ApiError, AsyncClient, schedule_task
from tests.cli.conftest import Box, Cli

pytestmark = pytest.mark.slow

CONFIG = """
[cron]
timezone = "Asia/Tokyo"
[[schedules]]
name = "from-file"
schedule = "0 0 * * *"
task = {{ agent = "nobody-has-it", prompt = "p" }}
active = {active}
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    env = {"ORCHESTR8D_EXECUTOR__CHILDREN": "stop", "ORCHESTR8D_EXECUTOR__GRACE": "1"}
    box = Box(tmp_path_factory.mktemp("box") / "state", env)
    box.config.write_text(CONFIG.format(active="true"))
    box.start()
    yield box
    box.stop()


def until(look: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def local(text: str) -> str:
    return datetime.fromisoformat(text).astimezone().strftime("%a %Y-%m-%d %H:%M:%S")


def test_every_second_is_seen_to_fire(cli: Cli, box: Box, tmp_path: Path) -> None:
    said = cli("schedule", "add", "tick", "* * * * * *", "--overlap", "allow", "-o", "tags=t", "-e", "MINE=1", "--",
               "sh", "-c", "echo $ORCHESTR8_SCHEDULE $MINE $ORCHESTR8_DUE_AT; pwd")  # fmt: skip
    assert re.search(r"^when +every second$", said.out, re.MULTILINE)

    def done() -> list[Any]:
        page = json.loads(cli("schedule", "history", "tick", "--json").out)
        return [f for f in page["firings"] if f["outcome"] == "completed"][-3:]

    fired = until(lambda: found if len(found := done()) == 3 else None)
    cli("schedule", "pause", "tick")
    assert {f["time"][-5:] for f in fired} == {".000Z"} and len({f["time"] for f in fired}) == 3
    with box.client() as client:
        assert client.result(fired[0]["task_id"])["result"].split() == ["tick", "1", fired[0]["time"], str(tmp_path)]
        whole = client.schedule("tick")
        assert len(list(client.tasks(schedule_id=whole["schedule_id"], tag=["t"]))) >= 3
    table = cli("schedule", "history", "tick", "--limit", "2").lines
    assert table[0].split() == ["DUE", "STATE", "ID", "STATUS", "WHY"] and "fired" in table[1] and len(table) == 3
    shown = cli("schedule", "show", whole["schedule_id"][-8:]).out
    assert re.search(r"^state +inactive$", shown, re.MULTILINE) and "next" not in shown
    started = cli("schedule", "trigger", "tick").out.strip()
    [last] = json.loads(cli("schedule", "history", "tick", "--limit", "1", "--json").out)["firings"]
    assert (last["task_id"], last["trigger"]) == (started, "manual")
    cli("schedule", "remove", "tick")
    assert cli("schedule", "show", "tick", code=4).err == "orchestr8d: there is no schedule tick\n"


def test_what_is_said_about_schedules(cli: Cli, tmp_path: Path) -> None:
    said = cli("schedule", "add", "weekly", "0 9 * * MON", "--tz", "Europe/Berlin", "--catch-up", "all",
               "--catch-up-window", "2h", "--jitter", "30s", "--", "make", "all")  # fmt: skip
    made = json.loads(cli("schedule", "show", "weekly", "--json").out)
    for name, value in (("when", "every Monday at 09:00"), ("zone", "Europe/Berlin"), ("starts", "make all"),
                        ("catch-up", "all, up to 2h00m old"), ("jitter", "30s"),
                        ("next", local(made["next_run"]))):  # fmt: skip
        assert re.search(rf"^{name} +{re.escape(value)}", said.out, re.MULTILINE), name
    assert [local(run) in said.out for run in made["next_runs"]] == [True] * 5
    assert (made["task"]["cwd"], made["catch_up_window"]) == (str(tmp_path), 7200)
    # In the caller's zone, unless another is named.
    at = datetime(2100, 1, 1, 9).astimezone()
    once = json.loads(cli("schedule", "add", "once", "2100-01-01T09:00", "--paused", "--json", "--", "true").out)
    assert datetime.fromisoformat(once["schedule"]["at"]) == at and not once["active"]
    assert once["timezone"] == "Asia/Tokyo"
    tokyo = cli("schedule", "edit", "once", "--rule", "2100-01-01T09:00", "--tz", "Asia/Tokyo", "--json").out
    assert json.loads(tokyo)["schedule"] == {"at": "2100-01-01T09:00:00+09:00"}
    assert cli("schedule", "resume", "once").out.startswith(f"once  active  {local('2100-01-01T00:00:00+00:00')}")
    flow = tmp_path / "flow.yaml"
    tasks = "[{id: t, command: [echo, '{{ params.n }}']}]"
    flow.write_text(f"name: f\nparams: {{n: {{default: 1}}}}\nphases: [{{id: p, tasks: {tasks}}}]\n")
    cli("schedule", "add", "flow", "@yearly", "--workflow", str(flow), "-p", "n=5")
    begun = json.loads(cli("schedule", "trigger", "flow", "--json").out)
    cli("workflow", "show", begun["workflow_id"])
    changed = json.loads(cli("schedule", "edit", "flow", "--name", "turned", "--json", "--", "true").out)
    assert (changed["name"], changed["workflow"], changed["task"]["command"]) == ("turned", None, ["true"])
    rows = {line.split()[0]: " ".join(line.split()) for line in cli("schedule", "list").lines}
    assert {"NAME", "weekly", "once", "turned", "from-file"} == rows.keys()
    assert rows["weekly"].endswith("0 9 * * MON make all") and "once, 2100-01-01" in rows["once"]
    assert [one["name"] for one in json.loads(cli("schedule", "list", "URNE", "--json").out)["schedules"]] == ["turned"]
    after = ("--tz", "Europe/Berlin", "--after", "2026-03-28T00:00:00Z")
    ahead = cli("schedule", "preview", "30 2 * * *", *after, "-n", "2")
    assert ahead.lines == ["every day at 02:30", local("2026-03-28T01:30:00Z"), local("2026-03-29T01:00:00Z")]
    cli("schedule", "add", "slow", "@yearly", "--", "sleep", "60")
    cli("schedule", "trigger", "slow")
    assert "nothing was started: overlap" in cli("schedule", "trigger", "slow", code=5).err
    for args, code, message in (
        (["add", "a", "* * *", "--", "true"], 1, "schedule: "), (["add", "a", "@daily"], 2, "give a command after --"),
        (["add", "weekly", "@daily", "--", "true"], 5, "already"), (["edit", "once"], 2, "nothing to change"),
        (["add", "a", "@daily", "-p", "n=1"], 2, "--workflow"),
        (["add", "a", "@daily", "--workflow", "research", "--", "true"], 2, "not both"),
        (["add", "a", "2100-01-01T09:00", "--tz", "Asia/Tokio", "--", "true"], 2, "did you mean 'Asia/Tokyo'"),
        (["preview", "@dayly"], 1, "did you mean '@daily'"), (["pause", "once", "none"], 4, "no schedule none"),
        (["edit", "weekly", "--jitter", "soon"], 2, "duration"), (["edit", "from-file", "--jitter", "1s"], 5, ".toml"),
    ):  # fmt: skip
        assert message in cli("schedule", *args, code=code).err, args
    for name in ("add", "list", "show", "edit", "pause", "resume", "trigger", "remove", "history", "preview"):
        assert "Example: orchestr8d schedule" in cli("schedule", name, "--help").out


def test_those_of_the_file_follow_a_reload(cli: Cli, box: Box) -> None:
    with box.client() as client:
        found = client.schedule("from-file")
        assert (found["source"], found["timezone"]) == ("config", "Asia/Tokyo") and found["active"]
        assert found["next_run"].endswith("T15:00:00.000Z")
        until(lambda: "a schedule starts nothing as things are" in box.log.read_text())
        assert "task.agent: " in box.log.read_text()
        box.config.write_text(CONFIG.format(active="false"))
        os.kill(box.pid, signal.SIGHUP)
        until(lambda: not client.schedule("from-file")["active"])
        box.config.write_text("[[schedules]]\nname = 'x'\nschedule = '61 * * * *'\ntask = { command = ['true'] }\n")
        os.kill(box.pid, signal.SIGHUP)
        until(lambda: f"{box.config}:1: schedules[0].schedule: " in box.log.read_text())
        assert client.schedule("from-file")["source"] == "config"


def test_the_clients_speak_every_verb(box: Box, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def steps() -> None:
        task = {"command": ["true"]}
        async with AsyncClient(box.endpoint) as client:
            made = await client.add_schedule("a", {"at": "2100-01-01T00:00:00Z"}, task=task, overlap="queue")
            many = [{"name": name, "schedule": "@daily", "task": task, "timezone": None} for name in ("b", "c")]
            assert [one["name"] for one in await client.add_schedules(many)] == ["b", "c"]
            assert {one["name"] for one in await client.schedules("a")} >= {"a"}
            assert (await client.schedule_page(limit=1))["next_cursor"]
            assert (await client.change_schedule("a", catch_up="one"))["catch_up"] == "one"
            assert not (await client.pause_schedule("a"))["active"]
            assert (await client.resume_schedule(made["schedule_id"]))["next_runs"] == ["2100-01-01T00:00:00.000Z"]
            fired = await client.trigger_schedule("b")
            assert (await client.wait(fired["task_id"]))["status"] == "completed"
            assert [f["task_id"] for f in (await client.schedule_history("b"))["firings"]] == [fired["task_id"]]
            assert (await client.preview_schedule({"at": "2100-01-01T00:00:00Z"}))["words"].startswith("once, on 1 Jan")
            assert await client.remove_schedule("a") == {}
            with pytest.raises(ApiError, match="no schedule a"):
                await client.schedule("a")

    asyncio.run(steps())
    agent = tmp_path / "my reviewer.md"
    agent.write_text("---\nname: mine\ndescription: d\n---\nBe kind.\n")
    monkeypatch.setenv("ORCHESTR8_URL", f"http://127.0.0.1:{box.port}")
    monkeypatch.setenv("ORCHESTR8_TOKEN", box.token)
    monkeypatch.chdir(tmp_path)
    first = schedule_task(str(agent), "Look around", "0 9 * * MON")
    second = schedule_task(str(agent), "Look", "@daily", {"name": "mine", "overlap": "replace", "priority": "high"})
    with box.client() as client:
        found = client.schedule(first)
        assert re.fullmatch(r"my-reviewer-[0-9a-f]{8}", found["name"]) and found["task"]["cwd"] == str(tmp_path)
        found = client.schedule("mine")
        assert (found["schedule_id"], found["overlap"]) == (second, "replace")
        assert found["task"]["options"] == {"priority": "high"}
