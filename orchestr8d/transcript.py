"""Turns an agent's stream of JSON records into text for people, piece by piece; what it does not know it leaves out."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from orchestr8d.core.durations import iso

# What is shown of a line that is no record, of a tool's argument or error, and of a value that a schema asked for.
_RAW: Final = 200
_SHORT: Final = 160
_ERROR: Final = 600
_VALUE: Final = 4000
# A longer line is not kept until its end: no record is that long.
MAX_LINE: Final = 32 << 20
_LARGEST: Final = 1e15
_RECENT: Final = 8
# So many of the agent's own tasks are known by name.
_MOST_TASKS: Final = 1000
# What could steer a terminal.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
Record = dict[str, Any]


class Transcript:
    """`feed` takes bytes as they come and gives the text of the lines that are whole; `end` that of a last half one."""

    def __init__(self) -> None:
        self._half = bytearray()
        self._too_long = False
        self._begun: object = None
        # What was said last, and what was denied: both are told twice.
        self._said: deque[str] = deque(maxlen=_RECENT)
        self._denied = ""
        self._tasks: dict[str, str] = {}

    def feed(self, data: bytes) -> bytes:
        *lines, rest = data.split(b"\n")
        text = "".join(map(self._line, lines))
        self._keep(rest)
        return text.encode(errors="replace")

    def end(self) -> bytes:
        return self._line(b"").encode(errors="replace")

    def _keep(self, part: bytes) -> None:
        if not self._too_long:
            self._half += part
        if len(self._half) > MAX_LINE:
            self._too_long = True
            del self._half[_RAW + 1 :]

    def _line(self, part: bytes) -> str:
        """The text of the line that ends with `part`."""
        self._keep(part)
        line, whole = bytes(self._half).strip(), not self._too_long
        self._half.clear()
        self._too_long = False
        if not line:
            return ""
        try:
            record = msgspec.json.decode(line) if whole else None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            record = None
        if not isinstance(record, dict):
            return f"{_short(line[: 4 * _RAW].decode(errors='replace'), _RAW)}\n"
        # Whoever works for the agent is set in.
        indent = "  " if record.get("parent_tool_use_id") else ""
        shown = "\n".join(self._show(record))
        return "".join(f"{indent}{text}".rstrip() + "\n" for text in shown.split("\n")) if shown else ""

    def _show(self, record: Record) -> Iterator[str]:
        kind = record.get("type")
        if kind == "assistant":
            yield from self._assistant(record)
        elif kind == "user":
            yield from self._user(record)
        elif kind == "system":
            yield from self._system(record)
        elif kind == "rate_limit_event":
            yield from _limit(_dict(record.get("rate_limit_info")))
        elif kind == "result":
            yield from self._result(record)

    def _assistant(self, record: Record) -> Iterator[str]:
        for block in _blocks(record):
            if block.get("type") == "text" and (text := _clean(_text(block.get("text"))).strip()):
                if not record.get("parent_tool_use_id"):
                    self._said.append(text)
                yield f"! {text}" if record.get("error") else text
            elif block.get("type") == "tool_use":
                yield f"> {self._call(_text(block.get('name')), _dict(block.get('input')))}"

    def _call(self, name: str, given: Record) -> str:
        """A tool with the argument that tells what it does."""
        if name == "TaskUpdate":
            number = _text(given.get("taskId"))
            words = [f"#{number}", self._tasks.get(number, ""), _text(given.get("status"))]
            return _short(f"TaskUpdate: {' '.join(filter(None, words))}", _SHORT)
        telling = _TELLING.get(name, _first)(given)
        return _short(f"{name}: {telling}" if telling else name, _SHORT)

    def _user(self, record: Record) -> Iterator[str]:
        task = _dict(_dict(record.get("tool_use_result")).get("task"))
        if _text(task.get("id")) and len(self._tasks) < _MOST_TASKS:
            self._tasks[_text(task.get("id"))] = _text(task.get("subject"))
        for block in _blocks(record):
            if block.get("type") == "text":
                yield f"< {_short(_text(block.get('text')), _ERROR)}"
            elif block.get("type") == "tool_result" and block.get("is_error") is True:
                text = _short(_content(block.get("content")), _ERROR)
                if text != self._denied:
                    yield f"  ! {text}"

    def _system(self, record: Record) -> Iterator[str]:
        kind = record.get("subtype")
        if kind == "init":
            begun = (_text(record.get("model")), _text(record.get("cwd")))
            if begun != self._begun:  # it is said again at every turn
                self._begun = begun
                yield _clean(f"* {begun[0] or 'an agent'} in {begun[1] or 'an unknown directory'}")
        elif kind == "api_retry":
            delay = _number(record.get("retry_delay_ms")) / 1000
            why = " ".join(filter(None, (_text(record.get("error_status")), _text(record.get("error")))))
            tries = f"{_text(record.get('attempt'))} of {_text(record.get('max_retries'))}"
            yield _short(f"~ {why or 'no answer'}; retry {tries} in {delay:.1f} s", _SHORT)
        elif kind == "permission_denied":
            self._denied = _short(_text(record.get("message")), _ERROR)
            yield f"  ! denied: {self._denied}"
        elif kind == "task_notification":
            summary = _text(record.get("summary")) or _text(record.get("task_id"))
            yield _short(f"~ in the background: {summary} ({_text(record.get('status'))})", _SHORT)
        elif kind == "compact_boundary":
            yield "~ the conversation was compacted"

    def _result(self, record: Record) -> Iterator[str]:
        failed = record.get("is_error") is True or _text(record.get("subtype")) not in ("", "success")
        text = _clean(_text(record.get("result"))).strip()
        if "structured_output" in record:
            yield _short(msgspec.json.encode(record["structured_output"]).decode(), _VALUE)
        elif text and text not in self._said:
            yield text
        errors = record.get("errors")
        yield from (f"! {_short(_text(error), _ERROR)}" for error in (errors if isinstance(errors, list) else ()))
        denied, turns = record.get("permission_denials"), _number(record.get("num_turns"))
        parts = [
            "failed" if failed else "done",
            _text(record.get("terminal_reason")) if failed else "",
            f"{len(denied)} denied" if isinstance(denied, list) and denied else "",
            f"{turns:.0f} turn{'s' * (turns != 1)}",
            f"${_number(record.get('total_cost_usd')):.4f}",
            f"{_number(record.get('duration_ms')) / 1000:.1f} s",
        ]
        yield _short(f"= {', '.join(filter(None, parts))}", _SHORT)


def _limit(info: Record) -> Iterator[str]:
    status = _text(info.get("status"))
    if status in ("", "allowed"):
        return
    at = _number(info.get("resetsAt"))
    until = f" until {iso(int(at) * 1000)}" if 0 < at < 1 << 33 else ""
    words = filter(None, (_text(info.get("rateLimitType")), status))
    yield _short(f"~ limit: {' '.join(words)}{until}", _SHORT)


def _edit(given: Record) -> str:
    """`src/x.py (+3 -1)`: lines that are new and lines that they stand for."""
    edits = given.get("edits")
    pairs = [_dict(edit) for edit in edits] if isinstance(edits, list) else [given]
    new = sum(_lines(pair.get("new_string")) for pair in pairs)
    old = sum(_lines(pair.get("old_string")) for pair in pairs)
    return f"{_text(given.get('file_path'))} (+{new} -{old})"


def _write(given: Record) -> str:
    return f"{_text(given.get('file_path'))} (+{_lines(given.get('content'))})"


def _search(given: Record) -> str:
    where = _text(given.get("path"))
    return _text(given.get("pattern")) + (f" in {where}" if where else "")


def _agent(given: Record) -> str:
    kind = _text(given.get("subagent_type"))
    return _text(given.get("description")) + (f" ({kind})" if kind else "")


def _todos(given: Record) -> str:
    """`1/3, Doing the second`."""
    todos = given.get("todos")
    items = [_dict(item) for item in todos] if isinstance(todos, list) else []
    done = sum(item.get("status") == "completed" for item in items)
    now = next((item for item in items if item.get("status") == "in_progress"), {})
    step = _text(now.get("activeForm")) or _text(now.get("content"))
    return f"{done}/{len(items)}" + (f", {step}" if step else "")


def _named(*names: str) -> Callable[[Record], str]:
    return lambda given: next((text for name in names if (text := _text(given.get(name)))), "")


def _first(given: Record) -> str:
    """Of a tool that is not known: the first thing it is told."""
    return next((_text(value) for value in given.values() if isinstance(value, str) and value), "")


_TELLING: Final[Mapping[str, Callable[[Record], str]]] = {
    "Bash": _named("command"), "Read": _named("file_path"), "NotebookEdit": _named("notebook_path"),
    "Edit": _edit, "MultiEdit": _edit, "Write": _write, "Grep": _search, "Glob": _search,
    "Task": _agent, "Agent": _agent, "TodoWrite": _todos, "TaskCreate": _named("subject"),
    "WebFetch": _named("url"), "WebSearch": _named("query"), "Skill": _named("skill", "command"),
    "StructuredOutput": lambda given: "",  # the result has it
}  # fmt: skip


def _blocks(record: Record) -> list[Record]:
    content = _dict(record.get("message")).get("content")
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _content(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(_text(part.get("text")) for part in value if isinstance(part, dict))
    return _text(value)


def _dict(value: Any) -> Record:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else f"{_number(value):g}" if type(value) in (int, float) else ""


def _number(value: Any) -> float:
    """What is no number that one can show is none."""
    return float(value) if type(value) in (int, float) and abs(value) < _LARGEST else 0.0


def _lines(value: Any) -> int:
    text = _text(value)
    return text.count("\n") + (text != "" and not text.endswith("\n"))


def _clean(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def _short(text: str, most: int) -> str:
    """In one line, cut."""
    line = " ".join(text[: most * 4].split())
    return _clean(line if len(line) <= most and len(text) <= most * 4 else f"{line[:most]}…")
