"""Ranks with ageing, the window over a key, what a queue has room for, and the choice among candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from orchestr8d.core import admission, claims
from orchestr8d.core.admission import Admitted, Facts, rank
from orchestr8d.core.durations import rate
from orchestr8d.core.model import AgentSpec, NewTask, Queue, Spec, Task

HEAD_START = 900.0
priorities = st.integers(-100, 100)


def task(seq: int, queued_at: int = 0, priority: int = 0, key: str | None = None, queue: str = "default") -> Task:
    new = NewTask(spec=Spec(command=["x"]), priority=priority, concurrency_key=key, queue=queue)
    made = admission.admit(new, Facts(), f"t{seq}", seq, queued_at)
    assert isinstance(made, Admitted)
    return made.task


def choose(tasks: Sequence[Task], free: int, key_free: Mapping[str, int], queue: int = 1000) -> list[Task]:
    """A choice among tasks that need no account."""
    chosen = claims.choose(tasks, free, key_free, {t.queue: queue for t in tasks}, lambda t: t.seq)
    assert all(t.seq == entry for t, entry in chosen)
    return [t for t, _ in chosen]


# -- ranks


@given(st.integers(0, 1 << 45), priorities, priorities, st.floats(0, 86_400))
def test_nothing_starves(now: int, low: int, high: int, head_start: float) -> None:
    """What is better by n points overtakes only within n head starts of waiting; after that, nothing new does."""
    bound = round((high - low) * head_start * 1000)
    mine = rank(now, low, head_start)
    assert mine < rank(now + max(bound, 0) + 2, high, head_start)
    if high > low and bound > 2:
        assert rank(now + bound - 2, high, head_start) < mine


@given(st.lists(st.tuples(st.integers(0, 10_000_000), priorities), max_size=50))
def test_a_task_is_overtaken_only_by_the_better_and_not_for_ever(arrivals: list[tuple[int, int]]) -> None:
    tasks = [task(seq, at, priority) for seq, (at, priority) in enumerate(arrivals)]
    chosen = choose(tasks, len(tasks), {})
    assert sorted(t.seq for t in chosen) == sorted(t.seq for t in tasks)
    for i, first in enumerate(chosen):
        for later in chosen[i + 1 :]:
            waited = first.queued_at - later.queued_at  # type: ignore[operator]
            assert waited <= (first.priority - later.priority) * HEAD_START * 1000 or waited <= 0


@given(st.integers(0, 1 << 45), priorities, st.integers(0, 1 << 45), st.none() | st.just("k"))
def test_queued_at_never_runs_backwards(now: int, priority: int, last: int, key: str | None) -> None:
    new = NewTask(spec=Spec(command=["x"]), priority=priority, concurrency_key=key)
    made = admission.admit(new, Facts(last_queued_at=last), "t", 1, now)
    assert isinstance(made, Admitted)
    assert made.task.queued_at == max(now, last)
    assert made.task.rank == rank(max(now, last), priority, HEAD_START)


# -- queues


@given(
    st.integers(1, 20), st.integers(1, 100), st.lists(st.integers(0, 300_000), max_size=40),
    st.integers(300_000, 400_000),
)  # fmt: skip
def test_a_rate_opens_just_when_there_is_room(starts: int, period: int, at: list[int], now: int) -> None:
    queue = Queue("q", rate=f"{starts}/{period}s")
    assert rate(queue.rate or "") == (starts, period)

    def recent(t: int) -> list[int]:
        return [s for s in sorted(at) if t - period * 1000 < s <= t]

    opens = claims.open_at(queue, recent(now))
    assert (opens is None) == (claims.capacity(queue, recent(now)) > 0)
    if opens is not None:
        assert opens > now
        assert claims.capacity(queue, recent(opens)) > 0
        assert claims.capacity(queue, recent(opens - 1)) == 0


def test_capacity() -> None:
    assert claims.capacity(Queue("q"), []) > 1_000_000
    assert claims.capacity(Queue("q", limit=3, running=1), []) == 2
    assert claims.capacity(Queue("q", limit=1, running=3), []) == 0
    assert claims.capacity(Queue("q", limit=5, paused=True), []) == 0
    assert claims.capacity(Queue("q", limit=5, running=1, rate="3/m"), [1, 2]) == 1
    assert claims.open_at(Queue("q"), [1, 2, 3]) is None


# -- keys


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 100)), max_size=30), st.integers(-2, 4),
    st.sets(st.integers(0, 29)),
)  # fmt: skip
def test_the_window_opens_the_first_of_each_queue(waiting: list[tuple[str, int]], free: int, opened: set[int]) -> None:
    tasks = [task(seq, at, key="k", queue=queue) for seq, (queue, at) in enumerate(waiting)]
    ordered = sorted(tasks, key=lambda t: (t.rank, t.seq))
    first = [t for queue in "ab" for t in [t for t in ordered if t.queue == queue][: max(free, 0)]]
    open_now = [t for t in tasks if t.seq in opened]
    change = claims.window(first, open_now, free)
    after = ({t.seq for t in open_now} | set(change.open)) - set(change.hold)
    assert after == {t.seq for t in first}
    assert not set(change.open) & {t.seq for t in open_now}
    assert set(change.hold) <= {t.seq for t in open_now}


@given(
    st.lists(st.tuples(st.integers(0, 50), st.sampled_from([None, "k", "l"])), max_size=30), st.integers(0, 10),
    st.dictionaries(st.sampled_from(["k", "l"]), st.integers(-1, 3)),
)  # fmt: skip
def test_the_choice_respects_rank_and_keys(
    arrivals: list[tuple[int, str | None]], free: int, some: dict[str, int]
) -> None:
    key_free = {"k": 1, "l": 1} | some
    tasks = [task(seq, at, key=key) for seq, (at, key) in enumerate(arrivals)]
    chosen = choose(tasks, free, key_free)
    assert len(chosen) <= free
    assert chosen == sorted(chosen, key=lambda t: (t.rank, t.seq))
    for key in "kl":
        assert sum(t.concurrency_key == key for t in chosen) <= max(key_free[key], 0)
    if chosen:
        # Whoever comes before the last one and was not chosen could not run.
        last = (chosen[-1].rank, chosen[-1].seq)
        for t in tasks:
            if (t.rank, t.seq) < last and t not in chosen:
                assert t.concurrency_key is not None
                assert key_free[t.concurrency_key] <= 0
    elif free:
        assert all(t.concurrency_key is not None and key_free[t.concurrency_key] <= 0 for t in tasks)


def test_a_choice_ends_where_a_key_is_used_up() -> None:
    tasks = [task(1, 1, key="k"), task(2, 2, key="k"), task(3, 3)]
    assert [t.seq for t in choose(tasks, 3, {"k": 1})] == [1]
    assert [t.seq for t in choose(tasks, 3, {"k": 2})] == [1, 2, 3]
    assert [t.seq for t in choose(tasks, 3, {"k": 0})] == [3]
    assert msgspec.structs.asdict(tasks[0])["hold"] == "concurrency_key"


def test_a_choice_keeps_to_what_a_queue_has_free_over_its_lanes() -> None:
    tasks = [task(n, n, queue="ab"[n % 2]) for n in range(6)]
    assert [t.seq for t in choose(tasks, 6, {}, queue=2)] == [0, 1, 2, 3]


def test_one_that_gets_no_place_uses_nothing_up() -> None:
    tasks = [task(1, 1, key="k"), task(2, 2, key="k"), task(3, 3)]
    chosen = claims.choose(tasks, 2, {"k": 1}, {"default": 2}, lambda t: None if t.seq == 1 else t)
    assert [t.seq for t, _ in chosen] == [2, 3]


def test_lanes() -> None:
    assert claims.lane(None) == ""
    assert claims.lane(AgentSpec("a")) == "claude"
    assert claims.lane(AgentSpec("a", account="work")) == "claude:work"
