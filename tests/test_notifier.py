"""Channels as they are, with real SMTP and HTTP servers and programs: each by itself, in its time, on its ladder."""

from __future__ import annotations

import asyncio
import email.policy
import json
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope
from structlog.testing import capture_logs

from orchestr8d.clock import FakeClock, SystemClock
from orchestr8d.core import addresses, signature
from orchestr8d.core.notices import NewNotice, Notice, Quiet, User
from orchestr8d.events import Bus
from orchestr8d.notifications import Undelivered, channels
from orchestr8d.notifications import mail as mail_channel
from orchestr8d.notifier import LADDER, Notifier
from orchestr8d.outgoing import Outgoing
from orchestr8d.store import Store
from orchestr8d.store.sqlite import open_store
from orchestr8d.store.types import EventFilter, Limits, NoticeFilter
from orchestr8d.webhook_dispatcher import SignedPosts
from tests.daemon import free_port

SECRET = signature.make_secret(b"s" * 32)


class Inbox:
    """What an SMTP server was given."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.envelopes: list[Envelope] = []
        self.answer = "250 OK"
        self.farewell = "221 Bye"

    async def handle_DATA(self, server: object, session: object, envelope: Envelope) -> str:
        if self.answer.startswith("250"):
            self.envelopes.append(envelope)
            self.mails.append(message_from_bytes(envelope.content, policy=email.policy.default))  # type: ignore[arg-type]
        return self.answer

    async def handle_QUIT(self, server: object, session: object, envelope: Envelope) -> str:
        return self.farewell


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, int]]:
    handler = Inbox()

    def login(server: object, session: object, envelope: object, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"me", b"p:w"), handled=False)

    port = free_port()
    controller = Controller(handler, hostname="127.0.0.1", port=port, authenticator=login, auth_require_tls=False)
    controller.start()
    yield handler, port
    controller.stop()


class Sink:
    """A web server that notes what it is sent, and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.port = 0

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((dict(request.headers), await request.read()))
        status, headers = self.answers.pop(0) if self.answers else (204, {})
        return web.Response(status=status, headers=headers)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@pytest.fixture
async def sink() -> AsyncIterator[Sink]:
    found = Sink()
    app = web.Application()
    app.router.add_post("/hook", found.take)
    runner = web.AppRunner(app)
    await runner.setup()
    listening = socket.create_server(("127.0.0.1", 0))
    found.port = listening.getsockname()[1]
    await web.SockSite(runner, listening).start()
    yield found
    await runner.cleanup()


@pytest.fixture
def hole() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


class Box:
    """A store, a notifier over it, and a clock that the test moves."""

    def __init__(self, store: Store, bus: Bus, clock: FakeClock, outgoing: Outgoing) -> None:
        self.store = store
        self.clock = clock
        posts = SignedPosts(clock, outgoing, SECRET, lambda: 2.0)
        self.notifier = Notifier(store, clock, lambda: store.limits.users, channels(posts), lambda: (1.0, 2.0), 2.0)
        bus.observe_work("notices", self.notifier.hint)

    def user(self, *urls: str, **more: Any) -> None:
        self.store.limits = msgspec.structs.replace(self.store.limits, users={"ann": User(urls, **more)})

    async def notify(self, **more: Any) -> str:
        new = NewNotice(**{"user_id": "ann", "type": "update", "message": "hello"} | more)
        return (await self.store.notify(new, str.encode))[0].decode()

    async def turn(self) -> float | None:
        wait = await self.notifier.run_once()
        await self.notifier.idle()
        return wait

    async def states(self, notice_id: str) -> list[tuple[str, int, str | None]]:
        return [(c.status, c.attempts, c.error) for c in (await self.store.notice(notice_id))[1]]


@pytest.fixture
async def box(tmp_path: Path) -> AsyncIterator[Box]:
    clock, bus = FakeClock(), Bus()
    outgoing = Outgoing(lambda: addresses.read_allow(["loopback"]))
    store = await open_store(tmp_path / "o.db", clock=clock, bus=bus, limits=Limits(min_free_disk=0), synchronous="OFF")
    yield Box(store, bus, clock, outgoing)
    await store.close()
    await outgoing.close()


