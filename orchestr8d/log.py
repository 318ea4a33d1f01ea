"""Logging: one line per thing that happened, JSON for machines and pretty for a terminal, never with a secret in it."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from orchestr8d.core import redact
from orchestr8d.core.durations import iso

if TYPE_CHECKING:
    from orchestr8d.events import Event

Fields = MutableMapping[str, Any]
LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
# How journald is told a line's priority (sd-daemon(3)); it takes the prefix off.
_PRIORITY = {"debug": b"<7>", "info": b"<6>", "warning": b"<4>", "error": b"<3>", "critical": b"<2>"}
_METHODS = {"exception": "error", "warn": "warning", "fatal": "critical"}


class Lines:
    """Writes whole lines with one call. What cannot be written is dropped: logging never breaks the work."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def msg(self, lines: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._fd, lines)

    debug = info = warning = error = critical = exception = log = fatal = warn = msg


class Logs:
    """How this process logs: where to, from which level on, and as what."""

    def __init__(self, level: str, lines: Lines, render: JsonLine | PrettyLine) -> None:
        self.lines = lines
        self.render = render
        self._least = LEVELS[level]

    def set_level(self, level: str) -> None:
        """Takes effect at once, for every logger."""
        self._least = LEVELS[level]

    def passes(self, level: str) -> bool:
        return LEVELS[level] >= self._least

    def threshold(self, logger: object, method: str, event: Fields) -> Fields:
        """The first processor: drops what is below the level. It is asked each time, so that a reload can set it."""
        level = _METHODS.get(method, method)
        if not self.passes(level):
            raise structlog.DropEvent
        event["level"] = level
        return event


def configure(level: str, format: str, *, fd: int = 2, environ: Mapping[str, str] | None = None) -> Logs:  # noqa: A002 (the setting's name)
    """Set up structlog and the standard library's logging for this process; the Logs follow a reload.

    `format` is `json`, `pretty` or `auto`: pretty on a terminal, else JSON. Lines go to the file descriptor `fd`.
    """
    pretty = format == "pretty" or (format == "auto" and os.isatty(fd))
    lines = Lines(fd)
    journald = on_journald(fd, os.environ if environ is None else environ)
    logs = Logs(level, lines, PrettyLine(fd) if pretty else JsonLine(journald))
    structlog.configure(
        processors=[
            logs.threshold,
            structlog.processors.TimeStamper(fmt="iso", utc=not pretty),
            structlog.processors.format_exc_info,
            hide_secrets,
            logs.render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        logger_factory=lambda *args: lines,
        cache_logger_on_first_use=True,
    )
    _route_standard_library()
    return logs


def on_journald(fd: int, environ: Mapping[str, str]) -> bool:
    """Whether `fd` is the stream that systemd connected to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def hide_secrets(logger: object, method: str, event: Fields) -> Fields:
    """A processor that replaces secrets, by the names of fields and by their shape in texts."""
    for name, item in event.items():
        if not isinstance(item, (int, float)):
            event[name] = redact.value(name, item)
    return event


class JsonLine:
    """Renders a line as one JSON object, the event first."""

    def __init__(self, journald: bool) -> None:
        self._journald = journald
        self._encode = msgspec.json.Encoder(enc_hook=repr).encode

    def __call__(self, logger: object, method: str, event: Fields) -> bytes:
        return self.line(event["level"], {"event": event.pop("event", ""), **event})

    def line(self, level: str, item: object) -> bytes:
        line = self._encode(item) + b"\n"
        return _PRIORITY[level] + line if self._journald else line


class PrettyLine:
    """Renders a line for a person at a terminal."""

    def __init__(self, fd: int) -> None:
        self._render = structlog.dev.ConsoleRenderer(
            colors=os.isatty(fd), exception_formatter=structlog.dev.plain_traceback, pad_event_to=22
        )

    def __call__(self, logger: object, method: str, event: Fields) -> bytes:
        return (self._render(logger, method, event) + "\n").encode(errors="replace")


class _ToStructlog(logging.Handler):
    """Hands records of the standard library's logging (aiohttp, asyncio, warnings) to structlog."""

    def __init__(self) -> None:
        super().__init__()
        self._log = structlog.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        write = getattr(self._log, level if level in LEVELS else "info")
        try:
            write(record.getMessage(), logger=record.name, **({"exc_info": record.exc_info} if record.exc_info else {}))
        except Exception:
            self.handleError(record)


def _route_standard_library() -> None:
    """Libraries are heard from warnings on. `raiseExceptions` off: a record that does not format is dropped."""
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[_ToStructlog()], level=logging.WARNING, force=True)


class _Error(msgspec.Struct):
    kind: str


class _Transition(msgspec.Struct, omit_defaults=True):
    """What a line shows of an event and its data. No free text is among it: a message may hold a secret."""

    event: str | None = None
    status: str | None = None
    task_id: str | None = None
    attempt: int | None = None
    attempt_id: str | None = None
    executor_id: str | None = None
    queue: str | None = None
    kind: str | None = None
    error: _Error | None = None
    exit_code: int | None = None
    signal: str | None = None
    reason: str | None = None
    next_retry_at: str | None = None
    wait_seconds: float | None = None
    run_seconds: float | None = None
    host: str | None = None
    pid: int | None = None
    level: str | None = None
    timestamp: str | None = None


def transitions(logs: Logs) -> Callable[[Sequence[Event]], None]:
    """A Bus observer that logs one line per transition of a task or executor: who, where, and how it ended.

    In JSON the lines of a commit are encoded and written together, past structlog's processors: a busy daemon
    has some 10,000 a second. `task.progress` is no transition and has no line.
    """
    decode = msgspec.json.Decoder(_Transition).decode
    logger = structlog.get_logger()
    render = logs.render

    def observe(events: Sequence[Event]) -> None:
        if not logs.passes("info"):
            return
        lines = []
        for event in events:
            if event.type == "task.progress" or not event.type.startswith(("task.", "executor.")):
                continue
            try:
                item = decode(event.data)
            except msgspec.DecodeError:  # data of a shape that we do not know: the line says that much less
                item = _Transition()
            if event.type == "task.created" and item.status == "queued":
                continue  # one transition, whose line is that of `task.queued`
            item.event = event.type
            item.task_id = event.task_id
            if isinstance(render, JsonLine):
                item.level = "info"
                item.timestamp = _timestamp(event.at)
                lines.append(render.line("info", item))
            else:
                logger.info(**msgspec.to_builtins(item))
        if lines:
            logs.lines.msg(b"".join(lines))

    return observe


def _timestamp(ms: int) -> str:
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(16)
def _second(whole: int) -> str:
    return (iso(whole * 1000) or "")[:19]
