"""The channels `http://` and `https://`: a signed webhook `notification.created`."""

from __future__ import annotations

import hashlib

from orchestr8d.core import notices
from orchestr8d.core.notices import Notice
from orchestr8d.notifications import Post, Send, Undelivered


def sender(post: Post) -> Send:
    async def send(url: str, notice: Notice) -> None:
        # One for each endpoint: two of them may sort out doubles together.
        message_id = f"msg_{notice.id}_{hashlib.blake2s(url.encode(), digest_size=4).hexdigest()}"
        data = notices.as_created(notice)
        posted = await post(url, message_id, "notification.created", notice.created_at, data)
        if posted.error is not None:
            raise Undelivered(posted.error, final=posted.final, after=posted.after)

    return send