def notice(**more: Any) -> Notice:
    fields = {
        "seq": 1, "id": "0190-id", "user_id": "ann", "type": "update", "title": None, "message": "m",
        "priority": "normal", "workflow_id": None, "task_id": None, "metadata": "{}", "created_at": 1_772_355_600_000,
    }  # fmt: skip
    return Notice(**fields | more)


async def test_the_log(box: Box) -> None:
    box.user("log")
    ids = [await box.notify(title="T", message="hello", task_id="t") for _ in range(3)]
    with capture_logs() as logs:
        await box.turn()
    assert [(line["event"], line["notification_id"]) for line in logs] == [("notification", i) for i in ids]
    assert (logs[0]["title"], logs[0]["message"], logs[0]["task_id"]) == ("T", "hello", "t")
    assert await box.states(ids[0]) == [("delivered", 1, None)]


async def test_mail(box: Box, inbox: tuple[Inbox, int]) -> None:
    handler, port = inbox
    # What was taken is: another try would be a second mail.
    handler.farewell = "554 not so fast"
    box.user(f"mailto://me:p%3Aw@127.0.0.1:{port}?from=o@a.org&to=b@b.org,c@c.org")
    sent = await box.notify(title="Fertig: Grüße", message="Zeile 1\nZeile 2: ✓", type="milestone", task_id="t-1")
    await box.turn()
    assert await box.states(sent) == [("delivered", 1, None)]
    (mail,), (envelope,) = handler.mails, handler.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ("o@a.org", ["b@b.org", "c@c.org"])
    assert (mail["From"], mail["To"], mail["Subject"]) == ("o@a.org", "b@b.org, c@c.org", "Fertig: Grüße")
    assert mail["Message-ID"] == f"<{sent}@orchestr8d>"
    assert mail["Date"] == "Sun, 01 Mar 2026 09:00:00 +0000"
    text = mail.get_content().replace("\r\n", "\n")
    assert text.startswith("Zeile 1\nZeile 2: ✓\n") and "task: t-1" in text and "type: milestone" in text


EVIL = (
    "x\r\nBcc: evil@evil.org\r\n\r\nno body\r\n.\r\nMAIL FROM:<evil@evil.org>\n\rX-Evil: 1\x00\x0b\x0cX-Evil: 2"
    "\u2028X-Evil: 3"
)


@pytest.mark.parametrize("field", ["title", "message", "task_id", "workflow_id", "user_id"])
async def test_text_never_becomes_a_header(box: Box, inbox: tuple[Inbox, int], field: str) -> None:
    handler, port = inbox
    url = f"mailto://127.0.0.1:{port}?from=o@a.org&to=b@b.org"
    told = {"title": "T", field: EVIL}
    box.store.limits = msgspec.structs.replace(box.store.limits, users={told.get("user_id", "ann"): User((url,))})
    sent = await box.notify(**told)
    await box.turn()
    assert await box.states(sent) == [("delivered", 1, None)]
    (mail,), (envelope,) = handler.mails, handler.envelopes
    assert set(mail.keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "Content-Type", "Content-Transfer-Encoding",
        "MIME-Version",
    } | ({"X-Peer", "X-MailFrom", "X-RcptTo"} & set(mail.keys()))  # fmt: skip
    assert envelope.rcpt_tos == ["b@b.org"]
    assert "\n" not in mail["Subject"] and len(mail.get_all("Subject")) == 1
    assert not mail.is_multipart()


async def test_a_mail_server_that_refuses_or_is_not_there(box: Box, inbox: tuple[Inbox, int]) -> None:
    handler, port = inbox
    handler.answer = "550 not you, hunter2"
    refused = f"mailto://127.0.0.1:{port}?from=o@a.org&to=b@b.org"
    with pytest.raises(Undelivered, match="answers 550: not you") as caught:
        await mail_channel.send(refused, notice())
    assert not caught.value.final
    with pytest.raises(Undelivered, match="answers 535"):
        await mail_channel.send(f"mailto://me:wrong@127.0.0.1:{port}?from=o@a.org&to=b@b.org", notice())
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        nobody = s.getsockname()[1]
    with pytest.raises(Undelivered, match=f"no mail server at 127.0.0.1:{nobody}"):
        await mail_channel.send(f"mailto://127.0.0.1:{nobody}?from=o@a.org&to=b@b.org", notice())
    assert handler.mails == []


