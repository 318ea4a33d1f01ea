"""Whose process is it? Gives each session on the machine to the attempt that it belongs to.

Sessions, not processes, because a session is never shared: an attempt begins with a session of its own, nobody can join
one, so whoever is in a session descends from the one who made it.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from orchestr8d.keeper import RLIMIT_LOCKS
from orchestr8d.processes import table
from orchestr8d.processes.launch import MARKER, tag_of
from orchestr8d.processes.table import Proc

# A hard limit that is not set reads as -1.
_NO_CEILING = 1 << 63


@dataclass(frozen=True)
class Self:
    """This process as it looks in the table: what must be told from its attempts."""

    pid: int
    sid: int
    # Of file locks, soft and hard. A tag must stay below the hard one.
    limits: tuple[int, int]
    marker: str | None

    @classmethod
    def read(cls) -> Self:
        return cls(os.getpid(), os.getsid(0), resource.getrlimit(RLIMIT_LOCKS), os.environ.get(MARKER))

    def tag(self, attempt_id: str) -> int:
        ceiling = self.limits[1]
        return tag_of(attempt_id, ceiling if ceiling > 0 else _NO_CEILING)


@dataclass
class Known:
    """The attempts that this daemon knows: pids of their commands, and the tags of all their processes."""

    leaders: dict[int, str] = field(default_factory=dict)
    tags: dict[int, str] = field(default_factory=dict)
    # Whose children the commands and their orphans are, each the leader of a session of its own: this daemon's, and
    # those of earlier daemons, by the attempts that were adopted.
    keepers: set[int] = field(default_factory=set)
    inherited: dict[str, int] = field(default_factory=dict)

    def copy(self) -> Known:
        """For another thread to read."""
        return Known(dict(self.leaders), dict(self.tags), set(self.keepers), dict(self.inherited))

    def __or__(self, other: Known) -> Known:
        return Known(
            self.leaders | other.leaders, self.tags | other.tags, self.keepers | other.keepers,
            self.inherited | other.inherited,
        )  # fmt: skip

    def tagged(self, pid: int) -> str | None:
        """The attempt whose tag the process bears. Only root can raise the hard limit again, but it is set a moment
        after the start: until then the tag is in the soft one alone."""
        soft, hard = table.locks_limits(pid)
        return self.tags.get(hard) or self.tags.get(soft)

    def reapers(self, me: Self) -> set[int]:
        """To whom orphans go.

        The keeper of an earlier daemon may be gone and its pid somebody else's, or never have been one, as an attempt
        can write the file that it was found by: an attempt's processes have other limits.
        """
        old = {
            pid for pid in set(self.inherited.values())
            if table.locks_limits(pid) == me.limits and table.read(pid) is not None
        }  # fmt: skip
        return {me.pid} | self.keepers | old

    def homes(self, me: Self) -> set[int]:
        """Sessions that are the daemon's own. A keeper bears the tag of what it is just starting."""
        return {me.sid} | self.reapers(me)


class Lineage:
    """Attributes sessions to attempts, remembering what it has read. Used by one thread at a time."""

    def __init__(self, me: Self) -> None:
        self._me = me
        # As of the last look.
        self._keepers: set[int] = set()
        self._reapers: set[int] = set()
        self._homes: set[int] = set()
        # What a session was found to belong to holds for as long as a member of then is there, even when the evidence
        # goes. Not for longer: a session id is given to somebody else when its last member is gone.
        self._sessions: dict[int, tuple[str, list[Proc]]] = {}
        self._markers: dict[tuple[int, int], str | None] = {}

    def owners(self, procs: Mapping[int, Proc], known: Known) -> dict[int, str]:
        """The attempt of each session that belongs to one, by session id. The daemon's own never do."""
        members = sessions(procs.values())
        ids = set(known.tags.values())
        self._keepers, self._reapers, self._homes = known.keepers, known.reapers(self._me), known.homes(self._me)
        self._forget(procs, ids)
        owners = {sid: owner for sid, (owner, _) in self._sessions.items() if sid not in self._homes}
        for sid, group in members.items():
            if sid not in owners and sid not in self._homes:
                owner = self._evidence(sid, group, known, ids)
                if owner is not None:
                    owners[sid] = owner
        for sid in list(members):
            self._inherit(sid, procs, members, owners)
        self._sessions = {sid: (owner, members[sid]) for sid, owner in owners.items()}
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

    def handed(self, proc: Proc) -> bool:
        """Whether it is a command or an orphan of some attempt, by whose child it is in the table of the last look.

        Our keeper has no other children. What the daemon itself started for other reasons bears no mark.
        """
        if proc.ppid not in self._reapers or proc.sid in self._homes:
            return False
        if proc.ppid in self._keepers:
            return True
        return table.locks_limits(proc.pid) != self._me.limits or self.marker(proc) not in (None, self._me.marker)

    def _forget(self, procs: Mapping[int, Proc], ids: set[str]) -> None:
        def there(then: Proc) -> bool:
            now = procs.get(then.pid)
            return now is not None and (now.start, now.sid) == (then.start, then.sid)

        self._sessions = {s: (o, g) for s, (o, g) in self._sessions.items() if o in ids and any(map(there, g))}
        self._markers = {k: v for k, v in self._markers.items() if k[0] in procs and procs[k[0]].start == k[1]}

    def _evidence(self, sid: int, group: list[Proc], known: Known, ids: set[str]) -> str | None:
        # A command that has ended is taken in at once, and its pid may be somebody else's by now.
        if sid in known.leaders and any(self.handed(p) for p in group):
            return known.leaders[sid]
        for proc in group:
            owner = known.tagged(proc.pid)
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
        while at in members and at not in owners and at not in path and at not in self._homes:
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
