"""Makes the tasks that are to follow from the ends of others: each exactly once, whatever dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from orchestr8d.core import endings
from orchestr8d.core.errors import Problem
from orchestr8d.core.template_work import TemplateError
from orchestr8d.store import Store
from orchestr8d.store.types import Followup

# So many are made side by side: they share a commit.
STEP: Final = 16
# After each look so many seconds pass, so that many ends cost one look.
REST: Final = 0.1
# What cannot be made for now (the disk is full, its queue is) is tried again after so many seconds.
AGAIN: Final = 1.0
_PASSING: Final = ("unavailable", "rate-limited")

Submit = Callable[[Followup, dict[str, Any]], Awaitable[str | None]]


class Followups:
    """`submit` validates a task whose templates are rendered and submits it in the place of its mark; it answers the
    id, None when it was made already, and raises Problem."""

    def __init__(self, store: Store, submit: Submit) -> None:
        self._store = store
        self._submit = submit
        # Set at first: an earlier daemon may have left some.
        self._hint = asyncio.Event()
        self._hint.set()

    def hint(self) -> None:
        """There may be more to make."""
        self._hint.set()

    async def run(self) -> None:
        while True:
            await self._hint.wait()
            self._hint.clear()
            if await self.run_once():
                await asyncio.sleep(REST)
            else:
                await asyncio.sleep(AGAIN)
                self._hint.set()

    async def run_once(self) -> bool:
        """Makes all that are due; False when some have to be tried again later: after one of them no more are tried
        for its queue, so that a full one costs little, however many wait for it."""
        after = 0
        full: set[str | None] = set()
        try:
            while due := await self._store.followups(after, STEP):
                tried = [one for one in due if _queue(one) not in full]
                made = await asyncio.gather(*[self._make(one) for one in tried])
                full |= {_queue(one) for one, is_made in zip(tried, made, strict=True) if not is_made}
                after = due[-1].seq
        except Problem:
            return False
        return not full

    async def _make(self, due: Followup) -> bool:
        """False when it has to be tried again later."""
        log = structlog.get_logger().bind(task_id=due.task_id, position=due.position)
        try:
            task = endings.seen(await self._store.result(due.task_id))
            # Bounded, but others would feel it.
            asked = await asyncio.to_thread(endings.rendered, due.asked, task)
            made = await self._submit(due, asked)
            if made is not None:
                log.info("a task follows from another's end", followup=made)
            return True
        except TemplateError as error:
            reason = f"its template fails: {error}"
        except Problem as problem:
            if problem.kind in _PASSING:
                return False
            reason = problem.detail
        except Exception as error:
            log.exception("a task that should follow cannot be made")
            reason = f"{type(error).__name__}: {error}"
        log.warning("a task that should follow is not made", reason=reason)
        try:
            await self._store.drop_followup(due, reason)
        except Problem:
            return False
        return True


def _queue(due: Followup) -> str | None:
    queue: str | None = (due.asked.get("options") or {}).get("queue")
    return queue
