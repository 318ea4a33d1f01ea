"""What a template names, told from its parsed tree: `tasks.plan.output.topics` and the like, without any values."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from jinja2 import nodes
from msgspec import Struct


class Use(Struct, frozen=True):
    """A name with the keys behind it, as far as they are written there: of `a.b[c].d` it is `a` and `b`. `more`:
    whether others follow that are not."""

    name: str
    keys: tuple[str | int, ...] = ()
    more: bool = False


class References(Struct, frozen=True):
    """The tasks and signals that a value's templates name, and every name that they see."""

    tasks: frozenset[str] = frozenset()
    signals: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()

    @staticmethod
    def of(uses: Collection[Use]) -> References:
        def behind(name: str) -> frozenset[str]:
            return frozenset(str(use.keys[0]) for use in uses if use.name == name and use.keys)

        return References(behind("tasks"), behind("signals"), frozenset(use.name for use in uses))

    def __or__(self, other: References) -> References:
        return References(self.tasks | other.tasks, self.signals | other.signals, self.names | other.names)


def uses(tree: nodes.Node) -> Iterator[Use]:
    """Each place at which a name is used."""
    todo: list[nodes.Node] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Getattr):
            # What is called is a method, no key.
            todo += [child for child in node.iter_child_nodes() if child is not node.node]
            todo.append(node.node.node)
            continue
        if not isinstance(node, nodes.Name | nodes.Getattr | nodes.Getitem):
            todo += node.iter_child_nodes()
            continue
        keys: list[str | int | None] = []
        inner: nodes.Node = node
        while isinstance(inner, nodes.Getattr | nodes.Getitem):
            keys.append(_key(inner))
            if keys[-1] is None and isinstance(inner, nodes.Getitem):
                todo.append(inner.arg)
            inner = inner.node
        if isinstance(inner, nodes.Name):
            if inner.ctx == "load":
                keys.reverse()
                until = keys.index(None) if None in keys else len(keys)
                yield Use(inner.name, tuple(key for key in keys[:until] if key is not None), until < len(keys))
        else:
            todo.append(inner)


def stored(tree: nodes.Node) -> Iterator[str]:
    """The names that the template gives something to."""
    return (node.name for node in tree.find_all(nodes.Name) if node.ctx == "store")


def _key(node: nodes.Getattr | nodes.Getitem) -> str | int | None:
    if isinstance(node, nodes.Getattr):
        return node.attr
    value = node.arg.value if isinstance(node.arg, nodes.Const) else None
    return value if type(value) in (str, int) else None
