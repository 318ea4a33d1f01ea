"""What a starting daemon makes of the attempts that an earlier one left: alive, ended meanwhile, or gone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestr8d.processes import table
from tests.daemon import Daemon
from tests.torture.journal import Journal, left_alive

pytestmark = [pytest.mark.slow, pytest.mark.torture]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def attempt_of(daemon: Daemon, task_id: str) -> str:
    return str(daemon.task(task_id)["attempts"][-1]["attempt_id"])


def until(what: Callable[[], Any], timeout: float = 20) -> Any:
    end = time.monotonic() + timeout
    while not (got := what()):
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)
    return got


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def command_of(attempt_id: str) -> int:
    """Its pid: it leads a session, and whoever it started does so no more."""
    return next(pid for pid in left_alive([attempt_id]) if os.getsid(pid) == pid)


def keeper_of(attempt_id: str) -> int:
    proc = table.read(command_of(attempt_id))
    assert proc is not None and "orchestr8d.keeper" in " ".join(table.command_line(proc.ppid))
    return proc.ppid


def test_living_children_go_on(make_daemon: Callable[..., Daemon], journal: Journal) -> None:
    """Through several kills a task stays one attempt, of the latest executor, and gets its whole result."""
    daemon, flag = make_daemon().start(), journal.directory / "flag"
    task = daemon.submit(*journal.command("long", "until", str(flag)))
    until(lambda: journal.starts("long"))
    attempt = attempt_of(daemon, task)
    for _ in range(2):
        daemon.kill()
        daemon.start()
        now = daemon.wait_until(task, "running")
        assert [a["attempt_id"] for a in now["attempts"]] == [attempt]
        executors = daemon.request("GET", "/api/v1/executors")[1]["executors"]
        assert {e["state"] for e in executors if e["id"] != now["executor_id"]} == {"lost"}
        assert [e["pid"] for e in executors if e["id"] == now["executor_id"]] == [daemon.pid]
    flag.touch()
    done = daemon.wait(task)
    assert done["status"] == "completed"
    assert journal.starts("long") == journal.ends("long") == [attempt]
    # It is measured by whoever it was that started it.
    assert daemon.request("GET", f"/api/v1/tasks/{task}/result")[1]["resources"]["max_rss_bytes"] > 0


def test_adopted_children_obey(make_daemon: Callable[..., Daemon], journal: Journal) -> None:
    """Cancel, timeout and the output's cap hold for a child of an earlier daemon too."""
    config = '[limits]\noutput_bytes = "64 KB"\n[executor]\ngrace = "1s"\n'
    daemon, flag = make_daemon(config).start(), journal.directory / "flag"
    never = ["until", str(journal.directory / "never")]
    tasks = {
        "cancel": daemon.submit(*journal.command("cancel", *never)),
        "asked": daemon.submit(*journal.command("asked", *never)),
        "timeout": daemon.submit(*journal.command("timeout", *never), options={"timeout": 3}),
        "output": daemon.submit("sh", "-c", f"while ! [ -e {flag} ]; do sleep 0.02; done; seq 100000; sleep 60"),
    }
    for task in tasks.values():
        daemon.wait_until(task, "running")
    until(lambda: journal.starts("asked") and journal.starts("cancel") and journal.starts("timeout"))
    attempts = [attempt_of(daemon, task) for task in tasks.values()]
    # The daemon dies of the cancel of one: it is done by the next.
    os.kill(daemon.pid, signal.SIGSTOP)
    daemon.kill()
    daemon.start()
    flag.touch()
    assert daemon.request("POST", f"/api/v1/tasks/{tasks['cancel']}/cancel")[0] == 200
    assert daemon.request("POST", f"/api/v1/tasks/{tasks['asked']}/cancel?wait=0")[0] == 200
    daemon.kill()
    daemon.start()
    ends = {name: daemon.wait(task) for name, task in tasks.items()}
    assert ends["cancel"]["status"] == ends["asked"]["status"] == "cancelled"
    assert ends["timeout"]["error"]["kind"] == "timeout"
    assert ends["output"]["error"]["kind"] == "output_limit"
    assert all(len(task["attempts"]) == 1 for task in ends.values())
    assert not left_alive(attempts)