async def test_a_password_is_not_sent_in_the_clear(inbox: tuple[Inbox, int]) -> None:
    handler, port = inbox
    # It leads to this machine, but does not say so.
    with pytest.raises(Undelivered, match="no encryption: the password is not sent") as caught:
        await mail_channel.send(f"mailto://me:p%3Aw@0.0.0.0:{port}?from=o@a.org&to=b@b.org", notice())
    assert caught.value.final and handler.mails == []
    await mail_channel.send(f"mailto://0.0.0.0:{port}?from=o@a.org&to=b@b.org", notice())
    assert len(handler.mails) == 1


async def test_http_is_signed_and_the_same_again(box: Box, sink: Sink) -> None:
    box.user(sink.url)
    sink.answers = [(500, {}), (503, {"Retry-After": "60"})]
    sent = await box.notify(title="T", metadata={"a": 1})
    await box.turn()
    assert await box.states(sent) == [("pending", 1, "answered with 500")]
    box.clock.advance(1.3)
    await box.store.ack(sent)
    await box.turn()
    box.clock.advance(59)
    await box.turn()
    assert len(sink.got) == 2
    box.clock.advance(15)
    await box.turn()
    assert await box.states(sent) == [("delivered", 3, None)]
    bodies = {body for _, body in sink.got}
    assert len(sink.got) == 3 and len(bodies) == 1
    body = json.loads(bodies.pop())
    assert (body["type"], body["timestamp"]) == ("notification.created", "2026-03-01T09:00:00.000Z")
    # It is what the event says.
    event = (await box.store.events(EventFilter(), 0, 1))[0][0]
    assert body["data"] == json.loads(bytes(event.data))
    assert body["data"]["metadata"] == {"a": 1} and body["data"]["acked_at"] is None
    assert len({headers["webhook-id"] for headers, _ in sink.got}) == 1
    for headers, raw in sink.got:
        at = int(headers["webhook-timestamp"])
        assert headers["webhook-signature"] == signature.sign([SECRET], headers["webhook-id"], at, raw)


async def test_the_http_ladder_ends_and_410_ends_at_once(box: Box, sink: Sink) -> None:
    box.user(sink.url)
    sink.answers = [(500, {})] * 3
    sent = await box.notify()
    for _ in range(4):
        await box.turn()
        box.clock.advance(3)
    assert len(sink.got) == 3
    assert await box.states(sent) == [("dead", 3, "answered with 500")]
    sink.answers = [(410, {})]
    gone = await box.notify()
    await box.turn()
    assert (await box.states(gone))[0][:2] == ("dead", 1)


@pytest.mark.slow
async def test_a_dead_channel_stops_no_other_and_is_not_told_of_itself(
    box: Box, inbox: tuple[Inbox, int], hole: int
) -> None:
    handler, port = inbox
    good = f"mailto://127.0.0.1:{port}?from=o@a.org&to=b@b.org"
    box.user(f"mailto://127.0.0.1:{hole}?from=o@a.org&to=b@b.org", good)
    box.notifier._limit = 0.2
    sent = [await box.notify() for _ in range(2)]
    await box.notifier.run_once()
    async with asyncio.timeout(5):
        while len(handler.mails) < 2:
            await asyncio.sleep(0.01)
    await box.notifier.idle()
    for notice_id in sent:
        assert await box.states(notice_id) == [("pending", 1, "no answer within 0.2 seconds"), ("delivered", 1, None)]
    for wait in LADDER:
        box.clock.advance(wait * 1.2)
        await box.turn()
    with capture_logs():
        await box.turn()
    for notice_id in sent:
        assert [state[:2] for state in await box.states(notice_id)] == [("dead", 4), ("delivered", 1)]
    assert len(handler.mails) == 2
    assert len(await box.store.notices(NoticeFilter(), 10, None)) == 2
    assert await box.store.due_notices((), 10) == ([], None)


