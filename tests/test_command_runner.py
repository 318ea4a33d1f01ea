"""The command runner from its argv to an outcome, with real processes."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestr8d.clock import SystemClock
from orchestr8d.core.outcome import Outcome
from orchestr8d.processes import Files, Processes
from orchestr8d.processes.link import Link
from orchestr8d.task_runners import command
from orchestr8d.task_runners.command import CommandRunner
from orchestr8d.task_runners.environment import allowed
from tests.running import Bench, until


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    processes = Processes(SystemClock())
    yield Bench(processes, tmp_path)
    await processes.close()


def kind(outcome: Outcome) -> str | None:
    return outcome.error.kind if outcome.error else None


def text(outcome: Outcome) -> str:
    return (outcome.result or b"").decode()


async def test_success(bench: Bench) -> None:
    outcome = await bench.run("echo", "hello", "wide  world")
    assert (outcome.status, outcome.exit_code, outcome.signal) == ("completed", 0, None)
    assert (outcome.result_type, outcome.result, outcome.output_bytes) == ("text", b"hello wide  world\n", 18)
    assert outcome.resources is not None and outcome.resources.cpu_seconds < 1


@pytest.mark.parametrize(
    ("output", "result_type", "result"),
    [
        (b"", "text", b""),
        (b'{"a": [1, 2]}\n', "json", b'{"a": [1, 2]}'),
        (b"[1]\n[2]\n", "text", b"[1]\n[2]\n"),
        (b"42", "json", b"42"),
        (b"NaN", "text", b"NaN"),
        (b"\xff\xfe ok", "text", "�� ok".encode()),
        (b'"\xff"', "text", '"�"'.encode()),
        (b"[" * 100_000, "text", b"[" * 100_000),
    ],
)
async def test_result_types(bench: Bench, output: bytes, result_type: str, result: bytes) -> None:
    (bench.root / "output").write_bytes(output)
    outcome = await bench.run("cat", "output")
    assert (outcome.result_type, outcome.result) == (result_type, result)


async def test_longer_output_is_a_file(bench: Bench) -> None:
    for size, result_type in ((1 << 20, "text"), ((1 << 20) + 1, "file")):
        outcome = await bench.run("head", "-c", str(size), "/dev/zero", output_bytes=8 << 20)
        assert (outcome.result_type, outcome.output_bytes) == (result_type, size)
        assert (outcome.result is None) == (result_type == "file")


@pytest.mark.slow
async def test_a_hundred_megabytes_cost_no_memory(bench: Bench) -> None:
    run = bench.attempt("head", "-c", str(100 << 20), "/dev/zero", output_bytes=100 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = await bench.runner.run(run)
    assert (outcome.status, outcome.result_type, outcome.output_bytes) == ("completed", "file", 100 << 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 << 10
    Path(run.files.stdout).unlink()


@pytest.mark.slow
async def test_peak_memory_of_a_large_process(bench: Bench) -> None:
    outcome = await bench.run(sys.executable, "-c", "x = bytearray(400 << 20)")
    # What a child was before its exec counts too, and that was a copy of this process.
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    assert outcome.resources is not None
    assert 400 << 20 < outcome.resources.max_rss_bytes < max(480 << 20, ours)
    small = await bench.run("true")
    assert small.resources is not None and 0 < small.resources.max_rss_bytes <= ours


async def test_exit_code_with_the_last_words(bench: Bench) -> None:
    outcome = await bench.run("sh", "-c", "echo half; seq 5000 >&2; echo 'no such luck' >&2; exit 7")
    assert (outcome.status, outcome.exit_code, outcome.signal, text(outcome)) == ("failed", 7, None, "half\n")
    assert outcome.error is not None and outcome.error.kind == "exit"
    assert outcome.error.message.startswith("exited with code 7: ") and len(outcome.error.message) < 500
    assert re.fullmatch(r"exited with code 7: \d{4}\n(\d{4}\n)+5000\nno such luck", outcome.error.message)


async def test_last_words_show_no_secrets(bench: Bench) -> None:
    token, word = "o8d_" + "Ab1" * 8, "hunter2" + "x" * 9
    said = f"password={word} Authorization: Bearer {word} {token}"
    long = "eyJhbGciOi." + "Ab1" * 2000
    for script in (
        f"echo '{said}' >&2; exit 1",
        f"seq 5000 >&2; echo '{said}' >&2; exit 1",
        f"printf 'password={long}' >&2; exit 1",
        f"printf 'at last Bearer {long}\n' >&2; exit 1",
    ):
        run = bench.attempt("sh", "-c", script)
        outcome = await bench.runner.run(run)
        assert outcome.error is not None and not re.search("hunter2|o8d_|Ab1", outcome.error.message)
        assert re.search("hunter2|Ab1", Path(run.files.stderr).read_text())
        outcome = await bench.run("true", check=["sh", "-c", script])
        assert outcome.error is not None and not re.search("hunter2|o8d_|Ab1", outcome.error.message)
    outcome = await bench.run("sh", "-c", f"echo 'denied for {token}' >&2; exit 1")
    assert outcome.error is not None and outcome.error.message == "exited with code 1: denied for [redacted]"


# What the paths of the attempt whose stderr this is begin with.
HERE = "b=$(readlink /proc/self/fd/2); b=${b%.stderr}; "


@pytest.mark.parametrize("name", ["stdout", "stderr", "exit"])
@pytest.mark.parametrize(
    "put", ["mkfifo $b.{0}", "ln -s $PWD/victim $b.{0}", "mkdir $b.{0}", "chmod 0 ${{b%/*}}", "rm -r ${{b%/*}}"]
)
async def test_what_an_attempt_puts_in_the_place_of_its_files(bench: Bench, name: str, put: str) -> None:
    """Neither waits nor leads elsewhere: it is as if there was nothing."""
    victim = bench.root / "victim"
    victim.write_text("v" * 5000)
    script = f"{HERE} rm $b.{name}; {put.format(name)}; exit 9"
    run = bench.attempt("sh", "-c", script, output_bytes=1000)
    outcome = await bench.runner.run(run)
    assert (kind(outcome), outcome.exit_code, text(outcome)) == ("exit", 9, "")
    assert outcome.error is not None and "vvv" not in outcome.error.message
    assert victim.read_text() == "v" * 5000


@pytest.mark.slow
async def test_the_cap_cuts_only_the_attempts_own_file(bench: Bench) -> None:
    victim = bench.root / "victim"
    victim.write_text("v" * 5000)
    run = bench.attempt(
        "sh", "-c", f"{HERE} ln -sf $PWD/victim $b.stdout; head -c 3000 /dev/zero >&2", output_bytes=1000
    )
    outcome = await bench.runner.run(run)
    assert (kind(outcome), outcome.output_bytes, text(outcome)) == ("output_limit", 1000, "")
    assert victim.read_text() == "v" * 5000


async def test_what_an_attempt_puts_in_the_place_of_its_checks_files(bench: Bench) -> None:
    victim = bench.root / "victim"
    victim.write_text("untouched")
    planted = f"{HERE} mkfifo $b.check.stdout; ln -s $PWD/victim $b.check.stderr; ln -s $PWD/victim $b.check.exit"
    outcome = await bench.run("sh", "-c", planted, check=["sh", "-c", "echo so; echo no >&2; exit 3"])
    assert outcome.error is not None and outcome.error.message == "exited with code 3: no"
    assert victim.read_text() == "untouched"
    outcome = await bench.run("sh", "-c", f"{HERE} mkdir $b.check.stdout", check=["true"])
    assert kind(outcome) == "check" and outcome.error is not None
    assert "check.stdout" in outcome.error.message


async def test_signals(bench: Bench) -> None:
    for name in ("SEGV", "KILL", "TERM", "USR1", "PIPE"):
        outcome = await bench.run("sh", "-c", f"kill -{name} $$")
        assert (kind(outcome), outcome.signal) == ("signal", "SIG" + name)
        assert outcome.exit_code == 128 + getattr(signal, "SIG" + name)
    assert kind(await bench.run("sh", "-c", "exit 128")) == "exit"
    assert kind(await bench.run("sh", "-c", "exit 193")) == "exit"
    assert (await bench.run("sh", "-c", "exit 162")).signal == "SIGRTMIN"


async def test_stdin(bench: Bench) -> None:
    assert text(await bench.run("cat", stdin="one\ntwo é")) == "one\ntwo é"
    assert text(await bench.run("cat", stdin="")) == ""
    assert text(await bench.run("readlink", "/proc/self/fd/0")) == "/dev/null\n"


async def test_environment_is_built(bench: Bench) -> None:
    environ = {
        "PATH": os.environ["PATH"], "HOME": "/h", "LC_ALL": "C", "XDG_X": "x", "SECRET": "s", "PASSED_ON": "p",
        "LD_LIBRARY_PATH": "/frozen", "_PYI_HOME": "y", "NOTIFY_SOCKET": "/n", "ORCHESTR8D_AUTH__MODE": "none",
    }  # fmt: skip
    bench.runner = CommandRunner(
        bench.processes, bench.clock, environ, lambda: ["PASSED_*", "L*", "_*", "*SOCKET", "O*"]
    )
    run = bench.attempt("env", env={"OWN": "1\n2", "HOME": "/own", "ORCHESTR8_TASK_ID": "forged", "OPTIND": "x"})
    outcome = await bench.runner.run(run)
    got = dict(line.split("=", 1) for line in text(outcome).replace("\n2", "|2").splitlines())
    assert got == {
        "PATH": os.environ["PATH"], "HOME": "/own", "LC_ALL": "C", "XDG_X": "x", "PASSED_ON": "p", "OWN": "1|2",
        "OPTIND": "x", "PWD": str(bench.root), "ORCHESTR8_TASK_ID": run.task_id, "ORCHESTR8_ATTEMPT_ID": run.attempt_id,
    }  # fmt: skip
    outcome = await bench.run("env", env={"LD_LIBRARY_PATH": "/mine"})
    assert "LD_LIBRARY_PATH=/mine" in text(outcome)


def test_allowed_is_case_sensitive_and_never_lets_the_daemons_own_through() -> None:
    environ = {"PATH": "/bin", "path": "x", "LC_TIME": "C", "LISTEN_FDS": "1"}
    assert allowed(environ, ["PATH", "LC_*", "LISTEN_*"]) == {"PATH": "/bin", "LC_TIME": "C"}


async def test_the_program_is_found_by_the_tasks_own_path_and_directory(bench: Bench) -> None:
    here = bench.root / "bin"
    here.mkdir()
    tool = here / "tool"
    tool.write_text("#!/bin/sh\necho tool $0 $#")
    tool.chmod(0o755)
    for path, cwd, name in (
        (str(here), "/", "tool"), ("bin", str(bench.root), "tool"), ("/bin:", str(here), "tool"),
        ("/bin", str(bench.root), "bin/tool"), ("/bin", str(here), "./tool"), ("", str(here), str(tool)),
    ):  # fmt: skip
        outcome = await bench.run(name, "", "a b", env={"PATH": path}, cwd=cwd)
        assert text(outcome) == f"tool {tool} 2\n"


async def test_words_of_the_shell_are_not_programs(bench: Bench) -> None:
    for word in ("exit", "exec", "eval", "run", "if", "cd", "-c", "$(true)", "A=1"):
        outcome = await bench.run(word, "0")
        assert (kind(outcome), outcome.exit_code) == ("not_found", None), word
    assert text(await bench.run("printf", "%s|", "$HOME", "`id`", "a'b", '"', "*", "\\n", "\n", "-n")) == (
        "$HOME|`id`|a'b|\"|*|\\n|\n|-n|"
    )


async def test_what_is_missing_is_said_before_anything_starts(bench: Bench) -> None:
    (bench.root / "data").write_text("")
    (bench.root / "dir").mkdir()
    for argv, more, message in (
        (["no-such-tool"], {}, "no-such-tool: no such program in PATH"),
        (["./nope"], {}, f"./nope: no such program (looked for {bench.root}/nope)"),
        (["/nope/nope"], {}, "/nope/nope: no such program"),
        (["./data"], {}, "is not executable"),
        (["data"], {"env": {"PATH": str(bench.root)}}, "is not executable"),
        (["./dir"], {}, "is a directory, not a program"),
        (["true"], {"cwd": "/nope"}, "the working directory does not exist: /nope"),
        (["true"], {"cwd": f"{bench.root}/data"}, "the working directory is not a directory"),
        (["true", *["x" * 100_000] * 100], {}, "longer than the system takes"),
    ):
        run = bench.attempt(*argv, **more)
        outcome = await bench.runner.run(run)
        assert kind(outcome) == "not_found" and outcome.error is not None
        assert message in outcome.error.message
        assert not Path(run.files.stdout).exists() or "longer" in message


async def test_a_script_without_an_interpreter_is_run_by_the_shell(bench: Bench) -> None:
    script = bench.root / "plain"
    script.write_text("echo plain $1\n")
    script.chmod(0o755)
    assert text(await bench.run("./plain", "x")) == "plain x\n"


async def test_check(bench: Bench) -> None:
    outcome = await bench.run("touch", "made", check=["test", "-e", "made"])
    assert outcome.status == "completed"
    outcome = await bench.run("echo", "out", check=["sh", "-c", "pwd; echo bad: $OWN >&2; exit 3"], env={"OWN": "o"})
    assert (kind(outcome), outcome.exit_code, text(outcome)) == ("check", 0, "out\n")
    assert outcome.error is not None and outcome.error.message == "exited with code 3: bad: o"
    outcome = await bench.run("true", check=["sh", "-c", "echo only stdout; exit 1"])
    assert outcome.error is not None and outcome.error.message == "exited with code 1: only stdout"
    outcome = await bench.run("true", check=["nope"])
    assert outcome.error is not None and (kind(outcome), "nope: no such program" in outcome.error.message) == (
        "check",
        True,
    )
    outcome = await bench.run("sh", "-c", "exit 4", check=["touch", "checked"])
    assert (kind(outcome), (bench.root / "checked").exists()) == ("exit", False)


@pytest.mark.slow
async def test_check_is_bounded_and_leaves_nothing(bench: Bench) -> None:
    outcome = await bench.run("true", check=[str(bench.leaf)], timeout=0.3)
    assert outcome.error is not None
    assert (kind(outcome), outcome.error.message) == ("check", "ran longer than its timeout of 0.3s")
    outcome = await bench.run("true", check=["sh", "-c", f"(setsid {bench.leaf} &); sleep 0.1"])
    assert outcome.status == "completed" and len(bench.noted()) == 2 and bench.alive() == []
    outcome = await bench.run("true", check=[str(bench.leaf)], time_left=0.3)
    assert kind(outcome) == "deadline"
    run = bench.attempt("true", check=[str(bench.leaf)])
    running_ = asyncio.create_task(bench.runner.run(run))
    await until(bench.alive)
    run.stop.ask("cancelled")
    assert (await running_).status == "cancelled" and bench.alive() == []


@pytest.mark.slow
async def test_time_limits(bench: Bench) -> None:
    outcome = await bench.run("sh", "-c", "echo begun; exec sleep 300", timeout=0.3)
    assert (kind(outcome), outcome.signal, text(outcome)) == ("timeout", "SIGTERM", "begun\n")
    assert outcome.error is not None and outcome.error.message == "ran longer than its timeout of 0.3s"
    assert kind(await bench.run("sleep", "300", time_left=0.2)) == "deadline"
    assert kind(await bench.run("sleep", "300", time_left=-5.0)) == "deadline"
    assert kind(await bench.run("sleep", "300", stall_timeout=0.3)) == "stalled"
    began = time.monotonic()
    outcome = await bench.run("sh", "-c", "for i in 1 2 3 4; do echo $i >&2; sleep 0.3; done", stall_timeout=0.7)
    assert outcome.status == "completed" and time.monotonic() - began > 1.1
    outcome = await bench.run("sh", "-c", "trap 'echo bye; exit 0' TERM; while :; do sleep 0.02; done", timeout=0.2)
    assert (kind(outcome), outcome.exit_code, text(outcome)) == ("timeout", 0, "bye\n")


@pytest.mark.slow
async def test_output_cap(bench: Bench) -> None:
    cap = 100_000
    outcome = await bench.run("head", "-c", str(cap), "/dev/zero", output_bytes=cap)
    assert (outcome.status, outcome.output_bytes) == ("completed", cap)
    run = bench.attempt("head", "-c", str(cap + 1), "/dev/zero", output_bytes=cap)
    outcome = await bench.runner.run(run)
    assert (kind(outcome), Path(run.files.stdout).stat().st_size) == ("output_limit", cap)
    run = bench.attempt("sh", "-c", "yes >&2 & yes", output_bytes=cap)
    began = time.monotonic()
    outcome = await bench.runner.run(run)
    assert (kind(outcome), outcome.output_bytes) == ("output_limit", 2 * cap) and time.monotonic() - began < 3


async def test_interrupted_and_cancelled(bench: Bench) -> None:
    for why in ("interrupted", "cancelled"):
        run = bench.attempt("sh", "-c", f"echo x; exec {bench.leaf}")
        running_ = asyncio.create_task(bench.runner.run(run))
        await until(bench.alive)
        run.stop.ask(why)  # type: ignore[arg-type]  # a literal, to the type checker a str
        outcome = await running_
        assert (outcome.status, outcome.error, bench.alive()) == (why, None, [])


async def test_started_is_told_once(bench: Bench) -> None:
    times: list[float] = []
    run = bench.attempt("true", check=["true"])
    object.__setattr__(run, "started", lambda: times.append(time.monotonic()))
    await bench.runner.run(run)
    assert len(times) == 1


async def test_the_child_outlives_the_task_that_watches_it(bench: Bench) -> None:
    run = bench.attempt("sh", "-c", f"{bench.leaf} & until [ -e go ]; do sleep 0.01; done; echo done")
    watching = asyncio.create_task(bench.runner.run(run))
    await until(bench.alive)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    await bench.processes.close()
    bench.processes = Processes(bench.clock)
    bench.runner = CommandRunner(bench.processes, bench.clock, os.environ)
    found = await bench.processes.scan({run.attempt_id: run.files, "another": Files("/nowhere")})
    assert list(found) == [run.attempt_id] and found[run.attempt_id].leader is not None
    adopted = asyncio.create_task(bench.runner.run(bench.attempt(adopted=True, attempt_id=run.attempt_id)))
    await asyncio.sleep(0)
    assert bench.alive()
    (bench.root / "go").touch()
    outcome = await adopted
    assert (outcome.status, text(outcome), bench.alive()) == ("completed", "done\n", [])
    await bench.processes.close()


DAEMON = """
import asyncio, os, sys
from orchestr8d.clock import SystemClock
from orchestr8d.core.model import Spec
from orchestr8d.processes import Files, Processes
from orchestr8d.task_runners import Limits, Run
from orchestr8d.task_runners.command import CommandRunner

