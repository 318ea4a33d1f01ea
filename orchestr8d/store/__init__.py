"""The Store protocol: the verbs of the queue. Every backend is run through tests/store unchanged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from orchestr8d.core.budgets import Budget
from orchestr8d.core.delivery import Delivery as WebhookDelivery
from orchestr8d.core.delivery import DeliveryStatus, Made, Webhook
from orchestr8d.core.governor import Account
from orchestr8d.core.model import (
    Attempt,
    Executor,
    NewTask,
    Progress,
    Queue,
    Result,
    Session,
    Task,
    TaskView,
    Token,
)
from orchestr8d.core.notices import Delivery, NewNotice, Notice, Status, User
from orchestr8d.core.outcome import Outcome
from orchestr8d.core.standing import Standing
from orchestr8d.events import Event


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


class Retention(msgspec.Struct, frozen=True):
    """Seconds to keep; None keeps for ever. `tasks` by final state."""

    tasks: dict[str, float | None] = {}
    events: float | None = None
    deliveries: float | None = None


class Expired(msgspec.Struct):
    """A task past its keep, with its attempts, whose files go first."""

    task_id: str
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


Answer = Callable[[Sequence[Task]], bytes]


class Store(Protocol):
    """Each verb is one transaction: load, decide (core), apply. Problems are raised as core.errors.Problem.

    A store notices when the wall clock is set: due times that came from durations move with it.
    """

    limits: Limits

    async def close(self) -> None: ...
    async def watch(self) -> None:
        """Returns when the store was closed; raises when it can no longer serve."""
        ...

    # submit and steer
    async def submit(self, new: Sequence[NewTask], answer: Answer, once: Idempotency | None = None) -> Created:
        """All or none. `answer` renders the first answer, which is kept with the idempotency key."""
        ...

    async def retry(self, task_id: str, answer: Answer, once: Idempotency | None = None) -> Created: ...
    async def cancel(self, task_id: str) -> Task:
        """Cancels what does not run; of what runs, notes the request (`cancel_requested_at`) for its executor."""
        ...

    async def pause(self, task_id: str) -> Task: ...
    async def resume(self, task_id: str) -> Task: ...
    async def edit(self, task_id: str, change: Callable[[Task], NewTask]) -> Task:
        """`change` is called with the row inside the transaction and returns what the task shall be; it may raise."""
        ...

    # what follows from an end
    async def followups(self, after: int, limit: int) -> list[Followup]:
        """Those that are due, oldest first; `after` is the `seq` of the last one that was seen, 0 at first."""
        ...

    async def follow_up(self, due: Followup, new: NewTask) -> Task | None:
        """Submits what follows and removes its mark, as one; None when that was done already. With the user of the
        task that has ended, whose id becomes `followup_of` of its metadata."""
        ...

    async def drop_followup(self, due: Followup, reason: str) -> None:
        """Removes the mark of one that cannot be made, with an alert that says why."""
        ...

    # run
    async def claim(self, executor_id: str, free: int) -> Claimed:
        """Moves what is due, then claims up to `free` tasks by rank. `free` may be 0."""
        ...

    async def finish(self, task_id: str, attempt_id: str, executor_id: str, outcome: Outcome) -> Task:
        """LeaseLost when this attempt is not this executor's to finish."""
        ...

    async def progress(self, task_id: str, attempt_id: str, progress: Progress) -> Task: ...
    async def running(self) -> list[Claim]:
        """Every attempt that no executor has finished, with its task."""
        ...

    async def adopt(self, executor_id: str, attempt_ids: Sequence[str]) -> None:
        """Re-leases attempts of an earlier executor to this one, in one transaction."""
        ...

    async def rewindow(self) -> None:
        """After `limits.per_key` was exchanged: the first of every key that tasks wait for may run."""
        ...

    # accounts and budgets
    async def standing(self) -> Standing:
        """How accounts, the breaker and budgets stand."""
        ...

    async def open_account(self, name: str | None) -> None:
        """Opens an account, whatever closed or limits it; None: all that are closed. Problem(not-found)."""
        ...

    async def recheck_budgets(self, after: int) -> int | None:
        """After `limits.budgets` was exchanged: queues what may run now of a step's worth of parked tasks beyond
        `after` (0 at first); where to go on, None when there are no more."""
        ...

    # notifications
    async def notify(
        self, new: NewNotice, answer: Callable[[str], bytes], once: Idempotency | None = None
    ) -> tuple[bytes, bool]:
        """Stores a notice for its user and channels; answers what `answer` makes of its id, or made before."""
        ...

    async def notices(self, wanted: NoticeFilter, limit: int, before: int | None) -> list[Notice]:
        """Newest first; `before` is the `seq` of the last one that was shown."""
        ...

    async def notice(self, notice_id: str) -> tuple[Notice, list[Delivery]]:
        """Problem(not-found) when there is none."""
        ...

    async def ack(self, notice_id: str) -> Notice:
        """Acknowledges it; again, nothing changes. Problem(not-found)."""
        ...

    async def ack_all(self, user_id: str | None) -> int:
        """All that were not acknowledged, of a user or of everybody; how many."""
        ...

    async def due_notices(self, busy: Collection[tuple[str, str]], limit: int) -> tuple[list[DueNotice], int | None]:
        """What is due, first come first, but for the (user, channel) that are `busy`; and when more is."""
        ...

    async def told(self, results: Sequence[Told]) -> None:
        """Notes what became of due notices; of those that somebody else has tried meanwhile, nothing."""
        ...

    async def recheck_held(self) -> None:
        """After `limits.users` was exchanged: what quiet hours hold is due, to be looked at again."""
        ...

    # executors and queues
    async def register(self, executor: Executor) -> None:
        """Adds a starting executor; those that died without a word are `lost`."""
        ...

    async def heartbeat(self, executor_id: str, slots: int, running: int, state: str) -> None: ...
    async def executors(self) -> list[Executor]: ...
    async def queues(self) -> list[Queue]: ...
    async def put_queue(self, name: str, change: dict[str, Any]) -> Queue:
        """Sets any of `limit`, `rate`, `paused`; makes an unknown queue."""
        ...

    # tokens
    async def add_token(self, token: Token, body: bytes, once: Idempotency | None = None) -> tuple[bytes, bool]: ...
    async def tokens(self) -> list[Token]: ...
    async def revoke_token(self, token_id: str) -> None: ...

    # read
    async def task(self, task_id: str) -> Task:
        """Problem(not-found) when there is none."""
        ...

    async def view(self, task_id: str) -> TaskView: ...
    async def views(self, wanted: TaskFilter, limit: int, before: int | None) -> list[TaskView]:
        """Newest first; `before` is the `seq` of the last one that was shown. Attempts are not loaded."""
        ...

    async def attempts(self, task_id: str) -> list[Attempt]: ...
    async def result(self, task_id: str) -> Result: ...
    async def events(self, wanted: EventFilter, after: int, limit: int) -> tuple[list[Event], int]:
        """In log order, and the id up to which the log was read: where to go on."""
        ...

    async def event_bounds(self) -> tuple[int, int]:
        """(the oldest id that is kept, the newest id ever given); (1, 0) for an empty new log."""
        ...

    async def counts(self) -> dict[str, int]:
        """How many tasks are in each state that is not final."""
        ...

    # webhooks and deliveries
    async def add_webhook(self, webhook: Webhook, body: bytes, once: Idempotency | None = None) -> tuple[bytes, bool]:
        """As `add_token`: the first answer, and whether it is an earlier request's."""
        ...

    async def webhooks(self) -> list[Webhook]: ...
    async def webhook(self, webhook_id: str) -> Webhook: ...
    async def change_webhook(self, webhook_id: str, decide: Callable[[Webhook], Webhook]) -> Webhook:
        """`decide` is called with the row inside the transaction; it may raise."""
        ...

    async def remove_webhook(self, webhook_id: str) -> Webhook: ...
    async def test_webhook(self, webhook_id: str) -> WebhookDelivery: ...
    async def due_deliveries(self, busy: Mapping[str, Busy], most: int, after: str = "") -> DueDeliveries:
        """What may be sent now: of each endpoint one for the first time, in the order of the log, and some retries.
        `busy`, by endpoint, are left out and counted. Endpoints come in a ring, from the one behind `after`, until
        there are `most`; the last one's may be a few more."""
        ...

    async def delivery_done(self, delivery: WebhookDelivery, made: Made) -> WebhookDelivery:
        """Records an attempt at the delivery as it was. LeaseLost when that is not its next."""
        ...

    async def delivery(self, delivery_id: str) -> WebhookDelivery: ...
    async def deliveries(self, wanted: DeliveryFilter, limit: int, before: int | None) -> list[WebhookDelivery]:
        """Newest first; `before` is the `seq` of the last one that was shown."""
        ...

    async def redeliver(self, delivery_id: str) -> WebhookDelivery: ...
    async def redeliver_all(self, wanted: DeliveryFilter) -> int:
        """How many will be sent again."""
        ...

    # upkeep
    async def index_text(self) -> bool:
        """Brings the full-text index up to date by one step; True when there is more to do."""
        ...

    async def expired(self, retention: Retention) -> list[Expired]:
        """Tasks past their keep, oldest first; a step's worth, empty when there are none."""
        ...

    async def remove(self, task_ids: Sequence[str]) -> None:
        """Final tasks and all that belongs to them, but for their events."""
        ...

    async def prune_log(self, retention: Retention) -> bool:
        """Removes a step's worth of old events and used-up idempotency keys; True when there is more."""
        ...

    async def backup(self, target: Path) -> None: ...
