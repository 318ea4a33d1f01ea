"""The script language: what a step is, how a test writes a script into a prompt, and how it is found again."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec

USAGE = {
    "input_tokens": 100,
    "cache_creation_input_tokens": 10,
    "cache_read_input_tokens": 20,
    "output_tokens": 30,
}
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}
# What the CLI itself puts into the conversation for an answer that was interrupted, when its session is resumed.
INTERRUPTED = "No response requested."
START = re.compile(r"@@steps(?::(?P<name>[\w.-]+))? (?=\[)")


class Call(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    input: dict[str, Any]


class Step(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    text: str = ""
    tools: list[Call] = []
    usage: dict[str, int] = {}
    stop_reason: str | None = None
    status: int = 200
    error_type: str | None = None
    error_message: str | None = None
    headers: dict[str, str] = {}
    gate: str | None = None
    gate_mid: str | None = None
    drop: Literal["start", "middle"] | None = None
    pause: float = 0.0
    first: list[Step] = []


class Due(msgspec.Struct, frozen=True):
    """Where a conversation is: the step that is due, of which script."""

    name: str
    number: int
    step: Step
    script: str


def say(text: str, **more: Any) -> Step:
    return Step(text=text, **more)


def use(tool: str, /, **tool_input: Any) -> Step:
    """For more than the tool's input, `answer`."""
    return Step(tools=[Call(tool, tool_input)])


def call(tool: str, /, **tool_input: Any) -> Call:
    return Call(tool, tool_input)


def answer(text: str, *calls: Call, **more: Any) -> Step:
    return Step(text=text, tools=list(calls), **more)


def fail(status: int, error_type: str | None = None, message: str | None = None, **more: Any) -> Step:
    """With status 200 the answer begins, and the error comes in its middle."""
    return Step(status=status, error_type=error_type, error_message=message, **more)


LOW_CREDIT = fail(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API.")


def limit_reached(resets_at: int) -> Step:
    """The limit of a subscription, until then (unix seconds)."""
    unified = {"status": "rejected", "reset": str(resets_at), "representative-claim": "five_hour"}
    return fail(429, headers={f"anthropic-ratelimit-unified-{k}": v for k, v in unified.items()})


def script(*steps: Step, name: str = "") -> str:
    """A prompt that makes the model do this."""
    return f"@@steps{name and ':' + name} {msgspec.json.encode(steps).decode()}"


def ok(body: dict[str, Any]) -> Step:
    """The answer to a request without a script: the least that fits its schema, where it has one, else a word."""
    for tool in body.get("tools", ()):
        if tool["name"] == "StructuredOutput":
            return use("StructuredOutput", **least(tool["input_schema"]))
    return say("ok")


def least(schema: dict[str, Any]) -> Any:
    """A value that fits: yes, the most, and of an object all that it may have."""
    match schema.get("type"):
        case "object":
            return {name: least(inner) for name, inner in schema.get("properties", {}).items()}
        case "array":
            return [least(schema["items"])] * max(1, schema.get("minItems", 1)) if "items" in schema else []
        case "boolean":
            return True
        case "integer" | "number":
            return schema.get("maximum", 100)
        case _:
            return schema["enum"][0] if "enum" in schema else "ok"


def due(messages: list[dict[str, Any]], otherwise: Callable[[], Step]) -> Due:
    """Raises ValueError for a script that cannot be read. `otherwise` answers where there is none."""
    for at in range(len(messages) - 1, -1, -1):
        text = text_of(messages[at]) if messages[at]["role"] == "user" else ""
        if start := START.search(text):
            _, end = json.JSONDecoder().raw_decode(text, start.end())
            steps = msgspec.json.decode(text[start.end() : end], type=list[Step])
            number = sum(m["role"] == "assistant" and text_of(m) != INTERRUPTED for m in messages[at + 1 :])
            step = steps[number] if number < len(steps) else say("ok")
            return Due(start["name"] or "", number, step, text[start.start() : end])
    return Due("", sum(message["role"] == "assistant" for message in messages), otherwise(), "")


def text_of(message: dict[str, Any]) -> str:
    content = message["content"]
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block["type"] == "text")
