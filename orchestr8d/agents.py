"""The catalogue of agents: what a name means in a directory, from files that are read again when they change."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from orchestr8d import agent_files as files
from orchestr8d.agent_files import Agent as Agent
from orchestr8d.agent_files import Folder, Index
from orchestr8d.clock import Clock
from orchestr8d.config_sections import AgentsConfig

SHIPPED: Final = Path(__file__).parent / "shipped_agents"
# For so many seconds what was found is not looked at again, unless a name is missing.
_AGE: Final = 1.0
_MOST_VIEWS: Final = 200
_MOST_FOLDERS: Final = 500
_NEAR: Final = 3
_LONGEST: Final = 200
# marketplaces/NAME/plugins/NAME/agents is the deepest place that is known.
_PLUGIN_DEPTH: Final = 6
_MOST_DIRECTORIES: Final = 3000

# What the CLI knows without a file.
BROUGHT: Final[Mapping[str, str]] = {
    "general-purpose": "Researches, searches code and works through tasks of several steps, with all tools",
    "Explore": "Searches a codebase, read-only",
    "Plan": "Plans a change, read-only",
    "claude": "The CLI's own agent, with all tools",
    "statusline-setup": "Configures the CLI's status line",
}
# Roles that are named where there is no agent of that name -> the shipped one that does their work.
STAND_INS: Final[Mapping[str, str]] = {
    role: agent
    for agent, roles in {
        "backend-developer": "python-developer go-developer java-developer rust-developer csharp-developer "
        "cpp-developer kotlin-developer php-developer ruby-developer swift-developer openapi-specialist "
        "database-specialist postgresql-specialist",
        "frontend-developer": "react-specialist vue-specialist angular-specialist nextjs-specialist",
        "fullstack-developer": "typescript-developer plugin-developer agent-architect skill-architect "
        "workflow-architect feature-orchestrator project-orchestrator",
        "devops-engineer": "terraform-specialist aws-specialist azure-specialist gcp-specialist sre-specialist "
        "infrastructure-engineer observability-specialist prometheus-grafana-specialist mlops-specialist",
        "test-engineer": "playwright-specialist load-testing-specialist",
        "data-analyst": "data-engineer ml-engineer",
    }.items()
    for role in roles.split()
}
# Plugins by which commands name roles (`quality-assurance:debugger`), whatever the installed plugin is called.
NAMESPACES: Final = frozenset({
    "ai-ml-engineering", "api-design", "database-specialists", "development-core", "devops-cloud",
    "frontend-frameworks", "infrastructure-monitoring", "language-developers", "meta-development", "orchestration",
    "quality-assurance", "system-architecture",
})  # fmt: skip


class Unresolved(Exception):
    """A name that does not mean one agent; the text says what there is."""


class UnknownAgent(Unresolved):
    pass


class AmbiguousAgent(Unresolved):
    pass


class Place(Struct, frozen=True):
    """A directory of agents. `own`: the project's or the user's, of which the nearer one's wins, name by name."""

    path: Path
    own: bool = False
    plugin: str | None = None
    expected: bool = False


class View(Struct, frozen=True):
    """What can be seen from one directory: its folders, nearest first, and the shipped one."""

    began: float
    folders: Sequence[tuple[Place, Folder]]
    shipped: Folder

    def agents(self) -> list[Agent]:
        """All that a name can mean, by id."""
        found = [agent for agent, _ in _nearest(self.folders, lambda folder: folder.agents)]
        found += [*self.shipped.agents, *map(_brought, BROUGHT)]
        return sorted(found, key=lambda agent: (agent.id, agent.path or ""))

    def ignored(self) -> list[str]:
        return [sentence for _, folder in self.folders for sentence in folder.ignored]

    def held(self, name: str) -> list[Agent]:
        """The agents of files that the name means, at the first step at which it means any."""
        shipped = (Place(SHIPPED), self.shipped)
        return (
            _step([*self.folders, shipped], lambda folder: folder.by_id, name)
            or _step([*self.folders, shipped], lambda folder: folder.by_short_id, name)
            or _step(self.folders, lambda folder: folder.by_name, name)
        )

    def at_hand(self, name: str) -> list[Agent]:
        """What the package ships for the name, else what the CLI brings."""
        shipped = self.shipped.by_name.get(name)
        if shipped:
            return shipped
        space, _, role = name.rpartition(":")
        if space in NAMESPACES:
            return self.held(role) or self.at_hand(role)
        if name in STAND_INS:
            return self.held(STAND_INS[name]) or self.at_hand(STAND_INS[name])
        return [_brought(name)] if name in BROUGHT else []


