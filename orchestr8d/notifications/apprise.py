"""All other channels: Slack, Telegram and a hundred more, by the URLs of Apprise."""

from __future__ import annotations

import logging
from types import ModuleType

from orchestr8d.core import notices
from orchestr8d.core.notices import Notice
from orchestr8d.notifications import Undelivered
from orchestr8d.notifications.threads import in_own_thread

_KINDS = {"task_complete": "success", "milestone": "success", "task_failure": "failure", "alert": "warning",
          "blocker": "warning", "needs_input": "warning"}  # fmt: skip


async def send(url: str, notice: Notice) -> None:
    # The import alone takes a while.
    await in_own_thread(lambda: _deliver(url, notice))


def _deliver(url: str, notice: Notice) -> None:
    sending = _apprise().Apprise()
    if not sending.add(url):
        raise Undelivered(f"Apprise knows no channel like {notices.channel_name(url)}", final=True)
    kind = _KINDS.get(notice.type, "info")
    if not sending.notify(body=notice.message, title=notices.headline(notice), notify_type=kind, body_format="text"):
        raise Undelivered("the channel did not take it")


def _apprise() -> ModuleType:
    try:
        import apprise
    except ImportError:
        raise Undelivered("this channel needs the extra: pip install 'orchestr8d[notify]'", final=True) from None
    # What it says of a URL that it cannot read has the URL's tokens in it.
    logging.getLogger("apprise").propagate = False
    found: ModuleType = apprise
    return found
