"""`status`, `result`, `logs`, `list`, `wait` and the verbs that steer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter

import pytest

from tests.cli.conftest import Box, until_it_waits

pytestmark = pytest.mark.slow


@pytest.fixture
def waiting(box: Box) -> str:
    """A task that does not start for an hour."""
    return box.out("submit", "-o", "delay=1h", "--", "sh", "-c", "echo ran")


def test_status_says_why_a_task_waits(box: Box, waiting: str) -> None:
    text = box.out("status", waiting[-8:])
    assert waiting in text
    assert "waiting for  time until" in text
    assert json.loads(box.out("status", "--json", waiting))["status"] == "pending"


def test_status_names_the_error(box: Box) -> None:
    box.run("submit", "--wait", "-o", "title=doomed", "--", "sh", "-c", "exit 7", code=1)
    task = json.loads(box.out("list", "--json", "-q", "doomed"))["tasks"][0]["id"]
    assert "exited with code 7" in box.out("status", task)


def test_result_prints_just_the_result(box: Box) -> None:
    task = box.out("submit", "--wait", "--", "printf", "no newline")
    assert box.run("result", task).stdout == "no newline"
    task = box.out("submit", "--wait", "--", "echo", '{"a": [1]}')
    assert json.loads(box.out("result", task)) == {"a": [1]}
    assert json.loads(box.out("result", "--json", task))["result_type"] == "json"


def test_a_large_result_is_read_from_the_log(box: Box) -> None:
    task = box.out("submit", "--wait", "--", "head", "-c", "3000000", "/dev/zero")
    assert len(box.run("result", task).stdout) == 3_000_000


def test_result_of_what_failed_or_runs(box: Box, waiting: str) -> None:
    assert "no result yet" in box.run("result", waiting, code=5).stderr
    box.run("cancel", waiting)
    assert box.run("result", waiting, code=1).stderr == f"orchestr8d: task {waiting[-8:]} cancelled\n"


def test_logs_keep_the_streams_apart(box: Box) -> None:
    task = box.out("submit", "--wait", "--", "sh", "-c", "seq 5; echo err >&2")
    done = box.run("logs", task)
    assert (done.stdout, done.stderr) == ("1\n2\n3\n4\n5\n", "err\n")
    assert box.run("logs", task, "--stream", "stderr").stderr == "err\n"
    assert box.run("logs", task, "-n", "2").stdout == "4\n5\n"
    assert box.run("logs", "-f", "-n", "1", task).stdout == "5\n"
    assert "no attempt 9" in box.run("logs", task, "--attempt", "9", code=4).stderr


def test_list_filters(box: Box) -> None:
    tags = ["-o", "tags=odd", "-o", "tags=even"]
    task = box.out("submit", "--wait", *tags, "--queue", "special", "-o", "title=a needle here", "--", "true")
    for query in (["-t", "odd", "-t", "even"], ["--queue", "special"], ["-q", "needle"]):
        assert [t["id"] for t in json.loads(box.out("list", "--json", *query))["tasks"]] == [task]
    assert task not in box.out("list", "--json", "-t", "odd", "--status", "failed,cancelled")
    header, line = box.out("list", "-t", "odd").splitlines()
    assert header.split() == ["ID", "STATUS", "QUEUE", "AGE", "TOOK", "WHAT"]
    assert line.startswith(f"{task[-8:]}  completed  special")
    assert "--status" in box.run("list", "-s", "runing", code=2).stderr


def test_list_pages(box: Box) -> None:
    with box.client() as client:
        client.submit_many([{"command": ["true"], "options": {"tags": ["paged"]}} for _ in range(5)])
    page = json.loads(box.out("list", "--json", "-t", "paged", "-n", "2"))
    rest = json.loads(box.out("list", "--json", "-t", "paged", "--cursor", page["next_cursor"]))
    everything = json.loads(box.out("list", "--json", "-t", "paged", "--all"))
    assert [t["id"] for t in page["tasks"] + rest["tasks"]] == [t["id"] for t in everything["tasks"]]
    assert len(everything["tasks"]) == 5


def test_control_characters_cannot_steer_a_terminal(box: Box) -> None:
    box.run("submit", "--wait", "-o", "title=evil\x1b[2Jname\n", "-o", "tags=evil", "--", "true")
    assert "evil\\x1b[2Jname\\n" in box.out("list", "-t", "evil")


def test_cancel_pause_resume_edit(box: Box, waiting: str) -> None:
    assert box.out("pause", waiting).startswith(f"{waiting[-8:]}  pending")
    assert "paused" in box.out("status", waiting)
    box.run("resume", waiting)
    box.run("resume", waiting, code=5)
    box.run("edit", waiting, "--priority", "critical", "-o", "timeout=1h", "-o", "delay=null", "--", "echo", "edited")
    box.run("wait", waiting)
    assert box.out("result", waiting) == "edited"
    assert "options.nix" in box.run("edit", waiting, "-o", "nix=1", code=1).stderr
    box.run("edit", waiting, "--priority", "low", code=5)
    box.run("edit", waiting, code=2)


def test_cancel_ends_what_runs_and_says_what_it_could_not(box: Box, waiting: str) -> None:
    running = box.out("submit", "--", "sleep", "60")
    done = box.run("cancel", running, "00000000", waiting, code=4)
    assert [line.split() for line in done.stdout.splitlines()] == [[t[-8:], "cancelled"] for t in (running, waiting)]
    assert "'00000000'" in done.stderr
    said = f"orchestr8d: task {running[-8:]} cancelled on request\n"
    assert box.run("result", running, code=1).stderr == said
    assert "error    cancelled on request" in box.out("status", running)
    box.run("cancel", running, code=5)


def test_retry_makes_a_new_task(box: Box, waiting: str) -> None:
    box.run("retry", waiting, code=5)
    failed = json.loads(box.run("submit", "--wait", "--json", "--", "sh", "-c", "echo again; exit 1", code=1).stdout)
    done = box.run("retry", "-f", failed["task_id"], code=1)
    assert done.stdout == "again\n"
    assert failed["task_id"] not in done.stderr


def test_wait_for_several(box: Box) -> None:
    good = [box.out("submit", "--", "true") for _ in range(2)]
    bad = box.out("submit", "--", "false")
    assert box.out("wait", *good).splitlines() == [f"{t[-8:]}  completed" for t in good]
    box.run("wait", *good, bad, code=1)
    assert [s["status"] for s in json.loads(box.run("wait", "--json", bad, good[0], code=1).stdout)] == [
        "failed",
        "completed",
    ]
    box.run("wait", code=2)
    box.run("wait", "--all", good[0], code=2)


def test_wait_gives_up_after_its_timeout(box: Box) -> None:
    task = box.out("submit", "--", "sleep", "60")
    assert "still" in box.run("wait", task, "--timeout", "0.2", code=124).stderr
    assert "--timeout" in box.run("wait", "--all", "--timeout", "0.2", code=124).stderr
    box.run("cancel", task)


@pytest.mark.parametrize("verb", [["wait"], ["logs", "-f"], ["watch"]])
def test_ctrl_c_leaves_and_the_task_goes_on(box: Box, verb: list[str]) -> None:
    task = box.out("submit", "--", "sh", "-c", "echo begun; sleep 60")
    left = box.popen(*verb, task)
    if verb != ["wait"]:
        assert left.stdout is not None and left.stdout.readline()
    else:
        until_it_waits(left)
    left.send_signal(signal.SIGINT)
    _, said = left.communicate(timeout=30)
    assert (left.returncode, "go on" in said or "goes on" in said) == (130, True), said
    assert json.loads(box.out("status", "--json", task))["status"] == "running"
    box.run("cancel", task)


def test_a_reader_that_had_enough_is_no_error(box: Box) -> None:
    with box.client() as client:
        client.submit_many([{"command": ["true"], "options": {"title": "x" * 900}} for _ in range(200)])
    piped = subprocess.run(
        ["sh", "-c", '("$0" -m orchestr8d list --all; echo "code $?" >&2) | head -1', sys.executable],
        env=box.env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert piped.stderr == "code 141\n"


def test_ids_may_be_shortened_to_what_is_unambiguous(box: Box) -> None:
    held = {"command": ["true"], "options": {"queue": "crowd", "delay": "1h"}}
    tails: Counter[str] = Counter()
    ids: list[str] = []
    with box.client() as client:
        while not ids or tails.most_common(1)[0][1] < 2:
            made = [task["task_id"] for task in client.submit_many([held] * 1000)]
            ids += made
            tails.update(task_id[-6:] for task_id in made)
    tail = tails.most_common(1)[0][0]
    twins = [task_id for task_id in ids if task_id.endswith(tail)]
    done = box.run("status", tail, code=2)
    assert all(twin in done.stderr for twin in twins)
    assert twins[0] in box.out("status", twins[0][-20:])
    assert "6 characters" in box.run("status", "12345", code=2).stderr
    assert "no task" in box.run("status", "00000000-0000-7000-8000-000000000000", code=4).stderr
