"""The records that the CLI writes, one a line: decoded, and read without trust in their shape."""

from __future__ import annotations

import json
from typing import Any

import msgspec

Record = dict[str, Any]
# A larger number is nobody's count or time.
_MOST = 1e15


def decode(line: bytes) -> Record | None:
    """The record in a line; None for a line that is none."""
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        record = _mended(line)
    except RecursionError:
        return None
    return record if isinstance(record, dict) else None


def _mended(line: bytes) -> object:
    """JavaScript writes halves of surrogate pairs, which no text in UTF-8 can hold: they become question marks."""
    try:
        text = json.dumps(json.loads(line.decode(errors="replace")), ensure_ascii=False)
        return msgspec.json.decode(text.encode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def blocks(message: Record, kind: str) -> list[Record]:
    """The blocks of this kind in a message."""
    content = message.get("content")
    return [b for b in content if isinstance(b, dict) and b.get("type") == kind] if isinstance(content, list) else []


def part(record: Record, name: str) -> Record:
    value = record.get(name)
    return value if isinstance(value, dict) else {}


def text(record: Record, name: str) -> str | None:
    value = record.get(name)
    return value if isinstance(value, str) else None


def number(record: Record, name: str) -> float:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0
    return value if abs(value) < _MOST else 0
