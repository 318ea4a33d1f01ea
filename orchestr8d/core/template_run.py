"""Evaluates the parsed tree of a template, node by node. Nothing becomes Python code, no attribute of a Python object
is ever looked up, and every step is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from jinja2 import nodes

from orchestr8d.core.errors import did_you_mean
from orchestr8d.core.template_filters import (
    FILTERS,
    LENIENT,
    METHODS,
    TESTS,
    contains,
    equal,
    given,
    items,
    kind,
    less,
    number,
    whole,
)
from orchestr8d.core.template_work import Missing, Work, Wrong


def spelt(node: nodes.Node) -> str:
    """How a name was written, for messages."""
    if isinstance(node, nodes.Name):
        return node.name
    if isinstance(node, nodes.Getattr):
        return f"{spelt(node.node)}.{node.attr}"
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        return f"{spelt(node.node)}[{node.arg.value!r}]"
    return "this"


class Run:
    """One template over `names`, which hold JSON values."""

    def __init__(self, names: Mapping[str, Any], work: Work) -> None:
        self._scopes: list[dict[str, Any]] = [dict(names)]
        self._work = work

    def value(self, node: nodes.Node) -> Any:
        """What an expression comes to. Raises Wrong."""
        return given(self._maybe(node))

    def write(self, body: Sequence[nodes.Node]) -> Iterator[str]:
        """The text of statements, part by part."""
        for node in body:
            self._work.spend()
            if isinstance(node, nodes.Output):
                for part in node.nodes:
                    text = part.data if isinstance(part, nodes.TemplateData) else self._work.placed(self.value(part))
                    yield self._work.write(text)
            elif isinstance(node, nodes.If):
                yield from self.write(self._branch(node))
            elif isinstance(node, nodes.For):
                yield from self._loop(node)
            elif isinstance(node, nodes.Assign):
                self._assign(node.target, self.value(node.node))
            else:
                raise Wrong(f"{type(node).__name__.lower()} is not available in templates")

    def _branch(self, node: nodes.If) -> Sequence[nodes.Node]:
        for choice in (node, *node.elif_):
            if self.value(choice.test):
                return choice.body
        return node.else_

    def _loop(self, node: nodes.For) -> Iterator[str]:
        found = items(self._work, self.value(node.iter))
        self._scopes.append({})
        try:
            if node.test is not None:
                found = [item for item in found if self._wanted(node, item)]
            for index, item in enumerate(found):
                self._work.spend()
                self._scopes[-1] = {"loop": {
                    "index": index + 1, "index0": index, "first": index == 0, "last": index == len(found) - 1,
                    "length": len(found),
                }}  # fmt: skip
                self._assign(node.target, item)
                yield from self.write(node.body)
        finally:
            self._scopes.pop()
        if not found:
            yield from self.write(node.else_)

    def _wanted(self, node: nodes.For, item: Any) -> bool:
        self._assign(node.target, item)
        return node.test is None or bool(self.value(node.test))

    def _assign(self, target: nodes.Node, value: Any) -> None:
        if isinstance(target, nodes.Name):
            self._scopes[-1][target.name] = value
        elif isinstance(target, nodes.Tuple):
            if type(value) is not list or len(value) != len(target.items):
                raise Wrong(f"{len(target.items)} values are needed for as many names, not {kind(value)}")
            for name, item in zip(target.items, value, strict=True):
                self._assign(name, item)
        else:
            raise Wrong("only names can be set")

    def _maybe(self, node: nodes.Node) -> Any:
        """What an expression comes to; Missing for what is not there."""
        self._work.spend()
        evaluate = _EVALUATE.get(type(node))
        if evaluate is None:
            raise Wrong(f"{type(node).__name__.lower()} is not available in templates")
        return evaluate(self, node)

    def _name(self, node: nodes.Name) -> Any:
        for scope in reversed(self._scopes):
            if node.name in scope:
                return scope[node.name]
        return Missing(f"{node.name!r} is not known", node.name, self._scopes[0])

    def _item(self, node: nodes.Getattr | nodes.Getitem) -> Any:
        of = self.value(node.node)
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            return self._slice(of, node.arg)
        key = node.attr if isinstance(node, nodes.Getattr) else self.value(node.arg)
        if type(of) is dict and type(key) is str:
            if key in of:
                return of[key]
            return Missing(f"{spelt(node)} is not there", key, of)
        if type(of) in (list, str) and type(key) is int:
            return of[key] if -len(of) <= key < len(of) else Missing(f"{spelt(node)} is past the end")
        return Missing(f"{spelt(node)} is not there: {spelt(node.node)} is {kind(of)}")

    def _slice(self, of: Any, node: nodes.Slice) -> Any:
        if type(of) not in (list, str):
            raise Wrong(f"{kind(of)} cannot be sliced")
        bounds = [None if part is None else whole(self.value(part)) for part in (node.start, node.stop, node.step)]
        cut = slice(*bounds)
        taken = len(range(*cut.indices(len(of))))
        if type(of) is str:
            self._work.check_size(taken)
        self._work.spend(1 + taken // 256)
        return self._work.made(of[cut])

    def _filter(self, node: nodes.Filter) -> Any:
        if node.name not in FILTERS or node.node is None:
            raise Wrong(f"there is no filter {node.name!r}{did_you_mean(node.name, list(FILTERS))}")
        of = self._maybe(node.node) if node.name in LENIENT else self.value(node.node)
        return self._call(FILTERS[node.name], of, node)

    def _test(self, node: nodes.Test) -> Any:
        if node.name not in TESTS:
            raise Wrong(f"there is no test {node.name!r}{did_you_mean(node.name, list(TESTS))}")
        of = self._maybe(node.node) if node.name in LENIENT else self.value(node.node)
        return self._call(TESTS[node.name], of, node)

    def _method(self, node: nodes.Call) -> Any:
        if not isinstance(node.node, nodes.Getattr):
            raise Wrong("functions are not available in templates")
        of, name = self.value(node.node.node), node.node.attr
        method = METHODS.get(type(of), {}).get(name)
        if method is None or (type(of) is dict and name in of):
            raise Wrong(f"{spelt(node.node)} cannot be called")
        return self._call(method, of, node)

    def _call(self, function: Callable[..., Any], of: Any, node: nodes.Filter | nodes.Test | nodes.Call) -> Any:
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise Wrong("arguments cannot be given with a star")
        args = [self.value(arg) for arg in node.args]
        named = {str(pair.key): self.value(pair.value) for pair in node.kwargs}
        return self._work.made(function(self._work, of, *args, **named))

    def _compare(self, node: nodes.Compare) -> Any:
        left = self.value(node.expr)
        for operand in node.ops:
            right = self.value(operand.expr)
            if not _COMPARE[operand.op](self._work, left, right):
                return False
            left = right
        return True

    def _add(self, node: nodes.Add) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if type(left) is type(right) and type(left) in (str, list):
            if type(left) is str:
                self._work.check_size(len(left) + len(right))
            else:
                self._work.spend(len(left) + len(right))
            return self._work.made(left + right)
        if type(left) is str or type(right) is str:
            raise Wrong(f"+ does not join {kind(left)} and {kind(right)}: ~ does")
        return self._work.made(number(left) + number(right))

    def _arithmetic(self, node: nodes.BinExpr) -> Any:
        left, right = number(self.value(node.left)), number(self.value(node.right))
        return self._work.made(_ARITHMETIC[type(node)](left, right))

    def _concat(self, node: nodes.Concat) -> str:
        words = [self._work.text(self.value(part)) for part in node.nodes]
        self._work.check_size(sum(map(len, words)))
        return "".join(words)

    def _condition(self, node: nodes.CondExpr) -> Any:
        if self.value(node.test):
            return self.value(node.expr1)
        return Missing("this `if` has no `else`") if node.expr2 is None else self.value(node.expr2)

    def _list(self, node: nodes.List | nodes.Tuple) -> Any:
        return self._work.made([self.value(item) for item in node.items])

    def _dict(self, node: nodes.Dict) -> Any:
        made: dict[str, Any] = {}
        for pair in node.items:
            key = self.value(pair.key)
            if type(key) is not str:
                raise Wrong(f"the keys of a mapping are texts, not {kind(key)}")
            made[key] = self.value(pair.value)
        return self._work.made(made)


_COMPARE: Final[Mapping[str, Callable[[Work, Any, Any], bool]]] = {
    "eq": equal,
    "ne": lambda work, left, right: not equal(work, left, right),
    "lt": less,
    "gt": lambda work, left, right: less(work, right, left),
    "lteq": lambda work, left, right: not less(work, right, left),
    "gteq": lambda work, left, right: not less(work, left, right),
    "in": lambda work, left, right: contains(work, right, left),
    "notin": lambda work, left, right: not contains(work, right, left),
}
_ARITHMETIC: Final[Mapping[type[nodes.Node], Callable[[Any, Any], Any]]] = {
    nodes.Sub: lambda left, right: left - right,
    nodes.Mul: lambda left, right: left * right,
    nodes.Div: lambda left, right: left / right,
    nodes.FloorDiv: lambda left, right: left // right,
    nodes.Mod: lambda left, right: left % right,
}
_EVALUATE: Final[Mapping[type[nodes.Node], Callable[[Run, Any], Any]]] = {
    nodes.Const: lambda run, node: run._work.made(node.value),
    nodes.Name: Run._name,
    nodes.Getattr: Run._item,
    nodes.Getitem: Run._item,
    nodes.Filter: Run._filter,
    nodes.Test: Run._test,
    nodes.Call: Run._method,
    nodes.Compare: Run._compare,
    nodes.And: lambda run, node: run.value(node.left) and run.value(node.right),
    nodes.Or: lambda run, node: run.value(node.left) or run.value(node.right),
    nodes.Not: lambda run, node: not run.value(node.node),
    nodes.Neg: lambda run, node: -number(run.value(node.node)),
    nodes.Pos: lambda run, node: number(run.value(node.node)),
    nodes.Add: Run._add,
    nodes.Concat: Run._concat,
    nodes.CondExpr: Run._condition,
    nodes.List: Run._list,
    nodes.Tuple: Run._list,
    nodes.Dict: Run._dict,
    **dict.fromkeys(_ARITHMETIC, Run._arithmetic),
}
# Nodes that hold others: what these are is decided where they stand.
_PARTS: Final = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign, nodes.Pair,
                 nodes.Keyword, nodes.Operand, nodes.Slice)  # fmt: skip
AVAILABLE: Final[frozenset[type[nodes.Node]]] = frozenset(_EVALUATE) | frozenset(_PARTS)
