"""`orchestr8d agents`, and the client's verbs for it, against a daemon with a home of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestr8d.client import ApiError, AsyncClient, Client
from tests.cli.conftest import Box

pytestmark = pytest.mark.slow


@pytest.fixture
def project(box: Box) -> Iterator[Path]:
    """A project with an agent, beside one of the user's."""
    project = box.state.parent / "app"
    for root, name in ((project, "qa/mine"), (box.state.parent, "own")):
        path = root / ".claude" / "agents" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"---\ndescription: Does {name}\nhint: [a] [b]\ntools: Read, Grep\n---\nDo it.\n")
    return project


def test_the_list(box: Box, project: Path) -> None:
    lines = box.out("agents", cwd=project).splitlines()
    assert lines[0].split() == ["NAME", "ID", "MODEL", "DESCRIPTION"]
    [mine] = [line for line in lines if line.startswith("mine ")]
    assert mine.split() == ["mine", ".claude:qa:mine", "-", "Does", "qa/mine"]
    assert any(line.startswith("code-reviewer ") for line in lines)
    elsewhere = json.loads(box.out("agents", "--json", "--cwd", str(project / "..")))["agents"]
    names = [agent["name"] for agent in elsewhere]
    assert "own" in names and "mine" not in names


def test_one_agent(box: Box, project: Path) -> None:
    fields = dict(line.split(maxsplit=1) for line in box.out("agents", "show", "mine", cwd=project).splitlines())
    assert fields == {
        "name": "mine", "id": ".claude:qa:mine", "path": str(project / ".claude/agents/qa/mine.md"),
        "tools": "Read, Grep", "description": "Does qa/mine", "ignored": "hint: not valid YAML",
    }  # fmt: skip
    shown = json.loads(box.out("agents", "show", "--json", "./.claude/agents/qa/mine.md", cwd=project))
    assert shown["id"] == ".claude:qa:mine"
    assert "tools        all" in box.out("agents", "show", "general-purpose")
    assert "did you mean 'mine'" in box.run("agents", "show", "mien", code=4, cwd=project).stderr


def test_the_clients(box: Box, project: Path) -> None:
    with box.client() as client:
        assert ".claude:qa:mine" in [agent["id"] for agent in client.agents(str(project))]
        assert client.agent("mine", str(project))["tools"] == ["Read", "Grep"]
        with pytest.raises(ApiError, match="no agent"):
            client.agent("mine")

    async def both() -> None:
        async with AsyncClient(box.endpoint) as client:
            assert (await client.agent(".claude:own"))["name"] == "own"
            assert "own" in [agent["name"] for agent in await client.agents()]

    asyncio.run(both())


def test_a_reload_brings_new_aliases(fresh: Box) -> None:
    fresh.start()
    with fresh.client() as client:
        with pytest.raises(ApiError):
            client.agent("checker")
        fresh.config.write_text('[agents.aliases]\nchecker = "code-reviewer"\n')
        os.kill(fresh.pid, signal.SIGHUP)
        assert _until_known(client, "checker") == "orchestr8d:code-reviewer"


def test_without_a_daemon_it_says_so(fresh: Box) -> None:
    assert "orchestr8d serve" in fresh.run("agents", code=3).stderr


def _until_known(client: Client, name: str) -> object:
    end = time.monotonic() + 10
    while True:
        try:
            return client.agent(name)["id"]
        except ApiError:
            assert time.monotonic() < end
            time.sleep(0.01)
