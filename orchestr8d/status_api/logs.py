"""What tasks write: the output of attempts, read off the loop in pieces, followed while it grows; and their files."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from aiohttp import web

from orchestr8d.core import model
from orchestr8d.core.errors import Fault, Problem, refuse
from orchestr8d.processes.files import open_regular, read
from orchestr8d.status_api import respond, views
from orchestr8d.status_api.route import Call, Media, Route
from orchestr8d.status_api.services import Services
from orchestr8d.transcript import Transcript

PIECE: Final = 256 * 1024
# How often a file that somebody follows is looked at, in seconds: nothing tells that a child wrote to it.
LOOK: Final = 0.2
_TEXT: Final = "text/plain; charset=utf-8"
_BYTES: Final = "application/octet-stream"


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which output, from where on."""

    # `transcript`: an agent's stdout as text for people; offset and tail count in that text.
    stream: Literal["stdout", "stderr", "transcript"] = "stdout"
    # The number of the attempt; the last one by default.
    attempt: Annotated[int, msgspec.Meta(ge=1, le=2**31)] | None = None
    # From this byte on.
    offset: Annotated[int, msgspec.Meta(ge=0, le=2**62)] | None = None
    # The last lines only.
    tail: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] | None = None
    # Go on until the task is final (with `attempt`: until that one ended).
    follow: bool = False


class Output:
    """A file that may still grow, or not exist yet, read piece by piece from `position` on."""

    def __init__(self, path: str, position: int = 0) -> None:
        self._path = path
        self.position = position

    async def piece(self) -> bytes:
        """What comes next; empty when there is no more for now."""
        data = await asyncio.to_thread(read, self._path, PIECE, self.position)
        self.position += len(data)
        return data

    async def to_last_lines(self, lines: int) -> None:
        self.position = await asyncio.to_thread(_start_of_last_lines, self._path, lines)

    async def last(self) -> bytes:
        """What is left when nothing more will be written."""
        return b""


class Rendered:
    """A `transcript` of such a file. It is made from the beginning each time; up to `position` it is left out."""

    def __init__(self, path: str, position: int, ended: bool) -> None:
        self._path = path
        self._from = position
        self._ended = ended
        self._begin()

    def _begin(self) -> None:
        self._raw = Output(self._path)
        self._transcript = Transcript()
        self._skip, self._skip_lines = self._from, 0

    async def piece(self) -> bytes:
        while data := await self._raw.piece():
            if text := self._after(await asyncio.to_thread(self._transcript.feed, data)):
                return text
        return b""

    async def last(self) -> bytes:
        return self._after(self._transcript.end())

    def _after(self, text: bytes) -> bytes:
        """What of the text is wanted."""
        start = min(self._skip, len(text))
        self._skip -= start
        while self._skip_lines and start < len(text):
            start = text.index(b"\n", start) + 1  # a text ends with its line
            self._skip_lines -= 1
        return text[start:]

    async def to_last_lines(self, lines: int) -> None:
        """By counting them first: no more than a piece of the text is ever held."""
        count = 0
        while data := await self.piece():
            count += data.count(b"\n")
        if self._ended:
            count += (await self.last()).count(b"\n")
        self._begin()
        self._skip_lines = max(0, count - lines)


def _start_of_last_lines(path: str, lines: int) -> int:
    """The position at which the last `lines` lines begin; a last one that has no end yet counts."""
    fd = open_regular(path)
    if fd is None:
        return 0
    try:
        end = os.fstat(fd).st_size
        if lines == 0 or end == 0:
            return end
        wanted = lines + (os.pread(fd, 1, end - 1) == b"\n")
        position = end
        while position > 0:
            start = max(0, position - PIECE)
            block = os.pread(fd, position - start, start)
            found = block.count(b"\n")
            if found >= wanted:
                for _ in range(wanted):
                    position = start + block.rindex(b"\n", 0, position - start)
                return position + 1
            wanted -= found
            position = start
        return 0
    finally:
        os.close(fd)


def _pick(attempts: Sequence[model.Attempt], number: int | None) -> model.Attempt | None:
    """The attempt with this number, or the last one; Problem when there is no such attempt."""
    if number is None:
        return attempts[-1] if attempts else None
    for attempt in attempts:
        if attempt.number == number:
            return attempt
    raise Problem("not-found", f"there is no attempt {number}")


async def logs(services: Services, call: Call) -> web.StreamResponse:
    wanted: Wanted = call.query
    if wanted.offset is not None and wanted.tail is not None:
        refuse([Fault("tail", "give offset or tail, not both")])
    task = await services.store.task(call.path("id"))
    if wanted.stream == "transcript" and task.agent is None:
        raise Problem("unprocessable", f"task {task.id} is a command: only an agent's task has a transcript")
    attempt = _pick(await services.store.attempts(task.id), wanted.attempt)
    response = web.StreamResponse(headers={"Content-Type": _TEXT, **respond.HEADERS})
    await response.prepare(call.request)
    follower = _Follower(services, task.id, call, response)
    if wanted.follow:
        await follower.follow(attempt)
    elif attempt is not None:
        await follower.copy(await follower.output(attempt), attempt.status != "running")
    await response.write_eof()
    return response


