"""Facts about starting and watching a process that everything else relies on."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestr8d.clock import SystemClock
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import Resources
from orchestr8d.keeper import RLIMIT_LOCKS, record
from orchestr8d.processes import Child, Files, Launch, NotFound, Processes, Unwatched, recorded, signal_of, table
from orchestr8d.processes.child import Record
from orchestr8d.processes.files import create, cut, open_regular, read, size
from orchestr8d.processes.tree import Known, Lineage, Self
from tests.running import running, until


@pytest.fixture
async def processes() -> AsyncIterator[Processes]:
    made = Processes(SystemClock())
    yield made
    await made.close()


class Starter:
    def __init__(self, processes: Processes, root: Path) -> None:
        self.processes = processes
        self.root = root
        self._n = 0

    async def start(self, script: str, **more: object) -> Child:
        self._n += 1
        env = {"PATH": os.environ["PATH"]}
        files = Files(f"{self.root}/a/{self._n}")
        launch = {"argv": ["sh", "-c", script], "cwd": str(self.root), "env": env, "files": files, **more}
        return await self.processes.spawn(Launch(uuid7(0), **launch))  # type: ignore[arg-type]

    async def output(self, script: str, **more: object) -> str:
        child = await self.start(script, **more)
        await child.exited
        result = await self.processes.settle(child)
        assert result.status == 0, Path(child.files.stderr).read_text()
        return Path(child.files.stdout).read_text()


@pytest.fixture
def starter(processes: Processes, tmp_path: Path) -> Starter:
    return Starter(processes, tmp_path)


async def test_status_is_returned_and_recorded(starter: Starter) -> None:
    for script, status in (("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137)):
        child = await starter.start(script)
        assert recorded(child.files).status in (None, status)
        await child.exited
        result = await starter.processes.settle(child)
        assert result.status == status and not result.left
        assert recorded(child.files) == Record(status, child.pid, result.resources, SystemClock().boot())
        assert Path(child.files.exit).read_bytes()[:4] == b"%03d\n" % status


async def test_sigterm_to_the_group(starter: Starter) -> None:
    loop = "touch up; while :; do sleep 0.01; done"
    for script, status in ((loop, 143), (f"trap 'exit 4' TERM; {loop}", 4)):
        child = await starter.start(script)
        await until((starter.root / "up").exists)
        (starter.root / "up").unlink()
        os.killpg(child.pid, signal.SIGTERM)
        await child.exited
        assert (await starter.processes.settle(child)).status == status == recorded(child.files).status


async def test_other_signals_to_the_group_reach_the_command_only(starter: Starter) -> None:
    for name in ("HUP", "INT", "QUIT", "USR1", "USR2", "ALRM"):
        assert await starter.output(f"trap 'echo got' {name}; kill -{name} 0") == "got\n"


async def test_the_child_leads_its_session_and_bears_its_marks(starter: Starter) -> None:
    child = await starter.start("exec sleep 300")
    proc = table.read(child.pid)
    assert proc is not None and proc.pid == proc.sid == proc.pgrp and proc.alive
    assert resource.prlimit(child.pid, RLIMIT_LOCKS) == (Self.read().tag(child.attempt_id),) * 2
    # It is empty until the program is there for good.
    await until(lambda: table.environment(child.pid))
    assert table.variable(table.environment(child.pid), "ORCHESTR8_ATTEMPT_ID") == child.attempt_id
    assert recorded(child.files).pid == child.pid
    await starter.processes.end(child, 1.0)


async def test_signals_are_as_at_birth(starter: Starter) -> None:
    """Python ignores SIGPIPE, and nohup SIGHUP; neither is to reach the command. Nor is a blocked signal."""
    old = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        lines = (await starter.output("exec cat /proc/self/status")).splitlines()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        signal.signal(signal.SIGHUP, old)
    masks = {k: int(v, 16) for k, v in (line.split(":\t") for line in lines if line.startswith("Sig")) if k != "SigQ"}
    internal = 0b11 << 31  # 32 and 33 are the C library's own; nobody can reset them
    assert masks["SigBlk"] == masks["SigIgn"] & ~internal == masks["SigCgt"] == 0


async def test_descriptors_umask_and_directory(starter: Starter) -> None:
    with open(os.devnull) as kept:
        os.set_inheritable(kept.fileno(), True)
        inherited = Processes(SystemClock())  # what was open before must not be passed on either
        old = os.umask(0o077)
        try:
            other = Starter(inherited, starter.root / "other")
            other.root.mkdir()
            script = "for n in $(seq 0 64); do [ -e /proc/$$/fd/$n ] && echo $n; done; umask; pwd; echo $OLDPWD"
            assert (await other.output(script)).split() == ["0", "1", "2", "0022", str(other.root)]
        finally:
            os.umask(old)
            await inherited.close()


async def test_the_limit_of_descriptors_is_the_commands_own(tmp_path: Path) -> None:
    processes = Processes(SystemClock(), descriptors=200)
    starter = Starter(processes, tmp_path)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    shown = f"{hard}" if hard != resource.RLIM_INFINITY else "unlimited"
    assert (await starter.output("ulimit -S -n; ulimit -H -n")).split() == ["200", shown]
    await processes.close()


async def test_files_are_appended_to_and_closed_to_others(starter: Starter) -> None:
    child = await starter.start("echo one; echo two >&2")
    await child.exited
    await starter.processes.settle(child)
    made = Path(child.files.exit).parent
    assert {str(path) for path in made.iterdir()} == {child.files.exit, child.files.stdout, child.files.stderr}
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o600}
    assert made.stat().st_mode & 0o777 == 0o700
    out = await starter.output("cat /proc/self/fdinfo/1")
    flags = int(next(line.split()[1] for line in out.splitlines() if line.startswith("flags")), 8)
    assert flags & os.O_APPEND


async def test_the_environment_is_the_commands_own(starter: Starter) -> None:
    """Names that mean something to a shell reach the command as they are."""
    env = {
        "PATH": os.environ["PATH"], "IFS": "0123456789/", "CDPATH": "/", "ENV": "/nope", "SHELLOPTS": "errexit:nounset",
        "s": "own", "PS4": "$(touch ps4)", "OPTIND": "junk", "BASH_ENV": "/nope", "POSIXLY_CORRECT": "1", "": "odd",
    }  # fmt: skip
    child = await starter.start("", argv=["env"], env=env)
    await child.exited
    await starter.processes.settle(child)
    marks = {"PWD": str(starter.root), "ORCHESTR8_ATTEMPT_ID": child.attempt_id}
    got = dict(line.split("=", 1) for line in Path(child.files.stdout).read_text().splitlines())
    assert got == env | marks


async def test_a_script_that_does_not_say_what_runs_it(starter: Starter) -> None:
    script = starter.root / "script"
    script.write_text('echo "$0 $1"; exit 7\n')
    script.chmod(0o755)
    child = await starter.start("", argv=["./script", "one"])
    await child.exited
    assert (await starter.processes.settle(child)).status == 7
    assert Path(child.files.stdout).read_text() == f"{starter.root}/script one\n"


async def test_a_killed_keeper_is_not_the_end_of_what_it_started(starter: Starter) -> None:
    """The commands go to the daemon, with the measure of what they took; the next is another keeper's."""
    second = await starter.start("until [ -e go ]; do sleep 0.01; done; kill -9 $$")
    first = await starter.start("until [ -e go ]; do sleep 0.01; done; exit 5")
    keeper = await kill_keeper(starter)
    await until(lambda: table.read(first.pid).ppid == os.getpid())  # type: ignore[union-attr]
    assert await starter.output("echo fine") == "fine\n"
    (starter.root / "go").touch()
    for child, status in ((first, 5), (second, 137)):
        await child.exited
        result = await starter.processes.settle(child)
        assert result.status == status and result.resources is not None and result.resources.max_rss_bytes > 0
    await until(lambda: table.read(keeper) is None)
    assert table.read(first.pid) is table.read(second.pid) is None


