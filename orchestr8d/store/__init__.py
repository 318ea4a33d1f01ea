"""The Store protocol: the verbs of the queue. Every backend is run through tests/store unchanged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from orchestr8d.core.delivery import Delivery as WebhookDelivery
from orchestr8d.core.delivery import Made, Webhook
from orchestr8d.core.evaluation import Decided, Due
from orchestr8d.core.model import (
    Attempt,
    Executor,
    NewTask,
    Progress,
    Queue,
    Result,
    Task,
    TaskView,
    Token,
)
from orchestr8d.core.notices import Delivery, NewNotice, Notice
from orchestr8d.core.outcome import Outcome
from orchestr8d.core.schedules import Firing, FiringView, NewSchedule, Schedule, Step
from orchestr8d.core.standing import Standing
from orchestr8d.core.workflow import (
    Archived,
    Extension,
    NewWorkflow,
    Node,
    NodeView,
    Signal,
    Workflow,
    WorkflowView,
)
from orchestr8d.events import Event
from orchestr8d.store.types import (
    Answer,
    Busy,
    Claim,
    Claimed,
    Created,
    DeliveryFilter,
    DueDeliveries,
    DueNotice,
    EventFilter,
    Expired,
    ExpiredWorkflow,
    Followup,
    Idempotency,
    Limits,
    Mark,
    NoticeFilter,
    Reconciled,
    Retention,
    TaskFilter,
    Told,
    WorkflowFilter,
)


class WorkflowStore(Protocol):
    """The verbs of workflows. What follows from an end of a task is part of that end's transaction."""

    async def add_workflow(
        self, new: NewWorkflow, answer: Callable[[Workflow], bytes], once: Idempotency | None = None
    ) -> tuple[bytes, bool]:
        """The first answer, and whether it is an earlier request's."""
        ...

    async def extend_workflow(
        self, workflow_id: str, more: Extension, by: str | None, answer: Callable[[Sequence[Task]], bytes],
        once: Idempotency | None = None,
    ) -> tuple[bytes, bool]:  # fmt: skip
        """Adds phases and tasks; `by` is the task that does. Problem(conflict) when the workflow or a phase that gets
        tasks is final; Stale."""
        ...

    async def begin_workflow(self, workflow_id: str) -> Workflow: ...
    async def pause_workflow(self, workflow_id: str) -> Workflow: ...
    async def resume_workflow(self, workflow_id: str) -> Workflow: ...
    async def cancel_workflow(self, workflow_id: str) -> Workflow:
        """Cancels what does not run, and asks what runs to end; again, nothing changes."""
        ...

    async def retry_workflow(self, workflow_id: str, from_phase: str | None) -> Workflow: ...
    async def send_signal(self, workflow_id: str, name: str, payload: Any) -> Signal: ...
    async def answer_approval(self, workflow_id: str, task: str, approved: bool, comment: str | None) -> NodeView: ...
    async def add_milestone(self, workflow_id: str, text: str) -> Workflow: ...
    async def workflow(self, workflow_id: str) -> Workflow: ...
    async def workflows(self, wanted: WorkflowFilter, limit: int, before: int | None) -> list[Workflow]:
        """Newest first; `before` is the `seq` of the last one that was shown."""
        ...

    async def workflow_view(self, workflow_id: str, *, results: bool = False) -> WorkflowView: ...
    async def node_of(self, task_id: str) -> Node | None:
        """What a task is in its workflow; None outside of one, or when another round has taken its place."""
        ...

    async def archive(self, q: str | None, limit: int, before: int | None) -> list[Archived]: ...
    async def archived(self, workflow_id: str) -> Archived: ...

    # for the engine
    async def wake_workflows(self) -> int | None:
        """Moves what is due by time; answers when more is (wall-clock ms), None when nothing waits for that."""
        ...

    async def due_nodes(self, limit: int) -> list[Due]: ...
    async def decided(self, decided: Decided) -> None:
        """Applies an answer; nothing, if the node has moved since."""
        ...

    async def marks(self, after: int, limit: int) -> list[Mark]: ...
    async def marked(self, mark: Mark) -> Due | None:
        """The node of a milestone's mark, with what its text may name."""
        ...

    async def reached(self, mark: Mark, text: str) -> None: ...
    async def keep_report(self, mark: Mark, report: str) -> None: ...

    # upkeep
    async def expired_workflow(self, retention: Retention) -> ExpiredWorkflow | None:
        """A finished one past the keep of its final state; a sub-workflow after the one that it is part of."""
        ...

    async def remove_workflow(self, workflow_id: str) -> None:
        """With all its tasks."""
        ...


class ScheduleStore(Protocol):
    """The verbs of schedules. `name`: or an id. What is due is decided by `cron_ticker.py`."""

    async def add_schedules(
        self, new: Sequence[NewSchedule], answer: Callable[[Sequence[Schedule]], bytes], once: Idempotency | None = None
    ) -> tuple[bytes, bool]:
        """All or none; the first answer, and whether it is an earlier request's. Problem with all faults: names that
        are taken, bad rules."""
        ...

    async def change_schedule(self, name: str, decide: Callable[[Schedule], Schedule]) -> Schedule:
        """`decide` is called with a copy of the row inside the transaction and returns what it shall be; it may raise.
        Stale when due times would be lost by it: settle them first (`CronTicker.change` does)."""
        ...

    async def remove_schedule(self, name: str) -> Schedule: ...
    async def reconcile_schedules(self, said: Sequence[NewSchedule]) -> Reconciled:
        """Those of the configuration become what it says, by name; Stale as above."""
        ...

    async def schedule(self, name: str) -> Schedule:
        """Problem(not-found) when there is none."""
        ...

    async def schedules(self, q: str | None, limit: int, before: int | None) -> list[Schedule]:
        """Newest first, whose names have `q` in them; `before` is the `seq` of the last one that was shown."""
        ...

    async def firings(self, schedule_id: str, limit: int, before: int | None) -> list[FiringView]:
        """Newest first; `before` is the `time` of the last one that was shown."""
        ...

    # for the ticker
    async def next_schedule(self) -> int | None:
        """The first due time of all."""
        ...

    async def due_schedules(self, after: tuple[int, int], until: int, limit: int) -> list[Schedule]:
        """By (`next_at`, `seq`): those beyond `after` that are due by `until`."""
        ...

    async def advance(self, step: Step) -> tuple[Firing | None, bool]:
        """Carries a step out: (the firing, if there was one; False when the schedule has changed since: nothing was
        done). Raises Problem when what is due cannot be started."""
        ...

    async def trigger(
        self, step: Step, answer: Callable[[Firing], bytes], once: Idempotency | None = None
    ) -> tuple[bytes, bool]:
        """Carries out a step that fires by hand: the first answer, and whether it is an earlier request's. Stale when
        the schedule has changed since."""
        ...

    async def rechecked(self, found: Sequence[tuple[Schedule, int | None]]) -> None:
        """The next due times of schedules with `recheck`; nothing of those that have changed since."""
        ...


class Store(WorkflowStore, ScheduleStore, Protocol):
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
