"""The claude runner from a prompt to an outcome, with the real CLI."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from orchestr8d.agents import Agent
from orchestr8d.clock import SystemClock
from orchestr8d.config_sections import ClaudeConfig
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import AgentSpec, Progress, Session, Spec
from orchestr8d.core.outcome import Limited, Outcome
from orchestr8d.processes import NotFound, Processes, table
from orchestr8d.processes.files import attempt_files
from orchestr8d.task_runners import Limits, Run
from orchestr8d.task_runners.claude import ClaudeRunner, no_bypass_reason, off_reason
from tests.claude_cli import SUBSCRIPTION, claude_binary, noted
from tests.messages_api import LOW_CREDIT, MessagesApi, answer, call, fail, limit_reached, say, script, use
from tests.messages_api.steps import Step
from tests.repositories import commit, git, repository
from tests.running import until

pytestmark = pytest.mark.slow

BROUGHT = Agent("general-purpose", "general-purpose", None, "brought by the CLI")
REVIEWER = Agent("reviewer", "acme:quality:reviewer", "/reviewer.md", "", "haiku", ["Read", "Bash"], "You are REV.")
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
NO_RETRIES = {"CLAUDE_CODE_MAX_RETRIES": "0"}
BASH = ["Bash"]
# No mode but the widest lets this pass.
RISKY = "python3 -c 'open(\"file\", \"w\")'"
# A scripted answer costs that much.
ONCE = 0.001054


class Bench:
    """Runs attempts of agents in a directory of its own."""

    def __init__(self, processes: Processes, root: Path, env: dict[str, str]) -> None:
        self.root = root
        self.cwd = root / "work"
        self.cwd.mkdir()
        self.env = env
        self.processes = processes
        self.clock = SystemClock()
        self.accounts: dict[str, Mapping[str, str]] = {}
        self.told: list[Progress] = []
        self.settings = ClaudeConfig(
            bin=str(claude_binary()), env={k: v for k, v in env.items() if k.startswith(("ANTHROPIC", "CLAUDE_CODE"))}
        )
        self.runner = ClaudeRunner(
            processes, self.clock, env, lambda: self.settings, resolve, root / "worktrees", lambda: self.accounts
        )

    def set(self, **changes: Any) -> None:
        self.settings = msgspec.structs.replace(self.settings, **changes)

    def attempt(self, prompt: str, name: str = "general-purpose", *, session: Session | None = None,
                env: dict[str, str] | None = None, check: list[str] | None = None, timeout: float | None = None,
                stall_timeout: float | None = None, attempt_id: str | None = None, adopted: bool = False,
                **asked: Any) -> Run:  # fmt: skip
        attempt_id = attempt_id or uuid7(self.clock.now())
        return Run(
            task_id="t-" + attempt_id,
            attempt_id=attempt_id,
            spec=Spec(
                agent=AgentSpec(name, **asked), prompt=prompt, cwd=str(self.cwd), env=env or {}, check=check,
                timeout=timeout, stall_timeout=stall_timeout,
            ),
            files=attempt_files(self.root / "attempts", attempt_id),
            env={"ORCHESTR8_TASK_ID": "t-" + attempt_id},
            limits=Limits(5.0, 8 << 20),
            session=session or Session(str(uuid4())),
            adopted=adopted,
            progress=self.told.append,
        )  # fmt: skip

    async def run(self, prompt: str, name: str = "general-purpose", **more: Any) -> Outcome:
        return await self.runner.run(self.attempt(prompt, name, **more))

    def alive(self, run: Run) -> list[int]:
        """Pids of the attempt's processes."""
        found = []
        for pid, proc in table.snapshot().items():
            marker = table.variable(table.environment(pid), "ORCHESTR8_ATTEMPT_ID")
            if proc.alive and marker == run.attempt_id:
                found.append(pid)
        return found

    def named(self, run: Run, program: str) -> list[int]:
        return [pid for pid in self.alive(run) if table.command_line(pid)[:1] == [program]]


async def resolve(name: str, cwd: str) -> Agent:
    if name not in ("general-purpose", "reviewer"):
        raise NotFound(f"there is no agent {name!r}")
    return REVIEWER if name == "reviewer" else BROUGHT


@pytest.fixture
async def bench(tmp_path: Path, claude_env: dict[str, str]) -> AsyncIterator[Bench]:
    processes = Processes(SystemClock())
    yield Bench(processes, tmp_path, claude_env)
    await processes.close()


def kind(outcome: Outcome) -> str:
    return outcome.error.kind if outcome.error is not None else outcome.status


def message(outcome: Outcome) -> str:
    assert outcome.error is not None
    return outcome.error.message


