"""Agents from the command line: handed over, followed, gone on with, and their worktrees brought home."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestr8d.client import AsyncClient
from tests.cli.conftest import Box
from tests.repositories import ENV, commit, git, repository

pytestmark = pytest.mark.slow
AGENT = ("--agent", "general-purpose")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    home = tmp_path_factory.mktemp("box")
    talker = home / "talker"
    script = Path(__file__).with_name("talker.py")
    talker.write_text(f'#!/bin/sh\nexec {sys.executable} -S {script} "$@"\n')
    talker.chmod(0o755)
    box = Box(home / "state", {
        "ORCHESTR8D_EXECUTOR__CHILDREN": "stop", "ORCHESTR8D_EXECUTOR__GRACE": "1",
        "ORCHESTR8D_CONFIG": str(home / "state.toml"),
        **{name: value for name, value in ENV.items() if name.startswith("GIT_")},
    })  # fmt: skip
    box.env.pop("CLAUDE_CONFIG_DIR", None)
    box.config.write_text(
        f'[runners.claude]\nbin = "{talker}"\n[runners.claude.env]\nGIVEN = "to all"\n'
        '[claude.accounts.work]\nenv = { GIVEN = "to work" }\n'
    )
    box.start()
    yield box
    box.stop()


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return repository(tmp_path / "repo")


def work(box: Box, repo: Path, prompt: str, *args: str) -> str:
    """A task that did `prompt` in a worktree."""
    return box.out("submit", *AGENT, "--worktree", "--wait", "--cwd", str(repo), *args, prompt)


def state_of(repo: Path) -> tuple[str, ...]:
    files = {str(p.relative_to(repo)): p.read_text() for p in repo.rglob("*") if p.is_file() and ".git" not in p.parts}
    return git(repo, "for-each-ref"), git(repo, "status", "--porcelain"), json.dumps(files, sort_keys=True)


def test_an_agent_is_followed_by_its_transcript(box: Box, tmp_path: Path) -> None:
    done = box.run("submit", *AGENT, "--follow", "echo hello", cwd=tmp_path)
    assert done.stdout == (
        f"* talker-1 in {tmp_path}\n> Bash: echo hello\nhello\n= done, 1 turn, $0.2500, 1.2 s\n"
    )  # fmt: skip
    task = done.stderr.split()[1]
    assert box.run("logs", task).stdout == done.stdout
    assert box.run("logs", "-n", "1", task).stdout == "= done, 1 turn, $0.2500, 1.2 s\n"
    assert json.loads(box.out("logs", "--stream", "stdout", task).splitlines()[0])["subtype"] == "init"
    assert box.out("result", task) == "hello"


def test_a_command_has_no_transcript(box: Box) -> None:
    task = box.out("submit", "--wait", "--", "true")
    assert "only an agent's task has a transcript" in box.run("logs", "--stream", "transcript", task, code=1).stderr


def test_a_prompt_comes_from_words_a_file_or_a_pipe(box: Box, tmp_path: Path) -> None:
    (tmp_path / "prompt").write_text("echo from file\n")
    for args, stdin, said in (
        (("echo", "two", "words"), "", "two words"), (("-",), "echo from pipe", "from pipe"),
        (("--prompt-file", str(tmp_path / "prompt")), "", "from file"),
    ):  # fmt: skip
        task = box.out("submit", *AGENT, "--wait", *args, stdin=stdin)
        assert box.out("result", task) == said
    assert "not UTF-8" in box.run("submit", *AGENT, "-", stdin=b"\xff", code=2).stderr


def test_flags_are_options(box: Box, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    task = box.out(
        "submit", *AGENT, "--model", "opus", "--max-turns", "5", "--max-cost", "1.5",
        "--allowed-tools", "Bash(git log:*, x),Edit", "--allowed-tools", "Read", "--disallowed-tools", "WebFetch",
        "--permission-mode", "plan", "--json-schema", str(tmp_path / "schema.json"), "--wait", "echo '{\"a\": 1}'",
    )  # fmt: skip
    with box.client() as client:
        got = client.task(task)
    options = {k: v for k, v in got["options"].items() if k in (
        "model", "max_turns", "max_cost_usd", "allowed_tools", "disallowed_tools", "permission_mode", "json_schema",
    )}  # fmt: skip
    assert options == {
        "model": "opus", "max_turns": 5, "max_cost_usd": 1.5, "allowed_tools": ["Bash(git log:*, x)", "Edit", "Read"],
        "disallowed_tools": ["WebFetch"], "permission_mode": "plan", "json_schema": {"type": "object"},
    }  # fmt: skip
    assert json.loads(box.out("result", task)) == {"a": 1}
    assert "general-purpose" in box.run("submit", "--agent", "general-purpos", "x", code=1).stderr


def test_what_an_agent_did_reads_well(box: Box) -> None:
    task = box.out("submit", *AGENT, "--wait", "-o", "tags=seen", "echo one\necho two")
    fields = dict(line.split("  ", 1) for line in box.out("status", task).splitlines())
    shown = {name.strip(): value.strip() for name, value in fields.items()}
    assert shown["what"] == "general-purpose: echo one"
    assert (shown["spent"], shown["tokens"]) == ("$0.25, 1 turn", "1,200 in, 50 out")
    assert len(shown["session"]) == 36
    assert "general-purpose: echo one  ($0.25, 1 turn)" in box.out("list", "--tag", "seen")
    assert task[-8:] in box.out("list", "--agent", "general-purpose", "--all")
    assert box.out("list", "--agent", "nobody").splitlines()[1:] == []


def test_continue_goes_on_with_the_conversation(box: Box, tmp_path: Path) -> None:
    first = box.out("submit", *AGENT, "--wait", "--model", "opus", "echo first", cwd=tmp_path)
    done = box.run("continue", first[-8:], "--follow", "-o", "model=haiku", "pwd;", "echo second")
    assert done.stdout.splitlines()[0] == f"* talker-1 in {tmp_path}"
    assert "second" in done.stdout and "= done, 2 turns" in done.stdout
    with box.client() as client:
        task = client.task(done.stderr.split()[1])
    assert (task["options"]["resume_from"], task["options"]["model"]) == (first, "haiku")
    assert f"continues  {first[-8:]}" in " ".join(box.out("status", task["id"]).split(" ")).replace("   ", " ")
    other = box.out("submit", *AGENT, "--wait", "--resume-from", first[-8:], "echo third")
    assert "2 turns" in box.out("list", "-n", "1")
    assert box.out("result", other) == "third"


def test_what_cannot_be_gone_on_with(box: Box) -> None:
    command = box.out("submit", "--wait", "--", "true")
    waiting = box.out("submit", *AGENT, "-o", "delay=1h", "echo")
    for verb in (["continue", "{}", "more"], ["attach", "{}"], ["attach", "--print", "{}"]):
        for task in (command, waiting):
            box.run(*(word.format(task) for word in verb), code=5)
    assert "say what" in box.run("continue", command, code=2).stderr
    box.run("cancel", waiting)


def test_attach_becomes_the_cli_in_the_tasks_directory(box: Box, tmp_path: Path) -> None:
    task = box.out("submit", *AGENT, "--wait", "echo", cwd=tmp_path)
    with box.client() as client:
        session = client.task(task)["session_id"]
    got = json.loads(box.run("attach", task[-8:], code=7).stdout)
    assert got == {"args": ["--resume", session], "cwd": str(tmp_path), "given": "to work"}
    shell = box.out("attach", "--print", task)
    assert "GIVEN" not in shell
    done = subprocess.run(["sh", "-c", shell], env=box.env, capture_output=True, text=True, timeout=30)
    assert json.loads(done.stdout) == got | {"given": None}
    assert json.loads(box.out("attach", "--json", task))["session_id"] == session


def test_attach_goes_into_the_worktree(box: Box, repo: Path) -> None:
    task = work(box, repo / "sub", "echo > new")
    path = json.loads(box.out("result", "--json", task))["worktree"]["path"]
    assert json.loads(box.out("attach", "--json", task))["cwd"] == f"{path}/sub"
    nothing = work(box, repo / "sub", "true")
    assert json.loads(box.out("attach", "--json", nothing))["cwd"] == str(repo / "sub")


def test_diff_shows_all_that_was_changed(box: Box, repo: Path, tmp_path: Path) -> None:
    did = "pwd; echo B >> b.txt; git add b.txt; git commit -qm one; echo A > ../a.txt; echo N > new"
    task = work(box, repo / "sub", did)
    commit(repo, "meanwhile", other_txt="o\n")
    before = state_of(repo)
    patch = box.run("diff", task, cwd=tmp_path).stdout
    assert "\x1b" not in patch
    assert [line[6:] for line in patch.splitlines() if line[:4] == "+++ "] == ["a.txt", "sub/b.txt", "sub/new"]
    assert state_of(repo) == before
    assert "3 files changed" in box.out("diff", "--stat", task)
    told = json.loads(box.out("diff", "--json", task))
    assert told["diff"] == patch and told["worktree"]["files_changed"] == ["a.txt", "sub/b.txt", "sub/new"]
    subprocess.run(["git", "-C", str(repo), "apply"], input=patch, text=True, check=True, env=ENV)
    assert (repo / "sub/new").read_text() == "N\n"
    result = json.loads(box.out("result", "--json", task))
    assert result["result"].strip() == f"{result['worktree']['path']}/sub"


def test_diff_is_coloured_on_a_terminal(box: Box, repo: Path) -> None:
    task = work(box, repo, "echo theirs > a.txt")
    ours, theirs = pty.openpty()
    env = box.env | {"TERM": "xterm", "GIT_PAGER": "cat"}
    env.pop("NO_COLOR", None)
    for more, coloured in ({}, True), ({"NO_COLOR": "1"}, False):
        argv = [sys.executable, "-m", "orchestr8d", "diff", task]
        subprocess.run(argv, env=env | more, stdout=theirs, stdin=theirs, check=True, timeout=60)
        shown = os.read(ours, 65536)
        assert b"+theirs" in re.sub(rb"\x1b\[[0-9;]*m", b"", shown)
        assert (b"\x1b[32m" in shown) == coloured
    os.close(ours)
    os.close(theirs)


def test_apply_merges_all_of_it(box: Box, repo: Path) -> None:
    task = work(box, repo, "echo 1 > one; git add .; git commit -qm one; echo 2 > two", "-o", "title=The work")
    commit(repo, "meanwhile", other_txt="o\n")
    (repo / "a.txt").write_text("mine, and not committed\n")
    told = box.out("apply", task[-8:], cwd=repo / "sub").splitlines()
    assert [line.split(" ", 1)[1] for line in told] == ["one", "The work", f"Merge branch 'orchestr8/{task}'"]
    assert ((repo / "one").read_text(), (repo / "two").read_text()) == ("1\n", "2\n")
    assert git(repo, "status", "--porcelain") == "M a.txt"
    result = json.loads(box.out("result", "--json", task))["worktree"]
    assert git(Path(result["path"]), "status", "--porcelain") == ""
    assert "has all that" in box.run("apply", task, cwd=repo).stderr
    assert "has all that" in box.run("apply", "--cherry-pick", "--remove", task, cwd=repo).stderr
    assert not Path(result["path"]).exists()
    assert git(repo, "branch", "--list", "orchestr8/*") == ""
    assert "is gone" in box.run("diff", task, code=4).stderr


def test_apply_picks_commits(box: Box, repo: Path) -> None:
    task = work(box, repo, "echo 1 > one; git add .; git commit -qm one; echo 2 > two", "-o", "title=rest")
    commit(repo, "meanwhile", other_txt="o\n")
    box.run("apply", "--cherry-pick", task, cwd=repo)
    assert git(repo, "log", "--format=%s", "--reverse").splitlines() == ["first", "meanwhile", "one", "rest"]
    assert "has all that" in box.run("apply", "--cherry-pick", task, cwd=repo).stderr


@pytest.mark.parametrize("how", ["--merge", "--cherry-pick"])
def test_a_conflict_leaves_everything_as_it_was(box: Box, repo: Path, how: str) -> None:
    did = "echo good > fine; git add .; git commit -qm fine; echo theirs > a.txt; echo theirs > sub/b.txt"
    task = work(box, repo, did)
    commit(repo, "mine", a_txt="mine\n")
    (repo / "sub/untracked").write_text("mine\n")
    commit(repo, "clean", c_txt="c\n")
    (repo / "c.txt").write_text("dirty\n")
    path = Path(json.loads(box.out("result", "--json", task))["worktree"]["path"])
    before = state_of(repo), state_of(path)
    done = box.run("apply", how, task, cwd=repo, code=1)
    assert "conflict in a.txt; nothing was changed" in done.stderr
    assert (state_of(repo), state_of(path)) == before
    assert not (repo / ".git/MERGE_HEAD").exists() and not (repo / ".git/CHERRY_PICK_HEAD").exists()


def test_what_would_be_overwritten_is_refused(box: Box, repo: Path) -> None:
    task = work(box, repo, "echo theirs > a.txt; echo theirs > new; echo theirs > sub/b.txt")
    (repo / "a.txt").write_text("mine\n")
    (repo / "new").write_text("mine\n")
    before = state_of(repo)
    assert "changed here and by the task: a.txt, new;" in box.run("apply", task, cwd=repo / "sub", code=5).stderr
    assert state_of(repo) == before
    git(repo, "add", "a.txt")
    assert "staged" in box.run("apply", task, cwd=repo, code=5).stderr
    git(repo, "reset", "--hard", "--quiet")
    git(repo, "switch", "--quiet", "--detach")
    assert "no branch" in box.run("apply", task, cwd=repo, code=5).stderr


def test_apply_belongs_into_the_repository_of_the_task(box: Box, repo: Path, tmp_path: Path) -> None:
    task = work(box, repo, "echo theirs > a.txt")
    assert "not the repository" in box.run("apply", task, cwd=tmp_path, code=2).stderr
    assert "not the repository" in box.run("apply", task, cwd=repository(tmp_path / "other"), code=2).stderr
    path = json.loads(box.out("result", "--json", task))["worktree"]["path"]
    assert "own branch" in box.run("apply", task, cwd=Path(path), code=5).stderr
    # Another worktree of the repository is as good, whatever the caller's environment says.
    git(repo, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    box.run("apply", task, cwd=tmp_path / "side", env={"GIT_DIR": "/nowhere"})
    assert (tmp_path / "side/a.txt").read_text() == "theirs\n"


def test_no_change_and_no_worktree(box: Box, repo: Path) -> None:
    task = work(box, repo, "true")
    for verb in ("diff", "apply"):
        assert "changed nothing" in box.run(verb, task, cwd=repo).stderr
    plain = box.out("submit", *AGENT, "--wait", "true", cwd=repo)
    for verb in ("diff", "apply"):
        assert "had no worktree" in box.run(verb, plain, cwd=repo, code=5).stderr
    assert "no commits" in box.run(
        "submit", *AGENT, "--worktree", "--wait", "--cwd", str(empty(repo)), "true", code=1
    ).stderr  # fmt: skip


def empty(repo: Path) -> Path:
    git(repo.parent, "init", "--quiet", "empty")
    return repo.parent / "empty"


def test_a_worktree_is_gone_on_with_too(box: Box, repo: Path) -> None:
    first = work(box, repo, "echo 1 > one")
    second = box.out("continue", "--wait", first, "cat one; echo 2 > two")
    assert box.out("result", second) == "1"
    box.run("apply", second, cwd=repo)
    assert (repo / "one").exists() and (repo / "two").exists()


def test_from_python(box: Box, tmp_path: Path) -> None:
    with box.client() as client:
        task = client.submit_agent("general-purpose", "pwd", cwd=str(tmp_path), title="here", tags=["py"])
        client.wait(task["task_id"], 30)
        assert client.result(task["task_id"])["result"].strip() == str(tmp_path)
        more = client.continue_(task["task_id"], "echo more", {"tags": ["more"]})
        assert client.wait(more["task_id"], 30)["status"] == "completed"
        assert [one["id"] for one in client.tasks(agent="general-purpose", tag=["more"])] == [more["task_id"]]

    async def same() -> object:
        async with AsyncClient(box.endpoint) as client:
            made = await client.submit_agent("general-purpose", "echo async", cwd=str(tmp_path))
            made = await client.continue_(made["task_id"], "no") if (await client.wait(made["task_id"], 30)) else {}
            await client.wait(made["task_id"], 30)
            return (await client.task(made["task_id"]))["prompt"]

    assert asyncio.run(same()) == "no"
    code = (
        "from orchestr8d.client import task_async\n"
        "print(task_async('general-purpose', 'echo', {'tags': ['fn']})['task_id'])"
    )
    made = subprocess.run([sys.executable, "-c", code], env=box.env, cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    with box.client() as client:
        got = client.task(made.stdout.strip())
    assert (got["agent"], got["cwd"], got["tags"]) == ("general-purpose", str(tmp_path), ["fn"])


@pytest.mark.parametrize("verb", ["submit", "continue", "attach", "diff", "apply", "logs"])
def test_help_has_an_example(fresh: Box, verb: str) -> None:
    assert f"orchestr8d {verb}" in fresh.out(verb, "--help").partition("Example")[2]
