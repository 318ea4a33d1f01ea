"""How attempts end: fenced, retried, interrupted, adopted, past their deadline."""

from __future__ import annotations

import msgspec
import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core.errors import LeaseLost, Problem
from orchestr8d.core.model import Backoff, Error, Progress, Resources
from orchestr8d.core.outcome import RETRIED, Outcome, failed
from orchestr8d.store import Store
from tests.store.helpers import ME, Hand, every, executor, new

FIXED = Backoff("fixed", base=10.0, jitter=False)


async def test_an_outcome_is_kept(hand: Hand, clock: FakeClock) -> None:
    claim = await hand.start(await hand.add())
    clock.advance(3)
    outcome = Outcome(
        status="completed", exit_code=0, result_type="json", result=b'{"a":1}', output_bytes=7,
        resources=Resources(1.5, 1 << 20), files_created=["out.txt"],
    )  # fmt: skip
    task = await hand.end(claim, outcome)
    assert (task.status, task.result_type, task.completed_at) == ("completed", "json", clock.now())
    result = await hand.store.result(task.id)
    assert result.body == b'{"a":1}'
    assert result.task == task
    attempt = result.attempt
    assert attempt is not None
    assert [attempt] == await hand.store.attempts(task.id)
    assert (attempt.status, attempt.exit_code, attempt.ended_at, attempt.output_bytes) == (
        "completed", 0, clock.now(), 7,
    )  # fmt: skip
    assert msgspec.json.decode(attempt.resources or "", type=Resources) == outcome.resources
    assert msgspec.json.decode(attempt.files_created or "") == ["out.txt"]
    said = msgspec.json.decode((await hand.events(task))[-1].data)
    assert (said["status"], said["run_seconds"], said["exit_code"]) == ("completed", 3.0, 0)
    assert await hand.store.running() == []


async def test_a_failure_is_kept(hand: Hand) -> None:
    outcome = failed("exit", "exit status 3", exit_code=3, signal=None, result=b"text", result_type="text")
    task = await hand.finished(outcome=outcome)
    result = await hand.store.result(task.id)
    assert (task.status, task.read_error(), task.result_type) == ("failed", Error("exit", "exit status 3"), "text")
    assert result.body == b"text"
    assert result.attempt is not None
    assert msgspec.json.decode(result.attempt.error or "", type=Error) == task.read_error()
    assert await hand.story(task) == ["created", "queued", "started", "failed"]


@pytest.mark.parametrize("stranger", ["executor", "attempt", "task", "twice", "earlier attempt"])
async def test_a_finish_is_fenced(hand: Hand, clock: FakeClock, stranger: str) -> None:
    claim, other = await hand.start(await hand.add(max_retries=1)), await hand.start(await hand.add())
    task_id, attempt_id, who = claim.task.id, claim.attempt.id, ME
    if stranger == "executor":
        who = "executor-2"
    elif stranger == "attempt":
        attempt_id = "no"
    elif stranger == "task":
        attempt_id = other.attempt.id
    elif stranger == "twice":
        await hand.end(claim)
    else:
        await hand.end(claim, "exit")
        clock.advance(10)
        await hand.start(claim.task)
    before = (await every(hand.store), await hand.events(), await hand.store.attempts(task_id))
    with pytest.raises(LeaseLost):
        await hand.store.finish(task_id, attempt_id, who, Outcome(status="completed", result=b"stale"))
    assert (await every(hand.store), await hand.events(), await hand.store.attempts(task_id)) == before


async def test_an_interruption_keeps_rank_and_retries(hand: Hand, clock: FakeClock) -> None:
    first = await hand.add("first", max_retries=1)
    await hand.add("second")
    claim = (await hand.claim(1))[0]
    clock.advance(60)
    task = await hand.end(claim, "interrupted")
    assert (task.status, task.rank, task.queued_at, task.retry_count) == ("queued", first.rank, first.queued_at, 0)
    assert (await hand.store.attempts(task.id))[0].status == "interrupted"
    assert await hand.story(task) == ["created", "queued", "started", "queued"]
    claims = await hand.claim()
    assert [c.task.read_spec().command for c in claims] == [["first"], ["second"]]
    assert claims[0].attempt.number == 2


