"""Many workflows in one real store, without processes: each is led through random events together with its model, and
held against it after each one."""

from __future__ import annotations

import asyncio
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orchestr8d.clock import FakeClock
from orchestr8d.core import definition, step_input, submit
from orchestr8d.core.decode import convert
from orchestr8d.core.definition import Bounds, Checked
from orchestr8d.core.model import NewTask
from orchestr8d.core.outcome import Outcome, failed
from orchestr8d.core.submit import Policy
from orchestr8d.core.task_input import TaskIn
from orchestr8d.core.workflow import Head, NewWorkflow, Node
from orchestr8d.events import Bus
from orchestr8d.store.sqlite import open_store
from orchestr8d.store.sqlite.store import SqliteStore
from orchestr8d.store.types import Claim, Limits
from orchestr8d.workflow_engine import WorkflowEngine
from tests.workflows import making
from tests.workflows.making import PARAMS, SIGNALS, Raw
from tests.workflows.model import OVER, ROLLBACK, Model, Task

POLICY = Policy(in_workflow=True)
ME = "executor"
# How many lives have more than one event before the engine comes by.
LAG = 0.4
Row = dict[str, Any]
Edges = list[tuple[str, str]]


def checked(raw: Raw) -> Checked:
    return definition.check(raw, {}, POLICY, Bounds())


def new_definition(chance: random.Random, *, live: bool = False) -> Raw:
    """One that is accepted."""
    while True:
        raw = making.definition(chance, live=live)
        for fault in checked(raw).faults:
            if fault.path.endswith("retry_phase"):
                # No phase that comes before.
                phase, task = (int(part.split("[")[1][:-1]) for part in fault.path.split(".")[:2])
                rule, own = raw["phases"][phase]["tasks"][task], {"retry_phase": raw["phases"][phase]["id"]}
                rule["on_failure"] = "fail" if live else rule["on_failure"] | own
        if not checked(raw).faults and (not live or _is_settled(raw)):
            return raw


def _is_settled(raw: Raw) -> bool:
    """Whether what runs again waits for nothing else than what was over before: it would depend on time whether it has
    run in an earlier round."""
    model = Model(raw, PARAMS)
    roots = {task.retries["retry_phase"] for task in model.tasks.values() if task.retries}
    tasks, begin = model.following(roots)
    before, todo = set[str](), list(roots)
    while todo:
        name = todo.pop()
        more = set(model.needs(name))
        if name in model.phases and name not in roots:
            more |= {task.id for task in model.members(name)}
        elif name in model.tasks:
            more |= set(model.needs(model.tasks[name].phase))
        todo += more - before
        before |= more
    inner = {*tasks, *begin, *(model.tasks[name].phase for name in tasks)}
    return all(set(model.needs(name)) <= inner | before for name in inner)


async def _make(head: Head, node: Node, body: dict[str, Any]) -> NewTask:
    task, faults = convert(body, TaskIn)
    assert task is not None, faults
    new = submit.new_task(task, POLICY, faults)
    assert new is not None, faults
    return step_input.finished(new, body.get("options", {}), head.priority)


async def _start(head: Head, node: Node, params: dict[str, Any]) -> NewWorkflow:
    raise AssertionError("no workflow has another one")


class Fault(Exception):
    """Store and model do not agree."""


class World:
    """A store with its engine and its clock, on files of its own."""

    def __init__(self, store: SqliteStore, clock: FakeClock, path: Path) -> None:
        self.store = store
        self.clock = clock
        self.started = clock.monotonic()
        self.engine = WorkflowEngine(store, clock, _make, _start, lambda _: path, path.parent / "values")
        self.db = sqlite3.connect(path, isolation_level=None)

    @classmethod
    async def open(cls, directory: Path, clock: FakeClock | None = None) -> World:
        clock, path = clock or FakeClock(), directory / "store.db"
        limits = Limits(min_free_disk=0)
        store = await open_store(path, clock=clock, bus=Bus(), limits=limits, synchronous="OFF")
        return cls(store, clock, path)

    @property
    def now(self) -> float:
        return self.clock.monotonic() - self.started

    def is_in_steps(self) -> bool:
        """Whether a cascade goes on in further transactions."""
        return bool(self.db.execute("SELECT EXISTS (SELECT 1 FROM workflow_marks WHERE what = 'ending')").fetchone()[0])

    async def close(self) -> None:
        self.db.close()
        await self.store.close()


