"""Writes docs/templates.md from the built-in templates: `python -m tests.gallery`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from orchestr8d.core.graph import of_definition
from orchestr8d.core.pictures import mermaid
from orchestr8d.core.workflow import Definition, Param, Phase, Step
from orchestr8d.templates import Template, Templates

PAGE = Path(__file__).parent.parent / "docs" / "templates.md"
INTRO = """# Templates of workflows

<!-- Written by `python -m tests.gallery` from orchestr8d/templates/: change those. -->

These workflows come along. Each is started by its name, with its parameters:

```sh
orchestr8d workflow templates                # all of them, yours too
orchestr8d workflow templates research       # one: parameters, phases
orchestr8d workflow run research -p question='Which stores keep a queue on one disk?' --follow
orchestr8d workflow run add-feature -p feature='export as CSV' --dry-run      # what would be done
```

Every role in them comes along as an agent, too; an agent of yours that has the name wins ([agents](agents.md)). What
runs tests or changes more than files (a push, a deployment) is a parameter, and off by default. What agents may use
without asking is said by `[runners.claude] permission_mode` and `allowed_tools` ([configuration](configuration.md)):
for work on code allow the commands that build and test it, for research `WebSearch` and `WebFetch`. What was denied the
agents do without (`allow_denied`). To change a template, copy its file
([orchestr8d/templates/](../orchestr8d/templates)) into a directory of `[workflows] paths`: yours wins. How they are
written is on the page about [workflows](workflows.md).

| template | needs | does |
| --- | --- | --- |
"""


def page() -> str:
    """The page as it should be."""
    found, _ = Templates(list, None).listed()
    rows = [f"| [{one.name}](#{one.name}) | {needed(one)} | {cell(first_sentence(one))} |\n" for one in found]
    return INTRO + "".join(rows) + "".join(map(section, found))


def needed(one: Template) -> str:
    return ", ".join(f"`{name}`" for name, param in one.params.items() if param.required)


def first_sentence(one: Template) -> str:
    return " ".join(one.description.split()).partition(". ")[0].rstrip(".")


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def section(one: Template) -> str:
    rows = [f"| `{name}` | {p.type} | {default(p)} | {meaning(p)} |\n" for name, p in one.params.items()]
    return (
        f"\n## {one.name}\n\n{' '.join(one.description.split())}\n\n"
        f"| parameter | type | default | means |\n| --- | --- | --- | --- |\n{''.join(rows)}\n"
        f"```mermaid\n{mermaid(of_definition(planned(one.definition)))}```\n"
    )


def default(param: Param) -> str:
    if param.required:
        return "required"
    return f"`{msgspec.json.encode(param.default).decode()}`"


def meaning(param: Param) -> str:
    words = f"one of {', '.join(f'`{word}`' for word in param.enum)}" if param.enum else ""
    return cell("; ".join(part for part in (param.description or "", words) if part))


def planned(raw: dict[str, Any]) -> Definition:
    """What of a definition is drawn, as it was written: its agents are not looked for."""
    phases = [
        Phase(one["id"], one.get("title"), one.get("depends_on", []), tasks=[step(task) for task in one["tasks"]])
        for one in raw["phases"]
    ]
    return Definition(raw["name"], phases=phases, on_failure=[step(task) for task in raw.get("on_failure", [])])


def step(task: dict[str, Any]) -> Step:
    fields = {name: task[name] for name in ("depends_on", "for_each", "approval", "workflow") if name in task}
    return Step(task["id"], task=task, **fields)


if __name__ == "__main__":
    PAGE.write_text(page())
