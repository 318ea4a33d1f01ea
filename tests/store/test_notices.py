"""Notifications in a store: with their channels and event in one transaction, held, tried, acknowledged, pruned."""

from __future__ import annotations

import json

import msgspec
import pytest

from orchestr8d.clock import FakeClock
from orchestr8d.core.delivery import Made, Secret, Webhook
from orchestr8d.core.errors import Problem
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import Error
from orchestr8d.core.notices import NewNotice, Quiet, User
from orchestr8d.events import Bus
from orchestr8d.store import Store
from orchestr8d.store.types import DeliveryFilter, DueNotice, NoticeFilter, Retention, Told
from tests.store.conftest import LIMITS
from tests.store.helpers import Hand, agent, once, refused

DAY = 86_400


def users(store: Store, **known: User) -> None:
    store.limits = msgspec.structs.replace(store.limits, users=known)


async def notify(store: Store, **more) -> str:
    new = NewNotice(**{"user_id": "ann", "type": "update", "message": "hello"} | more)
    body, _ = await store.notify(new, lambda notice_id: notice_id.encode())
    return body.decode()


async def due(store: Store, busy=()) -> list[DueNotice]:
    return (await store.due_notices(busy, 100))[0]


async def channels(store: Store, notice_id: str) -> list[tuple]:
    return [(c.channel, c.status, c.attempts, c.error) for c in (await store.notice(notice_id))[1]]


async def test_a_notice_its_channels_and_its_event_are_one(store: Store, hand: Hand, clock: FakeClock) -> None:
    users(store, ann=User(("log", "slack://a/b")))
    notice_id = await notify(
        store, title="T", workflow_id="w", task_id="t", metadata={"a": [1]}, type="milestone", priority="low"
    )
    (event,) = await hand.events()
    assert (event.type, event.task_id, event.workflow_id, event.user_id) == ("notification.created", "t", "w", "ann")
    assert json.loads(bytes(event.data)) == {
        "notification_id": notice_id, "user_id": "ann", "notification_type": "milestone", "title": "T",
        "message": "hello", "priority": "low", "workflow_id": "w", "task_id": "t", "metadata": {"a": [1]},
        "created_at": "2026-03-01T09:00:00.000Z", "acked_at": None, "delivered": False, "delivered_at": None,
    }  # fmt: skip
    assert await channels(store, notice_id) == [("log", "pending", 0, None), ("slack://...", "pending", 0, None)]


async def test_who_is_not_configured_has_the_log(store: Store) -> None:
    assert await channels(store, await notify(store)) == [("log", "pending", 0, None)]


async def test_types_that_nobody_wants_told_are_stored(store: Store) -> None:
    users(store, ann=User(("log",), frozenset({"alert"})))
    assert await channels(store, await notify(store)) == []
    assert len(await channels(store, await notify(store, type="alert"))) == 1


async def test_a_request_that_comes_twice_makes_one(store: Store) -> None:
    new = NewNotice(user_id="ann", type="update", message="m")
    first, second = [await store.notify(new, str.encode, once("k")) for _ in range(2)]
    assert (first[1], second[1]) == (False, True) and first[0] == second[0]
    assert len(await store.notices(NoticeFilter(), 10, None)) == 1


async def test_quiet_hours_hold_back(store: Store, clock: FakeClock) -> None:
    # It is nine in the morning.
    users(store, ann=User(("log",), quiet=Quiet(8 * 60, 10 * 60)))
    held = await notify(store)
    critical = await notify(store, priority="critical")
    assert await channels(store, held) == [("log", "held", 0, None)]
    found, next_at = await store.due_notices((), 100)
    assert [one.notice.id for one in found] == [critical]
    assert next_at == clock.now() + 3_600_000
    clock.advance(3600)
    assert {one.notice.id for one in await due(store)} == {held, critical}