def cost(outcome: Outcome) -> float:
    assert outcome.usage is not None
    return outcome.usage.cost_usd


# --- success, and what looks like it


async def test_success(bench: Bench, messages_api: MessagesApi) -> None:
    run = bench.attempt(script(use("Write", file_path="a.txt", content="x"), say("all done\n")))
    outcome = await bench.runner.run(run)
    assert (outcome.status, outcome.error, outcome.exit_code, outcome.signal) == ("completed", None, 0, None)
    assert (outcome.result_type, outcome.result) == ("summary", b"all done\n")
    assert outcome.files_created == [str(bench.cwd / "a.txt")]
    assert outcome.usage is not None and outcome.resources is not None and outcome.output_bytes
    assert (outcome.usage.input_tokens, outcome.usage.output_tokens, outcome.usage.num_turns) == (200, 60, 2)
    assert cost(outcome) == pytest.approx(2 * ONCE)
    assert run.session is not None and {r.session for r in messages_api.requests} == {run.session.id}
    assert bench.alive(run) == []


async def test_the_agent_comes_from_its_definition(bench: Bench, messages_api: MessagesApi) -> None:
    run = bench.attempt("hello", "reviewer")
    outcome = await bench.runner.run(run)
    assert (outcome.status, outcome.result) == ("completed", b"ok")
    (request,) = messages_api.requests
    assert request.body["model"].startswith("claude-haiku")
    assert "You are REV." in json.dumps(request.body["system"])
    assert {t["name"] for t in request.body["tools"]} >= {"Read", "Bash"}
    assert "Write" not in {t["name"] for t in request.body["tools"]}
    assert run.files.agents in run.files.all() and Path(run.files.agents).stat().st_mode & 0o77 == 0
    assert (await bench.run("hello", "reviewer", model="sonnet")).status == "completed"
    assert messages_api.requests[-1].body["model"].startswith("claude-sonnet")


async def test_a_definition_may_hold_half_a_character(bench: Bench, messages_api: MessagesApi) -> None:
    async def odd(name: str, cwd: str) -> Agent:
        return msgspec.structs.replace(REVIEWER, description="half of one: \ud83d", body="You are\0\u2028ODD.")

    runner = ClaudeRunner(bench.processes, bench.clock, bench.env, lambda: bench.settings, odd, bench.root)
    assert (await runner.run(bench.attempt("hello", "reviewer"))).status == "completed"
    assert "ODD." in json.dumps(messages_api.requests[-1].body["system"])


async def test_an_account_that_is_gone(bench: Bench, messages_api: MessagesApi) -> None:
    """The daemon's own login is no stand-in for it."""
    outcome = await bench.run("hello", session=Session(str(uuid4()), account="work"))
    assert (kind(outcome), message(outcome)) == ("not_found", "there is no account 'work' any more")
    assert messages_api.requests == []


async def test_an_agent_that_is_gone(bench: Bench) -> None:
    outcome = await bench.run("hello", "gone")
    assert (kind(outcome), message(outcome)) == ("not_found", "there is no agent 'gone'")


async def test_an_api_failure_is_no_success(bench: Bench) -> None:
    outcome = await bench.run(script(fail(500)), env=NO_RETRIES)
    assert (kind(outcome), outcome.exit_code, outcome.result) == ("crashed", 1, None)
    assert message(outcome).startswith("API Error: 500")


async def test_denied(bench: Bench) -> None:
    prompt = script(use("Bash", command=RISKY), say("done"))
    outcome = await bench.run(prompt)
    assert (kind(outcome), outcome.exit_code, outcome.result) == ("denied", 0, b"done")
    assert message(outcome) == f"permission was denied: Bash ({RISKY})"
    assert (await bench.run(prompt, allow_denied=True)).status == "completed"
    assert not (bench.cwd / "file").exists()
    assert (await bench.run(prompt, allowed_tools=["Bash(python3 *)", "Write"])).status == "completed"
    assert (bench.cwd / "file").exists()


async def test_stopped_by_a_hook(bench: Bench) -> None:
    stop = {"type": "command", "command": """echo '{"continue": false}'"""}
    (bench.cwd / ".claude").mkdir()
    (bench.cwd / ".claude/settings.json").write_text(json.dumps({"hooks": {"PostToolUse": [{"hooks": [stop]}]}}))
    outcome = await bench.run(script(use("Bash", command="echo 1"), say("never")), allowed_tools=BASH)
    assert (kind(outcome), outcome.exit_code) == ("denied", 0)
    assert message(outcome) == "a hook stopped the run: the work is not done"


