"""Whose process is it? Gives each session on the machine to the attempt that it belongs to.

Sessions, not processes, because a session is never shared: an attempt begins with a session of its own, nobody can join
one, so whoever is in a session descends from the one who made it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestr8d.processes import table
from orchestr8d.processes.shim import MARKER, tag_of
from orchestr8d.processes.table import Proc

# A hard limit that is not set reads as -1.
_NO_CEILING = 1 << 63


@dataclass(frozen=True)
class Self:
    """This process as it looks in the table: what must be told from its attempts."""

    pid: int
    sid: int
    limit: int
    marker: str | None

    @classmethod
    def read(cls) -> Self:
        return cls(os.getpid(), os.getsid(0), table.locks_limit(os.getpid()), os.environ.get(MARKER))

    def tag(self, attempt_id: str) -> int:
        return tag_of(attempt_id, self.limit if self.limit > 0 else _NO_CEILING)


@dataclass
class Known:
    """The attempts that this daemon knows: pids of their shims, and the tags of all their processes."""

    shims: dict[int, str] = field(default_factory=dict)
    tags: dict[int, str] = field(default_factory=dict)
    # Attempts that are being started: their shim exists before its pid is in `shims`.
    starting: set[str] = field(default_factory=set)

    def copy(self) -> Known:
        """For another thread to read. `starting` first: who leaves it meanwhile is in `shims` by then."""
        starting = set(self.starting)
        return Known(dict(self.shims), dict(self.tags), starting)

    def __or__(self, other: Known) -> Known:
        return Known(self.shims | other.shims, self.tags | other.tags, self.starting | other.starting)


class Lineage:
    """Attributes sessions to attempts, remembering what it has read. Used by one thread at a time."""

    def __init__(self, me: Self) -> None:
        self._me = me
        # What a session was found to belong to holds for as long as it has members, even when the evidence goes.
        self._sessions: dict[int, str] = {}
        self._markers: dict[tuple[int, int], str | None] = {}

    def owners(self, procs: Mapping[int, Proc], known: Known) -> dict[int, str]:
        """The attempt of each session that belongs to one, by session id."""
        members = sessions(procs.values())
        ids = set(known.tags.values())
        self._forget(procs, members, ids)
        owners = {sid: known.shims[sid] for sid in members if sid in known.shims} | self._sessions
        for sid, group in members.items():
            if sid not in owners and sid != self._me.sid:
                owner = self._evidence(sid, group, known, ids)
                if owner is not None:
                    owners[sid] = owner
        for sid in list(members):
            self._inherit(sid, procs, members, owners)
        self._sessions = dict(owners)
        return owners

    def marker(self, proc: Proc) -> str | None:
        key = (proc.pid, proc.start)
        if key in self._markers:
            return self._markers[key]
        environment = table.environment(proc.pid)
        value = table.variable(environment, MARKER)
        # An empty one may be that of a process in the middle of its exec.
        if environment != b"":
            self._markers[key] = value
        return value

    def stray(self, proc: Proc) -> bool:
        """Whether an unattributed process is some attempt's orphan that came to us: of a daemon within an attempt.

        A process that the daemon itself started for other reasons bears no mark, or is in its session.
        """
        if proc.ppid != self._me.pid or proc.sid == self._me.sid:
            return False
        return table.locks_limit(proc.pid) != self._me.limit or self.marker(proc) not in (None, self._me.marker)

    def _forget(self, procs: Mapping[int, Proc], members: Mapping[int, object], ids: set[str]) -> None:
        self._sessions = {s: o for s, o in self._sessions.items() if s in members and o in ids}
        self._markers = {k: v for k, v in self._markers.items() if k[0] in procs and procs[k[0]].start == k[1]}

    def _evidence(self, sid: int, group: list[Proc], known: Known, ids: set[str]) -> str | None:
        for proc in group:
            owner = known.tags.get(table.locks_limit(proc.pid))
            if owner is not None:
                return owner
        # The leader's environment speaks for the session; a member's only when there is no leader: someone may have
        # pasted a marker into a terminal.
        leader = next((p for p in group if p.pid == sid), None)
        for proc in [leader] if leader else group:
            value = self.marker(proc)
            if value in ids:
                return value
        return None

    def _inherit(
        self, sid: int, procs: Mapping[int, Proc], members: Mapping[int, list[Proc]], owners: dict[int, str]
    ) -> None:
        """Follow the parents of a session's members, from session to session, to one with an owner."""
        path: list[int] = []
        at = sid
        while at in members and at not in owners and at not in path and at != self._me.sid:
            path.append(at)
            at = _parent_session(at, members[at], procs)
        if at in owners:
            owners.update(dict.fromkeys(path, owners[at]))


def _parent_session(sid: int, group: list[Proc], procs: Mapping[int, Proc]) -> int:
    """The session that this one came from, or that its orphans went to; the leader's parent knows best. 0: none."""
    for proc in sorted(group, key=lambda p: p.pid != sid):
        parent = procs.get(proc.ppid)
        if parent is not None and parent.sid != sid:
            return parent.sid
    return 0


def sessions(procs: Iterable[Proc]) -> dict[int, list[Proc]]:
    """Processes by session; those of the kernel have none."""
    found: dict[int, list[Proc]] = {}
    for proc in procs:
        if proc.sid:
            found.setdefault(proc.sid, []).append(proc)
    return found
