"""What templates may call: an allow-list of filters, tests and methods, each bounded by `Work`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from orchestr8d.core import durations
from orchestr8d.core.template_work import Missing, Work, Wrong

_NAMES: Final = {str: "a text", int: "a number", float: "a number", bool: "true or false", list: "a list",
                 dict: "a mapping", type(None): "none"}  # fmt: skip
_NONE_IN_IT: Final = Missing("the first or last of an empty list")
_MOST_INDENT = 100
_MOST_DIGITS = 15
_LONGEST_SHOWN = 100


def kind(value: Any) -> str:
    return _NAMES.get(type(value), "something else")


def _text(work: Work, value: Any) -> str:
    if type(value) is not str:
        raise Wrong(f"a text is needed, not {kind(value)}")
    return work.short(value)


def number(value: Any) -> Any:
    if type(value) is not int and type(value) is not float:
        raise Wrong(f"a number is needed, not {kind(value)}")
    return value


def whole(value: Any) -> int:
    if type(value) is not int:
        raise Wrong(f"a whole number is needed, not {kind(value)}")
    return value


def items(work: Work, value: Any) -> list[Any]:
    """What a loop over `value` goes through: of a mapping its keys."""
    if type(value) is not list and type(value) is not dict:
        raise Wrong(f"a list is needed, not {kind(value)}")
    work.spend(1 + len(value))
    return list(value)


def _attributes(work: Work, found: list[Any], path: Any) -> list[Any]:
    """`a.b` of each item, Missing where it is not there; without a path the items."""
    if path is None:
        return found
    names = _text(work, path).split(".")
    absent = Missing(f"an item has no {path[:_LONGEST_SHOWN]!r}")
    return [_attribute(work, item, names, absent) for item in found]


def _attribute(work: Work, item: Any, names: Sequence[str], absent: Missing) -> Any:
    for name in names:
        work.spend()
        if type(item) is not dict or name not in item:
            return absent
        item = item[name]
    return item


def given(value: Any) -> Any:
    """`value`, which must be there."""
    if isinstance(value, Missing):
        raise value.wrong()
    return value


def _keys(work: Work, value: Any, attribute: Any) -> list[tuple[Any, Any]]:
    """Each item with what it is to be compared by."""
    found = items(work, value)
    pairs = list(zip(map(given, _attributes(work, found, attribute)), found, strict=True))
    for key, _ in pairs:
        if type(key) is list or type(key) is dict:
            raise Wrong(f"texts and numbers can be compared, not {kind(key)} (attribute='…' names a field)")
        work.compared(key)
    return pairs


def _length(work: Work, value: Any) -> int:
    if type(value) not in (str, list, dict):
        raise Wrong(f"{kind(value)} has no length")
    return len(value)


def _replace(work: Work, value: Any, old: Any, new: Any, count: Any = -1) -> str:
    text, old, new = _text(work, value), _text(work, old), _text(work, new)
    found = text.count(old)
    work.check_size(len(text) + found * max(0, len(new) - len(old)))
    work.spend(1 + found // 64)
    return text.replace(old, new, whole(count))


def _join(work: Work, value: Any, sep: Any = "", attribute: Any = None) -> str:
    words = [work.text(given(item)) for item in _attributes(work, items(work, value), attribute)]
    sep = _text(work, sep)
    work.check_size(sum(map(len, words)) + len(sep) * len(words))
    return str(sep.join(words))


def _truncate(work: Work, value: Any, length: Any = 255, end: Any = "...") -> str:
    if type(value) is not str:
        raise Wrong(f"a text is needed, not {kind(value)}")
    keep = whole(length)
    return value if len(value) <= keep else value[: max(0, keep - len(_text(work, end)))] + end


def _indent(work: Work, value: Any, width: Any = 4, first: Any = False) -> str:
    text = _text(work, value)
    lines = text.split("\n")
    if not 0 <= whole(width) <= _MOST_INDENT:
        raise Wrong(f"indent takes a width from 0 to {_MOST_INDENT}")
    work.check_size(len(text) + len(lines) * width)
    work.spend(len(lines) // 16)
    margin = " " * width
    return "\n".join(margin + line if line and (n or first) else line for n, line in enumerate(lines))


def _tojson(work: Work, value: Any, indent: Any = None) -> str:
    text = work.text(value) if type(value) is not str else msgspec.json.encode(_text(work, value)).decode()
    if indent is None:
        return text
    if not 0 <= whole(indent) <= 4:
        raise Wrong("tojson takes an indent from 0 to 4")
    return msgspec.json.format(text, indent=indent)


def _int(work: Work, value: Any, default: Any = 0) -> Any:
    try:
        return int(_text(work, value) if type(value) is str else value)
    except (ValueError, TypeError, OverflowError):
        return default


def _float(work: Work, value: Any, default: Any = 0.0) -> Any:
    try:
        return float(_text(work, value) if type(value) is str else value)
    except (ValueError, TypeError, OverflowError):
        return default


def _round(work: Work, value: Any, precision: Any = 0) -> Any:
    if not 0 <= whole(precision) <= _MOST_DIGITS:
        raise Wrong(f"round takes a precision from 0 to {_MOST_DIGITS}")
    return round(number(value), precision)


def _sum(work: Work, value: Any, attribute: Any = None) -> Any:
    total: Any = 0
    for key, _ in _keys(work, value, attribute):
        total = work.made(total + number(key))
    return total


def _unique(work: Work, value: Any, attribute: Any = None) -> list[Any]:
    found: dict[Any, Any] = {}
    for key, item in _keys(work, value, attribute):
        # As text: anybody can name numbers whose hashes are equal.
        found.setdefault((type(key), key if type(key) is str else repr(key)), item)
    return list(found.values())


def _sort(work: Work, value: Any, reverse: Any = False, attribute: Any = None) -> list[Any]:
    pairs = _keys(work, value, attribute)
    return [item for _, item in sorted(pairs, key=lambda pair: pair[0], reverse=bool(reverse))]


def _reverse(work: Work, value: Any) -> Any:
    return _text(work, value)[::-1] if type(value) is str else items(work, value)[::-1]


def _map(work: Work, value: Any, name: Any = None, *args: Any, attribute: Any = None, default: Any = None) -> list[Any]:
    if attribute is not None:
        found = _attributes(work, items(work, value), attribute)
        return [given(item) if default is None or not isinstance(item, Missing) else default for item in found]
    if name not in FILTERS or name == "map":
        raise Wrong("map takes attribute='…', or the name of a filter")
    return [work.made(given(FILTERS[name](work, item, *args))) for item in items(work, value)]


def _passes(work: Work, value: Any, test: Any, args: tuple[Any, ...]) -> bool:
    if test is None:
        return not isinstance(value, Missing) and bool(value)
    if test not in TESTS:
        raise Wrong(f"there is no test {test!r}")
    return TESTS[test](work, value if test in LENIENT else given(value), *args)


def _select(work: Work, value: Any, test: Any = None, *args: Any) -> list[Any]:
    return [item for item in items(work, value) if _passes(work, item, test, args)]


def _reject(work: Work, value: Any, test: Any = None, *args: Any) -> list[Any]:
    return [item for item in items(work, value) if not _passes(work, item, test, args)]


def _selectattr(work: Work, value: Any, name: Any, test: Any = None, *args: Any) -> list[Any]:
    all_items = items(work, value)
    pairs = zip(all_items, _attributes(work, all_items, name), strict=True)
    return [item for item, found in pairs if _passes(work, found, test, args)]


def _rejectattr(work: Work, value: Any, name: Any, test: Any = None, *args: Any) -> list[Any]:
    all_items = items(work, value)
    pairs = zip(all_items, _attributes(work, all_items, name), strict=True)
    return [item for item, found in pairs if not _passes(work, found, test, args)]


def _default(work: Work, value: Any, default: Any = "", boolean: Any = False) -> Any:
    return default if isinstance(value, Missing) or (boolean and not value) else value


def _pairs(work: Work, value: Any) -> list[Any]:
    if type(value) is not dict:
        raise Wrong(f"a mapping is needed, not {kind(value)}")
    work.spend(1 + len(value))
    return [[key, item] for key, item in value.items()]


def _ends(work: Work, value: Any, at: int) -> Any:
    found = items(work, value) if type(value) is not str else value[:1] if at == 0 else value[-1:]
    return found[at] if found else _NONE_IN_IT


def _seconds(work: Work, value: Any) -> Any:
    """`"1d"` as 86400; a number as it is."""
    found = durations.seconds(_text(work, value) if type(value) is str else number(value))
    return int(found) if found.is_integer() else found


FILTERS: Final[Mapping[str, Callable[..., Any]]] = {
    "abs": lambda work, value: abs(number(value)),
    "capitalize": lambda work, value: _text(work, value).capitalize(),
    "count": _length,
    "d": _default,
    "default": _default,
    "first": lambda work, value: _ends(work, value, 0),
    "float": _float,
    "indent": _indent,
    "int": _int,
    "items": _pairs,
    "join": _join,
    "last": lambda work, value: _ends(work, value, -1),
    "length": _length,
    "list": items,
    "lower": lambda work, value: _text(work, value).lower(),
    "map": _map,
    "max": lambda work, value, attribute=None: (_sort(work, value, True, attribute) or [_NONE_IN_IT])[0],
    "min": lambda work, value, attribute=None: (_sort(work, value, False, attribute) or [_NONE_IN_IT])[0],
    "reject": _reject,
    "rejectattr": _rejectattr,
    "replace": _replace,
    "reverse": _reverse,
    "round": _round,
    "seconds": _seconds,
    "select": _select,
    "selectattr": _selectattr,
    "sort": _sort,
    "string": lambda work, value: work.text(value),
    "sum": _sum,
    "title": lambda work, value: _text(work, value).title(),
    "tojson": _tojson,
    "trim": lambda work, value: _text(work, value).strip(),
    "truncate": _truncate,
    "unique": _unique,
    "upper": lambda work, value: _text(work, value).upper(),
}


def equal(work: Work, left: Any, right: Any) -> bool:
    work.compared(left)
    return bool(left == right)


def less(work: Work, left: Any, right: Any) -> bool:
    if type(left) is not str or type(right) is not str:
        number(left), number(right)
    work.compared(left)
    return bool(left < right)


def contains(work: Work, where: Any, what: Any) -> bool:
    if type(where) is str:
        work.compared(where)
        return _text(work, what) in where
    if type(where) is dict:
        return type(what) is str and what in where
    if type(where) is not list:
        raise Wrong(f"nothing is in {kind(where)}")
    work.compared(where)
    return what in where


# Filters and tests that may be asked about what is not there.
LENIENT: Final = frozenset({"d", "default", "defined", "undefined"})
TESTS: Final[Mapping[str, Callable[..., bool]]] = {
    "defined": lambda work, value: not isinstance(value, Missing),
    "undefined": lambda work, value: isinstance(value, Missing),
    "none": lambda work, value: value is None,
    "true": lambda work, value: value is True,
    "false": lambda work, value: value is False,
    "boolean": lambda work, value: type(value) is bool,
    "string": lambda work, value: type(value) is str,
    "number": lambda work, value: type(value) in (int, float),
    "integer": lambda work, value: type(value) is int,
    "float": lambda work, value: type(value) is float,
    "mapping": lambda work, value: type(value) is dict,
    "sequence": lambda work, value: type(value) is list,
    "odd": lambda work, value: whole(value) % 2 == 1,
    "even": lambda work, value: whole(value) % 2 == 0,
    "in": lambda work, value, where: contains(work, where, value),
    "eq": equal,
    "equalto": equal,
    "==": equal,
    "ne": lambda work, left, right: not equal(work, left, right),
    "!=": lambda work, left, right: not equal(work, left, right),
    "lt": less,
    "<": less,
    "gt": lambda work, left, right: less(work, right, left),
    ">": lambda work, left, right: less(work, right, left),
    "le": lambda work, left, right: not less(work, right, left),
    "<=": lambda work, left, right: not less(work, right, left),
    "ge": lambda work, left, right: not less(work, left, right),
    ">=": lambda work, left, right: not less(work, left, right),
}


def _split(work: Work, value: str, sep: Any = None, maxsplit: Any = -1) -> list[str]:
    return _text(work, value).split(None if sep is None else _text(work, sep), whole(maxsplit))


# By the type of what stands before the dot. The name of a key of a mapping wins over a method's.
METHODS: Final[Mapping[type, Mapping[str, Callable[..., Any]]]] = {
    str: {
        "endswith": lambda work, value, end: value.endswith(_text(work, end)),
        "lower": lambda work, value: _text(work, value).lower(),
        "removeprefix": lambda work, value, prefix: _text(work, value).removeprefix(_text(work, prefix)),
        "removesuffix": lambda work, value, suffix: _text(work, value).removesuffix(_text(work, suffix)),
        "replace": _replace,
        "split": _split,
        "splitlines": lambda work, value: _text(work, value).splitlines(),
        "startswith": lambda work, value, start: value.startswith(_text(work, start)),
        "strip": lambda work, value: _text(work, value).strip(),
        "title": lambda work, value: _text(work, value).title(),
        "upper": lambda work, value: _text(work, value).upper(),
    },
    dict: {
        "get": lambda work, value, key, default=None: value.get(_text(work, key), default),
        "items": _pairs,
        "keys": items,
        "values": lambda work, value: [item for _, item in _pairs(work, value)],
    },
}
METHOD_NAMES: Final = frozenset(name for methods in METHODS.values() for name in methods)
