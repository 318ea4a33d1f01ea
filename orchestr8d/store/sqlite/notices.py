"""Notifications in the database: made with their channels and their event, read, acknowledged, told, pruned."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from orchestr8d.core import notices
from orchestr8d.core.errors import Problem
from orchestr8d.core.ids import uuid7
from orchestr8d.core.notices import NOBODY_SPECIAL, Delivery, NewNotice, Notice
from orchestr8d.store.sqlite.deliveries import Failed
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import DueNotice, NoticeFilter, Told

_JSON = msgspec.json.Encoder()
_COLUMNS = ", ".join(Notice.__struct_fields__)
_INSERT = f"INSERT INTO notices ({_COLUMNS}) VALUES ({', '.join('?' * len(Notice.__struct_fields__))})"
_DUE = "FROM notice_channels INDEXED BY notice_channels_due WHERE next_at IS NOT NULL"
# Acknowledged at a time: other writes get their turn in between.
ACK_STEP = 1000


def notify(tx: Tx, new: NewNotice) -> str:
    """Stores a notice, where it goes to, and its event; answers its id. What it costs is a row for each channel."""
    user = tx.users.get(new.user_id, NOBODY_SPECIAL)
    (last,) = tx.db.execute("SELECT coalesce(max(seq), 0) FROM notices").fetchone()
    notice = Notice(
        last + 1, uuid7(tx.now), new.user_id, new.type, new.title, new.message, notices.priority(new),
        new.workflow_id, new.task_id, _JSON.encode(new.metadata).decode(), tx.now,
    )  # fmt: skip
    tx.db.execute(_INSERT, msgspec.structs.astuple(notice))
    until = notices.held_until(notice.priority, user, tx.now)
    status, next_at = ("pending", tx.now) if until is None else ("held", until)
    tx.db.executemany(
        "INSERT INTO notice_channels (notice, position, user_id, channel, status, next_at) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (notice.seq, position, notice.user_id, name, status, next_at)
            for position, name in enumerate(notices.routed(new, user))
        ],
    )
    tx.work.add("notices")
    tx.tell("notification.created", notices.shown(notice), about=(notice.task_id, notice.workflow_id, notice.user_id))
    return notice.id


# -- read


def find(db: sqlite3.Connection, notice_id: str) -> Notice:
    row = db.execute(f"SELECT {_COLUMNS} FROM notices WHERE id = ?", (notice_id,)).fetchone()
    if row is None:
        raise Problem("not-found", f"there is no notification {notice_id}")
    return Notice(*row)


def with_channels(db: sqlite3.Connection, notice_id: str) -> tuple[Notice, list[Delivery]]:
    notice = find(db, notice_id)
    rows = db.execute(
        "SELECT channel, status, attempts, error FROM notice_channels WHERE notice = ? ORDER BY position", (notice.seq,)
    )
    return notice, [Delivery(*row) for row in rows]


def listed(db: sqlite3.Connection, wanted: NoticeFilter, limit: int, before: int | None) -> list[Notice]:
    where = ["seq < ?"]
    values: list[Any] = [before if before is not None else 1 << 62]
    for column, value in (("user_id", wanted.user_id), ("workflow_id", wanted.workflow_id)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    if wanted.types:
        where.append(f"type IN ({', '.join('?' * len(wanted.types))})")
        values += wanted.types
    by = ""
    if wanted.unread:
        # Of all that there are, these are few.
        by = "INDEXED BY notices_unread"
        where.append("acked_at IS NULL")
    sql = f"SELECT {_COLUMNS} FROM notices {by} WHERE {' AND '.join(where)} ORDER BY seq DESC LIMIT ?"
    return [Notice(*row) for row in db.execute(sql, (*values, limit))]


# -- acknowledge


def ack(tx: Tx, notice_id: str) -> Notice:
    notice = find(tx.db, notice_id)
    if notice.acked_at is None:
        notice.acked_at = tx.now
        tx.db.execute("UPDATE notices SET acked_at = ? WHERE seq = ?", (tx.now, notice.seq))
    return notice


def ack_some(tx: Tx, user_id: str | None) -> int:
    """A step's worth; how many it were."""
    of, values = ("", ()) if user_id is None else ("AND user_id = ?", (user_id,))
    some = f"SELECT seq FROM notices INDEXED BY notices_unread WHERE acked_at IS NULL {of} LIMIT ?"
    sql = f"UPDATE notices SET acked_at = ? WHERE seq IN ({some})"
    return tx.db.execute(sql, (tx.now, *values, ACK_STEP)).rowcount