async def test_tools_and_modes_of_the_configuration_hold_where_the_task_says_nothing(bench: Bench) -> None:
    prompt = script(use("Bash", command=RISKY), say("done"))
    bench.set(allowed_tools=BASH)
    assert (await bench.run(prompt)).status == "completed"
    assert kind(await bench.run(prompt, allowed_tools=["Read"])) == "denied"
    write = script(use("Write", file_path="w", content="x"), say("done"))
    bench.set(permission_mode="default")
    assert kind(await bench.run(write)) == "denied"
    assert (await bench.run(write, permission_mode="acceptEdits")).status == "completed"


@pytest.mark.parametrize(
    ("step", "expected"), [(use("StructuredOutput", n=3), "completed"), (say("no"), "schema")], ids=["met", "unmet"]
)
async def test_schemas(bench: Bench, step: Step, expected: str) -> None:
    outcome = await bench.run(script(step, say("no"), say("no")), json_schema=SCHEMA)
    assert (kind(outcome), outcome.exit_code) == (expected, 0)
    if expected == "completed":
        assert (outcome.result_type, outcome.result) == ("json", b'{"n":3}')
    else:
        assert outcome.result_type == "summary"


async def test_an_agent_with_few_tools_can_answer_by_a_schema(bench: Bench) -> None:
    outcome = await bench.run(script(use("StructuredOutput", n=3)), "reviewer", json_schema=SCHEMA)
    assert (outcome.status, outcome.result) == ("completed", b'{"n":3}')


async def test_max_turns(bench: Bench) -> None:
    prompt = script(use("Bash", command="echo 1"), say("never"))
    outcome = await bench.run(prompt, allowed_tools=BASH, max_turns=1)
    assert (kind(outcome), message(outcome)) == ("max_turns", "Reached maximum number of turns (1)")


async def test_budgets(bench: Bench) -> None:
    prompt = script(say("x", usage={"output_tokens": 100_000}))
    outcome = await bench.run(prompt, max_cost_usd=0.5)
    assert (kind(outcome), outcome.status, outcome.limited) == ("budget", "failed", None)
    assert cost(outcome) > 2 and outcome.usage is not None and outcome.usage.output_tokens == 100_000
    capped = Session(str(uuid4()), cap_usd=0.25)
    outcome = await bench.run(prompt, max_cost_usd=0.5, session=capped)
    assert (kind(outcome), outcome.status) == ("budget", "parked")
    assert outcome.limited is not None and outcome.limited.kind == "budget"
    # What is left for the task is less than what was set aside for the attempt.
    late = Session(str(uuid4()), spent_usd=0.4, cap_usd=0.25)
    assert (await bench.run(prompt, max_cost_usd=0.5, session=late)).status == "failed"


async def test_what_is_spent_is_not_begun(bench: Bench, messages_api: MessagesApi) -> None:
    outcome = await bench.run("x", max_cost_usd=0.5, session=Session(str(uuid4()), spent_usd=0.5))
    assert (kind(outcome), outcome.status) == ("budget", "failed")
    outcome = await bench.run("x", session=Session(str(uuid4()), cap_usd=0.0))
    assert (kind(outcome), outcome.status) == ("budget", "parked")
    assert messages_api.requests == []


async def test_several_results_in_one_process(bench: Bench) -> None:
    inner = script(use("Bash", command="touch inner"), say("inner"), name="inner")
    agent = use("Agent", description="d", prompt=inner, subagent_type="general-purpose")
    run = bench.attempt(script(agent, say("first"), say("last"), name="outer"), allowed_tools=BASH)
    outcome = await bench.runner.run(run)
    lines = Path(run.files.stdout).read_bytes().splitlines()
    results = [r["result"] for r in map(json.loads, lines) if r["type"] == "result"]
    assert len(results) > 1 and outcome.status == "completed"
    assert outcome.result == results[-1].encode()
    assert outcome.usage is not None and outcome.usage.input_tokens >= 500
    assert (bench.cwd / "inner").exists()


async def test_long_lines(bench: Bench) -> None:
    content = "0123456789" * 40_000
    outcome = await bench.run(script(use("Write", file_path="large.txt", content=content), say("written")))
    assert (outcome.status, outcome.result, outcome.files_created) == (
        "completed", b"written", [str(bench.cwd / "large.txt")]
    )  # fmt: skip


async def test_check(bench: Bench) -> None:
    prompt = script(use("Write", file_path="a.txt", content="x"), say("done"))
    passed = await bench.run(prompt, check=["test", "-e", "a.txt"])
    assert (passed.status, passed.result) == ("completed", b"done")
    outcome = await bench.run(prompt, check=["sh", "-c", "echo no good; exit 3"])
    assert (kind(outcome), message(outcome)) == ("check", "exited with code 3: no good")
    assert (outcome.result, cost(outcome)) == (b"done", pytest.approx(2 * ONCE))


