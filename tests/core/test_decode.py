"""Decoding names every fault, with its path, a near name and its kind; valid input comes out typed."""

from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestr8d.core.decode import convert, decode_json
from orchestr8d.core.errors import MOST_FAULTS, Problem, refuse
from orchestr8d.core.task_input import Batch, TaskIn, TaskPatch

TASK = msgspec.json.Decoder(TaskIn)
BATCH = msgspec.json.Decoder(Batch)
PATCH = msgspec.json.Decoder(TaskPatch)


def taken(body: bytes, decoder: msgspec.json.Decoder):
    value, faults = decode_json(body, decoder)
    assert faults == []
    return value


def refused(body: bytes, decoder: msgspec.json.Decoder) -> Problem:
    _, faults = decode_json(body, decoder)
    with pytest.raises(Problem) as raised:
        refuse(faults)
    return raised.value


def test_valid_input_is_typed():
    task = taken(b'{"command": ["true"], "options": {"timeout": "5m", "tags": ["a"]}}', TASK)
    assert (task.command, task.options.timeout, task.options.tags) == (["true"], "5m", ["a"])


def test_all_faults_are_listed_with_paths_and_near_names():
    body = b"""{"comand": ["a"], "cwd": 3, "env": {"A": 1},
                "options": {"timeout": "5x", "priorty": 1, "priority": "hihg", "max_retries": -1,
                            "tags": ["", 7],
                            "retry_backoff": {"kind": "slow", "base": []}}}"""
    problem = refused(body, TASK)
    assert problem.status == 400
    messages = {fault.path: fault.message for fault in problem.faults}
    assert set(messages) == {
        "comand", "cwd", "env.A", "options.timeout", "options.priorty", "options.priority",
        "options.max_retries", "options.tags[0]", "options.tags[1]",
        "options.retry_backoff.kind", "options.retry_backoff.base",
    }  # fmt: skip
    assert "did you mean 'command'" in messages["comand"]
    assert "did you mean 'priority'" in messages["options.priorty"]
    assert "did you mean 'high'" in messages["options.priority"]
    assert "90s" in messages["options.timeout"]


def test_paths_in_a_batch():
    body = b'{"tasks": [{"command": ["a"]}, {"command": "a", "options": {"timeout": {}}}, {"workflow_id": "x"}]}'
    problem = refused(body, BATCH)
    assert problem.status == 400
    assert [(f.path, f.kind) for f in problem.faults] == [
        ("tasks[1].command", "invalid"),
        ("tasks[1].options.timeout", "invalid"),
        ("tasks[2].workflow_id", "invalid"),
    ]


def test_a_task_in_a_task_in_a_task_is_explained_or_refused():
    for depth in (1, 50, 150, 300, 1000, 5000):
        before, after = b'{"command": ["a"], "options": {"on_completion": {"submit": ', b"}}}"
        body = before * depth + b'{"command": 5}' + after * depth
        _, faults = decode_json(body, TASK)
        assert faults, depth
        if depth <= 50:
            assert [f.path for f in faults] == ["options.on_completion.submit." * depth + "command"]


def test_patches_keep_unset_apart_from_null():
    patch = taken(b'{"cwd": null}', PATCH)
    assert patch.cwd is None
    assert patch.command is msgspec.UNSET
    problem = refused(b'{"options": {"priority": "top", "title": 5}, "command": null}', PATCH)
    assert [f.path for f in problem.faults] == ["options.priority", "options.title", "command"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"command": ["\xff"]}',
     b'{"command": ["\\ud800"]}', b"[" * 100_000, b"NaN",
     b'{"command": ["a"], "options": {"metadata": {"n": 1e999}}}', b"[]", b"null", b"3", b'{"command": ["a"]} x'],
)  # fmt: skip
def test_what_is_no_json_or_no_object_is_400(body):
    assert refused(body, TASK).status == 400


def test_strings_stand_for_numbers_in_queries():
    class Query(msgspec.Struct, forbid_unknown_fields=True):
        limit: Annotated[int, msgspec.Meta(ge=1)] = 50
        follow: bool = False

    value, faults = convert({"limit": "7", "follow": "1"}, Query, strict=False)
    assert (value, faults) == (Query(7, True), [])
    value, faults = convert({"limt": "7", "follow": "x", "limit": "0"}, Query, strict=False)
    assert value is None
    assert [f.path for f in faults] == ["limt", "follow", "limit"]


