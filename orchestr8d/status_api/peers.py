"""Who is at the other end of the Unix socket: asked of the kernel, once per connection."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from weakref import WeakKeyDictionary

from orchestr8d.core.errors import Problem
from orchestr8d.tokens import Caller, attempt_caller

_CREDENTIALS = struct.Struct("3i")
_OWNER = Caller(token_id="socket", name="socket", scope="admin")  # noqa: S106 (an id, no secret)


class Peers:
    """Callers by connection. Only the daemon's own user and root may use the socket."""

    def __init__(self, attempt_of: Callable[[int], str | None]) -> None:
        self._attempt_of = attempt_of
        self._known: WeakKeyDictionary[asyncio.BaseTransport, Caller] = WeakKeyDictionary()

    def caller(self, transport: asyncio.BaseTransport) -> Caller:
        """Admin, or the attempt inside which the peer lives. Raises Problem for another user."""
        known = self._known.get(transport)
        if known is None:
            known = self._known[transport] = self._identify(transport)
        return known

    def _identify(self, transport: asyncio.BaseTransport) -> Caller:
        end = transport.get_extra_info("socket")
        pid, uid, _ = _CREDENTIALS.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if uid not in (os.getuid(), 0):
            raise Problem("forbidden", "this socket is for the user that the daemon runs as")
        attempt_id = self._attempt_of(pid) if pid else None
        return _OWNER if attempt_id is None else attempt_caller(attempt_id)


def is_unix(transport: asyncio.BaseTransport) -> bool:
    return not isinstance(transport.get_extra_info("sockname"), tuple)
