"""The files of an attempt, opened with care: the attempt may have put a fifo, a link or anything in their place."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# There is no file of ours at that path, or none that may be had now (EAGAIN: somebody holds a lease on it).
_ABSENT = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM}
    | {errno.EAGAIN}
)
# The step after the command's own.
CHECK = "check"


@dataclass(frozen=True)
class Files:
    """The files of one started command, by what their paths begin with: `BASE.stdout`, `BASE.check.stdout`.

    They are in no directory of their own, as that would be one inode more to make for each attempt.
    """

    base: str

    @property
    def exit(self) -> str:
        return f"{self.base}.exit"

    @property
    def stdin(self) -> str:
        return f"{self.base}.stdin"

    @property
    def stdout(self) -> str:
        return f"{self.base}.stdout"

    @property
    def stderr(self) -> str:
        return f"{self.base}.stderr"

    @property
    def interrupted(self) -> str:
        """Tells that the command was to be ended by the daemon's doing."""
        return f"{self.base}.interrupted"

    @property
    def agents(self) -> str:
        """The definition of the agent that the attempt runs under."""
        return f"{self.base}.agents.json"

    @property
    def mcp(self) -> str:
        """The MCP servers that its task brought."""
        return f"{self.base}.mcp.json"

    def step(self, name: str) -> Files:
        """Those of a further step of the attempt."""
        return Files(f"{self.base}.{name}")

    def all(self) -> Iterator[str]:
        """Every path that may be the attempt's, its check's too."""
        for files in (self, self.step(CHECK)):
            yield from (files.exit, files.stdin, files.stdout, files.stderr, files.interrupted)
        yield from (self.agents, self.mcp)


def attempt_files(root: Path, attempt_id: str) -> Files:
    """Of an attempt, under `<state>/attempts`: spread, as a directory of a million entries is slow."""
    return Files(f"{root}/{attempt_id[-2:]}/{attempt_id}")


def open_regular(path: str | Path, access: int = os.O_RDONLY) -> int | None:
    """A descriptor of the file at `path`, never waiting for it; None when there is no regular file in its place.

    OSError for what is not the file's doing, as a shortage of descriptors.
    """
    try:
        fd = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as e:
        if e.errno in _ABSENT:
            return None
        raise
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return None


def read(path: str, length: int, position: int = 0) -> bytes:
    """Up to `length` bytes; none when there is no such file. OSError as open_regular()."""
    fd = open_regular(path)
    if fd is None:
        return b""
    try:
        return os.pread(fd, length, position)
    finally:
        os.close(fd)


def size(path: str) -> int:
    """Bytes in the file; 0 when there is none."""
    try:
        status = os.lstat(path)  # asked all the time, and a Path costs more than the call
    except OSError as e:
        if e.errno in _ABSENT:
            return 0
        raise
    return status.st_size if stat.S_ISREG(status.st_mode) else 0


def cut(path: str, length: int) -> None:
    """Shorten the file to `length` bytes, if it is longer. OSError as open_regular()."""
    if size(path) <= length:
        return
    fd = open_regular(path, os.O_WRONLY)
    if fd is None:
        return
    try:
        os.ftruncate(fd, length)
    finally:
        os.close(fd)


def create(path: str, data: bytes = b"") -> None:
    """Make a file that nobody made before, closed to others. FileExistsError when anything is in its place."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
    finally:
        os.close(fd)
