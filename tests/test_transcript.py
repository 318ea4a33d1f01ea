"""What people read of an agent's stream."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestr8d import transcript
from orchestr8d.transcript import Transcript

STREAMS = Path(__file__).parent / "claude_records"
SHOWN = {
    "bash": """\
> Bash: echo hi > file; echo out
done
= done, 2 turns, $0.0021, 0.3 s
""",
    "subagent": """\
> Agent: sub (general-purpose)
parent done
  > Bash: echo from-sub
  done
~ in the background: done (completed)
script ended
= done, 2 turns, $0.0053, 0.4 s
= done, 1 turn, $0.0053, 0.2 s
""",
    "limit": """\
~ 429 rate_limit; retry 1 of 1 in 0.6 s
! API Error: Request rejected (429) · fake 429
= failed, api_error, 1 turn, $0.0000, 0.9 s
""",
    "max_turns": """\
> Bash: echo 1
! Reached maximum number of turns (1)
= failed, max_turns, 2 turns, $0.0011, 0.2 s
""",
    "partial": """\
hello partial world, longer than twenty chars
= done, 1 turn, $0.0011, 0.6 s
""",
    "schema": """\
> StructuredOutput
{"name":"bob"}
= done, 2 turns, $0.0011, 0.4 s
""",
    "tasks": """\
> ToolSearch: select:TaskCreate,TaskUpdate,TaskList
> TaskCreate: First
> TaskCreate: Second
> TaskUpdate: #1 First in_progress
> TaskUpdate: #1 First completed
> TaskList
task done
= done, 7 turns, $0.0063, 0.4 s
""",
    "todos": """\
