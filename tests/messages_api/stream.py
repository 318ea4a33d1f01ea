"""A step as the API words it: as a whole message, as an error, as server-sent events."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from typing import Any

from tests.messages_api.steps import ERROR_TYPES, USAGE, Step

BEGUN = 3  # events after which the first words are out


def message(step: Step, model: str) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": step.text}] if step.text or not step.tools else []
    for tool in step.tools:
        content.append(
            {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:24]}", "name": tool.name, "input": tool.input}
        )
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": step.stop_reason or ("tool_use" if step.tools else "end_turn"),
        "stop_sequence": None,
        "usage": {**USAGE, "service_tier": "standard", **step.usage},
    }


def error(step: Step) -> dict[str, Any]:
    kind = step.error_type or ERROR_TYPES.get(step.status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": step.error_message or f"scripted {step.status}"}}


def error_event(step: Step) -> bytes:
    return _event("error", error=error(step)["error"])


def events(whole: dict[str, Any]) -> Iterator[bytes]:
    start = {**whole, "content": [], "stop_reason": None, "usage": {**whole["usage"], "output_tokens": 1}}
    yield _event("message_start", message=start)
    for index, block in enumerate(whole["content"]):
        empty = {**block, "text": ""} if block["type"] == "text" else {**block, "input": {}}
        yield _event("content_block_start", index=index, content_block=empty)
        for delta in _deltas(block):
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    delta = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    yield _event("message_delta", delta=delta, usage={"output_tokens": whole["usage"]["output_tokens"]})
    yield _event("message_stop")


def _deltas(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        for word in re.findall(r"\s*\S+\s*$|\s*\S+", block["text"]):
            yield {"type": "text_delta", "text": word}
    else:
        yield {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}


def _event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()
