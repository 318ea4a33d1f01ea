"""Notifications as data: what one says, whom it is for, which channels it goes to, and when nobody wants to be told."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from typing import Annotated, Any, Final, Literal, get_args
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from orchestr8d.core import addresses, durations, redact

Type = Literal[
    "phase_start", "phase_complete", "task_complete", "task_failure", "milestone", "update", "needs_input",
    "quality_gate", "blocker", "alert",
]  # fmt: skip
TYPES: Final[tuple[str, ...]] = get_args(Type)
# Another word for a type.
ALIASES: Final[Mapping[str, Type]] = {"failure": "task_failure"}
Priority = Literal["low", "normal", "high", "critical"]
Status = Literal["pending", "held", "delivered", "dead"]
DEFAULT_USER: Final = "local"
# Channels that are no URL.
WORDS: Final = ("log", "desktop")
# In a channel's name, for what must not be shown.
HIDDEN: Final = "..."
MOST_METADATA: Final = 64 << 10
_URGENT: Final = frozenset({"task_failure", "needs_input", "blocker", "alert"})
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://[^\s\\]+", re.IGNORECASE)
_ADDRESS: Final = re.compile(r"[^\s,;:<>\"()\[\]@\\]+(?:@[^\s,;:<>\"()\[\]@\\]+)?")
_HOURS: Final = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")
# A part of a path that looks as if nobody could guess it.
_KEY: Final = re.compile(r"(?=[^/]*[0-9])[A-Za-z0-9_.~%-]{16,}")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class NewNotice(Struct, frozen=True, kw_only=True):
    """A notification that somebody shall get. No `priority`: what its type is worth."""

    user_id: str
    type: Type
    message: str
    title: str | None = None
    priority: Priority | None = None
    workflow_id: str | None = None
    task_id: str | None = None
    metadata: dict[str, Any] = {}
    # A URL to whose host and port it does not go: whoever is told of must not be told.
    not_to: str | None = None


class Notice(Struct):
    """A row; times are milliseconds, `metadata` is JSON. `seq` is its place in the order in which they were made."""

    seq: int
    id: str
    user_id: str
    type: Type
    title: str | None
    message: str
    priority: Priority
    workflow_id: str | None
    task_id: str | None
    metadata: str
    created_at: int
    acked_at: int | None = None
    # When the first of its channels had it.
    delivered_at: int | None = None


_Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]


class Notification(Struct):
    """A message for a user. `delivered`: on one channel at least."""

    notification_id: str
    user_id: str
    notification_type: Type
    title: str | None
    message: str
    priority: Priority
    workflow_id: str | None
    task_id: str | None
    metadata: dict[str, Any]
    created_at: _Time
    acked_at: _Time | None
    delivered: bool
    delivered_at: _Time | None


class Delivery(Struct):
    """What became of a notice on one channel, by the channel's name."""

    channel: str
    status: Status
    attempts: int = 0
    error: str | None = None


class Quiet(Struct, frozen=True):
    """Each day from one minute to another, in a zone; over midnight when the second is the earlier one."""

    begin: int
    end: int
    zone: str = "UTC"


class User(Struct, frozen=True):
    """What the configuration says of a user; without it: the log. `channels` are URLs, with their secrets."""

    channels: tuple[str, ...] = ("log",)
    types: frozenset[str] = frozenset(TYPES)
    quiet: Quiet | None = None


NOBODY_SPECIAL: Final = User()


def priority(new: NewNotice) -> Priority:
    return new.priority or ("high" if new.type in _URGENT else "normal")


def headline(notice: Notice) -> str:
    """The title, or the type in words; on one line."""
    return one_line(notice.title or notice.type.replace("_", " ").capitalize())


def one_line(text: str, most: int = 200) -> str:
    """The text without anything that ends a line or steers a terminal."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def shown(notice: Notice) -> Notification:
    """As the API and the log of events have it."""
    n = notice
    created = durations.iso(n.created_at)
    assert created is not None
    return Notification(
        n.id, n.user_id, n.type, n.title, n.message, n.priority, n.workflow_id, n.task_id,
        msgspec.json.decode(n.metadata), created, durations.iso(n.acked_at), n.delivered_at is not None,
        durations.iso(n.delivered_at),
    )  # fmt: skip


def as_created(notice: Notice) -> Notification:
    """As the event of its making has it, whatever became of it: what is sent again is the same."""
    return shown(msgspec.structs.replace(notice, acked_at=None, delivered_at=None))


# -- who is told, where and when


def routed(new: NewNotice, user: User) -> list[str]:
    """The names of the channels that a notice goes to."""
    if new.type not in user.types:
        return []
    avoided = origin(new.not_to) if new.not_to else None
    return [name for name, url in named(user.channels).items() if avoided is None or origin(url) != avoided]


def named(channels: Sequence[str]) -> dict[str, str]:
    """Channels by name: the URL without its secrets, with a number where that alone does not tell them apart."""
    found: dict[str, str] = {}
    for url in channels:
        name, number = channel_name(url), 2
        while name in found:
            name, number = f"{channel_name(url)} ({number})", number + 1
        found[name] = url
    return found


def held_until(priority: Priority, user: User, now: int) -> int | None:
    """When the user's quiet hours end, if they hold this notice back."""
    if user.quiet is None or priority == "critical":
        return None
    return quiet_until(user.quiet, now)


