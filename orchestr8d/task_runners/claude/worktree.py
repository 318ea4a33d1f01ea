"""A git worktree and branch for an agent that works apart (`isolation: "worktree"`): made before it starts, kept at its
end when it left something there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from orchestr8d.core.model import Worktree
from orchestr8d.task_runners.claude.git import Git, NoWorktree, in_thread

__all__ = ["BASE", "NoWorktree", "add", "branch_of", "changed", "index_copy", "look", "remove", "settle", "snapshot"]

# Where the worktree began. Git keeps refs of this name apart by worktree and takes them away with it. Set last, so a
# worktree without it was not finished.
BASE: Final = "refs/worktree/orchestr8-base"
# So many commits and files are named in a result.
MOST: Final = 1000


def branch_of(task_id: str) -> str:
    return f"orchestr8/{task_id}"


async def add(root: Path, cwd: str, task_id: str, after: str | None = None) -> str:
    """The directory in a worktree under `root` that is `cwd` there: a new one from HEAD of the repository that contains
    `cwd`, or the one that the task has already.

    With `after`, an earlier task that is gone on with, it begins with all that one left in its own worktree. Raises
    NoWorktree.
    """
    return await in_thread(Git(os.environ, root), _add, root, cwd, task_id, after)


async def settle(root: Path, cwd: str, task_id: str, *, over: bool = True) -> Worktree | None:
    """What the task left in its worktree. When that is nothing, the worktree and its branch are removed; of a task that
    is not over, only when there is nothing that git ignores either. Raises NoWorktree when git fails: then it is left
    as it is."""
    return await in_thread(Git(os.environ, root), _settle, root, cwd, task_id, over)


def _add(git: Git, root: Path, cwd: str, task_id: str, after: str | None) -> str:
    path, branch = root / task_id, f"refs/heads/{branch_of(task_id)}"
    try:
        git(cwd, "rev-parse", "--show-toplevel")
    except NoWorktree as error:
        raise NoWorktree(f"{cwd} is in no working tree of a git repository ({error})") from None
    # What ends the line ends no name: a directory may be called anything.
    inside = path / git(cwd, "rev-parse", "--show-prefix").removesuffix("\n")
    if _base(git, path) is None:
        _make(git, root, cwd, path, branch, after)
    # A directory that is not in HEAD has nothing in it yet.
    inside.mkdir(parents=True, exist_ok=True)
    return str(inside)


def _base(git: Git, path: Path) -> str | None:
    return git.says(path, "rev-parse", "-q", "--verify", BASE) if path.is_dir() else None


def _make(git: Git, root: Path, cwd: str, path: Path, branch: str, after: str | None) -> None:
    head = git.says(cwd, "rev-parse", "-q", "--verify", "HEAD^{commit}")
    if head is None:
        raise NoWorktree(f"the repository of {cwd} has no commits yet: a worktree needs one to begin from")
    base = start = head
    source = None if after is None else root / after
    if source is not None and (found := _base(git, source)) and _repository(git, source) == _repository(git, cwd):
        base, start = found, snapshot(git, source, f"What {branch_of(source.name)} had not committed")
    if path.exists():  # half of one, that a kill left
        _discard(git, cwd, path)
    root.mkdir(parents=True, exist_ok=True)
    if (there := git.says(cwd, "rev-parse", "-q", "--verify", branch)) is None:
        git(cwd, "update-ref", branch, start)
    else:  # its worktree was taken away, not its work
        base = git.says(cwd, "merge-base", head, there) or head
    try:
        git(cwd, "worktree", "add", "--quiet", "--force", str(path), branch.removeprefix("refs/heads/"))
    except NoWorktree:
        if there is None:
            git.says(cwd, "update-ref", "-d", branch, start)
        raise
    git(path, "update-ref", BASE, base)


def _repository(git: Git, where: str | Path) -> str:
    return git(where, "rev-parse", "--path-format=absolute", "--git-common-dir").removesuffix("\n")


def snapshot(git: Git, path: Path, message: str) -> str:
    """A commit with all there is in the worktree at `path`: HEAD, or a new one on top of it. Neither HEAD nor the
    index is moved."""
    head = git(path, "rev-parse", "--verify", "HEAD").strip()
    if not git(path, "status", "--porcelain", "--untracked-files=normal"):
        return head
    with index_copy(git, path) as index:
        git(path, "add", "--all", index=index)
        tree = git(path, "write-tree", index=index).strip()
    # Who has given git no name shall not lose work for it.
    named = git.says(path, "var", "GIT_COMMITTER_IDENT") is not None
    name = () if named else ("-c", "user.name=orchestr8d", "-c", "user.email=orchestr8d@localhost")
    return git(path, *name, "commit-tree", tree, "-p", head, "-m", message).strip()


@contextmanager
def index_copy(git: Git, path: Path) -> Iterator[str]:
    """A copy of the worktree's index, for what is added to it to be seen by nobody else."""
    own = git(path, "rev-parse", "--path-format=absolute", "--git-path", "index").removesuffix("\n")
    with tempfile.TemporaryDirectory() as directory:
        # With its time: git takes a file that was changed in the second before for one that it must read.
        yield shutil.copy2(own, f"{directory}/index")


