"""When a delivery is tried again: the steps of a ladder, what the other end asks for, and some jitter."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

# The most that the other end can ask for.
LONGEST: Final = 24 * 3600.0
# Of each wait, at most so much is added.
_JITTER: Final = 0.2


def wait(ladder: Sequence[float], retry: int, draw: float, asked: float | None = None) -> float | None:
    """Seconds before retry number `retry` (1 is the first); None after the last step. `draw` is a random number in
    [0, 1); `asked` is what the other end wants at least. Jitter never shortens a wait."""
    if retry > len(ladder):
        return None
    least = max(ladder[retry - 1], min(asked or 0.0, LONGEST))
    return least + least * _JITTER * draw


def retry_after(header: str | None, now: int) -> float | None:
    """Seconds, of a Retry-After with seconds or a date; None for none, and for one that says neither."""
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]+", text):
        return min(float(text[:12]), LONGEST)
    try:
        date = parsedate_to_datetime(text)
        # The zone `-0000`, and none, are UTC; a datetime without one would be of this machine's.
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return min(max(0.0, date.timestamp() - now / 1000), LONGEST)
    except (ValueError, OverflowError):
        return None
