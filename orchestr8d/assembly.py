"""What the daemon hands to its parts: runners, the catalogue of agents, what the store and submits need of settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import structlog

from orchestr8d import config_sections
from orchestr8d.agents import Agent, Catalogue, Unresolved
from orchestr8d.clock import Clock
from orchestr8d.config import Config
from orchestr8d.core import schedule_input
from orchestr8d.core.budgets import Budget
from orchestr8d.core.governor import Account
from orchestr8d.core.notices import Quiet, User, read_hours
from orchestr8d.core.schedules import NewSchedule
from orchestr8d.core.submit import AgentRules
from orchestr8d.processes import NotFound, Processes
from orchestr8d.store.types import Limits, Retention
from orchestr8d.task_runners import Runner, third_party
from orchestr8d.task_runners.claude import ClaudeRunner, no_bypass_reason, off_reason
from orchestr8d.task_runners.command import CommandRunner
from orchestr8d.templates import Templates


def runners(
    processes: Processes, clock: Clock, environ: Mapping[str, str], settings: Callable[[], Config],
    agents: Catalogue, worktrees: Path,
) -> dict[str, Runner]:  # fmt: skip
    """By kind; ours go before a third party's of the same kind."""
    found: dict[str, Runner] = {}
    for kind, load in third_party().items():
        try:
            found[kind] = load()(processes, clock)
        except Exception:
            structlog.get_logger().exception(
                "a third party's runner cannot be loaded: its tasks will fail", kind=kind
            )

    async def resolve(name: str, cwd: str) -> Agent:
        try:
            return await agents.resolve(name, cwd)
        except Unresolved as e:
            raise NotFound(str(e)) from e

    found["command"] = CommandRunner(processes, clock, environ, lambda: settings().runners.command.env_allow)
    found["claude"] = ClaudeRunner(
        processes, clock, environ, lambda: settings().runners.claude, resolve, worktrees,
        lambda: _account_envs(settings()),
    )  # fmt: skip
    return found


def catalogue(environ: Mapping[str, str], settings: Callable[[], Config], clock: Clock) -> Catalogue:
    """As the CLI looks for agents."""
    home = Path(environ["HOME"]) if environ.get("HOME") else None
    own = environ.get("CLAUDE_CONFIG_DIR")
    config_dir = Path(own).absolute() if own else home and home / ".claude"
    return Catalogue(lambda: settings().agents, clock, home, config_dir)


def templates(environ: Mapping[str, str], settings: Callable[[], Config]) -> Templates:
    return Templates(lambda: settings().workflows.paths, Path(environ["HOME"]) if environ.get("HOME") else None)


def agent_rules(settings: Config, environ: Mapping[str, str]) -> AgentRules:
    claude = settings.runners.claude
    no_bypass = no_bypass_reason(claude, _account_envs(settings))
    return AgentRules(off_reason(environ, claude), no_bypass, tuple(a.name for a in _accounts(settings)))


def store_limits(settings: Config) -> Limits:
    return Limits(
        head_start=settings.executor.head_start,
        per_key=settings.limits.per_key,
        queue_depth=settings.limits.queue_depth,
        min_free_disk=settings.store.min_free_disk,
        accounts=_accounts(settings),
        agents=settings.runners.claude.concurrency,
        budgets=tuple(_budget(name, said) for name, said in settings.budgets.items()),
        users={name: _user(said) for name, said in settings.users.items()},
        ladder=tuple(settings.webhooks.ladder),
        callback_ladder=tuple(settings.webhooks.callback_ladder),
        workflow_tasks=settings.limits.workflow_tasks,
        fan=settings.limits.fan,
    )


def schedules(settings: Config) -> list[NewSchedule]:
    """Those of the configuration, as the store takes them."""
    return [
        schedule_input.new_schedule(said, settings.cron.timezone, schedule_input.user_of(said), "config")
        for said in settings.schedules
    ]


def _accounts(settings: Config) -> tuple[Account, ...]:
    """Those that are configured, else the daemon's own login."""
    found = tuple(Account(name, account.concurrency) for name, account in settings.claude.accounts.items())
    return found or (Account("default", settings.runners.claude.concurrency),)


def _budget(name: str, said: config_sections.BudgetConfig) -> Budget:
    unit: Literal["usd", "tokens"] = "tokens" if said.usd is None else "usd"
    return Budget(name, said.usd or said.tokens or 0.0, unit, said.per, said.on_exceed)


def _user(said: config_sections.UserConfig) -> User:
    quiet = None if said.quiet_hours is None else Quiet(*read_hours(said.quiet_hours), said.timezone)
    return User(tuple(said.notify), frozenset(said.types), quiet)


def _account_envs(settings: Config) -> dict[str, dict[str, str]]:
    return {name: account.env for name, account in settings.claude.accounts.items()}


def retention(settings: Config) -> Retention:
    kept = settings.retention
    tasks = {"completed": kept.completed, "failed": kept.failed, "cancelled": kept.cancelled, "skipped": kept.skipped}
    return Retention(tasks, kept.events, kept.deliveries)
