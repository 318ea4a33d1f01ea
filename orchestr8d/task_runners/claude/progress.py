"""How far an agent has come, from its lists of what is to do and from the tools that it uses."""

from __future__ import annotations

from posixpath import basename
from typing import Any, Final

from orchestr8d.core import redact
from orchestr8d.core.model import Progress
from orchestr8d.task_runners.claude.records import Record, blocks, part, text

_LONGEST: Final = 120
_MOST_ITEMS: Final = 1000
# What of a tool's input says what is done; the agent's own words first.
_SAYS: Final = ("description", "command", "pattern", "query", "url", "prompt", "skill")
_FILES: Final = ("file_path", "notebook_path", "path")


class Item:
    def __init__(self, words: str, status: str = "pending") -> None:
        self.words = words
        self.status = status


class Steps:
    """Fed with records; what subagents do is a step of the one that called them."""

    def __init__(self) -> None:
        self._items: dict[str, Item] = {}
        # Calls that make items, until their results say under which id.
        self._creating: dict[str, str] = {}
        self._activity: str | None = None

    def feed(self, record: Record) -> None:
        if record.get("parent_tool_use_id"):
            return
        if record.get("type") == "assistant":
            for block in blocks(part(record, "message"), "tool_use"):
                self._call(text(block, "name") or "", part(block, "input"), text(block, "id") or "")
        elif record.get("type") == "user":
            said = part(record, "tool_use_result")
            for block in blocks(part(record, "message"), "tool_result"):
                self._result(said, text(block, "tool_use_id") or "")

    def now(self) -> Progress | None:
        """None while there is nothing to show."""
        items = self._items.values()
        doing = next((i.words for i in items if i.status == "in_progress"), None)
        percent = None
        if items:
            percent = round(100 * sum(i.status == "completed" for i in items) / len(items), 1)
        step = doing or self._activity
        return None if step is None and percent is None else Progress(percent, step)

    def _call(self, name: str, said: Record, call: str) -> None:
        if name == "TodoWrite":
            self._replace(said.get("todos"), "content")
        elif name == "TaskCreate":
            if len(self._creating) < _MOST_ITEMS:
                self._creating[call] = _shown(text(said, "activeForm") or text(said, "subject") or "")
        elif name not in ("TaskUpdate", "TaskList", "TaskGet", "ToolSearch"):
            self._activity = _activity(name, said)

    def _result(self, said: Record, call: str) -> None:
        words = self._creating.pop(call, None)
        made = text(part(said, "task"), "id")
        if words is not None and made is not None and len(self._items) < _MOST_ITEMS:
            self._items[made] = Item(words)
        item = self._items.get(text(said, "taskId") or "")
        status = text(part(said, "statusChange"), "to")
        if item is not None and status is not None:
            item.status = status
            if status == "deleted":
                del self._items[text(said, "taskId") or ""]

    def _replace(self, todos: Any, name: str) -> None:
        self._items = {
            str(n): Item(_shown(text(t, "activeForm") or text(t, name) or ""), text(t, "status") or "pending")
            for n, t in enumerate(todos[:_MOST_ITEMS] if isinstance(todos, list) else [])
            if isinstance(t, dict)
        }


def _activity(name: str, said: Record) -> str:
    what = next((w for w in (text(said, key) for key in _SAYS) if w), None)
    if what is None:
        path = next((w for w in (text(said, key) for key in _FILES) if w), None)
        what = None if path is None else basename(path)
    return _shown(name if what is None else f"{name}: {what}")


def _shown(words: str) -> str:
    line = " ".join(redact.text(words[: 4 * _LONGEST]).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
