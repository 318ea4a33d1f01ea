"""Pictures of workflows: whatever is in their labels, what comes out is well-formed; and its size is bounded."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from orchestr8d.core import pictures
from orchestr8d.core.graph import Graph, Vertex, depths, of_definition, of_view
from orchestr8d.core.picture_svg import svg
from orchestr8d.core.workflow import Definition, Phase, Step
from tests.core.views import view

DEFINITION = Definition(
    name="Ship <it> & \"more\"",
    phases=[
        Phase("end", title='1. a "title" [x] --> y', tasks=[
            Step("plan", task={"agent": "architect", "prompt": "p"}),
            Step("topics", for_each="x", depends_on=["plan"], task={"agent": ["a", "b"], "prompt": "p"}),
        ]),
        Phase("go-on", depends_on=["end"], tasks=[
            Step("a-b", task={"command": ["sh", "-c", "echo ']]' | cat"]}),
            Step("a_b", approval="Ship\n{{ params.x }}? %%{init: {}}%% </text>", depends_on=["a-b", "plan"]),
        ]),
        Phase("empty", depends_on=["go-on"]),
    ],
    on_failure=[Step("undo", task={"command": ["./undo"]})],
)  # fmt: skip
LABELS = [
    "end", 'say "hi"', "a[b](c){d}", "a\nb\r\tc", "`code`", "<script>alert(1)</script>", "&amp; #35; #quot;",
    "%%{init}%%", "back\\slash \\N \\", "ünïcode 日本語 🚀", "\x1b[2Jx\x00\x07", "\u202eabc", "style a:#f;b",
    "- list", "12. list", "x" * 5000, "subgraph z", "a --> b", ":::failed", "\ufffe]]>", "", " ",
]  # fmt: skip


def test_the_graph_is_what_was_declared() -> None:
    seen = of_view(view(DEFINITION, {
        "plan": {"status": "completed"}, "topics": {"status": "running"}, "topics.0": {"status": "completed"},
        "topics.1": {"status": "completed"}, "topics.2": {"status": "failed"},
    }))  # fmt: skip
    assert seen.edges == [("end", "go-on"), ("go-on", "empty"), ("plan", "topics"), ("a-b", "a_b"), ("plan", "a_b")]
    assert [phase.id for phase in seen.phases] == ["end", "go-on", "empty"]
    tasks = {task.id: task for task in seen.tasks}
    assert list(tasks) == ["plan", "topics", "a-b", "a_b", "undo"]  # a fan is one
    assert (seen.phases[0].status, tasks["plan"].status, tasks["undo"].phase) == ("running", "completed", "on_failure")
    assert tasks["topics"].counts == {"completed": 2, "failed": 1}
    planned = of_definition(DEFINITION)
    assert planned.edges == seen.edges and [task.id for task in planned.tasks] == list(tasks)
    assert {one.status for one in (*planned.phases, *planned.tasks)} == {"pending"}


def test_mermaid_and_dot_have_the_same_parts() -> None:
    graph = of_view(view(DEFINITION, {"plan": {"status": "completed"}}))
    lines = pictures.mermaid(graph).splitlines()
    assert lines[0] == "flowchart TB"
    assert 'subgraph n_end["● end<br/>1#46; a #34;title#34; #91;x#93; --#62; y"]' in lines[1]
    assert '    n_plan["✓ plan<br/>architect"]:::done' in lines
    assert lines.count("  end") == 3 and sum("subgraph" in line for line in lines) == 3  # one is the rollback's
    # Two ids that differ by a dash only stay two.
    assert "  n_a_b --> n_a_b_2" in lines and "  n_end --> n_go_on" in lines
    text = pictures.dot(graph)
    assert text.count("{") == text.count("}") and text.count("subgraph") == 4
    assert '  "end" -> "go-on" [ltail="cluster_end", lhead="cluster_go-on"];' in text
    assert '  "plan" -> "a_b";' in text and '"plan" [label="✓ plan\\narchitect"' in text


@pytest.mark.parametrize("label", LABELS, ids=range(len(LABELS)))
def test_labels_are_only_labels(label: str) -> None:
    tasks = [Vertex("t", "task", "p", "running", label), Vertex("end", "task", None, "failed", label)]
    graph = Graph(label, [Vertex("p", "phase", None, "running", label)], tasks, [("t", "end")])
    for line in pictures.mermaid(graph).splitlines():
        assert re.fullmatch(
            r'flowchart TB|  end|    direction LR|  subgraph n_p\["[^"]*"\]| +n_\w+\["[^"]*"\]:::\w+'
            r"|  n_t --> n_end|  classDef .*", line
        ), line  # fmt: skip
        assert not re.search(r'"[^"]*[`{}\[\]()%:\\&][^"]*"', line) and not re.search(r"<(?!br/>)", line)
    # Outside of strings Graphviz sees the same, whatever the label.
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', "S", pictures.dot(graph))
    assert bare == re.sub(r'"(?:[^"\\]|\\.)*"', "S", pictures.dot(_named(graph, "x")))
    assert not re.search(r'\\(?!["\\n])', pictures.dot(graph).replace("\\\\", ""))
    root = ElementTree.fromstring(svg(graph))
    assert [child.tag.partition("}")[2] for child in root.iter()].count("rect") == 3
    assert "script" not in {child.tag.partition("}")[2] for child in root.iter()}
    assert max(map(len, pictures.mermaid(graph).splitlines())) < 600


def _named(graph: Graph, name: str) -> Graph:
    title = name if graph.tasks[0].title.strip() else ""
    return Graph(name, [Vertex("p", "phase", None, "running", title)],
                 [Vertex("t", "task", "p", "running", title), Vertex("end", "task", None, "failed", title)],
                 graph.edges)  # fmt: skip


def test_svg_is_laid_out_from_top_to_bottom() -> None:
    root = ElementTree.fromstring(svg(of_definition(DEFINITION)))
    space = {"s": "http://www.w3.org/2000/svg"}
    boxes = [(float(r.get("x", "")), float(r.get("y", "")), r.get("class")) for r in root.iterfind(".//s:rect", space)]
    phases = [box for box in boxes if box[2] == "p"]
    assert [y for _, y, _ in phases] == sorted({y for _, y, _ in phases}) and len(phases) == 4
    (plan_x, plan_y, _), (topics_x, topics_y, _) = [box for box in boxes if box[2] != "p"][:2]
    assert topics_x > plan_x and topics_y == plan_y
    assert len(root.findall("./s:path", space)) == 5
    assert "prefers-color-scheme:dark" in (root.findtext("s:style", "", space))


@pytest.mark.parametrize("shape", ["wide", "chain", "phases"])
def test_a_picture_is_bounded(shape: str) -> None:
    many = range(5000)
    phases = [Vertex(f"p{i}", "phase", None, "running") for i in (many if shape == "phases" else range(1))]
    tasks = [Vertex(f"t{i}", "task", f"p{i}" if shape == "phases" else "p0", "completed") for i in many]
    ends = "p" if shape == "phases" else "t"
    edges = [] if shape == "wide" else [(f"{ends}{i}", f"{ends}{i + 1}") for i in range(4999)]
    text = svg(Graph("big", phases, tasks, edges))
    assert len(text) < 250_000
    assert f"{5000 - 150} phases more" in text if shape == "phases" else "more" in text and "completed" in text
    ElementTree.fromstring(text)


def test_depths() -> None:
    assert depths("abcd", [("a", "b"), ("b", "d"), ("a", "c"), ("c", "d"), ("a", "d"), ("x", "a")]) == {
        "a": 0, "b": 1, "c": 1, "d": 2,
    }  # fmt: skip
    # Phases may stand in a circle, though their tasks do not.
    assert depths("abc", [("a", "b"), ("b", "a"), ("b", "c")]) == {"a": 0, "b": 1, "c": 2}
