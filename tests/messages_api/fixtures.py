"""The fixtures that give a test the real Claude CLI and the scripted API, for `pytest_plugins`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.claude_cli import Claude
from tests.messages_api import MessagesApi


@pytest.fixture
def messages_api() -> Iterator[MessagesApi]:
    """The scripted API, on a port of its own."""
    with MessagesApi() as api:
        yield api


@pytest.fixture
def claude_env(tmp_path: Path, messages_api: MessagesApi) -> dict[str, str]:
    """All that the CLI may see: a home in tmp_path, and the scripted API as its only neighbour.

    Root adds IS_SANDBOX=1 where a test bypasses permissions.
    """
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "CLAUDE_CONFIG_DIR": str(home / ".claude"),
        "ANTHROPIC_BASE_URL": messages_api.url,
        "ANTHROPIC_API_KEY": "sk-ant-dummy",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "2",
    }


@pytest.fixture
def claude(tmp_path: Path, claude_env: dict[str, str]) -> Iterator[Claude]:
    """The CLI in an empty directory; what a test leaves running is ended."""
    cwd = tmp_path / "work"
    cwd.mkdir()
    claude = Claude(claude_env, cwd)
    yield claude
    for process in claude.started:
        process.terminate()  # not killed: its tools live in sessions of their own, and only its handler ends them
        process.communicate(timeout=10)
