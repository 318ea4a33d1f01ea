"""The keeper and the link to it when the other side misbehaves, or the machine does."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestr8d import keeper
from orchestr8d.clock import SystemClock
from orchestr8d.core.ids import uuid7
from orchestr8d.keeper import record
from orchestr8d.processes import Child, Exit, Files, Launch, NotFound, Processes, Unwatched, child, table
from orchestr8d.processes import files as reading
from orchestr8d.processes.link import Link
from orchestr8d.processes.tree import Self
from tests.running import running, until


class Alone:
    """A keeper, with the test in the daemon's place."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ours, its = socket.socketpair()
        with its:
            self.process = subprocess.Popen(keeper.command(1024, "boot"), stdin=its.fileno(), start_new_session=True)
        self._said = self.ours.makefile("rb")

    def ask(self, number: int, script: str, **more: Any) -> Path:
        """Answers where its exit file will be."""
        base = f"{self.root}/{number}"
        request = {
            "request": number, "argv": ["sh", "-c", script], "env": {"PATH": os.environ["PATH"]}, "cwd": "/",
            "exit_file": f"{base}.exit", "stdin": "/dev/null", "stdout": f"{base}.stdout", "stderr": f"{base}.stderr",
            "anew": False, "tag": number,
        }  # fmt: skip
        self.ours.sendall(json.dumps(request | more).encode() + b"\n")
        return Path(f"{base}.exit")

    def hear(self) -> dict[str, Any]:
        return json.loads(self._said.readline())  # type: ignore[no-any-return]

    def close(self) -> None:
        self._said.close()
        self.ours.close()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Alone]:
    made = Alone(tmp_path)
    yield made
    made.close()
    made.process.wait(10)


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    made = Processes(SystemClock())
    yield made
    await made.close()


def launch(root: Path, *argv: str) -> Launch:
    env = {"PATH": os.environ["PATH"]}
    return Launch(uuid7(0), argv, str(root), env, Files(f"{root}/{uuid7(0)}"))


async def finish(processes: Processes, started: Child) -> Exit:
    await asyncio.wait_for(started.exited, 10)
    return await processes.settle(started)


async def test_a_daemon_that_dies_with_unread_messages(alone: Alone, tmp_path: Path) -> None:
    """The kernel tells the keeper so by an error, not by the end of its input."""
    exit_file = alone.ask(1, "until [ -e go ]; do sleep 0.01; done; exit 5", cwd=str(tmp_path))
    await until(lambda: exit_file.exists() and record.parse(exit_file.read_bytes())[1])
    alone.close()
    await asyncio.sleep(0.05)
    (tmp_path / "go").touch()
    assert alone.process.wait(10) == 0
    assert record.parse(exit_file.read_bytes())[0] == 5


async def test_a_request_that_cannot_be_is_no_end_of_the_keeper(alone: Alone) -> None:
    all_odd: list[dict[str, Any]] = [{"cwd": "/\0"}, {"env": {"A\0": ""}}, {"argv": ["sh", "\ud800"]}]
    for number, odd in enumerate(all_odd):
        alone.ask(number, "", **odd)
        said = alone.hear()
        assert (said["is"], said["request"]) == ("refused", number), said
    alone.ask(9, "exit 4")
    assert [alone.hear()["is"], alone.hear()["status"]] == ["started", 4]


async def test_a_daemon_that_does_not_listen_for_a_while(alone: Alone) -> None:
    """More is told than the socket holds: nothing is lost."""
    count = 400
    asking = asyncio.to_thread(lambda: [alone.ask(n, "", argv=["false"]) for n in range(count)])
    asked = asyncio.create_task(asking)
    await until(lambda: len(list(alone.root.glob("*.exit"))) > 100)
    await asyncio.sleep(0.1)
    said = [await asyncio.to_thread(alone.hear) for _ in range(2 * count)]
    assert sorted(m["request"] for m in said if m["is"] == "ended") == list(range(count))
    assert {record.parse(path.read_bytes())[0] for path in await asked} == {1}


async def test_a_pid_that_is_given_again_before_its_end_was_told() -> None:
    link = Link(1, lambda link, words: None)
    ours, its = socket.socketpair()
    with its:
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        tasks = [asyncio.create_task(link.start(launch(Path("/"), "true"), 1)) for _ in range(2)]
        await asyncio.sleep(0)
        for number in (1, 2):
            link.data_received(json.dumps({"is": "started", "request": number, "pid": 7}).encode() + b"\n")
        first, second = await asyncio.gather(*tasks)
        for number, status in ((1, 3), (2, 4)):
            end = {"is": "ended", "request": number, "status": status, "cpu": 0, "rss": 0, "left": False}
            link.data_received(json.dumps(end).encode() + b"\n")
        assert (first.exited.result().status, second.exited.result().status) == (3, 4)
        link.close()