async def test_another_program_that_speaks_the_same(bench: Bench) -> None:
    said = {"type": "result", "is_error": False, "result": "hello"}
    program = bench.root / "other"
    program.write_text(f"#!/bin/sh\ncat >&2\nprintf %s '{json.dumps(said)}'\n")
    program.chmod(0o755)
    bench.set(bin="other")
    run = bench.attempt("the prompt", env={"PATH": f"{bench.root}:{bench.env['PATH']}"})
    outcome = await bench.runner.run(run)
    assert (outcome.status, outcome.result, cost(outcome)) == ("completed", b"hello", 0.0)
    assert Path(run.files.stderr).read_text() == "the prompt"


# --- prompts


PROMPTS = ("/context", "/clear and more", "  two\n\nlines  \n", "-p --model x", "@@ ü \u2028", "!ls")


@pytest.mark.parametrize("prompt", PROMPTS)
async def test_prompts_reach_the_model_as_they_are(bench: Bench, messages_api: MessagesApi, prompt: str) -> None:
    outcome = await bench.run(prompt)
    assert (outcome.status, outcome.result) == ("completed", b"ok")
    (request,) = messages_api.requests
    contents = [m["content"] for m in request.body["messages"] if m["role"] == "user"]
    texts = [contents[-1]] if isinstance(contents[-1], str) else [block["text"] for block in contents[-1]]
    # The space before a slash is what keeps the CLI from running it.
    assert texts[-1] == (" " + prompt if prompt[0] == "/" else prompt)


@pytest.mark.parametrize("prompt", ["", " \n", "x" * 6_000_000], ids=["empty", "blank", "too long"])
async def test_prompts_that_would_only_be_refused_again(
    bench: Bench, messages_api: MessagesApi, prompt: str
) -> None:
    assert kind(await bench.run(prompt)) == "invalid_request"
    assert messages_api.requests == []


QUOTE = "429 rate limit exceeded, 529 overloaded_error, Claude AI usage limit reached|1800000000, authentication_error"


async def test_quotes_change_nothing(bench: Bench) -> None:
    (bench.cwd / "notes").write_text(QUOTE)
    read, echo = use("Read", file_path=str(bench.cwd / "notes")), use("Bash", command=f"echo '{QUOTE}'")
    outcome = await bench.run(QUOTE + script(read, echo, say(QUOTE)), allowed_tools=BASH)
    assert (outcome.status, outcome.limited, outcome.result) == ("completed", None, QUOTE.encode())
    outcome = await bench.run(script(fail(400, message=QUOTE)), env=NO_RETRIES)
    assert (kind(outcome), outcome.limited) == ("invalid_request", None)


# --- what the API refuses


@pytest.mark.parametrize(
    ("step", "status", "expected", "limited"),
    [
        (fail(429), "parked", "limit", "limit"),
        (fail(529), "failed", "overload", "overload"),
        (fail(200, "overloaded_error", text="some words"), "failed", "overload", "overload"),
        (fail(401), "failed", "auth", "auth"),
        (fail(403), "failed", "auth", "auth"),
        (fail(400), "failed", "invalid_request", None),
        (LOW_CREDIT, "failed", "billing", "billing"),
        (fail(402), "failed", "billing", "billing"),
        (fail(404), "failed", "invalid_request", None),
        (say("no", stop_reason="refusal"), "failed", "invalid_request", None),
        (say("x", drop="start"), "failed", "crashed", None),
    ],
    ids=["429", "529", "529 in an answer", "401", "403", "400", "low credit", "402", "404", "refusal", "cut"],
)
async def test_refusals(bench: Bench, step: Step, status: str, expected: str, limited: str | None) -> None:
    bench.accounts["work"] = {}
    session = Session(str(uuid4()), account="work")
    outcome = await bench.run(script(step, step, step), env=NO_RETRIES, session=session)
    assert (outcome.status, kind(outcome)) == (status, expected)
    if limited is None:
        assert outcome.limited is None
    else:
        assert outcome.limited == Limited(limited, "work", None, message(outcome))  # type: ignore[arg-type]


async def test_a_subscription_s_limit_says_when_it_is_over(bench: Bench) -> None:
    resets_at = int(time.time()) + 3600
    bench.accounts["work"] = SUBSCRIPTION
    outcome = await bench.run(script(limit_reached(resets_at)), session=Session(str(uuid4()), account="work"))
    assert (outcome.status, kind(outcome)) == ("parked", "limit")
    assert outcome.limited is not None and outcome.limited.until == resets_at * 1000


