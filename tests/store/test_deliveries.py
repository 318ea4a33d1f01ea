"""Deliveries as the store keeps them: written with their events, in order, each endpoint by itself, fenced."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs

from orchestr8d.clock import FakeClock
from orchestr8d.core import delivery as rules
from orchestr8d.core.delivery import Delivery, Made, Secret, Webhook
from orchestr8d.core.errors import LeaseLost, Problem
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import Error
from orchestr8d.core.outcome import Outcome
from orchestr8d.core.payload import LARGEST
from orchestr8d.store import Store
from orchestr8d.store.sqlite import webhooks
from orchestr8d.store.types import Busy, DeliveryFilter, Limits, Retention, Sending
from tests.store.conftest import Make
from tests.store.helpers import DAY, Hand

LADDER = Limits(min_free_disk=0, ladder=(10.0, 100.0), callback_ladder=(1.0,))
GOOD = Made(0, 204)


def bad(status: int | None = 500, kind: str = "status", **more: Any) -> Made:
    return Made(0, status, Error(kind, "no"), **more)


@pytest.fixture(autouse=True)
def ladder(store: Store) -> None:
    store.limits = LADDER


async def subscribe(store: Store, clock: FakeClock, *events: str, url: str = "http://a/", **more: Any) -> Webhook:
    secret = [Secret("whsec_" + "A" * 32)]
    row = Webhook(uuid7(clock.now()), url, list(events or ["task.completed"]), more.pop("user_id", None), {}, secret,
                  "active", None, clock.now(), **more)  # fmt: skip
    await store.add_webhook(row, b"")
    return row


async def due(store: Store, busy: dict[str, Busy] | None = None, most: int = 100) -> list[Sending]:
    return (await store.due_deliveries(busy or {}, most)).found


async def only(store: Store) -> Delivery:
    [sending] = await due(store)
    return sending.delivery


async def rows(store: Store, **wanted: Any) -> list[Delivery]:
    return (await store.deliveries(DeliveryFilter(**wanted), 1000, None))[::-1]


async def statuses(store: Store) -> list[str]:
    return [d.status for d in await rows(store)]


async def test_without_a_subscription_nothing_is_written(store: Store, hand: Hand) -> None:
    await hand.finished()
    assert await rows(store) == []
    assert (await store.due_deliveries({}, 10)).next_due is None


async def test_only_what_was_asked_for(store: Store, hand: Hand, clock: FakeClock) -> None:
    mine = await subscribe(store, clock, "task.*", user_id="me")
    every = await subscribe(store, clock, "*")
    one = await subscribe(store, clock, "task.failed", "executor.started")
    await hand.finished(outcome="exit", user_id="me")
    await hand.finished(user_id="you")
    assert [d.type for d in await rows(store, webhook_id=mine.id)] == [
        "task.created", "task.queued", "task.started", "task.failed",
    ]  # fmt: skip
    assert len(await rows(store, webhook_id=every.id)) == 9  # with the notice of the failure
    assert [d.type for d in await rows(store, webhook_id=one.id)] == ["task.failed"]


async def test_what_failed_with_its_event_is_not_there(store: Store, hand: Hand, clock: FakeClock) -> None:
    await subscribe(store, clock, "task.created")
    with pytest.raises(Problem):
        await hand.add(depends_on=["nobody"])
    assert await rows(store) == []


@pytest.mark.parametrize(
    ("kind", "result", "shown"),
    [("text", b"done", "done"), ("json", b'{"a":[1]}', {"a": [1]}), ("text", None, ""), (None, None, None),
     ("file", None, None)],
)  # fmt: skip
async def test_bodies_of_finals(store: Store, hand: Hand, clock: FakeClock, kind: Any, result: Any, shown: Any) -> None:
    await subscribe(store, clock)
    task = await hand.finished(outcome=Outcome(status="completed", result=result, result_type=kind))
    [sending] = await due(store)
    body = json.loads(sending.body)
    assert body["result"] == body["data"]["result"] == shown
    assert body["task_id"] == body["data"]["task_id"] == task.id
    assert body["data"]["error"] is None and body["timestamp"] == body["data"]["timestamp"]
    assert ("result_url" in body["data"]) == (kind == "file")


@pytest.mark.parametrize("size", [LARGEST // 2 - 1000, LARGEST // 2, LARGEST, LARGEST * 4])
async def test_a_body_is_bounded(store: Store, hand: Hand, clock: FakeClock, size: int) -> None:
    await subscribe(store, clock)
    task = await hand.finished(outcome=Outcome(status="completed", result=b"x" * size, result_type="text"))
    [sending] = await due(store)
    assert len(sending.body) <= LARGEST
    data = json.loads(sending.body)["data"]
    if size < LARGEST // 2 - 500:
        assert data["result"] == "x" * size
    else:
        assert (data["result"], data["result_url"]) == (None, f"/api/v1/tasks/{task.id}/result")


async def test_a_long_message_is_cut(store: Store, hand: Hand, clock: FakeClock) -> None:
    from orchestr8d.core.outcome import failed

    await subscribe(store, clock, "task.failed")
    await hand.finished(outcome=failed("exit", "e" * LARGEST))
    [sending] = await due(store)
    assert len(sending.body) < LARGEST
    assert json.loads(sending.body)["data"]["error"] == {"kind": "exit", "message": "e" * 1000}


async def test_one_first_attempt_an_endpoint_in_log_order(store: Store, hand: Hand, clock: FakeClock) -> None:
    a = await subscribe(store, clock, "task.*")
    b = await subscribe(store, clock, "task.completed", url="http://b/")
    await hand.finished()
    first = await due(store)
    assert {s.delivery.endpoint: s.delivery.type for s in first} == {a.id: "task.created", b.id: "task.completed"}
    busy = {s.delivery.endpoint: Busy({s.delivery.id}, 1) for s in first}
    assert await due(store, busy) == []
    at_a = next(s.delivery for s in first if s.delivery.endpoint == a.id)
    # Failed: it waits, and the next one goes.
    await store.delivery_done(at_a, bad())
    busy.pop(a.id)
    assert [s.delivery.type for s in await due(store, busy)] == ["task.queued"]


async def test_callbacks_of_one_place_are_one_endpoint(store: Store, hand: Hand) -> None:
    for url in ("http://h/1", "HTTP://H:80/2", "http://h:81/3", "https://h/4"):
        await hand.finished(callback_url=url)
    assert [d.endpoint for d in await rows(store)] == ["http://h:80", "http://h:80", "http://h:81", "https://h:443"]
    assert [s.delivery.url for s in await due(store)] == ["http://h/1", "http://h:81/3", "https://h/4"]


async def test_endpoints_get_their_turn_in_a_ring(store: Store, hand: Hand) -> None:
    for host in ("a", "b", "c") * 2:
        await hand.finished(callback_url=f"http://{host}/")
    served, last = [], ""
    for _ in range(6):
        [sending] = (await store.due_deliveries({}, 1, last)).found
        last = sending.delivery.endpoint
        served.append(last)
        await store.delivery_done(sending.delivery, GOOD)
    assert served == ["http://a:80", "http://b:80", "http://c:80"] * 2


async def test_the_ladder(store: Store, hand: Hand, clock: FakeClock) -> None:
    await subscribe(store, clock)
    await hand.finished()
    for wait in (10, 100):
        now = clock.now()
        after = await store.delivery_done(await only(store), bad())
        assert after.next_at is not None and wait * 1000 <= after.next_at - now <= wait * 1200
        assert await due(store) == []
        assert (await store.due_deliveries({}, 10)).next_due == after.next_at
        clock.advance((after.next_at - now) / 1000)
    dead = await store.delivery_done(await only(store), bad())
    assert (dead.status, dead.tries, dead.retry_count, dead.next_at) == ("dead", 3, 2, None)
    assert await due(store) == [] and (await store.due_deliveries({}, 10)).next_due is None


async def test_retry_after_and_a_clock_that_is_set(store: Store, hand: Hand, clock: FakeClock) -> None:
    await subscribe(store, clock)
    await hand.finished()
    now = clock.now()
    after = await store.delivery_done(await only(store), bad(retry_after=50.0))
    assert after.next_at is not None and 50_000 <= after.next_at - now <= 60_000
    clock.step(-7200)
    await hand.add()
    assert (await store.due_deliveries({}, 10)).next_due == after.next_at - 7_200_000


async def test_results_are_fenced(store: Store, hand: Hand, clock: FakeClock) -> None:
    await subscribe(store, clock)
    await hand.finished()
    sent = await only(store)
    await store.delivery_done(sent, bad())
    for made in (GOOD, bad()):
        with pytest.raises(LeaseLost):
            await store.delivery_done(sent, made)
    assert [d.tries for d in await rows(store)] == [1]


@pytest.mark.parametrize("made", [bad(410), bad(None, "forbidden_address")])
async def test_hopeless_is_dead_at_once(store: Store, hand: Hand, clock: FakeClock, made: Made) -> None:
    await hand.finished(callback_url="http://h/")
    assert (await store.delivery_done(await only(store), made)).status == "dead"


async def test_gone_disables_the_subscription_and_what_waits(store: Store, hand: Hand, clock: FakeClock) -> None:
    row = await subscribe(store, clock)
    await hand.finished()
    await hand.finished()
    await store.delivery_done((await due(store))[0].delivery, bad(410))
    assert await statuses(store) == ["dead", "dead"]
    assert (await store.webhook(row.id)).status == "disabled"
    await hand.finished()
    assert len(await rows(store)) == 2
    with pytest.raises(Problem, match="disabled"):
        await store.redeliver((await rows(store))[0].id)
    await store.change_webhook(row.id, rules.activated)
    assert (await store.redeliver((await rows(store))[0].id)).status == "pending"


async def test_redelivery(store: Store, hand: Hand, clock: FakeClock) -> None:
    await subscribe(store, clock)
    await hand.finished()
    [sending] = await due(store)
    await store.delivery_done(sending.delivery, GOOD)
    assert (await store.redeliver(sending.delivery.id)).status == "pending"
    [again] = await due(store)
    assert (again.delivery.id, again.body, again.delivery.tries) == (sending.delivery.id, sending.body, 1)
    await store.delivery_done(again.delivery, bad())
    assert [made.status_code for made in (await rows(store))[0].attempts] == [204, 500]
    # It waits for its retry: now is as good.
    await store.redeliver(sending.delivery.id)
    assert len(await due(store)) == 1


async def test_redelivery_of_all_that_match(store: Store, hand: Hand, clock: FakeClock) -> None:
    row = await subscribe(store, clock)
    tasks = [await hand.finished() for _ in range(3)]
    clock.advance(60)
    late = clock.now()
    tasks.append(await hand.finished(callback_url="http://c/"))
    while found := await due(store):
        for sending in found:
            await store.delivery_done(sending.delivery, GOOD if sending.delivery.webhook_id else bad(410))
    for wanted, count in (
        (DeliveryFilter(status="dead"), 1), (DeliveryFilter(webhook_id=row.id), 4), (DeliveryFilter(since=late), 2),
        (DeliveryFilter(task_id=tasks[0].id), 1), (DeliveryFilter(task_id="nobody"), 0),
    ):  # fmt: skip
        assert await store.redeliver_all(wanted) == count
    assert set(await statuses(store)) == {"pending"}


async def test_removing_a_subscription(store: Store, hand: Hand, clock: FakeClock) -> None:
    row = await subscribe(store, clock)
    await hand.finished()
    await store.remove_webhook(row.id)
    await hand.finished()
    [gone] = await rows(store)
    assert gone.status == "dead" and await due(store) == []
    with pytest.raises(Problem, match="removed"):
        await store.redeliver(gone.id)
    with pytest.raises(Problem, match="no webhook"):
        await store.webhook(row.id)


async def test_it_is_all_there_after_a_restart(make_store: Make, clock: FakeClock) -> None:
    store = await make_store(limits=LADDER)
    await subscribe(store, clock)
    await Hand(store, clock).finished()
    [before] = await due(store)
    await store.close()
    again = await make_store(limits=LADDER)
    assert await due(again) == [before]
    await Hand(again, clock).finished()
    assert len(await rows(again)) == 2


async def test_five_days_of_nothing_but_failures(store: Store, hand: Hand, clock: FakeClock) -> None:
    row = await subscribe(store, clock)
    for day in range(6):
        await hand.finished()
        for sending in await due(store):
            await store.delivery_done(sending.delivery, bad())
        assert (await store.webhook(row.id)).status == ("active" if day < 5 else "paused")
        clock.advance(DAY)
    # One probe at a time, and none before its time.
    [probe] = await due(store)
    assert await due(store, {row.id: Busy({probe.delivery.id}, probe.delivery.fresh)}) == []
    await store.delivery_done(probe.delivery, bad())
    clock.advance(rules.PROBES[1] - 1)
    assert await due(store) == []
    clock.advance(1)
    # What the other end asks for is a minimum here too.
    await store.delivery_done((await due(store))[0].delivery, bad(503, retry_after=7200.0))
    clock.advance(rules.PROBES[2])
    assert await due(store) == []
    clock.advance(7200)
    await store.delivery_done((await due(store))[0].delivery, GOOD)
    assert (await store.webhook(row.id)).status == "active"


async def test_a_new_url_gets_what_waits(store: Store, hand: Hand, clock: FakeClock) -> None:
    row = await subscribe(store, clock)
    await hand.finished()
    await store.change_webhook(row.id, lambda w: structs.replace(w, url="http://b/"))
    assert (await store.delivery_done(await only(store), GOOD)).url == "http://b/"
    assert [d.url for d in await rows(store)] == ["http://b/"]


async def test_what_is_paused_for_too_long_is_disabled(
    store: Store, hand: Hand, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits for ever: a subscription that nobody resumes would fill the disk."""
    monkeypatch.setattr(webhooks, "STEP", 2)
    row = await subscribe(store, clock)
    other = await subscribe(store, clock, "notification.*", url="http://b/")
    await store.change_webhook(row.id, rules.paused)
    for _ in range(5):
        await hand.finished(callback_url="http://c/")
    clock.advance(DAY)
    while await store.prune_log(Retention(deliveries=2 * DAY)):
        pass
    assert (await store.webhook(row.id)).status == "paused"
    clock.advance(DAY + 1)
    while await store.prune_log(Retention(deliveries=2 * DAY)):
        pass
    behind = await store.webhook(row.id)
    assert (behind.status, behind.reason) == ("disabled", "it was paused for longer than deliveries are kept")
    assert {d.status for d in await rows(store, webhook_id=row.id)} == {"dead"}
    # Told once, but not to itself. What is not paused waits for its turn.
    assert [d.type for d in await rows(store, webhook_id=other.id)] == ["notification.created"]
    assert {s.delivery.endpoint for s in await due(store)} == {"http://c:80", other.id}
    await hand.finished()
    assert len(await rows(store, webhook_id=row.id)) == 5


