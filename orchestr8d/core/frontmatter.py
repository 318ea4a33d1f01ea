"""Reads an agent's definition, markdown with front matter, as it is found in the wild: what can be read counts."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml
from msgspec import Struct

# In bytes: a definition is an instruction, no book.
MAX_SIZE: Final = 1 << 20
# In characters. YAML is read at some 100 KB/s.
_MAX_HEAD: Final = 16 << 10
_MAX_NAME: Final = 200
_MAX_SUMMARY: Final = 200

_KEY: Final = re.compile(r"([A-Za-z_][\w.-]*)[ \t]*:(?:[ \t]+(.*))?")
_CLOSING: Final = re.compile(r"---+[ \t]*(.*)")
_TOOL: Final = re.compile(r"(?:[^,\s(]|\([^)]*\)?)+")
_ABSENT: Final = frozenset({"", "~", "null"})
# What the CLI would do by these is not done; the names in lower case.
_NOT_USED: Final = frozenset({
    "disallowedtools", "permissionmode", "mcpservers", "skills", "hooks", "maxturns", "memory",
})  # fmt: skip


class Definition(Struct, frozen=True):
    """What a file says. `tools` None: all there are; `model` None: the default. `ignored`: sentences for a person."""

    name: str | None
    id: str | None
    description: str
    model: str | None
    tools: list[str] | None
    body: str
    ignored: list[str]


def read(data: bytes) -> Definition:
    """Never fails on what the text says. Raises ValueError, with a sentence, for more than MAX_SIZE bytes."""
    if len(data) > MAX_SIZE:
        raise ValueError(f"larger than {MAX_SIZE >> 20} MB")
    ignored: list[str] = []
    head, body = _split(_text(data, ignored), ignored)
    values = _Values(_fields(head, ignored), ignored)
    name, own_id, description = values.name("name"), values.name("id"), values.text("description")
    model, tools = values.name("model"), values.tools("tools")
    values.tell_unused()
    body = body.strip("\n")
    if not body.strip():
        ignored.append("there is no text below the front matter")
    return Definition(
        name, own_id, description or _summary(body), None if model and model.lower() == "inherit" else model, tools,
        body, ignored,
    )  # fmt: skip


def _text(data: bytes, ignored: list[str]) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("utf-8-sig", "replace")
        ignored.append("not UTF-8 throughout: the bytes that are not were replaced")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _split(text: str, ignored: list[str]) -> tuple[list[str], str]:
    """The lines of the front matter, and the body."""
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        return [], text
    for at, line in enumerate(lines[1:], 1):
        closing = _CLOSING.fullmatch(line)
        if closing:
            # Text after the dashes is text of the body.
            return _bounded(lines[1:at], ignored), "\n".join([closing[1], *lines[at + 1 :]])
    at = 1
    while at < len(lines) and (_KEY.fullmatch(lines[at]) or (lines[at].strip() and lines[at][0] in " \t-")):
        at += 1
    ignored.append(f"the front matter is not closed by a line ---: it is taken to end with line {at}")
    return _bounded(lines[1:at], ignored), "\n".join(lines[at:])


def _bounded(head: list[str], ignored: list[str]) -> list[str]:
    size = 0
    for at, line in enumerate(head):
        size += len(line) + 1
        if size > _MAX_HEAD:
            ignored.append(f"the front matter is longer than {_MAX_HEAD >> 10} KB: ignored from its line {at + 1} on")
            return head[:at]
    return head


def _fields(head: list[str], ignored: list[str]) -> dict[str, Any]:
    """Keys and values: as YAML if it is that, else key by key."""
    try:
        whole = _yaml("\n".join(head))
    except ValueError:
        whole = None
    if isinstance(whole, dict):
        return whole
    found: dict[str, Any] = {}
    for key, lines in _groups(head, ignored):
        try:
            found |= _yaml("\n".join(lines))
        except (TypeError, ValueError):
            found[key] = _Raw(" ".join(text for text in map(str.strip, _values(lines)) if text))
    return found


class _Raw(str):
    """A value that is no YAML, as it stands there."""


def _groups(head: list[str], ignored: list[str]) -> list[tuple[str, list[str]]]:
    """Each key with its lines: its own, and those below that begin no other."""
    found: list[tuple[str, list[str]]] = []
    for line in head:
        key = _KEY.fullmatch(line)
        if key:
            found.append((key[1], [line]))
        elif line.strip() and not line.startswith("#"):
            if found:
                found[-1][1].append(line)
            else:
                ignored.append(f"a line that belongs to no key: {_short(line.strip(), 60)}")
    return found


def _values(lines: list[str]) -> list[str]:
    return [lines[0].partition(":")[2], *lines[1:]]


class _Loader(yaml.BaseLoader):
    """Every scalar is text, tags mean nothing. Aliases are refused: a few lines of them can stand for a billion."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)

    def construct_scalar(self, node: Any) -> str:
        # An escape may stand for half a character, which no answer could carry.
        return str(super().construct_scalar(node)).encode(errors="replace").decode()


