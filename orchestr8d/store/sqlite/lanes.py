"""Accounts, the breaker and budgets at a claim and at an end: who may start where, who is parked, who may go on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec

from orchestr8d.core import admission, governor
from orchestr8d.core.budgets import DAY, Fund, Granted
from orchestr8d.core.governor import BREAKER, Capacity, Valve
from orchestr8d.core.model import Attempt, Task, WaitingFor
from orchestr8d.core.notices import DEFAULT_USER, NewNotice
from orchestr8d.core.outcome import Outcome
from orchestr8d.store.sqlite import funds, notices, reads
from orchestr8d.store.sqlite.follow import Follower
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import Limits

# Tasks that are parked or queued at a time: other writes get their turn in between.
STEP = 500
CLAIMABLE = "status = 'queued' AND hold IS NULL"
# Where something may be claimed: queues and lanes where nothing may cost nothing.
READY = reads.places("tasks_claim", CLAIMABLE)
_LIMITED = "status = 'parked' AND parked_for IS NOT NULL AND parked_for = 'limit'"
_PARKED = reads.places("tasks_parked", _LIMITED)
_IN_ORDER = "AND queue = ? AND lane = ? ORDER BY rank, seq LIMIT ?"

Place = tuple[str, str]


class Entry(msgspec.Struct):
    """With what a task starts: nothing for a command; an account and its money for an agent's."""

    account: str | None = None
    probes: tuple[str, ...] = ()
    cap_usd: float | None = None
    paying: Sequence[Fund] = ()
    granted: Granted | None = None


_NOTHING = Entry()