async def test_what_is_held_is_looked_at_again_when_users_change(store: Store) -> None:
    users(store, ann=User(("log",), quiet=Quiet(8 * 60, 10 * 60)))
    held = await notify(store)
    assert await due(store) == []
    await store.recheck_held()
    assert [one.notice.id for one in await due(store)] == [held]


async def test_results_are_fenced(store: Store, clock: FakeClock, hand: Hand) -> None:
    notice_id = await notify(store)
    (one,) = await due(store)
    await store.told([Told(one, "pending", clock.now() + 5000, "no answer")])
    assert await channels(store, notice_id) == [("log", "pending", 1, "no answer")]
    await store.told([Told(one, "delivered")])
    assert await channels(store, notice_id) == [("log", "pending", 1, "no answer")]
    assert await due(store) == []
    clock.advance(5)
    (again,) = await due(store)
    assert again.attempts == 1
    await store.told([Told(again, "delivered")])
    notice, ((channel),) = await store.notice(notice_id)
    assert (channel.status, channel.attempts, channel.error) == ("delivered", 2, None)
    assert notice.delivered_at == clock.now()
    # What is settled stays so.
    await store.told([Told(msgspec.structs.replace(again, attempts=2), "dead", error="late")])
    assert await channels(store, notice_id) == [("log", "delivered", 2, None)]


async def test_a_dead_one_raises_an_alert_and_no_notice(store: Store, hand: Hand) -> None:
    notice_id = await notify(store, task_id="t")
    (one,) = await due(store)
    await store.told([Told(one, "dead", error="gone")])
    event = (await hand.events())[-1]
    assert (event.type, event.task_id, event.user_id) == ("alert.raised", "t", "ann")
    assert json.loads(bytes(event.data)) == {
        "alert": "notification_dead", "notification_id": notice_id, "channel": "log", "reason": "gone",
    }  # fmt: skip
    assert len(await store.notices(NoticeFilter(), 10, None)) == 1
    assert (await store.notice(notice_id))[0].delivered_at is None
    assert await store.due_notices((), 100) == ([], None)


async def test_a_dead_channel_and_a_dead_webhook_do_not_feed_each_other(
    store: Store, hand: Hand, clock: FakeClock
) -> None:
    """The subscription hears that the notice did not get through; that it did not hear it is told nobody."""
    store.limits = msgspec.structs.replace(store.limits, ladder=(), users={"ann": User(("http://a:1/x",))})
    for url in ("http://b/", "http://a:1/y"):
        secret = [Secret("whsec_" + "A" * 32)]
        row = Webhook(uuid7(clock.now()), url, ["alert.*"], None, {}, secret, "active", None, clock.now())
        await store.add_webhook(row, b"")
    await notify(store)
    [one] = await due(store)
    await store.told([Told(one, "dead", error="gone")])
    [sending] = (await store.due_deliveries({}, 10, "")).found
    assert sending.delivery.url == "http://b/"
    await store.delivery_done(sending.delivery, Made(0, 500, Error("status", "no")))
    assert [d.status for d in await store.deliveries(DeliveryFilter(), 10, None)] == ["dead"]
    assert len(await store.notices(NoticeFilter(), 10, None)) == 1
    assert (await hand.events())[-1].type == "alert.raised"


async def test_busy_channels_do_not_hide_others(store: Store) -> None:
    users(store, ann=User(("log", "desktop")))
    for _ in range(3):
        await notify(store)
    found, _ = await store.due_notices([("ann", "log")], 3)
    assert [one.channel for one in found] == ["desktop"] * 3


async def test_waits_follow_a_clock_that_is_set_and_quiet_hours_do_not(store: Store, clock: FakeClock) -> None:
    users(store, ann=User(("log",)), bob=User(("log",), quiet=Quiet(8 * 60, 10 * 60)))
    await notify(store)
    held = await notify(store, user_id="bob")
    (one,) = await due(store)
    await store.told([Told(one, "pending", clock.now() + 30_000, "no")])
    clock.step(3600)
    await notify(store, user_id="cy")
    assert {d.notice.user_id for d in await due(store)} == {"bob", "cy"}
    clock.advance(30)
    assert {d.notice.user_id for d in await due(store)} == {"ann", "bob", "cy"}
    assert (await channels(store, held))[0][1] == "held"


