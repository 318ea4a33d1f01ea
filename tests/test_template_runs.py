"""The built-in templates on a real daemon, with a program in the place of the CLI that answers at once: to their ends,
refused, failing and cancelled in each phase, and what is left then."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from orchestr8d.processes import table
from orchestr8d.templates import Templates
from tests.daemon import FINAL, Daemon

pytestmark = pytest.mark.slow

# Whatever a template asks for by json_schema.
ANSWER = {
    "approved": True, "passed": True, "sound": True, "score": 90, "count": 3,
    **{key: ["one", "two"] for key in ("hypotheses", "candidates", "assumptions", "alternatives")},
    **dict.fromkeys(("changes", "review", "reason", "objections", "summary", "commit_message", "plan", "criteria",
                     "method", "inventory", "space", "sources"), "as asked"),
}  # fmt: skip
# What it does is said by files where it runs, each with the names of the tasks that are meant.
CLAUDE = """#!/bin/sh
set -f
prompt=$(cat) task=${{ORCHESTR8_TASK%.*}} answer='{answer}'
said() {{ [ -e "$1" ] && read -r names <"$1" && case " $names " in *" $task "* | *" all "*) ;; *) false ;; esac; }}
said hold && echo >held && exec sleep 300
record='{{"type":"result","subtype":"success","num_turns":1,"result":"done","is_error"'
said fail && echo "$record"':true,"api_error_status":400}}' && exit 1
said deny && answer='{denial}'
[ -e slow ] && sleep 0.3
for word in $prompt; do
    word=${{word%[,.:;]}}
    case $word in *.md) echo written >"$word" ;; esac
