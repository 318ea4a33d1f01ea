"""The growing output of the CLI: what was added since the last look, line by line, however long the lines are."""

from __future__ import annotations

from collections.abc import Iterator

from orchestr8d.processes.files import read, size

CHUNK = 1 << 20
# A longer line is passed over: memory is bounded, and no record of use is that long.
LONGEST = 64 << 20


class Tail:
    """Reads one file from its beginning, as far as it has come. What blocks is for a thread."""

    def __init__(self, path: str, longest: int = LONGEST) -> None:
        self._path = path
        self._longest = longest
        self._at = 0
        self._parts: list[bytes] = []
        self._length = 0

    def behind(self) -> bool:
        """Whether there is more to read."""
        return size(self._path) > self._at

    def lines(self) -> Iterator[bytes]:
        """The lines that were completed since the last call. OSError as open_regular()."""
        while chunk := read(self._path, CHUNK, self._at):
            self._at += len(chunk)
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                self._keep(end)
                line = self._take()
                if line:
                    yield line
            self._keep(rest)

    def rest(self) -> bytes:
        """What came after the last line's end; to be asked for when nobody writes any more."""
        return self._take()

    def _keep(self, piece: bytes) -> None:
        self._length += len(piece)
        if self._length > self._longest:
            self._parts.clear()
        elif piece:
            self._parts.append(piece)

    def _take(self) -> bytes:
        """The kept line; nothing of one that was too long."""
        line = b"".join(self._parts) if self._length <= self._longest else b""
        self._parts.clear()
        self._length = 0
        return line