async def test_an_interrupted_one_of_a_key_comes_first_again(hand: Hand) -> None:
    tasks = await hand.add_all(*[new(concurrency_key="k") for _ in range(3)])
    (claim,) = await hand.claim()
    await hand.end(claim, "interrupted")
    assert [c.task.id for c in await hand.claim()] == [tasks[0].id]


async def test_retries_with_backoff(hand: Hand, clock: FakeClock) -> None:
    task = await hand.add(max_retries=2, backoff=Backoff("exponential", base=4.0, jitter=False))
    for retry, wait in ((1, 4), (2, 8)):
        row = await hand.end(await hand.start(task), "exit")
        assert (row.status, row.retry_count, row.wake_at) == ("retrying", retry, clock.now() + wait * 1000)
        assert row.read_error() == Error("exit", "it was exit")
        assert await hand.waits(task) == ["backoff"]
        assert await hand.next_due() == row.wake_at
        clock.advance(wait - 0.001)
        assert await hand.claim() == []
        clock.advance(0.001)
    row = await hand.end(await hand.start(task), "exit")
    assert (row.status, row.retry_count, row.attempt) == ("failed", 2, 3)
    assert [a.status for a in await hand.store.attempts(task.id)] == ["failed"] * 3
    story = ["created", *["queued", "started", "retrying"] * 2, "queued", "started", "failed"]
    assert await hand.story(task) == story


async def test_success_after_a_retry_has_no_error(hand: Hand, clock: FakeClock) -> None:
    task = await hand.add(max_retries=1)
    await hand.end(await hand.start(task), "exit")
    clock.advance(2)
    row = await hand.end(await hand.start(task))
    assert (row.status, row.error, row.retry_count) == ("completed", None, 1)


async def test_a_retry_goes_to_the_end_of_the_line(hand: Hand, clock: FakeClock) -> None:
    await hand.end(await hand.start(await hand.add("retried", max_retries=1, backoff=FIXED)), "exit")
    clock.advance(5)
    await hand.add("in between")
    clock.advance(5)
    assert await hand.names() == ["in between", "retried"]


@pytest.mark.parametrize(
    "kind", ["exit", "signal", "timeout", "stalled", "check", "lost", "not_found", "output_limit", "deadline"]
)
async def test_which_errors_are_retried(hand: Hand, kind: str) -> None:
    task = await hand.finished(outcome=kind, max_retries=1)
    assert task.status == ("retrying" if kind in RETRIED else "failed")
    assert (kind in RETRIED) == (kind not in ("not_found", "output_limit", "deadline"))


async def test_on_failure_fail_is_not_retried(hand: Hand) -> None:
    assert (await hand.finished(outcome="exit", max_retries=5, on_failure="fail")).status == "failed"


async def test_no_retry_past_the_deadline(hand: Hand, clock: FakeClock) -> None:
    for left, status in ((10.001, "retrying"), (10.0, "failed")):
        task = await hand.add(max_retries=1, backoff=FIXED, deadline=20.0)
        claim = await hand.start(task)
        clock.advance(20 - left)
        row = await hand.end(claim, "exit")
        assert (row.status, row.read_error()) == (status, Error("exit", "it was exit"))


# -- deadlines


@pytest.mark.parametrize("state", ["pending", "paused", "blocked", "queued", "keyed", "paused queue", "retrying"])
async def test_a_deadline_ends_what_waits(hand: Hand, clock: FakeClock, state: str) -> None:
    if state == "pending":
        task = await hand.add(deadline=60.0, delay=100.0)
    elif state == "blocked":
        other = await hand.add(queue="paused")
        await hand.store.put_queue("paused", {"paused": True})
        task = await hand.add(deadline=60.0, depends_on=[other.id])
    elif state == "keyed":
        await hand.start(await hand.add(concurrency_key="k"))
        task = await hand.add(deadline=60.0, concurrency_key="k")
    elif state == "retrying":
        backoff = Backoff("fixed", base=59.0, jitter=False)
        task = await hand.finished(outcome="exit", deadline=60.0, max_retries=1, backoff=backoff)
        assert task.status == "retrying"
    else:
        task = await hand.add(deadline=60.0, queue="q")
        if state == "paused":
            await hand.store.pause(task.id)
        if state == "paused queue":
            await hand.store.put_queue("q", {"paused": True})
    dependent = await hand.add(depends_on=[task.id])
    clock.advance(59.999 if state != "retrying" else 58.999)
    await hand.claim(0)
    assert await hand.status(task) not in ("failed", "running")
    clock.advance(0.001 if state != "retrying" else 1.001)
    assert task.id not in [c.task.id for c in await hand.claim()]
    row = await hand.store.task(task.id)
    assert (row.status, (row.read_error() or Error("", "")).kind) == ("failed", "deadline")
    assert await hand.status(dependent) == "failed"


