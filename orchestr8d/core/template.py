"""Templates in the strings of a JSON value: `{{ }}` and `{% %}` of Jinja's syntax, checked before and bounded in work.

Jinja parses, and no more: what it would compile folds constants (`{{ 'a' * 10**9 }}`) and cannot be interrupted. The
parsed tree is evaluated by `template_run`, which knows a few operators, filters and methods, and counts its steps.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec
from jinja2 import Environment, TemplateSyntaxError, nodes
from jinja2.parser import Parser

from orchestr8d.core.errors import MOST_FAULTS, Fault, did_you_mean, enough
from orchestr8d.core.template_filters import FILTERS, METHOD_NAMES, METHODS, TESTS
from orchestr8d.core.template_names import References, Use, stored, uses
from orchestr8d.core.template_run import AVAILABLE, Run, spelt
from orchestr8d.core.template_work import MOST_KNOWN, Work, Wrong
from orchestr8d.core.template_work import Limits as Limits
from orchestr8d.core.template_work import TemplateError as TemplateError

T = TypeVar("T")
DEFAULT: Final = Limits()
# Comments are off: `{#` is text, as it is in shell (`${#name}`). What begins one instead is no character of any text.
_SYNTAX: Final = Environment(  # noqa: S701 (nothing is HTML, nothing is compiled)
    comment_start_string="\ufdd0\ufdd1", comment_end_string="\ufdd1\ufdd0", keep_trailing_newline=True
)


def is_template(text: str) -> bool:
    return "{{" in text or "{%" in text


def render(value: Any, names: Mapping[str, Any], limits: Limits = DEFAULT, work: Work | None = None) -> Any:
    """`value` with every template in it rendered over `names` (JSON values); keys of mappings stay as they are. A
    string that is one `{{ }}` and nothing else becomes what that is; in a text anything but a string is written as
    JSON. What comes out is not rendered again. `work` is to be given where several values share their limits. Raises
    TemplateError."""
    work = work or Work(limits)
    return mapped(value, "", lambda text, path: _rendered(text, path, names, work))


def evaluate(expression: str, names: Mapping[str, Any], limits: Limits = DEFAULT) -> Any:
    """What an expression, which stands without braces, comes to. Raises TemplateError."""
    work = Work(limits)

    def evaluated() -> Any:
        value = Run(names, work).value(_expression(expression, limits))
        msgspec.json.encode(value)  # a literal may be half a character, which no JSON can carry
        return value

    return _bounded("", evaluated)


class Seen(msgspec.Struct):
    """What a check has found: what is used, and how many words and signs there were to be read."""

    uses: list[Use] = []
    words: int = 0


def check(value: Any, names: Collection[str], limits: Limits = DEFAULT, seen: Seen | None = None) -> list[Fault]:
    """What can be told to be wrong before there are values: syntax, names, what is not available. As many faults as
    are worth listing, or some more. With `seen`, which is added to, none of the names can be set in a template."""
    faults: list[Fault] = []

    def look(text: str, path: str) -> str:
        if not enough(faults):
            faults.extend(_faults(lambda: _parse(text, limits, seen), path, names, limits, seen))
        return text

    mapped(value, "", look)
    return faults


def check_expression(
    text: str, path: str, names: Collection[str], limits: Limits = DEFAULT, seen: Seen | None = None
) -> list[Fault]:  # fmt: skip
    """The same for an expression without braces."""
    return _faults(lambda: _expression(text, limits, seen), path, names, limits, seen)


def references(value: Any, expressions: Iterable[str] = (), limits: Limits = DEFAULT) -> References:
    """What the templates in a value name, and expressions; all of them are right (`check`)."""
    found: list[Use] = []

    def look(text: str, path: str) -> str:
        found.extend(uses(_parse(text, limits)))
        return text

    mapped(value, "", look)
    for expression in expressions:
        found.extend(uses(_expression(expression, limits)))
    return References.of(found)


def _faults(
    parse: Callable[[], nodes.Node], path: str, names: Collection[str], limits: Limits, seen: Seen | None
) -> list[Fault]:  # fmt: skip
    try:
        tree = parse()
        wrong = [Fault(path, message) for message in islice(_wrong(tree, names, limits), MOST_FAULTS + 1)]
        if seen is not None:
            wrong += [Fault(path, f"{name!r} cannot be set") for name in dict.fromkeys(stored(tree)) if name in names]
            seen.uses += uses(tree)
        return wrong
    except Wrong as e:
        return [Fault(path, str(e))]


def as_text(value: Any) -> str:
    """What a rendered value is where text is due."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def texts(value: Any) -> Any:
    """The same with a text for each value that a template has made: a number or an object is written as JSON."""
    if isinstance(value, list):
        return [as_text(item) for item in value]
    if isinstance(value, dict):
        return {name: as_text(item) for name, item in value.items()}
    return as_text(value)


