"""`orchestr8d continue` and `attach`: going on with what an agent and its task said, as another task or in person."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from orchestr8d.cli import common, exits, output

if TYPE_CHECKING:
    from orchestr8d.client.answers import Json
    from orchestr8d.client.sync import Client


@click.command("continue", epilog='Example: orchestr8d continue --follow 3f2a9c1d "Now the tests for it"')
@click.argument("typed", metavar="ID")
@click.argument("prompt", nargs=-1, metavar="PROMPT...|-")
@click.option("--prompt-file", metavar="FILE", help="Read the prompt from there.")
@click.option("-o", "--option", "pairs", multiple=True, metavar="KEY=VALUE",
              help="An option that shall differ from the earlier task's.")  # fmt: skip
@click.option("--wait", "wait", is_flag=True, help="Wait for the end; exit with 0 only if the task succeeded.")
@click.option("--follow", "-f", is_flag=True, help="Show what it does, and wait.")
@click.option("--timeout", type=common.Seconds(), help="Stop waiting after this long, with exit code 124.")
@common.json_option
def continue_(typed: str, prompt: tuple[str, ...], prompt_file: str | None, pairs: tuple[str, ...], wait: bool,
              follow: bool, timeout: float | None, as_json: bool) -> None:  # fmt: skip
    """Say more to the agent of a task that has ended.

    A new task goes on with the conversation, with the same agent, directory and options. With a worktree it begins with
    all that the earlier task left in its own.
    """
    from orchestr8d.cli.agent_options import read_prompt
    from orchestr8d.cli.submit import check_waiting, see_through

    check_waiting(wait, follow, timeout, as_json)
    said = read_prompt(prompt, prompt_file)
    if said is None:
        raise click.UsageError("say what it shall do now: orchestr8d continue ID PROMPT")
    with common.connect() as client:
        answer = client.continue_(common.resolve(client, typed), said, common.parse_options(pairs) or None)
        see_through(client, answer, wait, follow, timeout, as_json)


class Session(NamedTuple):
    """How to take up a conversation: what to run, where, and what to add to the environment."""

    id: str
    cwd: str
    argv: list[str]
    env: Mapping[str, str]

    def as_shell(self) -> str:
        """For a person to paste; of the environment where the CLI keeps its conversations, and no secrets."""
        where = {name: value for name, value in self.env.items() if name in ("HOME", "CLAUDE_CONFIG_DIR")}
        variables = [f"{name}={shlex.quote(value)}" for name, value in where.items()]
        return f"cd {shlex.quote(self.cwd)} && {' '.join([*variables, shlex.join(self.argv)])}"


@click.command(epilog="Example: orchestr8d attach 3f2a9c1d")
@click.argument("typed", metavar="ID")
@click.option("--print", "only_print", is_flag=True, help="Print the command instead of running it.")
@common.json_option
def attach(typed: str, only_print: bool, as_json: bool) -> None:
    """Take up an agent's conversation yourself, in its directory.

    Runs `claude --resume SESSION` there, once the task has ended.
    """
    with common.connect() as client:
        session = _session(client, client.task(common.resolve(client, typed)))
    if as_json:
        output.print_json({"session_id": session.id, "cwd": session.cwd, "command": session.argv})
    elif only_print:
        click.echo(session.as_shell())
    else:
        _become(session)


def _session(client: Client, task: Json) -> Session:
    from orchestr8d.core.states import FINAL

    name = output.short(task["id"])
    if not task.get("agent"):
        exits.fail(exits.WRONG_STATE, f"task {name} is a command: there is no conversation in it")
    if task["status"] not in FINAL:
        exits.fail(
            exits.WRONG_STATE,
            f"task {name} is {task['status']}: two at one conversation get in each other's way; "
            f"`orchestr8d logs -f {name}` shows what it does, `orchestr8d cancel {name}` ends it",
        )
    if not task.get("session_id"):
        exits.fail(exits.WRONG_STATE, f"task {name} has no conversation: it never ran")
    worktree = client.result(task["id"]).get("worktree")
    cwd = task["cwd"] if worktree is None else _inside(worktree["path"], task["cwd"])
    if not Path(cwd).is_dir():
        exits.fail(exits.NOT_FOUND, f"{cwd} is gone, or on another machine")
    program, env = _program(task)
    return Session(task["session_id"], cwd, [program, "--resume", task["session_id"]], env)


def _inside(worktree: str, cwd: str) -> str:
    """The directory in a worktree that stands for `cwd`."""
    from orchestr8d.task_runners.claude.git import Git

    prefix = Git(os.environ, Path(worktree).parent).says(cwd, "rev-parse", "--show-prefix")
    return str(Path(worktree, prefix or ""))


def _program(task: Json) -> tuple[str, Mapping[str, str]]:
    """What the daemon runs agents by, and what it adds to their environment for the account that this one ran on."""
    from orchestr8d import config

    settings = config.load(config.find(None, os.environ), os.environ)
    account = settings.claude.accounts.get(task["attempts"][-1]["account"] or "")
    return settings.runners.claude.bin, {**settings.runners.claude.env, **(account.env if account else {})}


def _become(session: Session) -> Any:
    os.chdir(session.cwd)
    try:
        os.execvpe(session.argv[0], session.argv, {**os.environ, **session.env})  # noqa: S606 (no shell is wanted)
    except FileNotFoundError:
        exits.fail(exits.NOT_FOUND, f"{session.argv[0]} is not installed, or not in your PATH ([runners.claude] bin)")