async def test_lists(store: Store) -> None:
    made = [
        await notify(store),
        await notify(store, user_id="bob", type="alert"),
        await notify(store, workflow_id="w"),
        await notify(store, type="alert"),
    ]  # fmt: skip
    await store.ack(made[0])

    async def found(limit: int = 10, before: int | None = None, **wanted) -> list[int]:
        return [made.index(n.id) for n in await store.notices(NoticeFilter(**wanted), limit, before)]

    assert await found() == [3, 2, 1, 0]
    assert await found(user_id="ann") == [3, 2, 0]
    assert await found(workflow_id="w") == [2]
    assert await found(types=["alert", "milestone"]) == [3, 1]
    assert await found(unread=True) == [3, 2, 1]
    assert await found(unread=True, user_id="ann", types=["update"]) == [2]
    last = (await store.notices(NoticeFilter(), 2, None))[-1]
    assert await found(before=last.seq) == [1, 0]


async def test_acknowledging(store: Store, clock: FakeClock) -> None:
    ids = [await notify(store), await notify(store), await notify(store, user_id="bob")]
    first = await store.ack(ids[0])
    clock.advance(5)
    assert (await store.ack(ids[0])).acked_at == first.acked_at is not None
    assert await store.ack_all("ann") == 1
    assert await store.ack_all(None) == 1
    assert await store.ack_all(None) == 0
    assert await store.notices(NoticeFilter(unread=True), 10, None) == []
    with pytest.raises(Problem, match="no notification nope"):
        await store.ack("nope")


async def test_acknowledging_more_than_a_step(store: Store) -> None:
    import asyncio

    from orchestr8d.store.sqlite.notices import ACK_STEP

    await asyncio.gather(*(notify(store) for _ in range(ACK_STEP + 1)))
    assert await store.ack_all("ann") == ACK_STEP + 1


async def test_old_ones_go_but_not_what_is_still_to_be_told(store: Store, clock: FakeClock) -> None:
    told, waiting = await notify(store), await notify(store)
    await store.told([Told(one, "delivered") for one in await due(store) if one.notice.id == told])
    clock.advance(DAY + 1)
    fresh = await notify(store)
    while await store.prune_log(Retention(events=float(DAY))):
        pass
    assert [n.id for n in await store.notices(NoticeFilter(), 10, None)] == [fresh, waiting]
    with pytest.raises(Problem, match="no notification"):
        await store.notice(told)
    assert {one.notice.id for one in await due(store)} == {waiting, fresh}


async def test_a_closed_account_is_an_alert(store: Store, hand: Hand) -> None:
    await store.submit([agent()], lambda _: b"")
    (claim,) = await hand.claim()
    await hand.end(claim, refused())
    alerts = await store.notices(NoticeFilter(types=["alert"]), 10, None)
    assert [(n.user_id, n.priority, n.title) for n in alerts] == [("local", "high", "Account default is closed")]
    assert "invalid key" in alerts[0].message or "no more" in alerts[0].message


async def test_a_unit_that_fails_leaves_no_notice(store: Store, hand: Hand) -> None:
    def no(_: str) -> bytes:
        raise Problem("conflict", "no")

    with pytest.raises(Problem):
        await store.notify(NewNotice(user_id="ann", type="update", message="m"), no)
    assert await store.notices(NoticeFilter(), 10, None) == []
    assert await hand.events() == []


async def test_they_are_there_after_a_restart(make_store, bus: Bus) -> None:
    first = await make_store("s")
    users(first, ann=User(("log",)))
    notice_id = await notify(first)
    await first.close()
    second = await make_store("s", LIMITS)
    assert [one.notice.id for one in await due(second)] == [notice_id]
