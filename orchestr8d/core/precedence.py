"""What comes before what in a definition, by the dependencies of its tasks and phases; and what goes in circles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestr8d.core.workflow import Phase

# A dependency: the id of who depends, and what it names.
Declared = tuple[str, str]


class Precedence:
    """A phase has two nodes: its begin, for which its tasks wait, and its end, which waits for all of them. Sets of
    nodes are the bits of a number, so that those of 5,000 tasks in a chain take some megabytes."""

    def __init__(self, phases: Sequence[Phase]) -> None:
        """Each id is there once; names that nobody has are passed over."""
        self._names: list[str] = []
        self._needs: list[list[int]] = []
        self._declared: dict[tuple[int, int], Declared] = {}
        self._begins: dict[str, int] = {}
        # What is meant by an id that others name: a task, or the end of a phase.
        self._nodes: dict[str, int] = {}
        for phase in phases:
            self._begins[phase.id] = self._node(phase.id)
            self._nodes[phase.id] = self._node(phase.id)
            for step in phase.tasks:
                self._nodes[step.id] = self._node(step.id)
        for phase in phases:
            self._connect(phase)
        self.cycles = list(self._circles())
        self._before = self._ancestors()

    def _node(self, name: str) -> int:
        self._names.append(name)
        self._needs.append([])
        return len(self._names) - 1

    def _connect(self, phase: Phase) -> None:
        begin, end = self._begins[phase.id], self._nodes[phase.id]
        self._needs[end].append(begin)
        self._declare(begin, phase.id, phase.depends_on)
        for step in phase.tasks:
            node = self._nodes[step.id]
            self._needs[node].append(begin)
            self._needs[end].append(node)
            self._declare(node, step.id, step.depends_on)

    def _declare(self, node: int, name: str, depends_on: Sequence[str]) -> None:
        for other in depends_on:
            needed = self._nodes.get(other)
            if needed is not None:
                self._needs[node].append(needed)
                self._declared.setdefault((node, needed), (name, other))

    def comes_before(self, other: str, id: str) -> bool:  # noqa: A002
        """Whether the task `other`, or all of the phase, is over before the task `id`, or the first of the phase,
        begins. Always, of what goes in circles or waits for that."""
        node = self._begins.get(id, self._nodes.get(id))
        if node is None or other not in self._nodes:
            return False
        before = self._before[node]
        return before is None or bool(before >> self._nodes[other] & 1)

    def _ancestors(self) -> list[int | None]:
        """Of each node all those before it; None where there is no telling."""
        before: list[int | None] = [None] * len(self._needs)
        for node in self._in_order():
            mask = 0
            for needed in self._needs[node]:
                mask |= (before[needed] or 0) | 1 << needed
            before[node] = mask
        return before

    def _in_order(self) -> Iterator[int]:
        """Each node after all that it needs, without those in circles and behind them."""
        needed_by: list[list[int]] = [[] for _ in self._needs]
        left = [0] * len(self._needs)
        for node, needs in enumerate(self._needs):
            for needed in set(needs):
                needed_by[needed].append(node)
                left[node] += 1
        ready = [node for node, count in enumerate(left) if not count]
        while ready:
            node = ready.pop()
            yield node
            for other in needed_by[node]:
                left[other] -= 1
                if not left[other]:
                    ready.append(other)

    def _circles(self) -> Iterator[tuple[Declared, list[str]]]:
        """Of each knot of nodes that all wait for one another one circle, and where a part of it is declared."""
        for knot in _knots(self._needs):
            inside = set(knot)
            way: dict[int, int] = {}
            node = knot[0]
            while node not in way:
                way[node] = next(needed for needed in self._needs[node] if needed in inside)
                node = way[node]
            circle = [node]
            while way[circle[-1]] != node:
                circle.append(way[circle[-1]])
            edges = [(a, way[a]) for a in circle]
            first = next(n for n, edge in enumerate(edges) if edge in self._declared)
            names = [self._names[a] for a, _ in edges[first:] + edges[:first]]
            shown = [name for n, name in enumerate(names) if not n or name != names[n - 1]]
            closed = shown if len(shown) > 1 and shown[-1] == names[0] else [*shown, names[0]]
            yield self._declared[edges[first]], closed


def _knots(needs: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The strongly connected components with a circle in them (Tarjan's algorithm, without recursion)."""
    seen: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    on_stack: set[int] = set()
    for root in range(len(needs)):
        if root in seen:
            continue
        work: list[tuple[int, Iterator[int]]] = []

        def enter(node: int, work: list[tuple[int, Iterator[int]]] = work) -> None:
            seen[node] = low[node] = len(seen)
            stack.append(node)
            on_stack.add(node)
            work.append((node, iter(needs[node])))

        enter(root)
        while work:
            node, rest = work[-1]
            for needed in rest:
                if needed not in seen:
                    enter(needed)
                    break
                if needed in on_stack:
                    low[node] = min(low[node], seen[needed])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == seen[node]:
                    knot: list[int] = []
                    while not knot or knot[-1] != node:
                        knot.append(stack.pop())
                        on_stack.discard(knot[-1])
                    if len(knot) > 1 or node in needs[node]:
                        yield knot[::-1]
