"""The channel `log`: a line in the daemon's own log."""

from __future__ import annotations

import structlog

from orchestr8d.core import notices
from orchestr8d.core.notices import Notice

# Longer messages are cut here; the store has them whole.
_SHOWN = 2000


async def send(url: str, notice: Notice) -> None:
    structlog.get_logger().info(
        "notification", notification_id=notice.id, user_id=notice.user_id, type=notice.type, priority=notice.priority,
        title=notices.headline(notice), message=notices.one_line(notice.message, _SHOWN), task_id=notice.task_id,
        workflow_id=notice.workflow_id,
    )  # fmt: skip
