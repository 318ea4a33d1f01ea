"""The pure parts of `orchestr8d workflow`: what is typed as what is sent, what happens as what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from orchestr8d.cli import exits
from orchestr8d.cli.workflow import workflow
from orchestr8d.cli.workflow_run import parse, read
from orchestr8d.client import workflow_requests as requests

PARAMS = {
    "s": {"type": "string"}, "i": {"type": "integer"}, "n": {"type": "number"}, "b": {"type": "boolean"},
    "l": {"type": "list"}, "told": {"default": 3}, "listed": {"default": ["x"]}, "word": {"enum": ["a", "b"]},
    "bare": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("pairs", "values"),
    [
        (["s=a=b"], {"s": "a=b"}),
        (["s=12", "bare=true", "word=1", "unknown=2"], {"s": "12", "bare": "true", "word": "1", "unknown": "2"}),
        (["s="], {"s": ""}),
        (["i=-3", "n=1.5", "told=4"], {"i": -3, "n": 1.5, "told": 4}),
        (["b=Yes"], {"b": True}),
        (["b=0"], {"b": False}),
        (["l=a, b,,c"], {"l": ["a", "b", "c"]}),
        (["l=a", "l=b,c"], {"l": ["a", "b", "c"]}),
        (['l=["a,b", 2]', "listed=[x"], {"l": ["a,b", 2], "listed": ["[x"]}),
        (["l="], {"l": []}),
    ],
)
def test_parameters_by_their_types(pairs: list[str], values: dict[str, Any]) -> None:
    found = parse(pairs, PARAMS)
    assert found == values and [type(v) for v in found.values()] == [type(v) for v in values.values()]


@pytest.mark.parametrize("pairs", [["s"], ["=1"], ["i=1.5"], ["n=much"], ["n=nan"], ["b=maybe"], ["s=1", "s=2"]])
def test_parameters_that_are_none(pairs: list[str]) -> None:
    with pytest.raises(click.UsageError, match="-p"):
        parse(pairs, PARAMS)


def test_what_a_source_is(tmp_path: Path) -> None:
    assert read("add-feature") is None
    file = tmp_path / "x.yaml"
    file.write_text("name: x\nphases: [{id: on}]\n")
    assert read(str(file)) == {"name": "x", "phases": [{"id": "on"}]}
    for name, text, wrong in [
        ("a.json", "{,", "Expecting"),
        ("b.yaml", "a: [", "line 2"),
        ("c.yaml", "- x", "mapping"),
    ]:
        file = tmp_path / name
        file.write_text(text)
        with pytest.raises(exits.Exit, match=wrong):
            read(str(file))
    with pytest.raises(FileNotFoundError):
        read("gone.yaml")


def test_every_verb_has_an_example() -> None:
    assert set(workflow.commands) == {
        "run", "list", "show", "graph", "cancel", "pause", "resume", "retry", "signal", "approve", "reject", "report",
        "templates",
    }  # fmt: skip
    for name, command in workflow.commands.items():
        assert f"Example: orchestr8d workflow {name}" in (command.epilog or ""), name
        assert any("--json" in param.opts for param in command.params), name


def test_requests_are_data() -> None:
    assert requests.status("a/b", 2, until_final=True).target == "/api/v1/workflows/a%2Fb/status?wait=2.000&until=final"
    assert requests.workflows(5, status=["running", "blocked"], tag=["x"]).target == (
        "/api/v1/workflows?status=running%2Cblocked&tag=x&limit=5"
    )
    sent = requests.signal("w", "go", None)
    assert (sent.target, sent.body, sent.repeatable) == ("/api/v1/workflows/w/signals/go", b"null", False)
    made = requests.start({"template": "t", "definition": None}, "key")
    assert json.loads(made.body or b"") == {"template": "t"} and made.repeatable
    assert not requests.retry("w", "p").repeatable and json.loads(requests.retry("w", "p").body or b"") == {"from": "p"}
    assert requests.graph("w", "svg").text and not requests.graph("w", "json").text