def _yaml(text: str) -> Any:
    """The document, an empty one as {}. ValueError when it is none."""
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 (it makes text, lists and dicts only)
    except (yaml.YAMLError, RecursionError) as e:
        raise ValueError(str(e)) from None
    return {} if value is None or value == "" else value


class _Values:
    """Takes values as what they should be; what they are not is ignored, with a sentence."""

    def __init__(self, fields: dict[str, Any], ignored: list[str]) -> None:
        self._fields = {str(key).lower(): (str(key), value) for key, value in fields.items()}
        self._ignored = ignored

    def text(self, key: str) -> str | None:
        name, value = self._fields.pop(key, (key, None))
        if value is None:
            return None
        if not isinstance(value, str):
            self._ignored.append(f"{name}: expected text, found a {_kind(value)}")
            return None
        value = _unquoted(value) if isinstance(value, _Raw) else value.strip()
        return None if value in _ABSENT else value

    def name(self, key: str) -> str | None:
        """Text that can stand on a command line and in a table."""
        value = self.text(key)
        if value is None:
            return None
        value = " ".join(value.split())
        if len(value) > _MAX_NAME or not value.isprintable():
            self._ignored.append(f"{key}: expected at most {_MAX_NAME} printable characters")
            return None
        return value

    def tools(self, key: str) -> list[str] | None:
        """A list, or text with names between commas or blanks. `*`, as nothing at all, is all tools."""
        name, value = self._fields.pop(key, (key, None))
        if value is None or (isinstance(value, str) and value.strip() in _ABSENT):
            return None
        if isinstance(value, _Raw):
            value = re.sub("[][\"']", " ", value)
        if not isinstance(value, str | list):
            self._ignored.append(f"{name}: expected a list, found a {_kind(value)}")
            return None
        found: list[str] = []
        for item in [value] if isinstance(value, str) else value:
            if isinstance(item, str):
                found += _TOOL.findall(item)
            else:
                self._ignored.append(f"{name}: expected names of tools, found a {_kind(item)} in the list")
        kept = [tool for tool in dict.fromkeys(found) if tool.isprintable()]
        return None if "*" in kept or (found and not kept) else kept

    def tell_unused(self) -> None:
        """Of other keys only those are named that cannot be read, or that would restrict or equip the agent."""
        for key, (name, value) in self._fields.items():
            if isinstance(value, _Raw):
                self._ignored.append(f"{name}: not valid YAML")
            elif key in _NOT_USED:
                self._ignored.append(f"{name}: not used; the options of the task say it")


def _kind(value: object) -> str:
    return "mapping" if isinstance(value, dict) else "list" if isinstance(value, list) else "text"


def _unquoted(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _summary(body: str) -> str:
    """The first paragraph that is no heading; of headings alone the first."""
    heading = ""
    for block in re.split(r"\n[ \t]*\n", body):
        lines = [line.strip() for line in block.split("\n") if line.strip()]
        text = " ".join(line for line in lines if not line.startswith(("#", "```", "<!--")))
        if text:
            return _short(text, _MAX_SUMMARY)
        heading = heading or (lines[0].lstrip("# ") if lines else "")
    return _short(heading, _MAX_SUMMARY)


def _short(text: str, limit: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