async def main(attempt_id, base, script, check):
    runner = CommandRunner(Processes(SystemClock()), SystemClock(), os.environ)
    spec = Spec(command=["sh", "-c", script], cwd=os.getcwd(), check=["sh", "-c", check] if check else None)
    await runner.run(Run(attempt_id, attempt_id, spec, Files(base), {}, Limits()))

asyncio.run(main(*sys.argv[1:]))
"""


class Killed:
    """A daemon that started an attempt and was killed with SIGKILL at a moment that the attempt itself chose."""

    def __init__(self, bench: Bench, script: str, check: str = "", **spec: object) -> None:
        self.run = bench.attempt("sh", "-c", script, adopted=True, check=["sh", "-c", check] if check else None, **spec)
        self._argv = [self.run.attempt_id, self.run.files.base, script, check]
        self._root = bench.root

    async def when(self, fact: object) -> None:
        assert callable(fact)
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        daemon = subprocess.Popen([sys.executable, "-c", DAEMON, *self._argv], cwd=self._root, env=env)
        try:
            await until(fact)
        finally:
            daemon.kill()
            daemon.wait()


@pytest.mark.slow
async def test_adoption_after_the_daemon_was_killed(bench: Bench) -> None:
    killed = Killed(bench, f"(env -i setsid {bench.leaf} &); until [ -e go ]; do sleep 0.01; done; echo fine; exit 5")
    await killed.when(bench.alive)
    assert bench.alive()
    adopted = asyncio.create_task(bench.runner.run(killed.run))
    await asyncio.sleep(0.05)
    assert bench.alive() and not adopted.done()
    (bench.root / "go").touch()
    outcome = await adopted
    assert (kind(outcome), outcome.exit_code, text(outcome), bench.alive()) == ("exit", 5, "fine\n", [])


@pytest.mark.slow
async def test_the_exit_file_speaks_for_one_that_ended_alone(bench: Bench) -> None:
    killed = Killed(bench, f"touch ran; until [ -e go ]; do sleep 0.01; done; (setsid {bench.leaf} &); echo fine")
    await killed.when((bench.root / "ran").exists)
    (bench.root / "go").touch()
    await until(bench.alive)
    await until(lambda: Path(killed.run.files.exit).read_bytes()[:4] == b"000\n")
    outcome = await bench.runner.run(killed.run)
    assert (outcome.status, text(outcome), bench.alive()) == ("completed", "fine\n", [])
    assert outcome.resources is not None and outcome.resources.max_rss_bytes > 0


async def test_nothing_found_is_an_interruption(bench: Bench) -> None:
    assert (await bench.runner.run(bench.attempt("true", adopted=True))).status == "interrupted"
    run = bench.attempt("true", adopted=True)
    run.stop.ask("cancelled")
    assert (await bench.runner.run(run)).status == "cancelled"


@pytest.mark.slow
async def test_the_check_runs_again_after_a_restart(bench: Bench) -> None:
    check = f"echo x >>checks; [ -e go ] || exec {bench.leaf}"
    killed = Killed(bench, "echo fine", check)
    await killed.when(bench.alive)
    (bench.root / "go").touch()
    outcome = await bench.runner.run(killed.run)
    assert (outcome.status, text(outcome), bench.alive()) == ("completed", "fine\n", [])
    assert (bench.root / "checks").read_text() == "x\nx\n"


@pytest.mark.slow
async def test_the_timeout_counts_from_the_start_of_an_adopted_child(bench: Bench) -> None:
    killed = Killed(bench, f"exec {bench.leaf}", timeout=1.0)
    await killed.when(bench.alive)
    await asyncio.sleep(0.7)
    began = time.monotonic()
    outcome = await bench.runner.run(killed.run)
    assert kind(outcome) == "timeout" and time.monotonic() - began < 0.9


async def test_a_signal_from_before_the_boot_was_the_shutdowns(bench: Bench) -> None:
    """And SIGKILL with no daemon there is what everything is ended with."""
    now = bench.clock.boot().encode()
    for status, boot, expected in (
        (b"143", b"old", "interrupted"), (b"007", b"old", "failed"),
        (b"143", now, "failed"), (b"137", now, "interrupted"),
    ):  # fmt: skip
        run = bench.attempt("true", adopted=True)
        Path(run.files.exit).parent.mkdir(parents=True, exist_ok=True)
        Path(run.files.exit).write_bytes(status + b"\n\n\n" + boot)
        assert (await bench.runner.run(run)).status == expected


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOSPC])
async def test_a_shortage_is_an_interruption(bench: Bench, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Link, "start", short)
    assert (await bench.run("true")).status == "interrupted"


async def test_an_error_of_ours_is_a_failure_that_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(command, "read_result", broken)
    outcome = await bench.run("true")
    assert outcome.error is not None
    assert (kind(outcome), outcome.error.message) == ("crashed", "internal error: RuntimeError: a bug")


SHORT_OF_DESCRIPTORS = """
import asyncio, json, os, resource, sys
from pathlib import Path
from orchestr8d.clock import SystemClock
from orchestr8d.core.model import Spec
from orchestr8d.processes import Files, Processes
from orchestr8d.task_runners import Limits, Run
from orchestr8d.task_runners.command import CommandRunner

