"""The built-in workflow that builds a feature, with the real CLI for each of its agents."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.agents.conftest import MakeAgents
from tests.daemon import FINAL, Daemon
from tests.messages_api import MessagesApi, fail, ok, say, use
from tests.messages_api.steps import Step, text_of
from tests.workflows import page

pytestmark = pytest.mark.slow

GOOD, BAD = "a list that can be exported", "a list that the API refuses"
AGENTS = [
    "requirements", "design", "backend", "frontend", "code_review", "test_review", "security_audit", "performance",
    "accessibility", "documentation", "guide", "summary",
]  # fmt: skip


def test_a_feature_is_built_by_real_agents(make_agents: MakeAgents, messages_api: MessagesApi, tmp_path: Path) -> None:
    messages_api.otherwise = lambda body: answer(body, tmp_path / "good")
    daemon = make_agents()
    daemon.env["ORCHESTR8D_RUNNERS__CLAUDE__CONCURRENCY"] = "8"
    daemon.start()
    good, bad = start(daemon, tmp_path / "good", GOOD), start(daemon, tmp_path / "bad", BAD)
    # No agent was answered until here: the submits have waited for none.
    messages_api.open("submitted")

    end, tasks = ended(daemon, good)
    assert (end["status"], end["progress"]["percent"], end["error"]) == ("completed", 100, None)
    agents = [task for task in tasks.values() if task["agent"]]
    assert [(task["id"], task["status"], task["attempt"]) for task in agents] == [(a, "completed", 1) for a in AGENTS]
    known = [daemon.task(task["task_id"]) for task in agents]
    costs = [task["usage"]["cost_usd"] for task in known]
    assert min(costs) > 0
    assert end["usage"]["cost_usd"] == pytest.approx(sum(costs))
    # What each was asked has reached the API once, in a conversation of its own.
    first = [(request.session, prompt(request.body)) for request in messages_api.requests if request.number == 0]
    assert [sum(task["prompt"].strip() in text for _, text in first) for task in known] == [1] * len(AGENTS)
    assert took(end) <= 0.7 * sum(map(took, agents))

    end, tasks = ended(daemon, bad)
    assert (end["status"], end["error"]["message"]) == ("failed", "failed: frontend")
    ends = {task["id"]: (task["status"], task["error"] and task["error"]["kind"]) for task in tasks.values()}
    assert [name for name, how in ends.items() if how == ("completed", None)] == AGENTS[:3]
    assert ends["frontend"] == ("failed", "invalid_request")
    assert "the front end is refused" in tasks["frontend"]["error"]["message"]
    cut_off = [task for name, task in tasks.items() if name not in AGENTS[:4]]
    assert {ends[task["id"]] for task in cut_off} == {("failed", "dependency_failed")}
    assert tasks["accept"]["error"]["message"] == "its phase delivery never began"
    assert [task["started_at"] for task in cut_off] == [None] * len(cut_off)
    # What is refused is not tried again, and who was cut off has asked nothing.
    assert tasks["frontend"]["attempt"] == 1
    assert len(set(first)) == len(AGENTS) + 4


def test_agents_hand_over_and_add_agents(make_agents: MakeAgents, messages_api: MessagesApi, work: Path) -> None:
    """Two patterns of the page in which it matters what the CLI does, and what it lets agents do."""

    def otherwise(body: dict[str, Any]) -> Step:
        asked, step = text_of(body["messages"][0]), sum(message["role"] == "assistant" for message in body["messages"])
        if "Split this question" not in asked:
            return say("a design" if step == 0 else "it is what I meant")
        tasks, curl = re.search(r'{"tasks":.*\]}', asked, re.S), re.search(r"curl .*@tasks\.json", asked, re.S)
        assert tasks is not None and curl is not None
        steps = (use("Write", file_path=str(work / "tasks.json"), content=tasks[0]), use("Bash", command=curl[0]))
        return [*steps, say("they are added"), say("the answer")][step]

    messages_api.otherwise = otherwise
    daemon = make_agents().start()
    body = {"cwd": str(work), "definition": page.definition("hand-over")}
    over = daemon.request("POST", "/api/v1/workflows", body)[1]["workflow_id"]
    body |= {"definition": page.definition("gather-as-it-goes"), "params": {"question": "Why?"}}
    gather = daemon.request("POST", "/api/v1/workflows", body)[1]["workflow_id"]
    end, tasks = ended(daemon, over)
    assert (end["status"], tasks["look-back"]["result"]) == ("completed", "it is what I meant")
    end, tasks = ended(daemon, gather)
    results = {name: task["result"] for name, task in tasks.items()}
    assert (end["status"], results["lead"], results["answer"]) == ("completed", "they are added", "the answer")
    said = [text_of(message) for request in messages_api.requests for message in request.body["messages"]]
    assert any("Make one answer of these: a design" in text for text in said)


def answer(body: dict[str, Any], cwd: Path) -> Step:
    """What the model does: it writes what it is to write; of the second feature it is not asked for the front end."""
    asked = prompt(body)
    if BAD in asked and "Build the front end" in asked:
        return fail(400, message="the front end is refused")
    step = ok(body)
    is_first = not any(message["role"] == "assistant" for message in body["messages"])
    for name in ("deployment-guide.md", "feature-report.md"):
        if f"Write {name}:" in asked and is_first:
            step = use("Write", file_path=str(cwd / name), content="as asked")
    # A pause between the parts of an answer: each agent takes about as long as any other.
    return msgspec.structs.replace(step, gate="submitted", pause=0.05)


def prompt(body: dict[str, Any]) -> str:
    """What the agent was asked, with reminders that the CLI writes around it."""
    return next(text for text in map(text_of, body["messages"]) if GOOD in text or BAD in text)


def start(daemon: Daemon, cwd: Path, feature: str) -> str:
    cwd.mkdir()
    body = {"template": "add-feature", "params": {"feature": feature}, "cwd": str(cwd)}
    status, started = daemon.request("POST", "/api/v1/workflows", body)
    assert status == 202, started
    return str(started["workflow_id"])


def ended(daemon: Daemon, workflow_id: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The status of a workflow that is over, and its tasks by their ids in the definition."""
    path = f"/api/v1/workflows/{workflow_id}"
    for _ in range(2):
        _, end = daemon.request("GET", f"{path}/status?until=final&wait=50")
    assert end["status"] in FINAL, end
    return end, {task["id"]: task for task in daemon.request("GET", f"{path}/tasks")[1]["tasks"]}


def took(one: dict[str, Any]) -> float:
    """Seconds from its start to its end."""
    began, over = (datetime.fromisoformat(one[name]) for name in ("started_at", "completed_at"))
    return (over - began).total_seconds()
