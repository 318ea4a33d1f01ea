"""What the store's verbs take and answer, beside the words of the domain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from orchestr8d.core.budgets import Budget
from orchestr8d.core.delivery import Delivery as WebhookDelivery
from orchestr8d.core.delivery import DeliveryStatus, Webhook
from orchestr8d.core.governor import Account
from orchestr8d.core.model import (
    Attempt,
    Session,
    Task,
)
from orchestr8d.core.notices import Notice, Status, User


class Idempotency(msgspec.Struct, frozen=True):
    """A creating request that may be sent twice: per `scope` (token and route) and `key`, same `digest` of the body."""

    scope: str
    key: str
    digest: str


class Created(msgspec.Struct):
    """What a creating verb answers. `replayed`: an earlier request's answer, of which `body` is the first answer."""

    tasks: list[Task]
    body: bytes
    replayed: bool = False
    # With on_conflict=existing: an unfinished task was there already (index by index of what was submitted).
    existing: bool = False


class Claim(msgspec.Struct):
    """A task that this executor shall run now; its attempt's row is on disk."""

    task: Task
    attempt: Attempt
    # Of an agent.
    session: Session | None = None


class Claimed(msgspec.Struct):
    claims: list[Claim]
    # Wall-clock milliseconds at which `claim` may find more without a hint; None when nothing is due.
    next_due: int | None


class TaskFilter(msgspec.Struct, frozen=True):
    """All must match. `after` is a cursor: only tasks older than it."""

    status: Sequence[str] = ()
    agent: str | None = None
    tags: Sequence[str] = ()
    workflow_id: str | None = None
    schedule_id: str | None = None
    queue: str | None = None
    user_id: str | None = None
    q: str | None = None
    # The last characters of an id, as a person types them.
    tail: str | None = None


class EventFilter(msgspec.Struct, frozen=True):
    """All must match; `types` may end in `*`."""

    types: Sequence[str] = ()
    task_id: str | None = None
    workflow_id: str | None = None
    user_id: str | None = None


class Followup(msgspec.Struct, frozen=True):
    """A task that is to follow from the end of `task_id`: the one at `position` of those that it asked for, as it was
    written."""

    seq: int
    task_id: str
    position: int
    asked: dict[str, Any]


class NoticeFilter(msgspec.Struct, frozen=True):
    """All must match. `unread`: those that were not acknowledged."""

    user_id: str | None = None
    workflow_id: str | None = None
    types: Sequence[str] = ()
    unread: bool = False


class DueNotice(msgspec.Struct, frozen=True):
    """A notice that shall go to a channel now; `attempts` were made before."""

    notice: Notice
    position: int
    channel: str
    attempts: int


class Told(msgspec.Struct, frozen=True):
    """What became of a due notice: `pending` and `held` until `next_at`. `attempted`: that it was tried."""

    due: DueNotice
    status: Status
    next_at: int | None = None
    error: str | None = None
    attempted: bool = True


class DeliveryFilter(msgspec.Struct, frozen=True):
    """All must match; `since` is wall-clock milliseconds."""

    status: DeliveryStatus | None = None
    webhook_id: str | None = None
    task_id: str | None = None
    since: int | None = None
    user_id: str | None = None


class Busy(msgspec.Struct):
    """What of an endpoint is under way: the ids of its deliveries, and how many of them for the first time."""

    ids: set[str] = set()
    fresh: int = 0


class Sending(msgspec.Struct):
    """A delivery that is to be tried now, its body, and the subscription that it is for (None: a callback)."""

    delivery: WebhookDelivery
    body: bytes
    webhook: Webhook | None


class DueDeliveries(msgspec.Struct):
    found: list[Sending]
    # Wall-clock milliseconds at which there may be more without a hint.
    next_due: int | None


class WorkflowFilter(msgspec.Struct, frozen=True):
    """All must match; `tail` as of tasks."""

    status: Sequence[str] = ()
    name: str | None = None
    user_id: str | None = None
    tags: Sequence[str] = ()
    tail: str | None = None


class Mark(msgspec.Struct, frozen=True):
    """What is to be written of a workflow, outside of the transaction that caused it."""

    seq: int
    workflow_id: str
    node: str | None
    what: Literal["milestone", "archive"]


class Stale(Exception):
    """It has changed since it was read: read it again. With a schedule's id: what is due of it is to be settled
    first."""


class Reconciled(msgspec.Struct):
    """Names of schedules of the configuration that were made, changed, and set inactive."""

    added: list[str] = []
    changed: list[str] = []
    removed: list[str] = []


class Retention(msgspec.Struct, frozen=True):
    """Seconds to keep; None keeps for ever. `tasks` by final state."""

    tasks: dict[str, float | None] = {}
    events: float | None = None
    deliveries: float | None = None


class Expired(msgspec.Struct):
    """A task past its keep, with its attempts, whose files go first."""

    task_id: str
    attempt_ids: list[str]


class ExpiredWorkflow(msgspec.Struct):
    """A workflow past its keep, with the attempts of all its tasks."""

    workflow_id: str
    attempt_ids: list[str]


class Limits(msgspec.Struct, frozen=True):
    """What admission and claims are bounded by, from the configuration; may be exchanged at a reload."""

    head_start: float = 900.0
    per_key: int = 1
    queue_depth: int = 100_000
    min_free_disk: int = 100 << 20
    # In the order in which they are tried, and how many agents' tasks run at once over all of them.
    accounts: tuple[Account, ...] = (Account(),)
    agents: int = 1000
    budgets: tuple[Budget, ...] = ()
    # Seconds between the attempts at a delivery: of subscriptions, and of callbacks.
    ladder: tuple[float, ...] = ()
    callback_ladder: tuple[float, ...] = ()
    # Whom notifications reach, by name.
    users: Mapping[str, User] = {}
    # Tasks of a workflow, fans included, and items of a fan.
    workflow_tasks: int = 5000
    fan: int = 1000


Answer = Callable[[Sequence[Task]], bytes]
