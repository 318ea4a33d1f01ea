"""A write transaction: applies the changes that core decided, and carries what follows from them to the commit."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from orchestr8d.core import states
from orchestr8d.core.admission import Admitted, Change
from orchestr8d.core.model import Task
from orchestr8d.core.notices import User
from orchestr8d.core.states import FINAL, WAITING
from orchestr8d.events import Event, Work
from orchestr8d.store.sqlite import deliveries
from orchestr8d.store.sqlite.deliveries import Failed, Subscriptions

TASK_COLUMNS = ", ".join(Task.__struct_fields__)
_INSERT_TASK = f"INSERT INTO tasks ({TASK_COLUMNS}) VALUES ({', '.join('?' * len(Task.__struct_fields__))})"
_INSERT_EVENT = "INSERT INTO events (id, type, at, task_id, workflow_id, user_id, data) VALUES (?, ?, ?, ?, ?, ?, ?)"
_ADD_DEPTH = (
    "INSERT INTO queues (name, depth) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET depth = depth + excluded.depth"
)
_JSON = msgspec.json.Encoder()


# The last number given to a task and to an event.
Numbers = tuple[int, int]
# The task, workflow and user of an event.
About = tuple[str | None, str | None, str | None]
NOTHING: Final[About] = (None, None, None)


class Tx:
    """One transaction of the writer. `follow` is run after each unit that ended a task or touched a key; `numbers` are
    those of the last transaction, None: as the database has them; `subscriptions` are told what happens."""

    def __init__(
        self, db: sqlite3.Connection, now: int, follow: Callable[[Tx], None], subscriptions: Subscriptions,
        numbers: Numbers | None = None,
    ) -> None:  # fmt: skip
        self.db = db
        self.subscriptions = subscriptions
        # Events that tell of a delivery, by their ids, with the endpoint that they tell of.
        self.tells_of: dict[int, Failed] = {}
        # What there is to do for loops that was not there before.
        self.work: set[Work] = set()
        self.now = now
        self.events: list[Event] = []
        # Running tasks whose cancellation was asked for.
        self.cancels: list[str] = []
        # Tasks and queues that changed without an event: whoever waits for them is told all the same.
        self.quiet: list[str] = []
        # Tasks that became final and concurrency keys that were touched, in this unit.
        self.ended: list[Task] = []
        self.keys: set[str] = set()
        # Tasks that became final in this unit, by whatever way: what they ask for their end is still to be done.
        self.finals: list[Task] = []
        # Tasks that stood for sub-workflows and did not end with them: these are to end too.
        self.orphans: list[str] = []
        # Tasks that stand for sub-workflows that are blocked now, or not any more.
        self.stand_ins: list[str] = []
        # Agents' tasks that left the queue or their run: money may be free for others.
        self.left: list[Task] = []
        # What is logged as a warning once it is committed.
        self.warnings: list[tuple[str, dict[str, Any]]] = []
        # Set once it was seen that the disk has room.
        self.has_space = False
        # What the configuration says of users, by name.
        self.users: Mapping[str, User] = {}
        self._follow = follow
        # What the queues' rows say, and what flush() will add.
        self._depths: dict[str, int] = {}
        self._depth_delta: dict[str, int] = {}
        self._seq, self._event = numbers or _numbers(db)

    @property
    def numbers(self) -> Numbers:
        return self._seq, self._event

    def mark(self) -> tuple[int, int, int, int, int, dict[str, int]]:
        sizes = len(self.events), len(self.cancels), len(self.warnings)
        return *sizes, self._seq, self._event, dict(self._depth_delta)

    def back_to(self, mark: tuple[int, int, int, int, int, dict[str, int]]) -> None:
        """Forgets what a failed unit did: its rows are gone with its savepoint."""
        events, cancels, warnings, self._seq, self._event, self._depth_delta = mark
        del self.events[events:]
        self.tells_of = {event_id: about for event_id, about in self.tells_of.items() if event_id <= self._event}
        del self.cancels[cancels:]
        del self.warnings[warnings:]
        self.left.clear()
        self.orphans.clear()
        self.stand_ins.clear()
        self.ended.clear()
        self.finals.clear()
        self.keys.clear()

    def next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def tell(
        self, type_: str, data: Mapping[str, Any] | msgspec.Struct, task: Task | None = None, about: About = NOTHING
    ) -> None:
        """Adds an event to the log; it is written at the end of the transaction, in one go."""
        self._event += 1
        if task is not None:
            about = task.id, task.workflow_id, task.user_id
        self.events.append(Event(self._event, type_, self.now, *about, msgspec.Raw(_JSON.encode(data))))

    def insert(self, admitted: Sequence[Admitted]) -> None:
        self.db.executemany(_INSERT_TASK, [msgspec.structs.astuple(a.task) for a in admitted])
        tags: list[tuple[str, int]] = []
        for a in admitted:
            task = a.task
            if task.status in WAITING:
                self._count(task.queue, 1)
            if task.concurrency_key is not None:
                self.keys.add(task.concurrency_key)
            tags += [(tag, task.seq) for tag in a.tags]
            if a.edges:
                self.db.executemany(
                    "INSERT INTO task_deps (depends_on, task_id, kind) VALUES (?, ?, ?)",
                    [(other, task.id, kind) for kind, other in a.edges],
                )
            for event in a.events:
                self.tell(event.type, event.data, task)
            if task.status in FINAL:
                self.finals.append(task)
        if tags:
            self.db.executemany("INSERT INTO task_tags (tag, seq) VALUES (?, ?)", tags)

    def apply(self, change: Change) -> Task:
        """Writes a change, fenced by the state that it was decided on; answers the task as it is now."""
        old = change.task
        status = change.set.get("status", old.status)
        if status != old.status:
            states.check(old.status, status)
        columns = {**change.set, "updated_at": self.now}
        if status == "queued" and old.workflow_id is not None and self._is_paused(old.workflow_id):
            columns["hold"] = "workflow"
        cursor = self.db.execute(
            f"UPDATE tasks SET {', '.join(f'{name} = ?' for name in columns)} WHERE seq = ? AND status = ?",
            (*columns.values(), old.seq, old.status),
        )
        if cursor.rowcount != 1:
            raise RuntimeError(f"task {old.id} is no longer {old.status}: a decision was made on a stale row")
        task = msgspec.structs.replace(old, **columns)
        if old.status in WAITING:
            self._count(old.queue, -1)
        if status in WAITING:
            self._count(task.queue, 1)
        for key in (old.concurrency_key, task.concurrency_key):
            if key is not None:
                self.keys.add(key)
        if task.lane and old.status in ("queued", "running") and status not in (old.status, "running"):
            self.left.append(task)
        if status in FINAL:
            self.ended.append(task)
            self.finals.append(task)
            if old.blockers:
                self.db.execute("DELETE FROM task_deps WHERE task_id = ?", (task.id,))
        for event in change.events:
            self.tell(event.type, event.data, task)
        if not change.events:
            self.quiet.append(task.id)
        return task

    def _is_paused(self, workflow_id: str) -> bool:
        row = self.db.execute("SELECT paused FROM workflows WHERE id = ?", (workflow_id,)).fetchone()
        return row is not None and bool(row[0])

    def depth(self, queue: str) -> int:
        """Tasks that wait in a queue, those of this transaction included."""
        if queue not in self._depths:
            row = self.db.execute("SELECT depth FROM queues WHERE name = ?", (queue,)).fetchone()
            self._depths[queue] = row[0] if row else 0
        return self._depths[queue] + self._depth_delta.get(queue, 0)

    def _count(self, queue: str, by: int) -> None:
        self._depth_delta[queue] = self._depth_delta.get(queue, 0) + by

    def follow_up(self) -> None:
        if self.ended or self.finals or self.keys or self.left or self.orphans or self.stand_ins:
            self._follow(self)

    def flush(self) -> None:
        """Before the commit: the counts and the log."""
        changed = [item for item in self._depth_delta.items() if item[1]]
        if changed:
            self.db.executemany(_ADD_DEPTH, changed)
        if self.events:
            self.db.executemany(_INSERT_EVENT, [_row(event) for event in self.events])
            deliveries.fan_out(self, self.events)


def _numbers(db: sqlite3.Connection) -> Numbers:
    given = dict(db.execute("SELECT name, seq FROM sqlite_sequence"))
    return given.get("tasks", 0), given.get("events", 0)


def _row(e: Event) -> tuple[object, ...]:
    return e.id, e.type, e.at, e.task_id, e.workflow_id, e.user_id, bytes(e.data).decode()
