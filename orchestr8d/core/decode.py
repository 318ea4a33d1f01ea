"""From JSON-like input to typed values, naming every fault: msgspec decides, a walk over the type explains."""

from __future__ import annotations

import operator
import re
import types
import typing
from collections.abc import Sequence
from functools import reduce
from typing import Annotated, Any, Literal, TypeVar, Union

import msgspec

from orchestr8d.core.errors import Fault, Problem, did_you_mean, refuse

T = TypeVar("T")

_NOT_YET = "not available in this version"
_IN_BATCH = re.compile(r"^tasks\[\d+\]\.")
_WHERE = re.compile(r" - at `\$?(.*)`$")


def convert(
    value: object, into: type[T], *, later: frozenset[str] = frozenset(), strict: bool = True
) -> tuple[T | None, list[Fault]]:
    """`value` (of dicts, lists and scalars) as `into`, or None and all that is wrong with it.

    `later` names what a later version will know: a field by its path from the task (`options.model`), or one
    value of a field (`options.on_failure=callback`); these are faults of kind `not-available`. With
    `strict=False` strings are taken for numbers and booleans, as in queries and the environment.
    """
    try:
        return msgspec.convert(value, into, strict=strict), []
    except msgspec.ValidationError as e:
        faults = _Walk(later, strict).faults_of(value, into)
        return None, faults or [_fault(str(e))]


def decode_json(body: bytes, decoder: msgspec.json.Decoder[T], *, later: frozenset[str] = frozenset()) -> T:
    """The document as `decoder` types it, or Problem with all faults. A valid one costs one msgspec pass."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as e:
        reason = str(e)
    except (ValueError, RecursionError) as e:  # DecodeError, UnicodeDecodeError
        raise Problem("invalid", f"the body is not valid JSON: {e}") from None
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError) as e:
        raise Problem("invalid", f"the body is not valid JSON: {e}") from None
    _, faults = convert(value, decoder.type, later=later)
    refuse(faults or [_fault(reason)])
    raise AssertionError("refuse() raised")


def unknown(path: str, name: str, known: Sequence[str], *, what: str = "field") -> Fault:
    """The fault of a name that nobody knows, with a near one."""
    return Fault(path, f"unknown {what}{did_you_mean(name, known)}")


class _Walk:
    """Collects the faults of one value."""

    def __init__(self, later: frozenset[str], strict: bool) -> None:
        self._later = later
        self._strict = strict
        self._faults: list[Fault] = []

    def faults_of(self, value: object, into: Any) -> list[Fault]:
        self._any(value, into, "")
        return self._faults

    def _any(self, value: object, into: Any, path: str) -> None:
        for member in _members(into):
            bare, metas = _bare(member)
            origin = typing.get_origin(bare) or bare
            if isinstance(value, dict) and _is_struct(bare):
                return self._struct(value, bare, path)
            if isinstance(value, dict) and origin is dict and typing.get_args(bare):
                if self._leaf(value, _annotated(dict[str, Any], metas), path):
                    for key, item in value.items():
                        self._any(item, typing.get_args(bare)[1], f"{path}.{key}" if path else str(key))
                return None
            if isinstance(value, list) and origin is list and typing.get_args(bare):
                if self._leaf(value, _annotated(list[Any], metas), path):
                    for i, item in enumerate(value):
                        self._any(item, typing.get_args(bare)[0], f"{path}[{i}]")
                return None
        self._leaf(value, into, path)
        return None

    def _struct(self, value: dict[Any, Any], into: type[msgspec.Struct], path: str) -> None:
        fields = {f.encode_name: f for f in msgspec.structs.fields(into)}
        not_yet = False
        for name, item in value.items():
            at = f"{path}.{name}" if path else str(name)
            if name in fields:
                self._any(item, fields[name].type, at)
            elif "=" not in name and _IN_BATCH.sub("", at) in self._later:
                not_yet = True
                self._faults.append(Fault(at, _NOT_YET, "not-available"))
            elif into.__struct_config__.forbid_unknown_fields:
                self._faults.append(unknown(at, str(name), list(fields)))
        if not_yet:  # another kind of thing was asked for: what this kind lacks is beside the point
            return
        for name, field in fields.items():
            if field.required and name not in value:
                self._faults.append(Fault(f"{path}.{name}" if path else name, "required, but missing"))

    def _leaf(self, value: object, into: Any, path: str) -> bool:
        try:
            msgspec.convert(value, _without_unset(into), strict=self._strict)
        except msgspec.ValidationError as e:
            if isinstance(value, str) and f"{_IN_BATCH.sub('', path)}={value}" in self._later:
                self._faults.append(Fault(path, f"{value!r} is {_NOT_YET}", "not-available"))
            else:
                self._faults.append(Fault(path, _explain(value, into) or _fault(str(e)).message))
            return False
        return True


def _fault(message: str) -> Fault:
    """msgspec's message with its path (`… - at `$.a[0].b``) taken apart."""
    m = _WHERE.search(message)
    path = m[1].lstrip(".") if m else ""
    text = message[: m.start()] if m else message
    return Fault(path, text[:1].lower() + text[1:])


def _explain(value: object, into: Any) -> str | None:
    """A better message than msgspec's: what the type says it expects, or the words that it allows."""
    words: list[str] = []
    for member in _members(into):
        bare, metas = _bare(member)
        for meta in metas:
            if meta.extra and "expected" in meta.extra:
                return f"expected {meta.extra['expected']}"
        if typing.get_origin(bare) is Literal:
            words += [str(word) for word in typing.get_args(bare)]
    if not words or not isinstance(value, str):
        return None
    return f"not one of {', '.join(words)}{did_you_mean(value, words)}"


def _members(into: Any) -> Sequence[Any]:
    if typing.get_origin(into) in (Union, types.UnionType):
        return [m for arg in typing.get_args(into) for m in _members(arg)]
    return (into,)


def _bare(member: Any) -> tuple[Any, list[msgspec.Meta]]:
    if typing.get_origin(member) is Annotated:
        inner, *metas = typing.get_args(member)
        return inner, [m for m in metas if isinstance(m, msgspec.Meta)]
    return member, []


def _annotated(into: Any, metas: list[msgspec.Meta]) -> Any:
    for meta in metas:
        into = Annotated[into, meta]
    return into


def _is_struct(bare: Any) -> bool:
    return isinstance(bare, type) and issubclass(bare, msgspec.Struct)


def _without_unset(into: Any) -> Any:
    members = _members(into)
    kept = [m for m in members if m is not msgspec.UnsetType]
    return reduce(operator.or_, kept) if len(kept) < len(members) else into
