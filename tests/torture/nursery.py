"""Daemons that start at once: they are forked off a process that has imported everything. `python -m` this with the
number of a socket, over which each comes to be asked for."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

from tests.daemon import Daemon


class Nursery:
    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        argv = [sys.executable, "-m", __name__, str(theirs.fileno())]
        root = Path(__file__).parent.parent.parent
        self._process = subprocess.Popen(argv, cwd=root, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()

    def close(self) -> None:
        self._ours.close()
        self._process.wait(10)

    def start(self, daemon: Daemon, within: float) -> bool:
        """Whether it was ready within so many seconds; it goes on starting if not. AssertionError when it ended."""
        while (said := self._started(daemon, within)) == b"":
            # A child of the one before, which is not yet the program that it is to become, has its lock for a moment.
            assert "there is one already" in daemon.tail().splitlines()[-1], "ended by itself: " + daemon.tail()
            time.sleep(0.01)
        return said is not None

    def _started(self, daemon: Daemon, within: float) -> bytes | None:
        ready, write = os.pipe()
        try:
            asked = {"config": str(daemon.config), "env": daemon.env, "log": str(daemon.log)}
            socket.send_fds(self._ours, [json.dumps(asked).encode()], [write])
            os.close(write)
            daemon.process = cast("subprocess.Popen[bytes]", Child(int(self._ours.recv(100))))
            return os.read(ready, 16) if select.select([ready], [], [], within)[0] else None
        finally:
            os.close(ready)


class Child:
    """What Daemon needs of a Popen; the nursery reaps."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        return None if Path(f"/proc/{self.pid}").exists() else 0

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float = 10) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            assert time.monotonic() < end, f"{self.pid} does not end"
            time.sleep(0.001)
        return 0


def main() -> None:
    from orchestr8d import daemon  # noqa: F401  # what takes long

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    channel = socket.socket(fileno=int(sys.argv[1]))
    while True:
        asked, fds, _, _ = socket.recv_fds(channel, 1 << 20, 1)
        if not asked:
            return
        pid = os.fork()
        if pid == 0:
            channel.close()
            _serve(json.loads(asked), fds[0])
        os.close(fds[0])
        channel.send(str(pid).encode())


def _serve(asked: dict[str, Any], ready: int) -> None:
    from orchestr8d import daemon

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update(asked["env"])
    os._exit(daemon.serve(Path(asked["config"]), log_format="json", ready_fd=ready))


if __name__ == "__main__":
    main()
