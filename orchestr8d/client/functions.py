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


def send_notification(
    user_id: str,
    notification_type: str,
    message: str,
    workflow_id: str | None = None,
    metadata: Mapping[str, object] | None = None,
) -> str:
    """Tells a user something; the notification's id once it is on disk."""
    with Client() as client:
        sent = client.send_notification(
            user_id, notification_type, message, workflow_id=workflow_id, metadata=metadata
        )  # fmt: skip
    return str(sent["notification_id"])


def get_notifications(user_id: str, workflow_id: str | None = None) -> list[Json]:
    """What a user was told, newest first."""
    with Client() as client:
        return client.get_notifications(user_id=user_id, workflow_id=workflow_id)
