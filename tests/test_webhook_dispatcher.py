"""Deliveries on their way: to a real receiver, which verifies with the library that receivers use."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from standardwebhooks import Webhook as Verifier

from orchestr8d import webhook_dispatcher
from orchestr8d.clock import SystemClock
from orchestr8d.core import addresses, delivery, signature
from orchestr8d.core.delivery import Delivery, Secret, Webhook
from orchestr8d.core.errors import Problem
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import NewTask, Spec
from orchestr8d.events import Bus
from orchestr8d.outgoing import Outgoing, lookup
from orchestr8d.store.sqlite import SqliteStore, open_store
from orchestr8d.store.types import DeliveryFilter, EventFilter, Limits
from orchestr8d.webhook_dispatcher import WebhookDispatcher
from tests.store.helpers import Hand, ids

OWN = signature.make_secret(b"o" * 32)
SECRET = signature.make_secret(b"s" * 32)
LADDER = (0.05, 0.05)


class Sink:
    """A receiver: answers each request as `answer` says, and keeps it."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.port = 0
        self.answer: Callable[[web.Request, int], Awaitable[web.StreamResponse]] = self.fine

    async def fine(self, request: web.Request, number: int) -> web.StreamResponse:
        return web.Response(text="thanks")

    async def take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((f"{request.method} {request.path}", headers, body))
        return await self.answer(request, len(self.got))

    def url(self, path: str = "/in") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def bodies(self, path: str = "/in") -> list[Any]:
        return [json.loads(body) for where, _, body in self.got if where.endswith(f" {path}")]

    def types(self, path: str = "/in") -> list[str]:
        return [body["type"] for body in self.bodies(path)]


def then(*statuses: int, **headers: str) -> Callable[[web.Request, int], Awaitable[web.StreamResponse]]:
    """Answers with these in turn; the last one stays."""

    async def answer(request: web.Request, number: int) -> web.StreamResponse:
        status = statuses[min(number, len(statuses)) - 1]
        extra = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=f"said {status}", headers=extra)

    return answer


