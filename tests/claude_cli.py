"""The real Claude CLI for tests: where it is, and a way to run it to its end.

The fixtures are in `messages_api/fixtures.py`.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

# Instead of the key: the login of a subscription. Its CLI also reports limits, in `rate_limit_event` records.
SUBSCRIPTION = {"ANTHROPIC_API_KEY": "", "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat01-dummy"}


def claude_binary() -> Path:
    """The CLI that comes inside of claude-agent-sdk."""
    spec = find_spec("claude_agent_sdk")
    assert spec is not None and spec.origin is not None, "claude-agent-sdk is missing: install the extra `test`"
    return Path(spec.origin).parent / "_bundled/claude"


def noted(env: Mapping[str, str], text: str) -> bool:
    """Whether a CLI of this environment has `text` in its own record of a conversation: it writes that behind its
    work, and one that is killed before knows nothing of it."""
    return any(text in path.read_text() for path in Path(env["CLAUDE_CONFIG_DIR"], "projects").glob("*/*.jsonl"))


class Ended(msgspec.Struct, frozen=True):
    """A run of the CLI after its end."""

    code: int
    records: list[dict[str, Any]]
    stderr: str

    def of(self, kind: str, subtype: str | None = None) -> list[dict[str, Any]]:
        return [r for r in self.records if r["type"] == kind and subtype in (None, r.get("subtype"))]

    @property
    def result(self) -> dict[str, Any]:
        return self.of("result")[-1]


class Running(msgspec.Struct, frozen=True):
    process: subprocess.Popen[str]

    def record(self, kind: str) -> dict[str, Any]:
        """The next record of that type, when it comes; those before it are passed over."""
        assert self.process.stdout is not None
        return next(r for r in map(json.loads, iter(self.process.stdout.readline, "")) if r["type"] == kind)

    def end(self, seconds: float = 30.0) -> Ended:
        out, err = self.process.communicate(timeout=seconds)
        return Ended(self.process.returncode, [json.loads(line) for line in out.splitlines()], err)


class Claude:
    """Runs the CLI as the runner does: headless, its prompt on stdin, records on stdout."""

    def __init__(self, env: dict[str, str], cwd: Path) -> None:
        self.env = env
        self.cwd = cwd
        self.started: list[subprocess.Popen[str]] = []

    def start(self, prompt: str, *args: str, **env: str) -> Running:
        with tempfile.TemporaryFile() as stdin:
            stdin.write(prompt.encode())
            stdin.seek(0)
            process = subprocess.Popen(
                [str(claude_binary()), "-p", "--output-format", "stream-json", "--verbose", *args],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=self.cwd,
                env=self.env | env,
            )
        self.started.append(process)
        return Running(process)

    def run(self, prompt: str, *args: str, **env: str) -> Ended:
        return self.start(prompt, *args, **env).end()
