"""The command line: one table of verbs; a verb's module is imported only when that verb is used."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click

from orchestr8d import __version__

# verb -> module of this package and the command in it.
VERBS = {
    "serve": "serve:serve",
    "submit": "submit:submit",
    "status": "show:status",
    "result": "show:result",
    "logs": "logs:logs",
    "list": "show:list_tasks",
    "wait": "wait:wait",
    "cancel": "steer:cancel",
    "retry": "steer:retry",
    "continue": "conversations:continue_",
    "attach": "conversations:attach",
    "diff": "worktrees:diff",
    "apply": "worktrees:apply",
    "edit": "steer:edit",
    "pause": "steer:pause",
    "resume": "steer:resume",
    "workflow": "workflow:workflow",
    "schedule": "schedule:schedule",
    "archive": "archive:archive",
    "watch": "watch:watch",
    "top": "top:top",
    "queue": "queues:queue",
    "limits": "limits:limits",
    "executors": "executors:executors",
    "agents": "agents:agents",
    "notifications": "notifications:notifications",
    "notify": "notifications:notify",
    "webhook": "webhooks:webhook",
    "deliveries": "webhooks:deliveries",
    "hook": "hook:hook",
    "token": "tokens:token",
    "config": "configs:config",
    "doctor": "doctor:doctor",
    "migrate": "database:migrate",
    "backup": "database:backup",
    "restore": "database:restore",
    "completion": "completion:completion",
}


class Verbs(click.Group):
    """A group whose commands are loaded by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module, _, name = VERBS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(f"orchestr8d.cli.{module}"), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            from orchestr8d.core.errors import did_you_mean

            ctx.fail(f"no such command: {args[0]!r}{did_you_mean(args[0], list(VERBS))}")


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="orchestr8d %(version)s")
def root() -> None:
    """Hand over a command, or a prompt for an agent; it runs in the background, survives crashes, and reports back.

    \b
    orchestr8d serve                       start the daemon
    orchestr8d submit -- make test         hand over a command
    orchestr8d submit --follow -- make     the same, and see it through
    orchestr8d submit --agent NAME PROMPT  hand over a prompt to an agent
    orchestr8d workflow run NAME -p k=v    start a workflow of many
    orchestr8d schedule add NAME RULE -- … whenever a rule is due
    orchestr8d list                        what there is
    """


def main() -> NoReturn:
    """The entry point. Every error becomes one message and an exit code, never a traceback."""
    from orchestr8d.cli.exits import run

    sys.exit(run(root))
