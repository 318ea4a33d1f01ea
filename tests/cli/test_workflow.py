"""`orchestr8d workflow` and `archive`, and the verbs of the clients, against a real daemon."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest

from orchestr8d.client import ApiError, AsyncClient
from tests.cli.conftest import Box, Cli

pytestmark = pytest.mark.slow


DEMO = """
name: demo
params: {what: {type: string, required: true}, n: {type: integer, default: 2}, parts: {type: list, default: []}}
phases:
  - id: gather
    title: Gather it
    milestone: "{{ params.what }} is gathered"
    tasks:
      - {id: part, for_each: params.parts, command: [echo, "{{ item }}"]}
      - {id: never, when: params.n > 5, command: ["true"]}
  - id: end
    depends_on: [gather]
    tasks:
      - {id: sum, command: [sh, -c, 'echo "zebra $1"', sh, "{{ tasks.part.result }} {{ params.n + 1 }}"]}
"""
ASKS = """
name: asks
phases:
  - id: only
    tasks:
      - {id: ok, approval: "Ship it?"}
      - {id: go, depends_on: [ok], wait_for: [go], command: [echo, "{{ tasks.ok.result }} {{ signals.go.by }}"]}
"""
FAILS = """
name: fails
phases:
  - id: only
    tasks: [{id: bad, command: [test, -e, there]}, {id: after, depends_on: [bad], command: ["true"]}]
