"""From what a submit says to a task: the defaults, all faults with their paths, and patches."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from orchestr8d.core import admission, endings, steering, submit
from orchestr8d.core.errors import MOST_FAULTS, Fault, Problem, did_you_mean, refuse
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import AgentSpec, Backoff, NewTask, Spec, Task
from orchestr8d.core.submit import AgentRules, Policy
from orchestr8d.core.task_input import TaskIn, TaskPatch

POLICY = Policy(max_retries=10, user_id="ann", home="/home/ann")


def made(faults: list[Fault] | None = None, at: str = "", policy: Policy = POLICY, **body: Any) -> NewTask:
    task = msgspec.convert({"command": ["true"], **body}, TaskIn)
    found: list[Fault] = []
    new = submit.new_task(task, policy, found, at)
    if faults is None:
        assert found == []
        assert new is not None
        return new
    faults += found
    assert new is None
    return None  # type: ignore[return-value]


def paths(at: str = "", policy: Policy = POLICY, **body: Any) -> list[str]:
    faults: list[Fault] = []
    made(faults, at, policy, **body)
    return [fault.path for fault in faults]


def patched(new: NewTask, **body: Any) -> NewTask:
    return submit.patched(new, msgspec.convert(body, TaskPatch), POLICY)


def test_the_defaults() -> None:
    new = made()
    assert new == NewTask(spec=Spec(command=["true"], cwd="/home/ann"), user_id="ann")
    assert (new.kind, new.queue, new.priority, new.on_conflict) == ("command", "default", 0, "reject")
    assert (new.spec.max_retries, new.spec.on_failure, new.spec.backoff) == (0, "retry", Backoff())


def test_everything_that_can_be_said() -> None:
    new = made(
        cwd="/srv", env={"A": "1"}, stdin="in",
        options={
            "priority": "high", "timeout": "2h", "deadline": 60, "stall_timeout": "90s", "max_retries": 3,
            "retry_backoff": {"kind": "linear", "base": "5s", "cap": "1h", "jitter": False}, "on_failure": "fail",
            "delay": "1m", "unique_key": "u", "on_conflict": "replace", "concurrency_key": "c", "queue": "q",
            "depends_on": ["a", "b", "a"], "allow_failed": True, "check": ["c"], "tags": ["x", "y", "x"],
            "metadata": {"pr": 12}, "user_id": "bob", "title": "T",
        },
    )  # fmt: skip
    assert new.spec == Spec(
        command=["true"], cwd="/srv", env={"A": "1"}, stdin="in", title="T", timeout=7200.0, deadline=60.0,
        stall_timeout=90.0, max_retries=3, backoff=Backoff("linear", 5.0, 3600.0, False), on_failure="fail",
        depends_on=["a", "b"], allow_failed=True, check=["c"], tags=["x", "y"], metadata={"pr": 12},
    )  # fmt: skip
    assert (new.priority, new.delay, new.unique_key, new.on_conflict) == (10, 60.0, "u", "replace")
    assert (new.concurrency_key, new.queue, new.user_id) == ("c", "q", "bob")


@pytest.mark.parametrize(("word", "points"), [("critical", 20), ("high", 10), ("normal", 0), ("low", -10), (7, 7)])
def test_priorities(word: str | int, points: int) -> None:
    assert made(options={"priority": word}).priority == points


def test_a_named_time() -> None:
    assert made(options={"run_at": "2026-03-01T10:00:00+01:00"}).run_at == 1_772_355_600_000


def nested(levels: int) -> Any:
    """An object that is so many levels deep, of lists and objects in turns."""
    value: Any = 1
    for level in reversed(range(levels)):
        value = [value] if level % 2 else {"a": value}
    return value


def test_metadata_may_be_deep_within_reason() -> None:
    assert made(options={"metadata": nested(64)}).spec.metadata == nested(64)
    with pytest.raises(Problem):
        patched(made(), options={"metadata": nested(900)})


def test_many_short_words_are_no_fault() -> None:
    made(command=["a"] * 10_000, env={f"A{i}": "é" for i in range(10_000)})


def test_faults_of_many_variables_are_bounded() -> None:
    found = paths(env={f"{i}": "" for i in range(9_999)})
    assert len(found) == MOST_FAULTS + 1


def test_what_is_wrong_already_is_passed_over() -> None:
    faults: list[Fault] = []
    task = TaskIn(UNSET, cwd="x", env={"-": ""}, options=UNSET)  # type: ignore[arg-type]
    submit.check(task, POLICY, faults, "tasks[1].")
    assert [fault.path for fault in faults] == ["tasks[1].env.-", "tasks[1].cwd"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"command": [""]}, "command[0]"),
        ({"command": ["a", "b\0c"]}, "command[1]"),
        ({"command": ["a", "x" * 131_072]}, "command[1]"),
        ({"command": ["x" * 100_000] * 20}, "command"),
        ({"cwd": "relative"}, "cwd"),
        ({"cwd": "/a\0b"}, "cwd"),
        ({"env": {"not a name": ""}}, "env.not a name"),
        ({"env": {"1A": ""}}, "env.1A"),
        ({"env": {"A": "x\0"}}, "env.A"),
        ({"env": {"A": "x" * 131_072}}, "env.A"),
        ({"options": {"check": [""]}}, "options.check[0]"),
        ({"options": {"max_retries": 11}}, "options.max_retries"),
        ({"options": {"run_at": "tomorrow"}}, "options.run_at"),
        ({"options": {"run_at": "2026-03-01T09:00:00"}}, "options.run_at"),
        ({"options": {"run_at": "2026-03-01T09:00:00Z", "delay": 1}}, "options.delay"),
        ({"options": {"title": "a\0"}}, "options.title"),
        ({"options": {"unique_key": "a\0"}}, "options.unique_key"),
        ({"options": {"metadata": nested(65)}}, "options.metadata"),
        ({"env": {"A\n": ""}}, "env.A\n"),
        ({"env": {"A\0B": ""}}, "env.A\0B"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_faults(body: dict[str, Any], path: str) -> None:
    assert paths(**body) == [path]
    assert paths("tasks[3].", **body) == [f"tasks[3].{path}"]


def test_all_faults_at_once() -> None:
    found = paths(command=["\0"], cwd="x", env={"-": "\0"}, options={"max_retries": 99, "run_at": "x"})
    assert sorted(found) == ["command[0]", "cwd", "env.-", "env.-", "options.max_retries", "options.run_at"]


def test_programs_may_be_limited() -> None:
    policy = Policy(allow=("make", "/usr/bin/*"))
    made(policy=policy, command=["make", "rm"])
    made(policy=policy, command=["/usr/bin/env", "rm"])
    faults: list[Fault] = []
    made(faults, policy=policy, command=["rm"])
    made(faults, policy=policy, options={"check": ["rm"]}, command=["make"])
    made(policy=policy, options={"check": ["make"]}, command=["make"])
    expected = [("command[0]", "unprocessable"), ("options.check[0]", "unprocessable")]
    assert [(f.path, f.kind) for f in faults] == expected
    again: list[Fault] = []
    submit.check_programs(Spec(command=["rm"], check=["rm"]), policy, again)
    assert again == faults
    with pytest.raises(Problem) as caught:
        submit.patched(made(), msgspec.convert({"options": {"check": ["rm"]}}, TaskPatch), policy)
    assert caught.value.status == 422


# -- patches


def test_a_patch_changes_what_it_names() -> None:
    new = made(options={"timeout": 5, "tags": ["a"], "title": "T", "concurrency_key": "c"})
    assert patched(new) == new
    gone = {"timeout": None, "tags": [], "title": None}
    after = patched(new, command=["b"], env={"X": "1"}, priority=3, options=gone)
    assert after.spec == Spec(command=["b"], cwd="/home/ann", env={"X": "1"})
    assert (after.priority, after.concurrency_key) == (3, "c")
    assert patched(new, options={"concurrency_key": None, "queue": "q"}).concurrency_key is None
    assert patched(new, options={"priority": "low"}).priority == -10
    assert patched(new, options={"allow_failed": True}).spec.allow_failed
    assert patched(new, options={"retry_backoff": "fixed"}).spec.backoff == Backoff("fixed")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (5, None)),
        ({"run_at": "1970-01-01T00:00:01Z"}, (1000, None)),
        ({"run_at": None}, (None, None)),
        ({"delay": "10s"}, (None, 10.0)),
        ({"delay": None}, (None, None)),
        ({"run_at": None, "delay": 3}, (None, 3.0)),
        ({"run_at": "1970-01-01T00:00:01Z", "delay": None}, (1000, None)),
    ],
)
def test_a_patch_of_the_time(options: dict[str, Any], expected: tuple[int | None, float | None]) -> None:
    new = msgspec.structs.replace(made(), run_at=5)
    after = patched(new, options=options)
    assert (after.run_at, after.delay) == expected


def test_the_faults_of_a_patch() -> None:
    body = {"command": [""], "cwd": "x", "env": {"-": ""}, "options": {"max_retries": 11, "run_at": "x", "check": [""]}}
    with pytest.raises(Problem) as caught:
        patched(made(), **body)
    assert {f.path for f in caught.value.faults} == {
        "command[0]", "cwd", "env.-", "options.max_retries", "options.run_at", "options.check[0]",
    }  # fmt: skip


# -- agents


AGENT: dict[str, Any] = {"command": None, "agent": "reviewer", "prompt": "look"}


def test_an_agents_task() -> None:
    new = made(**AGENT)
    expected = Spec(
        agent=AgentSpec("reviewer"), prompt="look", cwd="/home/ann", max_retries=3, on_completion=["notification"]
    )  # fmt: skip
    assert new.spec == expected
    assert new.kind == "claude"
    assert made(policy=msgspec.structs.replace(POLICY, max_retries=1), **AGENT).spec.max_retries == 1
    options = {
        "model": "opus", "max_turns": 5, "max_cost_usd": 0.5, "json_schema": {"type": "object"},
        "allowed_tools": ["Bash(git *)"], "disallowed_tools": ["Write"], "permission_mode": "plan",
        "allow_denied": True, "account": "work", "isolation": "worktree", "mcp_config": {"mcpServers": {}},
        "runner_args": ["--effort", "high"],
    }  # fmt: skip
    agent = made(policy=Policy(agents=AgentRules(accounts=("work",))), options=options, **AGENT).spec.agent
    assert agent == AgentSpec("reviewer", **options)


def test_a_command_or_an_agent() -> None:
    assert paths(command=None) == ["command"]
    assert paths(agent="a", prompt="p") == ["agent"]
    assert paths(command=None, agent="a") == ["prompt"]
    assert paths(prompt="p") == ["prompt"]
    assert paths(**AGENT, stdin="x") == ["stdin"]
    assert paths(options={"model": "opus", "isolation": "none"}) == ["options.model", "options.isolation"]


def test_the_faults_of_an_agents_options() -> None:
    policy = Policy(agents=AgentRules(no_bypass="not as root", accounts=("work", "home")))
    options = {
        "permission_mode": "bypassPermissions", "account": "wrok", "mcp_config": "a.json", "runner_args": ["a\0"],
    }  # fmt: skip
    faults: list[Fault] = []
    made(faults, policy=policy, options=options, **AGENT)
    assert {fault.path: fault.message for fault in faults} == {
        "options.permission_mode": "not as root",
        "options.account": "there is no such account in [claude.accounts] (did you mean 'work'?)",
        "options.mcp_config": "must be the absolute path of a file, or its content",
        "options.runner_args": "must not contain NUL",
    }
    deep: dict[str, Any] = {}
    for _ in range(submit.MAX_DEPTH + 1):
        deep = {"a": deep}
    assert paths(options={"json_schema": deep}, **AGENT) == ["options.json_schema"]
    assert paths(policy=Policy(agents=AgentRules(off="no HOME")), **AGENT) == ["agent"]


def test_an_agents_patch() -> None:
    new = made(options={"max_turns": 5, "isolation": "worktree"}, **AGENT)
    after = patched(new, prompt="again", options={"model": "opus", "isolation": None})
    assert after.spec.agent == AgentSpec("reviewer", model="opus", max_turns=5)
    assert after.spec.prompt == "again"
    for body, wrong in (({"command": ["x"]}, ["command"]), ({"stdin": "x"}, ["stdin"])):
        with pytest.raises(Problem) as caught:
            patched(new, **body)
        assert [f.path for f in caught.value.faults] == wrong
    with pytest.raises(Problem) as caught:
        patched(made(), prompt="x", options={"model": "opus"})
    assert [f.path for f in caught.value.faults] == ["prompt", "options.model"]


# -- what a user is told


def test_a_fault_of_the_input_wins_over_one_of_the_world() -> None:
    faults = [Fault("a", "x", "unprocessable"), Fault("b", "y"), Fault("c", "z", "unprocessable")]
    with pytest.raises(Problem) as caught:
        refuse(faults)
    assert (caught.value.kind, caught.value.status, caught.value.faults) == ("invalid", 400, tuple(faults))
    assert caught.value.detail == "a: x (and 2 more)"
    with pytest.raises(Problem) as caught:
        refuse(faults[::2])
    assert caught.value.status == 422
    refuse([])


def test_near_names() -> None:
    assert did_you_mean("priorty", ["timeout", "priority"]) == " (did you mean 'priority'?)"
    assert did_you_mean("zzz", ["timeout", "priority"]) == ""


def test_ids_are_of_their_time_and_differ() -> None:
    ids = [uuid7(1_772_355_600_000 + i // 100) for i in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert {id_[:8] for id_ in ids} == {"019ca8a0"}
    assert sorted(ids, key=lambda i: i[:13]) == ids
    for one in ids[:100]:
        assert (len(one), one[14], one[19] in "89ab") == (36, "7", True)


# -- when it ends

FOLLOW: dict[str, Any] = {"submit": {"command": ["echo", "{{ task.result }}"], "env": {"S": "secret"}}}


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("none", []),
        ("notification", ["notification"]),
        ("https://example.com/x", ["https://example.com/x"]),
        ("callback_url", ["callback_url"]),
        (FOLLOW, [FOLLOW]),
        (["notification", FOLLOW, "notification"], ["notification", FOLLOW]),
        ([], []),
    ],
)
def test_what_is_done_on_completion(said: Any, kept: list[Any]) -> None:
    options = {"on_completion": said, "callback_url": "http://localhost:1/x", "callback_method": "PUT"}
    spec = made(options=options).spec
    assert (spec.on_completion, spec.callback_url, spec.callback_method) == (kept, "http://localhost:1/x", "PUT")
    assert made(options=options, **AGENT).spec.on_completion == kept
    assert steering.retry(_failed(made(options=options)), {}).spec == spec


def _failed(new: NewTask) -> Task:
    admitted = admission.admit(new, admission.Facts(), "id", 1, 0)
    assert isinstance(admitted, admission.Admitted)
    return msgspec.structs.replace(admitted.task, status="failed")


@pytest.mark.parametrize(
    ("options", "kind", "wrong"),
    [
        ({"on_completion": "go-ahead"}, "unprocessable", ["options.on_completion"]),
        ({"on_completion": "/internal/go"}, "unprocessable", ["options.on_completion"]),
        (
            {"on_completion": ["none", {"signal": "go"}]},
            "invalid",
            ["options.on_completion[0]", "options.on_completion[1]"],
        ),
        ({"on_completion": [{"signal": "go"}]}, "unprocessable", ["options.on_completion[0]"]),
        ({"callback_url": "/webhook/go"}, "unprocessable", ["options.callback_url"]),
        ({"callback_url": "/internal/go"}, "unprocessable", ["options.callback_url"]),
        ({"callback_url": "ftp://example.com"}, "invalid", ["options.callback_url"]),
        ({"callback_url": "http://169.254.169.254/"}, "invalid", ["options.callback_url"]),
        ({"on_completion": "http://10.1.1.1/"}, "invalid", ["options.on_completion"]),
        ({"on_completion": "two words"}, "invalid", ["options.on_completion"]),
        ({"on_completion": {}}, "invalid", ["options.on_completion"]),
        ({"on_completion": {"signal": "a", "submit": FOLLOW["submit"]}}, "invalid", ["options.on_completion"]),
        ({"on_completion": "callback_url"}, "invalid", ["options.on_completion"]),
        ({"on_failure": "callback"}, "invalid", ["options.on_failure"]),
        (
            {"on_completion": ["notification", {"submit": {"command": ["", "{{ nope }}"], "cwd": "x"}}]},
            "invalid",
            [f"options.on_completion[1].submit.{rest}" for rest in ("command[1]", "command[0]", "cwd")],
        ),
        (
            {"on_completion": {"submit": {"command": ["x"], "options": {"on_completion": FOLLOW, "user_id": "bob"}}}},
            "invalid",
            ["options.on_completion.submit.options.user_id"],
        ),
        (
            {"on_completion": {"submit": {
                "command": ["x"], "options": {"on_completion": {"submit": {"env": {"-": ""}}}},
            }}},
            "invalid",
            [f"options.on_completion.submit.options.on_completion.submit.{rest}" for rest in ("command", "env.-")],
        ),
        (
            {"on_completion": {"submit": {"command": ["x"], "options": {"on_failure": "callback"}}}},
            "invalid",
            ["options.on_completion.submit.options.on_failure"],
        ),
    ],
)  # fmt: skip
def test_the_faults_of_what_is_done_at_the_end(options: dict[str, Any], kind: str, wrong: list[str]) -> None:
    faults: list[Fault] = []
    made(faults, options=options)
    assert [fault.path for fault in faults] == wrong
    with pytest.raises(Problem) as caught:
        refuse(faults)
    assert caught.value.kind == kind


def test_a_template_may_stand_where_its_value_is_not_known_yet() -> None:
    strict = Policy(allow=("echo",))
    made(policy=strict, command=["echo"], options={"on_completion": {"submit": {"command": ["{{ task.output.x }}"]}}})
    options = {"on_completion": {"submit": {"command": ["rm"]}}}
    assert paths(policy=strict, command=["echo"], options=options) == ["options.on_completion.submit.command[0]"]


def test_a_chain_of_follow_ups_has_an_end() -> None:
    def chain(length: int) -> dict[str, Any]:
        options: dict[str, Any] = {}
        for _ in range(length):
            options = {"on_completion": {"submit": {"command": ["true"], "options": options}}}
        return options

    made(options=chain(100))
    (path,) = paths(options=chain(101))
    assert path.count("submit") == 101


def test_a_patch_of_what_is_done_at_the_end() -> None:
    new = made(options={"on_completion": "notification"})
    options = {"on_completion": FOLLOW, "callback_url": "http://localhost/", "on_failure": "callback"}
    after = patched(new, options=options)
    assert (after.spec.on_completion, after.spec.callback_url) == ([FOLLOW], "http://localhost/")
    assert patched(made(**AGENT), options={"on_completion": None}).spec.on_completion == ["notification"]
    for wrong in ({"on_completion": "callback_url"}, {"on_failure": "callback"}, {"callback_url": "x"}):
        with pytest.raises(Problem):
            patched(new, options=wrong)
    with pytest.raises(Problem) as caught:
        patched(after, options={"callback_url": None})
    assert [fault.path for fault in caught.value.faults] == ["options.on_failure"]


def test_what_follows_is_shown_without_its_environment() -> None:
    nested = {"submit": {"command": ["a"], "stdin": "secret", "options": {"on_completion": [FOLLOW, "notification"]}}}
    shown = endings.shown(made(options={"on_completion": ["notification", nested]}).spec.on_completion)
    assert "secret" not in str(shown)
    assert shown[0] == "notification"
    assert "echo" in str(shown)
