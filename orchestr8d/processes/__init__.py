"""Processes of attempts: started so that they outlive the daemon, watched, found again, ended with all they left."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import os
import resource
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import structlog

from orchestr8d.clock import Clock
from orchestr8d.keeper import is_keeper
from orchestr8d.keeper.program import NotFound
from orchestr8d.processes import table
from orchestr8d.processes.child import Child, Exit, Watch, collect, recorded, signal_of
from orchestr8d.processes.files import Files, create
from orchestr8d.processes.launch import MARKER, Launch, put_input
from orchestr8d.processes.link import Link, Lost, keep
from orchestr8d.processes.sweep import Sweeper
from orchestr8d.processes.tree import Known, Lineage, Self

__all__ = [
    "MARKER", "UNKNOWN", "Child", "Exit", "Files", "Found", "Launch", "NotFound", "Processes", "Unwatched",
    "recorded", "signal_of",
]  # fmt: skip

log = structlog.get_logger(__name__)

T = TypeVar("T")
_PR_SET_CHILD_SUBREAPER = 36
# Seconds that an attempt's leftovers have after SIGTERM when it ended by itself.
LEFTOVER_GRACE = 2.0
_THREADS = 4
# The attempt of a process when nobody can say which it is.
UNKNOWN = "?"
# Seconds between two looks at a keeper that was killed.
_BURIAL = 0.01


class Unwatched(Exception):
    """The command was or may have been started but cannot be watched; nothing of it is left."""


@dataclass
class Found:
    """What is alive of an attempt: its command, if that is, the keeper whose child it is, and how many others."""

    leader: int | None = None
    keeper: int | None = None
    others: int = 0


class Processes:
    """All processes of this daemon's attempts. One object in an operating system's process, used from its event loop.

    Commands are the children of a keeper, which is started with the first of them at the latest. It reaps what they
    leave behind; should it be killed, the commands and all that go to the daemon.
    """

    def __init__(self, clock: Clock, descriptors: int | None = None) -> None:
        """`descriptors` is the soft limit of descriptors that commands get; None: our own."""
        self._clock = clock
        self._boot = clock.boot()
        self._descriptors = descriptors or resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="processes")
        _close_on_exec()
        if signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN:
            # Inherited from who started us, and inherited by keepers: nobody would learn how anything ended.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _subreaper(True)
        self._me = Self.read()
        self._known = Known()
        # Of commands that no keeper of ours tells about, by pid.
        self._watches: dict[int, Watch] = {}
        self._link: Link | None = None
        self._linking = asyncio.Lock()
        # What scan() found of the attempts that wait to be adopted.
        self._found: dict[str, Found | None] = {}
        self._sweeper = Sweeper(self._me, clock, self._known, self._in_thread)

    async def close(self) -> None:
        """Children stay alive; nothing is watched any more."""
        await self._sweeper.close()
        for watch in self._watches.values():
            watch.release()
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._link is not None:
            self._link.close()
        _subreaper(False)

    async def prepare(self) -> None:
        """Start the keeper ahead of the first command, which need not wait for it then."""
        with contextlib.suppress(OSError):  # it is tried again with that
            await self._linked()

    async def spawn(self, launch: Launch) -> Child:
        """Start a command in a session of its own.

        Raises NotFound for a program or directory that cannot be used; OSError when files or the process could not be
        made, Unwatched when nobody knows whether it was: nothing of it is left then.
        """
        tag = self._me.tag(launch.attempt_id)
        self._known.tags[tag] = launch.attempt_id
        try:
            if launch.stdin is not None:
                await self._in_thread(put_input, launch)
            link = await self._linked()
            running = await link.start(launch, tag)
        except Lost as e:
            while await self._in_thread(_forming, link.pid):  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(_BURIAL)
            await self._end_unwatched(launch.attempt_id)
            raise Unwatched("the keeper of commands was killed while it started one") from e
        except Exception:
            self._forget(launch.attempt_id)
            raise
        return self._child(Child(launch.attempt_id, running.pid, launch.files, running.exited))

    async def scan(self, attempts: Mapping[str, Files]) -> dict[str, Found]:
        """What is alive of these attempts of an earlier daemon. They count as running until adopted."""
        wanted = {self._me.tag(a): a for a in attempts}
        self._known.tags |= wanted
        found = await self._in_thread(_find, self._me, self._known.copy(), attempts)
        for attempt_id in attempts:
            self._found[attempt_id] = entry = found.get(attempt_id)
            if entry is not None and entry.leader is not None:
                self._known.leaders[entry.leader] = attempt_id
                if entry.keeper is not None:
                    self._known.inherited[attempt_id] = entry.keeper
        return found

    async def adopt(self, attempt_id: str, files: Files) -> Child | None:
        """The living child of an earlier daemon; None when it has ended, and then nothing that it left is alive."""
        if attempt_id not in self._found:
            await self.scan({attempt_id: files})
        found = self._found.pop(attempt_id) or Found()
        try:
            child = self._watch(attempt_id, found.leader, files)
        except OSError as e:
            await self._end_unwatched(attempt_id)
            raise Unwatched(f"cannot watch a process: {e.strerror}") from e
        if child is None:
            with contextlib.suppress(OSError):
                if recorded(files).status is None:
                    # It may be the command itself that we end, if nobody could tell it from the rest.
                    create(files.interrupted)
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
        if child.exited.result().left:
            await self._sweeper.end(child.attempt_id, LEFTOVER_GRACE)
        return await self._collect(child)

    def attempt_of(self, pid: int) -> str | None:
        """The attempt that the process lives in, None when in none, `"?"` when an unknown one's or nobody can tell.

        Parents and the tag cannot be forged, so they go before the marker. Of a process that is gone nothing can be
        told: what it left open may be used by a child.
        """
        known, me, at, missed = self._known, self._me, pid, 0
        parents, homes = known.reapers(me), known.homes(me)
        while at > 1 and at not in parents:
            proc = table.read(at)
            if proc is None and at not in (pid, missed):
                # It ended just now, and its children have another parent. One missed again is hidden from us.
                at, missed = pid, at
                continue
            if proc is None or proc.sid in homes:
                break
            owner = known.leaders.get(at) or known.leaders.get(proc.sid) or known.tagged(at)
            if owner is not None:
                return owner
            at = proc.ppid
        proc = table.read(pid)
        if proc is None:
            return UNKNOWN
        value = table.variable(table.environment(pid), MARKER)
        if value is not None and value != me.marker:
            return value
        if proc.sid in homes:
            return None
        # Keepers have no other children than commands and orphans, we have.
        if at in parents and (at != me.pid or table.locks_limits(pid) != me.limits):
            return UNKNOWN
        # Another daemon's, or left over from an earlier one. We may ourselves live in an attempt.
        above = set(table.ancestors(pid)).difference(table.ancestors(me.pid))
        return UNKNOWN if any(is_keeper(table.command_line(a)) for a in above) else None

    async def _linked(self) -> Link:
        async with self._linking:
            if self._link is None or self._link.lost:
                self._link = await keep(self._descriptors, self._boot, self._lost)
                self._known.keepers.add(self._link.pid)
            return self._link

    def _lost(self, link: Link, words: str) -> None:
        """A keeper was killed: what it had started is ours to watch, and to reap."""
        log.error("the keeper of commands is gone: a new one is started", pid=link.pid, words=words)
        # Whatever became of it: one that cannot be talked to starts nothing more. It is our child, so the pid is its.
        os.kill(link.pid, signal.SIGKILL)
        for pid, files, exited in link.running.values():
            try:
                self._watches[pid] = Watch(pid, files, exited)
            except ProcessLookupError:
                collect(pid, files, exited)
            except OSError:
                # No descriptor to watch it by: it is ended, and runs again.
                exited.set_result(Exit(None))
        self._bury(link.pid)

    def _bury(self, keeper: int) -> None:
        if os.waitpid(keeper, os.WNOHANG)[0]:
            self._known.keepers.discard(keeper)
        else:
            asyncio.get_running_loop().call_later(_BURIAL, self._bury, keeper)

    def _child(self, child: Child) -> Child:
        self._known.leaders[child.pid] = child.attempt_id
        child.exited.add_done_callback(lambda _: self._sweeper.nudge())
        return child

    def _watch(self, attempt_id: str, pid: int | None, files: Files) -> Child | None:
        """The living command of an earlier daemon, None when it is gone."""
        proc = None if pid is None else table.read(pid)
        if proc is None:
            return None
        age = max(0.0, self._clock.elapsed() - proc.start / table.TICKS)
        exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        try:
            watch = Watch(proc.pid, files, exited)
        except ProcessLookupError:
            return None
        # Before the descriptor was open, the pid may have been given to somebody else.
        if (now := table.read(proc.pid)) is None or now.start != proc.start:
            watch.release()
            return None
        self._watches[proc.pid] = watch
        return self._child(Child(attempt_id, proc.pid, files, exited, age))

    async def _end_unwatched(self, attempt_id: str) -> None:
        await self._sweeper.end(attempt_id, LEFTOVER_GRACE)
        self._forget(attempt_id)

    async def _collect(self, child: Child) -> Exit:
        if not child.exited.done():
            # Only a process that nothing ends (GIVE_UP) is still there after that.
            await asyncio.wait({child.exited}, timeout=1.0)
        result = child.exited.result() if child.exited.done() else Exit(None)
        if (watch := self._watches.pop(child.pid, None)) is not None:
            watch.release()
        self._forget(child.attempt_id)
        return result

    def _forget(self, attempt_id: str) -> None:
        self._known.inherited.pop(attempt_id, None)
        self._known.tags.pop(self._me.tag(attempt_id), None)
        for pid in [p for p, a in list(self._known.leaders.items()) if a == attempt_id]:
            del self._known.leaders[pid]

    def _in_thread(self, fn: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, functools.partial(fn, *args))


def _find(me: Self, known: Known, wanted: Mapping[str, Files]) -> dict[str, Found]:
    """Living processes of the attempts `wanted`, from one look at /proc."""
    procs = table.snapshot()
    owners = Lineage(me).owners(procs, known)
    leaders = {attempt_id: recorded(files).pid for attempt_id, files in wanted.items()}
    found: dict[str, Found] = {}
    for proc in procs.values():
        owner = owners.get(proc.sid)
        if owner not in wanted or owner is None or proc.pid == me.pid:
            continue
        leads = proc.pid == proc.sid == leaders[owner]
        keeper = proc.ppid if leads and is_keeper(table.command_line(proc.ppid)) else None
        # A dead command that its keeper has not taken in: how it ended is about to be recorded.
        if not proc.alive and keeper is None:
            continue
        entry = found.setdefault(owner, Found())
        if leads:
            entry.leader, entry.keeper = proc.pid, keeper
        else:
            entry.others += 1
    return found


def _forming(keeper: int) -> bool:
    """Whether a killed keeper was just starting something: until that leads its own session it looks like the keeper's,
    and is not ended."""
    try:
        return any(p.alive and p.sid == keeper != p.pid for p in table.snapshot().values())
    except OSError:
        return True  # no descriptor to look with


def _subreaper(on: bool) -> None:
    """Have orphaned descendants handed to this process instead of to init."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)


def _close_on_exec() -> None:
    """Descriptors that the daemon was started with must not reach its children."""
    for path in list(Path("/proc/self/fd").iterdir()):
        if int(path.name) > 2:
            # The one that the directory was listed by is closed again.
            with contextlib.suppress(OSError):
                os.set_inheritable(int(path.name), False)
