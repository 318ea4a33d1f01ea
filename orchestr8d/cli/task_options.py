"""A task as the command line says it: a command after `--`, or an agent with a prompt, from where and with what
environment the caller has."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestr8d.cli import common, output
from orchestr8d.cli.agent_options import agent_options, given, read_prompt, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from orchestr8d.client.sync import Client

Command = TypeVar("Command", bound=Callable[..., Any])
# What of the caller's environment goes with a command.
SENT = re.compile(r"PATH|HOME|LANG|LC_[A-Z0-9_]+|USER|TMPDIR|TZ|XDG_[A-Z0-9_]+|VIRTUAL_ENV")
SUBJECT = "(--agent NAME (PROMPT... | -) | -- COMMAND...)"


class TaskCommand(click.Command):
    """Keeps what stands after `--` apart: that is the command, word for word."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ours, ctx.meta["command"] = common.cut_at_dashes(args)
        return super().parse_args(ctx, ours)


def task_options(command: Command) -> Command:
    """Adds the flags that say what a task is; `read` takes what they say."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--agent", metavar="NAME", help="The agent to give PROMPT to: a name, or the path of its file."),
    click.option("--prompt-file", "prompt_file", metavar="FILE", help="Read the prompt from there."),
    agent_options,
    click.option("-o", "--option", "pairs", multiple=True, metavar="KEY=VALUE",
                 help="Any option of a task, such as timeout=10m, max_retries=3, tags=nightly."),
    click.option("-e", "--env", "env", multiple=True, metavar="NAME[=VALUE]",
                 help="Set a variable, or send the caller's."),
    click.option("--clean-env", is_flag=True, help="Send nothing of the caller's environment but what -e names."),
    click.option("--cwd", type=click.Path(path_type=Path), help="Run there instead of in the current directory."),
    click.option("--stdin", "stdin", is_flag=False, flag_value="-", metavar="[FILE]",
                 help="Give the task a file, or our own stdin, to read."),
    click.option("--title", metavar="TEXT", help="What lists show instead of the command or prompt."),
    click.option("--priority", metavar="P", help="critical, high, normal, low, or -100 to 100."),
    click.option("--queue", metavar="NAME", help="The queue to wait in."),
)  # fmt: skip


def read(
    ctx: click.Context, *, prompt: tuple[str, ...], agent: str | None, prompt_file: str | None, pairs: tuple[str, ...],
    env: tuple[str, ...], clean_env: bool, cwd: Path | None, stdin: str | None, title: str | None,
    priority: str | None, queue: str | None,
) -> dict[str, Any]:  # fmt: skip
    """The task that the flags say, as a submit takes it. Ends of ids in it are still to be found (`resolve`)."""
    options = common.parse_options(pairs) | given(ctx)
    if title is not None:
        options["title"] = title
    if priority is not None:
        options["priority"] = common.whole_number(priority)
    if queue is not None:
        options["queue"] = queue
    task = _subject(ctx, prompt, prompt_file, agent) | {
        "cwd": directory(cwd),
        "env": environment(os.environ, env, clean_env),
        "stdin": None if stdin is None else read_text(stdin),
        "options": options,
    }
    _check_text(task)
    return task


def resolve(client: Client, task: Mapping[str, Any]) -> None:
    common.resolve_dependencies(client, task["options"])


def _subject(
    ctx: click.Context, prompt: tuple[str, ...], prompt_file: str | None, agent: str | None
) -> dict[str, Any]:  # fmt: skip
    """The command, or the agent and prompt."""
    command, verb = ctx.meta["command"], ctx.command_path
    if command is not None:
        if prompt or prompt_file:
            first = prompt[0] if prompt else f"--prompt-file {prompt_file}"
            raise click.UsageError(f"give a command or a prompt, not both ({first!r} stands before the --)")
        if not command:
            raise click.UsageError("there is no command after the --")
        if agent is not None:
            raise click.UsageError("give a command or --agent with a prompt, not both")
        return {"command": command}
    if agent is not None:
        said = read_prompt(prompt, prompt_file)
        if said is None:
            raise click.UsageError(f"say what {agent} shall do: {verb} --agent {agent} PROMPT")
        return {"agent": agent, "prompt": said}
    if not prompt and prompt_file is None:
        raise click.UsageError(
            f"nothing to submit: give a command after --, as in: {verb} -- make test\n"
            f"or an agent with a prompt: {verb} --agent NAME PROMPT"
        )
    hint = f"; a command goes after --: {verb} -- {' '.join(prompt)}" if prompt else ""
    raise click.UsageError(f"a prompt needs an agent: --agent NAME{hint}")


def environment(caller: Mapping[str, str], asked: Sequence[str], clean: bool) -> dict[str, str]:
    """The variables to send: the caller's by the allow-list, unless `clean`, and those asked for by -e."""
    env = {} if clean else {name: value for name, value in caller.items() if SENT.fullmatch(name) and _is_text(value)}
    for item in asked:
        name, equals, value = item.partition("=")
        if equals:
            env[name] = value
        elif name in caller:
            env[name] = caller[name]
        else:
            raise click.UsageError(f"-e {name}: there is no such variable here; give it a value with -e {name}=VALUE")
    return env


def directory(cwd: Path | None) -> str:
    try:
        return str(cwd.absolute() if cwd is not None else Path.cwd())
    except FileNotFoundError:
        raise click.UsageError("the current directory no longer exists; give one with --cwd") from None


def _is_text(value: str) -> bool:
    """False for what came from the system as bytes that are not UTF-8: JSON cannot carry those."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_text(task: Mapping[str, Any]) -> None:
    words = [("the command", word) for word in task.get("command") or []]
    words += [("the prompt", task["prompt"])] if "prompt" in task else []
    words += [("the directory", task["cwd"])] + [(f"-e {name}", value) for name, value in task["env"].items()]
    for where, text in words:
        if not _is_text(text):
            raise click.UsageError(f"{where} is not UTF-8 text: {output.printable(ascii(text))}")
