"""Ends process trees for good: SIGTERM to every group, time to finish, SIGKILL, and looks again until none is left.

All attempts that end at about the same time share each look at /proc, which is what costs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from orchestr8d.clock import Clock
from orchestr8d.processes import table
from orchestr8d.processes.table import Proc
from orchestr8d.processes.tree import Known, Lineage, Self, sessions

log = structlog.get_logger(__name__)

# Seconds between two looks: quick at first, as most trees end at once.
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.1
# Seconds after which what even SIGKILL does not end (a dead network disk, another user's process) is given up.
GIVE_UP = 30.0


@dataclass
class Ending:
    """An attempt whose processes are being ended; `kill_at` on the monotonic clock."""

    attempt_id: str
    kill_at: float
    done: asyncio.Future[None]
    # Until the next look; short again when SIGKILL was sent.
    pause: float = FIRST_PAUSE
    killed: bool = False
    # Looks in a row that found nothing.
    clean: int = 0
    # Process groups that got SIGTERM.
    termed: set[int] = field(default_factory=set)
    # Processes that had begun when they got SIGTERM.
    seen: set[int] = field(default_factory=set)


class Sweeper:
    """One look after the other while anything is to be ended, none otherwise."""

    def __init__(
        self, me: Self, clock: Clock, known: Known, in_thread: Callable[..., Awaitable[Mapping[str, list[int]]]]
    ) -> None:
        self._clock = clock
        self._known = known
        self._in_thread = in_thread
        self._passes = Passes(me)
        self._endings: dict[str, Ending] = {}
        self._nudge = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def end(self, attempt_id: str, grace: float) -> None:
        """End all processes of the attempt, with SIGKILL after `grace` seconds; returns when none is left."""
        ending = self._endings.get(attempt_id)
        kill_at = self._clock.monotonic() + grace
        if ending is None:
            ending = Ending(attempt_id, kill_at, asyncio.get_running_loop().create_future())
            self._endings[attempt_id] = ending
        ending.kill_at = min(ending.kill_at, kill_at)
        self._nudge.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="sweeper")
        # A caller that is cancelled does not stop the ending.
        await asyncio.shield(ending.done)

    def nudge(self) -> None:
        """A shim has ended: look now."""
        self._nudge.set()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        try:
            while self._endings:
                self._nudge.clear()
                batch = list(self._endings.values())
                now = self._clock.monotonic()
                self._settle(batch, await self._look(batch, now), now)
                if self._endings:
                    pause = min(_pause(ending, now) for ending in self._endings.values())
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._nudge.wait(), pause)
        except asyncio.CancelledError:
            for ending in self._endings.values():
                ending.done.cancel()
            raise
        except Exception as e:
            for ending in self._endings.values():
                ending.done.set_exception(e)
            self._endings.clear()
        finally:
            self._task = None

    async def _look(self, batch: list[Ending], now: float) -> Mapping[str, list[int]]:
        try:
            return await self._in_thread(self._passes.sweep, self._known, batch, now)
        except OSError as e:
            # No file descriptor to look with: nobody can be said to be gone.
            log.warning("cannot read the process table", error=str(e))
            await asyncio.sleep(LONGEST_PAUSE)
            return {ending.attempt_id: [0] for ending in batch}

    def _settle(self, batch: list[Ending], left: Mapping[str, list[int]], now: float) -> None:
        for ending in batch:
            pids = left.get(ending.attempt_id)
            ending.clean = 0 if pids else ending.clean + 1
            if pids and now < ending.kill_at + GIVE_UP:
                ending.pause = min(max(ending.pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
                continue
            if ending.clean == 1:
                # A look takes its time: who was listed may have forked, and ended before it was read.
                ending.pause = 0.0
                continue
            if pids:
                log.error("processes could not be ended", attempt_id=ending.attempt_id, pids=pids)
            del self._endings[ending.attempt_id]
            if not ending.done.done():
                ending.done.set_result(None)


def _pause(ending: Ending, now: float) -> float:
    until_kill = ending.kill_at - now
    return min(ending.pause, until_kill) if until_kill > 0 else ending.pause


class Passes:
    """One look at a time: who belongs to what is ending, and the signals that are due. Runs in a thread."""

    def __init__(self, me: Self) -> None:
        self._me = me
        self._lineage = Lineage(me)

    def sweep(self, known: Known, endings: list[Ending], now: float) -> Mapping[str, list[int]]:
        """Signal what is to be signalled; returns the pids that were still alive, by attempt."""
        # Attempts come and go while the table is read: who was known before or is known after is not a stray.
        before = known.copy()
        procs = table.snapshot()
        known = before | known.copy()
        owners = self._lineage.owners(procs, known)
        by_id = {ending.attempt_id: ending for ending in endings}
        left: dict[str, list[Proc]] = {}
        for sid, group in sessions(procs.values()).items():
            owner = owners.get(sid) or self._stray_owner(group, procs, known, endings)
            self._reap(group, owner, known)
            alive = [p for p in group if p.alive]
            if owner in by_id and alive and sid != self._me.sid:
                left.setdefault(owner, []).extend(alive)
        for attempt_id, alive in left.items():
            _signal(by_id[attempt_id], alive, known, now)
        return {attempt_id: [p.pid for p in alive] for attempt_id, alive in left.items()}

    def _stray_owner(
        self, group: list[Proc], procs: Mapping[int, Proc], known: Known, endings: list[Ending]
    ) -> str | None:
        """Somebody's orphans, nobody knows whose: theirs who end first, if nobody else is old enough to be the one."""
        strays = [p for p in group if self._lineage.stray(p)]
        if not strays or not endings:
            return None
        ending_ids = {ending.attempt_id for ending in endings}
        born = min(p.start for p in strays)
        for pid, attempt_id in known.shims.items():
            if attempt_id not in ending_ids and pid in procs and procs[pid].start <= born:
                return None
        return min(endings, key=lambda e: e.kill_at).attempt_id

    def _reap(self, group: Iterable[Proc], owner: str | None, known: Known) -> None:
        """Take in the dead orphans that came to us; a shim's status is its watcher's to take."""
        for p in group:
            if p.alive or p.ppid != self._me.pid or p.pid in known.shims or p.sid == self._me.sid:
                continue
            if known.starting and p.pid == p.sid:
                continue
            if owner is not None or self._lineage.stray(p):
                reap(p.pid)


def reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _signal(ending: Ending, alive: list[Proc], known: Known, now: float) -> None:
    """By group, which even a process that forks all the time cannot slip out of.

    A group gets SIGTERM once. Only the command itself gets it later too, when it had not begun: as long as it is a copy
    of the shell, it has the shell's trap.
    """
    begun = {p.pid for p in alive if p.ppid not in known.shims or not _is_copy(p, ending.attempt_id)}
    kill = now >= ending.kill_at
    if kill and not ending.killed:
        ending.killed, ending.pause = True, FIRST_PAUSE
    first = {p.pgrp for p in alive} - ending.termed
    for pgrp in {p.pgrp for p in alive} if kill else first:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pgrp, signal.SIGKILL if kill else signal.SIGTERM)
    for p in alive:
        if not kill and p.pgrp not in first and p.pid not in ending.seen and p.ppid in known.shims:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(p.pid, signal.SIGTERM)
    ending.seen |= begun
    ending.termed |= first


def _is_copy(proc: Proc, attempt_id: str) -> bool:
    return any(word.endswith(attempt_id) for word in table.command_line(proc.pid)[3:4])