async def test_what_the_system_will_not_run(processes: Processes, tmp_path: Path) -> None:
    """It looks like a program, so only the attempt to run it tells: the command is at fault, not the daemon."""
    shutil.copy("/bin/true", tmp_path / "busy")
    for name, text in (("missing", "#!/nope/nope\n"), ("closed", "#!/etc/passwd\n"), ("self", f"#!{tmp_path}/self\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    with (tmp_path / "busy").open("r+b"):
        for name in ("missing", "closed", "self", "busy") * 10:
            with pytest.raises(NotFound, match=name):
                await processes.spawn(launch(tmp_path, f"./{name}"))


async def test_started_by_somebody_who_ignores_the_ends_of_children(tmp_path: Path) -> None:
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        processes = Processes(SystemClock())
        assert (await finish(processes, await processes.spawn(launch(tmp_path, "false")))).status == 1
        await processes.close()
    finally:
        signal.signal(signal.SIGCHLD, old)


async def test_a_keeper_that_talks_nonsense(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not talked to any more, nor left."""
    script = "read -r line; echo nonsense >&0; exec sleep 300"
    monkeypatch.setattr(keeper, "command", lambda *_: ["/bin/sh", "-c", script])
    with pytest.raises(Unwatched):
        await asyncio.wait_for(processes.spawn(launch(tmp_path, "true")), 10)
    await until(lambda: not processes._known.keepers)
    ours = [p for p in table.snapshot().values() if p.alive and p.ppid == os.getpid()]
    assert [p for p in ours if "read -r line" in " ".join(table.command_line(p.pid))] == []


async def test_a_keeper_that_dies_at_once_or_cannot_be_had(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(keeper, "command", lambda *_: ["/bin/false"])
        for _ in range(5):
            with pytest.raises(Unwatched):
                await processes.spawn(launch(tmp_path, "true"))
        patch.setattr(keeper, "command", lambda *_: ["/nope/python"])
        with pytest.raises(OSError, match="nope"):
            await processes.spawn(launch(tmp_path, "true"))
    assert (await finish(processes, await processes.spawn(launch(tmp_path, "true")))).status == 0
    await until(lambda: len(processes._known.keepers) == 1)


# A keeper that is killed in the middle of a start: what it has begun is still in its session.
_FORMING = """\
import json, os, resource, signal, time
request = json.loads(os.read(0, 1 << 20))
resource.setrlimit(10, (request["tag"], resource.getrlimit(10)[1]))
forming = not os.fork()
os.close(0)
if not forming:
    signal.pause()
time.sleep(0.2)
os.setsid()
os.execv("/bin/sh", ["sh", "-c", "echo $$ >ran; exec sleep 300"])
"""


async def test_a_keeper_that_is_killed_in_the_middle_of_a_start(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "command", lambda *_: [sys.executable, "-c", _FORMING])
    monkeypatch.setattr("orchestr8d.processes._BURIAL", 0.3)  # it takes its time to die
    monkeypatch.chdir(tmp_path)
    asked = launch(tmp_path, "true")
    with pytest.raises(Unwatched):
        await processes.spawn(asked)
    tag = Self.read().tag(asked.attempt_id)
    await asyncio.sleep(0.3)
    assert [p for p in table.snapshot().values() if p.alive and tag in table.locks_limits(p.pid)] == []
    ran = tmp_path / "ran"
    assert not ran.exists() or not running(int(ran.read_text()))


async def test_a_shortage_of_descriptors_when_a_status_is_to_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, times = Files(f"{tmp_path}/attempt"), iter(range(3))
    record.fill(files.exit, "boot")
    record.ended(files.exit, 6)
    read = reading.read

    def short(path: str, length: int) -> bytes:
        if next(times, None) is not None:
            raise OSError(24, "Too many open files")
        return read(path, length)

    monkeypatch.setattr(child, "read", short)
    gone = subprocess.Popen(["true"])
    gone.wait()
    exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    child.collect(gone.pid, files, exited)
    assert (await asyncio.wait_for(exited, 10)).status == 6 and next(times, None) is None
