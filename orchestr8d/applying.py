"""What a configuration says becomes so, at the start of the daemon and when it is reloaded."""

from __future__ import annotations

import contextlib

import structlog

from orchestr8d import assembly
from orchestr8d.config import Config
from orchestr8d.core.errors import Problem
from orchestr8d.cron_ticker import CronTicker
from orchestr8d.status_api import scheduled
from orchestr8d.status_api.services import Services
from orchestr8d.store import Store


async def queues(store: Store, settings: Config) -> None:
    """What is said of queues wins over what was set over the API."""
    for name, said in settings.queues.items():
        change = {"limit": said.limit, "rate": said.rate, "paused": said.paused}
        await store.put_queue(name, {key: value for key, value in change.items() if value is not None})


async def schedules(ticker: CronTicker, settings: Config) -> None:
    """Schedules of the configuration become what it says."""
    log = structlog.get_logger()
    try:
        done = await ticker.reconcile(assembly.schedules(settings))
    except Problem as problem:
        log.error("schedules of the configuration are as they were", reason=problem.detail)
        return
    if done.added or done.changed or done.removed:
        log.info("schedules of the configuration", added=done.added, changed=done.changed, removed=done.removed)


async def doubts(services: Services, settings: Config) -> None:
    """Tells of schedules whose agent or template is not there."""
    for said in settings.schedules:
        if faults := await scheduled.doubts(services, said):
            structlog.get_logger().warning(
                "a schedule starts nothing as things are", schedule=said.name, faults=faults
            )


async def change(store: Store, before: Config, after: Config) -> None:
    """What else of the store follows from another configuration. Raises Problem."""
    store.limits = assembly.store_limits(after)
    await queues(store, after)
    if before.limits.per_key != after.limits.per_key:
        await store.rewindow()
    await store.open_account(None)
    if before.budgets != after.budgets:
        await recheck_budgets(store)
    if before.users != after.users:
        await store.recheck_held()


async def recheck_budgets(store: Store) -> None:
    """Tasks that the budgets of now would let go, go."""
    after: int | None = 0
    with contextlib.suppress(Problem):
        while after is not None:
            after = await store.recheck_budgets(after)


def is_unset(settings: Config, key: str) -> bool:
    """Whether the configuration says nothing of this setting of a queue (`queues.NAME.limit`)."""
    _, _, rest = key.partition(".")
    name, _, setting = rest.rpartition(".")
    said = settings.queues.get(name)
    return said is None or getattr(said, setting) is None
