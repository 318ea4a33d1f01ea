"""Moves workflows on where something has to be evaluated, or time has come: templates run beside the loop, outside of
any transaction, and what they come to is applied only if nothing has moved meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from orchestr8d.clock import Clock
from orchestr8d.core import evaluation, report
from orchestr8d.core.errors import Problem
from orchestr8d.core.evaluation import Decided, Due, Found
from orchestr8d.core.model import Error, NewTask
from orchestr8d.core.workflow import Head, NewWorkflow, Node
from orchestr8d.store import Store
from orchestr8d.store.types import Mark

# Nodes that are evaluated at once: they share a thread and a commit.
STEP: Final = 64
# What cannot be done for now is tried again after so many seconds.
AGAIN: Final = 1.0
# Bytes of a result that are read from its file.
_MOST: Final = 8 << 20
_PASSING: Final = ("unavailable", "rate-limited")

Make = Callable[[Head, Node, dict[str, Any]], Awaitable[NewTask]]
Start = Callable[[Head, Node, dict[str, Any]], Awaitable[NewWorkflow]]


class WorkflowEngine:
    """`make` turns a rendered body into a task, `start` the name and parameters of a sub-workflow into one; both raise
    Problem. `stdout` tells where an attempt's output is, `values` is a directory for what is too long for a prompt."""

    def __init__(
        self, store: Store, clock: Clock, make: Make, start: Start, stdout: Callable[[str], Path], values: Path
    ) -> None:
        self._store = store
        self._clock = clock
        self._make = make
        self._start = start
        self._stdout = stdout
        self._values = values
        # Set at first: an earlier daemon may have left something.
        self._hint = asyncio.Event()
        self._hint.set()

    def hint(self) -> None:
        """Something may be due that was not before."""
        self._hint.set()

    async def run(self) -> None:
        while True:
            self._hint.clear()
            delay = await self.run_once(self._clock.now())
            try:
                async with asyncio.timeout(delay):
                    await self._hint.wait()
            except TimeoutError:
                pass

    async def run_once(self, now: int) -> float | None:
        """Does all that is due; answers the seconds until more is, None when nothing waits for time."""
        try:
            next_due = await self._store.wake_workflows()
            while due := await self._store.due_nodes(STEP):
                await self._decide(due)
            await self.write_down()
        except Problem as problem:
            # Mostly the disk is full, or the daemon is about to stop.
            if problem.kind not in _PASSING:
                structlog.get_logger().exception("workflows do not get on")
            return AGAIN
        return None if next_due is None else max(0.0, (next_due - now) / 1000)

    # -- nodes

    async def _decide(self, due: Sequence[Due]) -> None:
        found = await asyncio.to_thread(self._evaluate, due)
        # To the end of each, whatever becomes of the others.
        done = await asyncio.gather(
            *[self._decided(one, answer) for one, answer in zip(due, found, strict=True)], return_exceptions=True
        )
        for error in done:
            if error is not None:
                raise error

    async def _decided(self, due: Due, found: Found) -> None:
        answer = await self._finish(due, found)
        await self._store.decided(Decided.of(due, answer))

    def _evaluate(self, due: Sequence[Due]) -> list[Found]:
        return [evaluation.evaluate(self._with_files(one), lambda text, one=one: self._spill(one, text)) for one in due]  # type: ignore[misc]

    async def _finish(self, due: Due, found: Found) -> Found:
        """What needs more than templates: agents, sub-workflows."""
        try:
            if found.body is not None:
                found.new = await self._make(due.head, due.node, found.body)
            elif found.params is not None:
                found.sub = await self._start(due.head, due.node, found.params)
        except Problem as problem:
            if problem.kind in _PASSING:
                raise
            why = "; ".join(f"{fault.path}: {fault.message}" for fault in problem.faults) or problem.detail
            return Found(error=Error("template", why))
        except Exception as error:
            structlog.get_logger().exception("a task of a workflow cannot be made", task=due.node.id)
            return Found(error=Error("template", f"{type(error).__name__}: {error}"))
        return found

    def _with_files(self, due: Due) -> Due:
        """Where the results of others are, and those that are in a file only."""
        wanted = "result_file" in due.node.rule
        for seen in due.tasks.values():
            attempt_id, is_long = seen.pop("attempt_id", None), seen.pop("is_long", False)
            # What an agent said is no file yet, and neither is a list.
            is_stdout = attempt_id is not None and seen["exit_code"] is not None and not seen["usage"]["num_turns"]
            file = self._stdout(attempt_id) if is_stdout and (is_long or isinstance(seen["result"], str)) else None
            if file is not None and is_long:
                seen["result"] = _text(file)
            if wanted and (file is not None or seen["result"] is not None):
                seen["result_file"] = self._spill(due, seen["result"]) if file is None else str(file)
        return due

    def _spill(self, due: Due, value: Any) -> str:
        """A file with what is too long for a prompt; the same text has one file."""
        data = (value if isinstance(value, str) else "\n".join(map(str, value))).encode()
        folder = self._values / due.head.id
        path = folder / f"{hashlib.sha256(data).hexdigest()[:32]}.txt"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".new")
            draft.write_bytes(data)
            os.replace(draft, path)  # noqa: PTH105 (says that it replaces)
        return str(path)

    # -- what is written of workflows

    async def write_down(self) -> None:
        """Milestones that were reached, and reports for the archive."""
        after = 0
        while marks := await self._store.marks(after, STEP):
            for mark in marks:
                await self._write(mark)
                after = mark.seq

    async def _write(self, mark: Mark) -> None:
        if mark.what == "milestone":
            due = await self._store.marked(mark)
            text = "" if due is None else await asyncio.to_thread(evaluation.milestone, self._with_files(due))
            await self._store.reached(mark, text)
            return
        view = await self._store.workflow_view(mark.workflow_id, results=True)
        await self._store.keep_report(mark, await asyncio.to_thread(report.markdown, view))


def _text(stdout: Path) -> str | None:
    """A result as templates see it, from its file; None when that is gone, or too much to be read."""
    try:
        if stdout.stat().st_size > _MOST:
            return None
        return stdout.read_bytes().decode(errors="replace").removesuffix("\n")
    except OSError:
        return None
