"""Decoding names every fault, with its path, a near name and its kind; valid input comes out typed."""

from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestr8d.core.decode import convert, decode_json
from orchestr8d.core.errors import Problem
from orchestr8d.core.submit import LATER, LATER_VALUES, Batch, TaskIn, TaskPatch

ALL_LATER = LATER | {f"{path}={value}" for path, value in LATER_VALUES.items()}
TASK = msgspec.json.Decoder(TaskIn)
BATCH = msgspec.json.Decoder(Batch)
PATCH = msgspec.json.Decoder(TaskPatch)


def refused(body: bytes, decoder: msgspec.json.Decoder) -> Problem:
    with pytest.raises(Problem) as raised:
        decode_json(body, decoder, later=ALL_LATER)
    return raised.value


def test_valid_input_is_typed():
    task = decode_json(b'{"command": ["true"], "options": {"timeout": "5m", "tags": ["a"]}}', TASK)
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
        "comand", "command", "cwd", "env.A", "options.timeout", "options.priorty", "options.priority",
        "options.max_retries", "options.tags[0]", "options.tags[1]",
        "options.retry_backoff.kind", "options.retry_backoff.base",
    }  # fmt: skip
    assert "did you mean 'command'" in messages["comand"]
    assert "did you mean 'priority'" in messages["options.priorty"]
    assert "did you mean 'high'" in messages["options.priority"]
    assert "90s" in messages["options.timeout"]


def test_paths_in_a_batch():
    body = b'{"tasks": [{"command": ["a"]}, {"command": "a", "options": {"timeout": {}}}, {"agent": "x"}]}'
    problem = refused(body, BATCH)
    assert problem.status == 400
    assert [(f.path, f.kind) for f in problem.faults] == [
        ("tasks[1].command", "invalid"),
        ("tasks[1].options.timeout", "invalid"),
        ("tasks[2].agent", "not-available"),
    ]


def test_what_belongs_to_a_later_version_is_422_and_nothing_else_is_missed_of_it():
    problem = refused(b'{"agent": "reviewer", "prompt": "look", "options": {"model": "m"}}', TASK)
    assert (problem.status, problem.kind) == (422, "not-available")
    assert [f.path for f in problem.faults] == ["agent", "prompt", "options.model"]
    problem = refused(b'{"command": ["a"], "options": {"on_failure": "callback"}}', TASK)
    assert (problem.status, problem.kind) == (422, "not-available")
    problem = refused(b'{"agent": "reviewer", "options": {"timeout": "x"}}', TASK)
    assert (problem.status, len(problem.faults)) == (400, 2)


def test_no_name_passes_for_a_value_of_a_later_version():
    problem = refused(b'{"command": ["a"], "options": {"on_failure=callback": 1}}', TASK)
    assert (problem.status, len(problem.faults)) == (400, 1)


def test_patches_keep_unset_apart_from_null():
    patch = decode_json(b'{"cwd": null}', PATCH)
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
    try:
        decode_json(msgspec.json.encode(value), decoder, later=ALL_LATER)
    except Problem as problem:
        assert problem.status in (400, 422)
        assert problem.faults or "valid JSON" in problem.detail
