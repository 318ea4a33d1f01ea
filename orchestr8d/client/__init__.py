"""Talks to the daemon from Python: `Client` for ordinary code, `AsyncClient` for asyncio.

    from orchestr8d.client import Client

    with Client() as client:
        task = client.submit(["make", "test"], cwd="/home/me/app", options={"timeout": "10m"})
        print(client.wait(task["task_id"])["status"])

The daemon is found as the command line finds it. Answers are the documents of the HTTP API as dictionaries. What goes
wrong is an `ApiError` (the daemon said no) or `NoDaemon` (nobody answered).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestr8d.client.answers import ApiError, ConnectionLost, NoDaemon
from orchestr8d.client.discovery import Endpoint, find

if TYPE_CHECKING:
    from orchestr8d.client.aio import AsyncClient
    from orchestr8d.client.functions import get_notifications, schedule_task, send_notification, task_async
    from orchestr8d.client.sync import Client

__all__ = [
    "ApiError", "AsyncClient", "Client", "ConnectionLost", "Endpoint", "NoDaemon", "find", "get_notifications",
    "schedule_task", "send_notification", "task_async",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """The clients come when they are asked for: not everybody has a use for asyncio, or for HTTP, and their imports."""
    if name == "Client":
        from orchestr8d.client.sync import Client

        return Client
    if name == "AsyncClient":
        from orchestr8d.client.aio import AsyncClient

        return AsyncClient
    if name in ("get_notifications", "schedule_task", "send_notification", "task_async"):
        from orchestr8d.client import functions

        return getattr(functions, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
