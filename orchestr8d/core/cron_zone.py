"""Time zones: by name, and as stretches of time in which a wall clock runs on undisturbed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import cache, lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from orchestr8d.core.errors import did_you_mean

# In seconds. Nowhere were two changes closer than a week since 1901: between two looks there is one at most, and none
# within what a fold shows again.
_LOOK: Final = 2 * 86400
_PIECE: Final = 1 << 21
# What a datetime can hold, with a day for a zone's offset.
_FIRST: Final = -62_135_510_400
_LAST: Final = 253_402_214_400


class Stretch(NamedTuple):
    """From `begin` to before `end`, in seconds since 1970, the wall clock is `offset` ahead of UTC."""

    begin: int
    end: int
    offset: int
    edge: int
    """The wall time that was reached before `begin`: below its own first one after a gap, above it after a fold."""


def zone(name: str) -> tzinfo:
    """From the system's data, else from the package tzdata. ValueError says which names are near."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        expected = f"expected one like 'Europe/Berlin'{_near(name)}"
        raise ValueError(f"there is no time zone {name[:100]!r}: {expected}") from None


@lru_cache(256)
def _near(name: str) -> str:
    known = _known()
    if found := known.get(_simple(name)):
        return f" (did you mean {found!r}?)"
    # Of short ones the nearest is another: CEST is not EST.
    return did_you_mean(name, [*known.values()]) if len(name) > 5 else ""


@cache
def _known() -> dict[str, str]:
    """Zones by their name, and by that of the place alone, as people may write it."""
    names = sorted(available_timezones())
    return {_simple(name.rpartition("/")[2]): name for name in names} | {_simple(name): name for name in names}


def _simple(name: str) -> str:
    return name.strip().lower().replace(" ", "_")


def stretches(where: tzinfo, at: int) -> Iterator[Stretch]:
    """The one that `at` is in, and all that follow. Stretches end where the clock is changed, and sometimes before."""
    piece = at // _PIECE
    found = _stretches(where, piece)
    n = bisect_right(found, at, key=lambda stretch: stretch.begin) - 1
    while True:
        yield from found[n:]
        piece, n = piece + 1, 0
        found = _stretches(where, piece)


@lru_cache(8192)
def _stretches(where: tzinfo, piece: int) -> tuple[Stretch, ...]:
    first, last = piece * _PIECE, (piece + 1) * _PIECE
    # What a fold before the piece reached counts within it.
    begin = first - 2 * _LOOK
    offset = _offset(where, begin)
    edge = begin + offset
    found = []
    for end, following in (*_changes(where, begin, last), (last, 0)):
        if begin < first < end:
            begin, edge = first, max(edge, first + offset)
        if end > first:
            found.append(Stretch(begin, end, offset, edge))
        begin, edge, offset = end, end + offset, following
    return tuple(found)


def _changes(where: tzinfo, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """When the clock is changed, after `begin` and before `end`, and what its offset is from then on."""
    at, offset = begin, _offset(where, begin)
    while at < end - 1:
        look = min(at + _LOOK, end - 1)
        if _offset(where, look) == offset:
            at = look
            continue
        while look - at > 1:
            middle = (at + look) // 2
            if _offset(where, middle) == offset:
                at = middle
            else:
                look = middle
        at, offset = look, _offset(where, look)
        yield at, offset


def _offset(where: tzinfo, at: int) -> int:
    ahead = datetime.fromtimestamp(min(max(at, _FIRST), _LAST), where).utcoffset()
    assert ahead is not None
    return int(ahead.total_seconds())