class Catalogue:
    """Looks at the disk in a thread, when asked and at most once a second; nothing is done while nobody asks."""

    def __init__(
        self, settings: Callable[[], AgentsConfig], clock: Clock, home: Path | None, config_dir: Path | None
    ) -> None:
        """`config_dir` is the CLI's own (~/.claude); None, as `home`, when there is none."""
        self._settings = settings
        self._clock = clock
        self._home = home
        self._config_dir = config_dir
        self._views: dict[tuple[str, tuple[str, ...]], View] = {}
        self._folders: dict[Place, Folder] = {}
        self._walking = asyncio.Lock()

    async def resolve(self, name: str, cwd: str) -> Agent:
        """The agent that a task in `cwd` means by `name`. Raises UnknownAgent or AmbiguousAgent."""
        aliases = self._settings().aliases
        if is_path(name):
            return await asyncio.to_thread(self._read, name, cwd)
        view = await self._view(cwd, _AGE)
        found = view.held(name)
        if not found and name not in aliases and not view.at_hand(name):
            view = await self._view(cwd, 0.0)
            found = view.held(name)
        if not found and name in aliases:
            target = aliases[name]
            if is_path(target):
                return await asyncio.to_thread(self._read, target, cwd)
            found = view.held(target) or view.at_hand(target)
            if not found:
                unknown = await asyncio.to_thread(_unknown, view, target, aliases)
                raise UnknownAgent(f"the alias {name!r} leads nowhere: {unknown}")
        found = found or view.at_hand(name)
        if not found:
            raise UnknownAgent(await asyncio.to_thread(_unknown, view, name, aliases))
        if len(found) > 1:
            raise AmbiguousAgent(_ambiguous(name, found))
        return found[0]

    async def list(self, cwd: str) -> Sequence[Agent]:
        """All agents that a task in `cwd` can name, by id."""
        return (await self._view(cwd, _AGE)).agents()

    async def ignored(self, cwd: str) -> Sequence[str]:
        """What lies where agents are looked for and cannot be used, as `PATH: why`."""
        return (await self._view(cwd, _AGE)).ignored()

    async def _view(self, cwd: str, age: float) -> View:
        """What there is, as of at most `age` seconds before now."""
        oldest = self._clock.monotonic() - age
        key = (cwd, tuple(self._settings().paths))
        view = self._views.get(key)
        if view is not None and view.began > oldest:
            return view
        async with self._walking:
            view = self._views.get(key)
            if view is not None and view.began > oldest:
                return view
            began = self._clock.monotonic()
            found, shipped = await asyncio.to_thread(self._walk, key, began, oldest, self._folders.copy())
            self._folders |= dict(found) | {Place(SHIPPED): shipped}
            view = self._views[key] = View(began, found, shipped)
            _forget(self._views, _MOST_VIEWS)
            _forget(self._folders, _MOST_FOLDERS)
            return view

    def _walk(
        self, key: tuple[str, tuple[str, ...]], began: float, oldest: float, known: Mapping[Place, Folder]
    ) -> tuple[Sequence[tuple[Place, Folder]], Folder]:
        def folder(place: Place) -> Folder:
            before = known.get(place)
            if before is not None and before.began > oldest:
                return before
            return files.scan(place.path, began, before, place.plugin, place.expected)

        # What came with the package does not change under a daemon that runs.
        shipped = known.get(Place(SHIPPED)) or files.scan(SHIPPED, began, None, "orchestr8d")
        return [(place, folder(place)) for place in self._places(*key)], shipped

    def _places(self, cwd: str, paths: Sequence[str]) -> Sequence[Place]:
        """Where agents are looked for, nearest first, each directory once."""
        if paths:
            found = [Place(_agents_of(self._path(path, cwd)), expected=True) for path in paths]
        else:
            found = [Place(Path(cwd, ".claude", "agents"), own=True)]
            if self._config_dir is not None:
                found.append(Place(self._config_dir / "agents", own=True))
                found += [Place(path) for path in _plugins(self._config_dir / "plugins", cwd)]
        return list({_real(place.path): place for place in reversed(found)}.values())[::-1]

    def _path(self, text: str, cwd: str) -> Path:
        if self._home is not None and (text == "~" or text.startswith("~/")):
            return self._home / text[2:]
        return Path(cwd, text)

    def _read(self, text: str, cwd: str) -> Agent:
        path = self._path(text, cwd)
        if not str(path).isprintable():
            raise UnknownAgent(f"there is no agent {_short(text)!r}: a path that cannot be printed")
        try:
            return files.read_one(path)
        except files.Unreadable as e:
            raise UnknownAgent(f"there is no agent {_short(text)!r}: {_short(str(path))} {e}") from None