def _settle(git: Git, root: Path, cwd: str, task_id: str, over: bool) -> Worktree | None:
    path = root / task_id
    base = _base(git, path)
    if base is None:
        return _branch_alone(git, path, cwd, task_id)
    found = look(git, path, task_id, base)
    if found.commits or found.files_changed:
        return found
    if over or not git(path, "status", "--porcelain", "--ignored"):
        remove(git, path, task_id)
    return None


def _branch_alone(git: Git, path: Path, cwd: str, task_id: str) -> Worktree | None:
    """What is left when the agent has taken its worktree away: what it had committed."""
    branch = branch_of(task_id)
    if git.says(cwd, "rev-parse", "-q", "--verify", f"refs/heads/{branch}") is None:
        return None
    log = git(cwd, "log", "--reverse", f"--max-count={MOST}", "--format=%h %s", f"HEAD..refs/heads/{branch}", "--")
    files = git(cwd, "diff", "--name-only", "--no-renames", "-z", f"HEAD...refs/heads/{branch}", "--")
    return Worktree(str(path), branch, log.splitlines(), files.split("\0")[:-1][:MOST]) if log else None


def look(git: Git, path: Path, task_id: str, base: str) -> Worktree:
    """What there is beyond `base`: commits, oldest first, and files, whether committed or not."""
    own = branch_of(task_id)
    # The agent may have gone on to another branch, and deleted one.
    at = (git.says(path, "rev-parse", "-q", "--verify", name) for name in ("HEAD", f"refs/heads/{own}"))
    tips = (*(tip or base for tip in at), f"^{base}")
    log = git(path, "log", "--reverse", f"--max-count={MOST}", "--format=%h %s", *tips, "--")
    current = git.says(path, "symbolic-ref", "-q", "--short", "HEAD")
    return Worktree(str(path), current or own, log.splitlines(), changed(git, path, base)[:MOST])


def changed(git: Git, path: Path, base: str) -> list[str]:
    """The files that differ from `base`, those that git does not know yet included."""
    diff = ("diff", "--name-only", "--no-renames", "--no-ext-diff", "--ignore-submodules=none", "-z")
    tracked = git(path, *diff, base, "--")
    untracked = git(path, "ls-files", "--others", "--exclude-standard", "-z")
    return sorted({name for name in (tracked + untracked).split("\0") if name})


def remove(git: Git, path: Path, task_id: str) -> None:
    """Takes the worktree away, with what git ignores in it, and its branch where no work is lost by that."""
    base, repository = _base(git, path), _repository(git, path)
    _discard(git, repository, path)
    branch = f"refs/heads/{branch_of(task_id)}"
    if base is not None and git.says(repository, "rev-parse", "-q", "--verify", branch) == base:
        git(repository, "update-ref", "-d", branch, base)


def _discard(git: Git, repository: str, path: Path) -> None:
    if git.says(repository, "worktree", "remove", "--force", "--force", str(path)) is None:
        shutil.rmtree(path, ignore_errors=True)
        git(repository, "worktree", "prune")
