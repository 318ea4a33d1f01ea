"""`orchestr8d hook`: what stdin has reaches the daemon, and nothing that goes wrong is noticed."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Box
from tests.hook_samples import sample


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    box = Box(tmp_path_factory.mktemp("hook") / "state")
    box.config.write_text("""
[[hooks]]
event = "SessionStart"
task = { command = ["echo", "{{ hook.source }}", "{{ hook.pad|length }}"] }
""")
    box.start()
    yield box
    box.stop()


def made(box: Box, count: int) -> list[list[str]]:
    end = time.monotonic() + 20
    while len(found := list(box.client().tasks())) < count:
        assert time.monotonic() < end, box.tail()
        time.sleep(0.01)
    return [task["command"] for task in found]


@pytest.mark.slow
def test_a_hook_becomes_a_task_over_socket_and_tcp(ruled: Box) -> None:
    hook = json.dumps(sample("SessionStart", pad="x" * 3_000_000))
    tcp = {"ORCHESTR8_URL": f"http://127.0.0.1:{ruled.port}", "ORCHESTR8_TOKEN": ruled.token}
    for env in ({}, tcp):
        done = ruled.run("hook", stdin=hook, env=env)
        assert (done.stdout, done.stderr) == ("", "")
    assert made(ruled, 2) == [["echo", "startup", "3000000"]] * 2


@pytest.mark.slow
@pytest.mark.parametrize("stdin", [b"", b"garbage", b"[]", b"\xff\x00", b"{}"])
def test_nothing_disturbs_the_session(ruled: Box, stdin: bytes) -> None:
    for args in (["hook"], ["hook", "--what", "ever"]):
        done = ruled.run(*args, stdin=stdin)
        assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("env", [
    {}, {"ORCHESTR8_URL": "nonsense"}, {"ORCHESTR8_URL": "http://127.0.0.1:1"}, {"ORCHESTR8D_SERVER__LISTEN": "x"},
])  # fmt: skip
def test_without_a_daemon_it_is_silent_and_quick(fresh: Box, env: dict[str, str]) -> None:
    begun = time.monotonic()
    done = fresh.run("hook", stdin=json.dumps(sample("SessionStart")), env=env)
    assert (done.stdout, done.stderr) == ("", "")
    # 0.1 s on a machine that has nothing else to do.
    assert time.monotonic() - begun < 1


def test_rules_are_not_read_to_find_a_daemon_that_is_down(fresh: Box) -> None:
    """Checking their templates takes longer than a session is held up for."""
    fresh.config.write_text('[[hooks]]\nevent = "Stop"\ntask = { command = ["echo", "{{ hook.cwd }}"] }\n')
    env = {"ORCHESTR8D_CONFIG": str(fresh.config), "PYTHONVERBOSE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "orchestr8d", "hook"], env=fresh.env | env, input=b"{}", capture_output=True, timeout=60
    )
    assert done.returncode == 0
    assert b"import 'orchestr8d.config'" in done.stderr
    assert b"import 'jinja2'" not in done.stderr


@pytest.mark.slow
def test_a_daemon_that_says_nothing_is_left(fresh: Box, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        env = {"ORCHESTR8_URL": f"http://127.0.0.1:{deaf.getsockname()[1]}"}
        assert fresh.run("hook", stdin="{}", env=env).stdout == ""
