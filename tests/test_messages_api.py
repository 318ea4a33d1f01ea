"""What the runner relies on in the real Claude CLI, seen against the scripted API."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from uuid import uuid4

import pytest

from tests.claude_cli import SUBSCRIPTION, Claude, Ended
from tests.messages_api import (
    LOW_CREDIT,
    MessagesApi,
    answer,
    call,
    fail,
    limit_reached,
    say,
    script,
    use,
)
from tests.messages_api.steps import Step

pytestmark = pytest.mark.slow

BASH = ("--allowedTools", "Bash")
SCHEMA = ("--json-schema", json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}))
NO_RETRIES = {"CLAUDE_CODE_MAX_RETRIES": "0"}


def said(ended: Ended) -> list[str]:
    """Texts and names of tools, in order."""
    blocks = [block for record in ended.of("assistant") for block in record["message"]["content"]]
    return [block["text"] if block["type"] == "text" else block["name"] for block in blocks]


def failed(ended: Ended, status: int | None, error_type: str | None, error: str) -> None:
    """An API failure calls itself a success, but for `is_error` and the exit code."""
    result = ended.result
    assert (ended.code, result["subtype"], result["is_error"]) == (1, "success", True)
    assert (result["terminal_reason"], result["api_error_status"]) == ("api_error", status)
    assert result.get("api_error_type") == error_type
    last = ended.of("assistant")[-1]
    assert (last["message"]["model"], last["error"]) == ("<synthetic>", error)
    # Of an answer that was cut off the CLI may have counted the beginning.
    assert result["total_cost_usd"] < 0.001


# --- answers


def test_text(claude: Claude, messages_api: MessagesApi) -> None:
    session = str(uuid4())
    ended = claude.run("please: " + script(say("hello  world\n"), name="greet"), "--session-id", session)
    assert (ended.code, ended.stderr) == (0, "")
    result = ended.result
    assert (result["subtype"], result["is_error"], result["terminal_reason"]) == ("success", False, "completed")
    assert (result["result"], result["num_turns"]) == ("hello  world\n", 1)
    (init,) = ended.of("system", "init")
    assert (init["session_id"], init["cwd"], init["permissionMode"]) == (session, str(claude.cwd), "default")
    (request,) = messages_api.requests
    assert (request.session, request.name, request.number, request.attempt) == (session, "greet", 0, 1)
    assert request.headers["X-API-Key"] == "sk-ant-dummy"
    assert request.body["stream"] is True
    assert abs(request.at - time.time()) < 30


def test_without_a_script_the_answer_is_ok(claude: Claude) -> None:
    assert claude.run("do something").result["result"] == "ok"


def test_steps_with_tools(claude: Claude, messages_api: MessagesApi) -> None:
    both = answer("both", call("Bash", command="echo 1 >one"), call("Bash", command="echo 2 >two"))
    ended = claude.run(script(both, use("Bash", command="cat one two"), say("done")), *BASH)
    assert said(ended) == ["both", "Bash", "Bash", "Bash", "done"]
    assert ended.of("user")[-1]["message"]["content"][0]["content"] == "1\n2"
    assert ended.result["num_turns"] == 4  # each result of a tool counts, and the end
    assert [r.number for r in messages_api.requests] == [0, 1, 2]


def test_a_large_input_makes_a_large_line(claude: Claude) -> None:
    text = "0123456789" * 40_000
    prompt = script(use("Write", file_path="large.txt", content=text), say("written"))
    ended = claude.run(prompt, "--permission-mode", "acceptEdits")
    assert ended.code == 0
    assert (claude.cwd / "large.txt").read_text() == text
    assert max(len(json.dumps(r)) for r in ended.records) > 400_000


def test_slow_output_comes_word_by_word(claude: Claude) -> None:
    words = "one two three four"
    ended = claude.run(script(say(words, pause=0.1)), "--include-partial-messages")
    events = [r["event"] for r in ended.of("stream_event")]
    assert [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"] == [
        "one",
        " two",
        " three",
        " four",
    ]
    assert ended.result["result"] == words
    assert ended.result["duration_api_ms"] >= 400


def test_todo_tools(claude: Claude) -> None:
    env = {"CLAUDE_CODE_ENABLE_TODO_TOOLS": "1"}
    create = answer(
        "", call("TaskCreate", subject="A", description="a"), call("TaskCreate", subject="B", description="b")
    )
    update = [use("TaskUpdate", taskId="1", status=status) for status in ("in_progress", "completed")]
    ended = claude.run(script(create, *update, say("done")), **env)
    assert ended.code == 0
    results = [r["tool_use_result"] for r in ended.of("user")]
    assert [r["task"]["id"] for r in results[:2]] == ["1", "2"]
    assert [r["statusChange"]["to"] for r in results[2:]] == ["in_progress", "completed"]


def test_todo_write_is_the_tool_with_tasks_off(claude: Claude) -> None:
    env = {"CLAUDE_CODE_ENABLE_TODO_TOOLS": "1", "CLAUDE_CODE_ENABLE_TASKS": "0"}
    todos = [{"content": "A", "status": "in_progress", "activeForm": "Doing A"}]
    ended = claude.run(script(use("TodoWrite", todos=todos), say("done")), **env)
    assert ended.code == 0
    assert ended.of("user")[0]["tool_use_result"]["newTodos"] == todos


def test_structured_output(claude: Claude, messages_api: MessagesApi) -> None:
    ended = claude.run(script(use("StructuredOutput", n=3), say("not asked for")), *SCHEMA)
    assert (ended.code, ended.result["structured_output"], ended.result["result"]) == (0, {"n": 3}, '{"n":3}')
    assert len(messages_api.requests) == 1


@pytest.mark.parametrize("step", [say("no"), use("StructuredOutput", n="three")], ids=["missing", "unfit"])
def test_structured_output_that_is_not_there_is_no_error(claude: Claude, step: Step) -> None:
    ended = claude.run(script(step, say("no"), say("no")), *SCHEMA)
    assert (ended.code, ended.result["subtype"], ended.result["is_error"]) == (0, "success", False)
    assert "structured_output" not in ended.result


def test_a_subagent_has_a_script_of_its_own(claude: Claude, messages_api: MessagesApi) -> None:
    inner = script(use("Bash", command="echo inner >inner"), say("inner"), name="inner")
    agent = use("Agent", description="d", prompt=inner, subagent_type="general-purpose", run_in_background=False)
    ended = claude.run(script(agent, say("outer"), name="outer"), *BASH)
    assert (ended.code, ended.result["result"]) == (0, "outer")
    assert (claude.cwd / "inner").exists()
    assert [(r.name, r.number) for r in messages_api.requests] == [
        ("outer", 0),
        ("inner", 0),
        ("inner", 1),
        ("outer", 1),
    ]
    assert {r["parent_tool_use_id"] is None for r in ended.of("assistant")} == {True, False}


def test_a_denied_permission_is_a_success_that_says_so(claude: Claude) -> None:
    ended = claude.run(script(use("Bash", command="touch file"), say("done")))
    assert (ended.code, ended.result["subtype"], ended.result["is_error"]) == (0, "success", False)
    assert [(d["tool_name"], d["tool_input"]) for d in ended.result["permission_denials"]] == [
        ("Bash", {"command": "touch file"})
    ]
    assert not (claude.cwd / "file").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs the word of a sandbox")
def test_root_bypasses_permissions_in_a_sandbox_only(claude: Claude) -> None:
    prompt, mode = script(use("Bash", command="touch file"), say("done")), ("--permission-mode", "bypassPermissions")
    refused = claude.run(prompt, *mode)
    assert (refused.code, refused.records) == (1, [])
    assert "root" in refused.stderr
    assert claude.run(prompt, *mode, IS_SANDBOX="1").code == 0
    assert (claude.cwd / "file").exists()


def test_a_script_that_cannot_be_read_says_why(claude: Claude, messages_api: MessagesApi) -> None:
    ended = claude.run('@@steps [{"txt": "typo"}]')
    failed(ended, 400, "invalid_request_error", "unknown")
    assert "unknown field `txt`" in ended.result["result"]
    assert messages_api.requests == []


def test_a_leading_slash_is_a_command_but_for_a_blank_before_it(claude: Claude, messages_api: MessagesApi) -> None:
    prompt = "/context " + script(say("from the model"))
    command = claude.run(prompt)
    assert (command.code, messages_api.requests) == (0, [])
    assert "Context Usage" in command.result["result"]
    assert claude.run(" " + prompt).result["result"] == "from the model"


# --- what it costs, and its limits


def test_cost_is_computed_from_the_usage_that_the_api_told(claude: Claude) -> None:
    def cost(**usage: int) -> float:
        return float(claude.run(script(say("x", usage=usage))).result["total_cost_usd"])

    plain = cost()
    assert cost(output_tokens=30 + 1000) == pytest.approx(plain + 1000 * 20e-6)
    assert cost(input_tokens=100 + 1000) == pytest.approx(plain + 1000 * 4e-6)


def test_a_budget_is_looked_at_after_the_answer(claude: Claude) -> None:
    ended = claude.run(script(say("x", usage={"output_tokens": 100_000})), "--max-budget-usd", "0.5")
    result = ended.result
    assert (ended.code, result["subtype"], result["is_error"]) == (1, "error_max_budget_usd", True)
    assert result["terminal_reason"] == "budget_exhausted"
    assert result["total_cost_usd"] > 2
    # The run's `usage` is empty then: the models' is not.
    assert result["usage"]["output_tokens"] == 0
    assert [m["outputTokens"] for m in result["modelUsage"].values()] == [100_000]


def test_max_turns(claude: Claude) -> None:
    ended = claude.run(script(use("Bash", command="echo 1"), say("never")), *BASH, "--max-turns", "1")
    result = ended.result
    assert (ended.code, result["subtype"], result["is_error"]) == (1, "error_max_turns", True)
    assert (result["terminal_reason"], result["num_turns"]) == ("max_turns", 2)


# --- errors

ERRORS = {
    "400": (fail(400), 400, "invalid_request_error", "unknown"),
    "401": (fail(401), 401, "authentication_error", "authentication_failed"),
    "402": (fail(402), 402, "billing_error", "unknown"),
    "403": (fail(403), 403, "permission_error", "authentication_failed"),
    "429": (fail(429), 429, "rate_limit_error", "rate_limit"),
    "500": (fail(500), 500, "api_error", "server_error"),
    "529": (fail(529), 529, "overloaded_error", "server_error"),
    "low credit": (LOW_CREDIT, 400, "invalid_request_error", "billing_error"),
    "in the answer": (fail(200, "overloaded_error", text="some words of it"), 529, "overloaded_error", "server_error"),
    "cut at once": (say("some words of it", drop="start"), None, None, "server_error"),
    "cut in the middle": (say("some words of it", drop="middle"), None, None, "server_error"),
}


@pytest.mark.parametrize(("step", "status", "error_type", "error"), ERRORS.values(), ids=ERRORS)
def test_errors(claude: Claude, step: Step, status: int | None, error_type: str | None, error: str) -> None:
    failed(claude.run(script(step), **NO_RETRIES), status, error_type, error)


def test_a_broken_stream_is_asked_for_once_more_as_a_whole(claude: Claude, messages_api: MessagesApi) -> None:
    ended = claude.run(script(say("all of it", first=[say("some of it", drop="middle")])), **NO_RETRIES)
    assert (ended.code, said(ended)) == (0, ["all of it"])
    assert [r.body.get("stream", False) for r in messages_api.requests] == [True, False]


@pytest.mark.parametrize(
    ("status", "error"), [(401, "authentication_failed"), (429, "rate_limit"), (529, "overloaded")]
)
def test_retries(claude: Claude, messages_api: MessagesApi, status: int, error: str) -> None:
    ended = claude.run(script(fail(status)))
    assert ended.code == 1
    retries = ended.of("system", "api_retry")
    assert [(r["attempt"], r["max_retries"], r["error_status"], r["error"]) for r in retries] == [
        (1, 2, status, error),
        (2, 2, status, error),
    ]
    assert all(least <= r["retry_delay_ms"] <= 1.3 * least for r, least in zip(retries, (500, 1000), strict=True))
    assert [r.attempt for r in messages_api.requests] == [1, 2, 3]


def test_403_is_not_retried(claude: Claude, messages_api: MessagesApi) -> None:
    ended = claude.run(script(fail(403)))
    assert (ended.code, len(messages_api.requests)) == (1, 1)


def test_flaky(claude: Claude) -> None:
    ended = claude.run(script(say("fine", first=[fail(529), fail(500)])))
    assert (ended.code, ended.result["result"]) == (0, "fine")
    assert [r["error_status"] for r in ended.of("system", "api_retry")] == [529, 500]


def test_a_subscription_tells_when_its_limit_is_over(claude: Claude, messages_api: MessagesApi) -> None:
    resets_at = int(time.time()) + 3600
    ended = claude.run(script(limit_reached(resets_at)), **SUBSCRIPTION)
    failed(ended, 429, "rate_limit_error", "rate_limit")
    (event,) = ended.of("rate_limit_event")
    assert event["rate_limit_info"] == {
        "status": "rejected",
        "resetsAt": resets_at,
        "rateLimitType": "five_hour",
        "isUsingOverage": False,
    }
    (request,) = messages_api.requests  # no retries then
    assert request.headers["Authorization"] == "Bearer " + SUBSCRIPTION["CLAUDE_CODE_OAUTH_TOKEN"]


def test_a_key_is_told_nothing_of_its_limit(claude: Claude) -> None:
    ended = claude.run(script(limit_reached(int(time.time()) + 3600)), **NO_RETRIES)
    failed(ended, 429, "rate_limit_error", "rate_limit")
    assert ended.of("rate_limit_event") == []


@pytest.mark.parametrize("env", [SUBSCRIPTION, {}], ids=["subscription", "key"])
def test_limits_that_are_not_reached(claude: Claude, env: dict[str, str]) -> None:
    """A subscription reports them with each answer: the status decides, not the record."""
    resets_at = int(time.time()) + 3600
    headers = limit_reached(resets_at).headers | {"anthropic-ratelimit-unified-status": "allowed"}
    ended = claude.run(script(say("fine", headers=headers)), **env)
    assert ended.code == 0
    reported = [
        (r["rate_limit_info"]["status"], r["rate_limit_info"]["resetsAt"]) for r in ended.of("rate_limit_event")
    ]
    assert reported == ([("allowed", resets_at)] if env else [])


# --- waiting, ends, and going on


def test_an_answer_is_held_until_it_is_released(claude: Claude, messages_api: MessagesApi) -> None:
    held = claude.start(script(say("held", gate="go"), name="held"))
    assert messages_api.wait(1, "held").name == "held"
    assert claude.run(script(say("other"))).code == 0
    assert held.process.poll() is None
    messages_api.open("go")
    assert held.end().result["result"] == "held"


def test_an_answer_is_held_in_its_middle(claude: Claude, messages_api: MessagesApi) -> None:
    held = claude.start(script(say("one two", gate_mid="go")), "--include-partial-messages")
    while held.record("stream_event")["event"]["type"] != "content_block_delta":
        pass
    assert claude.run(script(say("other"))).code == 0
    assert held.process.poll() is None
    messages_api.open("go")
    ended = held.end()
    assert ended.of("stream_event")[0]["event"]["delta"]["text"] == " two"
    assert ended.result["result"] == "one two"


@pytest.mark.parametrize("gate", ["gate", "gate_mid"])
def test_a_term_leaves_no_result(claude: Claude, messages_api: MessagesApi, gate: str) -> None:
    running = claude.start(script(say("one two", **{gate: "never"})))
    messages_api.wait()
    running.process.send_signal(signal.SIGTERM)
    ended = running.end()
    assert (ended.code, ended.of("result")) == (143, [])


def test_a_failed_session_goes_on_where_it_was(claude: Claude, messages_api: MessagesApi) -> None:
    session = str(uuid4())
    prompt = script(use("Bash", command="echo x >>file"), say("fine", first=[fail(529)]))
    broken = claude.run(prompt, "--session-id", session, *BASH, **NO_RETRIES)
    assert (broken.code, broken.result["api_error_status"]) == (1, 529)
    resumed = claude.run("Continue.", "--resume", session, *BASH)
    assert (resumed.code, said(resumed), resumed.result["session_id"]) == (0, ["fine"], session)
    assert (claude.cwd / "file").read_text() == "x\n"
    assert [(r.number, r.attempt) for r in messages_api.requests] == [(0, 1), (1, 1), (1, 2)]
    # The cost is the session's, the usage this run's.
    assert resumed.result["total_cost_usd"] == pytest.approx(2 * broken.result["total_cost_usd"])
    assert resumed.result["usage"]["output_tokens"] == 30
    # A new prompt in an old session has its own steps.
    assert claude.run(script(say("new")), "--resume", session).result["result"] == "new"


def test_a_session_that_was_ended_in_a_tool_goes_on_after_it(claude: Claude) -> None:
    session = str(uuid4())
    prompt = script(use("Bash", command="touch started; tail -f /dev/null"), say("after"))
    running = claude.start(prompt, "--session-id", session, *BASH)
    wait_for(claude.cwd / "started")
    running.process.send_signal(signal.SIGTERM)
    assert running.end().code == 143
    resumed = claude.run("Continue.", "--resume", session, *BASH)
    assert (resumed.code, said(resumed)) == (0, ["after"])


def test_a_session_that_was_ended_in_its_answer_gets_it_again(claude: Claude, messages_api: MessagesApi) -> None:
    session = str(uuid4())
    running = claude.start(script(say("fine", gate="go")), "--session-id", session)
    messages_api.wait()
    running.process.send_signal(signal.SIGTERM)
    assert running.end().code == 143
    messages_api.open("go")
    resumed = claude.run("Continue.", "--resume", session)
    assert (resumed.code, said(resumed)) == (0, ["fine"])
    # The session exists from its first request on, and its id is taken.
    taken = claude.run("again", "--session-id", session)
    assert (taken.code, taken.records) == (1, [])
    assert "already in use" in taken.stderr


def test_a_session_that_was_never_written_cannot_be_resumed(claude: Claude, messages_api: MessagesApi) -> None:
    ended = claude.run("Continue.", "--resume", str(uuid4()))
    assert (ended.code, ended.result["subtype"], ended.result["is_error"]) == (1, "error_during_execution", True)
    assert "No conversation found" in ended.stderr
    assert messages_api.requests == []


def test_many_sessions_at_once(claude: Claude, messages_api: MessagesApi) -> None:
    names = [f"s{n}" for n in range(4)]
    runs = {n: claude.start(script(use("Bash", command=f"echo {n}"), say(n, gate=n), name=n), *BASH) for n in names}
    for name in reversed(names):
        assert messages_api.wait(2, name).number == 1
        messages_api.open(name)
        assert runs.pop(name).end().result["result"] == name
        assert [run.process.poll() for run in runs.values()] == [None] * len(runs)


def wait_for(path: Path, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.01)
