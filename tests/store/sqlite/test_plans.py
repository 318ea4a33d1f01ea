"""Every statement of the hot paths goes by the index that was made for it, also when very much waits."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core.budgets import Budget
from orchestr8d.core.governor import Account
from orchestr8d.core.model import Queue
from orchestr8d.store.sqlite import funds, overlaps, reads, running, schedules, sending, upkeep, webhooks
from orchestr8d.store.sqlite.deliveries import Subscriptions
from orchestr8d.store.sqlite.follow import Follower
from orchestr8d.store.sqlite.lanes import Lanes
from orchestr8d.store.sqlite.schema import connect, migrate
from orchestr8d.store.sqlite.transaction import TASK_COLUMNS, Tx
from orchestr8d.store.types import DeliveryFilter, EventFilter, Limits, Retention, TaskFilter
from tests.store.sqlite.conftest import statements

pytestmark = pytest.mark.slow

NOW = FakeClock().now()
WAITING = 100_000
# What differs from a command that is queued, and how many of them.
ROWS: list[tuple[dict[str, Any], int]] = [
    ({"queue": "paused"}, WAITING // 2),
    ({"hold": "concurrency_key", "concurrency_key": "held"}, WAITING // 2),
    ({"concurrency_key": "held"}, 1),
    ({"deadline_at": 2 * NOW}, 50),
    ({"status": "pending", "queued_at": None, "wake_at": 2 * NOW}, 500),
    ({"status": "running", "concurrency_key": "busy"}, 10),
    ({"status": "completed", "concurrency_key": "held"}, WAITING // 2),
    # Of agents: an account that lets nothing through, one that does, a budget that is spent.
    ({"agent": "a", "lane": "claude:shut"}, WAITING // 2),
    ({"agent": "a", "lane": "claude:shut", "status": "parked", "parked_for": "limit"}, WAITING // 2),
    ({"agent": "a", "lane": "claude:open", "status": "parked", "parked_for": "limit"}, 700),
    ({"agent": "a", "lane": "claude:open", "status": "parked", "parked_for": "budget:all/"}, WAITING // 2),
    ({"agent": "a", "lane": "claude:open"}, 20),
    ({"agent": "a", "lane": "claude:open", "status": "completed", "usage": '{"cost_usd":1}'}, 1000),
]
ACCOUNTS = (Account("shut", 4), Account("open", 4))
LIMITS = Limits(accounts=ACCOUNTS)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A store in which 100,000 tasks wait for what does not come."""
    made = connect(tmp_path_factory.mktemp("plans") / "store.db")
    migrate(made)
    made.execute("PRAGMA synchronous = OFF")
    made.execute("BEGIN")
    seq = 0
    for row, count in ROWS:
        values = {
            "kind": "command", "status": "queued", "queue": "default", "priority": 0, "user_id": "local",
            "attempt": 0, "retry_count": 0, "blockers": 0, "paused": 0, "wake_is_delay": 0, "created_at": 1,
            "updated_at": 1, "queued_at": 1, "started_at": 1, "executor_id": "x", "spec": '{"command":["true"]}',
            "completed_at": 1 if row.get("status") == "completed" else None,
        } | row  # fmt: skip
        names = [*values, "seq", "id", "rank"]
        made.executemany(
            f"INSERT INTO tasks ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
            [(*values.values(), n, f"{n:032x}", n) for n in range(seq + 1, seq + count + 1)],
        )
        seq += count
    made.execute(f"INSERT INTO queues (name, paused, depth) VALUES ('paused', 1, {WAITING // 2}), ('default', 0, 1)")
    made.execute(
        "INSERT INTO valves (name, state, until, jitter, guessed, step, reason) "
        "VALUES ('shut', 'limited', ?, 0, 0, 0, '')", (2 * NOW,)
    )  # fmt: skip
    made.execute("INSERT INTO funds (budget, period, key, used) VALUES ('all', 0, '', 100)")
    made.execute("INSERT INTO queues (name, rate) VALUES ('rated', '5/m')")
    made.executemany("INSERT INTO events (type, at, task_id, data) VALUES ('t', 1, ?, '{}')", [("a",)] * 1000)
    # Deliveries: most are done; two endpoints have something to send, one of them very much.
    made.executemany(
        "INSERT INTO deliveries (id, endpoint, url, method, place, type, user_id, quiet, status, fresh, tries, "
        "retry_count, next_at, created_at, done_at, attempts, body) "
        "VALUES (?, ?, 'u', 'POST', ?, 't', 'u', 0, ?, ?, ?, 0, ?, 1, ?, '[]', x'')",
        [
            *((f"d{n}", "done", n, "delivered", 0, 1, None, 1) for n in range(WAITING // 2)),
            *((f"f{n}", "much", n, "pending", 1, 0, 1, None) for n in range(WAITING // 2)),
            *((f"r{n}", "later", n, "pending", 0, 1, 2 * NOW, None) for n in range(1000)),
        ],
    )  # fmt: skip
    made.execute("COMMIT")
    yield made
    made.close()


def plans(db: sqlite3.Connection, work: Callable[[], object]) -> list[str]:
    """How SQLite goes about each statement that `work` runs."""
    seen = statements(db)
    try:
        work()
    finally:
        db.set_trace_callback(None)
    found = []
    for statement in seen:
        if statement.startswith(("SELECT", "WITH", "UPDATE", "DELETE", "INSERT")):
            found += [row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}")]
    return found


def scans(steps: list[str]) -> list[str]:
    """Walks over the whole of a big table or index, and sorting of what was found."""
    big = (
        "SCAN tasks", "SCAN t", "SCAN events", "SCAN d", "SCAN attempts", "SCAN idempotency",
        "USE TEMP B-TREE FOR ORDER BY",
    )  # fmt: skip
    # These hold what runs or is tried again now, and nothing else.
    small = ("tasks_busy", "attempts_running", "deliveries_again")
    return [step for step in steps if step.startswith(big) and not step.endswith(small)]


def tx(db: sqlite3.Connection, now: int = NOW) -> Tx:
    return Tx(db, now, Follower(), Subscriptions())


def follower(*budgets: Budget) -> Follower:
    made = Follower()
    made.limits = msgspec.structs.replace(LIMITS, budgets=budgets)
    return made


def claim(db: sqlite3.Connection, made: Follower, free: int) -> None:
    one = tx(db)
    running.claim(one, made, Lanes(one, made), "x", free)


def test_a_claim(db: sqlite3.Connection) -> None:
    db.execute("BEGIN")
    try:
        steps = plans(db, lambda: claim(db, follower(), 8))
        claimed = db.execute("SELECT count(*) FROM tasks WHERE executor_id = 'x' AND attempt = 1").fetchone()[0]
    finally:
        db.execute("ROLLBACK")
    assert claimed == 8
    assert scans(steps) == []
    assert any("USING INDEX tasks_claim (queue=? AND lane=?)" in step for step in steps)
    # The index of lists has all that is queued, claimable or not.
    assert not any("tasks_status" in step for step in steps), steps
    assert any("USING INDEX tasks_key_busy (concurrency_key=?)" in step for step in steps)


def test_the_window_over_a_key(db: sqlite3.Connection) -> None:
    db.execute("BEGIN")
    try:
        made = Follower()
        made.limits = Limits(per_key=3)
        steps = plans(db, lambda: made._window(tx(db), "held"))
        opened = db.execute("SELECT count(*) FROM tasks WHERE concurrency_key = 'held' AND hold IS NULL").fetchone()
    finally:
        db.execute("ROLLBACK")
    assert opened == (3 + WAITING // 2,)
    assert scans(steps) == []
    assert any("tasks_key (concurrency_key=? AND queue=? AND lane=?)" in step for step in steps)
    assert any("tasks_key_open (concurrency_key=?)" in step for step in steps)


def test_what_is_blocked_is_not_visited(db: sqlite3.Connection) -> None:
    """A claim of commands runs as many statements with 150,000 agents' tasks that wait as with none."""
    db.execute("BEGIN")
    try:
        seen = statements(db)
        claim(db, follower(), 3)
        with_them = [s for s in seen if s.startswith(("SELECT", "WITH"))]
    finally:
        db.set_trace_callback(None)
        db.execute("ROLLBACK")
    assert not any("lane = 'claude:shut'" in statement for statement in with_them)
    assert len(with_them) < 20


def test_an_agent_that_a_budget_pays_for(db: sqlite3.Connection) -> None:
    budgets = [Budget("day", 100.0, per="day"), Budget("mine", 100.0, per="task")]
    db.execute("BEGIN")
    try:
        steps = plans(db, lambda: claim(db, follower(*budgets), 100))
        started = db.execute("SELECT count(*) FROM attempts WHERE account = 'open'").fetchone()[0]
    finally:
        db.execute("ROLLBACK")
    assert started == 4
    assert scans(steps) == []
    assert any("INDEX tasks_usage (agent=?)" in step for step in steps)


def test_parking_and_letting_go(db: sqlite3.Connection) -> None:
    budget = Budget("all", 50.0, per="day")
    db.execute("BEGIN")
    try:
        one = tx(db)
        made = follower(budget)
        steps = plans(db, lambda: (Lanes(one, made).step(), Lanes(one, made).opens_at()))
        parked = db.execute("SELECT count(*) FROM tasks WHERE lane = 'claude:shut' AND status = 'parked'").fetchone()
    finally:
        db.execute("ROLLBACK")
    assert parked == (WAITING // 2 + 500,)
    assert scans(steps) == []
    db.execute("BEGIN")
    try:
        db.execute("UPDATE tasks SET hold = 'concurrency_key' WHERE lane = 'claude:shut' AND status = 'queued'")
        one = tx(db)
        steps = plans(db, lambda: Lanes(one, follower(budget)).step())
        open_now = db.execute("SELECT count(*) FROM tasks WHERE lane = 'claude:open' AND status = 'queued'").fetchone()
    finally:
        db.execute("ROLLBACK")
    assert open_now[0] >= 20 + 500
    assert any("INDEX tasks_parked (parked_for=? AND queue=? AND lane=?)" in step for step in steps)


def test_a_budget_that_is_spent_is_not_searched(db: sqlite3.Connection) -> None:
    db.execute("BEGIN")
    try:
        one = tx(db)
        budget = Budget("all", 50.0)
        seen = statements(db)
        funds.release_key(one, [budget], budget, "")
    finally:
        db.set_trace_callback(None)
        db.execute("ROLLBACK")
    assert 0 < len(seen) < 10


def test_what_is_due(db: sqlite3.Connection) -> None:
    db.execute("BEGIN")
    try:
        steps = plans(db, lambda: running.move_due(tx(db, 3 * NOW), follower()))
        moved = db.execute("SELECT count(*) FROM tasks WHERE status = 'failed'").fetchone()[0]
    finally:
        db.execute("ROLLBACK")
    assert moved == 50
    assert scans(steps) == []
    assert any("tasks_deadline (deadline_at>? AND deadline_at<?)" in step for step in steps)
    assert any("tasks_wake (wake_at>? AND wake_at<?)" in step for step in steps)


def test_what_is_due_next(db: sqlite3.Connection) -> None:
    steps = plans(db, lambda: (running.moves_at(tx(db)), running.opens_at(tx(db)), reads.capacity(db, LIMITS, NOW)))
    # The smallest of an index is its first entry: no walk, though SQLite calls it a search or a scan of the index.
    assert [s for s in scans(steps) if "INDEX tasks_deadline" not in s] == []
    assert any("tasks_wake" in step for step in steps)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (TaskFilter(), "SCAN t"),
        (TaskFilter(status=("queued",)), "tasks_status (status=?"),
        (TaskFilter(status=("queued", "running", "failed")), "tasks_status (status=?"),
        (TaskFilter(queue="paused"), "tasks_queue (queue=?"),
        (TaskFilter(user_id="ann"), "tasks_user (user_id=?"),
        (TaskFilter(agent="a"), "tasks_agent (agent=?"),
        (TaskFilter(workflow_id="w"), "tasks_workflow (workflow_id=?"),
        (TaskFilter(schedule_id="s"), "tasks_schedule (schedule_id=?"),
        (TaskFilter(tags=("t", "u")), "g USING PRIMARY KEY (tag=?"),
        (TaskFilter(q="word"), "f VIRTUAL TABLE INDEX"),
    ],
    ids=lambda value: str(value),
)  # fmt: skip
@pytest.mark.parametrize("before", [None, 1000])
def test_lists(db: sqlite3.Connection, wanted: TaskFilter, index: str, before: int | None) -> None:
    steps = plans(db, lambda: reads.page(db, wanted, (wanted.status or (None,))[0], 50, before))
    if wanted == TaskFilter():
        # From the newest on, by the number of the row itself.
        assert steps == ["SCAN t" if before is None else "SEARCH t USING INTEGER PRIMARY KEY (rowid<?)"]
    else:
        assert any(index in step for step in steps), steps
        assert scans(steps) == []


def test_single_tasks(db: sqlite3.Connection) -> None:
    for work in (
        lambda: reads.find(db, "x"), lambda: reads.attempts(db, "x"), lambda: reads.statuses(db, ["x", "y"]),
        lambda: reads.tasks(db, "unique_key = ? AND completed_at IS NULL", "k"), lambda: upkeep.running(db),
        lambda: db.execute("SELECT task_id, kind FROM task_deps WHERE depends_on = ?", ("x",)).fetchall(),
        lambda: db.execute("DELETE FROM task_deps WHERE task_id = ?", ("x",)),
    ):  # fmt: skip
        steps = plans(db, work)
        assert steps
        assert scans(steps) == []


def test_the_log(db: sqlite3.Connection) -> None:
    assert scans(plans(db, lambda: reads.events(db, EventFilter(), 5, 10))) == []
    steps = plans(db, lambda: reads.events(db, EventFilter(task_id="a"), 5, 10))
    assert any("events_task (task_id=? AND id>? AND id<?)" in step for step in steps)


def test_retention(db: sqlite3.Connection) -> None:
    kept = Retention({"completed": 1.0, "failed": 1.0}, None)
    steps = plans(db, lambda: upkeep.expired(db, kept, NOW))
    assert any("tasks_status (status=?)" in step for step in steps)
    assert scans(steps) == []


def test_deliveries(db: sqlite3.Connection) -> None:
    steps = plans(db, lambda: sending.due(db, {}, NOW, 100, ""))
    assert any("deliveries_fresh (endpoint=?)" in step for step in steps)
    assert any("deliveries_again (endpoint=?)" in step for step in steps)
    due = sending.due(db, {}, NOW, 100, "")
    assert [s.delivery.id for s in due.found] == ["f0"] and due.next_due == 2 * NOW
    steps += plans(db, lambda: webhooks.page(db, DeliveryFilter(status="dead", task_id="x"), 10, None))
    steps += plans(db, lambda: webhooks.page(db, DeliveryFilter(status="dead"), 10, 5))
    db.execute("BEGIN")
    try:
        steps += plans(db, lambda: webhooks.prune(tx(db), 1.0, 100))
        steps += plans(db, lambda: webhooks.give_up(tx(db), "much"))
        steps += plans(db, lambda: sending.tidy(tx(db), 1.0))
        steps += plans(db, lambda: webhooks.shift(tx(db), 1000))
    finally:
        db.execute("ROLLBACK")
    assert scans(steps) == []


def test_schedules(db: sqlite3.Connection) -> None:
    """What is due next, and what of one is not over: looks along indexes, however many there are."""
    steps = plans(db, lambda: (schedules.next_due(db), schedules.due(db, (1, 2), NOW, 100)))
    assert steps and all("schedules_next (next_at>?" in step for step in steps)
    steps = plans(db, lambda: (overlaps.unfinished(db, "s", 101), schedules.history(db, "s", 10, 5)))
    assert any("tasks_schedule_open (schedule_id=?)" in step for step in steps)
    db.execute("BEGIN")
    try:
        steps += plans(db, lambda: (overlaps.over(tx(db), "t"), schedules.prune(tx(db), NOW, 100)))
        steps += plans(db, lambda: (schedules.recheck(tx(db)), schedules.forget(tx(db), "s")))
    finally:
        db.execute("ROLLBACK")
    assert scans(steps) == []


def test_a_rate(db: sqlite3.Connection) -> None:
    steps = plans(db, lambda: reads.queue_starts(db, Queue("rated", rate="5/m"), NOW))
    assert steps == ["SEARCH queue_starts USING PRIMARY KEY (queue=? AND at>? AND at<?)"]


def test_columns_are_the_fields(db: sqlite3.Connection) -> None:
    columns = [row[1] for row in db.execute("PRAGMA table_info(tasks)")]
    assert ", ".join(columns) == TASK_COLUMNS
