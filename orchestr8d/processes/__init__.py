"""Processes of attempts: started so that they outlive the daemon, watched, found again, ended with all they left."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import resource
import signal
import threading
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from orchestr8d.clock import Clock
from orchestr8d.processes import shim, table
from orchestr8d.processes.child import Child, Exit, signal_of
from orchestr8d.processes.files import Files
from orchestr8d.processes.program import NotFound
from orchestr8d.processes.shim import MARKER, Launch, boot_of, recorded
from orchestr8d.processes.sweep import Sweeper, reap
from orchestr8d.processes.tree import Known, Lineage, Self

__all__ = [
    "MARKER", "UNKNOWN", "Child", "Exit", "Files", "Found", "Launch", "NotFound", "Processes", "Unwatched",
    "boot_of", "recorded", "signal_of",
]  # fmt: skip

T = TypeVar("T")
_PR_SET_CHILD_SUBREAPER = 36
_WNOTHREAD = 0x20000000
# Seconds that an attempt's leftovers have after SIGTERM when it ended by itself.
LEFTOVER_GRACE = 2.0
# Starting is short and holds the interpreter for most of it; more threads gain nothing.
_THREADS = 4
# The attempt of a process when nobody can say which it is.
UNKNOWN = "?"


class Unwatched(Exception):
    """The child was started but cannot be watched (no file descriptor left); it has been ended."""


@dataclass
class Found:
    """What is alive of an attempt: its shim, if that is, and how many other processes."""

    shim: int | None = None
    others: int = 0
    sids: set[int] = field(default_factory=set)


class Processes:
    """All processes of this daemon's attempts. One object in an operating system's process, used from its event loop.

    It makes the process the reaper of its descendants' orphans, so that whatever an attempt left behind becomes our own
    child; and as only threads start shims, the children of the main thread are such orphans and nothing else. Hence
    a single system call tells that nothing was left, and /proc is read only when something was.
    """

    def __init__(self, clock: Clock, descriptors: int | None = None) -> None:
        """`descriptors` is the soft limit of descriptors that commands get; None: our own."""
        self._clock = clock
        self._boot = clock.boot()
        self._descriptors = descriptors or resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="processes")
        _close_on_exec()
        self._me = Self.read()
        self._known = Known()
        # What scan() found of the attempts that wait to be adopted.
        self._found: dict[str, Found | None] = {}
        main = threading.get_native_id() == os.getpid()
        self._exact = _subreaper(True) and main
        self._sweeper = Sweeper(self._me, clock, self._known, self._in_thread)

    async def close(self) -> None:
        """Children stay alive; nothing is watched any more."""
        await self._sweeper.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        _subreaper(False)

    async def spawn(self, launch: Launch) -> Child:
        """Start a command in a session of its own.

        Raises NotFound for a program or directory that cannot be used; OSError when files or the process could not be
        made, Unwatched when it could not be watched: nothing of it is left then.
        """
        tag = self._me.tag(launch.attempt_id)
        self._known.tags[tag] = launch.attempt_id
        self._known.starting.add(launch.attempt_id)
        start = self._in_thread(self._start, launch, tag)
        try:
            pid = await start
        except Exception:
            self._forget(launch.attempt_id)
            raise
        try:
            return Child(launch.attempt_id, pid, launch.files, self._sweeper.nudge)
        except OSError as e:
            await self._end_unwatched(launch.attempt_id, pid)
            raise Unwatched(f"cannot watch a process: {e.strerror}") from e

    async def scan(self, attempt_ids: Collection[str]) -> dict[str, Found]:
        """What is alive of these attempts of an earlier daemon. They count as running until adopted."""
        wanted = {self._me.tag(a): a for a in attempt_ids}
        self._known.tags |= wanted
        found = await self._in_thread(_find, self._me, self._known.copy(), frozenset(attempt_ids))
        for attempt_id in attempt_ids:
            self._found[attempt_id] = entry = found.get(attempt_id)
            if entry is not None and entry.shim is not None:
                self._known.shims[entry.shim] = attempt_id
        return found

    async def adopt(self, attempt_id: str, files: Files) -> Child | None:
        """The living child of an earlier daemon; None when it has ended, and then nothing that it left is alive."""
        if attempt_id not in self._found:
            await self.scan([attempt_id])
        found = self._found.pop(attempt_id) or Found()
        try:
            child = self._watch(attempt_id, found.shim, files)
        except OSError as e:
            await self._end_unwatched(attempt_id, found.shim)
            raise Unwatched(f"cannot watch a process: {e.strerror}") from e
        if child is None:
            # Also when the scan found nothing: who was listed may have forked, and ended before it was read.
            await self._sweeper.end(attempt_id, LEFTOVER_GRACE)
            self._forget(attempt_id)
        return child

    async def end(self, child: Child, grace: float) -> Exit:
        """SIGTERM to the whole tree, SIGKILL after `grace` seconds; returns when no process of it is left."""
        await self._sweeper.end(child.attempt_id, grace)
        return await self._collect(child)

    async def settle(self, child: Child) -> Exit:
        """After the child has exited by itself: end what it left behind."""
        if child.age is not None or not self._exact or self._orphans():
            await self._sweeper.end(child.attempt_id, LEFTOVER_GRACE)
        return await self._collect(child)

    def reap_orphans(self) -> None:
        """Take in orphans that died while their attempt goes on; cheap, to be called now and then."""
        if self._exact:
            self._orphans()

    def attempt_of(self, pid: int) -> str | None:
        """The attempt that the process lives in, None when in none, `"?"` when an unknown one's or nobody can tell.

        Parents and the tag cannot be forged, so they go before the marker. Of a process that is gone nothing can be
        told: what it left open may be used by a child.
        """
        known, me, at, missed = self._known, self._me, pid, 0
        while at > 1 and at != me.pid:
            proc = table.read(at)
            if proc is None and at not in (pid, missed):
                # It ended just now, and its children have another parent. One missed again is hidden from us.
                at, missed = pid, at
                continue
            if proc is None or proc.sid == me.sid:
                break
            owner = known.shims.get(at) or known.shims.get(proc.sid) or known.tags.get(table.locks_limit(at))
            if owner is not None:
                return owner
            at = proc.ppid
        proc = table.read(pid)
        if proc is None:
            return UNKNOWN
        value = table.variable(table.environment(pid), MARKER)
        if value is not None and value != me.marker:
            return value
        orphaned = at == me.pid and proc.sid != me.sid and table.locks_limit(pid) != me.limit
        return UNKNOWN if orphaned else None

    def _start(self, launch: Launch, tag: int) -> int:
        pid = shim.start(launch, tag, self._descriptors, self._boot)
        self._known.shims[pid] = launch.attempt_id
        self._known.starting.discard(launch.attempt_id)
        return pid

    def _watch(self, attempt_id: str, pid: int | None, files: Files) -> Child | None:
        """The living shim of an earlier daemon, None when it is gone."""
        proc = None if pid is None else table.read(pid)
        if proc is None:
            return None
        age = max(0.0, self._clock.elapsed() - proc.start / table.TICKS)
        try:
            child = Child(attempt_id, proc.pid, files, self._sweeper.nudge, age)
        except ProcessLookupError:
            return None
        # Before the descriptor was open, the pid may have been given to somebody else.
        if _is_shim(proc.pid, attempt_id):
            return child
        child.release()
        return None

    async def _end_unwatched(self, attempt_id: str, pid: int | None) -> None:
        if pid is not None:
            # At once: the sweeper needs descriptors too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGTERM)
        await self._sweeper.end(attempt_id, LEFTOVER_GRACE)
        if pid is not None:
            reap(pid)
        self._forget(attempt_id)

    async def _collect(self, child: Child) -> Exit:
        if not child.exited.done():
            # Only a process that nothing ends (GIVE_UP) is still there after that.
            await asyncio.wait({child.exited}, timeout=1.0)
        result = child.collect() if child.exited.done() else Exit(None)
        child.release()
        self._forget(child.attempt_id)
        return result

    def _forget(self, attempt_id: str) -> None:
        self._known.starting.discard(attempt_id)
        self._known.tags.pop(self._me.tag(attempt_id), None)
        for pid in [p for p, a in list(self._known.shims.items()) if a == attempt_id]:
            del self._known.shims[pid]

    def _orphans(self) -> bool:
        """Whether some attempt's orphan may be alive: False is certain. Dead ones are taken in on the way."""
        for _ in range(1000):
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | _WNOTHREAD)
            except ChildProcessError:
                return False
            if dead is None or dead.si_pid in self._known.shims or table.locks_limit(dead.si_pid) == self._me.limit:
                return True
            reap(dead.si_pid)
        return True

    def _in_thread(self, fn: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(fn, *args))


