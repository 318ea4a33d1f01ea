"""The options of an agent's task as flags, for the verbs that hand a prompt over."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from orchestr8d.core.model import PermissionMode

Command = TypeVar("Command", bound=Callable[..., Any])
# `Bash(git add:*),Edit`: not between parentheses.
_COMMA = re.compile(r",\s*(?![^(]*\))")
_KEPT = "agent options"


def agent_options(command: Command) -> Command:
    """Adds the flags; what they say is in the context, for `given`."""
    for flag in reversed(_FLAGS):
        command = flag(command)
    return command


def given(ctx: click.Context) -> dict[str, Any]:
    """The options of the task that the flags say."""
    options: dict[str, Any] = ctx.meta.get(_KEPT, {})
    return options


def read_prompt(words: tuple[str, ...], file: str | None) -> str | None:
    """The prompt from the command line, from a file, or from our stdin (`-`); None when there is none."""
    if file is not None:
        if words:
            raise click.UsageError("give a prompt or --prompt-file, not both")
        return read_text(file)
    return read_text("-") if words == ("-",) else " ".join(words) or None


def read_text(name: str) -> str:
    """A file's text; `-` is our stdin."""
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        source = "stdin" if name == "-" else name
        raise click.UsageError(f"{source} is not UTF-8 text (byte {error.start}); tasks take text") from None


def _flag(*names: str, option: str, read: Callable[[Any], Any] = lambda value: value, **more: Any) -> Any:
    def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is not None and value != () and value is not False:
            ctx.meta.setdefault(_KEPT, {})[option] = read(value)

    return click.option(*names, expose_value=False, callback=keep, **more)


def _tools(given: tuple[str, ...]) -> list[str]:
    return [tool for item in given for tool in _COMMA.split(item) if tool]


def _document(text: str) -> Any:
    """JSON, or the name of a file that holds it."""
    content = text if text.lstrip().startswith("{") else read_text(text)
    try:
        return json.loads(content)
    except ValueError as error:
        raise click.UsageError(f"{text[:60]!r} is not JSON: {error}") from None


_FLAGS = (
    _flag("--model", option="model", metavar="NAME", help="The model, such as opus, sonnet, haiku."),
    _flag("--max-turns", option="max_turns", type=click.IntRange(1), metavar="N", help="End after so many turns."),
    _flag("--max-cost", option="max_cost_usd", type=float, metavar="USD", help="End when so many dollars were spent."),
    _flag("--json-schema", option="json_schema", read=_document, metavar="FILE|JSON",
          help="The result is JSON of this shape."),
    _flag("--allowed-tools", option="allowed_tools", read=_tools, multiple=True, metavar="TOOLS",
          help="Tools to use without asking, such as 'Bash(git log:*),Edit' (may be repeated)."),
    _flag("--disallowed-tools", option="disallowed_tools", read=_tools, multiple=True, metavar="TOOLS",
          help="Tools not to use at all."),
    _flag("--permission-mode", option="permission_mode", type=click.Choice(get_args(PermissionMode)),
          help="What is done without asking."),
    _flag("--isolation", option="isolation", type=click.Choice(["none", "worktree"]),
          help="worktree: work in a git worktree of its own."),
    _flag("--worktree", option="isolation", is_flag=True, read=lambda _: "worktree",
          help="Short for --isolation worktree."),
    _flag("--account", option="account", metavar="NAME", help="The account to run on."),
    _flag("--resume-from", option="resume_from", metavar="ID", help="Go on with the conversation of an earlier task."),
)  # fmt: skip
