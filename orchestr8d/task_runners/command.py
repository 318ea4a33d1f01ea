"""The `command` runner: an argv in a directory with an environment, judged by its exit status and its check."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

import msgspec
import structlog

from orchestr8d.clock import Clock
from orchestr8d.core import redact
from orchestr8d.core.model import Error, Resources
from orchestr8d.core.outcome import Outcome, failed
from orchestr8d.processes import Child, Files, Launch, NotFound, Processes, Unwatched
from orchestr8d.processes.files import CHECK, read, size
from orchestr8d.task_runners import Run, Stop
from orchestr8d.task_runners.supervise import Ended, Rules, left_behind, supervise, verdict

log = structlog.get_logger(__name__)

T = TypeVar("T")
# What of the daemon's environment reaches a command, beside `[runners.command] env_allow`.
ENV_ALLOW = ("PATH", "HOME", "LANG", "LC_*", "USER", "TMPDIR", "TZ", "XDG_*")
# What never does, whatever is allowed: a bundler's traces, the service manager's channels, the daemon's own settings.
ENV_NEVER = (
    "LD_LIBRARY_PATH", "LD_LIBRARY_PATH_ORIG", "_PYI_*", "_MEIPASS*",
    "NOTIFY_SOCKET", "WATCHDOG_*", "LISTEN_*", "ORCHESTR8*",
)  # fmt: skip
# Longer output is a file, not a result.
RESULT_BYTES = 1 << 20
# Up to here a file that was just written is read on the event loop: that is quicker than a thread.
_INLINE_BYTES = 16 << 10
_TAIL_CHARS = 400
# Enough for as many characters, and for secrets in between that are not shown.
_TAIL_BYTES = 4 << 10
_CHECK_PAUSE = 1.0
# The machine is short of something: that is not the task's doing, and it may go better later.
_SHORTAGE = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EAGAIN, errno.EROFS, errno.EIO}
)
_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


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
        self._environ = environ
        self._env_allow = env_allow
        self._patterns: tuple[str, ...] = ()
        self._inherited: Mapping[str, str] = {}

    async def run(self, run: Run) -> Outcome:
        try:
            return await self._run(run)
        except (NotFound, Unwatched, OSError) as e:
            if isinstance(e, NotFound):
                return failed("not_found", str(e))
            if isinstance(e, Unwatched) or e.errno in _SHORTAGE:
                log.warning("attempt could not be run", attempt_id=run.attempt_id, error=str(e))
                return Outcome(status="interrupted")
            return _crashed(run, e)
        except Exception as e:
            return _crashed(run, e)

    async def _run(self, run: Run) -> Outcome:
        spec, limits = run.spec, run.limits
        deadline = None if run.time_left is None else self._clock.monotonic() + run.time_left
        rules = Rules(limits.output_bytes, limits.grace, spec.timeout, deadline, spec.stall_timeout)
        env = {**self._inherit(), **spec.env, **run.env}
        if run.adopted:
            ended = await self._adopt(run, rules)
        else:
            ended = await self._start(run, env, rules)
        outcome = verdict(ended, rules) or _judge(ended)
        if outcome.error is not None and outcome.error.kind in ("exit", "signal"):
            outcome = await _explained(outcome, run.files)
        if outcome.status == "completed" and spec.check:
            outcome, ended = await self._check(run, env, rules, ended)
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

    def _inherit(self) -> Mapping[str, str]:
        """What of the daemon's environment commands get; found anew only after the patterns were reloaded."""
        patterns = (*ENV_ALLOW, *self._env_allow())
        if patterns != self._patterns:
            self._patterns, self._inherited = patterns, allowed(self._environ, patterns)
        return self._inherited

    async def _start(self, run: Run, env: Mapping[str, str], rules: Rules) -> Ended:
        spec = run.spec
        stdin = None if spec.stdin is None else spec.stdin.encode()
        launch = Launch(run.attempt_id, spec.command or [], spec.cwd or "/", env, run.files, stdin)
        child = await self._processes.spawn(launch)
        run.started()
        return await supervise(self._processes, self._clock, child, rules, run.stop)

    async def _adopt(self, run: Run, rules: Rules) -> Ended:
        child: Child | None = await self._processes.adopt(run.attempt_id, run.files)
        if child is not None:
            run.started()
            return await supervise(self._processes, self._clock, child, rules, run.stop)
        ended = left_behind(run.files, rules, self._clock.boot())
        if run.stop.why is not None and ended.exit_code != 0:
            return replace(ended, reason=run.stop.why)
        return ended

    async def _check(self, run: Run, env: Mapping[str, str], rules: Rules, ended: Ended) -> tuple[Outcome, Ended]:
        """The outcome after the task's check, and what both together took."""
        spec = run.spec
        launch = Launch(run.attempt_id, spec.check or [], spec.cwd or "/", env, run.files.step(CHECK), step=CHECK)
        try:
            child = await self._spawn_check(launch, run.stop)
        except (NotFound, OSError) as e:
            return failed("check", f"check: {e}"), ended
        if child is None:
            return Outcome(status=run.stop.why or "interrupted"), ended
        # A check may be silent for long: only the command has to show signs of life.
        rules = replace(rules, stall_timeout=None)
        checked = await supervise(self._processes, self._clock, child, rules, run.stop)
        outcome = verdict(checked, rules) or _judge(checked)
        if outcome.error is not None and outcome.error.kind != "deadline":
            if outcome.error.kind in ("exit", "signal"):
                outcome = await _explained(outcome, launch.files, launch.files.stdout)
            outcome = failed("check", f"check: {outcome.error.message if outcome.error else ''}")
        return outcome, replace(ended, resources=_sum(ended.resources, checked.resources))

    async def _spawn_check(self, launch: Launch, stop: Stop) -> Child | None:
        """Tries on when the machine is short of something: the command has succeeded and shall not run again."""
        while stop.why is None:
            try:
                return await self._processes.spawn(launch)
            except (Unwatched, OSError) as e:
                if isinstance(e, OSError) and e.errno not in _SHORTAGE:
                    raise
                log.warning("check could not be run yet", attempt_id=launch.attempt_id, error=str(e))
                await asyncio.sleep(_CHECK_PAUSE)
        return None


