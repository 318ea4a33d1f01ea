"""Hooks as Claude Code sends them, one of each event and tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SAMPLES: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parent / "data" / "claude_hooks.jsonl").read_text().splitlines()
]


def sample(event: str, **changes: Any) -> dict[str, Any]:
    return next(hook for hook in SAMPLES if hook["hook_event_name"] == event) | changes
