"""The catalogue: how names resolve, from which places, as files come, change and go."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestr8d.agents import BROUGHT, NAMESPACES, SHIPPED, STAND_INS, AmbiguousAgent, Catalogue, UnknownAgent
from orchestr8d.clock import FakeClock
from orchestr8d.config_sections import AgentsConfig
from orchestr8d.core import frontmatter


class Box:
    """A home with the CLI's directory in it, a project, and a catalogue of both whose second passes by hand."""

    def __init__(self, root: Path) -> None:
        self.home, self.project = root / "home", root / "project"
        self.user = self.home / ".claude"
        for path in (self.user, self.project):
            path.mkdir(parents=True)
        self.clock = FakeClock()
        self.settings = AgentsConfig()
        self.catalogue = Catalogue(lambda: self.settings, self.clock, self.home, self.user)

    def set(self, paths: Sequence[str] = (), aliases: Mapping[str, str] | None = None) -> None:
        self.settings = AgentsConfig(list(paths), dict(aliases or {}))

    async def id(self, name: str, cwd: Path | None = None) -> str:
        return (await self.catalogue.resolve(name, str(cwd or self.project))).id

    async def ids(self) -> list[str]:
        """Of files that did not come with the package."""
        found = await self.catalogue.list(str(self.project))
        return [agent.id for agent in found if agent.path and not agent.path.startswith(str(SHIPPED))]

    async def fails(self, name: str, kind: type[Exception] = UnknownAgent) -> str:
        with pytest.raises(kind) as caught:
            await self.id(name)
        return str(caught.value)

    async def ignored(self) -> list[str]:
        self.clock.advance(1.1)
        return [s.replace(str(self.project), "P") for s in await self.catalogue.ignored(str(self.project))]


