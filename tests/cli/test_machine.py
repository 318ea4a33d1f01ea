"""The verbs about the daemon and its machine, and what all verbs have in common."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from orchestr8d.cli import VERBS
from tests.cli.conftest import Box

pytestmark = pytest.mark.slow
NEED_A_DAEMON = [
    ["submit", "--", "true"], ["status", "abcdef12"], ["result", "abcdef12"], ["logs", "abcdef12"], ["list"],
    ["wait", "--all"], ["cancel", "abcdef12"], ["retry", "abcdef12"], ["edit", "abcdef12", "--priority", "low"],
    ["pause", "abcdef12"], ["resume", "abcdef12"], ["watch"], ["queue", "list"], ["queue", "pause", "x"],
    ["executors"], ["agents"], ["token", "list"],
]  # fmt: skip

INNER_VERBS = [
    "queue set", "queue pause", "agents show", "token create", "token revoke", "config show", "workflow run",
    "archive show",
]  # fmt: skip


@pytest.mark.parametrize("args", NEED_A_DAEMON, ids=lambda args: " ".join(args[:2]))
def test_without_a_daemon_one_line_says_how_to_start_it(fresh: Box, args: list[str]) -> None:
    done = fresh.run(*args, code=3)
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert "orchestr8d serve" in line
    assert "systemctl --user start orchestr8d" in line


@pytest.mark.parametrize(
    "verb",
    [*VERBS, *INNER_VERBS],
)
def test_every_verb_has_help_with_an_example(fresh: Box, verb: str) -> None:
    text = fresh.out(*verb.split(), "--help")
    if verb in {"queue", "token", "config"}:
        assert "Commands:" in text
    else:
        assert "Example: " in text


def test_an_unknown_verb_gets_a_near_one(fresh: Box) -> None:
    assert "did you mean 'status'" in fresh.run("stauts", code=2).stderr
    assert fresh.out("--version").startswith("orchestr8d ")


def test_queues(box: Box) -> None:
    box.run("queue", "set", "builds", "--limit", "2", "--rate", "30/m")
    box.run("queue", "pause", "builds")
    lines = [line.split() for line in box.out("queue", "list").splitlines()]
    assert ["builds", "paused", "2", "30/m", "0", "0"] in lines
    box.run("queue", "resume", "builds")
    made = json.loads(box.out("queue", "set", "builds", "--limit", "none", "--rate", "none", "--json"))
    assert (made["limit"], made["rate"], made["paused"]) == (None, None, False)
    assert "limit" in box.run("queue", "set", "builds", "--limit", "0", code=1).stderr
    box.run("queue", "set", "builds", code=2)


def test_executors(box: Box) -> None:
    [one] = json.loads(box.out("executors", "--json"))["executors"]
    assert (one["pid"], one["state"]) == (box.pid, "running")
    assert str(box.pid) in box.out("executors")


def test_tokens(box: Box) -> None:
    bound = json.loads(box.out("token", "create", "bot", "--scope", "submit", "--agent", "a", "--agent", "b", "--json"))
    assert bound["agents"] == ["a", "b"]
    text = box.out("token", "create", "ci", "--scope", "read", "--expires", "1d")
    env = {"ORCHESTR8_TOKEN": text, "ORCHESTR8_URL": f"http://127.0.0.1:{box.port}"}
    box.run("list", env=env)
    assert "scope" in box.run("submit", "--", "true", env=env, code=6).stderr
    assert text not in box.out("token", "list")
    assert "ci" in box.out("token", "list")
    box.run("token", "revoke", "ci")
    box.run("list", env=env, code=6)
    box.run("token", "revoke", "ci", code=4)
    box.run("list", env={"ORCHESTR8_URL": env["ORCHESTR8_URL"]}, code=6)


def test_tokens_of_one_name_are_revoked_by_id(box: Box) -> None:
    ids = [json.loads(box.out("token", "create", "twin", "--scope", "read", "--json"))["token_id"] for _ in range(2)]
    done = box.run("token", "revoke", "twin", code=2)
    assert all(token_id in done.stderr for token_id in ids)
    box.run("token", "revoke", ids[0][-8:])
    box.run("token", "revoke", "twin")


def test_the_daemon_is_found_by_socket_or_tcp(box: Box, tmp_path: Path) -> None:
    sock = {"ORCHESTR8_URL": f"unix://{box.state}/orchestr8d.sock", "ORCHESTR8D_STATE": str(tmp_path)}
    box.run("list", env=sock)
    # The token of the state directory does for TCP, where the socket cannot be used.
    elsewhere = tmp_path / "state"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "token").write_text(box.token)
    box.run("list", env={"ORCHESTR8D_STATE": str(elsewhere)})
    assert "ORCHESTR8_URL" in box.run("list", env={"ORCHESTR8_URL": "ftp://x"}, code=1).stderr


def test_inside_a_task_the_command_line_just_works(box: Box) -> None:
    script = f"{sys.executable} -m orchestr8d status --json $ORCHESTR8_TASK_ID"
    task = box.out("submit", "--wait", "--clean-env", "-e", "PYTHONPATH", "--", "sh", "-c", script)
    got = json.loads(box.out("result", task))
    assert (got["task_id"], got["status"]) == (task, "running")


def test_config_check_names_every_fault(fresh: Box, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[server]\nlistn = "127.0.0.1:1"\n[limits]\nper_key = "many"\n')
    done = fresh.run("config", "check", "--config", str(file), code=1)
    first, second = done.stderr.splitlines()
    assert first.startswith(f"{file}:2: server.listn") and "listen" in first
    assert second.startswith(f"{file}:4: limits.per_key")
    assert len(json.loads(fresh.run("config", "check", "--json", "--config", str(file), code=1).stdout)["faults"]) == 2
    assert "limits.per_key" in fresh.run("serve", "--config", str(file), code=2).stderr
    assert "No such file" in fresh.run("config", "check", "--config", "/nowhere.toml", code=1).stderr
    for verb in (["config", "show"], ["backup", "b"], ["migrate"]):
        assert fresh.run(*verb, "--config", str(file), code=1).stderr == done.stderr
    assert "config check" in fresh.run("list", env={"ORCHESTR8D_CONFIG": str(file)}, code=1).stderr


def test_config_show_is_a_config(fresh: Box, tmp_path: Path) -> None:
    file = tmp_path / "shown.toml"
    file.write_text(fresh.out("config", "show"))
    fresh.run("config", "check", "--config", str(file))
    assert json.loads(fresh.out("config", "show", "--json"))["server"]["listen"].endswith(str(fresh.port))


def test_doctor(box: Box, fresh: Box) -> None:
    checks = {c["name"]: c for c in json.loads(box.out("doctor", "--json"))["checks"]}
    assert checks["daemon"]["state"] == "ok"
    assert {"python", "sqlite", "state", "config", "disk", "uvloop", "keeper", "pidfd", "service", "linger"} <= set(
        checks
    )
    assert str(box.pid) in checks["service"]["message"]
    done = fresh.run("doctor", code=1)
    assert "BROKEN   daemon" in done.stdout


def test_doctor_finds_a_state_directory_that_is_open_to_others(fresh: Box) -> None:
    fresh.state.mkdir(mode=0o755)
    os.chmod(fresh.state, 0o755)
    assert f"chmod go= {fresh.state}" in fresh.run("doctor", code=1).stdout


def test_backup_and_restore(fresh: Box, tmp_path: Path) -> None:
    assert "no database" in fresh.run("backup", str(tmp_path / "b"), code=4).stderr
    fresh.start()
    before = fresh.out("submit", "--wait", "--", "true")
    fresh.run("backup", str(tmp_path / "b"))
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
    assert "exists" in fresh.run("backup", str(tmp_path / "b"), code=1).stderr
    after = fresh.out("submit", "--wait", "--", "true")
    assert f"pid {fresh.pid}" in fresh.run("restore", "--yes", str(tmp_path / "b"), code=5).stderr
    fresh.run("migrate", code=5)
    fresh.stop()
    assert "already" in fresh.out("migrate")
    fresh.run("restore", str(tmp_path / "b"), stdin="n\n", code=130)
    fresh.run("restore", str(tmp_path / "b"), stdin="y\n")
    fresh.start()
    fresh.run("status", before)
    fresh.run("status", after, code=4)


def test_restore_refuses_what_is_no_backup(fresh: Box, tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("not a database")
    [line] = fresh.run("restore", "--yes", str(tmp_path / "junk"), code=1).stderr.splitlines()
    assert line.startswith(f"orchestr8d: {tmp_path / 'junk'}: ")
    assert "not a database" in line
    assert not (fresh.state / "orchestr8d.db").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(fresh: Box, shell: str) -> None:
    script = fresh.out("completion", shell)
    assert script.startswith("# To install, ")
    assert "_ORCHESTR8D_COMPLETE" in script
    env = fresh.env | {"_ORCHESTR8D_COMPLETE": "bash_complete", "COMP_WORDS": "orchestr8d sub", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-m", "orchestr8d"], env=env, capture_output=True, text=True)
    assert done.stdout == "plain,submit\n"
