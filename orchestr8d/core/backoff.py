"""How long to wait before a retry."""

from __future__ import annotations

from orchestr8d.core.model import Backoff


def delay(backoff: Backoff, retry: int, draw: float) -> float:
    """Seconds before retry number `retry` (1 is the first); `draw` is a random number in [0, 1).

    Jitter is equal jitter: half of the delay is fixed, the other half is drawn, so that a crowd spreads out and
    nobody comes back at once. The result is within (0, cap] for a positive base.
    """
    if backoff.kind == "fixed":
        wait = backoff.base
    elif backoff.kind == "linear":
        wait = backoff.base * retry
    else:
        # 2.0 ** 1024 overflows; the cap is reached long before.
        wait = backoff.base * 2.0 ** min(retry - 1, 64)
    wait = min(wait, backoff.cap)
    return wait / 2 + draw * wait / 2 if backoff.jitter else wait
