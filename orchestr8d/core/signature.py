"""Signatures of what is sent out, as https://www.standardwebhooks.com has them: HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from typing import Final

PREFIX: Final = "whsec_"
# In bytes: what the specification allows for a key.
_SHORTEST, _LONGEST = 24, 64


def make_secret(random: bytes) -> str:
    """The text of a secret, of 24 to 64 random bytes."""
    return PREFIX + b64encode(random).decode()


def key(secret: str) -> bytes:
    """The key that a secret stands for. ValueError says what is expected."""
    try:
        raw = b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:
        raw = b""
    if not secret.startswith(PREFIX) or not _SHORTEST <= len(raw) <= _LONGEST:
        raise ValueError(f"expected {PREFIX} and {_SHORTEST} to {_LONGEST} bytes in base64")
    return raw


def sign(secrets: Iterable[str], message_id: str, seconds: int, body: bytes) -> str:
    """The signature header: one for each secret, so that a receiver that knows any of them is content."""
    signed = f"{message_id}.{seconds}.".encode() + body
    return " ".join(f"v1,{b64encode(hmac.digest(key(s), signed, hashlib.sha256)).decode()}" for s in secrets)


def headers(secrets: Iterable[str], message_id: str, now: int, body: bytes) -> Mapping[str, str]:
    """What one attempt at `now` (wall-clock milliseconds) carries beside the body."""
    seconds = now // 1000
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": sign(secrets, message_id, seconds, body),
    }
