"""Reads YAML that anybody may send as the JSON value that it stands for, or says why not, in little time and memory."""

from __future__ import annotations

import math
import re
from typing import Any, Final

import yaml
from msgspec import Struct

# In bytes.
MAX_SIZE: Final = 1 << 20
MOST_ALIASES: Final = 100
MAX_DEPTH: Final = 50
_TOO_DEEP: Final = f"nested more than {MAX_DEPTH} levels deep"
# Of the document with its aliases written out: values, and characters of text.
_MOST_VALUES: Final = 200_000
_MOST_TEXT: Final = 4 << 20
_BITS: Final = 64
# The parser in C gives the same events, in a twentieth of the time.
_PARSER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# YAML 1.2's core schema: `yes`, `on`, dates and 1:30 are text, as people mean them.
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NO_NUMBER: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TAG: Final = "tag:yaml.org,2002:"
_SCALARS: Final = ("str", "int", "float", "bool", "null")
_NO_KEY: Final = object()


class YamlError(ValueError):
    """Why a text is not taken, as a sentence that begins with the line."""


def read(text: bytes) -> Any:
    """The one document of the text, as dicts with text keys, lists and scalars; None for an empty one. Where an alias
    stands, the same object stands again. Raises YamlError."""
    if len(text) > MAX_SIZE:
        raise YamlError(f"larger than {MAX_SIZE >> 20} MB")
    try:
        return _Reader().read(text.decode("utf-8-sig"))
    except UnicodeDecodeError as e:
        raise YamlError(f"not UTF-8: {e.reason} at byte {e.start}") from None
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        # Newer parsers give up by themselves, mostly before we do.
        too_deep = "nesting" in (e.problem or "")
        problem = _TOO_DEEP if too_deep else ", ".join(part for part in (e.context, e.problem) if part)
        raise YamlError(f"line {mark.line + 1}: {problem}" if mark else problem) from None
    except (yaml.YAMLError, RecursionError) as e:
        raise YamlError(f"not YAML: {str(e) or 'nested too deep'}") from None


class _Weight(Struct):
    """How much a value is, written out."""

    values: int = 0
    text: int = 0


class _Open:
    """A list or mapping of which not all is read."""

    __slots__ = ("anchor", "key", "value", "weight")

    def __init__(self, value: list[Any] | dict[str, Any], anchor: str | None) -> None:
        self.value = value
        self.anchor = anchor
        self.key: Any = _NO_KEY
        self.weight = _Weight(values=1)


class _Reader:
    """Goes through the events of a parser: nothing is built before it is known to be allowed."""

    def __init__(self) -> None:
        self._root: Any = None
        self._documents = 0
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, _Weight] | None] = {}
        self._aliases = 0
        self._total = _Weight()

    def read(self, text: str) -> Any:
        for event in yaml.parse(text, Loader=_PARSER):
            try:
                self._take(event)
            except YamlError as e:
                line = event.start_mark.line + 1 if event.start_mark else "?"
                raise YamlError(f"line {line}: {e}") from None
        return self._root

    def _take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(str(event.anchor))
        elif isinstance(event, yaml.MappingStartEvent):
            self._begin(event, {}, "map")
        elif isinstance(event, yaml.SequenceStartEvent):
            self._begin(event, [], "seq")
        elif isinstance(event, yaml.CollectionEndEvent):
            done = self._open.pop()
            self._add(done.value, done.weight, done.anchor)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise YamlError("more than one document")

    def _begin(self, event: Any, value: list[Any] | dict[str, Any], tag: str) -> None:
        if event.tag not in (None, "!", _TAG + tag):
            raise YamlError(f"the tag {_tag(event.tag)} is not read")
        if len(self._open) == MAX_DEPTH:
            raise YamlError(_TOO_DEEP)
        if self._wants_key():
            raise YamlError("a key must be text")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._count(_Weight(values=1))
        self._open.append(_Open(value, event.anchor))

    def _wants_key(self) -> bool:
        return bool(self._open) and type(self._open[-1].value) is dict and self._open[-1].key is _NO_KEY

    def _scalar(self, event: Any) -> None:
        weight = _Weight(1, len(event.value))
        self._count(weight)
        if self._wants_key():
            _check_tag(event)
            self._key(event.value, event)
            self._open[-1].weight.text += len(event.value)
            if event.anchor is not None:
                self._anchors[event.anchor] = (event.value, weight)
        else:
            self._add(_value(event), weight, event.anchor)

    def _key(self, name: str, event: Any = None) -> None:
        here = self._open[-1]
        if name == "<<" and (event is None or event.implicit[0]):
            raise YamlError("merge keys (<<) are not read")
        if name in here.value:
            raise YamlError(f"the key {name[:100]!r} stands there twice")
        here.key = name

    def _alias(self, anchor: str) -> None:
        self._aliases += 1
        if self._aliases > MOST_ALIASES:
            raise YamlError(f"more than {MOST_ALIASES} aliases")
        found = self._anchors.get(anchor, ())
        if not found:
            there = "stands in what it stands for" if found is None else "stands for nothing"
            raise YamlError(f"the alias *{anchor} {there}")
        value, weight = found
        self._count(weight)
        if not self._wants_key():
            self._add(value, weight, None)
        elif type(value) is str:
            self._key(value)
        else:
            raise YamlError("a key must be text")

    def _count(self, weight: _Weight) -> None:
        self._total.values += weight.values
        self._total.text += weight.text
        if self._total.values > _MOST_VALUES:
            raise YamlError(f"more than {_MOST_VALUES:,} values, aliases written out")
        if self._total.text > _MOST_TEXT:
            raise YamlError(f"more than {_MOST_TEXT >> 20} MB of text, aliases written out")

    def _add(self, value: Any, weight: _Weight, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = (value, weight)
        if not self._open:
            self._root = value
            return
        here = self._open[-1]
        here.weight.values += weight.values
        here.weight.text += weight.text
        if isinstance(here.value, dict):
            here.value[here.key] = value
            here.key = _NO_KEY
        else:
            here.value.append(value)


def _check_tag(event: Any) -> str | None:
    """What a scalar is said to be; None when nothing is said."""
    if event.tag is None:
        return None if event.implicit[0] else "str"
    name = "str" if event.tag == "!" else event.tag.removeprefix(_TAG)
    if name not in _SCALARS:
        raise YamlError(f"the tag {_tag(event.tag)} is not read")
    return str(name)


def _value(event: Any) -> Any:
    kind, text = _check_tag(event), event.value
    if kind == "str":
        return text
    value = _resolved(text)
    if kind == "float" and type(value) is int:
        return float(value)
    if kind is not None and type(value) is not {"int": int, "float": float, "bool": bool, "null": type(None)}[kind]:
        raise YamlError(f"{text[:100]!r} is no {kind}")
    return value


def _resolved(text: str) -> Any:
    """What a word without quotes stands for."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if text[0] not in "+-.0123456789":
        return text
    if _NO_NUMBER.fullmatch(text):
        raise YamlError(f"{text} is no number in JSON")
    if _INT.fullmatch(text):
        # Longer ones take time to be read.
        number = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10)) if len(text) <= 2 + _BITS else 1 << _BITS
        if number.bit_length() >= _BITS:
            raise YamlError(f"a number of more than {_BITS} bits")
        return number
    if _FLOAT.fullmatch(text):
        value = float(text)
        if not math.isfinite(value):
            raise YamlError(f"{text[:100]} is too large a number")
        return value
    return text


def _tag(tag: str) -> str:
    return tag.replace(_TAG, "!!", 1)[:100]