on_failure: [{id: undo, command: [echo, "{{ workflow.failed }}"]}]
"""
SLEEPS = "name: sleeps\nphases: [{id: only, tasks: [{id: long, command: [sleep, '60']}]}]\n"


def test_run_follow_and_what_is_known_of_it(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text(DEMO)
    plan = cli("workflow", "run", "demo.yaml", "-p", "what=it", "--dry-run").lines
    assert plan[:3] == ["○ gather  pending", "├─ ○ part  pending", "├─ ○ never  pending"]
    done = cli("workflow", "run", "demo.yaml", "-p", "what=it", "-p", "parts=a,b", "-p", "n=3", "--follow")
    told = [line[10:] for line in done.lines[:-1]]
    for line in ("✓  part.0  completed", "✓  part  completed", "»  never  skipped", "✓  phase gather  completed",
                 "★  it is gathered", "✓  sum  completed", "✓  phase end  completed"):  # fmt: skip
        assert told.count(line) == 1, (line, told)
    assert told.index("✓  part.1  completed") < told.index("✓  sum  completed")
    workflow_id = done.err.split()[-1]
    tail = workflow_id[-8:]
    assert done.lines[-1].split()[:2] == [tail, "completed"]

    assert cli("workflow", "list", "--name", "demo").lines[1].split()[:2] == [tail, "completed"]
    tree = cli("workflow", "show", tail).lines
    assert tree[0].startswith("demo  completed  100 %") and tree[0].endswith(tail)
    assert any(line.startswith("├─ ✓ gather: Gather it  completed") for line in tree)
    assert any(line.startswith("│  │  └─ ✓ part.1  completed") and line.endswith("echo b") for line in tree)
    known = json.loads(cli("workflow", "show", "--json", tail).out)
    assert (known["params"], known["cwd"]) == ({"what": "it", "n": 3, "parts": ["a", "b"]}, str(tmp_path))
    assert [task["id"] for task in known["tasks"]] == ["part", "part.0", "part.1", "never", "sum"]

    assert cli("workflow", "graph", tail).out.startswith("flowchart")
    assert cli("workflow", "graph", "--format", "dot", tail).out.startswith("digraph")
    assert ElementTree.fromstring(cli("workflow", "graph", "--format", "svg", tail).out).tag.endswith("svg")
    graph = json.loads(cli("workflow", "graph", "--json", tail).out)
    assert {"from": "gather", "to": "end"} in graph["edges"] and len(graph["nodes"]) == 5
    report = cli("workflow", "report", tail).out
    assert report.startswith("# demo: completed\n\n## Answer\n\n```\nzebra")
    end = time.monotonic() + 20
    while tail not in cli("archive", "zebra").out:
        assert time.monotonic() < end
    assert tail not in cli("archive", "okapi").out
    assert cli("archive", "show", tail).out == report


def test_a_person_in_the_middle(cli: Cli, box: Box) -> None:
    workflow_id = cli("workflow", "run", "-", stdin=ASKS).out.strip()
    tail = workflow_id[-8:]
    with box.client() as client:
        while client.workflow_status(workflow_id)["status"] != "blocked":
            client.workflow_status(workflow_id, wait=10)
    assert "Ship it?  [approval" in cli("workflow", "show", tail).out
    assert tail in cli("workflow", "list", "--status", "blocked").out
    follow = cli("workflow", "run", "-", "--follow", "--timeout", "0.5", stdin=ASKS, code=124)
    assert "?  ok: Ship it?  (orchestr8d workflow approve" in follow.out and "goes on" in follow.err
    assert cli("workflow", "approve", tail, "--comment", "fine").out.split() == ["ok", "completed"]
    assert "nothing is asked" in cli("workflow", "approve", tail, code=5).err
    assert cli("workflow", "reject", tail, "ok", code=5).err
    assert "paused" in cli("workflow", "pause", tail).out and tail in cli("workflow", "resume", tail).out
    assert cli("workflow", "signal", tail, "go", '{"by": "me"}').out == "sent go\n"
    with box.client() as client:
        assert client.wait_workflow(workflow_id, 20)["status"] == "completed"
        assert client.workflow_tasks(workflow_id)[1]["result"] == "fine me"


def test_what_fails_and_goes_on(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "fails.yaml").write_text(FAILS)
    done = cli("workflow", "run", "./fails.yaml", "--wait", code=1)
    tail = done.out.split()[0]
    assert f"workflow {tail} failed" in done.err
    report = cli("workflow", "report", tail).out
    assert "- **bad**: exit: " in report and "- cut off by that: after" in report and '["bad"]' in report
    (tmp_path / "there").touch()
    again = cli("workflow", "retry", tail, "--follow", "--json")
    *events, last = [json.loads(line) for line in again.lines]
    assert last["status"] == "completed" and {event["workflow_id"][-8:] for event in (*events, last)} == {tail}
    assert cli("workflow", "retry", tail, code=5).err

    ids = [cli("workflow", "run", "-", stdin=SLEEPS).out.strip() for _ in range(2)]
    assert [line.split()[1] for line in cli("workflow", "cancel", *ids).lines] == ["cancelled"] * 2
    assert cli("workflow", "cancel", ids[0], code=5).err


def test_what_is_refused(cli: Cli) -> None:
    broken = DEMO.replace("depends_on: [gather]", "depends_on: [gathr]").replace("params.n > 5", "params.m > 5")
    faults = cli("workflow", "run", "-", "-p", "what=x", "--dry-run", stdin=broken, code=1).err.splitlines()
    assert any("phases[1].depends_on[0]" in line and "'gather'" in line for line in faults), faults
    assert any("phases[0].tasks[1].when" in line for line in faults), faults
    assert "did you mean 'research'" in cli("workflow", "run", "reserch", "-p", "question=x", code=4).err
    assert "params.feature" in cli("workflow", "run", "add-feature", code=1).err
    assert "true or false" in cli("workflow", "run", "add-feature", "-p", "ui=perhaps", code=2).err
    assert "--timeout limits" in cli("workflow", "run", "x", "--timeout", "5", code=2).err
    assert "no workflow" in cli("workflow", "show", "ffffffff", code=4).err
    assert cli("workflow", "show", "x", code=2).err
    listed = cli("workflow", "templates").lines
    assert [line.split()[:2] for line in listed if line.startswith("add-feature")] == [["add-feature", "feature"]]
    shown = cli("workflow", "templates", "add-feature").out
    assert "orchestr8d workflow run add-feature -p feature=…" in shown and "one of python" in shown


def test_the_clients(box: Box, tmp_path: Path) -> None:
    definition = {"name": "lib", "phases": [{"id": "p", "tasks": [{"id": "t", "command": ["echo", "hi"]}]}]}

    async def run() -> None:
        async with AsyncClient(box.endpoint) as client:
            empty = (await client.start_workflow(name="steps", cwd=str(tmp_path)))["workflow_id"]
            await client.add_phase({"id": "p"}, workflow_id=empty)
            made = await client.add_tasks([{"id": "t", "phase": "p", "command": ["echo", "hi"]}], workflow_id=empty)
            assert [task["id"] for task in made] == ["t"]
            await client.add_milestone("begun", workflow_id=empty)
            await client.begin_workflow(empty)
            assert (await client.wait_workflow(empty, 20))["milestones"][0]["text"] == "begun"
            assert "## Answer" in await client.workflow_report(empty)
            end = time.monotonic() + 20
            while not (found := (await client.archive_page("steps"))["archive"]):
                assert time.monotonic() < end
            assert (await client.archived(found[0]["workflow_id"]))["report"].startswith("# steps: completed")

    asyncio.run(run())
    with box.client() as client:
        first = client.start_workflow(definition=definition, cwd=str(tmp_path), idempotency_key="same", tags=["lib"])
        assert (
            client.start_workflow(definition=definition, cwd=str(tmp_path), idempotency_key="same", tags=["lib"])
            == first
        )
        assert client.wait_workflow(first["workflow_id"], 20)["status"] == "completed"
        assert [one["id"] for one in client.workflows(tag=["lib"])] == [first["workflow_id"]]
        assert client.workflow_picture("mermaid", first["workflow_id"]).startswith("flowchart")
        assert "deploy" in [one["name"] for one in client.templates()]
        with pytest.raises(ApiError, match="no workflow") as refused:
            client.workflow_report("0198aaaa-0000-7000-8000-000000000000")
        assert refused.value.status == 404
