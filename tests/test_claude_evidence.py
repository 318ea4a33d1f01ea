"""What the records of a run prove: judged without a process, over streams that the CLI has written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestr8d.core.model import Progress, Session, Usage
from orchestr8d.core.outcome import Limited, Outcome
from orchestr8d.task_runners.claude.evidence import MOST_FILES, Evidence, Wanted, judge
from orchestr8d.task_runners.claude.progress import Steps
from orchestr8d.task_runners.claude.records import Record, decode
from orchestr8d.task_runners.claude.stream import CHUNK, Tail

RECORDS = Path(__file__).parent / "claude_records"
FRESH = Session("s")
RESETS_AT = 1_800_000_000


def records(name: str) -> list[Record]:
    found = [decode(line) for line in (RECORDS / f"{name}.jsonl").read_bytes().splitlines()]
    assert None not in found
    return [record for record in found if record is not None]


def evidence(*given: Record | str) -> Evidence:
    """From whole streams by name, and single records."""
    made = Evidence()
    for record in given:
        for one in records(record) if isinstance(record, str) else [record]:
            made.feed(one)
    return made


def result(**fields: Any) -> Record:
    good: Record = {
        "type": "result", "subtype": "success", "is_error": False, "result": "done", "num_turns": 1,
        "total_cost_usd": 0.0, "permission_denials": [], "api_error_status": None, "terminal_reason": "completed",
    }  # fmt: skip
    return good | fields


def api_failure(status: int | None, kind: str | None = None, **fields: Any) -> Record:
    failed: Record = {"is_error": True, "api_error_status": status, "api_error_type": kind}
    return result(**failed | {"terminal_reason": "api_error", "result": "API Error: it says so"} | fields)


def synthetic(error: str, **fields: Any) -> Record:
    return {"type": "assistant", "error": error, "message": {"model": "<synthetic>", "content": []}, **fields}


def limit_event(status: str = "rejected", at: object = RESETS_AT) -> Record:
    return {"type": "rate_limit_event", "rate_limit_info": {"status": status, "resetsAt": at}}


def use(tool: str, call: str = "t1", **tool_input: Any) -> Record:
    block = {"type": "tool_use", "id": call, "name": tool, "input": tool_input}
    return {"type": "assistant", "message": {"model": "m", "content": [block]}}


def used(call: str = "t1", is_error: bool = False, **said: Any) -> Record:
    block = {"type": "tool_result", "tool_use_id": call, "content": "x", "is_error": is_error}
    return {"type": "user", "message": {"content": [block]}, "tool_use_result": said}


def kind(outcome: Outcome) -> str:
    return outcome.error.kind if outcome.error is not None else outcome.status


# --- streams of the CLI


@pytest.mark.parametrize(
    ("name", "exit_code", "wanted", "expected"),
    [
        ("bash", 0, Wanted(), "completed"),
        ("bash", 1, Wanted(), "crashed"),
        ("bash", 137, Wanted(), "crashed"),
        ("bash", 0, Wanted(structured=True), "schema"),
        ("schema", 0, Wanted(structured=True), "completed"),
        ("denied", 0, Wanted(), "denied"),
        ("denied", 0, Wanted(allow_denied=True), "completed"),
        ("deferred", 0, Wanted(allow_denied=True), "denied"),
        ("max_turns", 1, Wanted(), "max_turns"),
        ("budget", 1, Wanted(), "budget"),
        ("limit", 1, Wanted(), "limit"),
        ("overload", 1, Wanted(), "overload"),
        ("subagent", 0, Wanted(), "completed"),
        ("background", 0, Wanted(), "completed"),
    ],
)
def test_streams(name: str, exit_code: int, wanted: Wanted, expected: str) -> None:
    assert kind(judge(evidence(name), exit_code, wanted)) == expected


def test_results_and_what_they_say() -> None:
    outcome = judge(evidence("background"), 0, Wanted())
    assert (outcome.result_type, outcome.result) == ("summary", b"after notification")
    outcome = judge(evidence("schema"), 0, Wanted(structured=True))
    assert (outcome.result_type, json.loads(outcome.result or b"")) == ("json", {"name": "bob"})
    outcome = judge(evidence("denied"), 0, Wanted())
    assert outcome.error is not None and outcome.result == b"done"
    assert outcome.error.message == "permission was denied: Bash (touch denied.txt)"
    outcome = judge(evidence("max_turns"), 1, Wanted())
    assert outcome.error is not None and outcome.error.message == "Reached maximum number of turns (1)"


@pytest.mark.parametrize("name", [p.stem for p in RECORDS.glob("*.jsonl")])
def test_without_its_result_each_of_them_has_crashed(name: str) -> None:
    cut = [record for record in records(name) if record["type"] != "result"]
    outcome = judge(evidence(*cut), 143, Wanted())
    assert outcome.error is not None
    assert (outcome.error.kind, outcome.error.message) == ("crashed", "ended by SIGTERM without a result")
    assert evidence(*cut).usage(FRESH, False) is None


# --- failures, by what the CLI's records say


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([api_failure(429)], "limit"),
        ([api_failure(529, "overloaded_error")], "overload"),
        ([api_failure(529)], "overload"),
        ([api_failure(None, "overloaded_error")], "overload"),
        ([api_failure(401)], "auth"),
        ([api_failure(403, "permission_error")], "auth"),
        ([api_failure(402, "billing_error")], "billing"),
        ([synthetic("billing_error"), api_failure(400, "invalid_request_error")], "billing"),
        ([synthetic("unknown"), api_failure(400, "invalid_request_error")], "invalid_request"),
        ([synthetic("billing_error", parent_tool_use_id="t"), api_failure(400)], "invalid_request"),
        ([api_failure(404, "not_found_error")], "invalid_request"),
        ([api_failure(413, terminal_reason="image_error")], "invalid_request"),
        ([api_failure(None, terminal_reason="blocking_limit")], "invalid_request"),
        ([api_failure(None, stop_reason="refusal")], "invalid_request"),
        ([api_failure(408)], "crashed"),
        ([api_failure(500, "api_error")], "crashed"),
        ([synthetic("server_error"), api_failure(None)], "crashed"),
        ([result(is_error=True, subtype="error_during_execution", errors=["No conversation found"])], "crashed"),
        ([result(is_error=True, subtype="error_max_structured_output_retries")], "schema"),
        ([result(result="UserPromptSubmit operation blocked by hook", num_turns=0)], "denied"),
        ([result(result="", terminal_reason="hook_stopped")], "denied"),
        # An overload that was got over, and a limit that only a later turn ran into.
        ([synthetic("overloaded"), result()], "completed"),
        ([result(), api_failure(429)], "limit"),
    ],
)
def test_failures(given: list[Record], expected: str) -> None:
    assert kind(judge(evidence(*given), 0 if expected in ("completed", "denied") else 1, Wanted())) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"subtype": "error_during_execution"}, "crashed"),
        ({"subtype": "error_max_turns"}, "max_turns"),
        ({"terminal_reason": "aborted_tools"}, "crashed"),
        ({"terminal_reason": "aborted_streaming"}, "crashed"),
        ({"subtype": None, "terminal_reason": None}, "completed"),
    ],
)
def test_what_is_not_marked_as_an_error_may_be_one(fields: Record, expected: str) -> None:
    assert kind(judge(evidence(result(**fields)), 0, Wanted())) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("rate_limit", "limit"), ("overloaded", "overload"), ("authentication_failed", "auth"),
        ("billing_error", "billing"), ("invalid_request", "invalid_request"), ("server_error", "crashed"),
    ],
)  # fmt: skip
def test_a_cli_that_gives_no_status_gives_a_word(word: str, expected: str) -> None:
    older = api_failure(None)
    del older["api_error_status"], older["api_error_type"]
    assert kind(judge(evidence(synthetic(word), older), 1, Wanted())) == expected


def test_what_others_come_up_against_too_is_told() -> None:
    def limited(*given: Record) -> tuple[str, Limited | None]:
        outcome = judge(evidence(*given), 1, Wanted(account="work"))
        return outcome.status, outcome.limited

    said = "API Error: it says so"
    until = RESETS_AT * 1000
    assert limited(limit_event(), api_failure(429)) == ("parked", Limited("limit", "work", until, said))
    assert limited(limit_event("allowed"), api_failure(429)) == ("parked", Limited("limit", "work", None, said))
    assert limited(limit_event(at="soon"), api_failure(429)) == ("parked", Limited("limit", "work", None, said))
    assert limited(limit_event(at=1e300), api_failure(429)) == ("parked", Limited("limit", "work", None, said))
    assert limited(limit_event(), api_failure(529)) == ("failed", Limited("overload", "work", None, said))
    assert limited(api_failure(401)) == ("failed", Limited("auth", "work", None, said))
    assert limited(api_failure(402)) == ("failed", Limited("billing", "work", None, said))
    assert limited(api_failure(400)) == ("failed", None)


def test_a_budget_that_was_set_aside_parks_the_task_that_may_spend_more() -> None:
    parked = judge(evidence("budget"), 1, Wanted(capped=True))
    assert (parked.status, parked.limited and parked.limited.kind) == ("parked", "budget")
    failed = judge(evidence("budget"), 1, Wanted())
    assert (failed.status, failed.limited, kind(failed)) == ("failed", None, "budget")


QUOTES = (
    "API Error: 429 rate limit exceeded",
    "529 overloaded_error",
    "Claude AI usage limit reached|1800000000",
    '{"type":"result","is_error":true,"api_error_status":401}',
    "error_max_budget_usd, credit balance is too low, permission denied",
)


@pytest.mark.parametrize("words", QUOTES)
def test_quotes_change_nothing(words: str) -> None:
    """A model, a tool, the API and a file may say what they like."""
    answer = {"type": "assistant", "message": {"model": "m", "content": [{"type": "text", "text": words}]}}
    quoting = [answer, use("Bash", command=words), used(stdout=words), result(result=words)]
    outcome = judge(evidence(*quoting), 0, Wanted())
    assert (outcome.status, outcome.limited, outcome.result) == ("completed", None, words.encode())
    refused = judge(evidence(*quoting, api_failure(400, result=words)), 1, Wanted())
    assert (kind(refused), refused.limited) == ("invalid_request", None)


def test_messages_are_one_line_without_secrets() -> None:
    said = "API Error: 400\n  key sk-ant-" + "a1B2" * 8 + " " + "x" * 9_000_000
    outcome = judge(evidence(api_failure(400, result=said)), 1, Wanted())
    assert outcome.error is not None
    assert outcome.error.message.startswith("API Error: 400 key [redacted] xxx")
    assert "\n" not in outcome.error.message and len(outcome.error.message) <= 400


def test_what_was_denied_in_an_earlier_turn_stays_denied() -> None:
    denial = {"tool_name": "Write", "tool_use_id": "t1", "tool_input": {"file_path": "/etc/passwd"}}
    outcome = judge(evidence(result(permission_denials=[denial]), result(permission_denials=[])), 0, Wanted())
    assert outcome.error is not None and outcome.error.message == "permission was denied: Write (/etc/passwd)"


# --- files


def test_files_are_those_that_were_written() -> None:
    init = {"type": "system", "subtype": "init", "cwd": "/home/me/app"}
    found = evidence(
        init,
        use("Write", "t1", file_path="a.txt"), used("t1", filePath="a.txt"),
        use("Edit", "t2", file_path="/home/me/app/b.txt"), used("t2", filePath="/home/me/app/b.txt"),
        use("Edit", "t3", file_path="/home/me/app/b.txt"), used("t3"),
        use("Write", "t4", file_path="/refused"), used("t4", is_error=True),
        use("NotebookEdit", "t5", notebook_path="../n.ipynb"), used("t5"),
        use("Read", "t6", file_path="/read"), used("t6", filePath="/read"),
        use("Write", "t7", file_path="/never/came/back"),
    )  # fmt: skip
    assert found.files == ["/home/me/app/a.txt", "/home/me/app/b.txt", "/home/me/n.ipynb"]


def test_so_many_files_are_named() -> None:
    found = Evidence()
    for n in range(MOST_FILES + 10):
        found.feed(use("Write", f"t{n}", file_path=f"/f{n}"))
        found.feed(used(f"t{n}"))
    assert len(found.files) == MOST_FILES


# --- usage


def test_usage_is_the_run_s_and_its_cost_what_the_session_s_grew_by() -> None:
    usage = evidence("bash").usage(FRESH, False)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.num_turns) == (200, 60, 2)
    assert (usage.cache_read_tokens, usage.cache_creation_tokens) == (40, 20)
    assert usage.cost_usd == pytest.approx(0.002108)
    (model,) = usage.by_model.values()
    assert model == {"input_tokens": 200, "output_tokens": 60, "cache_read_tokens": 40, "cache_creation_tokens": 20,
                     "cost_usd": pytest.approx(0.002108)}  # fmt: skip


def test_usage_counts_all_turns_and_subagents() -> None:
    usage = evidence("subagent").usage(FRESH, False)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, usage.num_turns) == (500, 150, 3)
    assert usage.cost_usd == pytest.approx(0.00527)
    usage = evidence("background").usage(FRESH, False)
    assert usage is not None and (usage.input_tokens, usage.cost_usd) == (300, pytest.approx(0.003162))
    usage = evidence("budget").usage(FRESH, False)
    assert usage is not None and usage.output_tokens > 0 and usage.cost_usd == pytest.approx(2.000454)


def test_cost_over_a_resume_and_over_a_fork() -> None:
    def cost(total: float, own: float | None, spent: float = 0.0, forked: bool = False) -> float:
        since = {} if own is None else {"model_usage_since_last_result": {"m": {"costUSD": own}}}
        usage = evidence(result(total_cost_usd=total, **since)).usage(Session("s", spent > 0, spent), forked)
        assert usage is not None
        return usage.cost_usd

    assert cost(0.3, 0.3) == 0.3
    assert cost(0.3, 0.1, spent=0.2) == pytest.approx(0.1)
    assert cost(0.3, None, spent=0.2) == pytest.approx(0.1)
    # A run in between that told nothing had cost 0.05.
    assert cost(0.3, 0.1, spent=0.15) == pytest.approx(0.15)
    # The CLI has lost count, or never had it.
    assert cost(0.1, 0.1, spent=0.2) == 0.1
    assert cost(0.1, None, spent=0.2) == 0.0
    # What the other session had cost is not the fork's.
    assert cost(5.1, 0.1, forked=True) == 0.1
    assert cost(5.2, 0.1, spent=0.1, forked=True) == 0.1


def test_usage_of_a_cli_that_tells_less() -> None:
    said = {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 1, "cache_creation_input_tokens": 2}
    models = {"m": {"inputTokens": 5, "outputTokens": 7, "cacheReadInputTokens": 1, "cacheCreationInputTokens": 2,
                    "costUSD": 0.5}}  # fmt: skip
    told = evidence(result(usage=said, modelUsage=models, total_cost_usd=0.5, num_turns=3))
    expected = Usage(5, 7, 1, 2, 0.5, 3)
    fresh, resumed = told.usage(FRESH, False), told.usage(Session("s", True), False)
    assert fresh is not None and (fresh.cost_usd, fresh.num_turns, list(fresh.by_model)) == (0.5, 3, ["m"])
    assert resumed == expected


# --- progress


def progress(*given: Record) -> Progress | None:
    steps = Steps()
    for record in given:
        steps.feed(record)
    return steps.now()


def test_progress_of_todos() -> None:
    assert progress() is None
    assert progress(*records("todos")) == Progress(0.0, "Doing first")
    done = [{"content": "A", "status": "completed"}, {"content": "B", "status": "in_progress"}]
    assert progress(use("TodoWrite", todos=done)) == Progress(50.0, "B")
    assert progress(use("TodoWrite", todos="nonsense")) is None


def test_progress_of_tasks() -> None:
    seen = []
    steps = Steps()
    for record in records("tasks"):
        steps.feed(record)
        if (now := steps.now()) is not None and now not in seen:
            seen.append(now)
    assert seen == [Progress(0.0), Progress(0.0, "Doing first"), Progress(50.0)]


def test_progress_without_a_list_is_what_is_done() -> None:
    assert progress(use("Bash", command="make\ntest")) == Progress(None, "Bash: make test")
    assert progress(use("Bash", command="x", description="Run the tests")) == Progress(None, "Bash: Run the tests")
    assert progress(use("Edit", file_path="/a/b.py")) == Progress(None, "Edit: b.py")
    assert progress(use("Strange")) == Progress(None, "Strange")
    assert progress(use("Bash", command="curl -H 'Authorization: Bearer abcdefghi'")) == Progress(
        None, "Bash: curl -H 'Authorization: Bearer [redacted]'"
    )
    inner = use("Bash", command="inner") | {"parent_tool_use_id": "t0"}
    assert progress(use("Agent", description="outer"), inner) == Progress(None, "Agent: outer")


# --- whatever comes

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(
        st.sampled_from((
            "type", "subtype", "message", "content", "id", "name", "input", "tool_use_id", "tool_use_result", "usage",
            "permission_denials", "modelUsage", "model_usage_since_last_result", "total_cost_usd", "num_turns", "todos",
            "rate_limit_info", "resetsAt", "status", "error", "errors", "result", "is_error", "taskId", "statusChange",
            "task", "to", "file_path", "costUSD", "m",
        )),
        inner, max_size=6,
    ),
    max_leaves=30,
)  # fmt: skip
TYPES = st.sampled_from(("system", "assistant", "user", "result", "rate_limit_event", "new"))


@pytest.mark.slow
@given(st.lists(st.tuples(TYPES, st.dictionaries(st.sampled_from(("subtype", "message", "usage", "permission_denials",
       "tool_use_result", "rate_limit_info", "modelUsage", "num_turns", "result")), junk)), max_size=5))  # fmt: skip
def test_no_record_is_too_strange(given: list[tuple[str, Record]]) -> None:
    found, steps = Evidence(), Steps()
    for name, fields in given:
        found.feed({**fields, "type": name})
        steps.feed({**fields, "type": name})
    judge(found, 0, Wanted(structured=True))
    found.usage(FRESH, False)
    steps.now()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"type":"result"}', {"type": "result"}),
        (b"[1]", None),
        (b"not json", None),
        (b'{"type":"resu', None),
        (b"[" * 100_000, None),
        (b'{"a":"\\ud800 x"}', {"a": "? x"}),
        (b'{"a":"\xff"}', {"a": "�"}),
    ],
)
def test_decoding(line: bytes, expected: Record | None) -> None:
    assert decode(line) == expected


# --- the growing file


def test_lines_come_as_they_are_completed(tmp_path: Path) -> None:
    path = tmp_path / "out"
    tail = Tail(str(path))
    assert list(tail.lines()) == []
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    seen = []
    for piece, expected in ((b"one\ntw", [b"one"]), (b"o", []), (b"\n\n", [b"two"]), (b"three\nfour", [b"three"])):
        os.write(fd, piece)
        seen = list(tail.lines())
        assert seen == expected
    assert tail.rest() == b"four"
    os.close(fd)


def test_long_lines_come_whole_and_longer_ones_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out"
    long = b"x" * (3 * CHUNK + 17)
    path.write_bytes(b"a\n" + long + b"\nb\n" + long + b"y\nc\n" + long + b"z")
    tail = Tail(str(path), longest=len(long))
    assert list(tail.lines()) == [b"a", long, b"b", b"c"]
    assert tail.rest() == b""
