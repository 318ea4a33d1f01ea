"""Logging: what a line holds, what it never holds, and that it never breaks the work."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from orchestr8d import log
from orchestr8d.core import redact
from orchestr8d.events import Event

TASK = "019c0000-0000-7000-8000-000000000001"


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """A file to log into; what a test configured is undone after it."""
    kept = logging.root.handlers[:], logging.root.level, logging.raiseExceptions
    fd = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    yield fd
    os.close(fd)
    structlog.reset_defaults()
    logging.captureWarnings(False)
    logging.root.handlers[:], logging.root.level, logging.raiseExceptions = kept


def text(fd: int) -> str:
    return os.pread(fd, 1 << 20, 0).decode()


def lines(fd: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text(fd).splitlines()]


def event(type_: str, task_id: str | None = TASK, **data: object) -> Event:
    return Event(1, type_, 1_772_355_600_042, task_id, None, "local", msgspec.Raw(msgspec.json.encode(data)))


def test_json_lines(fd: int) -> None:
    log.configure("info", "json", fd=fd)
    logger = structlog.get_logger()
    logger.debug("not this")
    logger.info("listening", listen="127.0.0.1:8787", port=8787, path=Path("/x"))
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("it broke")
    first, second = lines(fd)
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "listening", "level": "info", "listen": "127.0.0.1:8787", "port": 8787, "path": "PosixPath('/x')",
    }  # fmt: skip
    assert second["level"] == "error" and "ValueError: broken" in second["exception"]


def test_pretty_lines(fd: int) -> None:
    log.configure("info", "pretty", fd=fd)
    structlog.get_logger().info("listening", listen="127.0.0.1:8787")
    assert "listening" in text(fd) and "listen=127.0.0.1:8787" in text(fd) and "\x1b" not in text(fd)


def test_auto_is_pretty_on_a_terminal_only(fd: int) -> None:
    log.configure("info", "auto", fd=fd)
    structlog.get_logger().info("to a file")
    assert lines(fd)[0]["event"] == "to a file"
    structlog.reset_defaults()
    terminal, other = os.openpty()
    log.configure("info", "auto", fd=other)
    structlog.get_logger().info("to a terminal")
    assert b"\x1b[" in os.read(terminal, 1000)
    os.close(terminal)
    os.close(other)


def test_journald_is_told_priorities(fd: int) -> None:
    status = os.fstat(fd)
    log.configure("info", "json", fd=fd, environ={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
    structlog.get_logger().error("bad")
    assert text(fd).startswith('<3>{"event":"bad"')


def test_the_level_can_be_set_later_for_loggers_in_use(fd: int) -> None:
    logs = log.configure("warning", "json", fd=fd)
    logger = structlog.get_logger()
    logger.info("one")
    logs.set_level("debug")
    logger.debug("two")
    logs.set_level("error")
    logger.warning("three")
    assert [line["event"] for line in lines(fd)] == ["two"]


def test_the_standard_library_is_routed(fd: int) -> None:
    log.configure("info", "json", fd=fd)
    logging.getLogger("aiohttp.server").error("Error handling %s", "request")
    logging.getLogger("asyncio").warning("%d args", "wrong")
    logging.getLogger("aiohttp.access").info("GET /")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    got = lines(fd)
    assert [line["logger"] for line in got] == ["aiohttp.server", "py.warnings"]
    assert [line["level"] for line in got] == ["error", "warning"]
    assert got[0]["event"] == "Error handling request"


def test_lines_that_cannot_be_written_are_dropped(fd: int) -> None:
    for target in (_closed_pipe(), os.open("/dev/full", os.O_WRONLY)):
        structlog.reset_defaults()
        logs = log.configure("info", "json", fd=target)
        structlog.get_logger().info("lost")
        log.transitions(logs)([event("task.queued", status="queued")])
        logging.getLogger("asyncio").error("lost too")
        os.close(target)
        structlog.get_logger().info("the descriptor is gone as well")


def _closed_pipe() -> int:
    read, write = os.pipe()
    os.close(read)
    return write


def test_one_line_per_transition(fd: int) -> None:
    logs = log.configure("info", "json", fd=fd)
    log.transitions(logs)([
        event("task.started", status="running", attempt=2, attempt_id="A", executor_id="E", wait_seconds=0.25),
        event("task.progress", percent=50),
        event("task.failed", status="failed", attempt=2, attempt_id="A", executor_id="E", queue="builds",
              error={"kind": "exit", "message": "password=hunter22"}, exit_code=3, later={"unknown": 1}),
        event("executor.started", None, executor_id="E", host="h", pid=12),
        event("schedule.fired", None),
        event("task.queued", attempt="not a number"),
    ])  # fmt: skip
    started, failed, executor, strange = lines(fd)
    assert started == {
        "event": "task.started", "level": "info", "timestamp": "2026-03-01T09:00:00.042Z", "task_id": TASK,
        "status": "running", "attempt": 2, "attempt_id": "A", "executor_id": "E", "wait_seconds": 0.25,
    }  # fmt: skip
    assert (failed["error"], failed["exit_code"], failed["queue"]) == ({"kind": "exit"}, 3, "builds")
    assert (executor["event"], executor["executor_id"], executor["pid"]) == ("executor.started", "E", 12)
    assert (strange["event"], strange["task_id"]) == ("task.queued", TASK)
    assert "hunter22" not in text(fd)


def test_transitions_follow_the_level_and_the_format(fd: int) -> None:
    logs = log.configure("warning", "pretty", fd=fd)
    observe = log.transitions(logs)
    observe([event("task.queued", status="queued")])
    assert text(fd) == ""
    logs.set_level("info")
    observe([event("task.queued", status="queued", queue="default")])
    assert "task.queued" in text(fd) and f"task_id={TASK}" in text(fd) and "queue=default" in text(fd)


SECRETS = [
    "Authorization: Bearer abcdef123456",
    "curl -H 'authorization: basic dXNlcjpwYXNz'",
    "o8d_Zm9vYmFyYmF6cXV4",
    "o8d_a.019c0000-0000-7000.abcdefabcdef",
    "API_TOKEN=abcdef123456 make",
    'password: "hunter22"',
    "postgresql://me:hunter22@db/x",
    "sk-ant-api03-abcdefghijkl",
    "ghp_abcdefghijklmnopqrst",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_in_texts(fd: int, secret: str) -> None:
    log.configure("info", "json", fd=fd)
    structlog.get_logger().info(secret, detail=secret, argv=["echo", secret], nested={"deep": [secret]})
    line = text(fd)
    assert line.count(redact.HIDDEN) == 4
    for tail in ("abcdef", "hunter22", "dXNlcjpwYXNz", "Zm9vYmFy", "eyJzdWIi"):
        assert tail not in line


@pytest.mark.parametrize(
    "name", ["token", "API_TOKEN", "client_secret", "password", "Authorization", "x-api-key", "cookie"]
)
def test_secrets_by_name(name: str) -> None:
    assert redact.value(name, "short") == redact.HIDDEN
    assert redact.value("env", {name: "short"}) == {name: redact.HIDDEN}
    assert redact.value(name, ["short"]) == [redact.HIDDEN]


@pytest.mark.parametrize("text_", [
    "task.completed", TASK, "make test", "127.0.0.1:8787", "the token was revoked", "http://127.0.0.1:8787/api/v1/tasks",
    "/home/me/project/token.py", "sk-1", "", "2026-03-01T09:00:00.000Z",
])  # fmt: skip
def test_what_is_no_secret_is_left_alone(text_: str) -> None:
    assert redact.text(text_) == text_
    assert redact.value("token_id", text_) == text_
    assert redact.value("output_tokens", 12) == 12


def test_a_line_costs_microseconds(tmp_path: Path) -> None:
    """Against the cost of the bare write of the same line, in one run of a fresh process."""
    program = """
import os, sys, timeit, msgspec
from orchestr8d import log
from orchestr8d.events import Event
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
observe = log.transitions(log.configure("info", "json", fd=fd, environ={}))
data = dict(status="completed", attempt=1, attempt_id="A" * 36, executor_id="E" * 36, exit_code=0, queue="default")
events = [Event(1, "task.completed", 1772355600000, "T" * 36, None, "local", msgspec.Raw(msgspec.json.encode(data)))]
line = timeit.Timer(lambda: observe(events)).repeat(5, 2000)
write = timeit.Timer(lambda: os.write(fd, b"x" * 300)).repeat(5, 2000)
print(min(line) / min(write), min(line) / 2000 * 1e6)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "log")], capture_output=True, text=True, check=True
    )
    ratio, microseconds = map(float, done.stdout.split())
    assert ratio < 12, f"{microseconds:.1f} µs a line"
