"""Verbs without a client to be held: each finds the daemon, says its word and goes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from orchestr8d.client.answers import Json
from orchestr8d.client.schedule_requests import Rule
from orchestr8d.client.sync import Client
from orchestr8d.clock import SystemClock
from orchestr8d.core.ids import uuid7

# Among the options of `schedule_task`, what is the schedule's and not its tasks'.
_OF_SCHEDULES: Final = ("name", "timezone", "catch_up", "catch_up_window", "overlap", "jitter", "active")


def task_async(agent_definition: str, prompt: str, options: Mapping[str, object] | None = None) -> Json:
    """Gives `prompt` to an agent (its name, or the path of its file) in the current directory, and waits for nothing:
    `{"task_id", "status", "check_status_url", …}` once the task is on disk."""
    with Client() as client:
        return client.submit(agent=agent_definition, prompt=prompt, cwd=str(Path.cwd()), options=options)


def schedule_task(
    agent_definition: str, prompt: str, schedule: Rule, options: Mapping[str, object] | None = None
) -> str:
    """Gives `prompt` to an agent in the current directory whenever `schedule` is due: `"0 9 * * MON"`, `"@every 2h"`,
    `{"at": TIME}`; the schedule's id once it is on disk. `options` are those of its tasks, and the schedule's own:
    `name` (else one is made of the agent's), `timezone`, `catch_up`, `catch_up_window`, `overlap`, `jitter`, `active`.
    """
    given = dict(options or {})
    own: dict[str, Any] = {name: given.pop(name) for name in _OF_SCHEDULES if name in given}
    task = {"agent": agent_definition, "prompt": prompt, "cwd": str(Path.cwd()), "options": given}
    with Client() as client:
        made = client.add_schedule(str(own.pop("name", None) or _name(agent_definition)), schedule, task=task, **own)
    return str(made["schedule_id"])


def _name(agent: str) -> str:
    """A name for the schedule of an agent, such as `reviewer-4c1f0a9e`."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", Path(agent).stem).strip("-")[:100]
    return f"{words or 'agent'}-{uuid7(SystemClock().now())[-8:]}"


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
