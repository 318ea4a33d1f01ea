"""Verbs without a client to be held: each finds the daemon, says its word and goes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orchestr8d.client.answers import Json
from orchestr8d.client.sync import Client


def task_async(agent_definition: str, prompt: str, options: Mapping[str, object] | None = None) -> Json:
    """Gives `prompt` to an agent (its name, or the path of its file) in the current directory, and waits for nothing:
    `{"task_id", "status", "check_status_url", …}` once the task is on disk."""
    with Client() as client:
        return client.submit(agent=agent_definition, prompt=prompt, cwd=str(Path.cwd()), options=options)