def write(path: Path, text: str = "Do it.", **keys: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = "".join(f"{key}: {value}\n" for key, value in keys.items())
    path.write_text(f"---\n{head}---\n{text}\n" if keys else text)
    return path


def plugin(root: Path, name: str, *agents: str) -> Path:
    (root / ".claude-plugin").mkdir(parents=True)
    (root / ".claude-plugin" / "plugin.json").write_text(json.dumps({"name": name}))
    for agent in agents:
        write(root / "agents" / f"{agent}.md")
    return root


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


async def test_ids_are_plugin_category_and_name(box: Box) -> None:
    root = plugin(box.home / "x-1.2", "x", "quality/deep/reviewer", "plain")
    write(root / "agents" / "quality" / "stem.md", name="named", id="own-id")
    write(root / "agents" / "other.md", id="by-id")
    write(box.home / "bare" / "agents" / "lonely.md")
    box.set([str(root), str(box.home / "bare" / "agents")])
    assert await box.ids() == ["bare:lonely", "x:by-id", "x:plain", "x:quality:deep:reviewer", "x:quality:named"]
    for name in ("x:quality:named", "own-id", "x:named", "named", "stem", str(root / "agents/quality/stem.md")):
        assert await box.id(name) == "x:quality:named", name
    agent = await box.catalogue.resolve("named", "/")
    assert (agent.path, agent.body) == (str(root / "agents/quality/stem.md"), "Do it.")


async def test_each_step_comes_before_the_next(box: Box) -> None:
    """One name, taken away step by step."""
    name = "code-reviewer"
    first = write(box.project / ".claude/agents/a.md", id=name, name="a")
    second = write(box.project / ".claude/agents/code-reviewer.md", name="b")
    target = write(box.project / ".claude/agents/c.md")
    box.set(aliases={name: "c"})
    expected = [(first, ".claude:a"), (second, ".claude:b"), (target, ".claude:c")]
    for path, agent_id in expected:
        box.clock.advance(1.1)
        assert await box.id(name) == agent_id
        path.unlink()
    box.clock.advance(1.1)
    assert "the alias 'code-reviewer' leads nowhere: there is no agent 'c'" in await box.fails(name)
    box.set()
    assert await box.id(name) == "orchestr8d:code-reviewer"
    brought = await box.catalogue.resolve("general-purpose", str(box.project))
    assert (brought.id, brought.path, brought.body) == ("general-purpose", None, None)


async def test_namespaced_comes_before_a_bare_name(box: Box) -> None:
    write(box.project / ".claude/agents/one.md", name="p:two")
    box.set([".claude/agents", str(plugin(box.home / "p", "p", "deep/two"))])
    assert await box.id("p:two") == "p:deep:two"


async def test_explicit_paths(box: Box) -> None:
    write(box.project / "mine/agents/sub/x.md")
    write(box.home / "y.md")
    assert await box.id("mine/agents/sub/x.md") == "mine:sub:x"
    assert await box.id("./mine/agents/sub/x.md") == "mine:sub:x"
    assert await box.id("~/y.md") == "home:y"
    assert await box.id(f"{box.home}/y.md") == "home:y"
    box.set(aliases={"why": "~/y.md", "gone": "./gone.md"})
    assert await box.id("why") == "home:y"
    assert await box.fails("gone") == f"there is no agent './gone.md': {box.project}/gone.md cannot be read: " \
                                      "No such file or directory"  # fmt: skip
    (box.project / "dir.md").mkdir()
    assert "is no regular file" in await box.fails("./dir.md")
    assert "cannot be printed" in await box.fails("./a\0.md")


async def test_the_project_comes_before_the_user_and_both_before_nobody_else(box: Box) -> None:
    write(box.user / "agents" / "same.md")
    write(box.user / "agents" / "only.md")
    write(box.project / ".claude/agents/deeper/same.md")
    assert await box.id("same") == ".claude:deeper:same"
    assert await box.id("same", box.home) == ".claude:same"
    assert await box.id("only") == ".claude:only"
    assert await box.ids() == [".claude:deeper:same", ".claude:only"]


async def test_a_name_that_two_hold_is_refused_with_their_ids(box: Box) -> None:
    box.set([str(plugin(box.home / name, name, "qa/twin", "double")) for name in ("a", "b")])
    assert await box.fails("twin", AmbiguousAgent) == "'twin' is more than one agent: a:qa:twin, b:qa:twin"
    assert await box.id("b:twin") == "b:qa:twin"
    box.set(aliases={"twin": "a:twin"}, paths=box.settings.paths)
    await box.fails("twin", AmbiguousAgent)
    one, two = (write(box.home / f"c/agents/{stem}.md", name="n") for stem in ("one", "two"))
    box.set([str(box.home / "c/agents")])
    assert await box.fails("n", AmbiguousAgent) == f"'n' is more than one agent: {one}, {two}"


async def test_installed_plugins(box: Box) -> None:
    plugins = box.user / "plugins"
    used = plugin(plugins / "cache/market/used/2.0", "used", "u")
    plugin(plugins / "cache/market/used/1.0", "used", "u", "old")
    plugin(plugins / "marketplaces/market/plugins/other", "other", "o")
    local = plugin(box.home / "local", "local", "l")
    assert await box.ids() == ["other:o", "used:old", "used:u"]
    register = {"used@market": [{"scope": "user", "installPath": str(used)}],
                "local@market": {"installPath": str(local), "projectPath": str(box.project)},
                "odd@market": [3, {"installPath": 4}]}  # fmt: skip
    (plugins / "installed_plugins.json").write_text(json.dumps({"version": 2, "plugins": register}))
    box.clock.advance(1.1)
    assert await box.ids() == ["local:l", "used:u"]
    assert await box.id("used:u") == "used:u"
    assert await box.id("u", box.home) == "used:u"
    with pytest.raises(UnknownAgent):
        await box.id("l", box.home)
    (plugins / "installed_plugins.json").write_text("[")
    box.clock.advance(1.1)
    assert "other:o" in await box.ids()


async def test_relative_paths_and_the_home_in_the_configuration(box: Box) -> None:
    write(box.project / "team/a.md")
    write(box.home / "own/agents/b.md")
    write(box.project / ".claude/agents/default.md")
    box.set(["team", "~/own/agents", "nowhere", "team/../team"])
    assert await box.ids() == ["own:b", "team:a"]
    assert await box.ignored() == ["P/nowhere: cannot be read: No such file or directory"]


async def test_without_a_home_there_is_the_project(box: Box) -> None:
    write(box.project / ".claude/agents/a.md")
    catalogue = Catalogue(AgentsConfig, box.clock, None, None)
    assert (await catalogue.resolve("a", str(box.project))).id == ".claude:a"
    with pytest.raises(UnknownAgent):
        await catalogue.resolve("~/y.md", str(box.project))


async def test_files_that_change_are_read_again(box: Box) -> None:
    file = write(box.project / ".claude/agents/a.md", name="first")
    await box.id("first")
    write(file, name="second")
    # A name that is missing is looked for at once; for the rest a second may pass.
    assert await box.id("second") == ".claude:second"
    write(file, name="third", description="new")
    box.clock.advance(1.1)
    assert (await box.catalogue.resolve("a", str(box.project))).description == "new"
    file.rename(file.with_name("b.md"))
    assert await box.id("b") == ".claude:third"
    box.clock.advance(1.1)
    await box.fails("a")


async def test_what_has_not_changed_is_not_read_again(box: Box) -> None:
    write(box.project / ".claude/agents/a.md")
    before = await box.catalogue.resolve("a", str(box.project))
    box.clock.advance(1.1)
    assert await box.catalogue.resolve("a", str(box.project)) is before


async def test_many_who_ask_at_once_get_the_same(box: Box) -> None:
    write(box.project / ".claude/agents/a.md")
    found = await asyncio.gather(*[box.catalogue.resolve("a", str(box.project)) for _ in range(100)])
    assert all(agent is found[0] for agent in found)


async def test_an_unknown_name_gets_near_ones(box: Box) -> None:
    box.set([str(plugin(box.home / "p", "p", "x/linter"))], {"fixer": "linter"})
    assert await box.fails("lintr") == "there is no agent 'lintr' (did you mean 'linter'?)"
    assert await box.fails("q:linter") == "there is no agent 'q:linter' (did you mean 'p:x:linter'?)"
    assert "'fixer'" in await box.fails("fixr")
    assert "'general-purpose'" in await box.fails("general-purpos")
    assert len(await box.fails("x" * 100_000)) < 300
    assert await box.fails("") == "there is no agent ''"


async def test_what_cannot_be_used_is_named_and_holds_nobody_up(box: Box) -> None:
    agents = box.project / ".claude" / "agents"
    write(agents / "good.md")
    write(agents / "README.md")
    write(agents / ".hidden.md")
    write(agents / "notes.txt")
    write(agents / "node_modules" / "x.md")
    (agents / "big.md").write_bytes(b"x" * (frontmatter.MAX_SIZE + 1))
    (agents / "dir.md").mkdir()
    os.mkfifo(agents / "pipe.md")
    (agents / "loop.md").symlink_to("loop.md")
    (agents / "dangling.md").symlink_to("nothing")
    (agents / "up").symlink_to("..")
    (agents / "line\nfeed.md").write_text("x")
    (agents / os.fsdecode(b"\xff.md")).write_text("x")
    (agents / "null.md").symlink_to("/dev/zero")
    deep = agents.joinpath(*"abcdefghijklm")
    write(deep / "deep.md")
    async with asyncio.timeout(10):
        assert await box.ids() == [".claude:good"]
    assert sorted(await box.ignored()) == [
        "P/.claude/agents/a/b/c/d/e/f/g/h/i/j/k: more than 10 directories deep",
        "P/.claude/agents/big.md: is larger than 1 MB",
        "P/.claude/agents/dangling.md: cannot be read: No such file or directory",
        "P/.claude/agents/line\nfeed.md: a name that cannot be printed",
        "P/.claude/agents/loop.md: cannot be read: Too many levels of symbolic links",
        "P/.claude/agents/null.md: is no regular file",
        "P/.claude/agents/pipe.md: is no regular file",
        "P/.claude/agents/up/agents: leads to a directory that was read already",
        "P/.claude/agents/\ufffd.md: a name that cannot be printed",
    ]
    said = await box.fails("pipe")
    assert said == f"there is no agent 'pipe'; {agents}/pipe.md is no regular file"


@contextmanager
def without_privileges(path: Path) -> Iterator[None]:
    """Root may read everything: here it is somebody else, who can reach `path` and owns nothing there."""
    if os.geteuid() != 0:
        yield
        return
    opened = {above: mode for above in path.parents if (mode := above.stat().st_mode) & 0o011 != 0o011}
    for above, mode in opened.items():
        above.chmod(mode | 0o011)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for above, mode in opened.items():
            above.chmod(mode)


async def test_what_may_not_be_read(box: Box) -> None:
    agents = box.project / ".claude" / "agents"
    write(agents / "a.md").chmod(0)
    agents.chmod(0o755)
    write(agents / "shut" / "b.md").parent.chmod(0)
    try:
        with without_privileges(agents):
            assert await box.ignored() == [
                "P/.claude/agents/a.md: cannot be read: Permission denied",
                "P/.claude/agents/shut: cannot be read: Permission denied",
            ]
    finally:
        (agents / "shut").chmod(0o700)


@pytest.mark.parametrize("cwd", ["/nowhere", "/proc/self/mem", "/a\0b", "/a\nb", "/\udcff", "/" + "x" * 5000])
async def test_odd_directories_have_the_rest_of_the_agents(box: Box, cwd: str) -> None:
    write(box.user / "agents" / "a.md")
    assert (await box.catalogue.resolve("a", cwd)).id == ".claude:a"


async def test_links_to_directories_are_followed(box: Box) -> None:
    write(box.home / "elsewhere" / "a.md")
    (box.project / ".claude").mkdir()
    (box.project / ".claude" / "agents").symlink_to(box.home / "elsewhere")
    assert await box.id("a") == ".claude:a"


@pytest.mark.slow
async def test_a_thousand_agents_are_answered_from_memory(box: Box) -> None:
    for n in range(1000):
        write(box.user / "agents" / f"c{n % 20}" / f"agent-{n}.md", description=f"number {n}")
    assert len(await box.ids()) == 1000
    loop = asyncio.get_running_loop()
    began = loop.time()
    for n in range(1000):
        await box.catalogue.resolve(f"agent-{n}", str(box.project))
    assert loop.time() - began < 1


def test_what_is_shipped_is_in_order() -> None:
    names = [path.stem for path in SHIPPED.glob("*.md")]
    roles = {
        "requirements-analyzer", "architect", "backend-developer", "frontend-developer", "test-engineer",
        "code-reviewer", "security-auditor", "performance-analyzer", "accessibility-expert", "debugger",
        "documentation-writer", "devops-engineer", "literature-reviewer", "data-analyst", "report-generator",
        "researcher", "pattern-learner", "knowledge-researcher",
    }  # fmt: skip
    assert roles <= set(names)
    for path in SHIPPED.iterdir():
        said = frontmatter.read(path.read_bytes())
        assert (said.name, said.ignored) == (path.stem, []), path
        assert said.tools and len(said.description) > 40, path
        assert 8 <= len(said.body.splitlines()) <= 28 and "Your final message" in said.body, path
        if "Changes nothing" in said.description:
            assert not {"Edit", "Write"} & set(said.tools), path


async def test_every_role_that_commands_name_resolves(box: Box) -> None:
    for role, stand_in in STAND_INS.items():
        assert await box.id(role) == f"orchestr8d:{stand_in}"
    for space in NAMESPACES:
        assert await box.id(f"{space}:code-reviewer") == "orchestr8d:code-reviewer"
    assert await box.id("frontend-frameworks:react-specialist") == "orchestr8d:frontend-developer"
    for name in BROUGHT:
        assert await box.id(name) == name
    # A user's agent of that name wins, by whatever name the role is called.
    write(box.user / "agents" / "frontend-developer.md")
    write(box.user / "agents" / "debugger.md")
    box.clock.advance(1.1)
    assert await box.id("quality-assurance:debugger") == ".claude:debugger"
    assert await box.id("react-specialist") == ".claude:frontend-developer"
