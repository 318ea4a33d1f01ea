"""The `claude` runner: an agent of the Claude Code CLI with a prompt, judged by the records that the CLI writes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from orchestr8d.clock import Clock
from orchestr8d.config_sections import ClaudeConfig
from orchestr8d.core.model import AgentSpec, Error, Session, Usage
from orchestr8d.core.outcome import Outcome, failed
from orchestr8d.keeper.program import check_directory, resolve
from orchestr8d.processes import Launch, NotFound, Processes
from orchestr8d.processes.files import create
from orchestr8d.task_runners import Run, steps
from orchestr8d.task_runners.claude import arguments, transcripts, worktree
from orchestr8d.task_runners.claude.arguments import Agent, How
from orchestr8d.task_runners.claude.evidence import Evidence, Wanted, judge, over_budget, sentence, unsaid
from orchestr8d.task_runners.claude.follow import following
from orchestr8d.task_runners.environment import Inherited
from orchestr8d.task_runners.supervise import Ended, Rules, verdict
from orchestr8d.task_runners.words import explained

log = structlog.get_logger(__name__)

# What of the daemon's environment reaches an agent.
ENV_ALLOW: Final = ("HOME", "PATH", "LANG", "USER", "TMPDIR", "XDG_*", "CLAUDE_CONFIG_DIR")
# The CLI's own default can hold a slot for three minutes.
ENV_DEFAULTS: Final = {"CLAUDE_CODE_MAX_RETRIES": "2"}
_INSTALL: Final = (
    "install Claude Code (npm install -g @anthropic-ai/claude-code, or curl -fsSL https://claude.ai/install.sh | bash) "
    "or name its absolute path in [runners.claude] bin"
)

Resolve = Callable[[str, str], Awaitable[Agent]]
Accounts = Callable[[], Mapping[str, Mapping[str, str]]]


def off_reason(environ: Mapping[str, str], settings: ClaudeConfig) -> str | None:
    """Why no agent can run under a daemon with this environment; None when it can."""
    if any(env.get(name) for env in (environ, settings.env) for name in ("HOME", "CLAUDE_CONFIG_DIR")):
        return None
    return (
        "agents are off: the daemon has neither HOME nor CLAUDE_CONFIG_DIR, so the CLI would take a login that nobody "
        "chose; set one of them in its environment or in [runners.claude.env]"
    )


def no_bypass_reason(settings: ClaudeConfig, accounts: Mapping[str, Mapping[str, str]]) -> str | None:
    """Why no agent may bypass permissions; None when one may."""
    if os.geteuid() != 0 or any(env.get("IS_SANDBOX") == "1" for env in (settings.env, *accounts.values())):
        return None
    return 'as root it needs IS_SANDBOX = "1" in [runners.claude.env] or in the account\'s env'


class ClaudeRunner:
    """Runs `claude` tasks. `environ` is the daemon's environment, `worktrees` the directory of isolated agents' trees.

    `resolve` finds an agent by its name and the task's directory, and raises NotFound when it cannot. `accounts` gives
    the variables of each account.
    """

    kind = "claude"

    def __init__(
        self,
        processes: Processes,
        clock: Clock,
        environ: Mapping[str, str],
        settings: Callable[[], ClaudeConfig],
        resolve: Resolve,
        worktrees: Path,
        accounts: Accounts = dict,
    ) -> None:
        self._processes = processes
        self._clock = clock
        self._inherited = Inherited(environ)
        self._settings = settings
        self._resolve = resolve
        self._worktrees = worktrees
        self._accounts = accounts

    async def run(self, run: Run) -> Outcome:
        return await steps.guarded(run, self._run(run))

    async def _run(self, run: Run) -> Outcome:
        asked, session = run.spec.agent, run.session
        if asked is None or session is None:
            return failed("crashed", "internal error: an agent's attempt without an agent or a session")
        outcome = await steps.guarded(run, self._attempt(run, asked, session))
        return await self._settled(run, asked, outcome)

    async def _attempt(self, run: Run, asked: AgentSpec, session: Session) -> Outcome:
        settings = self._settings()
        env = self._env(run, session, settings)
        rules = self._rules(run, settings)
        evidence = Evidence()
        if run.adopted:
            work = steps.adopt(self._processes, self._clock, run, rules)
        else:
            if not (run.spec.prompt or "").strip():
                return failed("invalid_request", "the prompt is empty")
            if (refused := self._refused(asked, session, settings, env)) is not None:
                return refused
            launch = await self._launch(run, asked, session, settings, env)
            work = steps.start(self._processes, self._clock, run, launch, rules)
        async with following(run.files.stdout, evidence, run.progress, self._clock, not run.adopted):
            ended = await work
        outcome = verdict(ended, rules) or await self._judged(run, asked, session, evidence, ended)
        if outcome.status == "completed" and run.spec.check:
            cwd = await self._directory(run, asked)
            checked, ended = await steps.check(self._processes, self._clock, run, cwd, env, rules, ended)
            if checked.status != "completed":
                outcome = msgspec.structs.replace(outcome, status=checked.status, error=checked.error)
        usage = await _usage(asked, session, evidence, ended, env)
        if outcome.status == "interrupted":
            return Outcome(status="interrupted", usage=usage)
        return msgspec.structs.replace(
            outcome,
            exit_code=ended.exit_code,
            signal=ended.signal,
            resources=ended.resources,
            output_bytes=ended.output_bytes,
            files_created=evidence.files,
            usage=usage,
        )

    async def _judged(self, run: Run, asked: AgentSpec, session: Session, evidence: Evidence, ended: Ended) -> Outcome:
        assert ended.exit_code is not None  # else it was interrupted
        capped = arguments.capped(asked, session)
        wanted = Wanted(asked.json_schema is not None, asked.allow_denied, capped, session.account)
        outcome = judge(evidence, ended.exit_code, wanted)
        if evidence.result is not None:
            return outcome
        # What the CLI will not do (a wrong argument, no such agent) it says on stderr only.
        outcome = await explained(outcome, run.files)
        assert outcome.error is not None
        error = Error(outcome.error.kind, sentence(outcome.error.message))
        return msgspec.structs.replace(outcome, error=error)

    async def _launch(
        self, run: Run, asked: AgentSpec, session: Session, settings: ClaudeConfig, env: Mapping[str, str]
    ) -> Launch:
        """Finds what is to be started and writes its files. Raises NotFound."""
        cwd = await self._directory(run, asked)
        await asyncio.to_thread(_check_program, settings.bin, env, cwd)
        agent = await self._resolve(asked.name, run.spec.cwd or "/")
        how = await asyncio.to_thread(_how, asked, session, env)
        call = arguments.call(asked, run.spec.prompt or "", session, agent, how, settings, run.files)
        await asyncio.to_thread(_write, call.files)
        return Launch(run.attempt_id, call.argv, cwd, env, run.files, call.stdin)

    def _env(self, run: Run, session: Session, settings: ClaudeConfig) -> Mapping[str, str]:
        inherited = self._inherited.by(ENV_ALLOW)
        account = self._accounts().get(session.account, {})
        # The account's last: what its login is told of limits is laid to it.
        return {**inherited, **ENV_DEFAULTS, **settings.env, **run.spec.env, **account, **run.env}

    def _rules(self, run: Run, settings: ClaudeConfig) -> Rules:
        limits, spec = run.limits, run.spec
        deadline = None if run.time_left is None else self._clock.monotonic() + run.time_left
        stall = settings.stall_timeout if spec.stall_timeout is None else spec.stall_timeout
        return Rules(limits.output_bytes, limits.grace, spec.timeout, deadline, stall, settings.first_byte_timeout)

    def _refused(
        self, asked: AgentSpec, session: Session, settings: ClaudeConfig, env: Mapping[str, str]
    ) -> Outcome | None:
        """What the CLI would do wrong, or refuse in words that nobody understands."""
        if session.account != "default" and session.account not in self._accounts():
            return failed("not_found", f"there is no account {session.account!r} any more")
        if not (env.get("HOME") or env.get("CLAUDE_CONFIG_DIR")):
            return failed("not_found", "with neither HOME nor CLAUDE_CONFIG_DIR the CLI would take anybody's login")
        mode = asked.permission_mode or settings.permission_mode
        if mode == "bypassPermissions" and os.geteuid() == 0 and env.get("IS_SANDBOX") != "1":
            return failed("denied", 'bypassPermissions as root needs IS_SANDBOX = "1" in [runners.claude.env]')
        most = arguments.may_spend(asked, session)
        if most is None or most > 0:
            return None
        if arguments.capped(asked, session):
            return over_budget(session.account)
        return failed("budget", f"earlier attempts spent all that it may (max_cost_usd {asked.max_cost_usd:g})")

    async def _directory(self, run: Run, asked: AgentSpec) -> str:
        """Where the agent works, made if it is not there. Raises NotFound."""
        cwd = run.spec.cwd or "/"
        if asked.isolation == "none":
            return cwd
        try:
            return await worktree.add(self._worktrees, cwd, run.task_id, asked.resume_from)
        except worktree.NoWorktree as e:
            raise NotFound(f"no worktree: {e}") from e

    async def _settled(self, run: Run, asked: AgentSpec, outcome: Outcome) -> Outcome:
        """With what the agent left in its worktree. One that is gone on with at once stays as it is."""
        if asked.isolation == "none" or outcome.status == "interrupted":
            return outcome
        over = outcome.status != "parked"
        try:
            left = await worktree.settle(self._worktrees, run.spec.cwd or "/", run.task_id, over=over)
        except (worktree.NoWorktree, OSError) as e:
            log.warning("a worktree could not be looked at: it stays", task_id=run.task_id, error=str(e))
            return outcome
        files = outcome.files_created
        if left is None and over:
            gone = f"{self._worktrees / run.task_id}/"
            files = [path for path in files if not path.startswith(gone)]
        return msgspec.structs.replace(outcome, worktree=left, files_created=files)


def _check_program(name: str, env: Mapping[str, str], cwd: str) -> None:
    check_directory(cwd)
    try:
        resolve(name, env.get("PATH", os.defpath), cwd)
    except NotFound as e:
        raise NotFound(f"{e}; {_INSTALL}") from None


def _how(asked: AgentSpec, session: Session, env: Mapping[str, str]) -> How:
    """Raises NotFound when the conversation to begin from is gone."""
    if session.begun:
        if transcripts.begun(env, session.id):
            return "resume"
        transcripts.forget(env, session.id)
    if asked.session_id is None:
        return "new"
    if not transcripts.begun(env, asked.session_id):
        raise NotFound(f"the session {asked.session_id} of the task to resume from is gone, or another account's")
    return "fork"


async def _usage(
    asked: AgentSpec, session: Session, evidence: Evidence, ended: Ended, env: Mapping[str, str]
) -> Usage | None:
    forked = asked.session_id
    if evidence.result is not None:
        return evidence.usage(session, forked is not None)
    if ended.exit_code is None:  # nobody knows how it ended
        return None
    try:
        costs = await asyncio.to_thread(transcripts.costs, env, session.id)
        before = {} if forked is None else await asyncio.to_thread(transcripts.costs, env, forked)
    except OSError:
        return None
    return unsaid(costs, before, session)


def _write(files: Mapping[str, bytes]) -> None:
    for path, data in files.items():
        Path(path).parent.mkdir(0o700, parents=True, exist_ok=True)
        create(path, data)
