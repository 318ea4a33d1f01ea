"""The daemon's side of its keeper: starts it, tells it what to start, hears what was started and what has ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import Callable
from typing import NamedTuple, cast

import msgspec

from orchestr8d import keeper
from orchestr8d.core.model import Resources
from orchestr8d.keeper.program import NotFound
from orchestr8d.processes.child import Exit
from orchestr8d.processes.files import Files
from orchestr8d.processes.launch import MARKER, Launch


class Lost(Exception):
    """The keeper is gone: what it was told last may have been started or not."""


class Running(NamedTuple):
    """A command that was started, its files, and its end."""

    pid: int
    files: Files
    exited: asyncio.Future[Exit]


class _Started(msgspec.Struct, tag_field="is", tag="started"):
    request: int
    pid: int


class _Refused(msgspec.Struct, tag_field="is", tag="refused"):
    """The command is at fault."""

    request: int
    text: str


class _Failed(msgspec.Struct, tag_field="is", tag="failed"):
    """The machine is."""

    request: int
    errno: int
    path: str


class _Ended(msgspec.Struct, tag_field="is", tag="ended"):
    """`status` is as a shell has it; `left` tells whether an orphan of some attempt may be alive."""

    request: int
    status: int
    cpu: float
    rss: int
    left: bool


class _Defect(msgspec.Struct, tag_field="is", tag="defect"):
    """Its last words."""

    text: str


_Message = _Started | _Refused | _Failed | _Ended | _Defect
_decode = msgspec.json.Decoder(_Message).decode


class Link(asyncio.Protocol):
    """A keeper, and the connection to it. `on_lost` is called when the keeper is gone while we were not done with it,
    with its last words (mostly none): what it had started, in `running`, goes on."""

    def __init__(self, pid: int, on_lost: Callable[[Link, str], None]) -> None:
        self.pid = pid
        # By the number of the request: a pid may be given again before its end is told.
        self.running: dict[int, Running] = {}
        self.lost = False
        self._on_lost = on_lost
        self._transport: asyncio.WriteTransport | None = None
        self._asked: dict[int, tuple[Files, asyncio.Future[Running]]] = {}
        self._number = 0
        self._rest = b""
        self._words = ""

    async def start(self, launch: Launch, tag: int) -> Running:
        """Raises NotFound, OSError, Lost, or ValueError for text with a NUL or one that cannot be encoded."""
        if self._transport is None or self.lost:
            raise Lost
        self._number += 1
        line = _request(self._number, launch, tag)
        answer: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
        self._asked[self._number] = launch.files, answer
        self._transport.write(line)
        return await answer

    def close(self) -> None:
        """It goes on for as long as something that it started does."""
        self._on_lost = lambda link, words: None
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's are no subclasses

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._hear(_decode(line))

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        for _, answer in self._asked.values():
            _fail(answer, Lost())
        self._asked.clear()
        self._on_lost(self, self._words)

    def _hear(self, message: _Message) -> None:
        match message:
            case _Started(request, pid):
                # Known from here on: its end may be the next thing that is said.
                files, answer = self._asked.pop(request)
                running = self.running[request] = Running(pid, files, asyncio.get_running_loop().create_future())
                if not answer.done():
                    answer.set_result(running)
            case _Refused(request, text):
                _fail(self._asked.pop(request)[1], NotFound(text))
            case _Failed(request, number, path):
                _fail(self._asked.pop(request)[1], OSError(number, os.strerror(number), path or None))
            case _Ended(request, status, cpu, rss, left):
                exited = self.running.pop(request).exited
                if not exited.done():
                    exited.set_result(Exit(status, Resources(cpu, rss), left))
            case _Defect(text):
                self._words = text


def _request(number: int, launch: Launch, tag: int) -> bytes:
    files = launch.files
    # PWD is as a shell that went there has it: a path with links in it stays as it was given.
    env = {**launch.env, "PWD": launch.cwd, MARKER: launch.attempt_id}
    for text in (*launch.argv, *env, *env.values(), files.base):
        # Bytes that are no text are escapes in it, which JSON keeps.
        if b"\0" in os.fsencode(text):
            raise ValueError("embedded null byte")
    request = {
        "request": number, "argv": list(launch.argv), "env": env, "cwd": launch.cwd, "exit_file": files.exit,
        "stdin": "/dev/null" if launch.stdin is None else files.stdin, "stdout": files.stdout,
        "stderr": files.stderr, "anew": bool(launch.step), "tag": tag,
    }  # fmt: skip
    return json.dumps(request).encode() + b"\n"


def _fail(answer: asyncio.Future[Running], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


async def keep(descriptors: int, boot: str, on_lost: Callable[[Link, str], None]) -> Link:
    """Start a keeper in a session of its own; OSError when that cannot be done. As keeper.command()."""
    command = keeper.command(descriptors, boot)
    ours, its = socket.socketpair()
    with its:
        try:
            pid = os.posix_spawn(  # noqa: ASYNC221  # a millisecond, once
                command[0],
                command,
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, its.fileno(), 0),
                    (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
                ],
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGXFSZ],
            )
        except OSError:
            ours.close()
            raise
    loop = asyncio.get_running_loop()
    _, link = await loop.create_unix_connection(lambda: Link(pid, on_lost), sock=ours)
    return link