# --- silence, time, and ends


async def test_hanging_before_the_first_output(bench: Bench) -> None:
    silent = bench.root / "silent"
    silent.write_text("#!/bin/sh\necho warming up >&2\nexec sleep 300\n")
    silent.chmod(0o755)
    bench.set(bin=str(silent), first_byte_timeout=0.5)
    run = bench.attempt("hello")
    outcome = await bench.runner.run(run)
    assert (kind(outcome), message(outcome)) == ("stalled", "no output within 0.5s (first_byte_timeout)")
    assert bench.alive(run) == []


async def test_stalled(bench: Bench, messages_api: MessagesApi) -> None:
    bench.set(first_byte_timeout=20.0)
    run = bench.attempt(script(say("one two", gate_mid="never")), stall_timeout=4.0)
    outcome = await bench.runner.run(run)
    assert (kind(outcome), message(outcome)) == ("stalled", "no output for 4s (stall_timeout)")
    assert (outcome.usage, outcome.exit_code) == (None, 143)
    assert (len(messages_api.requests), bench.alive(run)) == (1, [])


async def test_timeout(bench: Bench) -> None:
    assert kind(await bench.run(script(say("x", gate="never")), timeout=1.5)) == "timeout"


async def test_what_a_run_without_a_result_has_cost(bench: Bench, messages_api: MessagesApi) -> None:
    """The CLI writes it down when it is asked to end."""
    session = Session(str(uuid4()))
    prompt = script(use("Bash", command="echo 1"), use("Bash", command="echo 2"), say("x", gate="never"))
    first = await bench.run(prompt, session=session, allowed_tools=BASH, timeout=4.0)
    assert (kind(first), cost(first)) == ("timeout", pytest.approx(2 * ONCE))
    assert first.usage is not None and (first.usage.output_tokens, len(first.usage.by_model)) == (60, 1)
    # Nothing was spent since: that is not known, and not 0.
    again = Session(session.id, begun=True, spent_usd=cost(first))
    second = await bench.run(prompt, session=again, allowed_tools=BASH, timeout=4.0)
    assert (kind(second), second.usage) == ("timeout", None)
    # A fork's account begins with what the other conversation had cost.
    fork = await bench.run(prompt, session_id=session.id, allowed_tools=BASH, timeout=4.0)
    assert (kind(fork), cost(fork)) == ("timeout", pytest.approx(2 * ONCE))


@pytest.mark.parametrize("why", ["cancelled", "interrupted"])
async def test_stops(bench: Bench, messages_api: MessagesApi, why: Any) -> None:
    run = bench.attempt(script(say("x", gate="never")))
    running = asyncio.create_task(bench.runner.run(run))
    await asyncio.to_thread(messages_api.wait)
    run.stop.ask(why)
    assert (await running).status == why
    assert bench.alive(run) == []


async def test_a_killed_cli_leaves_no_tool_behind(bench: Bench) -> None:
    # A killed CLI may have noted answers that nobody gave it: whichever step it goes on with says the same.
    steps = (use("Bash", command="tail -f /dev/null"), *[say("x")] * 5)
    run = bench.attempt(script(*steps), allowed_tools=BASH)
    running = asyncio.create_task(bench.runner.run(run))
    await until(lambda: bench.named(run, "tail") and noted(bench.env, "tool_use"), 20)
    (cli,), (tool,) = bench.named(run, str(claude_binary())), bench.named(run, "tail")
    assert os.getsid(tool) != os.getsid(cli)
    os.kill(cli, signal.SIGKILL)
    outcome = await running
    assert (kind(outcome), message(outcome)) == ("crashed", "ended by SIGKILL without a result")
    assert (outcome.signal, outcome.usage, bench.alive(run)) == ("SIGKILL", None, [])
    assert run.session is not None
    again = await bench.run("not this again", session=Session(run.session.id, begun=True), allowed_tools=BASH)
    assert (again.status, again.result) == ("completed", b"x")


async def test_what_the_cli_says_on_stderr_is_in_the_message(bench: Bench) -> None:
    outcome = await bench.run("hello", runner_args=["--no-such-flag"])
    assert kind(outcome) == "crashed"
    assert message(outcome).startswith("exited with code 1 without a result: ") and "no-such-flag" in message(outcome)


async def test_a_missing_cli_names_the_way_out(bench: Bench) -> None:
    bench.set(bin="no-such-cli")
    outcome = await bench.run("hello")
    assert kind(outcome) == "not_found"
    assert message(outcome).startswith("no-such-cli: no such program in PATH") and "npm install" in message(outcome)


