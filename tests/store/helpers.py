"""What the tests of stores share: short ways to submit, claim and end, and the facts that hold after anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from orchestr8d.clock import FakeClock
from orchestr8d.core.model import AgentSpec, Executor, NewTask, Progress, Spec, Task, TaskView
from orchestr8d.core.outcome import Limited, Outcome, failed
from orchestr8d.core.states import FINAL, WAITING
from orchestr8d.events import Event
from orchestr8d.store import Store
from orchestr8d.store.types import Claim, EventFilter, Idempotency, TaskFilter

ME = "executor-1"
_SPEC = frozenset(Spec.__struct_fields__)
_AGENT = frozenset(AgentSpec.__struct_fields__) - {"name"}
DAY = 86_400


def new(*command: str, **options: Any) -> NewTask:
    """A submit; `options` are fields of Spec and of NewTask alike."""
    spec = {name: options.pop(name) for name in list(options) if name in _SPEC}
    return NewTask(spec=Spec(command=list(command or ("true",)), **spec), **options)


def agent(name: str = "writer", **options: Any) -> NewTask:
    """A submit of an agent's task; `options` are fields of AgentSpec, Spec and NewTask alike."""
    of_agent = {n: options.pop(n) for n in list(options) if n in _AGENT}
    spec = {n: options.pop(n) for n in list(options) if n in _SPEC}
    return NewTask(spec=Spec(agent=AgentSpec(name, **of_agent), prompt="go", **spec), kind="claude", **options)


def limited(kind: Any = "limit", until: int | None = None, **more: Any) -> Outcome:
    """How a run ends that came up against something; those of `limit`, `overload` and `budget` are parked."""
    return Outcome(status="parked", limited=Limited(kind, "default", until, "no more"), **more)


def refused(kind: Any = "auth") -> Outcome:
    return failed(kind, "no", limited=Limited(kind, "default", None, "invalid key"))


def ids(tasks: Sequence[Task]) -> bytes:
    """An answer to a creating request."""
    return ",".join(task.id for task in tasks).encode()


def once(key: str, digest: str = "d", scope: str = "token POST /tasks") -> Idempotency:
    return Idempotency(scope, key, digest)


def executor(executor_id: str = ME, host: str = "host", started_at: int = 0) -> Executor:
    return Executor(executor_id, host, 1, "0", started_at, started_at, ["fast"], 4, 0, "running")


class Hand:
    """Drives a store as an executor and its users would, in few words."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock

    async def add(self, *command: str, **options: Any) -> Task:
        created = await self.store.submit([new(*command, **options)], ids)
        return await self.store.task(created.tasks[0].id)

    async def add_all(self, *new_tasks: NewTask) -> list[Task]:
        for i, one in enumerate(new_tasks):
            one.at = f"tasks[{i}]."
        return (await self.store.submit(new_tasks, ids)).tasks

    async def claim(self, free: int = 100) -> list[Claim]:
        return (await self.store.claim(ME, free)).claims

    async def start(self, task: Task) -> Claim:
        """Claims until this task runs."""
        claims = {claim.task.id: claim for claim in await self.claim()}
        assert task.id in claims, f"{task.id} was not claimed"
        return claims[task.id]

    async def names(self, free: int = 100) -> list[str]:
        """The programs of what is claimed, in order."""
        return [claim.task.read_spec().command[0] for claim in await self.claim(free)]  # type: ignore[index]

    async def end(self, claim: Claim, outcome: Outcome | str = "completed", executor_id: str = ME) -> Task:
        """Finishes an attempt; `outcome` may be a status, or an error's kind."""
        if isinstance(outcome, str):
            if outcome in ("completed", "cancelled", "interrupted"):
                outcome = Outcome(status=outcome, exit_code=0 if outcome == "completed" else None)  # type: ignore[arg-type]
            else:
                outcome = failed(outcome, f"it was {outcome}", exit_code=1)
        return await self.store.finish(claim.task.id, claim.attempt.id, executor_id, outcome)

    async def finished(self, *command: str, outcome: Outcome | str = "completed", **options: Any) -> Task:
        """Submits a task and runs it to its end."""
        return await self.end(await self.start(await self.add(*command, **options)), outcome)

    async def status(self, task: Task) -> str:
        return (await self.store.task(task.id)).status

    async def statuses(self, *tasks: Task) -> list[str]:
        return [await self.status(task) for task in tasks]

    async def waits(self, task: Task) -> list[str]:
        """The kinds of reasons why it does not run."""
        return [reason.kind for reason in (await self.store.view(task.id)).waiting_for]

    async def next_due(self) -> int | None:
        return (await self.store.claim(ME, 0)).next_due

    async def events(self, task: Task | None = None, after: int = 0) -> list[Event]:
        wanted = EventFilter() if task is None else EventFilter(task_id=task.id)
        return (await self.store.events(wanted, after, 100_000))[0]

    async def story(self, task: Task) -> list[str]:
        """The types of its own events, in order."""
        types = [event.type for event in await self.events(task)]
        return [name.removeprefix("task.") for name in types if name.startswith("task.")]

    async def step(self, percent: float, claim: Claim) -> Task:
        return await self.store.progress(claim.task.id, claim.attempt.id, Progress(percent, "so far"))


async def every(store: Store) -> list[TaskView]:
    """All tasks, oldest first, over as many pages as it takes."""
    found: list[TaskView] = []
    before = None
    while page := await store.views(TaskFilter(), 1000, before):
        found += page
        before = page[-1].task.seq
    return found[::-1]


async def check(store: Store) -> None:
    """What holds after anything: counts that are kept equal a recount, whoever waits is told why, one end each."""
    views = await every(store)
    depth = Counter(v.task.queue for v in views if v.task.status in WAITING)
    running = Counter(v.task.queue for v in views if v.task.status == "running")
    for queue in await store.queues():
        assert queue.depth == depth.pop(queue.name, 0), f"the depth of {queue.name}"
        assert queue.running == running.pop(queue.name, 0), f"what runs of {queue.name}"
    assert not depth
    assert not running
    ends: Counter[str | None] = Counter()
    last = 0
    pruned = (await store.event_bounds())[0] > 1
    for event in (await store.events(EventFilter(), 0, 1_000_000))[0]:
        assert event.id > last, "the order of the log"
        last = event.id
        if event.type.removeprefix("task.") in FINAL:
            ends[event.task_id] += 1
    slots: Counter[str] = Counter()
    for view in views:
        task = view.task
        # A fan or a sub-workflow that has begun is pending and waits for nothing.
        begun = task.local_id is not None and task.status == "pending" and not view.waiting_for
        assert begun or bool(view.waiting_for) == (task.status in WAITING), (task.id, task.status, view.waiting_for)
        assert pruned or ends[task.id] == (task.status in FINAL), f"ends of {task.id}"
        if task.unique_slot is not None:
            slots[task.unique_slot] += 1
        attempts = await store.attempts(task.id)
        assert [a.number for a in attempts] == list(range(1, task.attempt + 1))
        assert sum(a.status == "running" for a in attempts) == (task.status == "running")
        assert task.retry_count <= task.read_spec().max_retries
    assert all(count == 1 for count in slots.values())