def places(value: Any) -> set[str]:
    """The paths at which templates stand."""
    found: set[str] = set()

    def look(text: str, path: str) -> str:
        found.add(path)
        return text

    mapped(value, "", look)
    return found


def mapped(value: Any, path: str, each: Callable[[str, str], Any]) -> Any:
    """`value` with each string that is a template replaced by what `each` makes of it, and of its path."""
    if isinstance(value, str):
        return each(value, path) if is_template(value) else value
    if isinstance(value, list):
        return [mapped(item, f"{path}[{n}]", each) for n, item in enumerate(value)]
    if isinstance(value, dict):
        return {key: mapped(item, f"{path}.{key}" if path else str(key), each) for key, item in value.items()}
    return value


def _rendered(text: str, path: str, names: Mapping[str, Any], work: Work) -> Any:
    def rendered() -> Any:
        tree = _parse(text, work.limits)
        run = Run(names, work)
        only = _only_expression(tree)
        if only is None:
            return "".join(run.write(tree.body))
        value = run.value(only)
        if type(value) is str:
            return work.write(work.placed(value))
        work.write(work.text(value))
        return value

    return _bounded(path, rendered)


def _bounded(path: str, evaluated: Callable[[], Any]) -> Any:
    try:
        return evaluated()
    except Wrong as e:
        raise TemplateError(path, str(e)) from None
    except RecursionError:
        raise TemplateError(path, "nested too deep") from None
    except UnicodeError:
        raise TemplateError(path, "half a character (a lone surrogate) is no text") from None
    except (ArithmeticError, TypeError, ValueError) as e:
        raise TemplateError(path, str(e)) from None


def _only_expression(tree: nodes.Template) -> nodes.Expr | None:
    if len(tree.body) != 1 or not isinstance(tree.body[0], nodes.Output) or len(tree.body[0].nodes) != 1:
        return None
    node = tree.body[0].nodes[0]
    return None if isinstance(node, nodes.TemplateData) else node


def _parse(text: str, limits: Limits, seen: Seen | None = None) -> nodes.Template:
    return _parsed(text, None, limits, seen, lambda: _SYNTAX.parse(text))


def _expression(text: str, limits: Limits, seen: Seen | None = None) -> nodes.Expr:
    def parse() -> nodes.Expr:
        parser = Parser(_SYNTAX, text, state="variable")
        found = parser.parse_expression()
        if not parser.stream.eos:
            raise Wrong(f"expected the end of the expression, found {parser.stream.current.value!r}")
        return found

    if is_template(text):
        raise Wrong("an expression stands without braces: params.x, not {{ params.x }}")
    return _parsed(text, "variable", limits, seen, parse)


def _parsed(text: str, state: str | None, limits: Limits, seen: Seen | None, parse: Callable[[], T]) -> T:
    if len(text) > limits.size:
        raise Wrong(f"longer than {limits.size:,} bytes")
    try:
        tokens = _SYNTAX.lexer.tokeniter(text, None, state=state)
        words = sum(1 for _ in islice(tokens, limits.tokens + 1))
        if seen is not None:
            seen.words += words
        if words > limits.tokens:
            raise Wrong(f"more than {limits.tokens:,} words and signs")
        return parse()
    except TemplateSyntaxError as e:
        where = f"line {e.lineno}: " if "\n" in text else ""
        raise Wrong(f"{where}{e.message}") from None
    except RecursionError:
        raise Wrong("nested too deep") from None
    except ValueError:
        raise Wrong("a number of thousands of digits") from None