# --- going on


async def test_a_parked_session_goes_on_where_it_was(bench: Bench, messages_api: MessagesApi) -> None:
    session = Session(str(uuid4()))
    prompt = script(use("Bash", command="echo x >>file"), say("fine", first=[fail(429)]))
    more: dict[str, Any] = {"allowed_tools": BASH, "env": NO_RETRIES}
    first = await bench.run(prompt, session=session, **more)
    assert (first.status, cost(first)) == ("parked", pytest.approx(ONCE))
    again = Session(session.id, begun=True, spent_usd=cost(first))
    second = await bench.run(prompt, session=again, **more)
    assert (second.status, second.result, (bench.cwd / "file").read_text()) == ("completed", b"fine", "x\n")
    # Of the session's two calls this attempt has made one.
    assert cost(second) == pytest.approx(ONCE)
    assert second.usage is not None and second.usage.output_tokens == 30


async def test_an_interrupted_session_goes_on_where_it_was(bench: Bench, messages_api: MessagesApi) -> None:
    session = Session(str(uuid4()))
    prompt = script(use("Bash", command="echo x >>file"), say("fine", gate="go"))
    run = bench.attempt(prompt, session=session, allowed_tools=BASH)
    running = asyncio.create_task(bench.runner.run(run))
    await asyncio.to_thread(messages_api.wait, 2)
    run.stop.ask("interrupted")
    first = await running
    assert (first.status, cost(first)) == ("interrupted", pytest.approx(ONCE))
    messages_api.open("go")
    outcome = await bench.run(prompt, session=Session(session.id, True, cost(first)), allowed_tools=BASH)
    assert (outcome.status, outcome.result, (bench.cwd / "file").read_text()) == ("completed", b"fine", "x\n")
    assert cost(outcome) == pytest.approx(ONCE)


@pytest.mark.parametrize("left", [None, b"", b'{"type":"mode"}\n'], ids=["nothing", "empty", "no messages"])
async def test_a_session_that_never_began_begins(bench: Bench, left: bytes | None) -> None:
    session = Session(str(uuid4()), begun=True)
    if left is not None:
        assert (await bench.run("make the project's directory")).status == "completed"
        (project,) = Path(bench.env["CLAUDE_CONFIG_DIR"], "projects").iterdir()
        (project / f"{session.id}.jsonl").write_bytes(left)
    outcome = await bench.run(script(say("from the prompt")), session=session)
    assert (outcome.status, outcome.result) == ("completed", b"from the prompt")


async def test_a_fork_goes_on_from_another_task(bench: Bench, messages_api: MessagesApi) -> None:
    old = Session(str(uuid4()))
    assert (await bench.run("remember the word swordfish", session=old)).status == "completed"
    session = Session(str(uuid4()))
    outcome = await bench.run("and now?", session=session, session_id=old.id)
    assert outcome.status == "completed"
    assert "swordfish" in json.dumps(messages_api.requests[-1].body["messages"])
    assert messages_api.requests[-1].session == session.id
    # The CLI counts the other session's cost with its own.
    assert cost(outcome) == pytest.approx(ONCE)
    again = await bench.run("x", session=Session(session.id, True, cost(outcome)), session_id=old.id)
    assert (again.status, cost(again)) == ("completed", pytest.approx(ONCE))
    gone = await bench.run("x", session_id=str(uuid4()))
    assert kind(gone) == "not_found" and "is gone" in message(gone)