class Lanes:
    """What lanes let through, in one claim. Nothing is read until an agent's task is in question."""

    def __init__(self, tx: Tx, follower: Follower) -> None:
        self._tx = tx
        self._follower = follower
        # Tasks that no budget paid for.
        self.refused = 0

    @property
    def _limits(self) -> Limits:
        return self._follower.limits

    @cached_property
    def _capacity(self) -> Capacity:
        return reads.capacity(self._tx.db, self._limits, self._tx.now)

    def free(self, lane: str, most: int) -> int:
        """How many of up to `most` may start."""
        return min(most, self._capacity.free(lane)) if lane else most

    def enter(self, task: Task) -> Entry | None:
        """A place for the task, which is taken; None when there is none. One that no budget pays for is parked."""
        if not task.lane:
            return _NOTHING
        if self._capacity.free(task.lane) == 0 or self.refused >= STEP:
            return None
        tx = self._tx
        paying, decision = funds.decide(tx.db, self._limits.budgets, task, tx.now)
        if not isinstance(decision, Granted):
            self.refused += 1
            if decision.error is not None:
                tx.apply(admission.finalise(task, "failed", tx.now, decision.error))
            elif decision.fund is not None:
                reason = WaitingFor("budget", name=decision.fund.budget.name)
                tx.apply(admission.park(task, decision.fund.parked_for, reason))
            return None
        seat = self._capacity.take(task.lane)
        if seat is None:
            return None
        funds.set_aside(tx, paying, decision)
        return Entry(seat.account, seat.probes, decision.cap_usd, paying, decision)

    def entered(self, attempt: Attempt, entry: Entry) -> None:
        """The task runs: as a probe it is the only one, and its money is its own."""
        if entry.granted is not None:
            funds.note(self._tx, attempt.id, entry.paying, entry.granted)
        for name in entry.probes:
            self._tx.db.execute("UPDATE valves SET probe = ? WHERE name = ?", (attempt.id, name))

    # -- parking

    def step(self) -> bool:
        """Parks what waits where nothing gets through, and queues what is parked where something does; True when there
        is more to do."""
        parked = released = 0
        while parked < STEP and (moved := self._park(STEP - parked)):
            parked += moved
        for budget in self._limits.budgets:
            if budget.per == "day":
                # Another day may have begun, and nothing else tells of it.
                funds.release_key(self._tx, self._limits.budgets, budget, "")
        if parked < STEP:
            released = self._release()
        self._follower(self._tx)
        return parked == STEP or released > 0

    def _places(self, sql: str) -> list[Place]:
        return self._tx.db.execute(sql).fetchall()

    def _park(self, most: int) -> int:
        moved = 0
        for queue, lane in self._places(READY):
            if not lane or self._capacity.phase(lane) != "shut":
                continue
            reason = self._capacity.blocked(lane)
            assert reason is not None
            for task in reads.tasks(self._tx.db, f"{CLAIMABLE} {_IN_ORDER}", queue, lane, most - moved):
                self._tx.apply(admission.park(task, "limit", reason))
                moved += 1
        if moved:
            # The next ones of their keys are claimable now, and are parked in turn.
            self._follower(self._tx)
        return moved

    def _release(self) -> int:
        found: list[Task] = []
        ready = set(self._places(READY))
        for queue, lane in self._places(_PARKED):
            phase = self._capacity.phase(lane)
            # One is enough to probe with, if it is there already.
            most = STEP if phase == "open" else int(self._capacity.free(lane) > 0 and (queue, lane) not in ready)
            if most:
                found += reads.tasks(self._tx.db, f"{_LIMITED} {_IN_ORDER}", queue, lane, most)
        found.sort(key=lambda task: (task.rank, task.seq))
        for task in found[:STEP]:
            self._tx.apply(admission.unpark(task))
        return min(len(found), STEP)

    def opens_at(self) -> int | None:
        """When time alone lets more through, if anybody waits for it."""
        tx = self._tx
        times = []
        if self._places(_PARKED) or any(lane for _, lane in self._places(READY)):
            times.append(self._capacity.opens_at())
        if any(budget.per == "day" and funds.waits(tx.db, budget) for budget in self._limits.budgets):
            times.append((tx.now // DAY + 1) * DAY)
        return min((at for at in times if at is not None), default=None)


# -- what is learnt


def learn(tx: Tx, attempt: Attempt, ended: Outcome, draw: float) -> None:
    """What the end of an agent's attempt tells of its account and of the provider."""
    if attempt.account is None:
        return
    known = reads.valves(tx.db)
    account, breaker = (known.get(name, Valve(name)) for name in (attempt.account, BREAKER))
    for before, after in zip(
        (account, breaker), governor.learn(account, breaker, ended, attempt.id, tx.now, draw), strict=True
    ):
        if before != after:
            _set(tx, before, after)


def open_account(tx: Tx, name: str | None) -> None:
    """An account, or all that are closed."""
    for valve in reads.valves(tx.db).values():
        if valve.name == name or (name is None and valve.state == "closed"):
            _set(tx, valve, Valve(valve.name))
            tx.quiet.append(valve.name)


def _set(tx: Tx, before: Valve, after: Valve) -> None:
    if after.state == "open":
        tx.db.execute("DELETE FROM valves WHERE name = ?", (after.name,))
    else:
        columns = Valve.__struct_fields__
        tx.db.execute(
            f"INSERT OR REPLACE INTO valves ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",
            msgspec.structs.astuple(after),
        )
    _tell(tx, before, after)


def _closed(valve: Valve) -> NewNotice:
    return NewNotice(
        user_id=DEFAULT_USER, type="alert", title=f"Account {valve.name} is closed",
        message=f"No agent starts on account {valve.name} any more: {valve.reason}. When that is mended, "
        f"`orchestr8d limits open {valve.name}` or a reload opens it.",
        metadata={"alert": "account_closed", "account": valve.name},
    )  # fmt: skip


def _tell(tx: Tx, before: Valve, after: Valve) -> None:
    said = {"account": after.name, "reason": after.reason}
    if after.state == "closed" and before.state != "closed":
        tx.tell("alert.raised", {"alert": "account_closed", **said})
        notices.notify(tx, _closed(after))
        tx.warnings.append(("an account was closed", said))
    elif before.state == "closed" and after.state != "closed":
        tx.tell("alert.cleared", {"alert": "account_closed", "account": after.name})
    if after.state == "limited" and (before.state, before.until) != (after.state, after.until):
        seconds = max(0, (after.over_at or 0) - tx.now) / 1000
        if after.name == BREAKER:
            tx.warnings.append(("the provider is overloaded", {"reason": after.reason, "for_seconds": seconds}))
        else:
            tx.warnings.append(("an account is limited", {**said, "for_seconds": seconds}))
