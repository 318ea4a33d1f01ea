"""How SQLite looks for notifications: what is settled or acknowledged costs nothing."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from orchestr8d.store.sqlite import migrate_file, notices
from orchestr8d.store.types import NoticeFilter

DONE = 300


class Told(sqlite3.Connection):
    """Notes the statements that are run over it."""

    def execute(self, sql: str, values: Any = ()) -> sqlite3.Cursor:  # type: ignore[override]
        self.statements = [*getattr(self, "statements", []), (sql, values)]
        return super().execute(sql, values)


@pytest.fixture
def db(tmp_path: Path) -> Told:
    path = tmp_path / "o.db"
    migrate_file(path)
    found = sqlite3.connect(path, factory=Told)
    for seq in range(1, DONE + 1):
        found.execute(
            "INSERT INTO notices (seq, id, user_id, type, message, priority, metadata, created_at, acked_at) "
            "VALUES (?, ?, 'local', 'update', 'm', 'normal', '{}', 0, 1)", (seq, str(seq)),
        )  # fmt: skip
        found.execute(
            "INSERT INTO notice_channels (notice, position, user_id, channel, status) "
            "VALUES (?, 0, 'local', 'log', 'delivered')", (seq,),
        )  # fmt: skip
    found.statements = []
    return found


def plans(db: Told) -> list[str]:
    """What SQLite does for the statements that were run."""
    run = [(sql, values) for sql, values in db.statements if not sql.startswith("EXPLAIN")]
    return [
        row[3] for sql, values in run for row in sqlite3.Connection.execute(db, f"EXPLAIN QUERY PLAN {sql}", values)
    ]


def test_what_is_due(db: Told) -> None:
    assert notices.due(db, [("a", "log"), ("b", "log")], 10, 5) == ([], None)
    assert all("notice_channels_due" in step for step in plans(db))


@pytest.mark.parametrize(("wanted", "index"), [
    (NoticeFilter(), "INTEGER PRIMARY KEY"),
    (NoticeFilter(user_id="a"), "notices_user"),
    (NoticeFilter(types=["alert"]), "notices_type"),
    (NoticeFilter(workflow_id="a"), "notices_workflow"),
    (NoticeFilter(unread=True), "notices_unread"),
    (NoticeFilter(unread=True, user_id="a"), "notices_unread"),
])  # fmt: skip
def test_lists(db: Told, wanted: NoticeFilter, index: str) -> None:
    notices.listed(db, wanted, 10, None)
    (step,) = plans(db)
    assert step.startswith("SEARCH") and index in step
