"""Talks to the daemon from Python: `Client` for ordinary code, `AsyncClient` for asyncio.

    from orchestr8d.client import Client

    with Client() as client:
        task = client.submit(["make", "test"], cwd="/home/me/app", options={"timeout": "10m"})
        print(client.wait(task["task_id"])["status"])

The daemon is found as the command line finds it. Answers are the documents of the HTTP API as dictionaries. What goes
wrong is an `ApiError` (the daemon said no) or `NoDaemon` (nobody answered).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestr8d.client.answers import ApiError, ConnectionLost, NoDaemon
from orchestr8d.client.discovery import Endpoint, find
from orchestr8d.client.sync import Client

if TYPE_CHECKING:
    from orchestr8d.client.aio import AsyncClient

__all__ = ["ApiError", "AsyncClient", "Client", "ConnectionLost", "Endpoint", "NoDaemon", "find"]


def __getattr__(name: str) -> type[AsyncClient]:
    """AsyncClient comes when it is asked for: the command line has no use for asyncio and its import."""
    if name != "AsyncClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from orchestr8d.client.aio import AsyncClient

    return AsyncClient
