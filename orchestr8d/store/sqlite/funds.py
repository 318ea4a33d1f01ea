"""Budgets in the database: set aside when a task is claimed, charged when it has ended, and who may run then."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from orchestr8d.core import admission, budgets
from orchestr8d.core.budgets import Budget, Fund, Granted, Refused
from orchestr8d.core.model import Task, Usage
from orchestr8d.core.outcome import Outcome
from orchestr8d.store.sqlite import reads
from orchestr8d.store.sqlite.transaction import Tx

# An agent's last tasks, from which is guessed what the next one takes.
_PAST = 50
# Rows of a budget that are shown.
_SHOWN = 100
# Tasks that are looked at in one go, and that are read at once: mostly the first one has to wait.
STEP = 500
_FEW = 10
# At an end, so many are passed over for whom there will never be enough.
_PASSED = 50
_PLACES = reads.places("tasks_parked", "status = 'parked' AND parked_for IS NOT NULL AND parked_for = :why")
_FIRST = (
    "status = 'parked' AND parked_for IS NOT NULL AND parked_for = ? AND queue = ? AND lane = ? "
    "ORDER BY rank, seq LIMIT ? OFFSET ?"
)


def decide(db: sqlite3.Connection, of: Sequence[Budget], task: Task, now: int) -> tuple[list[Fund], Granted | Refused]:
    """The funds that pay for the task's next attempt, and what they give."""
    paying = [load(db, budget, key, budgets.period(budget, now)) for budget, key in _payers(db, of, task)]
    own = budgets.own_left(task)
    return paying, budgets.reserve(paying, _wants(db, paying, task, own), own)


def _payers(db: sqlite3.Connection, of: Sequence[Budget], task: Task) -> list[tuple[Budget, str]]:
    """The budgets that pay for the task, and whose money it is: the configuration's, and that of its workflow."""
    found = [(budget, key) for budget in of for key in budgets.keys(budget, task)]
    workflow_id = task.workflow_id if task.lane else None
    while workflow_id is not None:
        sql = (
            "SELECT w.max_cost_usd, t.workflow_id FROM workflows w LEFT JOIN tasks t ON t.id = w.parent_task "
            "WHERE w.id = ?"
        )
        most, above = db.execute(sql, (workflow_id,)).fetchone() or (None, None)
        if most is not None:
            found.append((budgets.of_workflow(most), workflow_id))
        workflow_id = above
    return found


def _wants(db: sqlite3.Connection, paying: Sequence[Fund], task: Task, own: float | None) -> dict[str, float]:
    if not paying:
        return {}
    earlier = reads.attempts(db, task.id) if task.attempt else []
    last = earlier[-1] if earlier else None
    past = _past(db, task.agent)
    return {fund.budget.name: budgets.wanted(fund.budget, own, last, past) for fund in paying}


def _past(db: sqlite3.Connection, agent: str | None) -> list[Usage]:
    rows = db.execute(
        "SELECT usage FROM tasks INDEXED BY tasks_usage WHERE agent = ? AND usage IS NOT NULL "
        "AND completed_at IS NOT NULL ORDER BY seq DESC LIMIT ?",
        (agent, _PAST),
    )
    return [msgspec.json.decode(row[0], type=Usage) for row in rows]


def load(db: sqlite3.Connection, budget: Budget, key: str, period: int) -> Fund:
    sql = "SELECT used, reserved FROM funds WHERE budget = ? AND period = ? AND key = ?"
    row = db.execute(sql, (budget.name, period, key)).fetchone()
    return Fund(budget, key, period, *(row or ()))


def _add(tx: Tx, place: tuple[str, int, str], used: float, reserved: float) -> None:
    tx.db.execute(
        "INSERT INTO funds (budget, period, key, used, reserved) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT DO UPDATE SET used = used + excluded.used, reserved = max(0, reserved + excluded.reserved)",
        (*place, used, reserved),
    )


def set_aside(tx: Tx, paying: Sequence[Fund], granted: Granted) -> None:
    for fund, amount in zip(paying, granted.amounts, strict=True):
        _add(tx, (fund.budget.name, fund.period, fund.key), 0, amount)


def note(tx: Tx, attempt_id: str, paying: Sequence[Fund], granted: Granted) -> None:
    """For whom it was set aside."""
    tx.db.executemany(
        "INSERT INTO reservations (attempt_id, budget, period, key, unit, amount) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (attempt_id, fund.budget.name, fund.period, fund.key, fund.budget.unit, amount)
            for fund, amount in zip(paying, granted.amounts, strict=True)
        ],
    )


def charge(tx: Tx, attempt_id: str, ended: Outcome) -> str | None:
    """Settles what was set aside for an attempt; answers what bounded it, as a `parked_for`."""
    sql = "SELECT budget, period, key, unit, amount FROM reservations WHERE attempt_id = ?"
    rows = tx.db.execute(sql, (attempt_id,)).fetchall()
    for budget, period, key, unit, amount in rows:
        _add(tx, (budget, period, key), budgets.charge(unit, ended, amount), -amount)
    tx.db.execute("DELETE FROM reservations WHERE attempt_id = ?", (attempt_id,))
    bounds = [(amount, f"budget:{budget}/{key}") for budget, _, key, unit, amount in rows if unit == "usd"]
    return min(bounds)[1] if bounds else None


