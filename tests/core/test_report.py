"""The report of a workflow."""

from __future__ import annotations

import re

import msgspec
import pytest

from orchestr8d.core import report
from orchestr8d.core.workflow import Definition, Phase, Step
from tests.core.views import view

DEFINITION = Definition(
    name="ship_it",
    description="Ships it.",
    phases=[
        Phase("make", title="Build | test", tasks=[
            Step("plan", task={"agent": "architect", "prompt": "p"}),
            Step("parts", for_each="x", depends_on=["plan"], task={"command": ["make", "a|b"]}),
        ]),
        Phase("tell", depends_on=["make"], tasks=[
            Step("sum", task={"agent": "writer", "prompt": "p"}),
            Step("ok", approval="Ship?"),
        ]),
    ],
    on_failure=[Step("undo", task={"command": ["./undo"]}), Step("more", task={"command": ["x"]})],
)  # fmt: skip
DONE = {"status": "completed", "started_at": 1000, "completed_at": 66_000}


def error(kind: str, message: str) -> str:
    return msgspec.json.encode({"kind": kind, "message": message}).decode()


def headings(text: str) -> list[str]:
    """Those that a reader of Markdown sees: what stands in a fence is none."""
    found, fence = [], ""
    for line in text.splitlines():
        mark = re.match(r"`{3,}", line)
        if fence:
            fence = "" if line == fence else fence
        elif mark:
            fence = mark[0]
        elif line.startswith("#"):
            found.append(line)
    assert not fence
    return found


def test_what_a_report_tells() -> None:
    usage = msgspec.json.encode({"input_tokens": 1000, "output_tokens": 20, "cost_usd": 0.5}).decode()
    text = report.markdown(view(
        DEFINITION,
        {
            "plan": DONE | {"usage": usage, "result": b'{"a": 1}', "result_type": "json"},
            "parts": DONE | {"result": b"[1]"},
            "parts.0": DONE | {"result": b"one", "round": 2, "spec": '{"command": ["make", "a|b"]}'},
            "sum": DONE | {"result": b"All is **well**."}, "ok": DONE | {"result": b"fine by me"},
            "undo": {"status": "skipped"}, "more": {"status": "skipped"},
        },
        status="completed", started_at=0, completed_at=3_700_000, params='{"what": "a|b <x>", "n": [1, 2]}',
        milestones='[{"text": "half *way*", "at": 61000}]', tags='["nightly"]', template="tpl",
    ))  # fmt: skip
    assert headings(text) == [
        "# ship_it: completed", "## Answer", "## About", "## What was asked", "## Milestones",
        "## Phase make: Build \\| test", "### plan", "### parts.0", "## Phase tell", "### ok",
    ]  # fmt: skip
    # The answer first, and only there; a fan's result is its children's; a person's word is no answer.
    assert text.index("All is **well**.") < text.index("## About") and text.count("All is") == 1
    assert '```json\n{"a": 1}\n```' in text and "| took | 1h01m |" in text and "| cost | $1.25 |" in text
    assert "| tokens | 1,000 in, 20 out |" in text and "| tags | nightly |" in text
    assert "- **what**: a\\|b \\<x\\>\n- **n**: \\[1,2\\]" in text
    assert "- 1970-01-01T00:01:01.000Z half \\*way\\*" in text
    assert "| plan | ✓ completed | 1m05s | $0.50 | architect |" in text
    assert "| parts.0 | ✓ completed (round 2) | 1m05s |  | make 'a\\|b' |" in text


def test_what_a_report_of_a_failure_tells() -> None:
    text = report.markdown(view(
        DEFINITION,
        {
            "plan": DONE | {"result": b"the plan"},
            "parts": {"status": "failed", "error": error("exit", "exit code 2\n# no heading")},
            "sum": {"status": "failed", "error": error("dependency_failed", "x")},
            "ok": {"status": "failed", "error": error("dependency_failed", "x")},
            "undo": DONE | {"result": b"undone"}, "more": {"status": "skipped"},
        },
        status="failed",
    ))  # fmt: skip
    assert headings(text) == [
        "# ship_it: failed", "## What failed", "## Last result", "## About",
        "## Phase make: Build \\| test", "### parts", "## Phase tell", "## What was rolled back", "### undo",
    ]  # fmt: skip
    assert "- **parts**: exit: exit code 2 \\# no heading\n- cut off by that: sum, ok" in text
    assert "**plan**\n\n```\nthe plan\n```" in text and "undone" in text


@pytest.mark.parametrize(
    "result",
    [
        "```\n# rogue",
        "````md\n```\n# rogue\n````",
        "~~~\n# rogue",
        "`" * 50 + "\n# rogue",
        "\n# rogue\n",
        "\x1b[2J\x00# rogue",
    ],
)
def test_results_do_not_break_out(result: str) -> None:
    text = report.markdown(view(DEFINITION, {"sum": DONE | {"result": result.encode()}}, status="completed"))
    assert not any("rogue" in heading for heading in headings(text)) and "# rogue" in text
    assert "\x1b" not in text and "\x00" not in text


def test_a_report_is_bounded() -> None:
    many = [Step(f"t{i}", task={"command": ["x"]}) for i in range(3000)]
    fan, end = Step("fan", for_each="x", task={"command": ["x"]}), Step("end", task={"command": ["x"]})
    plan = Definition("big", phases=[Phase("p", tasks=[*many, fan]), Phase("q", depends_on=["p"], tasks=[end])])
    stands = {f"t{i}": DONE | {"result": "ä".encode() * 40_000} for i in range(3000)}
    stands |= {f"fan.{i}": DONE for i in range(1000)} | {"fan": DONE, "end": DONE | {"result": b"e" * 100_000}}
    text = report.markdown(view(plan, stands, status="completed"))
    assert len(text) < 2_000_000 and "950 children more" in text
    assert "*34,464 bytes more.*" in text and "*80,000 bytes, left out.*" in text
