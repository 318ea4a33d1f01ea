"""The kinds of channels that notifications go to: a function each, by the scheme of the channel's URL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from orchestr8d.core import notices
from orchestr8d.core.notices import Notice


class Undelivered(Exception):
    """Why a channel did not take a notice. `final`: it is of no use to try again; `after`: seconds to wait at least."""

    def __init__(self, reason: str, *, final: bool = False, after: float | None = None) -> None:
        super().__init__(reason)
        self.final = final
        self.after = after


# Brings a notice to the channel of a URL; raises Undelivered.
Send = Callable[[str, Notice], Awaitable[None]]


class Posted(Protocol):
    """What became of a post."""

    @property
    def error(self) -> str | None:
        """None: it was taken."""
        ...

    @property
    def final(self) -> bool: ...
    @property
    def after(self) -> float | None: ...


class Post(Protocol):
    """Sends a signed webhook. `message_id` and `at` (milliseconds) are the same whenever the same is sent."""

    async def __call__(self, url: str, message_id: str, type_: str, at: int, data: object) -> Posted: ...


def channels(post: Post) -> Mapping[str, Send]:
    """By scheme; an empty one stands for all others."""
    from orchestr8d.notifications import apprise, desktop, log, mail, web

    posts = web.sender(post)
    return {
        "log": log.send, "desktop": desktop.send, "mailto": mail.send, "http": posts, "https": posts, "": apprise.send,
    }  # fmt: skip


def sender(channels: Mapping[str, Send], url: str) -> Send:
    return channels.get(notices.scheme(url)) or channels[""]