# -- tell


def due(
    db: sqlite3.Connection, busy: Collection[tuple[str, str]], limit: int, now: int
) -> tuple[list[DueNotice], int | None]:
    free = "".join(" AND NOT (user_id = ? AND channel = ?)" for _ in busy)
    values: list[Any] = [text for pair in busy for text in pair]
    rows = db.execute(
        f"SELECT notice, position, channel, attempts {_DUE} AND next_at <= ?{free} ORDER BY next_at LIMIT ?",
        (now, *values, limit),
    ).fetchall()
    found = [
        DueNotice(Notice(*_row(db, seq)), position, channel, attempts) for seq, position, channel, attempts in rows
    ]
    (later,) = db.execute(f"SELECT min(next_at) {_DUE} AND next_at > ?", (now,)).fetchone()
    return found, now if len(found) == limit else later


def _row(db: sqlite3.Connection, seq: int) -> tuple[Any, ...]:
    row: tuple[Any, ...] = db.execute(f"SELECT {_COLUMNS} FROM notices WHERE seq = ?", (seq,)).fetchone()
    return row


def told(tx: Tx, results: Sequence[Told]) -> None:
    for said in results:
        d = said.due
        changed = tx.db.execute(
            "UPDATE notice_channels SET status = ?, next_at = ?, error = ?, attempts = attempts + ? "
            "WHERE notice = ? AND position = ? AND attempts = ? AND next_at IS NOT NULL",
            (said.status, said.next_at, said.error, said.attempted, d.notice.seq, d.position, d.attempts),
        ).rowcount
        if changed and said.status == "delivered":
            tx.db.execute(
                "UPDATE notices SET delivered_at = ? WHERE seq = ? AND delivered_at IS NULL", (tx.now, d.notice.seq)
            )
        elif changed and said.status == "dead":
            _bury(tx, said)


def _bury(tx: Tx, said: Told) -> None:
    """Tells of a notice that did not get through: in the log and by an event, not by another notice. What becomes of
    the event's own deliveries is told nobody: a dead channel and a dead webhook would tell of each other for ever."""
    notice = said.due.notice
    lost = {"notification_id": notice.id, "channel": said.due.channel, "reason": said.error}
    about = notice.task_id, notice.workflow_id, notice.user_id
    tx.tell("alert.raised", {"alert": "notification_dead", **lost}, about=about)
    tx.tells_of[tx.numbers[1]] = Failed(notices.origin(said.due.channel) or "", None, said.due.channel)
    tx.warnings.append(("a notification could not be delivered", {"user_id": notice.user_id, **lost}))


def recheck_held(tx: Tx) -> None:
    held = f"SELECT notice, position {_DUE} AND status = 'held'"
    tx.db.execute(
        f"UPDATE notice_channels SET next_at = ? WHERE status = 'held' AND (notice, position) IN ({held})", (tx.now,)
    )
    tx.work.add("notices")


def shift(tx: Tx, ms: int) -> None:
    """The clock was set: waits for a retry are durations, the ends of quiet hours are times of the day."""
    some = f"SELECT notice, position {_DUE} AND status = 'pending'"
    tx.db.execute(f"UPDATE notice_channels SET next_at = next_at + ? WHERE (notice, position) IN ({some})", (ms,))


# -- retention


def prune(tx: Tx, cutoff: int, step: int) -> int:
    """Removes a step's worth of the oldest, if they were made before; how many. What is still to be told stays."""
    doomed = tx.db.execute(
        "SELECT seq FROM (SELECT seq, created_at FROM notices ORDER BY seq LIMIT ?) AS n WHERE created_at < ? "
        "AND NOT EXISTS (SELECT 1 FROM notice_channels WHERE notice = n.seq AND next_at IS NOT NULL)",
        (step, cutoff),
    ).fetchall()
    tx.db.executemany("DELETE FROM notice_channels WHERE notice = ?", doomed)
    tx.db.executemany("DELETE FROM notices WHERE seq = ?", doomed)
    return len(doomed)
