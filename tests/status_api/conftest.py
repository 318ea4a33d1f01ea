"""The whole API on a real store, over real sockets; only the pool is a stand-in that ends what it is told to end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from orchestr8d import config
from orchestr8d.agents import Catalogue
from orchestr8d.clock import SystemClock
from orchestr8d.core.model import Executor, Resources
from orchestr8d.core.outcome import Outcome, failed
from orchestr8d.core.submit import AgentRules
from orchestr8d.cron_ticker import CronTicker
from orchestr8d.events import Bus
from orchestr8d.hook_rules import HookRules
from orchestr8d.metrics import Metrics
from orchestr8d.processes.files import attempt_files
from orchestr8d.status_api import hooks, scheduled, workflow_start
from orchestr8d.status_api.app import Services, create_app
from orchestr8d.status_api.route import Route
from orchestr8d.status_api.serving import Runner
from orchestr8d.store.sqlite import SqliteStore, open_store
from orchestr8d.store.types import Claim
from orchestr8d.templates import Templates
from orchestr8d.tokens import TokenKeeper
from orchestr8d.workflow_engine import WorkflowEngine

EXECUTOR = "01900000-0000-7000-8000-000000000001"


class StandIn:
    """A pool whose attempts end only when a test or a cancel says so."""

    slots = 4
    # Whether attempts take no notice of a cancel.
    stubborn = False

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.attempts: dict[str, str] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        return len(self.attempts)

    def attempt_task(self, attempt_id: str) -> str | None:
        return self.attempts.get(attempt_id)

    def cancel(self, task_ids: Sequence[str]) -> None:
        for attempt_id, task_id in list(self.attempts.items()):
            if task_id in task_ids and not self.stubborn:
                ending = asyncio.ensure_future(self.finish(task_id, attempt_id, Outcome(status="cancelled")))
                self._ending.add(ending)

    async def claim(self, free: int = 1) -> list[Claim]:
        claims = (await self._store.claim(EXECUTOR, free)).claims
        for claim in claims:
            self.attempts[claim.attempt.id] = claim.task.id
        return claims

    async def finish(self, task_id: str, attempt_id: str, outcome: Outcome) -> None:
        self.attempts.pop(attempt_id, None)
        await self._store.finish(task_id, attempt_id, EXECUTOR, outcome)


class Api:
    """A server, and an HTTP client that holds the first token."""

    engine: WorkflowEngine
    ticker: CronTicker

    def __init__(self, services: Services, pool: StandIn, state: Path) -> None:
        self.services = services
        self.pool = pool
        self.state = state
        self.config = config.Config()
        self.draining = False
        self.inside: str | None = None
        self.token = (state / "token").read_text().strip()
        self.port = 0
        self.socket = state / "o.sock"
        self.http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def call(self, method: str, path: str, body: object = None, **more: object) -> tuple[int, object]:
        """Status and decoded body."""
        headers = {**self.auth, **more.pop("headers", {})}
        if body is not None:
            more["json"] = body
        async with self.http.request(method, self.url + path, headers=headers, **more) as response:
            if response.content_type.endswith("json"):
                return response.status, await response.json(content_type=None)
            return response.status, await response.read()

    async def submit(self, *command: str, **options: object) -> str:
        status, answer = await self.call("POST", "/api/v1/tasks", {"command": command or ["true"], "options": options})
        assert status in (200, 202), answer
        return answer["task_id"]

    async def run(self, *command: str, stdout: bytes = b"", **options: object) -> tuple[str, str]:
        """Submits a task and starts its attempt, whose output is `stdout` so far."""
        task_id = await self.submit(*command, **options)
        [claim] = await self.pool.claim()
        assert claim.task.id == task_id
        self.write(claim.attempt.id, stdout)
        return task_id, claim.attempt.id

    def write(self, attempt_id: str, data: bytes, stream: str = "stdout") -> None:
        path = Path(f"{self.services.attempt_files(attempt_id).base}.{stream}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab") as file:
            file.write(data)

    async def complete(self, task_id: str, attempt_id: str, result: bytes = b"out", kind: str = "text") -> None:
        outcome = Outcome(
            status="completed", exit_code=0, result=result, result_type=kind, output_bytes=len(result),
            resources=Resources(0.5, 1 << 20),
        )  # fmt: skip
        await self.pool.finish(task_id, attempt_id, outcome)

    async def fail(self, task_id: str, attempt_id: str) -> None:
        await self.pool.finish(task_id, attempt_id, failed("exit", "exited with 3", exit_code=3))

    async def make_token(self, **fields: object) -> str:
        status, answer = await self.call("POST", "/api/v1/tokens", {"name": "t", **fields})
        assert status == 201, answer
        return answer["token"]


@asynccontextmanager
async def running(state: Path, extra_routes: Sequence[Route] = (), **changes: object) -> AsyncIterator[Api]:
    """A served API whose state is in `state`; `changes` are sections of its configuration."""
    state.mkdir(mode=0o700)
    clock, bus, metrics = SystemClock(), Bus(), Metrics()
    api: Api
    async with AsyncExitStack() as stack:
        store = await open_store(state / "o.db", clock=clock, bus=bus, on_commit=metrics.commit)
        stack.push_async_callback(store.close)
        keeper = TokenKeeper(state, clock)
        keeper.load(await store.tokens())
        pool = StandIn(store)
        bus.observe(metrics.observe)
        bus.observe_cancels(pool.cancel)
        now = clock.now()
        await store.register(Executor(EXECUTOR, "here", os.getpid(), "0", now, now, [], 4, 0, "running"))
        rules = HookRules(
            clock, lambda: api.config.hooks, lambda caller, asked: hooks.submit(services, caller, asked), metrics.hook
        )
        engine = WorkflowEngine(
            store, clock, lambda head, node, body: workflow_start.made(services, head, node, body),
            lambda head, node, params: workflow_start.sub_workflow(services, head, node, params),
            lambda attempt_id: Path(attempt_files(state / "attempts", attempt_id).stdout), state / "values",
        )  # fmt: skip
        ticker = CronTicker(store, clock, lambda schedule: scheduled.made(services, schedule))
        services = Services(
            store=store, bus=bus, clock=clock, config=lambda: api.config, tokens=keeper, metrics=metrics, pool=pool,
            hooks=rules, agents=Catalogue(lambda: api.config.agents, clock, state, state / "claude"),
            templates=Templates(lambda: api.config.workflows.paths, state),
            attempt_files=lambda attempt_id: attempt_files(state / "attempts", attempt_id),
            draining=lambda: api.draining, health=lambda: {"status": "ok"}, version="0",
            agent_rules=lambda: AgentRules(accounts=("work",)),
            attempt_of=lambda pid: api.inside, archive_reports=engine.write_down, ticker=ticker,
            config_file=lambda: state / "config.toml",
        )  # fmt: skip
        api = Api(services, pool, state)
        # A test that wants it runs it.
        api.engine, api.ticker = engine, ticker
        api.config = msgspec.structs.replace(api.config, **changes)
        runner = Runner(create_app(services, extra_routes))
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        listening = socket.create_server(("127.0.0.1", 0))
        api.port = listening.getsockname()[1]
        await web.SockSite(runner, listening).start()
        await web.UnixSite(runner, str(api.socket)).start()
        api.http = await stack.enter_async_context(aiohttp.ClientSession())
        yield api


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable]:
    """Starts an API: `await serve(extra_routes=…, server=config_sections.Server(…))`."""
    async with AsyncExitStack() as stack:

        async def start(**more: object) -> Api:
            return await stack.enter_async_context(running(tmp_path / "state", **more))

        yield start


@pytest.fixture
async def api(serve: Callable) -> Api:
    return await serve()
