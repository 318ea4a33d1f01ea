"""Agents through the death of the daemon, of the CLI and of everything at once."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from tests.agents.conftest import MakeAgents, ask, result, until
from tests.claude_cli import claude_binary, noted
from tests.daemon import Daemon
from tests.messages_api import MessagesApi, say, script, use
from tests.torture.journal import left_alive

pytestmark = pytest.mark.slow


def attempts(daemon: Daemon, task_id: str) -> list[str]:
    return [a["attempt_id"] for a in daemon.task(task_id)["attempts"]]


def test_the_cli_works_on_while_the_daemon_is_dead(
    make_agents: MakeAgents, messages_api: MessagesApi, work: Path
) -> None:
    daemon = make_agents().start()
    prompt = script(use("Write", file_path=str(work / "a"), content="A"), say("wrote it", gate="answer"))
    task = ask(daemon, work, prompt)
    messages_api.wait(2)
    daemon.kill()
    daemon.start()
    assert daemon.wait_until(task, "running")["status"] == "running"
    messages_api.open("answer")
    done = daemon.wait(task)
    assert (done["status"], len(done["attempts"]), done["retry_count"]) == ("completed", 1, 0)
    got = result(daemon, task)
    assert (got["result"], got["files_created"], (work / "a").read_text()) == ("wrote it", [str(work / "a")], "A")
    assert got["usage"]["cost_usd"] > 0
    # Each step was asked for once: nothing ran twice.
    assert [r.number for r in messages_api.requests] == [0, 1]


def test_the_cli_ends_while_the_daemon_is_dead(
    make_agents: MakeAgents, messages_api: MessagesApi, work: Path
) -> None:
    daemon = make_agents().start()
    task = ask(daemon, work, script(say("done by then", gate="answer")))
    messages_api.wait(1)
    ids = attempts(daemon, task)
    daemon.kill()
    messages_api.open("answer")
    until(lambda: not left_alive(ids))
    daemon.start()
    done = daemon.wait(task)
    assert (done["status"], len(done["attempts"]), result(daemon, task)["result"]) == ("completed", 1, "done by then")
    assert len(messages_api.requests) == 1


def test_after_a_loss_of_everything_it_is_resumed(
    make_agents: MakeAgents, messages_api: MessagesApi, work: Path
) -> None:
    daemon = make_agents().start()
    prompt = script(use("Bash", command="echo one >> log"), say("finished", gate="answer"))
    task = ask(daemon, work, prompt, permission_mode="acceptEdits", allowed_tools=["Bash"], max_retries=0)
    messages_api.wait(2)
    ids = attempts(daemon, task)
    daemon.kill()
    for pid in left_alive(ids):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not left_alive(ids))
    messages_api.open("answer")
    daemon.start()
    done = daemon.wait(task)
    assert (done["status"], done["retry_count"]) == ("completed", 0)
    assert [a["status"] for a in done["attempts"]] == ["interrupted", "completed"]
    # The same conversation: the first step was not asked for again, and its tool ran once.
    assert len({a["session_id"] for a in done["attempts"]}) == 1
    assert (work / "log").read_text() == "one\n"
    assert [r.number for r in messages_api.requests] == [0, 1, 1]


def test_a_killed_cli_is_resumed_and_leaves_no_tool_behind(
    make_agents: MakeAgents, messages_api: MessagesApi, claude_env: dict[str, str], work: Path
) -> None:
    daemon = make_agents().start()
    tool = use("Bash", command="touch begun; tail -f /dev/null", timeout=60_000)
    prompt = script(tool, *[say("went on")] * 5)
    backoff = {"kind": "fixed", "base": 0.1}
    task = ask(daemon, work, prompt, allowed_tools=["Bash"], max_retries=1, retry_backoff=backoff)
    until(lambda: (work / "begun").exists() and noted(claude_env, "tool_use"))
    (attempt,) = attempts(daemon, task)
    cli = next(pid for pid, command in left_alive([attempt]).items() if command.startswith(str(claude_binary())))
    os.kill(cli, signal.SIGKILL)
    done = daemon.wait(task)
    assert (done["status"], done["retry_count"]) == ("completed", 1)
    assert [(a["status"], a["error"] and a["error"]["kind"]) for a in done["attempts"]] == [
        ("failed", "crashed"), ("completed", None),
    ]  # fmt: skip
    assert left_alive([attempt]) == {}
    assert result(daemon, task)["result"] == "went on"


def test_what_was_spent_before_a_timeout_counts(make_agents: MakeAgents, messages_api: MessagesApi, work: Path) -> None:
    daemon = make_agents().start()
    prompt = script(use("Bash", command="echo 1"), say("x", gate="never"))
    backoff = {"kind": "fixed", "base": 0.1}
    more = {"allowed_tools": ["Bash"], "timeout": "4s", "retry_backoff": backoff}
    # Enough for one answer and a half; the second attempt begins a new conversation.
    task = ask(daemon, work, prompt, max_cost_usd=0.0015, **more)
    done = daemon.wait(task)
    assert [(a["error"]["kind"], a["usage"]["cost_usd"]) for a in done["attempts"]] == [
        ("timeout", 0.001054), ("budget", 0.001054),
    ]  # fmt: skip
    assert done["error"] == {"kind": "budget", "message": "spent all that it may (max_cost_usd 0.0015)"}
    assert done["usage"]["cost_usd"] == pytest.approx(0.002108)
    assert len({a["session_id"] for a in done["attempts"]}) == 2


def test_a_stop_of_the_daemon_queues_it_again_without_a_retry(
    make_agents: MakeAgents, messages_api: MessagesApi, work: Path
) -> None:
    daemon = make_agents('[executor]\nchildren = "stop"\n').start()
    task = ask(daemon, work, script(say("after all", gate="answer")), max_retries=0)
    messages_api.wait(1)
    assert daemon.stop() == 0
    messages_api.open("answer")
    daemon.start()
    done = daemon.wait(task)
    assert (done["status"], done["retry_count"], len(done["attempts"])) == ("completed", 0, 2)
    assert result(daemon, task)["result"] == "after all"
