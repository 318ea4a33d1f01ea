"""Brings notifications to their channels: each channel by itself, so that a dead or slow one holds up no other."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from orchestr8d.clock import Clock
from orchestr8d.core import ladder, notices
from orchestr8d.core.errors import Problem
from orchestr8d.core.notices import NOBODY_SPECIAL, User
from orchestr8d.notifications import Send, Undelivered, sender
from orchestr8d.store import Store
from orchestr8d.store.types import DueNotice, Told

# Seconds before each retry; then it is dead.
LADDER: Final = (5.0, 30.0, 120.0)
# Seconds that one attempt may take, whatever the channel does.
LIMIT: Final = 30.0
# Taken at a time.
MOST: Final = 200
# Seconds until the store is asked again that did not answer, and at the latest: the wall clock may be set.
AGAIN, LONGEST = 5.0, 60.0

# A user and a channel of theirs, by its name.
Line = tuple[str, str]


class Notifier:
    """`users` are those of the configuration, `channels` the kinds by scheme. `http_ladder`: the waits of http(s)."""

    def __init__(
        self, store: Store, clock: Clock, users: Callable[[], Mapping[str, User]], channels: Mapping[str, Send],
        http_ladder: Callable[[], Sequence[float]] = lambda: LADDER, limit: float = LIMIT,
    ) -> None:  # fmt: skip
        self._store = store
        self._clock = clock
        self._users = users
        self._channels = channels
        self._http_ladder = http_ladder
        self._limit = limit
        self._new = asyncio.Event()
        self._working: dict[Line, asyncio.Task[None]] = {}

    def hint(self) -> None:
        """There may be more to do than the last look showed."""
        self._new.set()

    async def run(self) -> None:
        try:
            while True:
                self._new.clear()
                wait: float | None
                try:
                    wait = await self.run_once()
                except Problem as problem:
                    structlog.get_logger().warning("cannot look for notifications", reason=problem.detail)
                    wait = AGAIN
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._new.wait()
        finally:
            for task in self._working.values():
                task.cancel()
            await asyncio.gather(*self._working.values(), return_exceptions=True)

    async def run_once(self) -> float | None:
        """Sets every channel to work that has something due and is free; answers for how long there is no more, None:
        until a hint."""
        due, next_at = await self._store.due_notices(tuple(self._working), MOST)
        lines: dict[Line, list[DueNotice]] = {}
        for one in due:
            lines.setdefault((one.notice.user_id, one.channel), []).append(one)
        for line, of in lines.items():
            task = asyncio.create_task(self._work(line, of), name=f"notify {line[1]}")
            self._working[line] = task
            task.add_done_callback(lambda done, line=line: self._worked(line, done))  # type: ignore[misc]
        if len(due) == MOST:
            return 0.0
        if next_at is None:
            # What a channel at work leaves for later has no other alarm; an idle daemon sleeps.
            return LONGEST if self._working else None
        return min(max(0.0, (next_at - self._clock.now()) / 1000), LONGEST)

    async def idle(self) -> None:
        """Returns when no channel works."""
        while self._working:
            await asyncio.wait(self._working.values())
            await asyncio.sleep(0)

    def _worked(self, line: Line, done: asyncio.Task[None]) -> None:
        del self._working[line]
        if done.cancelled():
            return
        if (error := done.exception()) is None:
            self._new.set()
        else:
            # A defect: at once again it would be the same.
            structlog.get_logger().error("notifications were left for later", channel=line[1], exc_info=error)

    async def _work(self, line: Line, due: Sequence[DueNotice]) -> None:
        """One after the other. Lines of the log are noted together: each by itself would wait for the disk."""
        together = line[1] == "log"
        told: list[Told] = []
        for one in due:
            told.append(await self._tell(one))
            if not together:
                await self._note(told)
                told = []
        if told:
            await self._note(told)

    async def _note(self, told: Sequence[Told]) -> None:
        """What was sent shall not be sent again because the store could not write it down."""
        while True:
            try:
                await self._store.told(told)
                return
            except Problem as problem:
                structlog.get_logger().warning("cannot note what was told", reason=problem.detail)
                await asyncio.sleep(AGAIN)

    async def _tell(self, due: DueNotice) -> Told:
        notice = due.notice
        user = self._users().get(notice.user_id, NOBODY_SPECIAL)
        until = notices.held_until(notice.priority, user, self._clock.now())
        if until is not None:
            return Told(due, "held", until, attempted=False)
        url = notices.named(user.channels).get(due.channel)
        if url is None:
            return Told(due, "dead", error="the configuration has no such channel any more", attempted=False)
        try:
            async with asyncio.timeout(self._limit):
                await sender(self._channels, url)(url, notice)
        except Undelivered as e:
            return self._failed(due, url, e)
        except TimeoutError:
            return self._failed(due, url, Undelivered(f"no answer within {self._limit:g} seconds"))
        except Exception as e:
            structlog.get_logger().exception("a channel failed", channel=due.channel)
            return self._failed(due, url, Undelivered(f"{type(e).__name__}: {e}"))
        return Told(due, "delivered")

    def _failed(self, due: DueNotice, url: str, error: Undelivered) -> Told:
        steps = self._http_ladder() if notices.scheme(url) in ("http", "https") else LADDER
        reason = notices.without_secrets(str(error), url)
        draw = random.random()  # noqa: S311 (spreads retries out, no secret)
        wait = None if error.final else ladder.wait(steps, due.attempts + 1, draw, error.after)
        if wait is None:
            return Told(due, "dead", error=reason)
        return Told(due, "pending", self._clock.now() + round(wait * 1000), reason)