class World:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = SystemClock()
        self.bus = Bus()
        self.allow = addresses.Allow()
        self.find = lookup
        self.limits = Limits(min_free_disk=0, ladder=LADDER, callback_ladder=LADDER)
        self.limit = 15.0
        self.store: SqliteStore
        self._running: asyncio.Task[None] | None = None
        self._outgoing: Outgoing | None = None

    async def open(self) -> None:
        self.store = await open_store(
            self.path, clock=self.clock, bus=self.bus, limits=self.limits, synchronous="OFF"
        )  # fmt: skip
        self.hand = Hand(self.store, self.clock)  # type: ignore[arg-type]  # only its now() is used

    def start(self) -> None:
        self._outgoing = Outgoing(lambda: self.allow, lambda host: self.find(host))
        dispatcher = WebhookDispatcher(self.store, self.clock, self._outgoing, OWN, lambda: self.limit)
        self.bus.observe_work("deliveries", dispatcher.hint)
        self._running = asyncio.create_task(dispatcher.run())

    async def kill(self) -> None:
        """The dispatcher is gone in the middle of whatever it does."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
            self._running = None
        if self._outgoing is not None:
            await self._outgoing.close()

    async def subscribe(self, url: str, *events: str, **more: Any) -> Webhook:
        now = self.clock.now()
        row = Webhook(
            uuid7(now), url, list(events or ["task.*"]), more.pop("user_id", None), more.pop("headers", {}),
            [Secret(SECRET)], "active", None, now, **more,
        )  # fmt: skip
        await self.store.add_webhook(row, b"x")
        return row

    async def run(self, **options: Any) -> str:
        """A task that ended."""
        spec = Spec(command=["true"], **options)
        task = (await self.store.submit([NewTask(spec=spec)], ids)).tasks[0]
        await self.hand.end(await self.hand.start(task))
        return task.id

    async def deliveries(self, **wanted: Any) -> list[Delivery]:
        """Oldest first."""
        return (await self.store.deliveries(DeliveryFilter(**wanted), 1000, None))[::-1]

    async def settled(self, count: int = 1, **wanted: Any) -> list[Delivery]:
        """Once there are `count` deliveries, and none is on its way."""
        found: list[Delivery] = []
        async with asyncio.timeout(20):
            while len(found) < count or any(d.status == "pending" for d in found):
                await asyncio.sleep(0.01)
                found = await self.deliveries(**wanted)
        return found

    async def log(self, *types: str) -> list[Any]:
        events, _ = await self.store.events(EventFilter(types=types), 0, 10_000)
        return [(event.type, json.loads(bytes(event.data))) for event in events]


async def until(fact: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not fact():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def listening(sink: Sink) -> AsyncIterator[Sink]:
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", sink.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    sink.port = runner.addresses[0][1]
    yield sink
    await runner.cleanup()


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    async with listening(Sink()) as one:
        yield one


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(webhook_dispatcher, "LINGER", 0)
    made = World(tmp_path / "o.db")
    await made.open()
    yield made
    await made.kill()
    await made.store.close()


def verify(secret: str, request: tuple[str, dict[str, str], bytes]) -> None:
    """Raises when the library does not find it genuine."""
    Verifier(secret).verify(request[2], request[1])


async def test_a_final_state_is_posted_and_verifies(world: World, sink: Sink) -> None:
    await world.subscribe(sink.url(), "task.completed", headers={"X-Team": "blue"})
    world.start()
    task_id = await world.run()
    [sent] = await world.settled()
    [request] = sink.got
    where, headers, body = request
    assert where == "POST /in"
    assert (headers["content-type"], headers["x-team"]) == ("application/json", "blue")
    assert headers["webhook-id"] == sent.id
    verify(SECRET, request)
    said = json.loads(body)
    assert list(said) == ["type", "timestamp", "data", "task_id", "status", "workflow_id", "result"]
    assert (said["type"], said["task_id"], said["status"]) == ("task.completed", task_id, "completed")
    assert {"task_id", "status", "workflow_id", "result", "error", "timestamp"} <= said["data"].keys()
    assert (sent.status, sent.attempts[0].status_code, sent.attempts[0].body) == ("delivered", 200, "thanks")
    [(_, told)] = await world.log("webhook.delivered")
    assert (told["delivery_id"], told["task_id"], told["status_code"]) == (sent.id, task_id, 200)


async def test_callbacks_are_signed_with_the_daemons_own_secret(world: World, sink: Sink) -> None:
    world.start()
    task_id = await world.run(callback_url=sink.url("/done"), callback_method="PUT")
    [sent] = await world.settled()
    assert sink.got[0][0] == "PUT /done"
    verify(OWN, sink.got[0])
    assert (sent.webhook_id, sent.task_id, sent.status) == (None, task_id, "delivered")


async def test_retries_keep_id_and_body_and_renew_time_and_signature(world: World, sink: Sink) -> None:
    await world.subscribe(sink.url(), "task.completed")
    sink.answer = then(500, 404, 200)
    world.start()
    await world.run()
    [sent] = await world.settled()
    assert (sent.status, sent.tries, sent.retry_count) == ("delivered", 3, 2)
    assert [made.status_code for made in sent.attempts] == [500, 404, 200]
    assert len({headers["webhook-id"] for _, headers, _ in sink.got}) == 1
    assert len({body for _, _, body in sink.got}) == 1
    for request in sink.got:
        verify(SECRET, request)
    assert [t for t, _ in await world.log("webhook.*")] == ["webhook.failed", "webhook.failed", "webhook.delivered"]


@pytest.mark.slow
async def test_a_redelivery_is_the_same_message_signed_anew(world: World, sink: Sink) -> None:
    await world.subscribe(sink.url(), "task.completed")
    world.start()
    await world.run()
    [sent] = await world.settled()
    first = int(sink.got[0][1]["webhook-timestamp"])
    while int(time.time()) == first:
        await asyncio.sleep(0.02)
    await world.store.redeliver(sent.id)
    await until(lambda: len(sink.got) == 2)
    (_, old, body), (_, new, same) = sink.got
    assert (old["webhook-id"], body) == (new["webhook-id"], same)
    assert int(new["webhook-timestamp"]) > first
    assert old["webhook-signature"] != new["webhook-signature"]
    verify(SECRET, sink.got[1])


async def test_both_secrets_sign_while_they_rotate(world: World, sink: Sink) -> None:
    row = await world.subscribe(sink.url(), "task.completed")
    new = signature.make_secret(b"n" * 32)
    await world.store.change_webhook(row.id, lambda w: delivery.rotated(w, new, world.clock.now()))
    world.start()
    await world.run()
    await world.settled()
    verify(SECRET, sink.got[0])
    verify(new, sink.got[0])
    with pytest.raises(Exception, match="signature"):
        verify(OWN, sink.got[0])


async def test_nothing_is_lost_when_the_dispatcher_is_killed(world: World, sink: Sink) -> None:
    """Killed after it was sent, before the answer: it is sent again, as the same message."""
    await world.subscribe(sink.url(), "task.completed")
    never = asyncio.Event()

    async def hang(request: web.Request, number: int) -> web.StreamResponse:
        if number == 1:
            await never.wait()
        return web.Response()

    sink.answer = hang
    world.start()
    await world.run()
    await until(lambda: len(sink.got) == 1)
    await world.kill()
    assert [d.status for d in await world.deliveries()] == ["pending"]
    world.start()
    [sent] = await world.settled()
    assert sent.status == "delivered"
    assert len({(headers["webhook-id"], body) for _, headers, body in sink.got}) == 1 and len(sink.got) == 2
    never.set()


async def test_what_is_under_way_at_a_stop_may_end(world: World, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_dispatcher, "LINGER", 10)

    async def slowly(request: web.Request, number: int) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return web.Response()

    sink.answer = slowly
    await world.subscribe(sink.url(), "task.completed")
    world.start()
    await world.run()
    await until(lambda: len(sink.got) == 1)
    await world.kill()
    assert [d.status for d in await world.deliveries()] == ["delivered"]


async def test_first_attempts_go_one_at_a_time_in_the_order_of_the_log(world: World, sink: Sink) -> None:
    await world.subscribe(sink.url())
    at_once = most = 0

    async def slowly(request: web.Request, number: int) -> web.StreamResponse:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.005)
        at_once -= 1
        return web.Response()

    sink.answer = slowly
    world.start()
    for _ in range(3):
        await world.run()
    sent = await world.settled(12)
    assert most == 1
    assert sink.types() == [d.type for d in sorted(sent, key=lambda d: d.place)]
    assert sink.types() == ["task.created", "task.queued", "task.started", "task.completed"] * 3


async def test_one_that_waits_for_its_retry_holds_nobody(world: World, sink: Sink) -> None:
    world.store.limits = Limits(min_free_disk=0, ladder=(3600.0,))
    await world.subscribe(sink.url(), "task.completed")
    sink.answer = then(500, 200)
    world.start()
    first, second = await world.run(), await world.run()
    await until(lambda: len(sink.got) == 2)
    await until_status(world, second, "delivered")
    [waits] = await world.deliveries(task_id=first)
    assert waits.status == "pending" and waits.next_at > world.clock.now() + 3_500_000


async def until_status(world: World, task_id: str, status: str) -> None:
    async with asyncio.timeout(20):
        while [d.status for d in await world.deliveries(task_id=task_id)] != [status]:
            await asyncio.sleep(0.01)


async def test_slow_and_dead_endpoints_hold_nobody_else(world: World, sink: Sink) -> None:
    never = asyncio.Event()

    async def hang(request: web.Request, number: int) -> web.StreamResponse:
        if request.path == "/slow":
            await never.wait()
        return web.Response()

    sink.answer = hang
    slow = await world.subscribe(sink.url("/slow"), "task.completed")
    await world.subscribe("http://127.0.0.1:1/", "task.completed")
    fine = await world.subscribe(sink.url(), "task.completed")
    world.start()
    for _ in range(5):
        await world.run()
    assert {d.status for d in await world.settled(5, webhook_id=fine.id)} == {"delivered"}
    assert [d.status for d in await world.deliveries(webhook_id=slow.id)] == ["pending"] * 5
    assert len(sink.types("/slow")) == 1
    never.set()


async def test_given_up_and_told_but_not_to_the_one_that_failed(world: World, sink: Sink) -> None:
    """A subscription to everything whose endpoint fails gets nothing about that; the other one is told."""
    sink.answer = then(503)
    bad = await world.subscribe(sink.url("/bad"), "*")
    async with listening(Sink()) as good:
        other = await world.subscribe(good.url(), "webhook.*", "notification.*")
        world.start()
        await world.run()
        dead = await world.settled(4, webhook_id=bad.id)
        await world.settled(1, webhook_id=other.id)
        assert {(d.status, d.tries) for d in dead} == {("dead", 3)}
        assert set(sink.types("/bad")) == {"task.created", "task.queued", "task.started", "task.completed"}
        assert good.types().count("webhook.dead") == 4
        notes = [b["data"] for b in good.bodies() if b["type"] == "notification.created"]
        assert len(notes) == 4
        assert all(n["notification_type"] == "alert" and sink.url("/bad") in n["message"] for n in notes)
        # 4 of the task; of each of 4 deliveries 3 failures, an end and a notice. Nothing tells of what told of those.
        assert len(await world.log()) == 4 + 4 * 5


async def test_subscriptions_to_everything_do_not_feed_each_other(world: World, sink: Sink) -> None:
    one = await world.subscribe(sink.url("/one"), "*")
    two = await world.subscribe(sink.url("/two"), "*")
    world.start()
    await world.run()
    # 4 of the task, and 4 that tell of the other's.
    assert len(await world.settled(8, webhook_id=one.id)) == len(await world.settled(8, webhook_id=two.id)) == 8
    assert len(await world.log()) == 4 + 8


async def test_many_endpoints_do_not_starve_the_last_ones(world: World, sink: Sink, monkeypatch: Any) -> None:
    """Less may be under way than there are endpoints, and each has more to send than comes to an end."""
    monkeypatch.setattr(webhook_dispatcher, "MOST", 1)

    async def find(host: str) -> list[str]:
        return ["127.0.0.1"]

    world.find = find
    for _ in range(3):
        for name in "abc":
            await world.run(callback_url=f"http://{name}.test:{sink.port}/{name}")
    world.start()
    await world.settled(9)
    assert [where[-1] for where, _, _ in sink.got] == ["a", "b", "c"] * 3


async def test_gone_disables_and_a_callback_is_dead_at_once(world: World, sink: Sink) -> None:
    sink.answer = then(410)
    row = await world.subscribe(sink.url(), "task.completed")
    world.start()
    await world.run(callback_url=sink.url("/done"))
    assert [(d.status, d.tries) for d in await world.settled(2)] == [("dead", 1)] * 2
    assert (await world.store.webhook(row.id)).status == "disabled"
    await world.run()
    assert len(await world.deliveries()) == 2


async def test_paused_after_twenty_failures_probed_and_resumed(world: World, sink: Sink, monkeypatch: Any) -> None:
    monkeypatch.setattr(delivery, "PROBES", (0.05,))
    world.store.limits = Limits(min_free_disk=0, ladder=(3600.0,))
    sink.answer = then(*[500] * 22, 200)
    row = await world.subscribe(sink.url(), "task.completed")
    world.start()
    for _ in range(24):
        await world.run()
    async with asyncio.timeout(20):
        while not await world.log("webhook.resumed"):
            await asyncio.sleep(0.01)
    assert (await world.store.webhook(row.id)).status == "active"
    assert len(await world.log("webhook.paused")) == 1
    # 20 failed; two probes failed, one of them did not: after that the rest goes.
    async with asyncio.timeout(20):
        while sum(d.status == "delivered" for d in await world.deliveries()) < 4:
            await asyncio.sleep(0.01)
    titles = [data["title"] for _, data in await world.log("notification.created")]
    assert titles == ["A webhook is paused", "A webhook goes on"]


async def test_paused_by_a_person_holds_until_resumed(world: World, sink: Sink) -> None:
    row = await world.subscribe(sink.url(), "task.completed")
    await world.store.change_webhook(row.id, delivery.paused)
    world.start()
    await world.run()
    tried = await world.store.test_webhook(row.id)
    await until(lambda: len(sink.got) == 1)
    assert (sink.types(), sink.got[0][1]["webhook-id"]) == (["webhook.test"], tried.id)
    await world.store.change_webhook(row.id, delivery.activated)
    await world.settled(2)
    assert sink.types() == ["webhook.test", "task.completed"]


async def test_retry_after_is_a_minimum(world: World, sink: Sink) -> None:
    sink.answer = then(429, Retry_After="7200")
    await world.subscribe(sink.url(), "task.completed")
    world.start()
    task_id = await world.run()
    await until(lambda: len(sink.got) == 1)
    async with asyncio.timeout(20):
        while not (sent := (await world.deliveries(task_id=task_id))[0]).tries:
            await asyncio.sleep(0.01)
    assert 7_190_000 < sent.next_at - world.clock.now() < 7_200_000 * 1.2


async def test_redirects_are_not_followed(world: World, sink: Sink) -> None:
    sink.answer = then(302, Location="/elsewhere")
    await world.subscribe(sink.url(), "task.completed")
    world.start()
    await world.run()
    [sent] = await world.settled()
    assert (sent.status, sent.attempts[-1].status_code) == ("dead", 302)
    assert sink.bodies("/elsewhere") == []


async def test_what_answers_too_late_or_too_much(world: World, sink: Sink) -> None:
    world.limit = 0.1

    async def answer(request: web.Request, number: int) -> web.StreamResponse:
        if number == 1:
            await asyncio.sleep(1)
        return web.Response(body=b"x" * 1_000_000)

    sink.answer = answer
    await world.subscribe(sink.url(), "task.completed")
    world.start()
    await world.run()
    [sent] = await world.settled()
    assert [made.error and made.error.kind for made in sent.attempts] == ["timeout", None]
    assert sent.attempts[1].body == "x" * 4096


async def test_a_status_counts_though_its_body_never_ends(world: World, sink: Sink) -> None:
    world.limit = 0.2
    never = asyncio.Event()

    async def answer(request: web.Request, number: int) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"taken")
        await never.wait()
        return response

    sink.answer = answer
    await world.subscribe(sink.url(), "task.completed")
    world.start()
    await world.run()
    [sent] = await world.settled()
    assert (sent.status, sent.tries, sent.attempts[0].body, len(sink.got)) == ("delivered", 1, "taken", 1)
    never.set()


async def test_no_proxy_of_the_environment(world: World, sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    await world.subscribe(sink.url(), "task.completed")
    world.start()
    await world.run()
    assert [d.status for d in await world.settled()] == ["delivered"]


@pytest.mark.parametrize("found", [["169.254.169.254"], ["127.0.0.1", "10.0.0.1"], ["::ffff:10.0.0.1"], ["::"]])
async def test_a_name_with_a_forbidden_address_is_dead_at_once(world: World, sink: Sink, found: list[str]) -> None:
    async def find(host: str) -> list[str]:
        assert host == "hook.test"
        return found

    world.find = find
    await world.subscribe(f"http://hook.test:{sink.port}/in", "task.completed")
    world.start()
    await world.run()
    [sent] = await world.settled()
    assert (sent.status, sent.tries, sent.attempts[0].error.kind) == ("dead", 1, "forbidden_address")
    assert sink.got == []


async def test_the_address_that_was_checked_is_connected_to(world: World, sink: Sink) -> None:
    """The name leads elsewhere when it is looked up again: it is not looked up again."""
    looked = 0

    async def find(host: str) -> list[str]:
        nonlocal looked
        looked += 1
        return ["127.0.0.1"] if looked == 1 else ["169.254.169.254"]

    world.find = find
    await world.subscribe(f"http://hook.test:{sink.port}/in", "task.completed")
    world.start()
    await world.run()
    [sent] = await world.settled()
    assert (sent.status, looked) == ("delivered", 1)
    assert sink.got[0][1]["host"] == f"hook.test:{sink.port}"


async def test_a_literal_that_is_allowed_no_more(world: World, sink: Sink) -> None:
    await world.subscribe(sink.url(), "task.completed")
    world.allow = addresses.Allow(loopback=False)
    world.start()
    await world.run()
    [sent] = await world.settled()
    assert (sent.status, sent.attempts[0].error.kind) == ("dead", "forbidden_address")
    assert sink.got == []


@pytest.mark.parametrize("error", [Problem("unavailable", "full"), RuntimeError("a defect")])
async def test_a_result_that_cannot_be_recorded_is_kept(
    world: World, sink: Sink, monkeypatch: Any, error: Exception
) -> None:
    """A 2xx counts once it is on disk; until then the endpoint gets nothing else, and nothing twice."""
    monkeypatch.setattr(webhook_dispatcher, "PATIENCE", 0.02)
    record, refused = world.store.delivery_done, 0

    async def refuse(*args: Any) -> Delivery:
        nonlocal refused
        refused += 1
        if refused < 3:
            raise error
        return await record(*args)

    monkeypatch.setattr(world.store, "delivery_done", refuse)
    await world.subscribe(sink.url(), "task.completed")
    world.start()
    await world.run()
    [sent] = await world.settled()
    assert (sent.status, refused, len(sink.got)) == ("delivered", 3, 1)
