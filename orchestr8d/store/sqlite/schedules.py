"""The rows of schedules and of their firings: made, changed, found, brought in line with the configuration, pruned."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from orchestr8d.core import firings
from orchestr8d.core.cron import BadRule
from orchestr8d.core.errors import Fault, Problem, refuse
from orchestr8d.core.ids import uuid7
from orchestr8d.core.schedules import Firing, FiringView, NewSchedule, Schedule
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import Reconciled, Stale

_FIELDS = Schedule.__struct_fields__
_COLUMNS = ", ".join(_FIELDS)
_INSERT = f"INSERT INTO schedules ({_COLUMNS}) VALUES ({', '.join('?' * len(_FIELDS))})"
_UPDATE = f"UPDATE schedules SET {', '.join(f'{name} = ?' for name in _FIELDS[2:])} WHERE seq = ?"
_FIRING = ", ".join(f'f."{name}"' for name in Firing.__struct_fields__)
# Firings that go with their schedule in one transaction.
STEP = 1000
# So many firings are looked at for those that are over.
LOOK = 50


# -- read


def find(db: sqlite3.Connection, schedule_id: str) -> Schedule | None:
    found = _where(db, "id = ?", schedule_id)
    return found[0] if found else None


def named(db: sqlite3.Connection, name: str) -> Schedule:
    """By its id or name. Problem(not-found)."""
    found = _where(db, "id = ?", name) or _where(db, "name = ?", name)
    if not found:
        raise Problem("not-found", f"there is no schedule {name}")
    return found[0]


def _where(db: sqlite3.Connection, where: str, *args: Any) -> list[Schedule]:
    return [Schedule(*row) for row in db.execute(f"SELECT {_COLUMNS} FROM schedules WHERE {where}", args)]


def listed(db: sqlite3.Connection, q: str | None, limit: int, before: int | None) -> list[Schedule]:
    where, args = ["TRUE"], list[Any]()
    if q is not None:
        where.append("instr(lower(name), lower(?)) > 0")
        args.append(q)
    if before is not None:
        where.append("seq < ?")
        args.append(before)
    return _where(db, f"{' AND '.join(where)} ORDER BY seq DESC LIMIT ?", *args, limit)


def next_due(db: sqlite3.Connection) -> int | None:
    (found,) = db.execute("SELECT min(next_at) FROM schedules WHERE next_at IS NOT NULL").fetchone()
    return None if found is None else int(found)


def due(db: sqlite3.Connection, after: tuple[int, int], until: int, limit: int) -> list[Schedule]:
    where = "next_at IS NOT NULL AND (next_at, seq) > (?, ?) AND next_at <= ? ORDER BY next_at, seq LIMIT ?"
    return _where(db, where, *after, until, limit)


def history(db: sqlite3.Connection, schedule_id: str, limit: int, before: int | None) -> list[FiringView]:
    sql = (
        f"SELECT {_FIRING}, coalesce(t.status, w.status) FROM firings f LEFT JOIN tasks t ON t.id = f.task_id "
        "LEFT JOIN workflows w ON w.id = f.workflow_id WHERE f.schedule_id = ? AND f.time < ? "
        "ORDER BY f.time DESC LIMIT ?"
    )
    rows = db.execute(sql, (schedule_id, 1 << 62 if before is None else before, limit))
    return [FiringView(Firing(*row[:-1]), row[-1]) for row in rows]


def outcomes(db: sqlite3.Connection, schedule_id: str) -> Iterator[str | None]:
    """How what its last firings started stands now, newest first; each is read when it is asked for."""
    sql = (
        "SELECT coalesce(t.status, w.status) FROM firings f LEFT JOIN tasks t ON t.id = f.task_id "
        "LEFT JOIN workflows w ON w.id = f.workflow_id WHERE f.schedule_id = ? ORDER BY f.time DESC LIMIT ?"
    )
    for (status,) in db.execute(sql, (schedule_id, LOOK)):
        yield status


# -- written


def put(tx: Tx, after: Schedule) -> None:
    tx.db.execute(_UPDATE, (*msgspec.structs.astuple(after)[2:], after.seq))


def add(tx: Tx, new: Sequence[NewSchedule]) -> list[Schedule]:
    """All or none. Raises Problem with all faults."""
    last = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'schedules'), 0)"
    (seq,) = tx.db.execute(last).fetchone()
    faults: list[Fault] = []
    made: list[Schedule] = []
    for one in new:
        try:
            row = firings.made(one, uuid7(tx.now), seq + 1 + len(made), tx.now)
            made.append(row)
            tx.db.execute(_INSERT, msgspec.structs.astuple(row))
        except BadRule as e:
            faults += [Fault(one.at + fault.path, fault.message, fault.kind) for fault in e.faults]
        except sqlite3.IntegrityError as e:
            if e.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
                raise
            made.pop()
            faults.append(Fault(f"{one.at}name", f"there is a schedule {one.name!r} already", "conflict"))
    refuse(faults)
    tx.work.add("schedules")
    return made


def change(tx: Tx, name: str, decide: Callable[[Schedule], Schedule]) -> Schedule:
    before = named(tx.db, name)
    return _changed(tx, before, decide(msgspec.structs.replace(before)))


def _changed(tx: Tx, before: Schedule, after: Schedule) -> Schedule:
    """Raises Stale while something is due that the change would lose."""
    if after == before:
        return before
    if before.next_at is not None and before.next_at <= tx.now and not before.recheck and firings.moves(before, after):
        raise Stale(before.id)
    try:
        after = firings.changed(before, after, tx.now)
    except BadRule as e:
        refuse(e.faults)
        raise
    if after.name != before.name and _where(tx.db, "name = ?", after.name):
        raise Problem("conflict", message := f"there is a schedule {after.name!r} already",
                      [Fault("name", message, "conflict")])  # fmt: skip
    put(tx, after)
    tx.work.add("schedules")
    return after


def remove(tx: Tx, name: str) -> Schedule:
    gone = named(tx.db, name)
    tx.db.execute("DELETE FROM schedules WHERE seq = ?", (gone.seq,))
    return gone


def forget(tx: Tx, schedule_id: str) -> bool:
    """A step's worth of the firings of a schedule that is gone; whether there may be more."""
    some = "SELECT time FROM firings WHERE schedule_id = ?1 LIMIT ?2"
    sql = f"DELETE FROM firings WHERE schedule_id = ?1 AND time IN ({some})"
    return tx.db.execute(sql, (schedule_id, STEP)).rowcount == STEP


