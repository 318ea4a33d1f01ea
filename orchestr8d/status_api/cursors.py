"""Cursors of lists: opaque, safe in a URL, and known again; one that was made up is refused."""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

import msgspec

from orchestr8d.core.errors import Fault, Problem

T = TypeVar("T")


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much of a list is wanted, and from where on."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50
    cursor: str | None = None


def make(what: str, position: str) -> str:
    data = position.encode()
    return urlsafe_b64encode(_seal(what, data) + data).decode().rstrip("=")


def read(what: str, cursor: str) -> str:
    """The position that `make` was given. Raises Problem for anything else."""
    try:
        data = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        position = data[6:].decode()
    except ValueError:
        raise _refused() from None
    if make(what, position) != cursor:
        raise _refused()
    return position


def read_int(what: str, cursor: str | None) -> int | None:
    return None if cursor is None else int(read(what, cursor))


def page(
    what: str, items: Sequence[T], key: Callable[[T], str], wanted: Page, *, newest_first: bool = False
) -> tuple[list[T], str | None]:
    """One page of a list that is small enough to be held whole, by the order of its keys."""
    ordered = sorted(items, key=key, reverse=newest_first)
    if wanted.cursor is not None:
        after = read(what, wanted.cursor)
        ordered = [item for item in ordered if (key(item) < after if newest_first else key(item) > after)]
    shown = ordered[: wanted.limit]
    return shown, make(what, key(shown[-1])) if len(shown) < len(ordered) else None


def _seal(what: str, data: bytes) -> bytes:
    return hashlib.blake2s(data, key=what.encode(), digest_size=6).digest()


def _refused() -> Problem:
    return Problem("invalid", "cursor: not one that this list gave", [Fault("cursor", "not one that this list gave")])
