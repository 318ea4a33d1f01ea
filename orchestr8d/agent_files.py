"""Agents as they lie on the disk: directories of definitions, walked without ever hanging on what stands there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from orchestr8d.core import frontmatter

# What one walk looks at; past it the rest is left out, with a sentence.
_MOST_FILES = 5000
_DEEPEST = 10
# In bytes.
_MAX_MANIFEST = 1 << 20
_NO_AGENTS = frozenset({"readme.md", "changelog.md", "license.md"})

Index = Mapping[str, list["Agent"]]


class Agent(Struct, frozen=True):
    """An agent that a name may mean. `id` is `plugin:category:name`; `path` and `body` are None for what the CLI
    brings itself, `model` and `tools` where it leaves them open; `ignored` says what of its file was not used."""

    name: str
    id: str
    path: str | None
    description: str
    model: str | None = None
    tools: list[str] | None = None
    body: str | None = None
    ignored: list[str] = []
    # `plugin:name`, and the `id` that the file gives itself.
    short_id: str = ""
    own_id: str | None = None

    @property
    def stem(self) -> str:
        return Path(self.path).stem if self.path else self.name


class File(Struct, frozen=True):
    """One file as it was read: an agent, or what is wrong with it."""

    stamp: tuple[int, ...]
    agent: Agent | None
    fault: str = ""


class Folder(Struct, frozen=True):
    """A directory of agents as a walk found it, with an index for each step in which names are looked up."""

    # On the monotonic clock.
    began: float
    plugin: str
    files: Mapping[str, File]
    ignored: list[str]
    agents: list[Agent]
    by_id: Index
    by_short_id: Index
    by_name: Index


class Unreadable(Exception):
    """Why a file gives no agent."""


def scan(root: Path, began: float, before: Folder | None, plugin: str | None = None, expected: bool = False) -> Folder:
    """Walks `root`; what has not changed since `before` is not read again. `expected`: its absence is worth a word."""
    plugin = plugin or plugin_of(root)
    known: Mapping[str, File] = before.files if before is not None and before.plugin == plugin else {}
    ignored: list[str] = []
    files: dict[str, File] = {}
    for path in _walk(root, expected, ignored):
        if len(files) == _MOST_FILES:
            ignored.append(f"{root}: more than {_MOST_FILES:,} files: the rest is left out")
            break
        files[str(path)] = found = _read(path, root, plugin, known.get(str(path)))
        if found.fault:
            ignored.append(f"{path}: {found.fault}")
    agents = [file.agent for file in files.values() if file.agent is not None]
    return Folder(
        began, plugin, files, ignored, agents,
        _index(agents, lambda agent: {agent.id, agent.own_id}),
        _index(agents, lambda agent: {agent.short_id}),
        _index(agents, lambda agent: {agent.name, agent.stem}),
    )  # fmt: skip


def read_one(path: Path) -> Agent:
    """The agent in the file `path`. Raises Unreadable."""
    root = next((above for above in path.parents if above.name == "agents"), path.parent)
    found = _read(path, root, plugin_of(root), None)
    if found.agent is None:
        raise Unreadable(found.fault)
    return found.agent


def plugin_of(root: Path) -> str:
    """What the ids of the agents in `root` begin with: its plugin's name, else the folder above `agents`."""
    named = text_of(manifest(root.parent / ".claude-plugin" / "plugin.json"), "name")
    folder = root.parent if root.name == "agents" else root
    return named or folder.name or "agents"


def manifest(path: Path) -> Any:
    """A JSON file of a plugin; None when there is none that can be read."""
    try:
        return msgspec.json.decode(_bytes(path, _MAX_MANIFEST))
    except (Unreadable, msgspec.DecodeError, RecursionError):
        return None


def text_of(value: Any, key: str) -> str | None:
    """The text that stands under `key` of a JSON object; None when there is none that can be shown."""
    text = value.get(key) if isinstance(value, dict) else None
    return text if isinstance(text, str) and text and text.isprintable() else None


def _index(agents: list[Agent], keys: Any) -> Index:
    found: dict[str, list[Agent]] = {}
    for agent in agents:
        for key in keys(agent) - {None}:
            found.setdefault(key, []).append(agent)
    return found


def _walk(root: Path, expected: bool, ignored: list[str]) -> Iterator[Path]:
    """The markdown files in `root`, links followed, each directory once."""
    if not str(root).isprintable():
        ignored.append(f"{_shown(root)}: a name that cannot be printed")
        return
    seen: set[tuple[int, int]] = set()
    pending = [root]
    while pending:
        directory = pending.pop()
        try:
            status = directory.stat()
            if (status.st_dev, status.st_ino) in seen:
                ignored.append(f"{directory}: leads to a directory that was read already")
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(directory) as entries:
                names = sorted((entry.name, _is_directory(entry)) for entry in entries if entry.name[0] != ".")
        except (OSError, ValueError) as e:
            missing = isinstance(e, FileNotFoundError | NotADirectoryError) and directory == root
            if expected or not missing:
                ignored.append(f"{_shown(directory)}: cannot be read: {_reason(e)}")
            continue
        for name, is_directory in names:
            path = directory / name
            if name == "node_modules" or not (is_directory or _is_definition(name)):
                continue
            if not name.isprintable():
                ignored.append(f"{_shown(path)}: a name that cannot be printed")
            elif not is_directory:
                yield path
            elif len(path.parts) - len(root.parts) > _DEEPEST:
                ignored.append(f"{path}: more than {_DEEPEST} directories deep")
            else:
                pending.append(path)


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_definition(name: str) -> bool:
    return name.lower().endswith(".md") and name.lower() not in _NO_AGENTS


def _read(path: Path, root: Path, plugin: str, known: File | None) -> File:
    """Never raises. Only a regular file is opened: a pipe would wait for its other end."""
    stamp: tuple[int, ...] = ()
    try:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)
        if known is not None and known.stamp == stamp:
            return known
        said = frontmatter.read(_bytes(path, frontmatter.MAX_SIZE))
    except (OSError, ValueError) as e:
        return File(stamp, None, f"cannot be read: {_reason(e)}")
    except Unreadable as e:
        return File(stamp, None, str(e))
    name = said.name or said.id or path.stem
    category = path.parent.relative_to(root).parts
    return File(stamp, Agent(
        name, ":".join([plugin, *category, name]), str(path), said.description, said.model, said.tools, said.body,
        said.ignored, f"{plugin}:{name}", said.id,
    ))  # fmt: skip


def _bytes(path: Path, limit: int) -> bytes:
    """What a regular file holds. Raises Unreadable."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Unreadable("is no regular file")
        # Should a pipe have taken its place meanwhile, opening it does not wait.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            data = file.read(limit + 1)
    except (OSError, ValueError) as e:
        raise Unreadable(f"cannot be read: {_reason(e)}") from None
    if data is None or len(data) > limit:
        raise Unreadable(f"is larger than {limit >> 20} MB")
    return data


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _shown(path: Path) -> str:
    """A path that is no text in the system's encoding, as text."""
    return os.fsencode(path).decode("utf-8", "replace")
