"""The steps of an attempt that all runners have: started or found again, watched, checked, never raising."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Mapping
from dataclasses import replace

import structlog

from orchestr8d.clock import Clock
from orchestr8d.core.model import Resources
from orchestr8d.core.outcome import Outcome, failed
from orchestr8d.processes import Child, Launch, NotFound, Processes, Unwatched
from orchestr8d.processes.files import CHECK
from orchestr8d.task_runners import Run, Stop
from orchestr8d.task_runners.supervise import Ended, Rules, left_behind, supervise, verdict
from orchestr8d.task_runners.words import explained

log = structlog.get_logger(__name__)

_CHECK_PAUSE = 1.0
# The machine is short of something: that is not the task's doing, and it may go better later.
_SHORTAGE = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EAGAIN, errno.EROFS, errno.EIO}
)


async def guarded(run: Run, work: Awaitable[Outcome]) -> Outcome:
    """What `work` answers, or what it raises as an outcome; only CancelledError passes."""
    try:
        return await work
    except (NotFound, Unwatched, OSError) as e:
        if isinstance(e, NotFound):
            return failed("not_found", str(e))
        if isinstance(e, Unwatched) or e.errno in _SHORTAGE:
            log.warning("attempt could not be run", attempt_id=run.attempt_id, error=str(e))
            return Outcome(status="interrupted")
        return _crashed(run, e)
    except Exception as e:
        return _crashed(run, e)


async def start(processes: Processes, clock: Clock, run: Run, launch: Launch, rules: Rules) -> Ended:
    """Returns when it is over. Raises as Processes.spawn."""
    child = await processes.spawn(launch)
    run.started()
    return await supervise(processes, clock, child, rules, run.stop)


async def adopt(processes: Processes, clock: Clock, run: Run, rules: Rules) -> Ended:
    """The same for what an earlier daemon started: a living child is watched on, else its files speak."""
    child: Child | None = await processes.adopt(run.attempt_id, run.files)
    if child is not None:
        run.started()
        return await supervise(processes, clock, child, rules, run.stop)
    ended = left_behind(run.files, rules, clock.boot())
    if run.stop.why is not None and ended.exit_code != 0:
        return replace(ended, reason=run.stop.why)
    return ended


def by_status(ended: Ended) -> Outcome:
    """What an exit status says by itself."""
    if ended.exit_code == 0:
        return Outcome(status="completed")
    if ended.signal is not None:
        return failed("signal", f"ended by {ended.signal}")
    return failed("exit", f"exited with code {ended.exit_code}")


async def check(
    processes: Processes, clock: Clock, run: Run, cwd: str, env: Mapping[str, str], rules: Rules, ended: Ended
) -> tuple[Outcome, Ended]:
    """The outcome of the task's check, run in `cwd`, and what it took together with what `ended` before."""
    launch = Launch(run.attempt_id, run.spec.check or [], cwd, env, run.files.step(CHECK), step=CHECK)
    try:
        child = await _spawn_check(processes, launch, run.stop)
    except (NotFound, OSError) as e:
        return failed("check", str(e)), ended
    if child is None:
        return Outcome(status=run.stop.why or "interrupted"), ended
    # A check may be silent for long: only the task itself has to show signs of life.
    rules = replace(rules, stall_timeout=None, first_byte_timeout=None)
    checked = await supervise(processes, clock, child, rules, run.stop)
    outcome = verdict(checked, rules) or by_status(checked)
    error = outcome.error
    if error is not None and error.kind != "deadline":
        if error.kind in ("exit", "signal"):
            error = (await explained(outcome, launch.files, launch.files.stdout)).error or error
        outcome = failed("check", error.message)
    return outcome, replace(ended, resources=_sum(ended.resources, checked.resources))


async def _spawn_check(processes: Processes, launch: Launch, stop: Stop) -> Child | None:
    """Tries on when the machine is short of something: the task has succeeded and shall not run again."""
    while stop.why is None:
        try:
            return await processes.spawn(launch)
        except (Unwatched, OSError) as e:
            if isinstance(e, OSError) and e.errno not in _SHORTAGE:
                raise
            log.warning("check could not be run yet", attempt_id=launch.attempt_id, error=str(e))
            await asyncio.sleep(_CHECK_PAUSE)
    return None


def _sum(one: Resources | None, other: Resources | None) -> Resources | None:
    if one is None or other is None:
        return None
    return Resources(one.cpu_seconds + other.cpu_seconds, max(one.max_rss_bytes, other.max_rss_bytes))


def _crashed(run: Run, error: Exception) -> Outcome:
    log.exception("a runner failed", attempt_id=run.attempt_id)
    return failed("crashed", f"internal error: {type(error).__name__}: {error}")
