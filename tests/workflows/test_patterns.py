"""The patterns of the page about workflows, as they stand there, on one daemon, with a program in the CLI's place."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import FINAL, Daemon
from tests.workflows import page

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
W = "/api/v1/workflows"
# Each answers with what it was asked, but: the plan has two parts, and the critic likes second drafts.
CLAUDE = f"""#!{sys.executable} -IS
import json, os, sys

prompt, task = sys.stdin.read(), os.environ["ORCHESTR8_TASK"]
result, output = f"<{{task}}: {{prompt.strip()}}>", None
if task == "plan":
    output = {{"parts": ["why", "how"]}}
elif task == "write":
    result = "the second draft" if "This is round 2" in prompt else "a draft"
elif task == "critic":
    output = {{"approved": "second" in prompt, "changes": "more of it"}}
record = {{"type": "result", "subtype": "success", "is_error": False, "num_turns": 1, "result": result}}
print(json.dumps(record | ({{}} if output is None else {{"structured_output": output}})))
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("patterns")
    claude, home = root / "claude", root / "home"
    claude.write_text(CLAUDE)
    claude.chmod(0o755)
    home.mkdir()
    daemon = Daemon(
        root / "state", f'[runners.claude]\nbin = "{claude}"\n',
        env={"HOME": str(home), "CLAUDE_CONFIG_DIR": str(home / ".claude"), "ORCHESTR8D_EXECUTOR__CHILDREN": "stop"},
    )  # fmt: skip
    yield daemon.start()
    daemon.stop()


def start(daemon: Daemon, definition: dict[str, Any], cwd: Path, **params: str) -> Run:
    status, started = daemon.request("POST", W, {"definition": definition, "params": params, "cwd": str(cwd)})
    assert status == 202, started
    return Run(daemon, started["workflow_id"])


class Run:
    """A workflow that was started."""

    def __init__(self, daemon: Daemon, workflow_id: str) -> None:
        self.daemon = daemon
        self.id = workflow_id
        self.path = f"{W}/{workflow_id}"

    def tasks(self) -> dict[str, dict[str, Any]]:
        """Of each local id its latest round."""
        return {task["id"]: task for task in self.daemon.request("GET", f"{self.path}/tasks")[1]["tasks"]}

    def ended(self) -> tuple[str, dict[str, dict[str, Any]]]:
        _, end = self.daemon.request("GET", f"{self.path}/status?until=final&wait=30")
        assert end["status"] in FINAL, (end, self.tasks())
        return end["status"], self.tasks()

    def say(self, path: str, body: Any) -> None:
        """Once only a person can move it on."""
        end = time.monotonic() + 20
        while (now := self.daemon.request("GET", f"{self.path}/status")[1]["status"]) != "blocked":
            assert time.monotonic() < end and now not in FINAL, (now, self.tasks())
            time.sleep(0.02)
        assert self.daemon.request("POST", f"{self.path}/{path}", body)[0] == 200


