"""A daemon whose agents are the real CLI, with the scripted API as their only neighbour."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.claude_cli import claude_binary
from tests.daemon import Daemon

MakeAgents = Callable[..., Daemon]
# What of the CLI's environment the daemon has itself; the rest is the runner's.
_OWN = {"PATH", "HOME", "TMPDIR", "CLAUDE_CONFIG_DIR"}


@pytest.fixture
def make_agents(make_daemon: Callable[..., Daemon], claude_env: dict[str, str]) -> MakeAgents:
    """Makes daemons (not started); `config` is added to theirs, `env` to the runner's variables."""

    def make(config: str = "", wrap: Sequence[str] = (), **env: str) -> Daemon:
        runner = {name: value for name, value in claude_env.items() if name not in _OWN} | env
        lines = [f"{name} = {json.dumps(value)}" for name, value in runner.items()]
        head = f'[runners.claude]\nbin = "{claude_binary()}"\n[runners.claude.env]\n'
        own = {name: value for name, value in claude_env.items() if name in _OWN}
        return make_daemon(head + "\n".join(lines) + "\n" + config, env=own, wrap=wrap)

    return make


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Where the agents work."""
    path = tmp_path / "work"
    path.mkdir()
    return path


def ask(daemon: Daemon, cwd: Path, prompt: str, **options: Any) -> str:
    """The id of an agent's task that was accepted."""
    body = {"agent": "general-purpose", "prompt": prompt, "cwd": str(cwd), "options": options}
    status, answer = daemon.request("POST", "/api/v1/tasks", body)
    assert status == 202, (status, answer)
    return str(answer["task_id"])


def result(daemon: Daemon, task_id: str) -> dict[str, Any]:
    status, answer = daemon.request("GET", f"/api/v1/tasks/{task_id}/result")
    assert status == 200, (status, answer)
    return answer  # type: ignore[no-any-return]


def until(what: Callable[[], Any], timeout: float = 30) -> Any:
    end = time.monotonic() + timeout
    while not (got := what()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)
    return got