> ToolSearch: select:TodoWrite
> TodoWrite: 0/2, Doing first
todo done
= done, 3 turns, $0.0032, 0.3 s
""",
}


def render(data: bytes) -> str:
    it = Transcript()
    return (it.feed(data) + it.end()).decode()


def lines(*records: object) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def call(name: str, **given: object) -> str:
    block = {"type": "tool_use", "id": "t", "name": name, "input": given}
    return render(lines({"type": "assistant", "message": {"content": [block]}})).removesuffix("\n")


@pytest.mark.parametrize("name", SHOWN)
def test_streams_of_the_real_cli(name: str) -> None:
    begun = "* claude-opus-5-5 in /home/user/work\n"
    assert render((STREAMS / f"{name}.jsonl").read_bytes()) == begun + SHOWN[name]


def test_a_denial_is_told_once() -> None:
    text = render((STREAMS / "denied.jsonl").read_bytes())
    assert text.count("needs approval") == 1 and "  ! denied: touch" in text
    assert text.endswith("= done, 1 denied, 2 turns, $0.0021, 0.3 s\n")


def test_how_it_is_cut_into_pieces_makes_no_difference() -> None:
    data = b"".join(path.read_bytes() for path in sorted(STREAMS.glob("*.jsonl")))
    whole = render(data)
    for size in (1, 7, 1000, 65536):
        it = Transcript()
        assert b"".join(it.feed(data[i : i + size]) for i in range(0, len(data), size)).decode() == whole


@pytest.mark.parametrize(
    ("name", "told", "shown"),
    [
        ("Edit", {"file_path": "/x.py", "old_string": "a\nb", "new_string": "a\nb\nc\n"}, "/x.py (+3 -2)"),
        ("MultiEdit", {"file_path": "/x", "edits": [{"old_string": "a", "new_string": ""}] * 2}, "/x (+0 -2)"),
        ("Write", {"file_path": "/x.py", "content": "1\n2\n"}, "/x.py (+2)"),
        ("Read", {"file_path": "/x.py", "limit": 3}, "/x.py"),
        ("Grep", {"pattern": "a.*b", "path": "src"}, "a.*b in src"),
        ("Bash", {"command": "make\n  test"}, "make test"),
        ("Task", {"description": "look", "subagent_type": "Explore"}, "look (Explore)"),
        ("mcp__x__y", {"n": 1, "what": "first word"}, "first word"),
        ("Edit", {"file_path": 3, "new_string": []}, "3 (+0 -0)"),
    ],
)  # fmt: skip
def test_a_tool_is_one_line_with_what_tells(name: str, told: dict[str, object], shown: str) -> None:
    assert call(name, **told) == f"> {name}: {shown}"


def test_a_tool_that_is_told_nothing() -> None:
    assert [call("Bash"), call("Unknown"), call("Write")] == ["> Bash", "> Unknown", "> Write: (+0)"]


def test_errors_of_tools_retries_and_limits() -> None:
    failed = {"type": "tool_result", "is_error": True, "content": [{"type": "text", "text": "no\nway"}]}
    limit = {"status": "rejected", "resetsAt": 1_800_000_000, "rateLimitType": "five_hour"}
    assert render(lines(
        {"type": "user", "message": {"content": [failed]}},
        {"type": "rate_limit_event", "rate_limit_info": {"status": "allowed"}},
        {"type": "rate_limit_event", "rate_limit_info": limit},
    )) == "  ! no way\n~ limit: five_hour rejected until 2027-01-15T08:00:00.000Z\n"  # fmt: skip


def test_what_is_no_record_is_shown_and_what_is_unknown_is_not() -> None:
    unknown = lines({"type": "new_thing"}, {"subtype": 1}, [1, 2], {"type": []})
    text = render(b"Error: no such\x1b[2J option\n" + unknown + b"\xff{\n")
    assert text == "Error: no such\\x1b[2J option\n[1, 2]\n\ufffd{\n"
    assert render(b"x" * 1000) == "x" * 200 + "…\n"


def test_half_a_line_is_shown_at_the_end_only() -> None:
    it = Transcript()
    assert it.feed(b'{"type": "resu') == b""
    assert it.end() == b'{"type": "resu\n'
    assert it.end() == b""


def test_text_cannot_steer_a_terminal() -> None:
    said = {"type": "text", "text": "a\x1b]0;title\x07\r\nb\tc \u202e d"}
    text = render(lines({"type": "assistant", "message": {"content": [said]}}))
    assert text == "a\\x1b]0;title\\x07\nb\tc \\u202e d\n"


def test_long_lines_are_taken_and_endless_ones_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    big = {"type": "user", "message": {"content": []}, "tool_use_result": {"originalFile": "x" * 450_000}}
    done = {"type": "result", "subtype": "success", "result": "ok", "num_turns": 1}
    assert render(lines(big, done)).startswith("ok\n= done, 1 turn")
    monkeypatch.setattr(transcript, "MAX_LINE", 10_000)
    it = Transcript()
    for _ in range(100):
        assert it.feed(b"y" * 5_000) == b""
    assert len(it._half) < 20_000
    assert it.feed(b"\n" + lines(done)).decode().startswith("y" * 200 + "…\nok\n")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_NAMES = st.sampled_from([
    "type", "subtype", "message", "content", "text", "name", "input", "todos", "edits", "tool_use_result", "task", "id",
    "num_turns", "total_cost_usd", "rate_limit_info", "resetsAt", "status", "retry_delay_ms", "permission_denials",
    "errors", "structured_output", "is_error", "result", "parent_tool_use_id", "error",
])  # fmt: skip
_KINDS = st.sampled_from(
    ["assistant", "user", "system", "result", "rate_limit_event", "tool_use", "tool_result", "text"]
)
_INNER = st.dictionaries(_NAMES, _JSON | _KINDS)


@given(st.dictionaries(_NAMES, _JSON | _INNER | st.lists(_INNER, max_size=3)), _KINDS)
def test_whatever_a_record_holds_it_is_text(record: dict[str, object], kind: str) -> None:
    render(lines(record | {"type": kind}))


@given(st.binary())
def test_whatever_a_stream_holds_it_is_text(data: bytes) -> None:
    text = render(data)
    assert text == "" or text.endswith("\n")
