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
        """A command has ended: look now."""
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
                self._passes.give_up(pids)
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
        self._procs: Mapping[int, Proc] = {}
        # Process and start time.
        self._given_up: set[tuple[int, int]] = set()

    def give_up(self, pids: Iterable[int]) -> None:
        """Nobody else is to wait for these, of the last look, in vain."""
        self._given_up |= {(pid, self._procs[pid].start) for pid in pids if pid in self._procs}

    def sweep(self, known: Known, endings: list[Ending], now: float) -> Mapping[str, list[int]]:
        """Signal what is to be signalled; returns the pids that were still alive, by attempt."""
        # Attempts come and go while the table is read: who was known before or is known after is not a stray.
        before = known.copy()
        procs = self._procs = table.snapshot()
        self._given_up &= {(p.pid, p.start) for p in procs.values()}
        known = before | known.copy()
        owners = self._lineage.owners(procs, known)
        by_id = {ending.attempt_id: ending for ending in endings}
        left: dict[str, list[Proc]] = {}
        for sid, group in sessions(procs.values()).items():
            owner = owners.get(sid) or self._stray_owner(group, procs, known, endings)
            self._reap(group, owner, known)
            alive = [p for p in group if p.alive]
            if owner in by_id and alive:
                left.setdefault(owner, []).extend(alive)
        for attempt_id, alive in left.items():
            _signal(by_id[attempt_id], alive, now)
        return {attempt_id: [p.pid for p in alive] for attempt_id, alive in left.items()}

    def _stray_owner(
        self, group: list[Proc], procs: Mapping[int, Proc], known: Known, endings: list[Ending]
    ) -> str | None:
        """Somebody's orphans, nobody knows whose: theirs who end first, if nobody else is old enough to be the one."""
        strays = [
            p for p in group
            if self._lineage.handed(p) and (p.pid, p.start) not in self._given_up and _ours_to_signal(p.pid)
        ]  # fmt: skip
        if not strays:
            return None
        # Orphans go to the keeper of the command that they descend from, and ours have gone to us if it was killed.
        old = strays[0].ppid if strays[0].ppid in known.inherited.values() else None
        possible = [ending for ending in endings if known.inherited.get(ending.attempt_id) == old]
        ending_ids = {ending.attempt_id for ending in possible}
        born = min(p.start for p in strays)
        for pid, attempt_id in known.leaders.items():
            if known.inherited.get(attempt_id) != old or attempt_id in ending_ids:
                continue
            if pid in procs and procs[pid].start <= born:
                return None
        return min(possible, key=lambda e: e.kill_at).attempt_id if possible else None

    def _reap(self, group: Iterable[Proc], owner: str | None, known: Known) -> None:
        """Take in the dead orphans of a keeper that was killed; a command's status is its watcher's to take."""
        for p in group:
            if p.alive or p.ppid != self._me.pid or p.pid in known.leaders:
                continue
            if owner is not None or self._lineage.handed(p):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(p.pid, os.WNOHANG)


def _ours_to_signal(pid: int) -> bool:
    """Not what became another user's (sudo): it cannot be ended, and whoever is taken for its owner waits in vain."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        pass
    except PermissionError:
        return False
    return True


def _signal(ending: Ending, alive: list[Proc], now: float) -> None:
    """By group, which even a process that forks all the time cannot slip out of. A group gets SIGTERM once."""
    kill = now >= ending.kill_at
    if kill and not ending.killed:
        ending.killed, ending.pause = True, FIRST_PAUSE
    groups = {p.pgrp for p in alive}
    for pgrp in groups if kill else groups - ending.termed:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pgrp, signal.SIGKILL if kill else signal.SIGTERM)
    ending.termed |= groups