def test_what_the_page_shows_runs(daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("test-%:\n\t@echo tested $*\n")
    for script in ("deploy.sh", "rollback.sh"):
        (tmp_path / script).write_text(f'#!/bin/sh\necho "$@" >>{script}.log\n[ "$1 $2" != "production v3" ]\n')
        (tmp_path / script).chmod(0o755)
    release, sick = (start(daemon, page.definition("release"), tmp_path, version=version) for version in ("v2", "v3"))
    gather = start(daemon, page.definition("gather"), tmp_path, question="Why, and how?")
    critic = start(daemon, page.definition("critic"), tmp_path)
    shards = start(daemon, page.definition("shards"), tmp_path)

    status, tasks = gather.ended()
    assert (status, tasks["part"]["result"]) == ("completed", ["<part.0: why>", "<part.1: how>"])
    parts = json.dumps(tasks["part"]["result"], separators=(",", ":"))
    assert tasks["answer"]["result"] == f"<answer: Answer Why, and how? from these: {parts}>"

    status, tasks = critic.ended()
    assert (status, {task["round"] for task in tasks.values()}) == ("completed", {1})
    assert (tasks["write"]["result"], tasks["verdict"]["result"]) == ("the second draft", "more of it")
    _, written = daemon.request("GET", f"/api/v1/tasks/{tasks['write']['task_id']}")
    assert "This is round 2. The critic says: more of it" in written["prompt"]
    assert daemon.request("GET", f"/api/v1/tasks/{written['retry_of']}/result")[1]["result"] == "a draft"

    status, tasks = shards.ended()
    assert (status, tasks["shard"]["result"]) == ("completed", ["tested unit", "tested api", "tested ui"])

    for one in (release, sick):
        one.say("tasks/signoff/approve", {"comment": "all green"})
        one.say("signals/window-open", {"by": "ops"})
        one.ended()
    status, tasks = release.ended()
    assert (status, tasks["signoff"]["result"], tasks["undo"]["status"]) == ("completed", "all green", "skipped")
    status, tasks = sick.ended()
    assert (status, tasks["production"]["error"]["kind"], tasks["undo"]["status"]) == ("failed", "exit", "completed")
    deployed = (tmp_path / "deploy.sh.log").read_text().splitlines()
    assert sorted(deployed) == ["production v2 ops", "production v3 ops", "staging v2", "staging v3"]
    assert (tmp_path / "rollback.sh.log").read_text() == "v3\n"


def test_a_task_hands_over_and_is_told_by_signals(daemon: Daemon, tmp_path: Path) -> None:
    """In a workflow, and outside of any: then it founds one."""
    [snippet] = re.findall(r"^```python\n(.*?)^```", page.PATTERNS, re.S | re.M)
    hands_over = {"command": [sys.executable, "-c", snippet], "env": {"PYTHONPATH": str(ROOT)}, "cwd": str(tmp_path)}
    alone = daemon.request("POST", "/api/v1/tasks", hands_over)[1]["task_id"]
    told = "{{ signals.trigger_synthesis.status }}, {{ signals['synthesis-complete'].task }}"
    after = {"id": "after", "command": ["echo", told], "wait_for": ["trigger_synthesis", "synthesis-complete"]}
    lead = {"id": "lead", **hands_over, "raw": True}
    inside = start(daemon, {"name": "w", "phases": [{"id": "p", "tasks": [lead, after]}]}, tmp_path)

    parts = ("<added-1: Analyze sources on topic X>", "<added-2: Analyze dataset Y>")
    synthesis = "<synthesis: Create the final report from\n\n{}\n\nand\n\n{}>".format(*parts)
    status, tasks = inside.ended()
    assert (status, tasks["after"]["result"]) == ("completed", "completed, synthesis")
    added = {"added-1": parts[0], "added-2": parts[1], "synthesis": synthesis}
    assert results(tasks) == {"lead": "", "after": "completed, synthesis", **added}
    assert {task["phase"] for task in tasks.values()} == {"p"}

    daemon.wait(alone)
    status, tasks = Run(daemon, daemon.task(alone)["workflow_id"]).ended()
    assert (status, results(tasks)) == ("completed", {"main": "", **added})
    assert tasks["main"]["task_id"] == alone


def test_a_person_sends_what_a_failed_task_did_not(daemon: Daemon, tmp_path: Path) -> None:
    ends = {"callback_url": "/webhook/over", "on_completion": "done", "max_retries": 0, "on_failure": "continue"}
    over = "{{ signals.over.task }} {{ signals.over.status }} {{ signals.over.error.kind }}"
    tasks = [
        {"id": "work", "command": ["false"], **ends},
        {"id": "anyway", "command": ["echo", over], "wait_for": ["over"]},
        {"id": "good", "command": ["echo", "{{ signals.done.result }}"], "wait_for": ["over", "done"]},
    ]
    run = start(daemon, {"name": "w", "phases": [{"id": "p", "tasks": tasks}]}, tmp_path)
    run.say("signals/done", {"result": "by hand"})
    status, ended = run.ended()
    said = {"work": "", "anyway": "work failed exit", "good": "by hand"}
    assert (status, results(ended)) == ("completed", said)


ASK = """
printf '%s %s %s\n' "$ORCHESTR8_TASK" "$ORCHESTR8_WORKFLOW_ID" "$ORCHESTR8_ATTEMPT"
sed "s/SELF/$ORCHESTR8_TASK_ID/" | while read -r method path body; do
    curl -s -o /dev/null -w '%{http_code}\n' -X "$method" -H "Authorization: Bearer $ORCHESTR8_TOKEN" \
        -H 'Content-Type: application/json' ${body:+-d "$body"} "$ORCHESTR8_URL/api/v1/$path"
done
"""
# What its own token may, where SELF is its task, OTHER another of its workflow, ALIEN one that is of none.
MAY = {
    "GET workflows/W": 200, "GET workflows/W/status": 200, "GET workflows/W/tasks": 200, "GET workflows/W/report": 200,
    "GET tasks/SELF": 200, "GET tasks/OTHER/result": 200, 'POST workflows/W/signals/s {"n": 1}': 200,
    'POST workflows/W/milestones {"text": "half"}': 200, 'POST tasks/SELF/progress {"percent": 50}': 200,
    'POST notifications {"notification_type": "update", "message": "m"}': 201,
    'POST tasks {"command": ["true"]}': 202,
    'POST workflows/W/tasks {"phase": "q", "id": "more", "command": ["true"]}': 202,
    "GET tasks/ALIEN": 403, "GET tasks": 403, "GET workflows": 403, 'POST workflows {"name": "n"}': 403,
    "POST workflows/W/cancel {}": 403, "POST workflows/W/pause {}": 403, "POST workflows/W/tasks/other/approve {}": 403,
    "POST tasks/SELF/cancel {}": 403, "POST tasks/OTHER/cancel {}": 403, 'POST queues/default/pause {}': 403,
    "GET tokens": 403, "GET archive": 403,
}  # fmt: skip


def test_inside_a_task(daemon: Daemon, tmp_path: Path) -> None:
    alien = daemon.submit("true", cwd=str(tmp_path))
    lines = "".join(f"{line}\n" for line in MAY).replace("ALIEN", alien)
    lines = lines.replace("/W", "/{{ workflow.id }}").replace("OTHER", "{{ tasks.other.task_id }}")
    ask = {"id": "ask", "depends_on": ["other"], "command": ["sh", "-c", ASK], "stdin": lines}
    [snippet] = re.findall(r"^```python\n(.*?)^```", page.INSIDE, re.S | re.M)
    python = {"env": {"PYTHONPATH": str(ROOT)}, "depends_on": ["plan"], "raw": True}
    show = f"exec {sys.executable} -m orchestr8d workflow show $ORCHESTR8_WORKFLOW_ID"
    by_page = [
        {"id": "plan", "command": ["echo", '{"parts": [1, 2]}']},
        {"id": "tells", "command": [sys.executable, "-c", snippet], **python},
        {"id": "knows", "command": ["echo", "{{ signals['parts-known'].parts }}"], "wait_for": ["parts-known"]},
        {"id": "shows", "command": ["sh", "-c", show], **python},
    ]
    fan = {"id": "each", "for_each": "['a']", "command": ["sh", "-c", ASK]}
    phases = [
        {"id": "p", "tasks": [{"id": "other", "command": ["echo", "done"]}, ask, fan, *by_page]},
        {"id": "q", "depends_on": ["p"]},
    ]  # fmt: skip
    run = start(daemon, {"name": "w", "phases": phases}, tmp_path)
    status, tasks = run.ended()
    assert status == "completed"
    names, *codes = tasks["ask"]["result"].splitlines()
    assert names == f"ask {run.id} 1"
    assert tasks["each"]["result"] == [f"each.0 {run.id} 1"]
    assert dict(zip(MAY, map(int, codes), strict=True)) == MAY
    assert tasks["knows"]["result"] == "[1,2]"
    assert "2 parts found" in [one["text"] for one in daemon.request("GET", f"{run.path}/status")[1]["milestones"]]
    assert "● shows" in tasks["shows"]["result"]
    assert {name: task["phase"] for name, task in tasks.items() if name in ("added-1", "more")} == {
        "added-1": "p", "more": "q",
    }  # fmt: skip


def results(tasks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: task["result"] for name, task in tasks.items()}
