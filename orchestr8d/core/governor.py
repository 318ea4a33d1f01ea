"""Which account an agent's task may run on: what accounts and the breaker let through, and what outcomes teach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from orchestr8d.core.durations import iso
from orchestr8d.core.model import WaitingFor
from orchestr8d.core.outcome import Limited, Outcome

# The breaker is a valve too, over all accounts.
BREAKER: Final = ""
# Milliseconds: the backoff of an account whose provider names no reset, that of the breaker, the spread of a reset.
_ACCOUNT_BACKOFF: Final = (60_000, 15 * 60_000)
_BREAKER_BACKOFF: Final = (5_000, 5 * 60_000)
_JITTER: Final = 5_000
# A reset that is further away than any provider's window is a mistake, and nobody shall wait for it.
_LONGEST_LIMIT: Final = 32 * 86_400_000

Phase = Literal["open", "probe", "shut"]


class Account(msgspec.Struct, frozen=True):
    """An account of the configuration, and how many run on it at once."""

    name: str = "default"
    concurrency: int = 4


class Valve(msgspec.Struct, frozen=True):
    """How an account, or the breaker, stands. `limited` until `until` + `jitter` (ms), `closed` until a person acts."""

    name: str
    state: Literal["open", "limited", "closed"] = "open"
    until: int | None = None
    jitter: int = 0
    # 1: `until` is a backoff of our own, the provider said nothing. Then one attempt goes ahead of the others (`probe`
    # is its id), and a set clock moves it along.
    guessed: int = 0
    step: int = 0
    probe: str | None = None
    reason: str = ""

    @property
    def over_at(self) -> int | None:
        return None if self.until is None else self.until + self.jitter


class Seat(msgspec.Struct, frozen=True):
    """Where an attempt runs, and the valves for which it is the probe."""

    account: str
    probes: tuple[str, ...] = ()


def phase(valve: Valve, now: int) -> Phase:
    """What it lets through: everything, one probe, or nothing."""
    if valve.state == "open":
        return "open"
    if valve.state == "closed" or valve.over_at is None or now < valve.over_at or valve.probe is not None:
        return "shut"
    return "probe" if valve.guessed else "open"


class Capacity:
    """How many more agents' tasks may start now, lane by lane; `take` uses it up."""

    def __init__(
        self, accounts: Sequence[Account], concurrency: int, valves: Mapping[str, Valve], running: Mapping[str, int],
        now: int,
    ) -> None:  # fmt: skip
        """`running`: attempts by account; `concurrency`: how many run at once over all accounts."""
        self._now = now
        self._accounts = [account.name for account in accounts]
        self._valves = {name: valves.get(name, Valve(name)) for name in (BREAKER, *self._accounts)}
        self._phases = {name: phase(valve, now) for name, valve in self._valves.items()}
        self._left = self._through(BREAKER, concurrency - sum(running.values()))
        self._room = {a.name: self._through(a.name, a.concurrency - running.get(a.name, 0)) for a in accounts}

    def _through(self, valve: str, free: int) -> int:
        most = {"open": free, "probe": 1, "shut": 0}[self._phases[valve]]
        return max(0, min(free, most))

    def _of(self, lane: str) -> list[str]:
        """The accounts that serve a lane, in the configuration's order."""
        fixed = lane.partition(":")[2]
        return self._accounts if not fixed else [fixed] if fixed in self._room else []

    def free(self, lane: str) -> int:
        return min(self._left, sum(self._room[name] for name in self._of(lane)))

    def take(self, lane: str) -> Seat | None:
        """A place on the first account that has one; None when there is none."""
        if self.free(lane) == 0:
            return None
        account = next(name for name in self._of(lane) if self._room[name])
        self._left -= 1
        self._room[account] -= 1
        return Seat(account, tuple(name for name in (BREAKER, account) if self._phases[name] == "probe"))

    def phase(self, lane: str) -> Phase:
        """The best that any account of the lane lets through, as far as the breaker does."""
        order: list[Phase] = ["open", "probe", "shut"]
        best = min((order.index(self._phases[name]) for name in self._of(lane)), default=2)
        return order[max(best, order.index(self._phases[BREAKER]))]

    def blocked(self, lane: str) -> WaitingFor | None:
        """Why nothing, or only a probe, of this lane may start; None when it is open."""
        if self.phase(lane) == "open":
            return None
        if self._phases[BREAKER] != "open":
            return WaitingFor("limit", name="breaker", until=self._until(self._valves[BREAKER]))
        fixed = lane.partition(":")[2]
        valves = [self._valves[name] for name in self._of(lane)] or [Valve(fixed, "closed")]
        first = min(valves, key=lambda valve: (valve.state == "closed", valve.over_at or 0))
        return WaitingFor("limit", account=first.name, until=self._until(first))

    def _until(self, valve: Valve) -> str | None:
        over = valve.over_at
        return iso(over) if over is not None and over > self._now else None

    def opens_at(self) -> int | None:
        """When time alone lets more through."""
        times = [valve.over_at for valve in self._valves.values()]
        return min((at for at in times if at is not None and at > self._now), default=None)


