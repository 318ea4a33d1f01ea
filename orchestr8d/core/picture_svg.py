"""Draws a workflow's graph as SVG: phases in rows by depth, in each its tasks in columns by depth, and arrows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from html import escape
from typing import NamedTuple
from unicodedata import east_asian_width

from orchestr8d.core.graph import Graph, Vertex, counted, depths, mark, summary

# A picture that shows more shows nothing: what is past these is drawn as one box with counts.
STACK = 12
COLUMNS = 24
PHASES = 150
ARROWS = 1500
# Phases of one depth side by side, before they are wrapped.
ABREAST = 6

BOX, HEIGHT, GAP, PAD, TITLE = 184, 44, 14, 14, 30
BETWEEN = 34
STYLE = """
text{font:13px system-ui,sans-serif;fill:#1f2933}.w{font-size:11px;fill:#52606d}.h{font-weight:600}
.p{fill:#f7f9fa;stroke:#b0bec5}.t{stroke-width:1.5}.a{fill:none;stroke:#78909c;stroke-width:1.4}.tip{fill:#78909c}
.waits{fill:#eceff1;stroke:#90a4ae}.runs{fill:#dbeafe;stroke:#1d72d8}.held{fill:#f3e8fd;stroke:#9334e6}
.done{fill:#e0f2e5;stroke:#2e8b57}.failed{fill:#fde2e1;stroke:#d93025}.ended{fill:#fef3d6;stroke:#b7791f}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.w{fill:#a9b4c0}.p{fill:#161b22;stroke:#3d4854}
.waits{fill:#232b33}.runs{fill:#12305a}.held{fill:#38205a}.done{fill:#143524}.failed{fill:#4a1a18}.ended{fill:#44330f}}
"""
LOOKS = {
    "running": "runs", "retrying": "held", "parked": "held", "needs_input": "held", "completed": "done",
    "failed": "failed", "cancelled": "ended", "skipped": "ended",
}  # fmt: skip


class Box(NamedTuple):
    """Where something is drawn; of a task also in which block."""

    x: float
    y: float
    width: float
    height: float
    block: int | None = None


class _Block(NamedTuple):
    """A phase with its tasks in columns; `hidden` ones are told by the box that stands for them."""

    number: int
    phase: Vertex | None
    columns: list[list[Vertex]]
    hidden: dict[str, str]

    @property
    def width(self) -> float:
        return PAD * 2 + max(len(self.columns), 1) * (BOX + BETWEEN) - BETWEEN

    @property
    def height(self) -> float:
        tallest = max(map(len, self.columns), default=0)
        return TITLE + PAD + max(tallest * (HEIGHT + GAP) - GAP, 0)


def svg(graph: Graph) -> str:
    """A picture of bounded size, for light and dark pages."""
    sections = graph.sections()
    blocks = [_block(graph, number, phase, tasks) for number, (phase, tasks) in enumerate(sections[:PHASES])]
    places: dict[str, Box] = {}
    frames: list[str] = []
    bodies: list[str] = []
    rows = list(_rows(graph, blocks))
    widest = max([320.0, *map(_across, rows)])
    y = float(PAD)
    for row in rows:
        x = PAD + (widest - _across(row)) / 2
        for block in row:
            frames += _frame(block, x, y, places)
            bodies += _tasks(block, x, y, places)
            x += block.width + BETWEEN
        y += max(block.height for block in row) + BETWEEN + 6
    if len(sections) > PHASES:
        bodies.append(f'<text x="{PAD}" y="{y}">and {len(sections) - PHASES} phases more</text>')
        y += TITLE
    arrows = [_arrow(places[a], places[b]) for a, b in _seen(graph, blocks, places)]
    name, width = escape(_short(graph.name, 60)), widest + 2 * PAD
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {y:g}" width="{width:g}" height="{y:g}" '
        f'role="img" aria-label="{name}">',
        f"<title>{name}</title><style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>',
        *frames,
        *arrows,
        *bodies,
        "</svg>",
    ]) + "\n"  # fmt: skip


def _across(row: list[_Block]) -> float:
    return sum(block.width for block in row) + BETWEEN * (len(row) - 1)


def _block(graph: Graph, number: int, phase: Vertex | None, tasks: list[Vertex]) -> _Block:
    depth = depths([task.id for task in tasks], graph.edges)
    columns: list[list[Vertex]] = []
    for task in tasks:
        at = min(depth[task.id], COLUMNS - 1)
        columns += [[] for _ in range(at + 1 - len(columns))]
        columns[at].append(task)
    hidden: dict[str, str] = {}
    for at, column in enumerate(columns):
        if len(column) > STACK:
            rest = column[STACK - 1 :]
            # No id begins with a digit.
            stands = Vertex(f"{number}.{at}", "task", None, summary([task.status for task in rest]),
                            f"{len(rest)} more", dict(Counter(task.status for task in rest)))  # fmt: skip
            hidden |= {task.id: stands.id for task in rest}
            columns[at] = [*column[: STACK - 1], stands]
    return _Block(number, phase, columns, hidden)


def _rows(graph: Graph, blocks: list[_Block]) -> Iterator[list[_Block]]:
    """The blocks by the depth of their phases, what depends on tasks of a phase counted as what depends on it."""
    names = [block.phase.id if block.phase else "" for block in blocks]
    of = {phase.id: phase.id for phase in graph.phases}
    of |= {task.id: task.phase or "" for task in graph.tasks}
    depth = depths(names, ((of[a], of[b]) for a, b in graph.edges if a in of and b in of))
    rows: dict[int, list[_Block]] = {}
    last = max(depth.values(), default=0) + 1
    known = {phase.id for phase in graph.phases}
    for name, block in zip(names, blocks, strict=True):
        rows.setdefault(depth[name] if name in known else last, []).append(block)
    for _, row in sorted(rows.items()):
        for start in range(0, len(row), ABREAST):
            yield row[start : start + ABREAST]


def _frame(block: _Block, x: float, y: float, places: dict[str, Box]) -> Iterator[str]:
    if block.phase is not None:
        phase = block.phase
        places[phase.id] = Box(x, y, block.width, block.height)
        head = f"{mark(phase.status)} {phase.id}" + (f": {phase.title}" if phase.title else "")
        title, name = _clean(f"{head} ({phase.status})"), _short(head, int(block.width / 8) - 3)
        yield (
            f"<g><title>{escape(title)}</title>"
            f'<rect class="p" x="{x:g}" y="{y:g}" width="{block.width:g}" height="{block.height:g}" rx="8"/>'
            f'<text class="h" x="{x + PAD:g}" y="{y + 20:g}">{escape(name)}</text></g>'
        )


def _tasks(block: _Block, x: float, y: float, places: dict[str, Box]) -> Iterator[str]:
    for at, column in enumerate(block.columns):
        for row, task in enumerate(column):
            box = Box(x + PAD + at * (BOX + BETWEEN), y + TITLE + row * (HEIGHT + GAP), BOX, HEIGHT,
                      block.number)  # fmt: skip
            places[task.id] = box
            yield _task(task, box)


def _task(task: Vertex, box: Box) -> str:
    own = not task.id[0].isdigit()
    head = f"{mark(task.status)} {task.id}" if own else task.title
    told = task.told if own else counted(task.counts)
    said = "\n".join(filter(None, [f"{head} ({task.status})" if own else head, told]))
    return (
        f"<g><title>{escape(_clean(said))}</title>"
        f'<rect class="t {LOOKS.get(task.status, "waits")}" x="{box.x:g}" y="{box.y:g}" width="{BOX}" '
        f'height="{HEIGHT}" rx="6"/>'
        f'<text x="{box.x + 10:g}" y="{box.y + 19:g}">{escape(_short(head, 23))}</text>'
        f'<text class="w" x="{box.x + 10:g}" y="{box.y + 35:g}">{escape(_short(told, 27))}</text></g>'
    )


def _seen(graph: Graph, blocks: list[_Block], places: dict[str, Box]) -> list[tuple[str, str]]:
    """The edges between what is drawn, each once."""
    stands: dict[str, str] = {}
    for block in blocks:
        stands |= block.hidden
    edges = ((stands.get(a, a), stands.get(b, b)) for a, b in graph.edges)
    seen = dict.fromkeys((a, b) for a, b in edges if a in places and b in places and a != b)
    return list(seen)[:ARROWS]


def _arrow(a: Box, b: Box) -> str:
    """From side to side within a phase, else from the bottom to the top."""
    if a.block is not None and a.block == b.block:
        x1, y1, x2, y2 = a.x + a.width, a.y + a.height / 2, b.x, b.y + b.height / 2
        bend = max((x2 - x1) / 2, 12)
        curve = f"C{x1 + bend:g} {y1:g} {x2 - bend:g} {y2:g} {x2:g} {y2:g}"
    else:
        x1, y1, x2, y2 = a.x + a.width / 2, a.y + a.height, b.x + b.width / 2, b.y
        bend = max(abs(y2 - y1) / 2, 16)
        curve = f"C{x1:g} {y1 + bend:g} {x2:g} {y2 - bend:g} {x2:g} {y2:g}"
    return f'<path class="a" marker-end="url(#tip)" d="M{x1:g} {y1:g}{curve}"/>'


def _clean(text: str) -> str:
    """What XML may not have is left out; lines stay."""
    return "".join(c for c in text[:2000] if c.isprintable() or c == "\n")


def _short(text: str, most: int) -> str:
    """One line of so many characters at most, where a wide one counts twice."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[:2000]).split())
    room = most
    for at, c in enumerate(line):
        room -= 2 if east_asian_width(c) in "WF" else 1
        if room < 0:
            return line[: max(at - 1, 1)] + "…"
    return line