def test_ended_while_nobody_looked(make_daemon: Callable[..., Daemon], journal: Journal) -> None:
    """Success, failure with and without a retry, and a signal: from the exit files, with output and all."""
    daemon, flag = make_daemon().start(), journal.directory / "flag"
    wait = f"while ! [ -e {flag} ]; do sleep 0.02; done; "
    retried = {"max_retries": 1, "retry_backoff": {"kind": "fixed", "base": 0.1}}
    tasks = {
        "well": daemon.submit("sh", "-c", wait + "echo out; echo err >&2"),
        "badly": daemon.submit("sh", "-c", wait + "exit 7"),
        "signal": daemon.submit("sh", "-c", wait + "kill -SEGV $$"),
        "again": daemon.submit("sh", "-c", wait + "exit 3", options=retried),
        "left": daemon.submit("sh", "-c", wait + "setsid sleep 300 & exit 0"),
    }
    for task in tasks.values():
        daemon.wait_until(task, "running")
    attempts = {name: attempt_of(daemon, task) for name, task in tasks.items()}
    daemon.kill()
    flag.touch()
    # What one of them leaves behind bears the mark too, in a session of its own.
    until(lambda: list(left_alive(attempts.values()).values()) == ["sleep 300 "])
    daemon.start()
    ends = {name: daemon.wait(task) for name, task in tasks.items()}
    results = {name: daemon.request("GET", f"/api/v1/tasks/{task}/result")[1] for name, task in tasks.items()}
    assert (ends["well"]["status"], results["well"]["result"]) == ("completed", "out\n")
    assert daemon.request("GET", f"/api/v1/tasks/{tasks['well']}/logs?stream=stderr")[1] == "err\n"
    assert (ends["badly"]["error"]["kind"], results["badly"]["exit_code"]) == ("exit", 7)
    assert (ends["signal"]["error"]["kind"], results["signal"]["signal"]) == ("signal", "SIGSEGV")
    assert [a["exit_code"] for a in ends["again"]["attempts"]] == [3, 3]
    assert ends["left"]["status"] == "completed"
    assert all(len(task["attempts"]) == 1 for name, task in ends.items() if name != "again")
    assert not left_alive(attempts.values())


def test_keeper_killed_meanwhile(make_daemon: Callable[..., Daemon], journal: Journal) -> None:
    """A command that still runs goes on; of one that has ended nobody knows how: it runs again at no cost."""
    daemon, flag = make_daemon().start(), journal.directory / "flag"
    tasks = {label: daemon.submit(*journal.command(label, "until", f"{flag}-{label}")) for label in ("ends", "goes on")}
    until(lambda: all(journal.starts(label) for label in tasks))
    attempts = {label: attempt_of(daemon, task) for label, task in tasks.items()}
    daemon.kill()
    kill([keeper_of(attempts["ends"])])
    Path(f"{flag}-ends").touch()
    until(lambda: not left_alive([attempts["ends"]]))
    daemon.start()
    until(lambda: len(journal.starts("ends")) == 2)
    assert daemon.task(tasks["goes on"])["status"] == "running"
    ended = daemon.wait(tasks["ends"])
    assert [a["status"] for a in ended["attempts"]] == ["interrupted", "completed"]
    assert (ended["status"], ended["retry_count"]) == ("completed", 0)
    assert journal.starts("ends")[0] == attempts["ends"]
    assert journal.starts("goes on") == [attempts["goes on"]]