# -- what is learnt


def learn(account: Valve, breaker: Valve, ended: Outcome, attempt_id: str, now: int, draw: float) -> list[Valve]:
    """The account's and the breaker's valves after an attempt ended; `draw` is a random number in [0, 1)."""
    account, breaker = _unless_over(account, now), _unless_over(breaker, now)
    limited = ended.limited
    if limited is None:
        usage = ended.usage
        if ended.status == "completed" or (usage is not None and usage.output_tokens > 0):
            return [_worked(account, attempt_id), _worked(breaker, attempt_id)]
        # Nothing is known: the next one probes.
        return [_unknown(account, attempt_id), _unknown(breaker, attempt_id)]
    if limited.kind == "overload":
        return [_unknown(account, attempt_id), _overloaded(breaker, limited, attempt_id, now)]
    answered = _worked(breaker, attempt_id)
    if limited.kind == "limit":
        return [_limited(account, limited, attempt_id, now, draw), answered]
    if limited.kind == "budget":
        return [_worked(account, attempt_id), answered]
    return [Valve(account.name, "closed", reason=limited.reason or limited.kind), answered]


def _unless_over(valve: Valve, now: int) -> Valve:
    """A limit that is over is as good as none."""
    return Valve(valve.name) if phase(valve, now) == "open" else valve


def _worked(valve: Valve, attempt_id: str) -> Valve:
    if valve.state != "limited":
        return valve
    if valve.probe == attempt_id:
        return Valve(valve.name)
    # It began before the limit: that is no proof that the next one would get through.
    return msgspec.structs.replace(valve, step=0) if valve.guessed and valve.name != BREAKER else valve


def _unknown(valve: Valve, attempt_id: str) -> Valve:
    return msgspec.structs.replace(valve, probe=None) if valve.probe == attempt_id else valve


def _limited(valve: Valve, limited: Limited, attempt_id: str, now: int, draw: float) -> Valve:
    if valve.state == "closed":
        return valve
    until = limited.until
    if until is not None and now < until < now + _LONGEST_LIMIT:
        known = valve.state == "limited" and not valve.guessed and phase(valve, now) == "shut"
        # Those that ran at that moment come back one by one: the account has one time to open.
        jitter = valve.jitter if known else round(draw * _JITTER)
        until = max(until, valve.until or 0) if known else until
        return Valve(valve.name, "limited", until, jitter, reason=limited.reason)
    return _back_off(valve, _ACCOUNT_BACKOFF, limited.reason, attempt_id, now)


def _overloaded(breaker: Valve, limited: Limited, attempt_id: str, now: int) -> Valve:
    return _back_off(breaker, _BREAKER_BACKOFF, limited.reason, attempt_id, now)


def _back_off(valve: Valve, backoff: tuple[int, int], reason: str, attempt_id: str, now: int) -> Valve:
    if valve.state == "limited" and valve.probe != attempt_id and (valve.guessed or phase(valve, now) == "shut"):
        # One of those that ran at that moment: it says nothing new.
        return valve
    step = valve.step + 1 if valve.guessed else 1
    base, cap = backoff
    wait = min(base << min(step - 1, 16), cap)
    return Valve(valve.name, "limited", now + wait, guessed=1, step=step, reason=reason)
