"""Durations, times and sizes as users write them, and as the API answers them."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from orchestr8d.core import patterns

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}
_DURATION = re.compile(patterns.DURATION)
_SIZE = re.compile(r" *([0-9]{1,18}(?:\.[0-9]{1,18})?) *([kmgt]?b?) *", re.IGNORECASE)
_RATE = re.compile(patterns.RATE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Past this, a due time would leave the range of a datetime.
MAX_SECONDS = 100_000 * 86400.0


def seconds(value: str | float) -> float:
    """`90`, `"90s"`, `"15m"`, `"2h"`, `"3d"` in seconds. ValueError for anything else, negatives and NaN included."""
    if isinstance(value, str):
        if not is_duration(value):
            raise ValueError('expected seconds as a number, or a duration like "90s", "15m", "2h", "3d"')
        value = float(value[:-1]) * _UNITS[value[-1]]
    if not 0 <= value <= MAX_SECONDS:
        raise ValueError("expected a duration between 0 and 100,000 days")
    return float(value)


def is_duration(text: str) -> bool:
    return _DURATION.fullmatch(text) is not None


def size(value: str | int) -> int:
    """`104857600`, `"100 MB"`, `"16MB"` in bytes; a MB is 1,048,576 bytes."""
    if isinstance(value, int):
        if value < 0:
            raise ValueError("expected a size of 0 or more")
        return value
    m = _SIZE.fullmatch(value)
    if not m:
        raise ValueError('expected bytes as a number, or a size like "16 MB"')
    unit = m[2].lower()
    return int(float(m[1]) * _SIZES[unit if unit in _SIZES else unit + "b"])


def rate(value: str) -> tuple[int, float]:
    """`"30/m"` as (30 starts, 60.0 seconds); `"5/10s"` too."""
    m = _RATE.fullmatch(value)
    if not m:
        raise ValueError('expected starts per time, like "30/m", "2/s" or "5/10m"')
    return int(m[1]), float(int(m[2] or 1) * _UNITS[m[3]])


def iso(ms: int | None) -> str | None:
    """Milliseconds since the epoch as `2026-03-01T09:00:00.000Z`."""
    if ms is None:
        return None
    whole, part = divmod(ms, 1000)
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{part:03d}Z"


def parse_time(value: str) -> int:
    """A time with any offset, never without one, as milliseconds since the epoch. ValueError says what is wrong."""
    try:
        t = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError("expected a time like 2026-03-01T09:00:00Z or 2026-03-01T10:00:00+01:00") from None
    if t.tzinfo is None:
        raise ValueError("a time needs an offset: add Z, or one like +01:00")
    ms = (t - _EPOCH).total_seconds() * 1000
    if not 0 <= ms <= 253_370_764_800_000:
        raise ValueError("expected a time between 1970 and 9998")
    return round(ms)


def span(seconds: float | None) -> str:
    """A length of time in at most two units: `0.4s`, `12s`, `3m05s`, `2h10m`, `4d6h`."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole // 60 % 60:02d}m"
    return f"{whole // 86400}d{whole // 3600 % 24}h"