class Life:
    """A workflow with its model."""

    def __init__(self, world: World, raw: Raw, seed: int) -> None:
        self.world = world
        self.raw = raw
        self.seed = seed
        self.chance = random.Random(seed)
        self.model = Model(raw, PARAMS, world.now)
        self.claims: dict[str, Claim] = {}
        self.rows: Counter[tuple[str, int]] = Counter()
        self.story: list[str] = []
        self.retries = 2
        self.done = False
        self._lag = self.chance.random() < LAG
        self._mood = self.chance.choice([0.5, 0.75, 0.9, 1.0])
        self.id = ""

    async def begin(self) -> None:
        found = checked(self.raw)
        new = NewWorkflow(name="random", definition=found.definition, drafts=found.drafts, params=found.params)
        body, _ = await self.world.store.add_workflow(new, lambda w: w.id.encode())
        self.id = body.decode()
        self.model.begin()

    # -- events

    async def step(self) -> None:
        """Something happens to it; now and then more than one thing before the engine comes by."""
        for _ in range(self.chance.choice([1, 1, 2, 3]) if self._lag else 1):
            if not self.done:
                await self._event()

    async def _event(self) -> None:
        m, chance = self.model, self.chance
        m.now = self.world.now
        if m.is_final():
            await self._over()
            return
        runs = [t for t in m.released() if t.claimed]
        draw = chance.random()
        if m.paused and draw < 0.4:
            await self.told("resume")
        elif not m.paused and draw < 0.04:
            await self.told("pause")
        elif draw < 0.06 and m.ending != "cancel":
            await self.told("cancel")
        elif draw < 0.16:
            await self.told(f"signal {chance.choice(SIGNALS)}")
        elif m.asked() and (not runs or draw < 0.3):
            answer = "approved" if chance.random() < self._mood else "rejected"
            await self.told(f"{chance.choice(m.asked()).id} {answer}")
        elif runs:
            await self._finish(chance.choice(runs))

    async def _do(self, what: str, work: Any, model: Any) -> None:
        self.story.append(what)
        try:
            await work
        except Exception as error:
            raise self.fault(repr(error)) from error
        model()
        self.model.settle(evaluates=False)

    async def _finish(self, task: Task) -> None:
        chance = self.chance
        status = "completed" if chance.random() < self._mood else "failed"
        if task.stopping:
            status = chance.choice(["cancelled", "cancelled", "completed"])
        elif chance.random() < 0.03:
            status = "cancelled"
        await self.ends(task, status, chance.choice([[1], [1, 2, 3], [], None]))

    async def ends(self, task: Task, status: str, output: Any = None) -> None:
        store, claim = self.world.store, self.claims.pop(task.id)
        if status == "cancelled" and not task.stopping:
            await store.cancel(claim.task.id)
        body = None if output is None else msgspec.json.encode(output)
        outcome = Outcome(status="cancelled")
        if status == "completed":
            outcome = Outcome(status="completed", exit_code=0, result_type="text", result=body)
        elif status == "failed":
            outcome = failed("exit", "exit code 1", exit_code=1, result_type="text", result=body)
        work = store.finish(claim.task.id, claim.attempt.id, ME, outcome)
        said = f"{task.id} {status} {json.dumps(output)} (round {task.round})"
        await self._do(said, work, lambda: self.model.finish(task.id, status, output))

    async def told(self, event: str) -> None:
        """One event, as `pause`, `retry p1`, `signal go` or `t1 failed [1]`."""
        what, *rest = event.split(maxsplit=2)
        store, m, last = self.world.store, self.model, rest[0] if rest else None
        if last in ("approved", "rejected"):
            yes = last == "approved"
            await self._do(event, store.answer_approval(self.id, what, yes, None), lambda: m.answer(what, yes))
        elif what in m.tasks:
            await self.ends(m.tasks[what], rest[0], json.loads(rest[1]) if len(rest) > 1 else None)
        elif what == "retry":
            await self._do(event, store.retry_workflow(self.id, last), lambda: m.retry(last))
        elif what == "signal":
            assert last is not None
            await self._do(event, store.send_signal(self.id, last, 1), lambda: m.send(last))
        else:
            await self._do(event, getattr(store, f"{what}_workflow")(self.id), getattr(m, what))

    async def _over(self) -> None:
        if self.model.status == "completed" or not self.retries or self.chance.random() < 0.4:
            self.done = True
            return
        self.retries -= 1
        phase = self.chance.choice(["", "", *self.model.phases])
        await self.told(f"retry {phase}")

    def claimed(self, claim: Claim) -> None:
        local = str(claim.task.local_id)
        task = self.model.tasks.get(local)
        if task is None or task.state != "open" or task.claimed:
            raise self.fault(f"{local} runs: {task}")
        task.claimed = True
        self.claims[local] = claim
        self.story.append(f"({local} starts)")

    # -- what holds

    def fault(self, what: str) -> Fault:
        story = "\n  ".join(self.story)
        return Fault(f"{what}\n  {story}\n{msgspec.json.encode(short(self.raw)).decode()}\nseed {self.seed}")

    def came_by(self) -> None:
        """The engine has."""
        self.model.now = self.world.now
        self.model.settle()

    def check(self, head: Row, rows: list[Row], edges: Edges) -> None:
        m = self.model
        nodes = {row["id"]: row for row in rows}
        if set(nodes) - {ROLLBACK} != set(m.tasks) | set(m.phases):
            raise self.fault(f"there are {sorted(nodes)}, and should be {sorted([*m.tasks, *m.phases])}")
        wrong = [
            f"{one.id} is {nodes[one.id]['state']} (round {nodes[one.id]['round']}), and should be {one.state} "
            f"(round {one.round})"
            for one in (*m.phases.values(), *m.tasks.values())
            if not self._agree(one.state, nodes[one.id]) or one.round != nodes[one.id]["round"]
        ]  # fmt: skip
        if not self._same_status(head["status"]):
            wrong.append(f"the workflow is {head['status']}, and should be {m.status}")
        if wrong:
            raise self.fault("; ".join(wrong))
        for task in m.released():
            if not task.claimed and not m.paused and nodes[task.id]["state"] == "open":
                raise self.fault(f"{task.id} may run, and nobody is given it")
        self._check_counts(head, nodes, edges)
        self._check_room(head, nodes)
        if not m.is_final() and not self._may_move():
            raise self.fault("stuck")

    def _agree(self, state: str, row: Row) -> bool:
        return row["state"] == state or (row["state"] == "full" and state == "open" and row["kind"] == "task")

    def _same_status(self, status: str) -> bool:
        m = self.model
        if m.status == "running" and not m.is_final():
            active = any((t.kind == "task" and t.state in ("open", "timed", "full")) or t.state in ("timed", "full")
                         for t in m.own())  # fmt: skip
            waiting = bool([t for t in m.asked() if t.phase != ROLLBACK]) or any(t.state == "held" for t in m.own())
            return status == ("paused" if m.paused else "blocked" if waiting and not active and not m.rolling
                              else "running")  # fmt: skip
        return status == m.status

    def _may_move(self) -> bool:
        m = self.model
        return bool(m.paused or m.asked() or self.claims or any(t.state in ("held", "timed") for t in m.tasks.values()))

    def _check_counts(self, head: Row, nodes: dict[str, Row], edges: Edges) -> None:
        tasks = [n for n in nodes.values() if n["kind"] != "phase"]
        own = [n for n in tasks if n["phase"] != ROLLBACK]
        runs = [n for n in tasks if n["state"] == "open" and n["kind"] == "task"]
        counted = {
            "open": sum(n["state"] not in OVER for n in own), "again": sum(n["state"] == "again" for n in own),
            "running": len(runs),
        }  # fmt: skip
        for name, value in counted.items():
            if head[name] != value:
                raise self.fault(f"{name} of the workflow is {head[name]}, and should be {value}")
        for node in nodes.values():
            within = [n for n in tasks if n["parent"] == node["id"]]
            if node["kind"] == "phase":
                within = [n for n in tasks if n["phase"] == node["id"] and n["parent"] is None]
            if node["kind"] == "phase" or (node["kind"] == "fan" and within):
                left = sum(n["state"] not in OVER for n in within)
                if node["state"] == "open" and node["open"] != left:
                    raise self.fault(f"open of {node['id']} is {node['open']}, and should be {left}")
        met = {(src, dst) for src, dst in edges if src in nodes and self.model.satisfied(src)} if edges else set()
        for node in nodes.values():
            if node["state"] == "waiting" and ROLLBACK not in (node["id"], node["phase"]) and not node["parent"]:
                waits = sum(dst == node["id"] and (src, dst) not in met for src, dst in edges)
                if node["kind"] != "phase":
                    waits += nodes[node["phase"]]["state"] != "open"
                if node["waits"] != waits:
                    raise self.fault(f"{node['id']} waits for {node['waits']}, and should for {waits}")

    def _check_room(self, head: Row, nodes: dict[str, Row]) -> None:
        """Nobody has too many, and nobody waits where there is room."""
        busy: Counter[str] = Counter()
        for node in nodes.values():
            if node["kind"] == "task" and node["state"] == "open":
                busy.update(x for x in ("", node["phase"], node["parent"]) if x is not None)
        most = {node["id"]: node["max_parallel"] for node in nodes.values()} | {"": head["max_parallel"]}
        for name, value in most.items():
            if value is not None and busy[name] > value:
                raise self.fault(f"{busy[name]} run in {name!r} of {value}")
        for node in nodes.values():
            if node["state"] == "full" and not self.model.paused and not any(
                most[x] is not None and busy[x] >= most[x] for x in ("", node["phase"], node["parent"]) if x is not None
            ):  # fmt: skip
                raise self.fault(f"{node['id']} waits for room, and there is some")


