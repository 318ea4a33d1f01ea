"""No process outlives its attempt, however it tries: a table of ways to escape, for each way an attempt can end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from orchestr8d import keeper
from orchestr8d.clock import SystemClock
from orchestr8d.processes import UNKNOWN, Files, Launch, Processes, sweep, table
from orchestr8d.processes.table import Proc
from orchestr8d.processes.tree import Known, Lineage, Self
from orchestr8d.status_api.peers import Peers
from tests.running import Bench, running, until

# Each leaves processes behind that note their pids; {leaf} sleeps, {stubborn} ignores SIGTERM too.
ESCAPES = {
    "background": "{leaf} &",
    "setsid": "setsid {leaf} &",
    "double fork": "({leaf} &)",
    "double fork and setsid": "(setsid {leaf} &)",
    "env -i": "env -i {leaf} &",
    "env -i, setsid, double fork": "(env -i setsid {leaf} &)",
    "ignores SIGTERM": "{stubborn} &",
    "ignores SIGTERM in a session of its own": "(env -i setsid {stubborn} &)",
    "session of sessions": "setsid sh -c '(setsid {leaf} &); (env -i setsid {leaf} &); exec {leaf}' &",
    "lowers its soft limit": "(env -i setsid prlimit --locks=5: {leaf} &)",
    "lowers its limits": "(env -i setsid prlimit --locks=5:5 {leaf} &)",
    "closes everything": "(env -i setsid {leaf} </dev/null >/dev/null 2>&1 &)",
    "forks in a loop": "(while :; do {leaf} & sleep 0.02; done) &",
    "forks sessions in a loop": "(while :; do setsid {leaf} & sleep 0.02; done) &",
}


# An orphan that bears no mark which tells whose it is.
NAMELESS = ESCAPES["lowers its limits"]


@contextmanager
def somebodys() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own that is no attempt's."""
    process = subprocess.Popen(["sleep", "300"], start_new_session=True, env={})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    processes = Processes(SystemClock())
    yield Bench(processes, tmp_path)
    await processes.close()


def tagged(attempt_id: str) -> list[int]:
    """Pids of living processes that bear the attempt's tag."""
    tag = Self.read().tag(attempt_id)
    return [p.pid for p in table.snapshot().values() if p.alive and tag in table.locks_limits(p.pid)]


def escape(bench: Bench, name: str, then: str) -> list[str]:
    text = ESCAPES[name].format(leaf=bench.leaf, stubborn=bench.stubborn)
    return ["sh", "-c", f"{text}\nuntil [ -s {bench.notes} ]; do sleep 0.01; done\n{then}"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ESCAPES)