DAEMON = """
import asyncio, json, os, sys
from pathlib import Path
import msgspec
from orchestr8d.clock import SystemClock
from orchestr8d.config_sections import ClaudeConfig
from orchestr8d.core.model import Session, Spec
from orchestr8d.processes import Files, Processes
from orchestr8d.task_runners import Limits, Run
from orchestr8d.task_runners.claude import ClaudeRunner
from orchestr8d.agents import Agent

async def resolve(name, cwd):
    return Agent(name, name, None, "")

async def main(attempt_id, base, spec, session, bin, env):
    settings = ClaudeConfig(bin=bin, env=json.loads(env))
    clock = SystemClock()
    runner = ClaudeRunner(Processes(clock), clock, os.environ, lambda: settings, resolve, Path("/nowhere"))
    spec = msgspec.json.decode(spec, type=Spec)
    await runner.run(Run("t-" + attempt_id, attempt_id, spec, Files(base), {}, Limits(), Session(session)))

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("ends", ["after", "before"])
async def test_adoption(bench: Bench, messages_api: MessagesApi, ends: str) -> None:
    """The daemon is killed while the CLI works, which ends after, or before the next daemon looks at it."""
    prompt = script(use("Write", file_path="a.txt", content="x"), say("fine", gate="go"))
    run = bench.attempt(prompt, adopted=True, check=["test", "-e", "a.txt"])
    assert run.session is not None
    argv = [
        run.attempt_id, run.files.base, msgspec.json.encode(run.spec).decode(), run.session.id, bench.settings.bin,
        json.dumps(bench.settings.env),
    ]  # fmt: skip
    env = bench.env | {"PYTHONPATH": os.pathsep.join(sys.path)}
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON, *argv], env=env, cwd=bench.root)
    try:
        await asyncio.to_thread(messages_api.wait, 2)
    finally:
        daemon.kill()
        daemon.wait()
    if ends == "before":
        messages_api.open("go")
        await until(lambda: Path(run.files.exit).read_bytes()[:4] == b"000\n")
    running = asyncio.create_task(bench.runner.run(run))
    if ends == "after":
        await until(lambda: bench.alive(run))
        await asyncio.sleep(0.2)
        assert not running.done()
        messages_api.open("go")
    outcome = await running
    assert (outcome.status, outcome.result, outcome.exit_code) == ("completed", b"fine", 0)
    assert outcome.files_created == [str(bench.cwd / "a.txt")]
    assert cost(outcome) == pytest.approx(2 * ONCE)
    assert bench.alive(run) == []


async def test_one_that_is_gone_was_interrupted(bench: Bench) -> None:
    assert (await bench.run("hello", adopted=True)).status == "interrupted"


# --- progress, environment, worktrees, rules


async def test_progress(bench: Bench, messages_api: MessagesApi) -> None:
    tasks = answer("", *[call("TaskCreate", subject=name, description=name) for name in "AB"])
    update = [use("TaskUpdate", taskId="1", status=status) for status in ("in_progress", "completed")]
    prompt = script(tasks, *update, say("x", gate="go"))
    running = asyncio.create_task(bench.run(prompt, env={"CLAUDE_CODE_ENABLE_TODO_TOOLS": "1"}))
    await until(lambda: any(p.percent == 50.0 for p in bench.told), 20)
    messages_api.open("go")
    assert (await running).status == "completed"
    last = bench.told[-1]
    assert (last.percent, (last.estimated_time_remaining or 0) > 0) == (50.0, True)
    assert [p for p, q in zip(bench.told, bench.told[1:], strict=False) if p == q] == []


async def test_the_environment_is_built(bench: Bench) -> None:
    bench.env |= {"LC_ALL": "C", "SECRET": "x", "XDG_CACHE_HOME": "/x"}
    bench.set(env=bench.settings.env | {"A": "runner", "B": "runner", "C": "runner"})
    # Whose login it is, is the account's to say: the limits that are met are laid to it.
    bench.accounts["work"] = {"B": "account"}
    session = Session(str(uuid4()), account="work")
    prompt = script(use("Bash", command="env >env.txt"), say("done"))
    outcome = await bench.run(prompt, session=session, env={"B": "task", "C": "task"}, allowed_tools=BASH)
    assert outcome.status == "completed"
    seen = dict(line.split("=", 1) for line in (bench.cwd / "env.txt").read_text().splitlines() if "=" in line)
    assert (seen["A"], seen["B"], seen["C"], seen["XDG_CACHE_HOME"]) == ("runner", "account", "task", "/x")
    assert seen["ORCHESTR8_TASK_ID"].startswith("t-")
    assert not seen.keys() & {"LC_ALL", "SECRET"}


async def test_mcp_servers_of_the_task_are_in_no_command_line(bench: Bench) -> None:
    run = bench.attempt("hello", mcp_config={"mcpServers": {}})
    assert (await bench.runner.run(run)).status == "completed"
    assert json.loads(Path(run.files.mcp).read_text()) == {"mcpServers": {}}
    assert run.files.mcp in run.files.all()


async def test_a_worktree(bench: Bench) -> None:
    repository(bench.cwd)
    prompt = script(use("Write", file_path="new.txt", content="x"), say("done"))
    outcome = await bench.run(prompt, isolation="worktree", check=["test", "-e", "new.txt"])
    assert (outcome.status, outcome.error) == ("completed", None)
    assert outcome.worktree is not None and outcome.worktree.files_changed == ["new.txt"]
    assert not (bench.cwd / "new.txt").exists() and Path(outcome.worktree.path, "new.txt").exists()
    assert outcome.files_created == [str(Path(outcome.worktree.path, "new.txt"))]
    idle = await bench.run("hello", isolation="worktree")
    assert (idle.status, idle.worktree) == ("completed", None)


async def test_files_that_go_with_their_worktree_are_not_named(bench: Bench) -> None:
    (repository(bench.cwd) / ".git/info/exclude").write_text("ignored\n")
    elsewhere = str(bench.cwd / "elsewhere")
    prompt = script(use("Write", file_path="ignored", content="x"), use("Write", file_path=elsewhere, content="x"))
    outcome = await bench.run(prompt, isolation="worktree", runner_args=[f"--add-dir={bench.cwd}"])
    assert (outcome.status, outcome.worktree, outcome.files_created) == ("completed", None, [elsewhere])


@pytest.mark.parametrize(
    ("first", "kept", "told"), [(None, False, None), ("new", True, ["new"]), ("ignored", True, None)]
)
async def test_a_parked_task_s_worktree_is_kept_for_what_is_in_it(
    bench: Bench, first: str | None, kept: bool, told: list[str] | None
) -> None:
    """The task may wait for long, and be cancelled then."""
    (repository(bench.cwd) / ".git/info/exclude").write_text("ignored\n")
    steps = [] if first is None else [use("Write", file_path=first, content="x")]
    run = bench.attempt(script(*steps, fail(429)), env=NO_RETRIES, isolation="worktree")
    outcome = await bench.runner.run(run)
    assert (outcome.status, (bench.root / "worktrees" / run.task_id).exists()) == ("parked", kept)
    assert (outcome.worktree and outcome.worktree.files_changed) == told


async def test_a_new_file_in_a_submodule_keeps_the_worktree(bench: Bench) -> None:
    library, local = repository(bench.root / "library"), ("-c", "protocol.file.allow=always")
    git(repository(bench.cwd), *local, "submodule", "--quiet", "add", str(library), "library")
    commit(bench.cwd, "second")
    update = use("Bash", command=f"git {' '.join(local)} submodule --quiet update --init")
    prompt = script(update, use("Write", file_path="library/new", content="x"), say("done"))
    outcome = await bench.run(prompt, isolation="worktree", allowed_tools=BASH)
    assert outcome.worktree is not None and outcome.worktree.files_changed == ["library"]
    assert Path(outcome.worktree.path, "library/new").exists()


async def test_a_success_is_kept_when_its_worktree_cannot_be_looked_at(
    bench: Bench, messages_api: MessagesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository(bench.cwd)
    broken = bench.root / "broken"
    broken.mkdir()
    (broken / "git").write_bytes(b"\0")
    (broken / "git").chmod(0o755)
    running = asyncio.create_task(bench.run(script(say("done", gate="go")), isolation="worktree"))
    await asyncio.to_thread(messages_api.wait)
    monkeypatch.setenv("PATH", str(broken))
    messages_api.open("go")
    outcome = await running
    assert (outcome.status, outcome.result, outcome.worktree) == ("completed", b"done", None)


async def test_no_worktree_without_a_repository(bench: Bench) -> None:
    outcome = await bench.run("hello", isolation="worktree")
    assert kind(outcome) == "not_found" and message(outcome).startswith("no worktree: ")


def test_agents_are_off_without_a_home() -> None:
    assert off_reason({"HOME": "/home/me"}, ClaudeConfig()) is None
    assert off_reason({}, ClaudeConfig(env={"CLAUDE_CONFIG_DIR": "/x"})) is None
    assert "neither HOME nor CLAUDE_CONFIG_DIR" in (off_reason({"HOME": ""}, ClaudeConfig()) or "")


async def test_a_run_without_a_home_starts_nothing(bench: Bench, messages_api: MessagesApi) -> None:
    for name in ("HOME", "CLAUDE_CONFIG_DIR"):
        del bench.env[name]
    assert kind(await bench.run("hello")) == "not_found"
    assert messages_api.requests == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs the word of a sandbox")
async def test_root_bypasses_permissions_in_a_sandbox_only(bench: Bench) -> None:
    sandbox = {"IS_SANDBOX": "1"}
    assert "IS_SANDBOX" in (no_bypass_reason(ClaudeConfig(), {"work": {"IS_SANDBOX": "yes"}}) or "")
    assert no_bypass_reason(ClaudeConfig(env=sandbox), {}) is None
    assert no_bypass_reason(ClaudeConfig(), {"work": sandbox}) is None
    prompt = script(use("Bash", command="touch file"), say("done"))
    outcome = await bench.run(prompt, permission_mode="bypassPermissions")
    assert kind(outcome) == "denied" and "IS_SANDBOX" in message(outcome)
    bench.set(env=bench.settings.env | sandbox)
    assert (await bench.run(prompt, permission_mode="bypassPermissions")).status == "completed"