async def test_a_deadline_wakes_the_queue(hand: Hand, clock: FakeClock) -> None:
    await hand.store.put_queue("q", {"paused": True})
    await hand.add(deadline=60.0, queue="q")
    assert await hand.next_due() == clock.now() + 60_000


async def test_a_running_task_has_its_deadline_kept_by_its_runner(hand: Hand, clock: FakeClock) -> None:
    claim = await hand.start(await hand.add(deadline=60.0))
    clock.advance(61)
    await hand.claim()
    assert await hand.status(claim.task) == "running"
    assert (await hand.end(claim, "deadline")).status == "failed"


async def test_nothing_of_a_crowd_starts_past_its_deadline(hand: Hand, clock: FakeClock) -> None:
    await hand.add_all(*[new(deadline=5.0) for _ in range(1000)])
    await hand.add("fresh")
    clock.advance(5)
    assert await hand.names() == ["fresh"]
    while await hand.next_due() is not None:
        pass
    assert (await hand.store.counts())["queued"] == 0


# -- adoption


async def test_what_an_earlier_executor_left_is_adopted(hand: Hand, store: Store) -> None:
    claims = [await hand.start(await hand.add(str(i))) for i in range(3)]
    await store.register(executor("executor-2"))
    left = await store.running()
    assert {c.attempt.id for c in left} == {c.attempt.id for c in claims}
    assert all(c.task.status == "running" for c in left)
    await store.adopt("executor-2", [claims[0].attempt.id, claims[1].attempt.id, "no such"])
    with pytest.raises(LeaseLost):
        await hand.end(claims[0])
    assert (await hand.end(claims[0], executor_id="executor-2")).status == "completed"
    assert (await hand.end(claims[1], "interrupted", executor_id="executor-2")).status == "queued"
    assert (await hand.end(claims[2])).status == "completed"
    assert (await store.task(claims[0].task.id)).executor_id == "executor-2"


async def test_nothing_that_ended_is_adopted(hand: Hand, store: Store) -> None:
    claim = await hand.start(await hand.add())
    done = await hand.end(claim)
    await store.adopt("executor-2", [claim.attempt.id])
    assert await store.task(done.id) == done
    assert (await store.attempts(done.id))[0].executor_id == ME


# -- progress


async def test_progress_is_of_the_running_attempt(hand: Hand, clock: FakeClock) -> None:
    claim = await hand.start(await hand.add(max_retries=1))
    assert (await hand.step(40, claim)).read_progress() == Progress(40, "so far")
    await hand.store.progress(claim.task.id, claim.attempt.id, Progress(current_step="only a step"))
    assert (await hand.store.task(claim.task.id)).read_progress() == Progress(40, "only a step")
    said = [msgspec.json.decode(e.data) for e in await hand.events(claim.task) if e.type == "task.progress"]
    assert [(s.get("percent"), s["current_step"]) for s in said] == [(40, "so far"), (40, "only a step")]
    await hand.end(claim, "exit")
    with pytest.raises(Problem):
        await hand.step(50, claim)
    clock.advance(2)
    again = await hand.start(claim.task)
    assert again.task.progress is None
    with pytest.raises(Problem):
        await hand.step(60, claim)
    await hand.step(70, again)
    await hand.end(again)
    with pytest.raises(Problem):
        await hand.step(80, again)


async def test_one_that_is_let_go_just_when_its_deadline_passes(hand: Hand, clock: FakeClock) -> None:
    """What it waited for ends by a deadline of its own, at the same moment."""
    first = await hand.add(deadline=60.0, queue="paused")
    await hand.store.put_queue("paused", {"paused": True})
    second = await hand.add(deadline=60.0, depends_on=[first.id], allow_failed=True)
    clock.advance(60)
    assert await hand.claim() == []
    assert await hand.statuses(first, second) == ["failed", "failed"]