def short(raw: Raw) -> Raw:
    return {name: value for name, value in raw.items() if name not in ("params", "name")}


async def lead(world: World, lives: Sequence[Life], most: int = 500) -> None:
    """All of them to their ends."""
    chance = random.Random(lives[0].seed)
    await asyncio.gather(*[life.begin() for life in lives])
    left = list(lives)
    for _ in range(most):
        await come_by(world, left, {life.id: life for life in lives})
        left = [life for life in left if not life.done]
        if not left:
            await come_by(world, lives, {life.id: life for life in lives})
            return
        for life in left:
            life.model.now = world.now
        await asyncio.gather(*[life.step() for life in left])
        if chance.random() < 0.2:
            world.clock.advance(chance.choice([1, 3, 10]))
    raise left[0].fault("no end")


async def follow(world: World, raw: Raw, story: str) -> Model:
    """One life through a story: events by lines, of which those of one line come before anybody comes by."""
    life = Life(world, making.complete(raw), 0)
    await life.begin()
    await come_by(world, [life], {life.id: life})
    for line in filter(None, map(str.strip, story.splitlines())):
        for event in line.split("; "):
            await life.told(event)
        await come_by(world, [life], {life.id: life})
    return life.model


async def come_by(world: World, lives: Sequence[Life], by_id: Mapping[str, Life]) -> None:
    """The engine and an executor do all that there is to do."""
    while await world.engine.run_once(world.clock.now()) == 0 or world.is_in_steps():
        pass
    for life in lives:
        life.came_by()
    while claims := (await world.store.claim(ME, 1000)).claims:
        for claim in claims:
            by_id[str(claim.task.workflow_id)].claimed(claim)
    for life in lives:
        life.check(*_rows(world.db, life.id))


def _rows(db: sqlite3.Connection, workflow_id: str) -> tuple[Row, list[Row], Edges]:
    cursor = db.execute("SELECT * FROM workflows WHERE id = ?", (workflow_id,))
    names = [column[0] for column in cursor.description]
    head = dict(zip(names, cursor.fetchone(), strict=True))
    names = ["id", "kind", "state", "phase", "parent", "round", "waits", "open", "failed", "running", "max_parallel"]
    found = db.execute(f"SELECT {', '.join(names)} FROM workflow_nodes WHERE workflow_id = ?", (workflow_id,))
    rows = [dict(zip(names, row, strict=True)) for row in found]
    edges = db.execute("SELECT src, dst FROM workflow_edges WHERE workflow_id = ?", (workflow_id,)).fetchall()
    return head, rows, edges
