"""Writes a workflow's graph down for others to draw: for Mermaid, for Graphviz. Labels are escaped."""

from __future__ import annotations

import re
from typing import Literal

from orchestr8d.core.graph import Graph, Vertex, mark
from orchestr8d.core.picture_svg import svg

Format = Literal["mermaid", "dot", "svg"]
# Kind of state -> its states, and fill, line and text: readable on white and on black.
LOOKS = {
    "waits": (("pending", "queued"), "#eceff1", "#78909c", "#263238"),
    "runs": (("running",), "#dbeafe", "#1d72d8", "#0b3d7a"),
    "held": (("retrying", "parked", "needs_input"), "#f3e8fd", "#9334e6", "#4a148c"),
    "done": (("completed",), "#e0f2e5", "#2e8b57", "#14532d"),
    "failed": (("failed",), "#fde2e1", "#d93025", "#7f1d1d"),
    "ended": (("cancelled", "skipped"), "#fef3d6", "#b7791f", "#713f12"),
}
LOOK_OF = {state: look for look, (states, *_) in LOOKS.items() for state in states}
# More of a label is of no use in a picture.
LABEL = 60


def drawn(graph: Graph, form: Format) -> str:
    """The text of a picture."""
    if form == "mermaid":
        return mermaid(graph)
    return dot(graph) if form == "dot" else svg(graph)


def plain(text: str, most: int = LABEL) -> str:
    """A label in one line that cannot steer what draws it."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: most * 4]).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def mermaid(graph: Graph) -> str:
    """A flowchart: a subgraph for each phase, a class for each kind of state."""
    names = _mermaid_names([vertex.id for vertex in (*graph.phases, *graph.tasks)])
    lines = ["flowchart TB"]
    for phase, tasks in graph.sections():
        drawn = [f"{names[task.id]}[{_mermaid_label(task)}]:::{_look(task)}" for task in tasks]
        if phase is None:
            lines += [f"  {task}" for task in drawn]
        elif not drawn:
            lines.append(f"  {names[phase.id]}[[{_mermaid_label(phase)}]]:::{_look(phase)}")
        else:
            # The rollback is no phase: its name is nobody else's.
            lines.append(f"  subgraph {names.get(phase.id, 'rollback')}[{_mermaid_label(phase)}]")
            lines += ["    direction LR", *(f"    {task}" for task in drawn), "  end"]
    lines += [f"  {names[a]} --> {names[b]}" for a, b in graph.edges if a in names and b in names]
    seen = set(map(_look, (*graph.phases, *graph.tasks)))
    for look, (_, fill, line, text) in LOOKS.items():
        if look not in seen:
            continue
        lines.append(f"  classDef {look} fill:{fill},stroke:{line},color:{text}")
    return "\n".join(lines) + "\n"


def _look(vertex: Vertex) -> str:
    return LOOK_OF.get(vertex.status, "waits")


def _mermaid_names(ids: list[str]) -> dict[str, str]:
    """Words of Mermaid (`end`) and dashes are no names there: a prefix, and no dash."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for one in ids:
        name = stem = "n_" + one.replace("-", "_")
        count = 1
        while name in taken:
            count += 1
            name = f"{stem}_{count}"
        taken.add(name)
        names[one] = name
    return names


def _mermaid_label(vertex: Vertex) -> str:
    told = [f"{mark(vertex.status)} {vertex.id}", vertex.told]
    return '"' + "<br/>".join(_mermaid_text(text) for text in told if text) + '"'


def _mermaid_text(text: str) -> str:
    """All punctuation that could mean something is written by its number, and so is what would begin a list."""
    safe = re.sub(r"[^\w \-.,/]", _number, plain(text))
    return re.sub(r"^(\d*)([-.])", lambda m: m[1] + _number(m, 2), safe)


def _number(match: re.Match[str], group: int = 0) -> str:
    return f"#{ord(match[group])};" if match[group].isascii() else match[group]


def dot(graph: Graph) -> str:
    """Graphviz: a cluster for each phase. A point in it that is not seen stands for the phase where edges end."""
    phases = {phase.id for phase in graph.phases}
    lines = [
        f"digraph {_quoted(graph.name)} {{",
        '  graph [rankdir=LR, compound=true, fontname="sans-serif", style=rounded];',
        '  node [shape=box, style="rounded,filled", fontname="sans-serif"];',
    ]
    for phase, tasks in graph.sections():
        inner = [f"{_quoted(task.id)} [{_dot_look(task)}];" for task in tasks]
        if phase is None:
            lines += [f"  {line}" for line in inner]
            continue
        lines.append(f"  subgraph {_quoted('cluster_' + phase.id)} {{")
        lines.append(f"    label={_dot_label(phase)}; color={_quoted(LOOKS[_look(phase)][2])};")
        lines.append(f'    {_quoted(phase.id)} [shape=point, style=invis, label="", width=0];')
        lines += [*(f"    {line}" for line in inner), "  }"]
    for before, after in graph.edges:
        ends = [("ltail", before), ("lhead", after)]
        at = ", ".join(f"{name}={_quoted('cluster_' + end)}" for name, end in ends if end in phases)
        lines.append(f"  {_quoted(before)} -> {_quoted(after)}{f' [{at}]' if at else ''};")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_look(vertex: Vertex) -> str:
    _, fill, line, text = LOOKS[_look(vertex)]
    return f'label={_dot_label(vertex)}, fillcolor="{fill}", color="{line}", fontcolor="{text}"'


def _dot_label(vertex: Vertex) -> str:
    told = [f"{mark(vertex.status)} {vertex.id}", vertex.told]
    # What is between quotes may have `\n` of ours, but none of theirs.
    return '"' + "\\n".join(_quoted(text)[1:-1] for text in told if text) + '"'


def _quoted(text: str) -> str:
    escaped = plain(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
