"""Worktrees of agents, made and settled by the real git."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from pathlib import Path

import pytest

from orchestr8d.task_runners.claude.git import Git, in_thread
from orchestr8d.task_runners.claude.worktree import BASE, NoWorktree, add, settle
from tests.repositories import commit, git, repository

ID = "0190aaaa-0000-7000-8000-000000000001"
NEXT = "0190aaaa-0000-7000-8000-000000000002"


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    return repository(tmp_path / "repo")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "state/worktrees"


def branches(repo: Path) -> list[str]:
    return git(repo, "for-each-ref", "--format=%(refname)").splitlines()


async def test_it_begins_from_head_on_a_branch_of_its_own(repo: Path, root: Path) -> None:
    (repo / "a.txt").write_text("not committed\n")
    (repo / ".git/hooks/post-checkout").write_text("#!/bin/sh\ntouch hooked\n")
    (repo / ".git/hooks/post-checkout").chmod(0o755)
    cwd = Path(await add(root, str(repo), ID))
    assert cwd == root / ID
    assert (cwd / "a.txt").read_text() == "a\n"
    assert git(cwd, "symbolic-ref", "--short", "HEAD") == f"orchestr8/{ID}"
    assert git(cwd, "rev-parse", BASE) == git(repo, "rev-parse", "HEAD")
    assert not (cwd / "hooked").exists()


async def test_files_are_for_others_to_read_whatever_the_daemon_keeps_to_itself(repo: Path, root: Path) -> None:
    before = os.umask(0o077)
    try:
        cwd = Path(await add(root, str(repo), ID))
    finally:
        os.umask(before)
    assert stat.S_IMODE((cwd / "a.txt").stat().st_mode) == 0o644


async def test_a_subdirectory_stays_one(repo: Path, root: Path) -> None:
    cwd = Path(await add(root, str(repo / "sub"), ID))
    assert cwd == root / ID / "sub" and (cwd / "b.txt").exists()
    (repo / "new dir").mkdir()
    cwd = Path(await add(root, str(repo / "new dir"), NEXT))
    assert cwd == root / NEXT / "new dir" and cwd.is_dir()
    assert await settle(root, str(repo / "new dir"), NEXT) is None


async def test_a_second_attempt_finds_what_the_first_left(repo: Path, root: Path) -> None:
    cwd = Path(await add(root, str(repo), ID))
    (cwd / "begun.txt").write_text("half\n")
    commit(repo, "meanwhile")
    assert await add(root, str(repo), ID) == str(cwd)
    assert (cwd / "begun.txt").read_text() == "half\n"
    assert git(cwd, "rev-parse", BASE) == git(repo, "rev-parse", "HEAD~1")


async def test_half_a_worktree_is_made_anew(repo: Path, root: Path) -> None:
    cwd = Path(await add(root, str(repo), ID))
    git(cwd, "update-ref", "-d", BASE)
    (cwd / "a.txt").unlink()
    await add(root, str(repo), ID)
    assert (cwd / "a.txt").exists()
    shutil.rmtree(cwd)
    cwd.mkdir()
    (cwd / "junk").write_text("")
    await add(root, str(repo), ID)
    assert (cwd / "a.txt").exists() and not (cwd / "junk").exists()


async def test_a_worktree_that_was_taken_away_comes_back_with_its_commits(repo: Path, root: Path) -> None:
    cwd = Path(await add(root, str(repo), ID))
    commit(cwd, "work", w_txt="w\n")
    shutil.rmtree(cwd)
    left = await settle(root, str(repo), ID)
    assert left is not None and left.files_changed == ["w.txt"] and left.commits[0].endswith(" work")
    await add(root, str(repo), ID)
    assert (cwd / "w.txt").exists()
    left = await settle(root, str(repo), ID)
    assert left is not None and left.files_changed == ["w.txt"]


async def test_nothing_changed_leaves_nothing(repo: Path, root: Path) -> None:
    (repo / ".gitignore").write_text("built\n")
    git(repo, "add", ".")
    commit(repo, "ignore")
    before = branches(repo)
    cwd = Path(await add(root, str(repo), ID))
    (cwd / "built").write_text("ignored")
    assert await settle(root, str(repo), ID) is None
    assert not cwd.exists()
    assert branches(repo) == before
    assert len(git(repo, "worktree", "list").splitlines()) == 1
    assert await settle(root, str(repo), ID) is None


async def test_changes_are_kept_and_told(repo: Path, root: Path) -> None:
    cwd = Path(await add(root, str(repo), ID))
    commit(cwd, "one: ü", one_txt="1\n")
    commit(cwd, "two", two_txt="2\n")
    (cwd / "a.txt").write_text("changed\n")
    (cwd / "sub/b.txt").unlink()
    (cwd / "new ü.txt").write_text("new\n")
    left = await settle(root, str(repo), ID)
    assert left is not None
    assert (left.path, left.branch) == (str(root / ID), f"orchestr8/{ID}")
    assert [line.split(" ", 1)[1] for line in left.commits] == ["one: ü", "two"]
    assert left.files_changed == ["a.txt", "new ü.txt", "one.txt", "sub/b.txt", "two.txt"]
    assert git(cwd, "status", "--porcelain") != ""
    assert await settle(root, str(repo), ID) == left


@pytest.mark.parametrize("leave", ["commit", "file", "reset"])
async def test_any_one_trace_is_enough(repo: Path, root: Path, leave: str) -> None:
    commit(repo, "second", a_txt="a2\n")
    cwd = Path(await add(root, str(repo), ID))
    if leave == "commit":
        commit(cwd, "empty")
    elif leave == "file":
        (cwd / "x").write_text("")
    else:
        git(cwd, "reset", "--hard", "--quiet", "HEAD~1")
    assert await settle(root, str(repo), ID) is not None


@pytest.mark.parametrize("left", [[], ["new"]])
async def test_a_branch_that_the_agent_deleted(repo: Path, root: Path, left: list[str]) -> None:
    before = branches(repo)
    cwd = Path(await add(root, str(repo), ID))
    for name in left:
        (cwd / name).write_text("x\n")
    git(cwd, "update-ref", "-d", "HEAD")
    found = await settle(root, str(repo), ID)
    assert (found and found.files_changed) == (left or None)
    assert (cwd.exists(), branches(repo)) == (bool(left), before)


async def test_one_that_cannot_be_made_leaves_no_branch(repo: Path, root: Path) -> None:
    (repo / ".git/info/attributes").write_text("* filter=broken\n")
    git(repo, "config", "filter.broken.smudge", "false")
    git(repo, "config", "filter.broken.required", "true")
    before = branches(repo)
    with pytest.raises(NoWorktree, match="smudge filter broken failed"):
        await add(root, str(repo), ID)
    assert branches(repo) == before


async def test_another_branch_of_the_agent_counts(repo: Path, root: Path) -> None:
    cwd = Path(await add(root, str(repo), ID))
    git(cwd, "switch", "--quiet", "-c", "feature")
    commit(cwd, "there", f_txt="f\n")
    left = await settle(root, str(repo), ID)
    assert left is not None and left.branch == "feature" and left.commits[0].endswith(" there")


async def test_a_task_that_goes_on_begins_with_all_that_was_left(repo: Path, root: Path) -> None:
    first = Path(await add(root, str(repo), ID))
    commit(first, "one", one_txt="1\n")
    (first / "open.txt").write_text("open\n")
    git(first, "config", "user.useConfigOnly", "true")
    second = Path(await add(root, str(repo), NEXT, after=ID))
    assert (second / "one.txt").exists() and (second / "open.txt").exists()
    assert git(second, "status", "--porcelain") == ""
    assert git(first, "status", "--porcelain") == "?? open.txt"
    left = await settle(root, str(repo), NEXT)
    assert left is not None and left.files_changed == ["one.txt", "open.txt"]


async def test_a_change_of_the_same_size_in_the_same_second_is_not_missed(repo: Path, root: Path) -> None:
    first = Path(await add(root, str(repo), ID))
    git(repo, "config", "core.trustctime", "false")
    index = git(first, "rev-parse", "--path-format=absolute", "--git-path", "index")
    then = (1_700_000_000, 1_700_000_000)
    os.utime(first / "a.txt", then)
    git(first, "update-index", "--refresh")
    (first / "a.txt").write_text("A\n")
    os.utime(first / "a.txt", then)
    os.utime(index, then)
    second = Path(await add(root, str(repo), NEXT, after=ID))
    assert (second / "a.txt").read_text() == "A\n"


async def test_what_went_before_may_have_no_worktree(repo: Path, root: Path) -> None:
    cwd = Path(await add(root, str(repo), NEXT, after=ID))
    assert git(cwd, "rev-parse", "HEAD") == git(repo, "rev-parse", "HEAD")


async def test_what_is_no_repository_is_told(tmp_path: Path, root: Path) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(NoWorktree, match="no working tree of a git repository"):
        await add(root, str(tmp_path / "plain"), ID)
    with pytest.raises(NoWorktree, match="No such file"):
        await add(root, str(tmp_path / "nowhere"), ID)
    git(tmp_path, "init", "--quiet", "empty")
    with pytest.raises(NoWorktree, match="no commits yet"):
        await add(root, str(tmp_path / "empty"), ID)
    git(tmp_path, "init", "--quiet", "--bare", "bare")
    with pytest.raises(NoWorktree, match="work tree"):
        await add(root, str(tmp_path / "bare"), ID)


async def test_a_name_that_is_taken_is_told_at_once(repo: Path, root: Path) -> None:
    git(repo, "branch", "orchestr8")
    async with asyncio.timeout(5):  # a lock would be waited for longer
        with pytest.raises(NoWorktree, match="'refs/heads/orchestr8' exists"):
            await add(root, str(repo), ID)


async def test_variables_of_another_repository_mean_nothing(
    repo: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(repository(tmp_path / "other") / ".git"))
    commit(tmp_path / "other", "elsewhere", e_txt="e\n")
    cwd = Path(await add(root, str(repo), ID))
    assert not (cwd / "e.txt").exists()


@pytest.mark.slow
async def test_many_at_once_in_one_repository(repo: Path, root: Path) -> None:
    ids = [f"0190aaaa-0000-7000-8000-{n:012}" for n in range(24)]
    for _ in range(2):
        made = await asyncio.gather(*(add(root, str(repo), task_id) for task_id in ids))
        assert sorted(made) == [str(root / task_id) for task_id in ids]
        assert all(Path(cwd, "a.txt").exists() for cwd in made)
        (root / ids[0] / "x").write_text("")
        left = await asyncio.gather(*(settle(root, str(repo), task_id) for task_id in ids))
        assert [one is not None for one in left] == [True] + [False] * 23
    assert branches(repo) == ["refs/heads/main", f"refs/heads/orchestr8/{ids[0]}"]


async def test_a_lock_of_another_is_waited_for(repo: Path, root: Path) -> None:
    cwd = Path(await add(root, str(repo), ID))
    lock = Path(git(cwd, "rev-parse", "--path-format=absolute", "--git-path", "index.lock"))
    lock.touch()
    waiting = Git({"PATH": "/usr/bin:/bin"}, root)
    busy = asyncio.create_task(in_thread(waiting, lambda g: g(cwd, "add", "a.txt")))
    while waiting._process is None or waiting._process.poll() is None:
        await asyncio.sleep(0.005)
    assert not busy.done()
    lock.unlink()
    await busy


async def test_who_is_cancelled_leaves_no_git_behind(root: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/git").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "bin/git").chmod(0o755)
    slow = Git({"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}, root)
    waiting = asyncio.create_task(in_thread(slow, lambda g: g(tmp_path, "status")))
    while slow._process is None:
        await asyncio.sleep(0.005)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await asyncio.to_thread(slow._process.wait, 10) == -15
