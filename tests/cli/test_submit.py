"""`submit`: what goes over to the daemon, and what comes back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Box

pytestmark = pytest.mark.slow
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def test_the_id_is_all_that_a_pipe_gets(box: Box) -> None:
    assert ID.fullmatch(box.out("submit", "--", "true"))
    answer = json.loads(box.out("submit", "--json", "--", "true"))
    assert answer["status"] == "queued"


def test_the_command_is_taken_word_for_word(box: Box) -> None:
    words = ["printf", "%s|", "a b", "--wait", "--", "-o", "x=1", "$HOME", "*"]
    task = box.out("submit", "--wait", "--", *words)
    assert box.out("result", task) == "a b|--wait|--|-o|x=1|$HOME|*|"


def test_a_task_runs_where_the_caller_is_with_what_the_caller_has(box: Box, tmp_path: Path) -> None:
    env = {"LC_TIME": "C", "VIRTUAL_ENV": "/some/venv", "SECRET_STUFF": "no", "XDG_X": "yes", "GIVEN": "yes"}
    task = box.out(
        "submit", "--wait", "-e", "A=1 2", "-e", "GIVEN", "--", "sh", "-c", "pwd; env", env=env, cwd=tmp_path
    )
    directory, *lines = box.out("result", task).splitlines()
    got = dict(line.split("=", 1) for line in lines if "=" in line)
    assert directory == str(tmp_path)
    assert (
        got.items() >= {"A": "1 2", "GIVEN": "yes", "LC_TIME": "C", "VIRTUAL_ENV": "/some/venv", "XDG_X": "yes"}.items()
    )
    assert got["PATH"] == box.env["PATH"]
    assert "SECRET_STUFF" not in got


def test_a_clean_environment_has_nothing_of_the_caller(box: Box) -> None:
    env = {"XDG_X": "yes"}
    task = box.out("submit", "--wait", "--clean-env", "-e", "ONLY=this", "--", "env", env=env)
    lines = box.out("result", task).splitlines()
    assert "ONLY=this" in lines
    assert "XDG_X=yes" not in lines


def test_what_is_no_utf8_in_the_environment_stays_behind(box: Box) -> None:
    env = {"LC_BAD": b"\xff".decode(errors="surrogateescape")}
    assert ID.fullmatch(box.out("submit", "--", "true", env=env))
    assert "not UTF-8" in box.run("submit", "-e", "LC_BAD", "--", "true", env=env, code=2).stderr
    assert "not UTF-8" in box.run("submit", "--", "echo", env["LC_BAD"], code=2).stderr


def test_options_reach_the_task(box: Box) -> None:
    task = box.out(
        "submit", "--queue", "held", "--priority", "high", "-o", "timeout=90s", "-o", "max_retries=2",
        "--title", "12", "-o", "tags=a", "-o", "tags=b", "-o", 'metadata={"pr": 1}', "-o", "metadata.by=me",
        "-o", "retry_backoff.kind=fixed", "-o", "check=test -e 'a b'", "-o", "delay=1h", "--", "true",
    )  # fmt: skip
    with box.client() as client:
        got = client.task(task)
    assert (got["queue"], got["priority"], got["title"], got["max_retries"]) == ("held", 10, "12", 2)
    assert (got["tags"], got["metadata"]) == (["a", "b"], {"pr": 1, "by": "me"})
    assert got["options"]["check"] == ["test", "-e", "a b"]
    assert (got["options"]["timeout"], got["options"]["retry_backoff"]["kind"]) == (90, "fixed")


def test_a_dependency_may_be_the_end_of_an_id(box: Box) -> None:
    first = box.out("submit", "--", "true")
    second = box.out("submit", "--wait", "-o", f"depends_on={first[-8:]}", "--", "true")
    with box.client() as client:
        assert client.task(second)["depends_on"] == [first]


def test_stdin_comes_from_a_pipe_or_a_file(box: Box, tmp_path: Path) -> None:
    assert box.out("submit", "--follow", "--stdin", "--", "cat", stdin="über\n") == "über"
    assert box.out("submit", "--follow", "--stdin", "-", "--", "cat", stdin="dash") == "dash"
    (tmp_path / "in").write_text("from a file")
    assert box.out("submit", "--follow", "--stdin", str(tmp_path / "in"), "--", "cat") == "from a file"
    assert "not UTF-8" in box.run("submit", "--stdin", "--", "cat", stdin=b"\xff\xfe", code=2).stderr
    assert "No such file" in box.run("submit", "--stdin", "/nowhere", "--", "cat", code=1).stderr


def test_follow_shows_both_streams_and_the_outcome(box: Box) -> None:
    done = box.run("submit", "--follow", "--", "sh", "-c", "echo out; echo err >&2; sleep 0.3; echo more")
    assert done.stdout == "out\nmore\n"
    assert "err\n" in done.stderr
    done = box.run("submit", "--wait", "--follow", "--", "sh", "-c", "echo out; exit 3", code=1)
    assert done.stdout == "out\n"
    assert "failed: exit: exited with code 3" in done.stderr


def test_follow_shows_every_attempt(box: Box) -> None:
    again = ["-o", "max_retries=2", "-o", "retry_backoff.kind=fixed", "-o", "retry_backoff.base=0"]
    done = box.run("submit", "-f", *again, "--", "sh", "-c", "echo $ORCHESTR8_ATTEMPT; exit 1", code=1)
    assert done.stdout == "1\n2\n3\n"


def test_wait_tells_by_its_exit_code(box: Box) -> None:
    box.run("submit", "--wait", "--", "true")
    assert "failed" in box.run("submit", "--wait", "--", "false", code=1).stderr
    result = json.loads(box.out("submit", "--wait", "--json", "--", "echo", "here"))
    assert (result["status"], result["result"]) == ("completed", "here\n")
    done = box.run("submit", "--wait", "--timeout", "0.2", "--", "sleep", "30", code=124)
    assert "goes on" in done.stderr
    box.run("cancel", done.stderr.split("task ")[1].split()[0])


def test_all_faults_are_listed_one_a_line(box: Box) -> None:
    done = box.run("submit", "-o", "timout=3", "-o", "priority=9999", "-e", "1X=2", "--", "true", code=1)
    lines = done.stderr.splitlines()
    assert len(lines) >= 2
    assert any("options.timout" in line and "did you mean 'timeout'" in line for line in lines)
    assert any("options.priority" in line for line in lines)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "nothing to submit"),
        (["--"], "no command after the --"),
        (["make", "test"], "a command goes after --: orchestr8d submit -- make test"),
        (["make"], "a prompt needs an agent"),
        (["--agent", "reviewer"], "say what reviewer shall do"),
        (["--agent", "reviewer", "--", "make"], "not both"),
        (["--agent", "reviewer", "--prompt-file", "x", "look"], "not both"),
        (["--agent", "reviewer", "--json-schema", "{", "look"], "not JSON"),
        (["make", "--", "test"], "not both"),
        (["-o", "timeout", "--", "x"], "expected key=value"),
        (["-o", "check='", "--", "x"], "No closing quotation"),
        (["-e", "NOT_SET_HERE", "--", "x"], "no such variable"),
        (["--timeout", "5", "--", "x"], "-o timeout="),
        (["--follow", "--json", "--", "x"], "--wait --json"),
        (["--wait", "--timeout", "soon", "--", "x"], "duration"),
        (["--nonsense", "--", "x"], "No such option"),
    ],
)
def test_misuse_is_told_before_anything_is_sent(fresh: Box, args: list[str], said: str) -> None:
    assert said in fresh.run("submit", *args, code=2).stderr


def test_a_key_that_is_taken_is_a_wrong_state(box: Box) -> None:
    held = ["-o", "unique_key=only", "-o", "delay=1h", "--", "true"]
    first = box.out("submit", *held)
    assert first in box.run("submit", *held, code=5).stderr
    assert box.out("submit", "-o", "on_conflict=existing", *held) == first