async def kill_keeper(starter: Starter) -> int:
    link = starter.processes._link
    assert link is not None
    os.kill(link.pid, signal.SIGKILL)
    await until(lambda: link.lost)
    return link.pid


async def stop_keeper(starter: Starter) -> int:
    """Its threads do not stop all at once."""
    link = starter.processes._link
    assert link is not None
    os.kill(link.pid, signal.SIGSTOP)
    threads = Path(f"/proc/{link.pid}/task")
    await until(lambda: all(b") T " in (one / "stat").read_bytes() for one in threads.iterdir()))
    return link.pid


async def test_a_keeper_that_is_killed_while_it_starts_something(
    starter: Starter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have started it or not: nothing of it is left."""
    await starter.output("")
    await stop_keeper(starter)
    starting = asyncio.create_task(starter.start("touch ran; sleep 300"))
    await asyncio.sleep(0.02)
    await kill_keeper(starter)
    with pytest.raises(Unwatched):
        await starting
    assert not (starter.root / "ran").exists()
    assert await starter.output("echo fine") == "fine\n"


async def test_without_a_descriptor_to_watch_by_it_is_ended(starter: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(pid: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", short)
    child = await starter.start("exec sleep 300")
    await kill_keeper(starter)
    await child.exited
    assert (await starter.processes.settle(child)).status is None
    assert not running(child.pid)


async def test_what_a_dead_daemon_asked_for_is_not_started(starter: Starter) -> None:
    await starter.output("")
    link = starter.processes._link
    assert link is not None
    await stop_keeper(starter)
    starting = asyncio.create_task(starter.start("touch ran"))
    await asyncio.sleep(0.02)
    link.close()
    await asyncio.sleep(0.02)
    os.kill(link.pid, signal.SIGCONT)
    with pytest.raises(Unwatched):
        await starting
    await until(lambda: not running(link.pid))
    assert not (starter.root / "ran").exists()


async def test_bytes_that_are_no_text_reach_the_command(starter: Starter) -> None:
    env = {"PATH": os.environ["PATH"], "ODD": os.fsdecode(b"\xff\xfe")}
    assert await starter.output('printf %s "$ODD" | od -An -tx1', env=env) == " ff fe\n"
    for odd in ("nul\0", "\ud800"):
        with pytest.raises(ValueError, match=r"null byte|surrogates"):
            await starter.start("", env={"PATH": os.environ["PATH"], "ODD": odd})


async def test_many_are_started_at_once(processes: Processes, tmp_path: Path) -> None:
    starter = Starter(processes, tmp_path)
    outputs = [starter.output(f"echo {n} $N", env={"PATH": os.environ["PATH"], "N": str(n)}) for n in range(60)]
    assert await asyncio.gather(*outputs) == [f"{n} {n}\n" for n in range(60)]


async def test_a_step_makes_its_files_anew(starter: Starter) -> None:
    """Nothing that lies in their place is waited for, written to or read."""
    files, victim = Files(f"{starter.root}/attempt.check"), starter.root / "victim"
    victim.write_text("untouched")
    os.mkfifo(files.stdout)
    Path(files.stderr).symlink_to(victim)
    Path(files.exit).symlink_to(victim)
    out = await starter.output("cat; echo fine >&2", files=files, step="check", stdin=b"words")
    assert (out, Path(files.stderr).read_text(), victim.read_text()) == ("words", "fine\n", "untouched")
    with pytest.raises(FileExistsError):  # the command's own are made once
        await starter.start("", files=files)
    Path(files.exit).unlink()
    Path(files.exit).mkdir()
    with pytest.raises(OSError, match="exit"):
        await starter.start("", files=files, step="check")


def test_only_regular_files_are_an_attempts(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "path"
    victim.write_text("0123456789")

    def link() -> None:
        path.symlink_to(victim)

    def dangling() -> None:
        path.symlink_to(tmp_path / "nowhere")

    def socket_() -> None:
        socket.socket(socket.AF_UNIX).bind(str(path))

    for put in (link, dangling, socket_, lambda: os.mkfifo(path), path.mkdir, lambda: None):
        put()
        assert (open_regular(path), read(str(path), 5), size(str(path))) == (None, b"", 0)
        assert open_regular(path, os.O_WRONLY) is None
        cut(str(path), 0)
        if path.is_symlink() or path.exists():
            with pytest.raises(FileExistsError):
                create(str(path), b"x")
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    assert victim.read_text() == "0123456789"
    assert not (tmp_path / "nowhere").exists()
    assert (read(str(victim), 3, 2), size(str(victim))) == (b"234", 10)
    cut(str(victim), 20)
    cut(str(victim), 4)
    assert victim.read_text() == "0123"


async def test_missing_program(starter: Starter) -> None:
    with pytest.raises(NotFound, match="no such program"):
        await starter.start("", argv=["nope"])


def test_recorded(tmp_path: Path) -> None:
    files = Files(f"{tmp_path}/attempt")
    assert recorded(files) == Record()
    record.fill(files.exit, "boot")
    assert recorded(files) == Record(boot="boot")
    length = Path(files.exit).stat().st_size
    record.begun(files.exit, 4194304)
    record.ended(files.exit, 7)
    assert recorded(files) == Record(7, 4194304, None, "boot")
    record.used(files.exit, 123456.789012, 1 << 50)
    assert recorded(files) == Record(7, 4194304, Resources(123456.789012, 1 << 50), "boot")
    assert Path(files.exit).stat().st_size == length  # a full disk has no room for more
    for content in (b"", b"00", b"0x7\n", b"...\n-1\n", b"\xff\xfe\n\n1 2 3\n", b"...\n\n1e9 7\n", "²²²\n²\n".encode()):
        Path(files.exit).write_bytes(content)
        assert recorded(files) == Record(), content


def test_signal_names() -> None:
    names = {0: None, 1: None, 128: None, 129: "SIGHUP", 139: "SIGSEGV", 160: "SIG32", 192: "SIGRTMAX", 193: None}
    assert {status: signal_of(status) for status in names} == names


async def test_a_process_whose_first_thread_has_ended_is_alive(tmp_path: Path) -> None:
    code = (
        "import ctypes, threading, time\nthreading.Thread(target=time.sleep, args=(300,)).start()\n"
        "print('up', flush=True)\nctypes.CDLL(None).pthread_exit(None)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        await until(lambda: b") Z" in Path(f"/proc/{process.pid}/stat").read_bytes())
        proc = table.read(process.pid)
        assert proc is not None and proc.alive
    finally:
        process.kill()
        process.wait()
    assert table.read(process.pid) is None


def test_a_marker_pasted_into_a_terminal_does_not_make_it_the_attempts(tmp_path: Path) -> None:
    """The session's leader does not have it: the session is somebody else's."""
    script = "ORCHESTR8_ATTEMPT_ID=mine sleep 300 & echo $!; wait"
    terminal = subprocess.Popen(["sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert terminal.stdout is not None
    try:
        pid = int(terminal.stdout.readline())
        me = Self.read()
        owners = Lineage(me).owners(table.snapshot(), Known(tags={me.tag("mine"): "mine"}))
        assert terminal.pid not in owners and os.getsid(pid) == terminal.pid
    finally:
        os.killpg(terminal.pid, signal.SIGKILL)
        terminal.wait()
        terminal.stdout.close()


async def test_scan_tells_the_command_from_the_rest(starter: Starter) -> None:
    child = await starter.start("sleep 300 & (env -i setsid sleep 300 &); touch up; wait")
    await until((starter.root / "up").exists)
    await until(lambda: len(tree(child)) == 3)
    found = await starter.processes.scan({child.attempt_id: child.files, "nobody": Files("/nowhere")})
    assert set(found) == {child.attempt_id}
    assert (found[child.attempt_id].leader, found[child.attempt_id].others) == (child.pid, 2)
    await starter.processes.end(child, 1.0)
    assert tree(child) == []


def tree(child: Child) -> list[int]:
    tag = Self.read().tag(child.attempt_id)
    return [p.pid for p in table.snapshot().values() if p.alive and tag in table.locks_limits(p.pid)]


async def test_closing_leaves_children_alone(tmp_path: Path) -> None:
    processes = Processes(SystemClock())
    child = await Starter(processes, tmp_path).start("exec sleep 300")
    await processes.close()
    assert running(child.pid)
    os.killpg(child.pid, signal.SIGKILL)
    await until(lambda: recorded(child.files).status == 137)
