"""Runs git for an agent's worktree: without hooks, for a bounded time, and again when another held a lock."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
# Nothing of the repository's or the user's is started by what is done behind their back.
_QUIET: Final = (
    "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
    "-c", "core.filesRefLockTimeout=10000", "-c", "core.packedRefsTimeout=10000", "--no-optional-locks",
)  # fmt: skip
_TRIES: Final = 40
# Another git at work on the same repository; not a name that is taken for good.
_BUSY: Final = re.compile(r"could not lock|cannot lock|Unable to create '.*\.lock'|failed to read .*commondir")
_FOR_GOOD: Final = re.compile(r"exists; cannot create")
_SECONDS: Final = 300.0
_GRACE: Final = 5.0


class NoWorktree(ValueError):
    """Why there is none, or why nothing can be done with it, in a sentence for the user."""


class Git:
    """Runs git, one after the other, in the thread that calls; `stop` ends it from another one.

    Threads, not asyncio's own subprocesses: what is started on the event loop's thread may be taken in by the daemon's
    look at its orphans, and a checkout is for people to read, not under the daemon's umask.
    """

    def __init__(self, environ: Mapping[str, str], ceiling: Path) -> None:
        """`ceiling`: what lies in it is a worktree of its own, or none: no repository is looked for above."""
        self._env = {name: value for name, value in environ.items() if not name.startswith("GIT_")}
        self._env |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_CEILING_DIRECTORIES": str(ceiling)}
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def __call__(self, where: str | Path, *args: str, index: str | None = None) -> str:
        """What it prints. Raises NoWorktree with what it says otherwise."""
        for n in range(_TRIES):
            code, out, said = self._run(where, args, index)
            if code == 0:
                return out
            if not _BUSY.search(said) or _FOR_GOOD.search(said):
                break
            time.sleep(min(0.02 * (n + 1), 0.5))
        raise NoWorktree(_last_line(said) or f"git {args[0]} ended with {code}")

    def says(self, where: str | Path, *args: str) -> str | None:
        """The line that it prints; None when it has none to give."""
        code, out, _ = self._run(where, args, None)
        return out.strip() if code == 0 else None

    def _run(self, where: str | Path, args: tuple[str, ...], index: str | None) -> tuple[int, str, str]:
        if self._stopped:
            raise NoWorktree("broken off")
        env = self._env if index is None else {**self._env, "GIT_INDEX_FILE": index}
        try:
            process = self._process = subprocess.Popen(
                ["git", *_QUIET, "-C", str(where), *args], env=env, umask=0o022, start_new_session=True, text=True,
                errors="replace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )  # fmt: skip
        except FileNotFoundError:
            raise NoWorktree("git is not installed, or not in the daemon's PATH") from None
        if self._stopped:  # asked for while it was started
            process.terminate()
        try:
            out, said = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            self._end(process)
            raise NoWorktree(f"git {args[0]} took more than {_SECONDS:g} seconds") from None
        return process.returncode, out, said

    @staticmethod
    def _end(process: subprocess.Popen[str]) -> None:
        process.terminate()  # it takes its locks away
        try:
            process.communicate(timeout=_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    def stop(self) -> None:
        self._stopped = True
        if self._process is not None:
            self._process.terminate()


def _last_line(said: str) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    named = [line for line in lines if line.startswith(("fatal: ", "error: "))]
    return (named or lines or [""])[-1].removeprefix("fatal: ").removeprefix("error: ")


async def in_thread(git: Git, fn: Callable[Concatenate[Git, P], T], *args: P.args, **more: P.kwargs) -> T:
    """`fn` with this git, which is stopped when we are cancelled."""
    try:
        return await asyncio.to_thread(fn, git, *args, **more)
    except asyncio.CancelledError:
        git.stop()
        raise
