"""The channel `desktop`: notify-send, where there is one."""

from __future__ import annotations

import html
import shutil
import subprocess

from orchestr8d.core import notices
from orchestr8d.core.notices import Notice
from orchestr8d.notifications import Undelivered
from orchestr8d.notifications.threads import in_own_thread

# Seconds that it may take.
LIMIT = 10.0
# Longer texts are cut: they stand on a screen.
_SHOWN = 1000
_URGENCY = {"low": "low", "normal": "normal", "high": "normal", "critical": "critical"}


async def send(url: str, notice: Notice) -> None:
    program = shutil.which("notify-send")
    if program is None:
        raise Undelivered("there is no notify-send: install libnotify-bin", final=True)
    # The text may hold markup for those who show it; what stands in it is meant as it stands.
    text = html.escape(notices.one_line(notice.message, _SHOWN), quote=False)
    urgency = f"--urgency={_URGENCY[notice.priority]}"
    argv = [program, "--app-name=orchestr8d", urgency, "--", notices.headline(notice), text]
    await in_own_thread(lambda: _run(argv))


def _run(argv: list[str]) -> None:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=LIMIT,
            start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Undelivered(f"notify-send took more than {LIMIT:g} seconds") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise Undelivered(f"notify-send failed: {said or f'exit code {done.returncode}'}")
