"""Random lives of a real store, held against a model after every step."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from orchestr8d.clock import FakeClock
from orchestr8d.core import admission
from orchestr8d.core.errors import Problem
from orchestr8d.core.model import Backoff, NewTask, Task
from orchestr8d.events import Bus
from orchestr8d.store import Store
from orchestr8d.store.types import Claim
from tests.store.conftest import BACKENDS, LIMITS
from tests.store.helpers import Hand, check, every, ids, new
from tests.store.model import FINAL, Conflict, Model, Row, Settings

T = TypeVar("T")
queues = st.sampled_from(["a", "b", "c"])
keys = st.sampled_from([None, None, "k", "l"])
priorities = st.sampled_from([-2, 0, 0, 1, 5])
seconds = st.sampled_from([1, 2, 5, 30, 900, 5000])
outcomes = st.sampled_from(["completed", "exit", "exit", "output_limit", "interrupted", "cancelled"])
pick = st.integers(0, 1_000_000)


class Life(RuleBasedStateMachine):
    """A store and the model, led through the same operations."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self._backend = backend
        self._directory = Path(tempfile.mkdtemp())
        self._runner = asyncio.Runner()
        self._clock = FakeClock()
        self._model = Model(self._clock.now() // 1000)
        self._ids: dict[int, str] = {}
        self._claims: dict[int, Claim] = {}
        self._limits = LIMITS

    def run(self, work: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
        return self._runner.run(work)  # type: ignore[arg-type]

    @initialize()
    def open(self) -> None:
        made = BACKENDS[self._backend](self._directory, "store", self._clock, Bus(), self._limits)
        self._store: Store = self.run(made)
        self._hand = Hand(self._store, self._clock)

    def teardown(self) -> None:
        if hasattr(self, "_store"):
            self.run(self._store.close())
        self._runner.close()
        shutil.rmtree(self._directory)

    def both(self, model: Callable[[], T], store: Callable[[], Awaitable[Any]]) -> tuple[T | None, Any]:
        """Does the same to both; either both refuse or none does."""
        try:
            expected = model()
        except Conflict:
            with pytest.raises(Problem) as caught:
                self.run(store())
            assert caught.value.kind == "conflict"
            return None, None
        return expected, self.run(store())

    def one(self, number: int, *states: str) -> Row | None:
        """Some row, of these states if it can be."""
        rows = list(self._model.rows.values())
        rows = [row for row in rows if row.status in states] or rows
        return rows[number % len(rows)] if rows else None

    def known(self, row: Row, task: Task) -> None:
        assert self._ids.setdefault(row.seq, task.id) == task.id

    # -- submit

    @rule(
        queue=queues, key=keys, priority=priorities, unique=st.sampled_from([None, None, None, "u", "v"]),
        on_conflict=st.sampled_from(["reject", "existing", "replace"]),
        when=st.none() | st.tuples(st.sampled_from(["delay", "run_at"]), seconds),
        depends=st.lists(pick, max_size=2), allow_failed=st.booleans(),
        lasts=st.none() | seconds, max_retries=st.integers(0, 2), backoff=st.sampled_from([1, 10, 1000]),
    )  # fmt: skip
    def submit(
        self, queue: str, key: str | None, priority: int, unique: str | None, on_conflict: Any,
        when: tuple[str, int] | None, depends: list[int], allow_failed: bool, lasts: int | None, max_retries: int,
        backoff: int,
    ) -> None:  # fmt: skip
        deps = sorted({row.seq for number in depends if (row := self.one(number)) is not None})
        time = {} if when is None else {when[0]: when[1] if when[0] == "delay" else self._model.wall + when[1]}
        row = Row(self._next(), queue, priority, key, unique, deps, allow_failed, max_retries, backoff, lasts=lasts)
        given = new(
            queue=queue, concurrency_key=key, priority=priority, unique_key=unique, on_conflict=on_conflict,
            depends_on=[self._ids[d] for d in deps], allow_failed=allow_failed, max_retries=max_retries,
            deadline=None if lasts is None else float(lasts), backoff=Backoff("fixed", float(backoff), jitter=False),
            delay=time.get("delay"), run_at=time["run_at"] * 1000 if "run_at" in time else None,
        )  # fmt: skip
        expected, created = self.both(
            lambda: self._model.submit(row, on_conflict, **time), lambda: self._store.submit([given], ids)
        )
        if expected is not None:
            assert created.existing == (expected is not row)
            self.known(expected, created.tasks[0])

    def _next(self) -> int:
        """A name for the next row: numbers by order of submission."""
        return len(self._ids) + 1

    @rule(number=pick)
    def retry(self, number: int) -> None:
        row = self.one(number, "failed", "cancelled")
        if row is not None:
            expected, created = self.both(
                lambda: self._model.retry(row, self._next()), lambda: self._store.retry(self._ids[row.seq], ids)
            )
            if expected is not None:
                self.known(expected, created.tasks[0])

    # -- steer

    @rule(number=pick)
    def cancel(self, number: int) -> None:
        row = self.one(number)
        if row is not None:
            self.both(lambda: self._model.cancel(row), lambda: self._store.cancel(self._ids[row.seq]))

    @rule(number=pick)
    def pause(self, number: int) -> None:
        row = self.one(number, "pending", "queued")
        if row is not None:
            self.both(lambda: self._model.pause(row), lambda: self._store.pause(self._ids[row.seq]))

    @rule(number=pick)
    def resume(self, number: int) -> None:
        row = self.one(number, "pending")
        if row is not None:
            self.both(lambda: self._model.resume(row), lambda: self._store.resume(self._ids[row.seq]))

    @rule(
        number=pick, priority=priorities, place=st.none() | st.tuples(queues, keys),
        delay=st.sampled_from([None, None, 0, 5, 900]),
    )  # fmt: skip
    def edit(self, number: int, priority: int, place: tuple[str, str | None] | None, delay: int | None) -> None:
        row = self.one(number, "pending", "queued", "retrying")
        if row is None:
            return
        queue, key = place or (row.queue, row.key)

        def change(task: Task) -> NewTask:
            made = admission.as_new(task)
            return msgspec.structs.replace(
                made, priority=priority, queue=queue, concurrency_key=key, delay=delay,
                run_at=made.run_at if delay is None else None,
            )  # fmt: skip

        self.both(
            lambda: self._model.edit(row, priority, queue, key, delay),
            lambda: self._store.edit(self._ids[row.seq], change),
        )

    # -- run

    @rule(free=st.integers(0, 6))
    def claim(self, free: int) -> None:
        expected = self._model.claim(free)
        claims = self.run(self._hand.claim(free))
        names = {task_id: seq for seq, task_id in self._ids.items()}
        assert [names[c.task.id] for c in claims] == expected
        self._claims |= {names[c.task.id]: c for c in claims}

    @precondition(lambda self: any(r.status == "running" for r in self._model.rows.values()))
    @rule(number=pick, outcome=outcomes)
    def finish(self, number: int, outcome: str) -> None:
        row = self.one(number, "running")
        assert row is not None
        self._model.finish(row, outcome)
        self.run(self._hand.end(self._claims.pop(row.seq), outcome))

    # -- around

    @rule(seconds=seconds)
    def time_passes(self, seconds: int) -> None:
        self._clock.advance(seconds)
        self._model.advance(seconds)

    @rule(seconds=st.sampled_from([-86_400, -3600, 60, 86_400]))
    def the_clock_is_set(self, seconds: int) -> None:
        self._clock.step(seconds)
        self._model.wall += seconds

    @rule(
        queue=queues, limit=st.sampled_from([None, None, 1, 2]), paused=st.sampled_from([False, False, True]),
        rate=st.sampled_from([None, None, (1, 5), (2, 900)]),
    )  # fmt: skip
    def queue_is_set(self, queue: str, limit: int | None, paused: bool, rate: tuple[int, int] | None) -> None:
        self._model.queues[queue] = Settings(limit, rate, paused)
        said = None if rate is None else f"{rate[0]}/{rate[1]}s"
        self.run(self._store.put_queue(queue, {"limit": limit, "rate": said, "paused": paused}))

    @rule(per_key=st.integers(1, 3))
    def keys_are_set(self, per_key: int) -> None:
        self._model.per_key = per_key
        self._store.limits = self._limits = msgspec.structs.replace(self._limits, per_key=per_key)
        self.run(self._store.rewindow())

    @rule()
    def restart(self) -> None:
        self._model.restart()
        self.run(self._store.close())
        self.open()

    # -- what holds

    @invariant()
    def they_agree(self) -> None:
        if not hasattr(self, "_store"):
            return
        views = {view.task.id: view for view in self.run(every(self._store))}
        assert len(views) == len(self._model.rows)
        for row in self._model.rows.values():
            task = views[self._ids[row.seq]].task
            assert (task.status, task.queue, task.priority) == (row.status, row.queue, row.priority), row
            assert (task.attempt, task.retry_count, bool(task.paused)) == (row.attempt, row.retries, row.paused), row
            assert (task.unique_slot is not None) == row.holds_key, row
            assert (task.cancel_requested_at is not None) == row.cancel_requested, row
            kinds = {reason.kind for reason in views[task.id].waiting_for}
            assert ("task" in kinds) == any(kind == "task" for kind, _ in row.blockers), row
            assert ("unique" in kinds) == any(kind == "unique" for kind, _ in row.blockers), row
            assert row.status not in FINAL or not kinds
        self.run(check(self._store))


@pytest.mark.slow
@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_random_lives(backend: str) -> None:
    few = settings(
        max_examples=60, stateful_step_count=50, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(lambda: Life(backend), settings=few)
