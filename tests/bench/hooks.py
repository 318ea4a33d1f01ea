"""Hooks of Claude Code, which the person at the prompt waits for: against a request that asks for nothing at all."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.lines import Line, in_turns, median
from tests.bench.load import Load
from tests.bench.setting import PAUSED, Setting, put_load
from tests.bench.submits import submitting
from tests.daemon import Daemon
from tests.hook_samples import sample

CONNECTIONS = 8
# The first is for every edit, and makes a task; a second is never met.
RULES = f"""
[[hooks]]
event = "PostToolUse"
tool_name = "Write"
debounce = "5m"
[hooks.task]
command = ["make", "test"]
cwd = "{{{{ hook.cwd }}}}"
options = {{ queue = "{PAUSED}" }}

[[hooks]]
event = "PostToolUse"
tool_name = "NoSuchTool"
[hooks.task]
command = ["true"]
"""
BAR_MS, BAR = 50, 4


@contextmanager
def _submits(daemon: Daemon) -> Iterator[None]:
    """Submits meanwhile, as fast as the daemon takes them."""
    over = threading.Event()

    def submit() -> None:
        while not over.is_set():
            submitting(daemon, 1000)()

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def hooks(setting: Setting) -> list[Line]:
    requests = setting.size.requests // 2
    hook = sample("PostToolUse", tool_name="Write")
    with setting.daemon(config=RULES) as daemon:

        def healthz() -> Load:
            return put_load(daemon, "/healthz", None, requests, CONNECTIONS, "GET", 200)

        def hooked() -> Load:
            return put_load(daemon, "/hooks/claude-code", hook, requests, CONNECTIONS, status=200)

        with _submits(daemon):
            reference, ours = in_turns(setting.size.rounds, healthz, hooked)
        p99, bare = (median([load.p99 * 1000 for load in loads]) for loads in (ours, reference))
    what = "p99 of POST /hooks/claude-code, submits meanwhile"
    return [
        Line(what, p99, "ms", bare, "GET /healthz", BAR, "at most"),
        Line("  the same", p99, "ms", bar=BAR_MS, sense="at most"),
    ]