async def test_what_is_left_of_one_that_is_gone_is_not_sent(
    store: Store, hand: Hand, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up in steps; a crash between them leaves some."""
    row = await subscribe(store, clock)
    for _ in range(3):
        await hand.finished()
    monkeypatch.setattr(webhooks, "give_up", lambda *_: False)
    await store.remove_webhook(row.id)
    assert await statuses(store) == ["pending"] * 3 and await due(store) == []
    monkeypatch.undo()
    await store.prune_log(Retention())
    assert await statuses(store) == ["dead"] * 3


async def test_a_clock_that_is_set_moves_the_times_of_a_subscription(
    store: Store, hand: Hand, clock: FakeClock
) -> None:
    now = clock.now()
    row = await subscribe(store, clock, failing_since=now, failures=1)
    await store.change_webhook(row.id, lambda w: rules.rotated(w, "whsec_" + "B" * 32, now))
    clock.step(6 * DAY)
    await hand.finished()
    await store.delivery_done(await only(store), bad())
    after = await store.webhook(row.id)
    assert (after.status, after.failing_since) == ("active", now + 6 * DAY * 1000)
    assert len(rules.signing(after, clock.now())) == 2


async def test_however_often_a_secret_is_replaced(store: Store, clock: FakeClock) -> None:
    row = await subscribe(store, clock)
    for n in range(9):
        row = rules.rotated(row, f"whsec_{n}", clock.now())
    assert rules.signing(row, clock.now()) == ["whsec_8", "whsec_7", "whsec_6", "whsec_5", "whsec_4"]
    assert rules.signing(row, clock.now() + rules.ROTATION) == ["whsec_8"]


async def test_those_that_are_done_go_after_their_keep(store: Store, hand: Hand, clock: FakeClock) -> None:
    await hand.finished(callback_url="http://a/")
    await hand.finished(callback_url="http://b/")
    await store.delivery_done((await due(store))[0].delivery, GOOD)
    clock.advance(2 * DAY)
    await store.prune_log(Retention(deliveries=DAY))
    assert await statuses(store) == ["pending"]
