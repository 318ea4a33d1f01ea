"""Schedules on a store and a clock that is moved by hand: each due time once, whatever happens in between."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core.durations import iso
from orchestr8d.core.errors import Problem
from orchestr8d.core.model import NewTask, Spec, Task
from orchestr8d.core.schedules import Firing, FiringView, Made, NewSchedule, Schedule
from orchestr8d.cron_ticker import CronTicker
from orchestr8d.store import Store
from orchestr8d.store.types import EventFilter, NoticeFilter, Retention, Stale, TaskFilter, WorkflowFilter
from tests.store.conftest import Make
from tests.store.flows import Flows
from tests.store.helpers import Hand, executor

S, M, H, DAY = 1000, 60_000, 3_600_000, 86_400_000
# 2026-03-01T09:00:00Z, where the clock begins.
T = FakeClock().now()
MINUTELY = "* * * * *"
FLOW = {"name": "w", "phases": [{"id": "p", "tasks": [{"id": "t", "command": ["flow"]}]}]}


class Cron:
    """A ticker on a store that may be opened again, and short ways to say and see what it does."""

    def __init__(self, store: Store, clock: FakeClock, folder: Path) -> None:
        self.clock = clock
        self.folder = folder
        self.refuse: Callable[[Schedule], None] = lambda schedule: None
        self.use(store)

    def use(self, store: Store) -> None:
        self.store = store
        self.hand = Hand(store, self.clock)
        self.flows = Flows(self.hand, self.folder)
        self.ticker = CronTicker(store, self.clock, self.make)

    async def make(self, schedule: Schedule) -> Made:
        self.refuse(schedule)
        if schedule.workflow is not None:
            return self.flows.new(schedule.body())
        return NewTask(spec=Spec(command=[schedule.name]), **schedule.body())

    async def add(self, name: str, rule: Any = MINUTELY, **more: Any) -> str:
        if "workflow" not in more:
            more.setdefault("task", {})
        new = NewSchedule(name=name, rule=rule, **more)
        body, _ = await self.store.add_schedules([new], lambda made: made[0].id.encode())
        return body.decode()

    async def trigger(self, name: str) -> Firing:
        body, _ = await self.ticker.trigger(name, msgspec.json.encode)
        return msgspec.json.decode(body, type=Firing)

    async def at(self, ms: int) -> None:
        """Time passes until so long after the beginning."""
        self.clock.advance((T + ms - self.clock.now()) / 1000)
        await self.tick()

    async def tick(self) -> float | None:
        # Any write notices that the clock was set.
        await self.store.heartbeat("nobody", 0, 0, "running")
        return await self.ticker.run_once()

    async def rows(self, name: str) -> list[FiringView]:
        """Oldest first."""
        schedule = await self.store.schedule(name)
        found: list[FiringView] = []
        while page := await self.store.firings(schedule.id, 50, found[-1].firing.time if found else None):
            found += page
        return found[::-1]

    async def said(self, name: str) -> list[tuple[int, str]]:
        """(milliseconds after the beginning, state or reason) of each firing."""
        return [(row.firing.time - T, row.firing.reason or row.firing.state) for row in await self.rows(name)]

    async def next(self, name: str) -> int | None:
        at = (await self.store.schedule(name)).next_at
        return None if at is None else at - T

    async def tasks(self, name: str) -> list[Task]:
        wanted = TaskFilter(schedule_id=(await self.store.schedule(name)).id)
        return [view.task for view in await self.store.views(wanted, 1000, None)][::-1]

    async def statuses(self, name: str) -> list[str]:
        return [task.status for task in await self.tasks(name)]

    async def events(self, *types: str) -> list[dict[str, Any]]:
        found = (await self.store.events(EventFilter(types=types), 0, 100_000))[0]
        return [{"type": event.type, **msgspec.json.decode(event.data)} for event in found]


@pytest.fixture
async def cron(store: Store, clock: FakeClock, tmp_path: Path) -> AsyncIterator[Cron]:
    made = Cron(store, clock, tmp_path)
    yield made
    # One row for each due time, and of those that were fired exactly one task or workflow each.
    started: Counter[str] = Counter()
    for schedule in await made.store.schedules(None, 1000, None):
        rows = [row for row in await made.rows(schedule.name) if row.firing.state == "fired"]
        there = {row.firing.task_id for row in rows if row.firing.task_id and row.outcome is not None}
        assert there == {task.id for task in await made.tasks(schedule.name)}
        started.update(row.firing.task_id or row.firing.workflow_id or "" for row in rows)
    assert set(started.values()) <= {1}


async def test_a_schedule(cron: Cron) -> None:
    await cron.add("a", timezone="Europe/Berlin", task={"priority": 3}, user_id="ann")
    assert await cron.next("a") == M
    assert await cron.tick() == 60.0
    assert await cron.said("a") == []
    await cron.at(M)
    await cron.at(2 * M + 3 * S)
    assert await cron.said("a") == [(M, "fired"), (2 * M, "overlap")]
    first, second = [row.firing for row in await cron.rows("a")]
    (task,) = await cron.tasks("a")
    assert first == Firing(task.schedule_id or "", T + M, "fired", None, task.id, None, T + M, "due", 1, T + M)
    assert (second.state, second.at) == ("skipped", T + 2 * M + 3 * S)
    assert (task.status, task.priority) == ("queued", 3)
    env = task.read_spec().env
    assert env == {"ORCHESTR8_DUE_AT": "2026-03-01T09:01:00.000Z", "ORCHESTR8_SCHEDULE": "a"}
    await cron.hand.end(await cron.hand.start(task))
    assert [row.outcome for row in await cron.rows("a")] == ["completed", None]
    schedule = await cron.store.schedule(task.schedule_id or "")
    assert (schedule.last_run, schedule.next_at, schedule.strikes) == (T + M, T + 3 * M, 1)
    fired, skipped = await cron.events("schedule.*")
    same = {"schedule_id": schedule.id, "name": "a", "trigger": "due"}
    assert fired == {"type": "schedule.fired", "time": iso(T + M), "task_id": task.id, "workflow_id": None} | same
    assert skipped == {"type": "schedule.skipped", "time": iso(T + 2 * M), "reason": "overlap"} | same
    assert await cron.tick() == 57.0
    assert (await cron.store.remove_schedule("a")).id == schedule.id
    assert await cron.tick() is None
    assert await cron.store.firings(schedule.id, 10, None) == []
    assert len(await cron.store.views(TaskFilter(schedule_id=schedule.id), 10, None)) == 1
    for what in (cron.store.schedule("a"), cron.trigger("a"), cron.store.remove_schedule(schedule.id)):
        with pytest.raises(Problem, match="there is no schedule"):
            await what


async def test_they_are_made_all_or_none(cron: Cron) -> None:
    await cron.add("there")
    names = ["a", "there", "b", "a", "c"]
    new = [NewSchedule(name=name, rule=MINUTELY, task={}, at=f"schedules[{n}].") for n, name in enumerate(names)]
    new[4].rule, new[4].timezone = "61 * * * *", "Europe/Berln"
    with pytest.raises(Problem) as e:
        await cron.store.add_schedules(new, lambda _: b"")
    paths = ["schedules[1].name", "schedules[3].name", "schedules[4].schedule", "schedules[4].timezone"]
    assert [fault.path for fault in e.value.faults] == paths
    assert [schedule.name for schedule in await cron.store.schedules(None, 10, None)] == ["there"]
    for one in ("x1", "x2", "Y1"):
        await cron.add(one)
    found = await cron.store.schedules(None, 2, None)
    found += await cron.store.schedules(None, 10, found[-1].seq)
    assert [schedule.name for schedule in found] == ["Y1", "x2", "x1", "there"]
    assert [schedule.name for schedule in await cron.store.schedules("y", 10, None)] == ["Y1"]


async def test_each_due_time_once_over_restarts(make_store: Make, clock: FakeClock, tmp_path: Path) -> None:
    chance = random.Random(7)
    store = await make_store()
    cron = Cron(store, clock, tmp_path)
    for name, catch_up in (("all", "all"), ("one", "one"), ("none", "none")):
        await cron.add(name, catch_up=catch_up, overlap="allow")
    await cron.add("every", "@every 97s", catch_up="all", overlap="queue", jitter=20.0)

    def dies(schedule: Schedule) -> None:
        if chance.random() < 0.2:
            raise Problem("unavailable", "the disk is full")

    for _ in range(60):
        # In time, a little late, or down for a while.
        clock.advance(chance.choice([5, 20, 60, 300]) * chance.random())
        cron.refuse = dies
        # Two at once, as when somebody edits one that is due: what one has done the other finds done.
        await asyncio.gather(cron.tick(), CronTicker(store, clock, cron.make).run_once())
        if chance.random() < 0.3:
            await store.close()
            store = await make_store()
            cron.use(store)
    cron.refuse = lambda schedule: None
    await cron.tick()
    now = clock.now()
    fired: dict[str, list[int]] = {}
    for name, every in (("all", M), ("one", M), ("none", M), ("every", 97 * S)):
        rows = [row.firing for row in await cron.rows(name)]
        fired[name] = [row.time for row in rows if row.state == "fired"]
        tasks = await cron.tasks(name)
        # Each due time is accounted for once: fired with a task of its own, skipped, or missed with others.
        assert sum(row.count for row in rows) == (now - T) // every
        assert all(before.until < after.time for before, after in pairwise(rows))
        due = [task.read_spec().env["ORCHESTR8_DUE_AT"] for task in tasks]
        assert due == [iso(time) for time in fired[name]]
    told = Counter(event["type"] for event in await cron.events("schedule.*"))
    assert told.total() == sum([len(await cron.rows(name)) for name in fired])
    assert fired["all"] == list(range(T + M, now + 1, M))
    assert len(fired["none"]) < len(fired["one"]) < len(fired["all"])
    await store.close()


@pytest.mark.parametrize("overlap", ["skip", "queue", "allow", "replace"])
async def test_overlap(cron: Cron, overlap: Any) -> None:
    await cron.add("a", overlap=overlap)
    await cron.at(M)
    running = await cron.hand.start((await cron.tasks("a"))[0])
    for n in (2, 3, 4):
        await cron.at(n * M)
    if overlap == "skip":
        assert await cron.said("a") == [(M, "fired")] + [(n * M, "overlap") for n in (2, 3, 4)]
    elif overlap == "allow":
        assert await cron.statuses("a") == ["running", "queued", "queued", "queued"]
    elif overlap == "replace":
        # The last one waits for the processes of what ran.
        assert await cron.statuses("a") == ["running", "cancelled", "cancelled", "pending"]
        first, *_, last = await cron.tasks("a")
        assert first.cancel_requested_at == T + 2 * M
        assert await cron.hand.waits(last) == ["unique"]
        await cron.hand.end(running, "cancelled")
        assert await cron.statuses("a") == ["cancelled", "cancelled", "cancelled", "queued"]
        return
    else:
        assert await cron.statuses("a") == ["running", "pending", "pending", "pending"]
        _, second, third, _ = await cron.tasks("a")
        # One that goes before its turn lets nobody by.
        await cron.store.cancel(second.id)
        assert await cron.statuses("a") == ["running", "cancelled", "pending", "pending"]
        await cron.hand.end(running, "exit")
        assert await cron.statuses("a") == ["failed", "cancelled", "queued", "pending"]
        await cron.hand.end(await cron.hand.start(third), "exit")
        assert (await cron.statuses("a"))[-1] == "queued"
    await cron.hand.end(running) if overlap != "queue" else None
    await cron.at(5 * M)
    assert (await cron.said("a"))[-1] == (5 * M, "fired")


async def test_at_most_so_many_wait(cron: Cron) -> None:
    await cron.add("a", "* * * * * *", overlap="queue")
    await cron.at(S)
    for n in range(2, 104):
        await cron.at(n * S)
    assert [n // S for n, state in await cron.said("a") if state == "queue_full"] == [102, 103]
    assert Counter(await cron.statuses("a")) == {"queued": 1, "pending": 100}


async def test_workflows_overlap(cron: Cron) -> None:
    for name, overlap in (("q", "queue"), ("r", "replace"), ("s", "skip")):
        await cron.add(name, workflow=FLOW, overlap=overlap)

    async def states(name: str) -> list[str]:
        rows = [row.firing for row in await cron.rows(name)]
        return [(await cron.store.workflow(row.workflow_id)).status if row.workflow_id else "" for row in rows]

    async def at(ms: int) -> None:
        await cron.at(ms)
        await cron.flows.turn()

    for n in (1, 2, 3):
        await at(n * M)
    assert await states("s") == ["running", "", ""]
    assert await states("q") == ["running", "pending", "pending"]
    # Nothing of what was replaced ran yet: it is over at once.
    assert await states("r") == ["cancelled", "cancelled", "running"]
    first, second, _ = [row.firing.workflow_id or "" for row in await cron.rows("q")]
    await cron.store.cancel_workflow(second)
    await cron.flows.turn()
    assert await states("q") == ["running", "cancelled", "pending"]
    claims = {claim.task.workflow_id: claim for claim in await cron.hand.claim()}
    await at(4 * M)
    replaced, last = [row.firing.workflow_id or "" for row in await cron.rows("r")][-2:]
    assert (await states("r"))[-2:] == ["running", "pending"]
    await cron.hand.end(claims[replaced], "cancelled")
    await cron.hand.end(claims[first])
    await cron.flows.turn()
    assert (await states("r"))[-2:] == ["cancelled", "running"]
    assert (await states("q"))[:3] == ["completed", "cancelled", "running"]
    # Its schedule becomes one of tasks: these wait for the workflows before them, and the other way about.
    await cron.ticker.change("r", lambda row: msgspec.structs.replace(row, task="{}", workflow=None, overlap="queue"))
    await at(5 * M)
    (task,) = await cron.tasks("r")
    assert task.status == "pending" and await cron.hand.waits(task) == ["unique"]
    text = msgspec.json.encode(FLOW).decode()
    await cron.ticker.change("r", lambda row: msgspec.structs.replace(row, task=None, workflow=text))
    await at(6 * M)
    assert (await states("r"))[-1] == "pending"
    claims = {claim.task.workflow_id: claim for claim in await cron.hand.claim()}
    await cron.hand.end(claims[last])
    await cron.flows.turn()
    assert await cron.hand.status(task) == "queued" and (await states("r"))[-1] == "pending"
    await cron.hand.end(await cron.hand.start(task), "exit")
    await cron.flows.turn()
    assert (await states("r"))[-1] == "running"
    # With all its tasks cancelled one has nothing to begin with when its turn comes, and the next one's comes.
    third, fourth = [row.firing.workflow_id or "" for row in await cron.rows("q")][2:4]
    (view,) = await cron.store.views(TaskFilter(workflow_id=fourth), 10, None)
    await cron.store.cancel(view.task.id)
    await cron.hand.end(claims[third])
    await cron.flows.turn()
    assert (await states("q"))[2:] == ["completed", "cancelled", "running", "pending"]


async def test_jitter(cron: Cron) -> None:
    await cron.add("t", "@hourly", jitter=50.0, overlap="queue")
    await cron.add("w", "@hourly", jitter=50.0, workflow=FLOW)
    await cron.at(H)
    await cron.flows.turn()
    (task,) = await cron.tasks("t")
    (flow,) = await cron.store.workflows(WorkflowFilter(), 10, None)
    assert (task.status, flow.status) == ("pending", "pending")
    assert task.wake_at is not None and T + H < task.wake_at <= T + H + 50 * S
    # Set back, it still means so many seconds.
    cron.clock.step(-600)
    await cron.tick()
    assert (await cron.hand.next_due() or 0) == task.wake_at - 600 * S
    cron.clock.advance(50)
    await cron.hand.claim()
    await cron.flows.turn()
    assert (await cron.tasks("t"))[0].status == "running"
    assert (await cron.store.workflow(flow.id)).status == "running"


async def test_pause_resume_trigger(cron: Cron) -> None:
    await cron.add("a", "@hourly", overlap="allow")

    def active(value: int) -> Callable[[Schedule], Schedule]:
        return lambda row: msgspec.structs.replace(row, active=value)

    await cron.ticker.change("a", active(0))
    assert await cron.next("a") is None and await cron.tick() is None
    await cron.at(2 * H + M)
    firing = await cron.trigger("a")
    assert (firing.state, firing.trigger, firing.time) == ("fired", "manual", T + 2 * H + M)
    # Twice in one millisecond is twice.
    assert (await cron.trigger("a")).time == T + 2 * H + M + 1
    assert await cron.next("a") is None
    await cron.ticker.change("a", active(1))
    assert await cron.next("a") == 3 * H
    await cron.at(3 * H)
    assert await cron.said("a") == [(2 * H + M, "fired"), (2 * H + M + 1, "fired"), (3 * H, "fired")]
    cron.refuse = lambda schedule: (_ for _ in ()).throw(Problem("unprocessable", "there is no agent x"))
    with pytest.raises(Problem, match="no agent x"):
        await cron.trigger("a")
    assert len(await cron.rows("a")) == 3


async def test_an_edit_loses_nothing_and_repeats_nothing(cron: Cron) -> None:
    await cron.add("a", overlap="allow", catch_up="all")

    def rule(text: str) -> Callable[[Schedule], Schedule]:
        return lambda row: msgspec.structs.replace(row, rule=f'"{text}"')

    cron.clock.advance(121)
    with pytest.raises(Stale):
        await cron.store.change_schedule("a", rule("@hourly"))
    # What was due under the old rule is fired by it.
    await cron.ticker.change("a", rule("*/2 * * * *"))
    assert await cron.said("a") == [(M, "fired"), (2 * M, "fired")]
    assert await cron.next("a") == 4 * M
    # Others than its due times may be changed while it is due; a name that is there, or a bad rule, changes nothing.
    cron.clock.advance(180)
    await cron.store.change_schedule("a", lambda row: msgspec.structs.replace(row, name="b"))
    await cron.add("c", "@daily")
    with pytest.raises(Problem, match="already"):
        await cron.store.change_schedule("b", lambda row: msgspec.structs.replace(row, name="c"))
    with pytest.raises(Problem, match="schedule: "):
        await cron.ticker.change("c", rule("99 * * * *"))
    await cron.tick()
    assert (await cron.said("b"))[2:] == [(4 * M, "fired")]
    # Very much that is to be caught up with holds nobody up for ever.
    await cron.at(7 * M)
    await cron.ticker.change("b", rule("* * * * * *"))
    cron.clock.advance(3600)
    await cron.ticker.change("b", lambda row: msgspec.structs.replace(row, active=0))
    rows = [row.firing for row in await cron.rows("b")]
    assert rows[-1].reason == "changed" and rows[-1].until == cron.clock.now()
    assert sum(row.count for row in rows) == 4 + 3600 and await cron.next("b") is None


async def test_the_clock_is_set(cron: Cron) -> None:
    await cron.add("half", "30 * * * *", overlap="allow")
    await cron.add("minutes", overlap="allow")
    await cron.add("one", "@hourly", overlap="allow", catch_up="one")
    for minute in range(1, 41):
        await cron.at(minute * M)
    cron.clock.step(-3600)
    await cron.tick()
    # Counted from the new now: 8:40.
    assert [await cron.next(name) for name in ("half", "minutes", "one")] == [30 * M, -19 * M, 0]
    for _ in range(80):
        cron.clock.advance(60)
        await cron.tick()
    said = await cron.said("minutes")
    assert [time for time, _ in said] == [n * M for n in range(-19, 61)]
    assert {state for _, state in said} == {"fired"}
    assert await cron.said("half") == [(30 * M, "fired")]
    assert await cron.said("one") == [(0, "fired"), (60 * M, "fired")]

    cron.clock.step(86_400)
    await cron.tick()
    assert (await cron.said("half"))[1:] == [(90 * M, "late")]
    (missed,) = [row.firing for row in await cron.rows("half") if row.firing.state == "missed"]
    assert (missed.count, missed.until) == (24, T + 90 * M + 23 * H)
    assert (await cron.said("one"))[2:] == [(2 * H, "superseded"), (24 * H, "fired"), (25 * H, "fired")]
    assert (await cron.events("schedule.missed"))[0]["until"]
    # And back: what was missed only is due again; what was fired for the day ahead is not fired again then.
    cron.clock.step(-86_400)
    await cron.tick()
    await cron.at(90 * M)
    await cron.at(2 * H)
    assert (await cron.said("half"))[:2] == [(30 * M, "fired"), (90 * M, "fired")]
    cron.clock.advance(23 * 3600)
    await cron.tick()
    assert [time for time, state in await cron.said("one") if state == "fired"] == [0, H, 2 * H, 24 * H, 25 * H]


async def test_what_is_due_is_due_whatever_the_clock_does(cron: Cron) -> None:
    await cron.add("a", "@hourly", overlap="allow")
    # Due, and not looked at yet, when the clock is set back a little; and by an hour.
    cron.clock.advance(3609)
    cron.clock.step(-5)
    await cron.tick()
    assert await cron.said("a") == [(H, "fired")]
    cron.clock.advance(3600)
    cron.clock.step(-3600)
    await cron.tick()
    assert await cron.said("a") == [(H, "fired")] and await cron.next("a") == 2 * H
    # Back over what was fired, and forward again: of what was missed that is no part.
    for n in (2, 3, 4):
        await cron.at(n * H)
    cron.clock.step(-2.5 * 3600)
    await cron.tick()
    cron.clock.step(2.5 * 3600)
    await cron.tick()
    assert await cron.events("schedule.missed") == [] and len(await cron.rows("a")) == 4
    cron.clock.step(-2.5 * 3600)
    await cron.tick()
    cron.clock.step(4 * 3600)
    await cron.tick()
    assert await cron.said("a") == [*((n * H, "fired") for n in (1, 2, 3, 4)), (5 * H, "late")]
    (told,) = await cron.events("schedule.missed")
    assert (told["time"], told["count"]) == (iso(T + 5 * H), 1)


async def test_a_boot_with_a_clock_that_is_behind(make_store: Make, clock: FakeClock, tmp_path: Path) -> None:
    """No step tells of it."""
    clock.step(400 * 86_400)
    cron = Cron(await make_store(), clock, tmp_path)
    await cron.store.register(executor(started_at=clock.now()))
    await cron.add("a")
    await cron.store.close()
    behind = FakeClock(T)
    clock.step(-400 * 86_400)
    clock._boot = behind.boot()
    cron.use(await make_store())
    await cron.store.register(executor("executor-2"))
    await cron.tick()
    assert await cron.next("a") == M


async def test_what_cannot_be_made_and_the_alarm(cron: Cron) -> None:
    def refuse(schedule: Schedule) -> None:
        raise Problem("unprocessable", "there is no agent 'x'")

    await cron.add("a", overlap="allow", user_id="ann")
    cron.refuse = refuse
    for n in range(1, 8):
        await cron.at(n * M)
    assert await cron.said("a") == [(n * M, "there is no agent 'x'") for n in range(1, 8)]
    (raised,) = await cron.events("alert.*")
    (notice,) = await cron.store.notices(NoticeFilter(user_id="ann", types=("alert",)), 10, None)
    assert raised["schedule_id"] == (await cron.store.schedule("a")).id
    assert "no agent 'x'" in notice.message and notice.created_at == T + 5 * M
    cron.refuse = lambda schedule: None
    await cron.at(8 * M)
    assert [event["type"] for event in await cron.events("alert.*")] == ["alert.raised", "alert.cleared"]
    # What it has fired does not begin, and the next is due.
    await cron.at(9 * M)
    assert (await cron.events("alert.*"))[-1]["type"] == "alert.raised"
    assert (await cron.statuses("a")) == ["queued", "queued"]
    # A daemon that has just begun has the time to start it.
    await cron.ticker.change("a", lambda row: msgspec.structs.replace(row, rule='"* * * * * *"'))
    await cron.store.register(executor(started_at=cron.clock.now()))
    await cron.at(9 * M + 9 * S)
    assert [event["type"] for event in await cron.events("alert.*")][2:] == ["alert.raised", "alert.cleared"]
    await cron.ticker.change("a", lambda row: msgspec.structs.replace(row, active=0))
    # A submit that is refused within the transaction is no firing; a single time that starts nothing is told at once.
    held = await cron.hand.add(unique_key="k")
    await cron.add("once", {"at": "2026-03-01T09:09:30Z"}, task={"unique_key": "k"})
    await cron.add("same", {"at": "2026-03-01T09:09:30Z"}, task={"unique_key": "k", "on_conflict": "existing"})
    before = len(await cron.events("alert.raised"))
    await cron.at(9 * M + 30 * S)
    assert (await cron.said("once"))[0][1].startswith("unique_key 'k' is held")
    assert await cron.said("same") == [(9 * M + 30 * S, f"task {held.id} has its unique_key")]
    assert len(await cron.events("alert.raised")) == before + 2
    assert [(await cron.store.schedule(name)).active for name in ("once", "same")] == [0, 0]


async def test_a_zone_that_is_gone(cron: Cron) -> None:
    """As after an update of the system: it starts nothing any more, and says so; nobody else is held up."""
    await cron.add("a", timezone="Europe/Berlin")
    await cron.add("b")
    with closing(sqlite3.connect(cron.folder / "store.db", isolation_level=None)) as db:
        db.execute("UPDATE schedules SET timezone = 'Europe/Atlantis' WHERE name = 'a'")
    await cron.at(M)
    ((time, reason),) = await cron.said("a")
    assert time == M and "Europe/Atlantis" in reason
    assert await cron.next("a") is None and await cron.said("b") == [(M, "fired")]
    assert [event["name"] for event in await cron.events("alert.raised")] == ["a"]
    with pytest.raises(Problem, match="timezone"):
        await cron.ticker.change("a", lambda row: msgspec.structs.replace(row, active=1))


async def test_as_the_configuration_says(cron: Cron) -> None:
    def said(name: str, rule: Any = "@hourly", **more: Any) -> NewSchedule:
        return NewSchedule(name=name, rule=rule, task={}, source="config", **more)

    done = await cron.ticker.reconcile([said("a"), said("b"), said("once", {"at": "2026-03-01T10:00:00Z"})])
    assert (done.added, done.changed, done.removed) == (["a", "b", "once"], [], [])
    await cron.add("mine")
    await cron.at(H)
    once = said("once", {"at": "2026-03-01T10:00:00Z"})
    assert await cron.ticker.reconcile([said("a"), said("b"), once]) == type(done)()
    # What is due by then was due as it was.
    cron.clock.advance(3601)
    done = await cron.ticker.reconcile([said("a", "30 * * * *"), said("c"), once])
    assert (done.added, done.changed, done.removed) == (["c"], ["a"], ["b"])
    assert (await cron.said("a"))[-1][0] == (await cron.said("b"))[-1][0] == 2 * H
    active = {row.name: row.active for row in await cron.store.schedules(None, 10, None)}
    assert active == {"a": 1, "b": 0, "c": 1, "once": 0, "mine": 1}
    assert await cron.next("a") == 2 * H + 30 * M
    done = await cron.ticker.reconcile([said("b")])
    assert (done.changed, done.removed) == (["b"], ["a", "c"])
    assert await cron.next("b") == 3 * H
    with pytest.raises(Problem, match="schedule: "):
        await cron.ticker.reconcile([said("b", "99 * * * *")])


async def test_firings_are_pruned(cron: Cron) -> None:
    await cron.add("a", overlap="allow")
    for n in (1, 2, 3):
        await cron.at(n * M)
    await cron.store.prune_log(Retention({}, 61.0))
    assert [time for time, _ in await cron.said("a")] == [2 * M, 3 * M]
    await cron.store.prune_log(Retention({}, None))
    for task in await cron.tasks("a"):
        await cron.store.cancel(task.id)
    await cron.at(4 * M)
    await cron.store.remove([(await cron.tasks("a"))[0].id])
    assert [view.outcome for view in await cron.rows("a")] == ["cancelled", "cancelled", "queued"]
    await cron.store.remove([(await cron.tasks("a"))[0].id])
    assert [view.outcome for view in await cron.rows("a")] == [None, "cancelled", "queued"]