async def test_quiet_hours(box: Box, sink: Sink) -> None:
    box.user(sink.url, quiet=Quiet(22 * 60, 7 * 60))
    # Retried into the quiet hours, it waits for their end as well.
    box.clock.advance(13 * 3600 - 1)
    sink.answers = [(500, {})]
    before = await box.notify()
    await box.turn()
    box.clock.advance(2)
    within = await box.notify()
    await box.notify(priority="critical", message="fire")
    await box.turn()
    assert [json.loads(body)["data"]["message"] for _, body in sink.got] == ["hello", "fire"]
    assert [(await box.states(i))[0][:2] for i in (before, within)] == [("held", 1), ("held", 0)]
    box.clock.advance(9 * 3600 - 2)
    assert await box.turn() <= 1.0
    assert len(sink.got) == 2
    box.clock.advance(1)
    await box.turn()
    assert [(await box.states(i))[0][0] for i in (before, within)] == ["delivered", "delivered"]


async def test_a_channel_that_the_configuration_has_no_more(box: Box) -> None:
    box.user("log", "desktop")
    sent = await box.notify()
    box.user("log")
    await box.turn()
    assert await box.states(sent) == [
        ("delivered", 1, None), ("dead", 0, "the configuration has no such channel any more"),
    ]  # fmt: skip


def program(folder: Path, text: str) -> None:
    path = folder / "notify-send"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(0o755)


async def test_the_desktop(box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    send = channels(None)["desktop"]  # type: ignore[arg-type]
    with pytest.raises(Undelivered, match="no notify-send") as caught:
        await send("desktop", notice())
    assert caught.value.final
    program(tmp_path, f"import sys, json; json.dump(sys.argv[1:], open({str(tmp_path / 'said')!r}, 'w'))")
    await send("desktop", notice(title="--help", message="<b>\nx", priority="critical"))
    assert json.loads((tmp_path / "said").read_text()) == [
        "--app-name=orchestr8d", "--urgency=critical", "--", "--help", "&lt;b&gt; x",
    ]  # fmt: skip
    program(tmp_path, "import sys; sys.exit('no display')")
    with pytest.raises(Undelivered, match="notify-send failed: no display"):
        await send("desktop", notice())


async def test_with_nothing_to_tell_it_sleeps_until_a_hint(box: Box) -> None:
    assert await box.turn() is None
    box.user("log")
    await box.notify()
    assert await box.turn() is not None
    assert await box.turn() is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:apprise")
async def test_apprise(sink: Sink, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    send = channels(None)[""]  # type: ignore[arg-type]
    await send(f"json://127.0.0.1:{sink.port}/hook", notice(title="T\r\nX: y", message="m", type="alert"))
    body = json.loads(sink.got[0][1])
    assert (body["title"], body["message"], body["type"]) == ("T X: y", "m", "warning")
    sink.answers = [(500, {})]
    with pytest.raises(Undelivered, match="did not take it") as caught:
        await send(f"json://127.0.0.1:{sink.port}/hook", notice())
    assert not caught.value.final
    with pytest.raises(Undelivered, match=r"no channel like nosuch://\.\.\.") as caught:
        await send("nosuch://hunter2", notice())
    assert caught.value.final
    with pytest.raises(Undelivered, match=r"no channel like discord://\.\.\."):
        await send("discord://hunter2hunter2", notice())
    assert "hunter2" not in caplog.text + "".join(capfd.readouterr())


async def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(Undelivered, match=r"pip install 'orchestr8d\[notify\]'") as caught:
        await channels(None)[""]("slack://a/b/c", notice())  # type: ignore[arg-type]
    assert caught.value.final


async def test_the_loop_tells_as_notices_come(tmp_path: Path, sink: Sink) -> None:
    bus, clock = Bus(), SystemClock()
    outgoing = Outgoing(lambda: addresses.read_allow(["loopback"]))
    store = await open_store(tmp_path / "o.db", clock=clock, bus=bus, limits=Limits(min_free_disk=0))
    box = Box(store, bus, clock, outgoing)  # type: ignore[arg-type]
    box.user(sink.url)
    sink.answers = [(500, {})]
    # What an earlier daemon left is told as well.
    await box.notify(message="before")
    loop = asyncio.create_task(box.notifier.run())
    box.notifier._http_ladder = lambda: (0.05,)

    async def until(count: int) -> None:
        async with asyncio.timeout(10):
            while len(sink.got) < count:
                await asyncio.sleep(0.005)

    await until(2)
    await box.notify(message="after")
    await until(3)
    assert [json.loads(body)["data"]["message"] for _, body in sink.got] == ["before", "before", "after"]
    loop.cancel()
    await asyncio.gather(loop, return_exceptions=True)
    await store.close()
    await outgoing.close()
