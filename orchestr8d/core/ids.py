"""UUIDv7 (RFC 9562, section 5.7) as text: ordered by time, so that indexes grow at their end."""

from __future__ import annotations

import os


def uuid7(now_ms: int) -> str:
    """A fresh id for the given wall-clock time in milliseconds."""
    rand = os.urandom(10).hex()
    t = f"{now_ms & 0xFFFFFFFFFFFF:012x}"
    variant = "89ab"[int(rand[3], 16) & 3]
    return f"{t[:8]}-{t[8:]}-7{rand[0:3]}-{variant}{rand[4:7]}-{rand[7:19]}"