def quiet_until(quiet: Quiet, now: int) -> int | None:
    """When the quiet hours end that it is now; None outside of them. Milliseconds.

    Each evening's are one stretch between two moments, also when the clocks are changed within: an hour that comes
    twice does not make them come twice.
    """
    where = zone(quiet.zone)
    today = (_EPOCH + timedelta(milliseconds=now)).astimezone(where).date()
    over_midnight = timedelta(days=1 if quiet.end <= quiet.begin else 0)
    for day in (today - timedelta(days=1), today):
        end = _at(day + over_midnight, quiet.end, where)
        if _at(day, quiet.begin, where) <= now < end:
            return end
    return None


def zone(name: str) -> tzinfo:
    """KeyError, ValueError or OSError when there is none; UTC is known everywhere."""
    return UTC if name == "UTC" else ZoneInfo(name)


def _at(day: date, minute: int, where: tzinfo) -> int:
    moment = datetime.combine(day, time(*divmod(minute, 60)), where)
    return round((moment - _EPOCH).total_seconds() * 1000)


def read_hours(text: str) -> tuple[int, int]:
    """`"22:00-07:00"` in minutes of the day. ValueError for anything else."""
    m = _HOURS.fullmatch(text)
    if not m or m[1] + m[2] == m[3] + m[4]:
        raise ValueError('expected two different times of the day, like "22:00-07:00"')
    return int(m[1]) * 60 + int(m[2]), int(m[3]) * 60 + int(m[4])


# -- channels


class Mail(Struct, frozen=True):
    """What a `mailto://` says. Without a port: 587 for those who log in, else 25."""

    host: str
    port: int
    sender: str
    to: tuple[str, ...]
    user: str | None = None
    password: str | None = None


def scheme(url: str) -> str:
    """`log`, `desktop`, or the scheme of a URL."""
    return url if url in WORDS else url.partition("://")[0].lower()


def check_channel(url: str) -> None:
    """ValueError says what is wrong with a channel, without its secrets."""
    if url in WORDS:
        return
    if not url.isprintable() or not _SCHEME.fullmatch(url):
        raise ValueError("expected log, desktop, or a URL such as mailto://HOST?from=ME&to=YOU, slack://…, https://…")
    kind = scheme(url)
    if kind == "mailto":
        mail(url)
    elif kind in ("http", "https"):
        try:
            addresses.place(url)
        except ValueError as e:
            raise ValueError(f"{kind}://: {e}") from None


def _is_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def mail(url: str) -> Mail:
    """`mailto://[USER:PASS@]SMTPHOST[:PORT]?from=&to=`; more than one `to`, or a comma list. ValueError."""
    parts = urlsplit(url)
    if not parts.hostname or not _is_port(url) or parts.path not in ("", "/") or parts.fragment:
        raise ValueError("mailto://: expected mailto://[USER:PASS@]SMTPHOST[:PORT]?from=ME&to=YOU")
    query = parse_qs(parts.query)
    if query.keys() - {"from", "to"}:
        raise ValueError("mailto://: after the ? there may be from= and to= only")
    senders = query.get("from", [])
    to = [one.strip() for many in query.get("to", []) for one in many.split(",")]
    if len(senders) != 1 or not to or not all(map(_ADDRESS.fullmatch, [*senders, *to])):
        raise ValueError("mailto://: expected one address in from=, and one or more in to=")
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password or "") if user else None
    port = parts.port or (587 if user else 25)
    return Mail(parts.hostname, port, senders[0], tuple(to), user, password)


def channel_name(url: str) -> str:
    """The channel as it may be shown: without user, password, and what a URL may hold that is as good as one."""
    kind = scheme(url)
    if url in WORDS:
        return url
    if kind not in ("mailto", "http", "https"):
        # Of the others only their makers know which part is the secret; it is often the host.
        return f"{kind}://{HIDDEN}"
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if kind == "mailto":
        return f"mailto://{host}?{urlencode([p for p in parse_qsl(parts.query) if p[0] in ('from', 'to')], safe='@,')}"
    path = "/".join(HIDDEN if _KEY.fullmatch(part) else part for part in parts.path.split("/"))
    return f"{kind}://{host}{path}" + (f"?{HIDDEN}" if parts.query else "")


def without_secrets(text: str, url: str) -> str:
    """What a channel answered, fit to be kept and shown: some of them repeat what they were given."""
    if url not in WORDS:
        parts = urlsplit(url)
        user, at, host = parts.netloc.rpartition("@")
        password = parts.password or ""
        secrets = [url, user + at, password, unquote(password), parts.query]
        if scheme(url) not in ("mailto", "http", "https"):
            secrets += [part for part in (host, *parts.path.split("/")) if len(part) > 3]
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
    return one_line(redact.text(text), 500)


def origin(channel: str) -> str | None:
    """Where an http(s) channel leads to, by its URL or its name."""
    try:
        return addresses.place(channel.partition(" ")[0]).origin
    except ValueError:
        return None
