"""The real CLI's own hooks, sent to the daemon, and the tasks that rules make of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.agents.conftest import MakeAgents, result, until
from tests.claude_cli import Claude
from tests.daemon import Daemon
from tests.messages_api import say, script, use

pytestmark = pytest.mark.slow
COMMAND = {"type": "command", "command": f"{sys.executable} -m orchestr8d hook"}
RULES = """
[[hooks]]
event = "PostToolUse"
tool_name = "Write"
[hooks.task]
command = ["cat", "{{ hook.tool_input.file_path }}"]
cwd = "{{ hook.cwd }}"
options = { title = "read {{ hook.tool_name }}" }

[[hooks]]
event = "SessionStart"
[hooks.task]
command = ["echo", "{{ hook.session_id }}"]
cwd = "/"
options = { title = "session" }
"""


def settle(claude: Claude, hooks: dict[str, Any]) -> None:
    """The user's settings, with a handler by event."""
    home = Path(claude.env["CLAUDE_CONFIG_DIR"])
    home.mkdir(exist_ok=True)
    text = json.dumps({"hooks": {event: [{"hooks": [handler]}] for event, handler in hooks.items()}})
    (home / "settings.json").write_text(text)


def made(daemon: Daemon, title: str) -> str:
    """What the one task of that title printed."""

    def found() -> list[dict[str, Any]]:
        return [t for t in daemon.request("GET", "/api/v1/tasks")[1]["tasks"] if t["title"] == title]

    (task,) = until(found)
    daemon.wait(task["id"])
    return str(result(daemon, task["id"])["result"])


def test_the_clis_hooks(make_agents: MakeAgents, claude: Claude) -> None:
    daemon = make_agents(RULES).start()
    http = {
        "type": "http", "url": f"http://127.0.0.1:{daemon.port}/hooks/claude-code",
        "headers": {"Authorization": "Bearer $ORCHESTR8_TOKEN"}, "allowedEnvVars": ["ORCHESTR8_TOKEN"],
    }  # fmt: skip
    settle(claude, {"PostToolUse": http, "PreToolUse": http, "Stop": http, "SessionStart": COMMAND})
    path = claude.cwd / "a"
    prompt = script(use("Write", file_path=str(path), content="hooked"), say("done"))
    env = {k: v for k, v in daemon.env.items() if k.startswith("ORCHESTR8")} | {"ORCHESTR8_TOKEN": daemon.token}
    ended = claude.run(prompt, "--permission-mode", "acceptEdits", PYTHONPATH=str(Path(__file__).parents[2]), **env)
    assert (ended.code, ended.result["result"]) == (0, "done")
    assert made(daemon, "read Write") == "hooked"
    assert made(daemon, "session").strip() == ended.result["session_id"]
    # The CLI found nothing wrong with the answers.
    assert not [r for r in ended.of("system", "informational") if r.get("tag") == "hook_no_verdict"]


def test_hooks_whose_daemon_is_gone_hold_nobody_up(claude: Claude, tmp_path: Path) -> None:
    settle(claude, {"SessionStart": COMMAND, "Stop": COMMAND})
    env = {"ORCHESTR8D_STATE": str(tmp_path / "nowhere"), "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = claude.run(script(say("fine")), **env)
    assert (ended.code, ended.result["result"]) == (0, "fine")
