"""Signals in what a task asks for its end: their forms, where they are refused, when they are sent."""

import pytest

from orchestr8d.core import endings
from orchestr8d.core.decode import convert
from orchestr8d.core.submit import Policy, new_task
from orchestr8d.core.task_input import TaskIn


def asked(in_workflow, **options):
    task, faults = convert({"command": ["x"], "options": options}, TaskIn)
    assert not faults
    new = new_task(task, Policy(in_workflow=in_workflow), faults)
    return new and new.spec, [(fault.path, fault.kind) for fault in faults]


@pytest.mark.parametrize(("options", "kept", "completed", "otherwise"), [
    ({"callback_url": "/internal/a"}, [], ["a"], ["a"]),
    ({"callback_url": "/webhook/a"}, [], ["a"], ["a"]),
    ({"on_completion": "go"}, [{"signal": "go"}], ["go"], []),
    ({"on_completion": "/internal/go-ahead"}, [{"signal": "go-ahead"}], ["go-ahead"], []),
    ({"on_completion": ["notification", {"signal": "a"}, "a"]}, ["notification", {"signal": "a"}], ["a"], []),
    ({"on_completion": ["go", "callback_url"], "callback_url": "/internal/a", "on_failure": "callback"},
     [{"signal": "go"}, "callback_url"], ["a", "go"], ["a"]),
    ({"on_completion": "a", "callback_url": "/internal/a"}, [{"signal": "a"}], ["a"], ["a"]),
])  # fmt: skip
def test_signals(options, kept, completed, otherwise):
    spec, faults = asked(True, **options)
    assert not faults
    assert spec.on_completion == kept
    assert endings.shown(spec.on_completion) == kept
    assert endings.follow_ups(spec) == []
    assert endings.signals(spec, "completed") == completed
    for status in ("failed", "cancelled"):
        assert endings.signals(spec, status) == otherwise
    _, faults = asked(False, **options)
    assert faults
    assert {kind for _, kind in faults} == {"unprocessable"}


@pytest.mark.parametrize(("options", "path"), [
    ({"callback_url": "/internal/"}, "options.callback_url"),
    ({"callback_url": "/webhook/a/b"}, "options.callback_url"),
    ({"on_completion": ["/internal/a b"]}, "options.on_completion[0]"),
])  # fmt: skip
def test_names_that_are_none(options, path):
    assert asked(True, **options)[1] == [(path, "invalid")]


def test_what_follows_from_a_task_is_of_no_workflow():
    follow = {"submit": {"command": ["y"], "options": {"on_completion": "go", "callback_url": "/internal/a"}}}
    _, faults = asked(True, on_completion=["go", follow])
    assert sorted(faults) == [
        ("options.on_completion[1].submit.options.callback_url", "unprocessable"),
        ("options.on_completion[1].submit.options.on_completion", "unprocessable"),
    ]
    deep = {"submit": {"command": ["y"], "options": {"on_completion": {"submit": {"command": ["z"]}}}}}
    spec, faults = asked(True, on_completion=["go", deep, "https://example.com/"])
    assert not faults
    assert [task["command"] for task in endings.follow_ups(spec)] == [["y"]]
    assert [task["command"] for task in endings.all_follow_ups(spec.on_completion)] == [["y"], ["z"]]
