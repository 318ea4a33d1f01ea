"""What can go wrong, as a user is told it: one typed error with all faults, mapped to HTTP and exit codes elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Literal

import msgspec

Kind = Literal[
    "invalid",        # 400: bad JSON or fields
    "unauthorized",   # 401
    "forbidden",      # 403
    "not-found",      # 404
    "method-not-allowed",  # 405
    "conflict",       # 409: wrong state, or a key that is taken
    "gone",           # 410: a cursor older than what is kept
    "too-large",      # 413
    "unsupported-media-type",  # 415
    "unprocessable",  # 422: well-formed, but cannot be
    "rate-limited",   # 429: queue full
    "unavailable",    # 503: draining, store busy or full
]

STATUS: dict[str, int] = {
    "invalid": 400, "unauthorized": 401, "forbidden": 403, "not-found": 404, "method-not-allowed": 405,
    "conflict": 409, "gone": 410, "too-large": 413, "unsupported-media-type": 415, "unprocessable": 422,
    "rate-limited": 429, "unavailable": 503,
}  # fmt: skip

# So many faults are listed; whoever has more begins with these.
MOST_FAULTS = 100
# In characters: what is quoted of an input is cut, and a name that is long has no near one.
_LONGEST = 500
_LONGEST_NAME = 100


class Fault(msgspec.Struct, frozen=True):
    """One thing wrong with an input, at a path such as `tasks[7].options.priority`."""

    path: str
    message: str
    kind: Kind = "invalid"


class Problem(Exception):
    """A request that cannot be carried out; `kind` decides the HTTP status, `faults` list all that is wrong."""

    def __init__(
        self, kind: Kind, detail: str, faults: Sequence[Fault] = (), retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.kind: Kind = kind
        self.detail = detail
        self.faults = tuple(faults)
        self.retry_after = retry_after

    @property
    def status(self) -> int:
        return STATUS[self.kind]


class LeaseLost(Exception):
    """A finish by someone who no longer holds the attempt: nothing was changed."""


def enough(faults: Sequence[Fault]) -> bool:
    """Whether more than what is listed is known to be wrong: there is no use in looking further."""
    return len(faults) > MOST_FAULTS


def refuse(faults: Sequence[Fault]) -> None:
    """Raise one Problem for all faults, if there are any. A fault that means 400 wins over those that mean 422."""
    if not faults:
        return
    worst = min(faults, key=lambda f: STATUS[f.kind])
    listed = [Fault(_short(fault.path), _short(fault.message), fault.kind) for fault in faults[:MOST_FAULTS]]
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if enough(faults):
        more = " (and many more)"
        listed.append(Fault("", f"there is more: the first {MOST_FAULTS} faults are listed", worst.kind))
    first = listed[0]
    raise Problem(worst.kind, f"{first.path}: {first.message}{more}" if first.path else first.message + more, listed)


def _short(text: str) -> str:
    """Names and values of the input stand in what is said of them, and they may be as long as the input."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """` (did you mean 'x'?)` for the nearest known name, else nothing."""
    if len(name) > _LONGEST_NAME:
        return ""
    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
