"""What a template may use up: steps and sizes are counted while it is evaluated, so that none can hold anybody up."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from itertools import islice
from typing import Any, Final

import msgspec
from msgspec import Struct

from orchestr8d.core.errors import did_you_mean

_JSON = msgspec.json.Encoder()
# Texts of more bytes do not belong into a command or a prompt.
LONG: Final = 32 << 10
# Past this many bits a number is of no use to a task.
_BITS = 128
# So many characters cost as much as one step.
_STEP = 512
# Among so many names a near one is looked for.
MOST_KNOWN = 200


class Limits(Struct, frozen=True):
    """For all templates of one value together. `size`: bytes of text, written or made on the way. `steps` stand for
    time without a clock, so that a template that passes always passes: 50,000 take less than 100 ms."""

    size: int = 256 << 10
    steps: int = 50_000
    depth: int = 60
    tokens: int = 10_000


class TemplateError(Exception):
    """A template that cannot be rendered; `path` is where it stands in the value (`command[2]`)."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path
        self.message = message


class Wrong(Exception):
    """Why a template cannot be evaluated, as a sentence for a person."""


class Missing(Struct, frozen=True):
    """Stands for a value that is not there; using it is an error that says `message`, and which of `known` is near."""

    message: str
    name: str = ""
    known: Collection[str] = ()

    def wrong(self) -> Wrong:
        return Wrong(self.message + did_you_mean(self.name, list(islice(self.known, MOST_KNOWN))))


def size(text: str) -> int:
    """In bytes."""
    return len(text) if text.isascii() else len(text.encode(errors="replace"))


def is_long(text: str) -> bool:
    return len(text) > LONG or (len(text) * 4 > LONG and size(text) > LONG)


class Work:
    """Counts what one rendering uses. Every method raises Wrong when that is too much."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        # What becomes of a text of more than LONG bytes that an expression gives.
        self.place: Callable[[str], str] | None = None
        self._left = limits.steps
        # Bytes of what came out.
        self.written = 0

    def spend(self, steps: int = 1) -> None:
        self._left -= steps
        if self._left < 0:
            raise Wrong(f"too much work: more than {self.limits.steps:,} steps")

    @property
    def spent(self) -> int:
        """Steps that were taken."""
        return self.limits.steps - self._left

    def write(self, text: str) -> str:
        """A part of the output."""
        self.written += len(text) if text.isascii() else len(text.encode())
        if self.written > self.limits.size:
            raise self.too_long()
        return text

    def text(self, value: Any) -> str:
        """A string as it is, anything else as JSON."""
        if type(value) is str:
            return self.short(value)
        if self._walk(value) > self.limits.size:
            raise self.too_long()
        return self.short(_JSON.encode(value).decode())

    def placed(self, value: Any) -> str:
        """`value` as a text to be written."""
        if self.place is not None and type(value) is str and is_long(value):
            return self.place(value)
        text = self.text(value)
        return self.place(text) if self.place is not None and is_long(text) else text

    def short(self, text: str) -> str:
        """`text`, when it is short enough to be worked on."""
        self.check_size(len(text))
        self.spend(1 + len(text) // _STEP)
        return text

    def check_size(self, size: int) -> None:
        """To be called before a text of this many characters is made."""
        if size > self.limits.size:
            raise self.too_long()

    def made(self, value: Any) -> Any:
        """`value`, which an expression has made. A list counts with all that is in it: a few that hold each other
        several times would be without end when they are written or compared."""
        kind = type(value)
        if kind is str:
            return self.short(value)
        if kind is int and value.bit_length() > _BITS:
            raise Wrong(f"a number of more than {_BITS} bits")
        if kind is float and not math.isfinite(value):
            raise Wrong("a number that is infinite, or none")
        if kind is list or kind is dict:
            self._walk(value)
        return value

    def too_long(self) -> Wrong:
        return Wrong(f"a text of more than {self.limits.size:,} bytes")

    def compared(self, value: Any) -> None:
        """Pays for looking at all of a value once, which may be one from outside."""
        if type(value) is str:
            self.spend(1 + len(value) // _STEP)
        elif type(value) is list or type(value) is dict:
            self._walk(value)

    def _walk(self, value: Any) -> int:
        """Spends a step an item, and answers how many characters there are at least when it is written."""
        size, levels = 0, 0
        level = [value]
        while level:
            levels += 1
            if levels > self.limits.depth:
                raise Wrong(f"nested more than {self.limits.depth} levels deep")
            below: list[Any] = []
            for item in level:
                kind = type(item)
                if kind is str:
                    self.spend(1 + len(item) // _STEP)
                    size += len(item) + 2
                elif kind is list:
                    self.spend(1 + len(item))
                    below += item
                elif kind is dict:
                    self.spend(1 + 2 * len(item))
                    below += item.values()
                    size += sum(map(len, item))
                else:
                    size += 1
            level = below
        return size