done
echo "$record"':false,"structured_output":'"$answer"'}}'
"""
DENIAL = ANSWER | {"approved": False, "passed": False, "sound": False}
PARAMS = {
    "add-feature": {"feature": "an export"}, "benchmark": {"question": "which one?"}, "deploy": {"version": "v2"},
    "discover-patterns": {"scope": "."}, "explore-alternatives": {"problem": "it is slow"},
    "new-project": {"description": "a shop"}, "research": {"question": "why?", "pace": "days", "day": "0s"},
    "review-pr": {"pr": "12"}, "validate-assumptions": {"subject": "the plan"},
}  # fmt: skip
# How often a phase has run when its critic never accepts.
ROUNDS = {
    "add-feature": 2, "benchmark": 2, "explore-alternatives": 2, "new-project": 2, "research": 2,
    "validate-assumptions": 2, "deploy": 0,
}  # fmt: skip
UPDATES = [
    "Literature review started (3 sources found)", "Initial analysis complete (key trends identified)",
    "Draft report ready for review", "Research complete, ready for presentation",
]  # fmt: skip


class Run:
    """A workflow of a template, in a directory of its own. `told`: what the program in the CLI's place is told."""

    def __init__(self, root: Path, template: str, number: int, answers: str = "approve", phase: str = "",
                 params: dict[str, Any] | None = None, **told: str) -> None:  # fmt: skip
        self.template = template
        self.answers = answers
        self.phase = phase
        self.told = told
        self.params = PARAMS[template] | (params or {})
        self.cwd = root / f"{number}-{template}"
        self.cwd.mkdir()
        for name, tasks in told.items():
            (self.cwd / name).write_text(tasks + "\n")
        self.id = ""
        self.cancelled = False

    def start(self, daemon: Daemon) -> None:
        body = {"template": self.template, "params": self.params, "cwd": str(self.cwd)}
        status, answer = daemon.request("POST", "/api/v1/workflows", body)
        assert status == 202, answer
        self.id = answer["workflow_id"]

    def get(self, daemon: Daemon, what: str) -> dict[str, Any]:
        status, answer = daemon.request("GET", f"/api/v1/workflows/{self.id}/{what}")
        assert status == 200, answer
        return answer  # type: ignore[no-any-return]

    def help(self, daemon: Daemon, status: str) -> None:
        """Answers the approval that it waits for; cancels it where that is meant."""
        if "hold" in self.told and not self.cancelled and (self.cwd / "held").exists():
            self.cancelled = True
            assert daemon.request("POST", f"/api/v1/workflows/{self.id}/cancel", {})[0] == 200
        elif status == "blocked":
            for task in self.get(daemon, "tasks")["tasks"]:
                if [wait["kind"] for wait in task["waiting_for"]] == ["approval"]:
                    answer = f"/api/v1/workflows/{self.id}/tasks/{task['id']}/{self.answers}"
                    assert daemon.request("POST", answer, {"comment": "seen"})[0] == 200

    def check(self, daemon: Daemon) -> None:
        status, tasks = self.get(daemon, "status"), {t["id"]: t for t in self.get(daemon, "tasks")["tasks"]}
        phases = {phase["id"]: phase for phase in status["phases"]}
        where = (self.template, self.phase, self.told, {t: (v["status"], v["error"]) for t, v in tasks.items()})
        assert all(task["status"] in FINAL for task in tasks.values()), where
        rollback = [t["status"] for t in tasks.values() if t["phase"] == "on_failure"]
        if "hold" in self.told:
            assert (status["status"], phases[self.phase]["status"]) == ("cancelled", "cancelled"), where
            assert all(state in ("completed", "skipped") for state in rollback), where
        elif self.answers == "reject":
            [approval] = [t for t in tasks.values() if t["approval"]]
            assert (approval["status"], approval["error"]["kind"], approval["result"]) == ("failed", "rejected", "seen")
            assert (status["status"], phases[self.phase]["status"]) == ("failed", "failed"), where
            # Nothing was deployed: nothing is taken back, but the failure is told.
            assert rollback == (["skipped", "skipped", "completed"] if self.template == "deploy" else []), where
        elif "deny" in self.told and (self.template in ROUNDS or self.params.get("gate")):
            assert status["status"] == "failed", where
            assert max(t["round"] for t in tasks.values()) == ROUNDS.get(self.template, 0), where
            if self.template == "add-feature":
                _, built = daemon.request("GET", f"/api/v1/tasks/{tasks['backend']['task_id']}")
                assert "This is round 3" in built["prompt"] and "Security: as asked" in built["prompt"]
        elif "fail" in self.told and not self.forgiven():
            assert status["status"] == "failed", where
            assert not self.phase or phases[self.phase]["status"] == "failed", where
            assert all(before(phases, self.phase, "completed", "skipped")), where
            cut = [t for t in tasks.values() if (t["error"] or {}).get("kind") == "dependency_failed"]
            assert all(t["started_at"] is None or t["for_each"] for t in cut), where
            if self.template == "deploy":
                entered = tasks["go"]["status"] == "completed"
                assert rollback[:2] == ["skipped", "completed" if entered else "skipped"], where
        else:
            assert (status["status"], status["progress"]["percent"]) == ("completed", 100), where
            assert all(phase["status"] in ("completed", "skipped") for phase in phases.values()), where
            assert rollback == ["skipped"] * len(rollback)
            if self.template == "research" and self.params["pace"] == "days":
                assert [milestone["text"] for milestone in status["milestones"]] == UPDATES

    def forgiven(self) -> bool:
        """Whether what failed in it was not to count."""
        steps = [s for p in definition(self.template)["phases"] for s in p["tasks"] if s["id"] == self.told["fail"]]
        return any(step.get("on_failure") == "continue" for step in steps)


def before(phases: dict[str, dict[str, Any]], phase: str, *states: str) -> Iterator[bool]:
    for other in phases[phase]["depends_on"] if phase else ():
        yield phases[other]["status"] in states
        yield from before(phases, other, *states)


