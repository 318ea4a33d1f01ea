"""The body of a delivery: an event as it is sent, with the result of a task that has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from orchestr8d.core.durations import iso
from orchestr8d.core.states import FINAL

# In bytes.
LARGEST: Final = 256 * 1024
# In characters, of an error's message where all of it would be too much.
_MESSAGE: Final = 1000
_ENCODER: Final = msgspec.json.Encoder()


class Happened(msgspec.Struct, frozen=True):
    """What is sent: an event. `at` is wall-clock milliseconds."""

    type: str
    at: int
    task_id: str | None
    workflow_id: str | None
    user_id: str | None
    data: Mapping[str, Any]


def is_final(type_: str) -> bool:
    """Whether the event is a task's last."""
    return type_.startswith("task.") and type_[5:] in FINAL


def body(event: Happened, result: bytes | None = None, result_type: str | None = None) -> bytes:
    """At most LARGEST bytes of JSON. `result` is what the task left, when the event is its last."""
    if not is_final(event.type):
        return _small(event, _render(event, _data(event)))
    data = {**_data(event), "result": None, "error": event.data.get("error"), "timestamp": iso(event.at)}
    url = f"/api/v1/tasks/{event.task_id}"
    if result_type == "file":
        data["result_url"] = f"{url}/logs?stream=stdout"
    elif result is not None and len(result) > LARGEST:
        data["result_url"] = f"{url}/result"
    elif result is not None:
        data["result"] = msgspec.Raw(result) if result_type == "json" else result.decode("utf-8", "replace")
    made = _render(event, data)
    if len(made) > LARGEST and data["result"] is not None:
        data |= {"result": None, "result_url": f"{url}/result"}
        made = _render(event, data)
    error = data["error"]
    if len(made) > LARGEST and isinstance(error, dict):
        data["error"] = {**error, "message": str(error.get("message"))[:_MESSAGE]}
        made = _render(event, data)
    return _small(event, made)


def wrap(type_: str, at: int, data: object) -> bytes:
    """The body of what is no event of the log."""
    return _ENCODER.encode({"type": type_, "timestamp": iso(at), "data": data})


def _data(event: Happened) -> dict[str, Any]:
    """The event's own data, and whom it is about."""
    about: dict[str, Any] = {}
    if event.type.startswith("task."):
        about = {"task_id": event.task_id, "workflow_id": event.workflow_id, "user_id": event.user_id}
    elif event.type.startswith("workflow."):
        about = {"workflow_id": event.workflow_id, "user_id": event.user_id}
    return about | dict(event.data)


def _render(event: Happened, data: Mapping[str, Any]) -> bytes:
    whole: dict[str, Any] = {"type": event.type, "timestamp": iso(event.at), "data": data}
    if is_final(event.type):
        whole |= {name: data.get(name) for name in ("task_id", "status", "workflow_id", "result")}
    return _ENCODER.encode(whole)


def _small(event: Happened, made: bytes) -> bytes:
    """The body, or one that says no more than what it is about."""
    if len(made) <= LARGEST:
        return made
    about = {"task_id": event.task_id, "workflow_id": event.workflow_id, "user_id": event.user_id}
    status = {"status": event.type[5:], "result": None} if is_final(event.type) else {}
    return _render(event, {**about, **status, "is_cut": True})