async def _copy(
    services: Services, request: web.Request, output: Output | Rendered, response: web.StreamResponse, ended: bool
) -> None:
    """What there is of an output; broken off when the daemon drains, whether or not the client reads."""
    try:
        async with services.waits.breakable():
            while data := await output.piece():
                await response.write(data)
            if ended and (data := await output.last()):
                await response.write(data)
    except TimeoutError:
        raise respond.drop(request) from None


class _Follower:
    """Copies the output of a task's attempts to one response."""

    def __init__(self, services: Services, task_id: str, call: Call, response: web.StreamResponse) -> None:
        self._services = services
        self._task_id = task_id
        self._request = call.request
        self._wanted: Wanted = call.query
        self._response = response

    async def output(self, attempt: model.Attempt) -> Output | Rendered:
        output = self._from(attempt, self._wanted.offset or 0)
        if self._wanted.tail is not None:
            await output.to_last_lines(self._wanted.tail)
        return output

    def _from(self, attempt: model.Attempt, position: int = 0) -> Output | Rendered:
        files = self._services.attempt_files(attempt.id)
        if self._wanted.stream == "transcript":
            return Rendered(files.stdout, position, attempt.status != "running")
        return Output(files.stdout if self._wanted.stream == "stdout" else files.stderr, position)

    async def copy(self, output: Output | Rendered, ended: bool) -> None:
        await _copy(self._services, self._request, output, self._response, ended)

    async def follow(self, attempt: model.Attempt | None) -> None:
        """Until the end; from one attempt to the next when no certain one was asked for."""
        output = None if attempt is None else await self.output(attempt)
        told = True
        over = False
        while True:
            ready = self._services.bus.next_of(self._task_id)  # asked for before reading, so that nothing is missed
            try:
                following: model.Attempt | None = None
                if told:
                    over, following = await self._standing(attempt)
                if output is not None:
                    await self.copy(output, over or following is not None)
                if following is not None:
                    attempt = following
                    output = self._from(attempt)
                    continue
                if over:
                    return
                told = await self._services.waits.until(ready, LOOK)
            finally:
                ready.cancel()
            if self._services.waits.ended:
                # Broken off, not ended: whoever follows may go on where it was once the daemon is back.
                raise ConnectionResetError("draining")

    async def _standing(self, attempt: model.Attempt | None) -> tuple[bool, model.Attempt | None]:
        """Whether nothing more will be written, and the attempt that came after this one."""
        task = await self._services.store.task(self._task_id)
        attempts = await self._services.store.attempts(self._task_id)
        if self._wanted.attempt is not None:
            asked = _pick(attempts, self._wanted.attempt)
            return asked is None or asked.status != "running", None
        number = 0 if attempt is None else attempt.number
        later = [other for other in attempts if other.number > number]
        return views.is_final(task), later[0] if later else None


async def file(services: Services, call: Call) -> web.StreamResponse:
    """A file that a task made. Only what its runner named is served, and only from inside its directory."""
    task = await services.store.task(call.path("id"))
    name, cwd = call.path("path"), task.read_spec().cwd
    attempts = await services.store.attempts(task.id)
    path = None if cwd is None else await asyncio.to_thread(_made, attempts, cwd, name)
    if path is None:
        raise Problem("not-found", f"task {task.id} made no file {name!r}")
    headers = {"Content-Type": _BYTES, "Content-Disposition": "attachment", **respond.HEADERS}
    response = web.StreamResponse(headers=headers)
    await response.prepare(call.request)
    await _copy(services, call.request, Output(str(path)), response, True)
    await response.write_eof()
    return response


def _made(attempts: Sequence[model.Attempt], cwd: str, name: str) -> Path | None:
    """The file that an attempt, the last one first, has named `name`, or whose path from its directory that is."""
    for attempt in reversed(attempts):
        top, directory = _place(attempt, cwd)
        named = views.files_created(attempt)
        if name in named or os.path.normpath(directory / name) in named:
            return _inside(top, directory / name)
    return None


def _place(attempt: model.Attempt, cwd: str) -> tuple[Path, Path]:
    """What an attempt may have changed, and the directory in it where it ran: `cwd`, or what stands for it in the
    attempt's worktree."""
    worktree = views.worktree(attempt)
    if worktree is None:
        return Path(cwd), Path(cwd)
    real = Path(os.path.realpath(cwd))
    top = next((place for place in (real, *real.parents) if os.path.lexists(place / ".git")), real)
    return Path(worktree.path), Path(worktree.path) / real.relative_to(top)


def _inside(directory: Path, path: Path) -> Path | None:
    """The regular file `path`, links resolved; None when it is none, or lies elsewhere than in `directory`."""
    try:
        path = path.resolve(strict=True)
        regular = stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return None
    return path if regular and path.is_relative_to(os.path.realpath(directory)) else None


ROUTES = (
    Route(
        "GET", "/api/v1/tasks/{id}/logs", logs, "The output of a task", "read",
        {200: Media(_TEXT, "The bytes as they were written, or a transcript")}, (422,), query=Wanted, inside="own",
    ),
    Route(
        "GET", "/api/v1/tasks/{id}/files/{path:.+}", file, "A file named in `files_created`", "read",
        {200: Media(_BYTES, "The file")}, inside="own",
    ),
)  # fmt: skip
