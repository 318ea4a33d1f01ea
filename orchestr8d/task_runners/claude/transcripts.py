"""The CLI's own record of a conversation, which tells whether it can be taken up again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from orchestr8d.task_runners.claude.records import Record, decode


def begun(env: Mapping[str, str], session_id: str) -> bool:
    """Whether the CLI that runs in this environment can take the conversation up. Blocks."""
    return any(_has_messages(path) for path in _files(env, session_id))


def forget(env: Mapping[str, str], session_id: str) -> None:
    """Removes what a CLI left that was killed before its first message: with it, another can neither take up nor
    begin a conversation of that id."""
    for path in _files(env, session_id):
        path.unlink(missing_ok=True)


def costs(env: Mapping[str, str], session_id: str) -> Record:
    """What the conversation had cost when a CLI last ended in good order, be it that it was asked to. Blocks."""
    found = b""
    for path in _files(env, session_id):
        with suppress(FileNotFoundError), path.open("rb") as lines:
            for line in lines:
                if line.startswith(b'{"type":"cost-state"'):
                    found = line
    return decode(found) or {}


def _files(env: Mapping[str, str], session_id: str) -> list[Path]:
    home = env.get("CLAUDE_CONFIG_DIR") or (f"{env['HOME']}/.claude" if env.get("HOME") else None)
    # The id is ours, not a pattern.
    return [] if home is None else list(Path(home, "projects").glob(f"*/{session_id}.jsonl"))


def _has_messages(path: Path) -> bool:
    try:
        with path.open("rb") as lines:
            # Not within a text: there the quotes would be escaped. A torn line is none to the CLI.
            return any(b'"type":"user"' in line and line.endswith(b"\n") for line in lines)
    except FileNotFoundError:
        return False