def definition(name: str) -> dict[str, Any]:
    return Templates(list, None).get(name)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("templates")
    claude, home = root / "claude", root / "home"
    claude.write_text(CLAUDE.format(answer=json.dumps(ANSWER), denial=json.dumps(DENIAL)))
    claude.chmod(0o755)
    home.mkdir()
    daemon = Daemon(
        root / "state",
        f'[executor]\nconcurrency = 24\ngrace = 0.5\n[runners.claude]\nbin = "{claude}"\nconcurrency = 24\n',
        env={"HOME": str(home), "CLAUDE_CONFIG_DIR": str(home / ".claude"), "ORCHESTR8D_EXECUTOR__CHILDREN": "stop"},
    )
    yield daemon.start()
    daemon.stop()


def runs(root: Path) -> Iterator[Run]:
    def run(template: str, **more: Any) -> Run:
        return Run(root, template, len(list(root.glob("[0-9]*"))), **more)

    for name in PARAMS:
        yield run(name)
        yield run(name, fail="all")
        if name in ROUNDS:
            yield run(name, deny="all")
        for phase in definition(name)["phases"]:
            agents = [task["id"] for task in phase["tasks"] if "agent" in task]
            if agents:
                yield run(name, phase=phase["id"], fail=agents[0])
                yield run(name, phase=phase["id"], hold=agents[0])
    yield run("review-pr", phase="publication", deny="all", params={"gate": True})
    yield run("research", params={"pace": "hours"})
    yield run("add-feature", params={"ui": False, "test_command": ["true"], "signoff": True})
    yield run("add-feature", phase="build", fail="none", params={"test_command": ["false"]})
    yield run("new-project", phase="architecture", answers="reject")
    yield run("deploy", phase="production", answers="reject")


def test_what_can_go_side_by_side_does(tmp_path: Path, daemon: Daemon) -> None:
    run = Run(tmp_path, "add-feature", 0, slow="all")
    run.start(daemon)
    tasks = run.get(daemon, "tasks")["tasks"]
    assert not any(task["status"] in FINAL for task in tasks), "the submit has waited for an agent"
    finish(daemon, [run])
    run.check(daemon)
    tasks = [task for task in run.get(daemon, "tasks")["tasks"] if task["agent"]]
    assert len(tasks) == 12
    assert took(run.get(daemon, "status")) <= 0.7 * sum(map(took, tasks))


def test_every_template_comes_to_the_end_that_it_should(tmp_path: Path, daemon: Daemon) -> None:
    all_runs = list(runs(tmp_path))
    for run in all_runs:
        run.start(daemon)
    finish(daemon, all_runs)
    for run in all_runs:
        run.check(daemon)
    left = daemon.request("GET", "/api/v1/tasks?status=pending,queued,running,retrying,parked,needs_input")
    assert left == (200, {"tasks": [], "next_cursor": None})
    url = f"http://127.0.0.1:{daemon.port}"
    alive = [pid for pid, process in table.snapshot().items() if process.alive]
    assert [pid for pid in alive if table.variable(table.environment(pid), "ORCHESTR8_URL") == url] == []


def finish(daemon: Daemon, runs: list[Run]) -> None:
    """Answers approvals and cancels, as each run has it, until all of them are over."""
    end = time.monotonic() + 120
    while True:
        _, answer = daemon.request("GET", "/api/v1/workflows?limit=1000")
        states = {one["workflow_id"]: one["status"] for one in answer["workflows"]}
        left = [run for run in runs if states[run.id] not in FINAL]
        if not left:
            return
        assert time.monotonic() < end, [(run.template, run.told, run.get(daemon, "status")) for run in left]
        for run in left:
            run.help(daemon, states[run.id])
        time.sleep(0.2)


def took(one: dict[str, Any]) -> float:
    """Seconds from its start to its end."""
    began, ended = (datetime.fromisoformat(one[name]) for name in ("started_at", "completed_at"))
    return (ended - began).total_seconds()