async def main(root):
    runner = CommandRunner(Processes(SystemClock()), SystemClock(), os.environ)
    def run(name, script):
        spec = Spec(command=["sh", "-c", script], cwd=root)
        return runner.run(Run(name, name, spec, Files(f"{root}/attempts/{name}"), {}, Limits(0.2)))
    # One that runs when descriptors go short, and ends meanwhile; its result is read when there are some again.
    first = asyncio.create_task(run("first", "until [ -e go ]; do sleep 0.01; done; echo fine"))
    while not Path(root, "attempts/first.stdout").exists(): await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    hold = []
    try:
        while True: hold.append(os.open("/dev/null", os.O_RDONLY))
    except OSError: pass
    late = await run("late", "echo x >>ran")
    os.close(hold.pop())
    Path(root, "go").touch()  # with the last descriptor, which it gives back
    hold.append(os.open("/dev/null", os.O_RDONLY))
    await asyncio.sleep(0.3)
    for fd in hold: os.close(fd)
    done = await first
    print(json.dumps([late.status, done.status, (done.result or b"").decode()]))

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.slow
async def test_out_of_file_descriptors(bench: Bench) -> None:
    """Nothing is lost that has ended, and a keeper that is there starts things: it has descriptors of its own."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    argv = [sys.executable, "-c", SHORT_OF_DESCRIPTORS, str(bench.root)]
    done = await asyncio.to_thread(subprocess.run, argv, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["completed", "completed", "fine\n"]
    assert (bench.root / "ran").read_text() == "x\n"
