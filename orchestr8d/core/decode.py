"""From JSON-like input to typed values, naming every fault: msgspec decides, a walk over the type explains."""

from __future__ import annotations

import gc
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import Annotated, Any, Literal, TypeVar, Union

import msgspec
from msgspec import UNSET

from orchestr8d.core.errors import Fault, did_you_mean, enough

T = TypeVar("T")

_WHERE = re.compile(r" - at `\$?(.*)`$")


def convert(value: object, into: type[T], *, strict: bool = True) -> tuple[T | None, list[Fault]]:
    """`value` (of dicts, lists and scalars) as `into`, or None and all that is wrong with it. With `strict=False`
    strings are taken for numbers and booleans, as in queries and the environment."""
    try:
        return msgspec.convert(value, into, strict=strict), []
    except msgspec.ValidationError as e:
        walk = _Walk(strict)
        walk.all_of(value, into, e)
        return None, walk.faults or [_fault(str(e))]


def right(value: object, into: type[T]) -> tuple[T | None, list[Fault]]:
    """As `convert`; with faults it is what is right of the value, as `decode_json` has it."""
    try:
        return msgspec.convert(value, into), []
    except msgspec.ValidationError as e:
        walk = _Walk(strict=True)
        found = walk.all_of(value, into, e)
        return None if found is UNSET else found, walk.faults or [_fault(str(e))]


def decode_json(body: bytes, decoder: msgspec.json.Decoder[T]) -> tuple[T | None, list[Fault]]:
    """The document as `decoder` types it, and no faults: a valid one costs one msgspec pass.

    With faults it is what is right of the document, for further checks: a struct in which UNSET stands for fields that
    are wrong or missing, also where its type does not say so; None when nothing is right.
    """
    with _no_collections():
        return _decode_json(body, decoder)


@contextmanager
def _no_collections() -> Iterator[None]:
    """Millions of lists are made in one go, and no cycles: collecting garbage meanwhile would take most of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _decode_json(body: bytes, decoder: msgspec.json.Decoder[T]) -> tuple[T | None, list[Fault]]:
    try:
        return decoder.decode(body), []
    except msgspec.ValidationError as e:
        wrong = e
    except (ValueError, RecursionError) as e:  # DecodeError, UnicodeDecodeError
        return None, [Fault("", f"the body is not valid JSON: {e}")]
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError) as e:
        return None, [Fault("", f"the body is not valid JSON: {e}")]
    walk = _Walk(strict=True)
    right = walk.all_of(value, decoder.type, wrong)
    return None if right is UNSET else right, walk.faults or [_fault(str(wrong))]


def unknown(path: str, name: str, known: Sequence[str], *, what: str = "field") -> Fault:
    """The fault of a name that nobody knows, with a near one."""
    return Fault(path, f"unknown {what}{did_you_mean(name, known)}")


class _Walk:
    """Collects the faults of one value, until there are enough. What converts as a whole is not looked into, so that
    the time goes into what is wrong and not into how much there is."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self.faults: list[Fault] = []

    def all_of(self, value: object, into: Any, error: msgspec.ValidationError) -> Any:
        """What is right of the whole value, which failed with `error`; UNSET when nothing is."""
        try:
            return self.explain(value, into, "", error)
        except RecursionError:  # tasks stand in tasks
            self.faults.append(Fault("", "nested too deep"))
            return UNSET

    def _right(self, value: object, into: Any, path: str) -> Any:
        """`value` as `into`, or what is right of it; UNSET when nothing is."""
        if enough(self.faults):
            return UNSET
        try:
            return msgspec.convert(value, into, strict=self._strict)
        except msgspec.ValidationError as e:
            return self.explain(value, into, path, e)

    def explain(self, value: object, into: Any, path: str, error: msgspec.ValidationError) -> Any:
        """The same for what failed with `error` as a whole."""
        for member in _members(into):
            bare, metas = _bare(member)
            origin, args = typing.get_origin(bare) or bare, typing.get_args(bare)
            if isinstance(value, dict) and _is_struct(bare):
                return self._struct(value, bare, path)
            if isinstance(value, dict) and origin is dict and args:
                return self._dict(value, args[1], metas, path)
            if isinstance(value, list) and origin is list and args:
                return self._list(value, args[0], metas, path)
        self.faults.append(Fault(path, _explain(value, into) or _fault(str(error)).message))
        return UNSET

    def _struct(self, value: dict[Any, Any], into: type[msgspec.Struct], path: str) -> Any:
        fields = {f.encode_name: f for f in msgspec.structs.fields(into)}
        right: dict[str, Any] = {f.name: UNSET for f in fields.values() if f.required}
        for name, item in value.items():
            if enough(self.faults):
                break
            at = f"{path}.{name}" if path else str(name)
            if name in fields:
                right[fields[name].name] = self._right(item, _without_unset(fields[name].type), at)
            elif into.__struct_config__.forbid_unknown_fields:
                self.faults.append(unknown(at, str(name), list(fields)))
        for name, field in fields.items():
            if field.required and name not in value:
                self.faults.append(Fault(f"{path}.{name}" if path else name, "required, but missing"))
        return into(**right)

    def _dict(self, value: dict[Any, Any], into: Any, metas: Sequence[msgspec.Meta], path: str) -> Any:
        if not self._is_shaped(value, dict[str, Any], metas, path):
            return UNSET
        items = self._items(value.items(), into, lambda key: f"{path}.{key}" if path else str(key))
        return {key: item for key, item in items if item is not UNSET}

    def _list(self, value: list[Any], into: Any, metas: Sequence[msgspec.Meta], path: str) -> Any:
        if not self._is_shaped(value, list[Any], metas, path):
            return UNSET
        items = [item for _, item in self._items(enumerate(value), into, lambda i: f"{path}[{i}]")]
        # Items keep their places, so only structs, of which something may be right, can stand without the wrong ones.
        return items if any(_is_struct(_bare(member)[0]) for member in _members(into)) else UNSET

    def _items(self, items: Iterable[tuple[Any, Any]], into: Any, path: Callable[[Any], str]) -> list[tuple[Any, Any]]:
        """Each as `_right` has it, in a loop that is quick: most are right, and there may be many."""
        right = []
        for key, item in items:
            try:
                right.append((key, msgspec.convert(item, into, strict=self._strict)))
            except msgspec.ValidationError as e:
                if enough(self.faults):
                    break
                right.append((key, self.explain(item, into, path(key), e)))
        return right

    def _is_shaped(self, value: object, bare: Any, metas: Sequence[msgspec.Meta], path: str) -> bool:
        """Whether a container is right, whatever its items are."""
        into = _annotated(bare, metas)
        try:
            msgspec.convert(value, into, strict=self._strict)
        except msgspec.ValidationError as e:
            self.faults.append(Fault(path, _explain(value, into) or _fault(str(e)).message))
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


def _annotated(into: Any, metas: Sequence[msgspec.Meta]) -> Any:
    for meta in metas:
        into = Annotated[into, meta]
    return into


def _is_struct(bare: Any) -> bool:
    return isinstance(bare, type) and issubclass(bare, msgspec.Struct)


def _without_unset(into: Any) -> Any:
    members = _members(into)
    kept = [m for m in members if m is not msgspec.UnsetType]
    return reduce(operator.or_, kept) if len(kept) < len(members) else into
