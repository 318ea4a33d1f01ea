"""`top`: one frame for a pipe; on a terminal it is redrawn, and whatever ends it, the terminal is as it was."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from orchestr8d.cli.top import shares
from tests.cli.conftest import Box

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("wanted", "room", "given"),
    [
        ([1, 2], 10, [1, 2]),
        ([10, 10], 10, [5, 5]),
        ([10, 2], 6, [4, 2]),
        ([40, 40, 1, 1], 20, [9, 9, 1, 1]),
        ([5, 5], 1, [1, 0]),
        ([3], -4, [0]),
        ([], 5, []),
    ],
)
def test_tables_share_the_screen(wanted: list[int], room: int, given: list[int]) -> None:
    assert shares(wanted, room) == given


@slow
def test_one_frame_for_a_pipe(box: Box) -> None:
    box.out("queue", "set", "held", "--limit", "1")
    box.out("queue", "pause", "held")
    running = box.out("submit", "-o", "title=a long one", "--", "sleep", "300")
    held = box.out("submit", "--queue", "held", "--", "echo", "later\x1b[2J")
    box.wait_until(running, "running")
    frame = box.out("top", "--once")
    assert box.out("top").partition("\n")[2].split("TOOK")[0] == frame.partition("\n")[2].split("TOOK")[0]
    lines = [line.split() for line in frame.splitlines()]
    assert lines[0][:2] == ["1", "running"]
    assert ["RUNNING"] in lines
    row = next(line for line in lines if line[:1] == [running[-8:]])
    assert row[-3:] == ["a", "long", "one"]
    row = next(line for line in lines if line[:1] == [held[-8:]])
    assert row[1:4] == ["queued", "queue_paused", "held"]
    assert ["held", "paused", "1", "-", "1", "0"] in lines
    assert ["LIMITS"] in lines
    assert "\x1b" not in frame
    seen = json.loads(box.out("top", "--json"))
    assert seen.keys() == {"executors", "running", "waiting", "queues", "limits"}
    assert held in [task["id"] for task in seen["waiting"]]
    assert next(task["progress"]["percent"] for task in seen["running"] if task["id"] == running) is None
    box.out("cancel", running, held)


@slow
def test_without_a_daemon_it_says_so(fresh: Box) -> None:
    fresh.run("top", "--once", code=3)


class Screen:
    """`top` on a terminal of its own."""

    def __init__(self, box: Box, ours: int, theirs: int) -> None:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._ours, self._theirs = ours, theirs
        self.before = termios.tcgetattr(theirs)
        self.drawn = ""
        env = box.env | {"TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "orchestr8d", "top"], env=env, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip

    def until(self, text: str, seconds: float = 30) -> None:
        """Until `text` was drawn after now."""
        start, end = len(self.drawn), time.monotonic() + seconds
        while text not in self.drawn[start:]:
            assert time.monotonic() < end, f"{text!r} was not drawn: {self.drawn[start:][-2000:]}"
            self._read(0.2)

    def press(self, keys: str) -> None:
        os.write(self._ours, keys.encode())

    def _read(self, seconds: float) -> bool:
        if not select.select([self._ours], [], [], seconds)[0]:
            return False
        self.drawn += os.read(self._ours, 65536).decode(errors="replace")
        return True

    def ended(self) -> int:
        """The exit code, once all was read that it drew."""
        end = time.monotonic() + 30
        while self.process.poll() is None:
            assert time.monotonic() < end, "it does not end"
            self._read(0.1)
        while self._read(0.1):
            pass
        return self.process.returncode

    def is_restored(self) -> bool:
        entered, left = self.drawn.rfind("\x1b[?1049h"), self.drawn.rfind("\x1b[?1049l")
        shown = self.drawn.rfind("\x1b[?25h") > self.drawn.rfind("\x1b[?25l")
        return 0 <= entered < left and shown and termios.tcgetattr(self._theirs) == self.before


@contextmanager
def screen(box: Box) -> Iterator[Screen]:
    ours, theirs = pty.openpty()
    made = Screen(box, ours, theirs)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait()
        for fd in (ours, theirs):
            with contextlib.suppress(OSError):
                os.close(fd)


@slow
def test_it_is_redrawn_as_things_happen(box: Box) -> None:
    with screen(box) as shown:
        shown.until("QUEUES")
        task = box.out("submit", "-o", "title=new on the screen", "--", "sleep", "300")
        shown.until("new on the screen")
        box.out("cancel", task)
        shown.until("0 running")
        shown.press("q")
        assert shown.ended() == 0
        assert shown.is_restored()


@slow
@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda shown: shown.press("\x03"), 130),
        (lambda shown: shown.process.send_signal(signal.SIGINT), 130),
        (lambda shown: shown.process.send_signal(signal.SIGTERM), 143),
    ],
    ids=["ctrl-c", "SIGINT", "SIGTERM"],
)
def test_whatever_ends_it_the_terminal_is_as_it_was(box: Box, end: Callable[[Screen], None], code: int) -> None:
    with screen(box) as shown:
        shown.until("QUEUES")
        assert termios.tcgetattr(shown._theirs) != shown.before
        end(shown)
        assert shown.ended() == code
        assert shown.is_restored()


@slow
def test_it_goes_on_over_a_restart_of_the_daemon(fresh: Box) -> None:
    fresh.start()
    with screen(fresh) as shown:
        shown.until("LIMITS")
        fresh.kill()
        shown.until("no daemon")
        fresh.start()
        task = fresh.out("submit", "-o", "title=after the restart", "--", "sleep", "300")
        shown.until("after the restart")
        shown.press("q")
        assert shown.ended() == 0
        fresh.out("cancel", task)
