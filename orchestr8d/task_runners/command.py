"""The `command` runner: an argv in a directory with an environment, judged by its exit status and its check."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from orchestr8d.clock import Clock
from orchestr8d.core.outcome import Outcome
from orchestr8d.processes import Launch, Processes
from orchestr8d.processes.files import read
from orchestr8d.task_runners import Run, steps
from orchestr8d.task_runners.environment import Inherited
from orchestr8d.task_runners.supervise import Rules, verdict
from orchestr8d.task_runners.words import INLINE_BYTES, explained, patiently

# What of the daemon's environment reaches a command, beside `[runners.command] env_allow`.
ENV_ALLOW = ("PATH", "HOME", "LANG", "LC_*", "USER", "TMPDIR", "TZ", "XDG_*")
# Longer output is a file, not a result.
RESULT_BYTES = 1 << 20


class CommandRunner:
    """Runs `command` tasks. `environ` is the daemon's environment, `env_allow` gives patterns of names to pass on."""

    kind = "command"

    def __init__(
        self,
        processes: Processes,
        clock: Clock,
        environ: Mapping[str, str],
        env_allow: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._processes = processes
        self._clock = clock
        self._inherited = Inherited(environ)
        self._env_allow = env_allow

    async def run(self, run: Run) -> Outcome:
        return await steps.guarded(run, self._run(run))

    async def _run(self, run: Run) -> Outcome:
        spec, limits = run.spec, run.limits
        deadline = None if run.time_left is None else self._clock.monotonic() + run.time_left
        rules = Rules(limits.output_bytes, limits.grace, spec.timeout, deadline, spec.stall_timeout)
        env = {**self._inherited.by((*ENV_ALLOW, *self._env_allow())), **spec.env, **run.env}
        cwd = spec.cwd or "/"
        if run.adopted:
            ended = await steps.adopt(self._processes, self._clock, run, rules)
        else:
            stdin = None if spec.stdin is None else spec.stdin.encode()
            launch = Launch(run.attempt_id, spec.command or [], cwd, env, run.files, stdin)
            ended = await steps.start(self._processes, self._clock, run, launch, rules)
        outcome = verdict(ended, rules) or steps.by_status(ended)
        if outcome.error is not None and outcome.error.kind in ("exit", "signal"):
            outcome = await explained(outcome, run.files)
        if outcome.status == "completed" and spec.check:
            outcome, ended = await steps.check(self._processes, self._clock, run, cwd, env, rules, ended)
        if outcome.status == "interrupted":
            return outcome
        kind, result = await read_result(run.files.stdout, ended.stdout_bytes)
        return msgspec.structs.replace(
            outcome,
            exit_code=ended.exit_code,
            signal=ended.signal,
            result_type=kind,
            result=result,
            resources=ended.resources,
            output_bytes=ended.output_bytes,
        )


async def read_result(stdout: str, length: int) -> tuple[Literal["json", "text", "file"], bytes | None]:
    """The result's type and body: one JSON document, else UTF-8 text, else (longer than RESULT_BYTES) none."""
    if length > RESULT_BYTES:
        return "file", None
    data = b"" if length == 0 else await patiently(read, stdout, length)
    if data is None:
        return "file", None
    if len(data) <= INLINE_BYTES:
        return _typed(data)
    return await asyncio.to_thread(_typed, data)


def _typed(data: bytes) -> tuple[Literal["json", "text"], bytes]:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "text", data.decode(errors="replace").encode()
    return "json", data.strip()
