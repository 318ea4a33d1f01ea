"""Parameters of a workflow: what a definition says of them, and the values that a start gives them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import UnsetType

from orchestr8d.core import decode, patterns
from orchestr8d.core.errors import Fault, did_you_mean
from orchestr8d.core.submit import MAX_DEPTH, is_deeper
from orchestr8d.core.template_filters import kind
from orchestr8d.core.workflow import Param
from orchestr8d.core.workflow_input import ParamIn

_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "list": (list,),
}  # fmt: skip
_WANTED: Final = {
    "string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false", "list": "a list",
}  # fmt: skip
_WORDS: Final = {"true": True, "false": False}


def declared(said: Mapping[str, ParamIn | None], faults: list[Fault]) -> dict[str, Param]:
    """What a definition says of its parameters; what is wrong with that is added to `faults`. Of what is UNSET
    something is wrong already."""
    found: dict[str, Param] = {}
    for name, one in said.items():
        if not re.fullmatch(patterns.LOCAL_ID, name):
            faults.append(Fault(f"params.{name}", "a parameter's name is of 1 to 64 letters, digits, _ or -"))
        one = one or ParamIn()
        enum = one.enum or None
        told_by = enum[0] if enum and one.default is None else one.default
        param = Param(one.type or _type_of(told_by), bool(one.required), one.default, enum, one.description or None)
        found[name] = param
        if isinstance(one.type, UnsetType):
            continue
        for n, value in enumerate(enum or ()):
            if (wrong := _wrong(value, param, member=True)) is not None:
                faults.append(Fault(f"params.{name}.enum[{n}]", wrong))
        if param.default is not None and (wrong := _wrong(param.default, param)) is not None:
            faults.append(Fault(f"params.{name}.default", wrong))
    return found


def values(
    params: Mapping[str, Param], given: Mapping[str, Any], faults: list[Fault], at: str = "params", *,
    loose: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The value of each parameter, None where nothing says it. With `loose` texts are taken for what they spell, as in
    a query."""
    found: dict[str, Any] = {}
    for name, param in params.items():
        value = given.get(name)
        if loose:
            value = _spelt(value, param.type)
        if value is None:
            value = param.default
            if value is None and param.required:
                faults.append(Fault(f"{at}.{name}", "required, but missing"))
        elif (wrong := _wrong(value, param)) is not None:
            faults.append(Fault(f"{at}.{name}", wrong))
        found[name] = value
    for name in given:
        if name not in params:
            faults.append(decode.unknown(f"{at}.{name}", name, list(params), what="parameter"))
    return found


def _type_of(value: Any) -> Any:
    """The type that a default tells."""
    return next((name for name, types in _TYPES.items() if type(value) in types), "string")


def _wrong(value: Any, param: Param, *, member: bool = False) -> str | None:
    """Why the parameter cannot have this value; of a list `enum` says what may be in it."""
    if member and param.type == "list":
        return None
    if type(value) not in _TYPES[param.type]:
        return f"expected {_WANTED[param.type]}, not {kind(value)}"
    if type(value) is list and is_deeper({"": value}, MAX_DEPTH):
        return f"nested more than {MAX_DEPTH} levels deep"
    if param.enum is not None and not member:
        for item in value if type(value) is list else [value]:
            if not any(type(item) is type(word) and item == word for word in param.enum):
                return f"not one of {_listed(param.enum)}{_near(item, param.enum)}"
    return None


def _listed(enum: list[Any]) -> str:
    return ", ".join(word if isinstance(word, str) else msgspec.json.encode(word).decode() for word in enum)


def _near(item: Any, enum: list[Any]) -> str:
    words = [word for word in enum if isinstance(word, str)]
    return did_you_mean(item, words) if isinstance(item, str) else ""


def _spelt(value: Any, wanted: str) -> Any:
    """What a text stands for where something else is expected; as it is when it stands for nothing of that."""
    if wanted == "list":
        if isinstance(value, str) and value.startswith("["):
            return _json(value, list)
        return [value] if isinstance(value, str) else value
    if not isinstance(value, str) or wanted == "string":
        return value
    if wanted == "boolean":
        return _WORDS.get(value, value)
    return _json(value, int if wanted == "integer" else float)


def _json(text: str, wanted: type) -> Any:
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
    return value if type(value) in (wanted, int) else text