def test_ended_but_not_yet_recorded(make_daemon: Callable[..., Daemon], journal: Journal) -> None:
    """Its keeper is slow to take it in: the daemon waits for what that will say, and runs nothing again."""
    daemon, flag = make_daemon().start(), journal.directory / "flag"
    task = daemon.submit(*journal.command("slow", "until", str(flag)))
    until(lambda: journal.starts("slow"))
    attempt = attempt_of(daemon, task)
    command, keeper = command_of(attempt), keeper_of(attempt)
    daemon.kill()
    os.kill(keeper, signal.SIGSTOP)
    flag.touch()
    until(lambda: (proc := table.read(command)) is not None and not proc.alive)
    daemon.start()
    time.sleep(1)
    assert daemon.task(task)["status"] == "running"
    os.kill(keeper, signal.SIGCONT)
    done = daemon.wait(task)
    assert [(a["attempt_id"], a["status"]) for a in done["attempts"]] == [(attempt, "completed")]
    until(lambda: table.read(keeper) is None)


def test_a_daemon_killed_with_messages_unread(make_daemon: Callable[..., Daemon], journal: Journal) -> None:
    """The keeper lives on, and records how the others end."""
    daemon, flag = make_daemon().start(), journal.directory / "flag"
    tasks = {label: daemon.submit(*journal.command(label, "until", f"{flag}-{label}")) for label in ("first", "second")}
    until(lambda: all(journal.starts(label) for label in tasks))
    attempts = {label: attempt_of(daemon, task) for label, task in tasks.items()}
    first = command_of(attempts["first"])
    os.kill(daemon.pid, signal.SIGSTOP)
    Path(f"{flag}-first").touch()
    until(lambda: table.read(first) is None)
    time.sleep(0.2)
    daemon.kill()
    Path(f"{flag}-second").touch()
    until(lambda: not left_alive([attempts["second"]]))
    daemon.start()
    for label, task in tasks.items():
        done = daemon.wait(task)
        assert [(a["attempt_id"], a["status"]) for a in done["attempts"]] == [(attempts[label], "completed")]


def test_a_record_that_the_command_spoilt(make_daemon: Callable[..., Daemon], journal: Journal) -> None:
    """Nothing is waited for, nobody else is taken for it, and its task comes to an end by a second attempt."""
    daemon = make_daemon().start()
    stranger = subprocess.Popen(["sleep", "300"], start_new_session=True)
    spoil = {
        "gone": "rm $f", "fifo": "rm $f; mkfifo $f", "link": "rm $f; ln -s /etc/passwd $f", "dir": "rm $f; mkdir $f",
        "stranger": f"printf '...\\n%10s' {stranger.pid} 1<>$f", "first": "printf '...\\n%10s' 1 1<>$f",
        "huge": "printf '...\\n99999999999999999999999999' >$f", "noise": "head -c 100000 /dev/urandom >$f",
    }  # fmt: skip
    again = f"[ -e {journal.directory}/$0 ] && exit 0; touch {journal.directory}/$0; "
    where = f"f=$(echo {daemon.state}/attempts/*/$ORCHESTR8_ATTEMPT_ID.exit); "
    tasks = {
        name: daemon.submit("sh", "-c", f"{again}{where}{how}; touch {journal.directory}/$0.up; exec sleep 300", name)
        for name, how in spoil.items()
    }
    try:
        until(lambda: all((journal.directory / f"{name}.up").exists() for name in tasks))
        attempts = [attempt_of(daemon, task) for task in tasks.values()]
        daemon.kill()
        daemon.start()
        for name, task in tasks.items():
            done = daemon.wait(task)
            assert [a["status"] for a in done["attempts"]] == ["interrupted", "completed"], name
        assert not left_alive(attempts)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_stopped_in_a_hurry(make_daemon: Callable[..., Daemon], journal: Journal) -> None:
    """A second SIGTERM while children end: what they make of the first one is the daemon's doing, not theirs."""
    daemon = make_daemon('[executor]\nchildren = "stop"\ngrace = "30s"\n').start()
    flag, trap = (
        journal.directory / "flag",
        "trap 'sleep 1; exit 143' TERM; echo >>{}; until [ -e {} ]; do sleep 0.05; done",
    )
    started = journal.directory / "started"
    task = daemon.submit("sh", "-c", trap.format(started, flag))
    until(started.exists)
    attempt = attempt_of(daemon, task)
    os.kill(daemon.pid, signal.SIGTERM)
    until(lambda: '"event":"stopping"' in daemon.tail())
    time.sleep(0.2)
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 5
    until(lambda: not left_alive([attempt]))
    daemon.start()
    until(lambda: started.read_text().count("\n") == 2)
    flag.touch()
    done = daemon.wait(task)
    assert [a["status"] for a in done["attempts"]] == ["interrupted", "completed"]