def allowed(environ: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    """What of an environment matches one of the patterns and none of ENV_NEVER."""
    return {
        name: value
        for name, value in environ.items()
        if any(fnmatchcase(name, p) for p in patterns) and not any(fnmatchcase(name, p) for p in ENV_NEVER)
    }


async def read_result(stdout: str, length: int) -> tuple[Literal["json", "text", "file"], bytes | None]:
    """The result's type and body: one JSON document, else UTF-8 text, else (longer than RESULT_BYTES) none."""
    if length > RESULT_BYTES:
        return "file", None
    data = b"" if length == 0 else await _patiently(read, stdout, length)
    if data is None:
        return "file", None
    if len(data) <= _INLINE_BYTES:
        return _typed(data)
    return await asyncio.to_thread(_typed, data)


def _typed(data: bytes) -> tuple[Literal["json", "text"], bytes]:
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "text", data.decode(errors="replace").encode()
    return "json", data.strip()


def _judge(ended: Ended) -> Outcome:
    if ended.exit_code == 0:
        return Outcome(status="completed")
    if ended.signal is not None:
        return failed("signal", f"ended by {ended.signal}")
    return failed("exit", f"exited with code {ended.exit_code}")


async def _explained(outcome: Outcome, files: Files, otherwise: str | None = None) -> Outcome:
    """With the last words on stderr (or, when there are none, in the file `otherwise`) in the message.

    Messages are shown wherever the task is, so without what looks like a secret. The files are left as they are.
    """
    assert outcome.error is not None
    words = await _patiently(_tail, files.stderr, _TAIL_BYTES)
    if not words and otherwise is not None:
        words = await _patiently(_tail, otherwise, _TAIL_BYTES)
    text = _last_lines(redact.text((words or b"").decode(errors="replace")).strip())
    message = f"{outcome.error.message}: {text}" if text else outcome.error.message
    return msgspec.structs.replace(outcome, error=Error(outcome.error.kind, message))


def _last_lines(text: str) -> str:
    """The end of it, from the beginning of a line if there is one."""
    if len(text) <= _TAIL_CHARS:
        return text
    end = text[-_TAIL_CHARS:]
    return end.partition("\n")[2] or end


def _tail(path: str, length: int) -> bytes:
    """Its last bytes, up to `length`, without the torn line or word at their beginning."""
    start = max(0, size(path) - length)
    data = read(path, length, start)
    if start == 0:
        return data
    # What is torn off could be what makes the rest recognizable as a secret.
    return data.partition(b"\n")[2] or data.partition(b" ")[2]


async def _patiently(reader: Callable[[str, int], bytes], path: str, length: int) -> bytes | None:
    """What `reader` reads; None when the file cannot be read, or when descriptors were short for five seconds."""
    for _ in range(50):
        try:
            if length <= _INLINE_BYTES:
                return reader(path, length)
            return await asyncio.to_thread(reader, path, length)
        except OSError as e:
            if e.errno not in _DESCRIPTORS:
                return None
            await asyncio.sleep(0.1)
    return None


def _sum(one: Resources | None, other: Resources | None) -> Resources | None:
    if one is None or other is None:
        return None
    return Resources(one.cpu_seconds + other.cpu_seconds, max(one.max_rss_bytes, other.max_rss_bytes))


def _crashed(run: Run, error: Exception) -> Outcome:
    log.exception("the command runner failed", attempt_id=run.attempt_id)
    return failed("crashed", f"internal error: {type(error).__name__}: {error}")
