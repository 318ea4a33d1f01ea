"""What the API needs of the rest of the daemon, handed over by whoever wires it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from orchestr8d.agents import Catalogue
from orchestr8d.clock import Clock
from orchestr8d.config import Config
from orchestr8d.core import addresses
from orchestr8d.core.schedules import Firing, Schedule
from orchestr8d.core.submit import AgentRules, Policy
from orchestr8d.events import Bus
from orchestr8d.metrics import Metrics
from orchestr8d.processes import Files
from orchestr8d.store import Store
from orchestr8d.store.types import Idempotency
from orchestr8d.templates import Templates
from orchestr8d.tokens import Caller, TokenKeeper


class Pool(Protocol):
    """The attempts that run here."""

    @property
    def slots(self) -> int: ...
    @property
    def running(self) -> int: ...
    def attempt_task(self, attempt_id: str) -> str | None:
        """The task of an attempt that runs here; None otherwise."""
        ...


class Hooks(Protocol):
    """What works on hooks behind their answers."""

    def take(self, hook: Mapping[str, Any], caller: Caller, size: int) -> None: ...


class Ticker(Protocol):
    """What fires schedules."""

    async def trigger(
        self, name: str, answer: Callable[[Firing], bytes], once: Idempotency | None = None
    ) -> tuple[bytes, bool]: ...
    async def change(self, name: str, decide: Callable[[Schedule], Schedule]) -> Schedule: ...


class Waits:
    """Requests that wait for something (long-polls, streams), so that a draining daemon can let go of them all."""

    def __init__(self) -> None:
        self.ended = False
        self._waiting: set[asyncio.Future[None]] = set()
        self._breakable: set[asyncio.Timeout] = set()

    def end(self) -> None:
        """Whoever waits is answered now, and nobody waits from now on. To be called when draining begins."""
        if self.ended:
            return
        self.ended = True
        for ready in self._waiting:
            if not ready.done():
                ready.set_result(None)
        for limit in self._breakable:
            limit.reschedule(0)

    async def until(self, ready: asyncio.Future[None], seconds: float) -> bool:
        """True when `ready` (from the bus) was told, False when the time passed first; at once when draining."""
        if self.ended:
            ready.cancel()
            return False
        self._waiting.add(ready)
        try:
            async with asyncio.timeout(seconds):
                await ready
            return True
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(ready)
            ready.cancel()

    @asynccontextmanager
    async def breakable(self) -> AsyncIterator[None]:
        """What is done in it is broken off with TimeoutError when draining begins: it may wait for a slow client."""
        async with asyncio.timeout_at(0 if self.ended else None) as limit:
            self._breakable.add(limit)
            try:
                yield
            finally:
                self._breakable.discard(limit)


@dataclass
class Services:
    store: Store
    bus: Bus
    clock: Clock
    config: Callable[[], Config]
    tokens: TokenKeeper
    metrics: Metrics
    pool: Pool
    hooks: Hooks
    agents: Catalogue
    templates: Templates
    # Where an attempt's output is.
    attempt_files: Callable[[str], Files]
    draining: Callable[[], bool]
    # `{"status": "ok", …}`; with any other status `/healthz` answers 503.
    health: Callable[[], dict[str, object]]
    version: str
    # What agents may do here.
    agent_rules: Callable[[], AgentRules]
    # Puts reports of workflows that have just ended into the archive: who reads it then misses none.
    archive_reports: Callable[[], Awaitable[None]]
    ticker: Ticker
    # The file that the configuration is read from, if there is one.
    config_file: Callable[[], Path | None]
    # The attempt inside which a process lives, by its pid.
    attempt_of: Callable[[int], str | None]
    waits: Waits = field(default_factory=Waits)
    # Where a task runs that names no directory.
    home: str = field(default_factory=lambda: str(Path.home()))
    _policy: tuple[Config, Policy] | None = None

    def policy(self) -> Policy:
        """What submits are held against, worked out once for each configuration: every one of them asks."""
        config = self.config()
        if self._policy is None or self._policy[0] is not config:
            self._policy = config, Policy(
                config.limits.max_retries, tuple(config.runners.command.allow), "local", self.home,
                self.agent_rules(), addresses.read_allow(config.webhooks.allow),
            )  # fmt: skip
        return self._policy[1]