def _find(me: Self, known: Known, wanted: frozenset[str]) -> dict[str, Found]:
    """Living processes of the attempts `wanted`, from one look at /proc."""
    procs = table.snapshot()
    owners = Lineage(me).owners(procs, known)
    found: dict[str, Found] = {}
    for proc in procs.values():
        owner = owners.get(proc.sid)
        if owner not in wanted or owner is None or not proc.alive or proc.pid == me.pid:
            continue
        entry = found.setdefault(owner, Found())
        if proc.pid == proc.sid and _is_shim(proc.pid, owner):
            entry.shim = proc.pid
        else:
            entry.others += 1
        entry.sids.add(proc.sid)
    return found


def _is_shim(pid: int, attempt_id: str) -> bool:
    return table.command_line(pid)[3:4] == [shim.name_of(attempt_id)]


def _subreaper(on: bool) -> bool:
    """Have orphaned descendants handed to this process instead of to init."""
    result: int = ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)
    return result == 0


def _close_on_exec() -> None:
    """Descriptors that the daemon was started with must not reach its children."""
    for path in list(Path("/proc/self/fd").iterdir()):
        if int(path.name) > 2:
            # The one that the directory was listed by is closed again.
            with contextlib.suppress(OSError):
                os.set_inheritable(int(path.name), False)