async def test_what_is_left_behind_is_ended(bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestr8d.processes.LEFTOVER_GRACE", 0.3)
    run = bench.attempt(*escape(bench, name, "exit 0"))
    outcome = await bench.runner.run(run)
    assert bench.noted() and bench.alive() == [] and tagged(run.attempt_id) == []
    assert (outcome.status, outcome.exit_code) == ("completed", 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ESCAPES)
async def test_cancelled(bench: Bench, name: str) -> None:
    run = bench.attempt(*escape(bench, name, "sleep 300"))
    running_ = asyncio.create_task(bench.runner.run(run))
    await until(bench.noted)
    run.stop.ask("cancelled")
    outcome = await running_
    assert bench.noted() and bench.alive() == [] and tagged(run.attempt_id) == []
    assert outcome.status == "cancelled"


@pytest.mark.slow
@pytest.mark.parametrize("name", ESCAPES)
async def test_timed_out(bench: Bench, name: str) -> None:
    run = bench.attempt(*escape(bench, name, "sleep 300"), timeout=0.4)
    outcome = await bench.runner.run(run)
    assert bench.noted() and bench.alive() == [] and tagged(run.attempt_id) == []
    assert outcome.error is not None and outcome.error.kind == "timeout"


@pytest.mark.slow
@pytest.mark.parametrize("name", ESCAPES)
async def test_keeper_killed(bench: Bench, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon is the reaper then."""
    monkeypatch.setattr("orchestr8d.processes.LEFTOVER_GRACE", 0.3)
    run = bench.attempt(*escape(bench, name, "kill -9 $PPID; sleep 0.05; exit 3"))
    outcome = await bench.runner.run(run)
    assert bench.noted() and bench.alive() == [] and tagged(run.attempt_id) == []
    assert outcome.error is not None and (outcome.error.kind, outcome.exit_code) == ("exit", 3)


async def test_a_group_that_kills_itself_has_an_outcome(bench: Bench) -> None:
    outcome = await bench.run("sh", "-c", "kill -9 0")
    assert (outcome.status, outcome.signal) == ("failed", "SIGKILL")


@pytest.mark.slow
async def test_one_that_hops_from_session_to_session(bench: Bench) -> None:
    """Each process lives for a moment only: its child goes on in a new session."""
    hopper = bench.root / "hopper.py"
    hopper.write_text(
        "import os, sys, time\n"
        "if os.fork(): sys.exit()\n"
        "while True:\n"
        "    os.setsid(); time.sleep(0.01)\n"
        f"    with open({str(bench.notes)!r}, 'a') as f: f.write(f'{{os.getpid()}} 0\\n')\n"
        "    if os.fork(): os._exit(0)\n"
    )
    run = bench.attempt("sh", "-c", f"{sys.executable} {hopper}; until [ -s {bench.notes} ]; do sleep 0.01; done")
    await bench.runner.run(run)
    assert tagged(run.attempt_id) == []
    before = len(bench.noted())
    await asyncio.sleep(0.1)
    assert len(bench.noted()) == before


@pytest.mark.slow
async def test_sigterm_comes_first_and_once_to_all(bench: Bench) -> None:
    """Those in other sessions too get the chance to clean up, and the whole grace for it."""
    polite = bench._script(
        "polite", "trap 'sleep 0.2; echo bye >>said; exit 0' TERM\necho up >>said\nwhile :; do sleep 0.05; done\n"
    )
    said = bench.root / "said"
    run = bench.attempt("sh", "-c", f"(setsid {polite} &); exec {polite}", grace=5.0)
    running_ = asyncio.create_task(bench.runner.run(run))
    await until(lambda: said.exists() and said.read_text().count("up") == 2)
    run.stop.ask("cancelled")
    outcome = await running_
    assert said.read_text().count("bye") == 2 and bench.alive() == []
    assert outcome.status == "cancelled" and outcome.exit_code == 0


async def test_cancelled_before_the_command_began(bench: Bench) -> None:
    for delay in (0.0, 0.001, 0.002, 0.004):
        run = bench.attempt(str(bench.leaf), grace=60.0)
        running_ = asyncio.create_task(bench.runner.run(run))
        await until(Path(run.files.exit).exists)
        await asyncio.sleep(delay)
        run.stop.ask("cancelled")
        assert (await asyncio.wait_for(running_, 10)).status == "cancelled"
        assert bench.alive() == []


@pytest.mark.slow
async def test_the_living_are_left_alone(bench: Bench) -> None:
    """Orphans of an attempt that goes on are its own business; others that end meanwhile do not touch them."""
    run = bench.attempt("sh", "-c", f"(env -i setsid {bench.leaf} &); exec sleep 300")
    long = asyncio.create_task(bench.runner.run(run))
    await until(bench.alive)
    mine = bench.alive()
    own = subprocess.Popen(["sleep", "300"], start_new_session=True)
    outcomes = await asyncio.gather(*(bench.run("sh", "-c", "setsid sleep 300 & exit 0") for _ in range(8)))
    assert {o.status for o in outcomes} == {"completed"}
    assert bench.alive() == mine and own.poll() is None
    own.terminate()
    assert own.wait() == -signal.SIGTERM
    run.stop.ask("cancelled")
    await long
    assert bench.alive() == []


@pytest.mark.slow
async def test_many_starts_and_ends_at_once(bench: Bench) -> None:
    """Looks at /proc while attempts come and go never take a newcomer for somebody's leftover."""
    scripts = ["exit 0", "exit 7", "sleep 0.01 & exit 0", "(setsid sleep 300 &); exit 0"]

    async def one(script: str) -> int | None:
        return (await bench.run("sh", "-c", script)).exit_code

    for _ in range(6):
        assert await asyncio.gather(*(one(s) for s in scripts * 4)) == [0, 7, 0, 0] * 4


async def test_dead_orphans_are_taken_in_while_the_attempt_goes_on(bench: Bench) -> None:
    note = f"echo $$ >>{bench.root}/orphans"
    run = bench.attempt("sh", "-c", f"for i in 1 2 3 4 5; do (sh -c '{note}' &); done; exec sleep 300")
    running_ = asyncio.create_task(bench.runner.run(run))
    orphans = bench.root / "orphans"
    await until(lambda: orphans.exists() and len(orphans.read_text().split()) == 5)
    await until(lambda: not any(Path("/proc", pid).exists() for pid in orphans.read_text().split()))
    assert not running_.done()
    run.stop.ask("cancelled")
    await running_


async def test_what_lowered_its_soft_limit_is_still_its_attempts(bench: Bench) -> None:
    """Though another attempt is old enough to have left it."""
    older = bench.attempt("sleep", "300")
    older_ = asyncio.create_task(bench.runner.run(older))
    await until(lambda: tagged(older.attempt_id))
    text = ESCAPES["lowers its soft limit"].format(leaf=bench.leaf)
    wait = "until [ -e {} ]; do sleep 0.01; done; "
    run = bench.attempt("sh", "-c", wait.format("up") + text + "; " + wait.format("go"))
    running_ = asyncio.create_task(bench.runner.run(run))
    tag = Self.read().tag(run.attempt_id)
    # The hard one is set a moment after the start.
    await until(lambda: any(table.locks_limits(p.pid) == (tag, tag) for p in table.snapshot().values()))
    await until(lambda: all(table.locks_limits(pid) == (tag, tag) for pid in tagged(run.attempt_id)))
    (bench.root / "up").touch()
    await until(bench.alive)
    assert [bench.processes.attempt_of(pid) for pid in bench.alive()] == [run.attempt_id]
    (bench.root / "go").touch()
    await running_
    assert bench.noted() and bench.alive() == [] and tagged(older.attempt_id)
    older.stop.ask("cancelled")
    await older_


async def test_orphans_are_of_an_attempt_that_their_keeper_had(bench: Bench) -> None:
    """A command of the next daemon cannot have left what went to the earlier one's keeper."""
    attempt_id, files = "adopted", Files(str(bench.root / "adopted"))
    script = f"until [ -e go ]; do sleep 0.01; done; {NAMELESS.format(leaf=bench.leaf)}; sleep 300"
    first = Processes(SystemClock())
    await first.spawn(Launch(attempt_id, ["sh", "-c", script], str(bench.root), dict(os.environ), files))
    await first.close()
    child = await bench.processes.adopt(attempt_id, files)
    assert child is not None
    other = bench.attempt("sleep", "300")
    other_ = asyncio.create_task(bench.runner.run(other))
    await until(lambda: tagged(other.attempt_id))
    # Ages are told by clock ticks.
    await asyncio.sleep(2 / table.TICKS)
    (bench.root / "go").touch()
    await until(bench.alive)
    assert [bench.processes.attempt_of(pid) for pid in bench.alive()] == [UNKNOWN]
    await bench.processes.end(child, 1.0)
    assert bench.alive() == [] and tagged(other.attempt_id)
    other.stop.ask("cancelled")
    await other_


async def test_what_became_another_users_is_not_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose it is nobody knows: each attempt that ends would wait for it in vain."""

    def refused(*_: int) -> None:
        raise PermissionError

    with monkeypatch.context() as m:
        m.setattr(os, "killpg", refused)
        m.setattr(os, "kill", refused)
        try:
            outcome = await asyncio.wait_for(bench.run(*escape(bench, "lowers its limits", "exit 3")), 5)
        finally:
            m.undo()
            for pid in bench.alive():
                os.kill(pid, signal.SIGKILL)
    assert outcome.exit_code == 3


async def test_a_child_of_the_keeper_is_an_attempts_without_any_mark(bench: Bench) -> None:
    """A command that is quicker than its keeper can take the tag off what it starts."""
    me = replace(Self.read(), pid=0, sid=0)
    with somebodys() as orphan:
        known = Known(keepers={os.getpid()})
        procs = table.snapshot()
        lineage = Lineage(me)
        assert orphan.pid not in lineage.owners(procs, known)
        assert lineage.handed(procs[orphan.pid])
        bench.processes._me, bench.processes._known = me, known
        assert bench.processes.attempt_of(orphan.pid) == UNKNOWN


async def test_what_lives_under_another_keeper_is_an_attempts(bench: Bench) -> None:
    code = "import subprocess; p = subprocess.Popen(['sleep', '300'], env={}); print(p.pid, flush=True); p.wait()"
    other = [sys.executable, "-c", code, *keeper.command(64, "")]
    with somebodys() as mine, subprocess.Popen(other, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        try:
            assert [bench.processes.attempt_of(p) for p in (mine.pid, pid)] == [None, UNKNOWN]
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def test_the_pid_of_a_command_that_has_ended_may_be_somebody_elses() -> None:
    me = Self.read()
    with somebodys() as other:
        known = Known(leaders={other.pid: "mine"}, tags={me.tag("mine"): "mine"})
        assert other.pid not in Lineage(me).owners(table.snapshot(), known)


def test_a_session_id_may_be_given_to_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    me = Self.read()
    known, tag = Known(tags={me.tag("mine"): "mine"}), me.tag("mine")
    limits = {1000001: (tag, tag)}
    monkeypatch.setattr(table, "locks_limits", lambda pid: limits.get(pid, (-1, -1)))
    leader = Proc(1000001, True, 1, 1000001, 1000001, start=10)
    member = Proc(1000002, True, 1, 1000001, 1000001, start=10)
    lineage = Lineage(me)
    assert lineage.owners({leader.pid: leader, member.pid: member}, known) == {leader.sid: "mine"}
    limits.clear()
    assert lineage.owners({member.pid: member}, known) == {leader.sid: "mine"}
    later = leader._replace(start=20)
    assert lineage.owners({later.pid: later}, known) == {}


def test_the_daemons_own_sessions_are_never_an_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A keeper bears a tag for a moment, also before it is known for one."""
    me = Self.read()
    known, tag = Known(tags={me.tag("mine"): "mine"}), me.tag("mine")
    monkeypatch.setattr(table, "locks_limits", lambda pid: (tag, me.limits[1]))
    keeper_ = Proc(1000001, True, me.pid, 1000001, 1000001, start=10)
    lineage = Lineage(me)
    assert lineage.owners({keeper_.pid: keeper_}, known) == {keeper_.sid: "mine"}
    known.keepers.add(keeper_.pid)
    assert lineage.owners({keeper_.pid: keeper_}, known) == {}


async def test_what_only_claims_to_be_a_keeper_is_ended(bench: Bench) -> None:
    """As of the keeper of an earlier daemon, that is what the file says which the attempt can write."""
    run = bench.attempt("sh", "-c", f"setsid {bench.leaf} & exec sleep 300")
    running_ = asyncio.create_task(bench.runner.run(run))
    await until(bench.alive)
    (pid,) = bench.alive()
    bench.processes._known.inherited["of another"] = pid
    assert bench.processes.attempt_of(pid) == run.attempt_id
    run.stop.ask("cancelled")
    await running_
    assert bench.alive() == []
    # Gone, its session may have members yet.
    assert pid not in bench.processes._known.reapers(Self.read())


@pytest.mark.slow
async def test_what_cannot_be_ended_is_given_up(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a process that waits for a dead disk; here nobody is allowed to signal."""
    monkeypatch.setattr(sweep, "GIVE_UP", 0.05)
    run = bench.attempt(str(bench.leaf), grace=0.05)
    running_ = asyncio.create_task(bench.runner.run(run))
    await until(bench.alive)
    with monkeypatch.context() as m:
        m.setattr(os, "killpg", lambda *a: None)
        m.setattr(os, "kill", lambda *a: None)
        run.stop.ask("cancelled")
        assert (await running_).status == "cancelled"
    for pid in bench.alive():
        os.kill(pid, signal.SIGKILL)


async def test_what_was_given_up_is_not_waited_for_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows whose it was, so it would be taken for the next one's that ends."""
    with monkeypatch.context() as m:
        m.setattr(os, "killpg", lambda *a: None)
        m.setattr("orchestr8d.processes.LEFTOVER_GRACE", 0.01)
        try:
            with monkeypatch.context() as soon:
                soon.setattr(sweep, "GIVE_UP", 0.01)
                await bench.run(*escape(bench, "lowers its limits", "exit 0"))
            assert len(bench.alive()) == 1
            outcome = await asyncio.wait_for(bench.run("sh", "-c", "exit 3"), 5)
        finally:
            for pid in bench.alive():
                os.kill(pid, signal.SIGKILL)
    assert outcome.exit_code == 3


async def test_attempt_of(bench: Bench) -> None:
    run = bench.attempt("sh", "-c", f"{bench.leaf} & env -i {bench.leaf} & (env -i setsid {bench.leaf} &); sleep 300")
    running_ = asyncio.create_task(bench.runner.run(run))
    await until(lambda: len(bench.alive()) == 3)
    assert [bench.processes.attempt_of(pid) for pid in bench.alive()] == [run.attempt_id] * 3
    assert bench.processes.attempt_of(os.getpid()) is None
    assert bench.processes.attempt_of(os.getppid()) is None
    run.stop.ask("cancelled")
    await running_
    other = subprocess.Popen(["sleep", "300"], env={"ORCHESTR8_ATTEMPT_ID": "of-another"}, start_new_session=True)
    await until(lambda: bench.processes.attempt_of(other.pid) == "of-another")
    other.kill()
    other.wait()
    assert bench.processes.attempt_of(other.pid) == UNKNOWN


CONNECTED = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[2])
if sys.argv[1] == "handed on":
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    # Whoever it is that reaps the one that connected.
    while os.path.exists(f"/proc/{parent}"):
        pass
s.sendall(b"who am I?\\n")
s.recv(1)
"""


@pytest.mark.parametrize("how", ["kept", "handed on"])
async def test_who_connected_from_inside_an_attempt_is_not_the_owner(bench: Bench, how: str) -> None:
    """Also when the process that connected is gone, and a child of it speaks."""
    peers = Peers(bench.processes.attempt_of)
    callers: list[str | None] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        callers.append(peers.caller(writer.transport).attempt_id)
        writer.close()

    path = str(bench.root / "socket")
    async with await asyncio.start_unix_server(answer, path):
        own_reader, own = await asyncio.open_unix_connection(path)
        own.write(b"\n")
        await own_reader.read()
        own.close()
        (bench.root / "connect.py").write_text(CONNECTED)
        run = bench.attempt("sh", "-c", f"'{sys.executable}' connect.py '{how}' socket; exec sleep 300")
        running_ = asyncio.create_task(bench.runner.run(run))
        await until(lambda: len(callers) == 2)
        run.stop.ask("cancelled")
        await running_
    assert callers == [None, run.attempt_id if how == "kept" else UNKNOWN]


async def test_a_daemon_within_an_attempt_leaves_nothing(bench: Bench) -> None:
    """Its own attempts bear other marks, and come to us when it is killed."""
    inner = (
        "import asyncio, os\n"
        "from orchestr8d.clock import SystemClock\nfrom orchestr8d.processes import Files, Launch, Processes\n"
        "async def main():\n"
        "    p = Processes(SystemClock())\n"
        f"    await p.spawn(Launch('inner', [{str(bench.leaf)!r}], '/', {{}}, Files({str(bench.root / 'inner')!r})))\n"
        f"    while not os.path.exists({str(bench.notes)!r}): await asyncio.sleep(0.01)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    outcome = await bench.run(sys.executable, "-c", inner, env={"PYTHONPATH": os.pathsep.join(sys.path)})
    assert outcome.signal == "SIGKILL"
    assert len(bench.noted()) == 1 and not any(running(pid, start) for pid, start in bench.noted())