def _wrong(tree: nodes.Node, names: Collection[str], limits: Limits) -> Iterator[str]:
    known = set(names)
    todo: list[tuple[nodes.Node, int]] = [(tree, 0)]
    found: list[nodes.Node] = []
    while todo:
        node, depth = todo.pop()
        if depth > limits.depth:
            yield f"nested more than {limits.depth} levels deep"
            return
        found.append(node)
        if isinstance(node, nodes.Name) and node.ctx == "store":
            known.add(node.name)
        if isinstance(node, nodes.For):
            known.add("loop")
        callee = isinstance(node, nodes.Call) and not isinstance(node.node, nodes.Getattr)
        below = list(node.iter_child_nodes(exclude=("node",) if callee else None))
        todo += [(child, depth + 1) for child in reversed(below)]
    dashed = {id(_leftmost(node.right)): node for node in found if isinstance(node, nodes.Sub)}
    for node in found:
        if type(node) not in AVAILABLE:
            yield f"{type(node).__name__.lower()} is not available in templates"
        elif isinstance(node, nodes.Name) and node.name not in known:
            near = did_you_mean(node.name, sorted(known)[:MOST_KNOWN])
            yield f"{node.name!r} is not known{_dashed(dashed.get(id(node)))}{near}"
        elif isinstance(node, nodes.Getattr | nodes.Getitem) and _is_inner(node):
            yield f"{spelt(node)} is not available in templates"
        elif isinstance(node, nodes.For) and node.recursive:
            yield "a loop cannot be recursive"
        elif isinstance(node, nodes.Filter | nodes.Test | nodes.Call):
            yield from _wrong_call(node)


def _is_inner(node: nodes.Getattr | nodes.Getitem) -> bool:
    """Whether it asks for what Python's objects have inside. No value would ever have it: who asks is told early."""
    arg = node.attr if isinstance(node, nodes.Getattr) else getattr(node.arg, "value", None)
    return isinstance(arg, str) and arg.startswith("__") and arg.endswith("__")


def _leftmost(node: nodes.Node) -> nodes.Node:
    while isinstance(node, nodes.Getattr | nodes.Getitem):
        node = node.node
    return node


def _dashed(node: nodes.Sub | None) -> str:
    name = None if node is None else _leftmost(node.right)
    if node is None or not isinstance(node.left, nodes.Getattr) or not isinstance(name, nodes.Name):
        return ""
    return f" (a name with a dash is written {spelt(node.left.node)}['{node.left.attr}-{name.name}'])"


def _wrong_call(node: nodes.Filter | nodes.Test | nodes.Call) -> Iterator[str]:
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        yield "arguments cannot be given with a star"
        return
    if isinstance(node, nodes.Call):
        if not isinstance(node.node, nodes.Getattr):
            yield f"{spelt(node.node)}(): functions are not available in templates"
            return
        name = node.node.attr
        if name not in METHOD_NAMES:
            yield f"there is no method {name!r}{did_you_mean(name, sorted(METHOD_NAMES))}"
            return
        takers = [methods[name] for methods in METHODS.values() if name in methods]
    else:
        what, table = ("filter", FILTERS) if isinstance(node, nodes.Filter) else ("test", TESTS)
        name = node.name
        if name not in table:
            yield f"there is no {what} {name!r}{did_you_mean(name, sorted(table))}"
            return
        takers = [table[name]]
    args, named = [None] * (2 + len(node.args)), dict.fromkeys(str(pair.key) for pair in node.kwargs)
    if not any(_takes(taker, args, named) for taker in takers):
        yield f"{name} does not take these arguments"


def _takes(function: Callable[..., Any], args: list[None], named: Mapping[str, None]) -> bool:
    try:
        inspect.signature(function).bind(*args, **named)
    except TypeError:
        return False
    return True
