"""What names, durations and rates look like: each pattern stands here once, to be matched by the whole text."""

from __future__ import annotations

from typing import Final

from msgspec import Meta

# Whatever it takes is below durations.MAX_SECONDS: the pattern in a schema is all that needs to be checked.
DURATION: Final = r"[0-9]{1,9}s|[0-9]{1,8}m|[0-9]{1,6}h|[0-9]{1,5}d"
RATE: Final = r"([1-9][0-9]{0,5})/([1-9][0-9]{0,5})?([smhd])"
NAME: Final = r"[A-Za-z0-9][A-Za-z0-9_.:@-]{0,127}"
ENV_NAME: Final = r"[A-Za-z_][A-Za-z0-9_]*"
# Of a phase or task in its workflow.
LOCAL_ID: Final = r"[A-Za-z_][A-Za-z0-9_-]{0,63}"


def whole(pattern: str, expected: str | None = None) -> Meta:
    """For a string that is `pattern` from end to end; `expected` is what whoever sends another one is told.

    Python's `$` would let a line break pass at the end.
    """
    return Meta(pattern=rf"^(?:{pattern})\Z", extra=None if expected is None else {"expected": expected})


def for_schema(pattern: str) -> str:
    """The same in the dialect of JSON Schema, which has no `\\Z` and whose `$` is the very end."""
    return pattern.removesuffix(r"\Z") + "$" if pattern.endswith(r"\Z") else pattern
