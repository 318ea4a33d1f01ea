"""`orchestr8d limits`: the sentence, the tables, the document, and opening an account."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from pathlib import Path

import pytest

from orchestr8d.store.sqlite import migrate_file
from tests.cli.conftest import Box

pytestmark = pytest.mark.slow

CONFIG = """
[claude.accounts.work]
concurrency = 2
[claude.accounts.spare]
env = { CLAUDE_CONFIG_DIR = "/nowhere" }
[budgets.daily]
usd = 20
per = "day"
"""


def close_account(state: Path, name: str, reason: str) -> None:
    """As a daemon before this one has left it."""
    state.mkdir(mode=0o700)
    path = state / "orchestr8d.db"
    migrate_file(path)
    db = sqlite3.connect(path)
    db.execute(
        "INSERT INTO valves (name, state, jitter, guessed, step, reason) VALUES (?, 'closed', 0, 0, 0, ?)",
        (name, reason),
    )
    db.commit()
    db.close()


def test_limits(fresh: Box) -> None:
    fresh.config.write_text(CONFIG)
    close_account(fresh.state, "work", "invalid key")
    fresh.start()
    lines = fresh.out("limits").splitlines()
    assert lines[0] == (
        "Agents' tasks start, but not on every account: account work is closed (invalid key) until "
        "`orchestr8d limits open work` or a reload."
    )
    assert [line.split() for line in lines[2:5]] == [
        ["ACCOUNT", "STATE", "UNTIL", "RUNNING", "REASON"],
        ["work", "closed", "-", "0/2", "invalid", "key"],
        ["spare", "open", "-", "0/4"],
    ]
    assert lines[6].split() == ["BUDGET", "OF", "LIMIT", "USED", "RESERVED"]
    assert lines[7].split()[0::2] == ["daily", "20", "0"]
    assert json.loads(fresh.out("limits", "--json"))["accounts"][0]["state"] == "closed"
    assert fresh.out("limits", "open", "work").startswith("Agents' tasks start.")
    assert [a["state"] for a in fresh.client().limits()["accounts"]] == ["open", "open"]
    assert "did you mean 'work'" in fresh.run("limits", "open", "wrok", code=4).stderr


def test_a_reload_opens_what_is_closed(fresh: Box) -> None:
    fresh.config.write_text(CONFIG)
    close_account(fresh.state, "work", "invalid key")
    fresh.start()
    with fresh.client() as client:
        assert client.limits()["accounts"][0]["state"] == "closed"
        events = client.events(after=0, type=["alert.*"])
        os.kill(fresh.pid, signal.SIGHUP)
        event = next(events)
        assert (event["type"], event["data"]["account"]) == ("alert.cleared", "work")
        assert client.limits()["accounts"][0]["state"] == "open"