def test_what_is_right_of_a_wrong_document_is_kept():
    body = b"""{"comand": 1, "cwd": "x", "env": {"A": 1, "B": "b"},
                "options": {"timeout": "5x", "title": "T", "tags": ["a", 1],
                            "retry_backoff": {"kind": "x", "base": 2}}}"""
    task, faults = decode_json(body, TASK)
    assert len(faults) == 5
    assert (task.cwd, task.env, task.options.title) == ("x", {"B": "b"}, "T")
    assert task.options.timeout is task.options.tags is msgspec.UNSET
    assert (task.options.retry_backoff.base, task.options.retry_backoff.kind) == (2.0, msgspec.UNSET)
    assert task.options.queue == "default"
    batch, _ = decode_json(b'{"tasks": [{"command": ["a"]}, 3, {"command": "b"}]}', BATCH)
    assert batch.tasks[0] == TaskIn(["a"])
    assert batch.tasks[1] is batch.tasks[2].command is msgspec.UNSET
    assert decode_json(b"[]", TASK)[0] is None


def test_no_line_break_passes_at_an_end():
    body = b'{"command": ["a"], "options": {"timeout": "90s\\n", "queue": "q\\n", "retry_backoff": {"base": "1s\\n"}}}'
    assert [f.path for f in refused(body, TASK).faults] == [
        "options.timeout", "options.queue", "options.retry_backoff.base",
    ]  # fmt: skip


FEW = 20_000
HOSTILE = {
    "unknown fields": b"{" + b",".join(b'"x%d":0' % i for i in range(FEW)) + b"}",
    "one unknown field, as long as the body": b'{"' + b"x" * (FEW * 10) + b'":0}',
    "wrong variables": b'{"command":["a"],"env":{' + b",".join(b'"A%d":0' % i for i in range(9_999)) + b"}}",
    "wrong arguments": b'{"command":[' + b",".join([b"0"] * 9_999) + b"]}",
    "wrong tasks": b'{"tasks":[' + b",".join([b'{"a":0,"b":0}'] * 1000) + b"]}",
    "right arguments, and a wrong one": b'{"tasks":['
    + b",".join([b'{"command":[' + b'"a",' * 500 + b"0]}"] * 200)
    + b"]}",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_what_is_listed_is_bounded(body: bytes):
    decoder = BATCH if body.startswith(b'{"tasks"') else TASK
    _, faults = decode_json(body, decoder)
    assert len(faults) <= MOST_FAULTS + 2
    problem = refused(body, decoder)
    assert len(msgspec.json.encode(problem.faults)) < 30_000
    if len(faults) > MOST_FAULTS:
        assert len(problem.faults) == MOST_FAULTS + 1
        assert "there is more" in problem.faults[-1].message
        assert "many more" in problem.detail


JSON = st.sampled_from(
    [None, True, 0, -1, 1.5, 2**70, "", "x", "5m", "high", [], [""], ["a", 1], {}, {"kind": "fixed"}]
)
FIELDS = st.dictionaries(
    st.sampled_from(["command", "cwd", "env", "stdin", "options", "agent", "tasks", "x"]), JSON, max_size=5
)
OPTION_NAMES = [
    "priority",
    "timeout",
    "retry_backoff",
    "tags",
    "metadata",
    "on_failure",
    "model",
    "queue",
    "x",
]
OPTIONS = st.dictionaries(st.sampled_from(OPTION_NAMES), JSON, max_size=5)
INPUT = FIELDS | OPTIONS.map(lambda options: {"command": ["a"], "options": options})


@given(INPUT, st.sampled_from([TASK, BATCH, PATCH]))
def test_anything_is_either_taken_or_explained(value, decoder):
    found, faults = decode_json(msgspec.json.encode(value), decoder)
    if faults:
        assert found is None or isinstance(found, decoder.type)
    else:
        assert msgspec.convert(value, decoder.type) == found