def test_everything_is_gone(make_daemon: Callable[..., Daemon], journal: Journal) -> None:
    """As after a power failure: daemon, keeper and commands are dead, and no status was recorded."""
    daemon, flag = make_daemon("[limits]\nper_key = 2\n").start(), journal.directory / "flag"
    labels = [f"lost{i}" for i in range(6)]
    tasks = [
        daemon.submit(*journal.command(label, "until", str(flag)), options={"concurrency_key": "k", "max_retries": 0})
        for label in labels
    ]
    until(lambda: sum(len(journal.starts(label)) for label in labels) == 2)
    attempts = [attempt_of(daemon, task) for task in tasks[:2]]
    os.kill(daemon.pid, signal.SIGSTOP)
    # The keeper first: it would record how the commands ended.
    kill([keeper_of(attempts[0]), *left_alive(attempts)])
    daemon.kill()
    daemon.start()
    # The same two again, as it was nobody's turn.
    until(lambda: [len(journal.starts(label)) for label in labels] == [2, 2, 0, 0, 0, 0])
    flag.touch()
    ends = [daemon.wait(task) for task in tasks]
    assert {(task["status"], task["retry_count"]) for task in ends} == {("completed", 0)}
    assert [[a["status"] for a in task["attempts"]] for task in ends[:2]] == [["interrupted", "completed"]] * 2


def test_hundreds_to_settle(make_daemon: Callable[..., Daemon], journal: Journal) -> None:
    """More attempts than a start could look at one by one; half have ended, half go on."""
    daemon, flag = make_daemon("[executor]\nconcurrency = 60\n").start(), journal.directory / "flag"
    many = [{"command": journal.command(f"n{i}", "until", f"{flag}{i % 2}")} for i in range(60)]
    status, answer = daemon.request("POST", "/api/v1/tasks:batch", {"tasks": many})
    assert status == 202
    until(lambda: all(journal.starts(f"n{i}") for i in range(60)), 60)
    daemon.kill()
    Path(f"{flag}0").touch()
    until(lambda: all(journal.ends(f"n{i}") for i in range(0, 60, 2)))
    daemon.start()
    Path(f"{flag}1").touch()
    ends = [daemon.wait(task["task_id"]) for task in answer["tasks"]]
    assert {task["status"] for task in ends} == {"completed"}
    assert {len(task["attempts"]) for task in ends} == {1}
    assert all(len(journal.starts(f"n{i}")) == 1 for i in range(60))


def test_second_daemon_is_refused(daemon: Daemon, make_daemon: Callable[..., Daemon]) -> None:
    """It names the first one, and leaves all of it as it is."""
    second = make_daemon()
    second.env["ORCHESTR8D_STATE"] = str(daemon.state)
    started = time.monotonic()
    with pytest.raises(AssertionError, match=rf"ended with 1: .*pid {daemon.pid}\b"):
        second.start()
    assert time.monotonic() - started < 5
    assert daemon.wait(daemon.submit("true"))["status"] == "completed"
    # The socket is still the first one's.
    assert (daemon.state / "orchestr8d.sock").is_socket()
