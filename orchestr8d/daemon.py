"""The daemon: the only place that wires things together; start and stop in their order, signals, reload."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import structlog
import uvloop
from aiohttp import web

from orchestr8d import __version__, applying, assembly, config, log, maintenance, systemd
from orchestr8d.agents import Catalogue
from orchestr8d.clock import SystemClock
from orchestr8d.config import Config
from orchestr8d.config_values import address
from orchestr8d.core import addresses
from orchestr8d.core.errors import Problem
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import Executor
from orchestr8d.cron_ticker import CronTicker
from orchestr8d.events import Bus
from orchestr8d.followups import Followups
from orchestr8d.hook_rules import HookRules
from orchestr8d.metrics import Metrics
from orchestr8d.notifications import channels
from orchestr8d.notifier import Notifier
from orchestr8d.outgoing import Outgoing
from orchestr8d.priority_queue import PriorityQueue
from orchestr8d.processes import Files, Processes
from orchestr8d.processes.files import attempt_files
from orchestr8d.state import Held, hold
from orchestr8d.status_api import hooks as hooks_api
from orchestr8d.status_api import scheduled, workflow_start
from orchestr8d.status_api import submit as submit_api
from orchestr8d.status_api.app import create_app
from orchestr8d.status_api.services import Services
from orchestr8d.status_api.serving import Runner
from orchestr8d.store import Store
from orchestr8d.store.sqlite import corrupts_wal, open_store
from orchestr8d.store.types import Claim
from orchestr8d.task_pool import TaskPool
from orchestr8d.task_runners import Limits as RunLimits
from orchestr8d.task_runners import Runner as TaskRunner
from orchestr8d.tokens import TokenKeeper, webhook_secret
from orchestr8d.webhook_dispatcher import SignedPosts, WebhookDispatcher
from orchestr8d.workflow_engine import WorkflowEngine

SOCKET = "orchestr8d.sock"
# A Unix socket's path has to fit into sockaddr_un.
MAX_SOCKET_PATH = 107
# Seconds that outcomes and answers under way have when the daemon stops and leaves its children alone.
PATIENCE = 3.0
# And connections whose other end takes nothing, after that.
LINGER = 1.0


class CannotStart(Exception):
    """Why the daemon does not start, as a sentence for a person."""


def serve(config_path: Path | None, *, log_format: str | None = None, ready_fd: int | None = None) -> int:
    """Runs the daemon until a signal ends it; answers the exit code. Raises ConfigError for a faulty configuration."""
    environ = dict(os.environ)
    os.umask(0o077)
    path = config.find(config_path, environ)
    settings = config.load(path, environ)
    state = config.state_dir(environ)
    logs = log.configure(settings.log.level, log_format or settings.log.format, environ=environ)
    try:
        with hold(state, config.store_path(settings, state)):
            daemon = Daemon(settings, path, state, environ, logs)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(daemon.run(ready_fd))
    except Held as e:
        print(f"orchestr8d: {e}: there is one already", file=sys.stderr)
        return 1
    except CannotStart as e:
        print(f"orchestr8d: {e}", file=sys.stderr)
        return 1
    except (Problem, OSError, sqlite3.Error) as e:
        return _cannot_start(e)
    except RuntimeError as e:
        # Without descriptors for it the event loop does not run, and cannot be closed either, which hides why.
        reason = e.__context__
        while reason is not None and not isinstance(reason, OSError):
            reason = reason.__context__
        if reason is None:
            raise
        return _cannot_start(reason)


def _cannot_start(reason: Exception) -> int:
    print(f"orchestr8d: cannot start: {reason}", file=sys.stderr)
    return 1


class Daemon:
    """Everything that lives as long as the process does."""

    def __init__(
        self, settings: Config, path: Path | None, state: Path, environ: Mapping[str, str], logs: log.Logs
    ) -> None:
        self.config = settings
        self._path = path
        self._state = state
        self._environ = environ
        self._logs = logs
        self._clock = SystemClock()
        self._executor_id = uuid7(self._clock.now())
        self._notify = systemd.Notifier(environ, self._clock.monotonic)
        self._log = structlog.get_logger()
        self._draining = False
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        # Set as soon as there is something to reload, and something to give a free slot to.
        self._reload: Callable[[], None] | None = None
        self._on_free: Callable[[], None] = lambda: None
        self._bound = f"http://{settings.server.listen}"
        # Why the store cannot write, as of the last heartbeat.
        self._ill = ""

    async def run(self, ready_fd: int | None) -> int:
        self._listen_to_signals()
        descriptors = _raise_descriptor_limit()
        bus, metrics = Bus(), Metrics()
        bus.observe(metrics.observe)
        bus.observe(log.transitions(self._logs))
        store = await open_store(
            config.store_path(self.config, self._state),
            clock=self._clock,
            bus=bus,
            limits=assembly.store_limits(self.config),
            synchronous=self.config.store.synchronous,
            on_commit=metrics.commit,
        )
        processes = Processes(self._clock, descriptors)
        try:
            await processes.prepare()
            return await self._serve(store, bus, metrics, processes, ready_fd)
        finally:
            await processes.close()
            await store.close()

    async def _serve(
        self, store: Store, bus: Bus, metrics: Metrics, processes: Processes, ready_fd: int | None
    ) -> int:
        tokens = TokenKeeper(self._state, self._clock)
        tokens.load(await store.tokens())
        agents = assembly.catalogue(self._environ, lambda: self.config, self._clock)
        pool = self._make_pool(store, processes, tokens, agents)
        queue = PriorityQueue(store, self._clock, self._executor_id, pool.free, pool.claimed)
        self._on_free = queue.freed
        indexer = maintenance.TextIndexer(store)
        bus.observe(queue.observe)
        bus.observe(indexer.observe)
        bus.observe_cancels(pool.cancel)
        await self._register(store)
        await applying.queues(store, self.config)
        await self._adopt(store, processes, pool)

        rules = HookRules(
            self._clock, lambda: self.config.hooks, lambda caller, asked: hooks_api.submit(services, caller, asked),
            metrics.hook,
        )  # fmt: skip
        followups = Followups(store, lambda due, asked: submit_api.follow_up(services, due, asked))
        bus.observe_work("followups", followups.hint)
        values = self._state / "values"
        engine = WorkflowEngine(
            store, self._clock, lambda head, node, body: workflow_start.made(services, head, node, body),
            lambda head, node, params: workflow_start.sub_workflow(services, head, node, params),
            lambda attempt_id: Path(self._attempt_files(attempt_id).stdout), values,
        )  # fmt: skip
        bus.observe_work("workflows", engine.hint)
        ticker = CronTicker(store, self._clock, lambda schedule: scheduled.made(services, schedule))
        bus.observe_work("schedules", ticker.hint)
        outgoing = Outgoing(lambda: addresses.read_allow(self.config.webhooks.allow))
        own_secret = webhook_secret(self._state)
        dispatcher = WebhookDispatcher(
            store, self._clock, outgoing, own_secret, lambda: self.config.webhooks.timeout
        )  # fmt: skip
        bus.observe_work("deliveries", dispatcher.hint)
        notifier = Notifier(
            store, self._clock, lambda: store.limits.users,
            channels(SignedPosts(self._clock, outgoing, own_secret, lambda: self.config.webhooks.timeout)),
            lambda: self.config.webhooks.callback_ladder,
        )  # fmt: skip
        bus.observe_work("notices", notifier.hint)
        services = Services(
            store=store, bus=bus, clock=self._clock, config=lambda: self.config, tokens=tokens, metrics=metrics,
            pool=pool, hooks=rules, agents=agents, attempt_files=self._attempt_files,
            templates=assembly.templates(self._environ, lambda: self.config),
            draining=lambda: self._draining, health=self._health,
            version=__version__, attempt_of=processes.attempt_of,
            archive_reports=engine.write_down,
            agent_rules=lambda: assembly.agent_rules(self.config, self._environ),
            ticker=ticker, config_file=lambda: config.find(self._path, self._environ),
        )  # fmt: skip
        site = Runner(create_app(services), shutdown_timeout=LINGER)
        await site.setup()
        try:
            where = await self._listen(site)
            beat = self._make_beat(store, queue, pool, ticker)
            self._reload = lambda: self._aside(self._apply_config(store, beat, ticker, services))
            await applying.schedules(ticker, self.config)
            self._aside(applying.doubts(services, self.config))
            # The configuration may say something else than when they were parked.
            self._aside(applying.recheck_budgets(store))

            loops: list[Coroutine[Any, Any, None]] = [
                store.watch(), pool.watch(), queue.run(), pool.run(), rules.run(), followups.run(), indexer.run(),
                dispatcher.run(), notifier.run(), engine.run(), ticker.run(),
                maintenance.heartbeat(beat),
                maintenance.Pruner(store, lambda: assembly.retention(self.config), self._attempt_files, values).run(),
            ]  # fmt: skip
            if self._notify.watchdog_interval is not None:
                loops.append(maintenance.watchdog(self._notify.watchdog_interval, self._notify.watchdog))
            self._tell_ready(where, ready_fd)
            return await self._until_stopped(loops, store, queue, pool, services, site)
        finally:
            await site.cleanup()
            await outgoing.close()

    # -- start

    def _make_pool(self, store: Store, processes: Processes, tokens: TokenKeeper, agents: Catalogue) -> TaskPool:
        def env(claim: Claim) -> Mapping[str, str]:
            return {
                "ORCHESTR8_URL": self.config.server.base_url or self._bound,
                "ORCHESTR8_TOKEN": tokens.attempt_token(claim.attempt.id),
                "ORCHESTR8_TASK_ID": claim.task.id,
                "ORCHESTR8_TASK": claim.task.local_id or "",
                "ORCHESTR8_WORKFLOW_ID": claim.task.workflow_id or "",
                "ORCHESTR8_ATTEMPT": str(claim.attempt.number),
                "ORCHESTR8_ATTEMPT_ID": claim.attempt.id,
            }

        return TaskPool(
            store, self._clock, self._executor_id, self._make_runners(processes, agents), self._attempt_files, env,
            limits=lambda: RunLimits(self.config.executor.grace, self.config.limits.output_bytes),
            slots=lambda: self.config.executor.concurrency,
            on_free=lambda: self._on_free(),
        )  # fmt: skip

    def _make_runners(self, processes: Processes, agents: Catalogue) -> Mapping[str, TaskRunner]:
        return assembly.runners(
            processes, self._clock, self._environ, lambda: self.config, agents, self._state / "worktrees"
        )

    def _attempt_files(self, attempt_id: str) -> Files:
        return attempt_files(self._state / "attempts", attempt_id)

    async def _register(self, store: Store) -> None:
        if corrupts_wal(sqlite3.sqlite_version_info[:3]):
            self._log.warning(
                "this SQLite can corrupt a database that two programs write at once: let nothing but orchestr8d "
                "write to it, or install 3.51.3 or newer", sqlite=sqlite3.sqlite_version,
            )  # fmt: skip
        else:
            self._log.info("store is open", sqlite=sqlite3.sqlite_version)
        now = self._clock.now()
        labels, slots = self.config.executor.labels, self.config.executor.concurrency
        await store.register(
            Executor(self._executor_id, socket.gethostname(), os.getpid(), __version__, now, now, labels, slots, 0,
                     "running")
        )  # fmt: skip

    async def _adopt(self, store: Store, processes: Processes, pool: TaskPool) -> None:
        """Settles what an earlier daemon left running: living children go on here, the rest is finished or queued."""
        claims = await store.running()
        if not claims:
            return
        found = await processes.scan({claim.attempt.id: self._attempt_files(claim.attempt.id) for claim in claims})
        await store.adopt(self._executor_id, [claim.attempt.id for claim in claims])
        for claim in claims:
            claim.attempt.executor_id = self._executor_id
            pool.start(claim, adopted=True)
        alive = sum(1 for entry in found.values() if entry.leader is not None)
        self._log.info("attempts of an earlier daemon", found=len(claims), alive=alive)

    async def _listen(self, site: Runner) -> list[str]:
        """Opens TCP and the socket; answers where."""
        host, port = address(self.config.server.listen)
        try:
            tcp = web.TCPSite(site, host, port)
            await tcp.start()
        except OSError as e:
            raise CannotStart(f"cannot listen on {self.config.server.listen} ([server] listen): {e.strerror}") from e
        where = [f"http://{_shown(*addr[:2])}" for addr in site.addresses if isinstance(addr, tuple)]
        if port == 0:
            self._bound = where[0]
        path = Path(self.config.server.socket or self._state / SOCKET)
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            self._log.warning("no Unix socket: its path is too long ([server] socket sets another)", path=str(path))
        else:
            if path.exists() and not path.is_socket():
                raise CannotStart(f"{path} is no socket: it is left alone ([server] socket sets another path)")
            path.unlink(missing_ok=True)
            await web.UnixSite(site, path).start()
            where.append(str(path))
        return where

    def _tell_ready(self, where: list[str], ready_fd: int | None) -> None:
        _spare_the_collector()
        self._log.info("ready", listen=where, state=str(self._state), version=__version__, pid=os.getpid())
        self._notify.ready(f"Serving on {where[0]}")
        if ready_fd is not None:
            with contextlib.suppress(OSError):
                os.write(ready_fd, b"READY\n")
                os.close(ready_fd)
        if sys.stdout.isatty():
            print(_welcome(where[0], self._state), flush=True)

    # -- while it runs

    def _make_beat(
        self, store: Store, queue: PriorityQueue, pool: TaskPool, ticker: CronTicker
    ) -> Callable[[], Awaitable[None]]:
        async def beat() -> None:
            queue.hint()
            # The clock may have been set, or the machine have slept.
            ticker.hint()
            state = "draining" if self._draining else "running"
            try:
                await store.heartbeat(self._executor_id, pool.slots, pool.running, state)
                self._ill = ""
            except Problem as problem:
                self._ill = problem.detail
                raise

        return beat

    def _health(self) -> dict[str, object]:
        if self._ill:
            return {"status": "ill", "reason": self._ill, "version": __version__}
        return {"status": "draining" if self._draining else "ok", "version": __version__}

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()

        def stop() -> None:
            (self._hurry if self._stop.is_set() else self._stop).set()

        self._reloads: set[asyncio.Task[None]] = set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_hangup(self) -> None:
        if self._reload is not None:
            self._reload()

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _apply_config(
        self, store: Store, beat: Callable[[], Awaitable[None]], ticker: CronTicker, services: Services
    ) -> None:
        self._notify.reloading()
        try:
            new = config.load(config.find(self._path, self._environ), self._environ)
            applied, restart = config.changed(self.config, new)
            before, self.config = self.config, config.reloaded(self.config, new)
            self._logs.set_level(self.config.log.level)
            await applying.change(store, before, self.config)
            await applying.schedules(ticker, self.config)
            self._aside(applying.doubts(services, self.config))
            await beat()
            # What the file no longer says of a queue stays as it was: it may have been set over the API since.
            kept = [key for key in applied if key.startswith("queues.") and applying.is_unset(self.config, key)]
            applied = [key for key in applied if key not in kept]
            self._log.info("configuration was reloaded", applied=applied, kept=kept, needs_restart=restart)
        except config.ConfigError as e:
            self._log.error("configuration was not reloaded: it has faults", faults=str(e).splitlines())
        except Problem as problem:
            self._log.error("configuration was reloaded in part", reason=problem.detail)
        finally:
            self._notify.ready()

    # -- stop

    async def _until_stopped(
        self, loops: list[Coroutine[Any, Any, None]], store: Store, queue: PriorityQueue, pool: TaskPool,
        services: Services, site: Runner,
    ) -> int:  # fmt: skip
        """Runs the loops until a signal, then drains. One that dies takes the daemon with it, loudly."""
        running = [asyncio.create_task(loop) for loop in loops]
        stop = asyncio.create_task(self._stop.wait())
        try:
            done, _ = await asyncio.wait([*running, stop], return_when=asyncio.FIRST_COMPLETED)
            dead = [task for task in done if task is not stop]
            for task in dead:
                self._log.critical("a loop has ended: the daemon stops", exc_info=task.exception())
            drain = asyncio.create_task(self._drain(store, queue, pool, services, site))
            hurry = asyncio.create_task(self._hurry.wait())
            await asyncio.wait([drain, hurry], return_when=asyncio.FIRST_COMPLETED)
            if not drain.done():
                self._log.warning("stopping at once: children that are left will be adopted at the next start")
                drain.cancel()
                await pool.detach(0.0)
            hurry.cancel()
            await asyncio.gather(drain, return_exceptions=True)
            return 1 if dead else 0
        finally:
            for task in (stop, *running):
                task.cancel()
            await asyncio.gather(stop, *running, return_exceptions=True)

    async def _drain(
        self, store: Store, queue: PriorityQueue, pool: TaskPool, services: Services, site: Runner
    ) -> None:
        """Nothing new is admitted; children are left or ended; what is in flight is answered."""
        self._draining = True
        self._notify.stopping("Draining")
        queue.close()
        services.waits.end()
        job = await systemd.pending_job(self._environ)
        ends = job == "stop" if job is not None else self.config.executor.children == "stop"
        self._log.info("stopping", children="stop" if ends else "keep", running=pool.running)
        with contextlib.suppress(Problem):
            await store.heartbeat(self._executor_id, pool.slots, pool.running, "draining")
        if ends:
            await pool.stop()
        else:
            await pool.detach(PATIENCE)
        await site.cleanup()
        with contextlib.suppress(Problem):
            await store.heartbeat(self._executor_id, pool.slots, 0, "stopped")
        self._log.info("stopped")


def _spare_the_collector() -> None:
    """What is alive after the start stays for good, and a request leaves hardly a cycle behind: looking for garbage as
    often as by default took a sixth of each submit."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _raise_descriptor_limit() -> int:
    """Connections and children need descriptors. Answers the soft limit that was set, for the children: it is often
    1024 for the sake of old programs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return soft


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _welcome(url: str, state: Path) -> str:
    return f"""
orchestr8d {__version__} listens on {url}

A first task, in another terminal:

  orchestr8d submit --wait -- echo "hello from the background"

or with curl:

  curl -H @{state}/auth-header -H 'Content-Type: application/json' \\
    {url}/api/v1/tasks -d '{{"command": ["echo", "hello from the background"]}}'

Ctrl-C stops the daemon; tasks that run go on and are found again at the next start.
"""