def reconcile(tx: Tx, said: Sequence[NewSchedule]) -> Reconciled:
    """The schedules of the configuration, by name, as it says; those that it says no more are not active. Raises
    Stale."""
    done = Reconciled()
    fresh = []
    for one in said:
        known = _where(tx.db, "name = ?", one.name)
        if not known:
            fresh.append(one)
            continue
        try:
            wanted = firings.as_said(known[0], one, tx.now)
        except BadRule as e:
            refuse([Fault(one.at + fault.path, fault.message, fault.kind) for fault in e.faults])
            raise
        if _changed(tx, known[0], wanted) is not known[0]:
            done.changed.append(one.name)
    done.added += [schedule.name for schedule in add(tx, fresh)] if fresh else []
    names = {one.name for one in said}
    for row in _where(tx.db, "source = 'config' AND active = 1"):
        if row.name not in names:
            _changed(tx, row, msgspec.structs.replace(row, active=0))
            done.removed.append(row.name)
    return done


# -- the clock, and upkeep


def rechecked(tx: Tx, found: Sequence[tuple[Schedule, int | None]]) -> None:
    """What their due times are now that the clock was set back; nothing of those that have changed since."""
    tx.db.executemany(
        "UPDATE schedules SET next_at = ?1, active = ?1 IS NOT NULL, recheck = 0 "
        "WHERE seq = ?2 AND updated_at = ?3 AND next_at = ?4 AND recheck = 1",
        [(next_at, row.seq, row.updated_at, row.next_at) for row, next_at in found],
    )


def shift(tx: Tx, ms: int) -> None:
    """The wall clock was set. Forward, due times have come; back, others come before those that are kept."""
    tx.db.execute("UPDATE workflows SET begin_at = begin_at + ? WHERE begin_at IS NOT NULL", (ms,))
    tx.work |= {"schedules", "workflows"}
    if ms < 0:
        recheck(tx)


def recheck(tx: Tx) -> None:
    """What is due by now stays due."""
    sql = "UPDATE schedules SET recheck = 1, next_at = ?1 WHERE next_at IS NOT NULL AND next_at > ?1"
    tx.db.execute(sql, (tx.now,))


def prune(tx: Tx, cutoff: int, step: int) -> int:
    """Firings that are past their keep; how many went."""
    old = "SELECT schedule_id, time FROM firings WHERE at < ? ORDER BY at LIMIT ?"
    return tx.db.execute(f"DELETE FROM firings WHERE (schedule_id, time) IN ({old})", (cutoff, step)).rowcount