def release(tx: Tx, of: Sequence[Budget], left: Task) -> None:
    """Money may be free, since `left` has left the queue or its run: the first of those that wait for it may go."""
    for budget, key in _payers(tx.db, of, left):
        release_key(tx, of, budget, key, _PASSED)


def release_key(tx: Tx, of: Sequence[Budget], budget: Budget, key: str, passed: int = 0) -> None:
    """`passed`: how many may be passed over for whom there will never be enough."""
    fund = load(tx.db, budget, key, budgets.period(budget, tx.now))
    if fund.left <= 0 and budget.on_exceed == "wait":
        return
    for queue, lane in tx.db.execute(_PLACES, {"why": fund.parked_for}).fetchall():
        # Each place as if it were alone, since the others may be held up: whoever comes too late waits again.
        _release_place(tx, of, fund, queue, lane, passed)


def _release_place(tx: Tx, of: Sequence[Budget], fund: Fund, queue: str, lane: str, passed: int) -> None:
    free, over = fund.left, 0
    for _ in range(STEP // _FEW):
        few = reads.tasks(tx.db, _FIRST, fund.parked_for, queue, lane, _FEW, over)
        for task in few:
            paying, decision = decide(tx.db, of, task, tx.now)
            if isinstance(decision, Granted):
                share = _share(fund, paying, decision)
                if share and free < share * budgets.USEFUL:
                    return
                free -= share
            elif decision.error is None and decision.fund is not None:
                if decision.fund.parked_for == fund.parked_for:
                    if not decision.for_good or over >= passed:
                        return
                    over += 1
                    continue
                # Another budget has run short meanwhile: its ends let this one go.
                tx.apply(admission.Change(task, {"parked_for": decision.fund.parked_for}, []))
                continue
            tx.apply(admission.unpark(task))
        if len(few) < _FEW:
            return


def _share(fund: Fund, paying: Sequence[Fund], granted: Granted) -> float:
    pairs = zip(paying, granted.amounts, strict=True)
    return sum(amount for other, amount in pairs if other.parked_for == fund.parked_for)


def ask_again(tx: Tx, of: Sequence[Budget], task: Task) -> None:
    """One that is parked for a budget: it is queued if it may start now, or fail; else it waits for what holds it up
    now."""
    _, decision = decide(tx.db, of, task, tx.now)
    if isinstance(decision, Granted) or decision.fund is None or decision.error is not None:
        tx.apply(admission.unpark(task))
    elif decision.fund.parked_for != task.parked_for:
        tx.apply(admission.Change(task, {"parked_for": decision.fund.parked_for}, []))


def waits(db: sqlite3.Connection, budget: Budget) -> bool:
    """Whether anybody waits for this budget, which has one key."""
    sql = "SELECT EXISTS (SELECT 1 FROM tasks WHERE status = 'parked' AND parked_for IS NOT NULL AND parked_for = ?)"
    return bool(db.execute(sql, (Fund(budget).parked_for,)).fetchone()[0])


def recheck(tx: Tx, of: Sequence[Budget], after: int) -> int | None:
    """Other budgets hold now: a step's worth of parked tasks asks them."""
    found = reads.tasks(tx.db, "status = 'parked' AND seq > ? ORDER BY seq LIMIT ?", after, STEP)
    for task in found:
        if task.parked_for is not None and task.parked_for.startswith("budget:"):
            ask_again(tx, of, task)
    return found[-1].seq if len(found) == STEP else None


def shown(db: sqlite3.Connection, of: Sequence[Budget], now: int) -> list[Fund]:
    """How budgets stand: of tasks those that run, of tags and users the first."""
    found: list[Fund] = []
    for budget in of:
        period = budgets.period(budget, now)
        if budget.per in ("day", "total"):
            found.append(load(db, budget, "", period))
            continue
        if budget.per == "task":
            sql = "SELECT key FROM reservations WHERE budget = ? AND period = ? ORDER BY key LIMIT ?"
        else:
            sql = "SELECT key FROM funds WHERE budget = ? AND period = ? ORDER BY key LIMIT ?"
        keys = db.execute(sql, (budget.name, period, _SHOWN)).fetchall()
        found += [load(db, budget, key, period) for (key,) in keys]
    return found


def forget(tx: Tx, of: Sequence[Budget], task: Task) -> None:
    """The task is removed."""
    for budget in of:
        if budget.per == "task":
            tx.db.execute("DELETE FROM funds WHERE budget = ? AND period = 0 AND key = ?", (budget.name, task.id))


def forget_workflow(tx: Tx, workflow_id: str) -> None:
    name = budgets.of_workflow(0).name
    tx.db.execute("DELETE FROM funds WHERE budget = ? AND period = 0 AND key = ?", (name, workflow_id))


def prune(tx: Tx, of: Sequence[Budget]) -> None:
    """Days that are over; what still runs since then is charged to a row of its own."""
    for budget in of:
        if budget.per == "day":
            today = budgets.period(budget, tx.now)
            tx.db.execute("DELETE FROM funds WHERE budget = ? AND period > 0 AND period < ?", (budget.name, today - 31))
