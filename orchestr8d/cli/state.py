"""What the state directory tells of its daemon without asking it over HTTP."""

from __future__ import annotations

import socket
import struct
from pathlib import Path


def daemon_pid(state: Path) -> int | None:
    """The pid of the daemon that listens on this state directory's socket; None when nobody does."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(state / "orchestr8d.sock"))
            peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        except OSError:
            return None
    pid: int = struct.unpack("3i", peer)[0]
    return pid
