"""`orchestr8d hook`: passes a hook of Claude Code on to the daemon. Whatever happens, the session is not disturbed."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from orchestr8d.client.discovery import Endpoint

# Seconds: to reach the daemon, and to be answered by one that is there.
REACH = 0.05
ANSWER = 2.0


# Exit code 2 would block what the session does: not even a wrong argument may lead to it.
@click.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    epilog='Example: {"type": "command", "command": "orchestr8d hook"} in a settings.json',
)
def hook() -> None:
    """Pass on what stdin has, a hook of Claude Code.

    Prints nothing and exits with 0 always, also when no daemon runs: it is no part of what the session does.
    """
    with contextlib.suppress(Exception):
        body = sys.stdin.buffer.read()
        from orchestr8d.client.discovery import find

        _send(body, find(os.environ))


def _send(body: bytes, to: Endpoint) -> None:
    """One request by hand: importing an HTTP client takes a third of the time that a session can be held up for."""
    host = f"[{to.host}]" if ":" in to.host else to.host
    head = [f"POST {to.prefix}/hooks/claude-code HTTP/1.1", f"Host: {host}:{to.port}" if to.port else "Host: localhost",
            "Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close"]  # fmt: skip
    if to.token:
        head.append(f"Authorization: Bearer {to.token}")
    with _connected(to) as connection:
        connection.settimeout(ANSWER)
        connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
        connection.recv(1)


def _connected(to: Endpoint) -> socket.socket:
    if to.socket is not None:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(REACH)
        connection.connect(to.socket)
        return connection
    connection = socket.create_connection((to.host, to.port), REACH)
    if not to.tls:
        return connection
    import ssl

    connection.settimeout(ANSWER)
    return ssl.create_default_context().wrap_socket(connection, server_hostname=to.host)
