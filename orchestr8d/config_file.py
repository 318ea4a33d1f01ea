"""Where settings come from: TOML and the environment, each setting with the place where it stands."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orchestr8d.core import redact

PREFIX = "ORCHESTR8D_"
_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

Key = tuple[str, ...]


class Setting(msgspec.Struct, frozen=True):
    """One key, its value as written, `where` (`FILE:LINE` or `environment`) and the `name` it has there."""

    key: Key
    value: Any
    where: str
    name: str


class ConfigFault(msgspec.Struct, frozen=True):
    """One thing wrong, as `FILE:LINE: KEY = VALUE: MESSAGE`."""

    where: str
    message: str
    key: str = ""
    value: str = ""

    def __str__(self) -> str:
        setting = f"{self.key} = {self.value}" if self.value else self.key
        return ": ".join(part for part in (self.where, setting, self.message) if part)


class ConfigError(Exception):
    """The configuration cannot be used; `faults` are all that is wrong with it, one line each in `str()`."""

    def __init__(self, faults: Sequence[ConfigFault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


def fault(setting: Setting, message: str) -> ConfigFault:
    return ConfigFault(setting.where, message, setting.name, shown(setting))


def shown(setting: Setting) -> str:
    """The value for a message: on one line, not endless, with no secret in it."""
    value = redact.value(setting.key[-1], setting.value)
    if setting.key[0] == "users" and setting.key[-1] == "notify":
        # One that is wrong cannot be taken apart: only where it leads to is told.
        urls = value if isinstance(value, list) else [value]
        value = [str(url).partition("://")[0][:20] + "://..." if "://" in str(url) else url for url in urls]
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def read_file(path: Path) -> list[Setting]:
    """Every key of the file. ConfigError when it cannot be read or is no TOML."""
    try:
        text = path.read_bytes().decode()
        data = tomllib.loads(text)
    except OSError as e:
        raise ConfigError([ConfigFault(str(path), f"cannot be read: {e.strerror}")]) from None
    except UnicodeDecodeError as e:
        line = e.object.count(b"\n", 0, e.start) + 1
        raise ConfigError([ConfigFault(f"{path}:{line}", "not UTF-8 text")]) from None
    except tomllib.TOMLDecodeError as e:
        raise ConfigError([_syntax_fault(path, text, str(e))]) from None
    lines = locate(text)
    return [
        Setting(key, value, f"{path}:{lines.get(key, lines.get(key[:-1], 1))}", ".".join(key))
        for key, value in flatten(data)
    ]


def _syntax_fault(path: Path, text: str, message: str) -> ConfigFault:
    m = _AT_LINE.search(message)
    line = (m[1] if m else None) or str(text.count("\n") + 1)
    reason = message[: m.start()] if m else message
    return ConfigFault(f"{path}:{line}", f"not valid TOML: {reason[:1].lower()}{reason[1:]}")


def flatten(data: Mapping[str, Any], at: Key = ()) -> list[tuple[Key, Any]]:
    """What is in the tables, with each key's path; an empty table is a value, and so is each table of an array."""
    found: list[tuple[Key, Any]] = []
    for name, value in data.items():
        if isinstance(value, dict) and value:
            found += flatten(value, (*at, name))
        elif isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            found += [((*at, f"{name}[{n}]"), item) for n, item in enumerate(value)]
        else:
            found.append(((*at, name), value))
    return found


def locate(text: str) -> dict[Key, int]:
    """The line (from 1) at which each key and table of a valid TOML text begins.

    A statement is the shortest run of lines that parses by itself: so multi-line values stay whole.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    found: dict[Key, int] = {}
    arrays: dict[Key, int] = {}
    table: Key = ()
    start = 0
    for i in range(len(lines)):
        try:
            statement = tomllib.loads("\n".join(lines[start : i + 1]))
        except tomllib.TOMLDecodeError:
            continue
        if lines[start].lstrip().startswith("["):
            table = _path(statement)
            if lines[start].lstrip().startswith("[["):
                arrays[table] = arrays.get(table, -1) + 1
                table = (*table[:-1], f"{table[-1]}[{arrays[table]}]")
            found.setdefault(table, start + 1)
        else:
            for key, _ in flatten(statement):
                found.setdefault((*table, *key), start + 1)
        start = i + 1
    return found


def _path(header: Any) -> Key:
    """`{"a": {"b": {}}}`, what a table's header parses to, as ("a", "b")."""
    path: list[str] = []
    while header:
        if isinstance(header, list):
            header = header[0]
            continue
        name, header = next(iter(header.items()))
        path.append(name)
    return tuple(path)


def read_environ(environ: Mapping[str, str], written: Sequence[Setting]) -> list[Setting]:
    """Every `ORCHESTR8D_<SECTION>__<KEY>`. A queue's name is the one in the file, else in lower case; a variable's, in
    a table called env, is as it stands, and so is its value."""
    queues = {s.key[1].lower(): s.key[1] for s in written if s.key[0] == "queues" and len(s.key) > 1}
    found = []
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or "__" not in variable:
            continue
        parts = variable[len(PREFIX) :].split("__")
        key = [part.lower() for part in parts]
        if "env" in key[:-1]:
            at = key.index("env") + 1
            key = [*key[:at], "__".join(parts[at:])]
            found.append(Setting(tuple(key), environ[variable], "environment", variable))
            continue
        if key[0] == "queues" and len(key) > 2:
            name = "__".join(key[1:-1])
            key = ["queues", queues.get(name, name), key[-1]]
        found.append(Setting(tuple(key), parse_value(environ[variable]), "environment", variable))
    return found


def parse_value(text: str) -> Any:
    """A TOML value where it is one (`8`, `true`, `["a"]`), else the text itself."""
    try:
        data = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return data["value"] if len(data) == 1 else text
