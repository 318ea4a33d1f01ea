"""The templates: the registry over files that change, and what holds for each built-in one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestr8d.agents import SHIPPED
from orchestr8d.core import definition
from orchestr8d.core.definition import Bounds
from orchestr8d.core.errors import Problem
from orchestr8d.core.submit import Policy
from orchestr8d.core.workflow import Param
from orchestr8d.templates import BUILT_IN, Templates

NAMES = (
    "add-feature", "benchmark", "deploy", "discover-patterns", "explore-alternatives", "new-project", "research",
    "review-pr", "validate-assumptions",
)  # fmt: skip
TEMPLATES = Templates(list, None)
EXAMPLES: dict[str, Any] = {"string": "x", "integer": 1, "number": 1.5, "boolean": True, "list": ["x"]}
OWN = "name: mine\nparams: {what: {required: true}, deep: {default: 2}}\nphases: [{id: one}, {id: two}]\n"


def steps(definition: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for phase in definition["phases"]:
        yield from phase["tasks"]
    yield from definition.get("on_failure", [])


# --- the registry


def test_the_built_in_ones_are_there() -> None:
    found, ignored = TEMPLATES.listed()
    assert (tuple(t.name for t in found), tuple(TEMPLATES.names()), ignored) == (NAMES, NAMES, [])
    assert {Path(t.path) for t in found} == set(BUILT_IN.glob("*.yaml"))
    with pytest.raises(Problem, match=r"no template 'reserch' \(did you mean 'research'\?\)") as refused:
        TEMPLATES.get("reserch")
    assert refused.value.kind == "not-found"


def test_files_of_the_configured_directories_are_read_again_when_they_change(tmp_path: Path) -> None:
    first, second, paths = tmp_path / "first", tmp_path / "second", ["~/first", str(tmp_path / "second")]
    for directory in (first, second):
        directory.mkdir()
    templates = Templates(lambda: paths, tmp_path)
    assert tuple(templates.names()) == NAMES
    (first / "a.yaml").write_text(OWN)
    (first / "notes.yml").write_text("name: no-template\n")
    mine = templates.template("mine")
    assert mine.params == {"what": Param(required=True), "deep": Param("integer", default=2)}
    assert (mine.phases, mine.path, mine.definition["name"]) == (["one", "two"], str(first / "a.yaml"), "mine")
    assert templates.template("mine") is mine, "it was read again, unchanged"
    (first / "a.yaml").write_text(OWN.replace("name: mine", "name: yours"))
    assert tuple(templates.names()) == (*NAMES[:-1], NAMES[-1], "yours")
    # A user's own wins over what is built in, and of two the first directory's.
    (first / "b.yaml").write_text("name: deploy\ndescription: ours\n")
    (second / "c.yaml").write_text("name: deploy\ndescription: not seen\n")
    found, ignored = templates.listed()
    assert [t.description for t in found if t.name == "deploy"] == ["ours"]
    assert ignored == [f"{second / 'c.yaml'}: {first / 'b.yaml'} has the same name 'deploy'"]
    paths.clear()
    assert templates.template("deploy").path == str(BUILT_IN / "deploy.yaml")


def test_a_faulty_file_is_named_and_breaks_no_other(tmp_path: Path) -> None:
    templates = Templates(lambda: [str(tmp_path), str(tmp_path / "gone")], None)
    faulty = {
        "bomb": ("a: !!python/object:os.system {}", "line 1: the tag !!python/object:os.system is not read"),
        "empty": ("", "expected `object`, got `null`"),
        "nameless": ("phases: []", "name: required, but missing"),
        "open": ("name: [", "line 2: while parsing a flow node"),
        "params": ("name: x\nparams: {n: {type: integer, default: no}}", "params.n.default: expected a whole number"),
        "phases": ("name: x\nphases: [{id: 1a}]\nfazes: 1", "phases[0].id: "),
    }
    for name, (text, _) in faulty.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "queue.yaml").symlink_to("/dev/zero")
    (tmp_path / "well.yaml").write_text(OWN)
    found, ignored = templates.listed()
    assert [t.name for t in found] == sorted((*NAMES, "mine"))
    for line, (name, (_, fault)) in zip(ignored, faulty.items(), strict=False):
        assert line.startswith(f"{tmp_path / name}.yaml: {fault}"), line
    assert ignored[len(faulty) :] == [
        f"{tmp_path / 'queue.yaml'}: is no regular file",
        f"{tmp_path / 'gone'}: cannot be read: No such file or directory",
    ]
    (tmp_path / "open.yaml").write_text("name: opened\n")
    assert "opened" in templates.names()


# --- the built-in templates


@pytest.mark.parametrize("name", NAMES)
def test_a_built_in_template_is_complete(name: str) -> None:
    template = TEMPLATES.template(name)
    definition, params = template.definition, template.params
    assert template.description and all(param.description for param in params.values())
    assert any(param.required for param in params.values())
    assert all(param.required or param.default is not None for param in params.values()), "a default is missing"
    # Shares follow one another, from nothing to all.
    shares = [phase["progress"] for phase in definition["phases"]]
    assert [a for a, _ in shares] == [0, *(b for _, b in shares[:-1])] and shares[-1][1] == 100
    assert definition["report_every"]
    for step in steps(definition):
        agents = step.get("agent") or []
        named = agents if isinstance(agents, list) else [agents]
        assert all("{{" in agent or (SHIPPED / f"{agent}.md").exists() for agent in named), step["id"]
        # What is checked is named in the prompt; a command comes from a parameter, or every machine has it.
        if "check" in step:
            assert step["check"][:2] == ["test", "-s"] and step["check"][2] in step["prompt"], step["id"]
        if isinstance(step.get("command"), str):
            param = re.fullmatch(r"\{\{ params\.(\w+) or \['true'\] \}\}", step["command"])[1]
            assert params[param].default == [] and f"params.{param}" in step["when"], step["id"]
        elif "command" in step:
            assert step["command"][0] in {"sh", "git", "gh"}


@pytest.mark.parametrize("name", NAMES)
def test_a_built_in_template_can_be_started(name: str) -> None:
    template = TEMPLATES.template(name)
    needed = {key: EXAMPLES[param.type] for key, param in template.params.items() if param.required}
    turned = {key: EXAMPLES[param.type] for key, param in template.params.items() if param.type in EXAMPLES}
    turned = {key: (template.params[key].enum or [value])[-1] for key, value in turned.items()}
    turned |= {key: "1h" for key in turned if key == "day"}
    for given in (needed, turned):
        checked = definition.check(template.definition, given, Policy(in_workflow=True), Bounds())
        assert checked.faults == []
        assert len(checked.drafts) == len([s for s in steps(template.definition) if "approval" not in s])
    missing = definition.check(template.definition, {}, Policy(in_workflow=True), Bounds())
    assert [fault.path for fault in missing.faults] == [f"params.{key}" for key in needed]


@pytest.mark.parametrize("name", NAMES)
def test_verdicts_are_booleans_and_scores_out_of_100(name: str) -> None:
    schemas = {step["id"]: step["json_schema"] for step in steps(TEMPLATES.get(name)) if "json_schema" in step}
    for step_id, schema in schemas.items():
        assert schema["additionalProperties"] is False and set(schema["required"]) == set(schema["properties"])
        if "score" in schema["properties"]:
            score = {key: schema["properties"]["score"][key] for key in ("type", "minimum", "maximum")}
            assert score == {"type": "integer", "minimum": 0, "maximum": 100}, step_id
    for step in steps(TEMPLATES.get(name)):
        # A gate: a command that looks at what agents have answered.
        verdict = step["command"][-1] if isinstance(step.get("command"), list) and step["command"][0] == "sh" else ""
        if "tasks." in verdict:
            for task, field in re.findall(r"tasks\.(\w+)\.output\.(\w+)", verdict):
                assert schemas[task]["properties"][field]["type"] == "boolean", step["id"]
            left = re.sub(r"tasks\.\w+\.output\.\w+|params\.ui|\b(?:and|or|not)\b|[{}()\s]", "", verdict)
            assert left == "", f"{step['id']} looks at more than verdicts"


def test_the_shapes_that_were_promised() -> None:
    def phase(name: str, phase_id: str) -> dict[str, dict[str, Any]]:
        [found] = [p for p in TEMPLATES.get(name)["phases"] if p["id"] == phase_id]
        return {task["id"]: task for task in found["tasks"]}

    reviewers = [t for t in phase("add-feature", "review").values() if "agent" in t]
    assert [t["agent"] for t in reviewers] == [
        "code-reviewer", "test-engineer", "security-auditor", "performance-analyzer", "accessibility-expert",
    ]  # fmt: skip
    assert not any("depends_on" in t for t in reviewers)
    assert [t["agent"] for t in steps(TEMPLATES.get("discover-patterns"))] == [
        "pattern-learner", "pattern-learner", "code-reviewer", "architect",
    ]  # fmt: skip
    for name in ("research", "benchmark", "validate-assumptions", "explore-alternatives"):
        [fan] = [t for t in steps(TEMPLATES.get(name)) if "for_each" in t]
        planner, field = re.fullmatch(r"tasks\.(\w+)\.output\.(\w+)", fan["for_each"]).groups()
        [schema] = [t["json_schema"] for t in steps(TEMPLATES.get(name)) if t["id"] == planner]
        assert schema["properties"][field]["type"] == "array"
    assert "when" not in phase("new-project", "architecture")["approval"]
    assert "when" not in phase("deploy", "production")["go"] and TEMPLATES.get("deploy")["on_cancel"] == "rollback"