def is_path(name: str) -> bool:
    return "/" in name and name.endswith(".md")


def _agents_of(path: Path) -> Path:
    """A plugin's folder stands for the agents in it."""
    return path / "agents" if os.path.isdir(path / ".claude-plugin") else path  # noqa: PTH112 (Path.is_dir may raise)


def _real(path: Path) -> str:
    try:
        return os.path.realpath(path)
    except ValueError:  # a NUL in it
        return str(path)


def _nearest(
    folders: Iterable[tuple[Place, Folder]], pick: Callable[[Folder], Iterable[Agent]]
) -> Iterator[tuple[Agent, Place]]:
    """What is picked of each folder, without what a nearer one hides: the same id, or of the user the same name."""
    ids: set[str] = set()
    names: set[str] = set()
    for place, folder in folders:
        shown = [a for a in pick(folder) if a.id not in ids and not (place.own and a.name in names)]
        ids |= {agent.id for agent in shown}
        if place.own:
            names |= {agent.name for agent in shown}
        yield from ((agent, place) for agent in shown)


def _step(folders: Iterable[tuple[Place, Folder]], index: Callable[[Folder], Index], name: str) -> list[Agent]:
    return [agent for agent, _ in _nearest(folders, lambda folder: index(folder).get(name, []))]


def _brought(name: str) -> Agent:
    return Agent(name, name, None, BROUGHT[name])


def _plugins(root: Path, cwd: str) -> list[Path]:
    """The agents of the plugins that the CLI has installed: as its register says, else wherever they lie."""
    register = files.manifest(root / "installed_plugins.json")
    installed = register.get("plugins") if isinstance(register, dict) else None
    if not isinstance(installed, dict):
        return sorted(_directories_of_agents(root))
    found: list[Path] = []
    for entries in installed.values():
        for entry in entries if isinstance(entries, list) else [entries]:
            path, project = files.text_of(entry, "installPath"), files.text_of(entry, "projectPath")
            if path and (project is None or Path(cwd).is_relative_to(project)):
                found.append(root / path / "agents")
    return sorted(set(found))


def _directories_of_agents(root: Path) -> Iterator[Path]:
    for looked_at, (directory, below, _) in enumerate(os.walk(root), 1):
        here = Path(directory)
        if "agents" in below:
            yield here / "agents"
        if len(here.parts) - len(root.parts) >= _PLUGIN_DEPTH or looked_at >= _MOST_DIRECTORIES:
            below.clear()
        below[:] = sorted(name for name in below if name[0] != "." and name not in ("agents", "node_modules"))


def _forget(kept: dict[Any, Any], most: int) -> None:
    """Drops what was added first."""
    for key in list(kept)[: max(0, len(kept) - most)]:
        del kept[key]


def _ambiguous(name: str, found: Sequence[Agent]) -> str:
    ids = [agent.id for agent in found]
    shown = sorted(agent.id if ids.count(agent.id) == 1 else str(agent.path) for agent in found)
    return f"{name!r} is more than one agent: {', '.join(shown)}"


def _unknown(view: View, name: str, aliases: Mapping[str, str]) -> str:
    """That there is none, with the names near to it, and what of that name cannot be read."""
    text = f"there is no agent {_short(name)!r}"
    agents = view.agents()
    role = name.rpartition(":")[2]
    near = [agent.id for agent in agents if ":" in name and role in (agent.name, agent.stem)]
    if not near and len(name) <= _LONGEST:
        known = {agent.name for agent in agents} | {agent.stem for agent in agents} | set(aliases)
        known |= {agent.id for agent in agents if ":" in name}
        near = get_close_matches(name, sorted(known), _NEAR)
    if near:
        text += f" (did you mean {' or '.join(map(repr, near[:_NEAR]))}?)"
    broken = [
        f"{path} {file.fault}"
        for _, folder in view.folders
        for path, file in folder.files.items()
        if file.fault and Path(path).stem == role
    ]
    return "; ".join([text, *broken[:_NEAR]])


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
