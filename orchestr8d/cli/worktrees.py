"""`orchestr8d diff` and `apply`: what an isolated agent changed, and bringing it into a branch. Both run git here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from orchestr8d.cli import common, exits, output

if TYPE_CHECKING:
    from orchestr8d.client.answers import Json
    from orchestr8d.client.sync import Client
    from orchestr8d.task_runners.claude.git import Git

# What would have git work on another repository than the one where it is called.
LOCAL = frozenset({
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX", "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES",
})  # fmt: skip
SHOWN = 20


class Work(NamedTuple):
    """What a task left in its worktree; `base` is the commit that it began from."""

    task: Json
    path: Path
    branch: str
    base: str
    git: Git

    @property
    def name(self) -> str:
        return output.short(self.task["id"])


def _find(client: Client, typed: str) -> Work | None:
    """The work of a task; None when it changed nothing. Exits when it cannot be had here."""
    from orchestr8d.task_runners.claude.git import Git
    from orchestr8d.task_runners.claude.worktree import BASE

    task = client.task(common.resolve(client, typed))
    name = output.short(task["id"])
    if (task.get("options") or {}).get("isolation") != "worktree":
        exits.fail(exits.WRONG_STATE, f"task {name} had no worktree: it was not submitted with --worktree")
    left = client.result(task["id"]).get("worktree")
    if left is None:
        exits.say(f"task {name} changed nothing: its worktree was taken away")
        return None
    path = Path(left["path"])
    if not path.is_dir():
        exits.fail(
            exits.NOT_FOUND,
            f"the worktree {path} is gone, or on another machine; what was committed is on the branch {left['branch']}",
        )
    git = Git(os.environ, path.parent)
    base = git.says(path, "rev-parse", "-q", "--verify", BASE)
    if base is None:
        exits.fail(exits.NOT_FOUND, f"{path} is not the worktree of task {name} any more")
    return Work(task, path, left["branch"], base, git)


def _environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in LOCAL} | more


def _here(*args: str) -> subprocess.CompletedProcess[str]:
    """git in the current directory, as the user would call it."""
    try:
        return subprocess.run(["git", *args], env=_environment(LC_ALL="C"), capture_output=True, text=True, check=False,
                              errors="replace")  # fmt: skip
    except FileNotFoundError:
        exits.fail(exits.FAILED, "git is not installed, or not in your PATH")


def _ask(*args: str) -> str:
    """What git says here; empty when it says no."""
    done = _here(*args)
    return done.stdout.strip() if done.returncode == 0 else ""


@click.command(epilog="Example: orchestr8d diff 3f2a9c1d | less")
@click.argument("typed", metavar="ID")
@click.option("--stat", is_flag=True, help="Only which files, and how much of them.")
@common.json_option
def diff(typed: str, stat: bool, as_json: bool) -> None:
    """Show what a task changed in its worktree.

    From where it began to all there is now, committed or not. In a pipe it is a patch for `git apply`.
    """
    with common.connect() as client:
        work = _find(client, typed)
        worktree = client.result(work.task["id"])["worktree"] if work else None
    if as_json:
        text = _diff(work, ["--no-color", "--binary"], subprocess.PIPE) if work else ""
        output.print_json({"worktree": worktree, "diff": text})
    elif work is not None:
        plain = ["--no-color", *([] if output.on_terminal() else ["--binary", "--no-ext-diff", "--no-textconv"])]
        _diff(work, ["--stat"] * stat + ([] if output.coloured() else plain), None)


def _diff(work: Work, how: list[str], stdout: int | None) -> str:
    """`git diff` in the worktree, with an index of its own that also knows the new files."""
    from orchestr8d.task_runners.claude.worktree import index_copy

    with index_copy(work.git, work.path) as index:
        work.git(work.path, "add", "--all", "--intent-to-add", index=index)
        done = subprocess.run(
            ["git", "-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false", "-C", str(work.path),
             "diff", *how, work.base, "--"],
            env=_environment(GIT_INDEX_FILE=index), stdout=stdout, text=True, errors="replace", check=False,
        )  # fmt: skip
    if done.returncode not in (0, 141, -13):  # the reader of a pipe, or of a pager, may have had enough
        exits.fail(exits.FAILED)
    return done.stdout or ""


def _line(work: Work, *args: str) -> str:
    return work.git(work.path, *args).removesuffix("\n")


@click.command(epilog="Example: cd ~/app && orchestr8d apply 3f2a9c1d")
@click.argument("typed", metavar="ID")
@click.option("--merge", "how", flag_value="merge", default="merge", help="By a merge (the default).")
@click.option("--cherry-pick", "how", flag_value="cherry-pick", help="By copies of its commits.")
@click.option("--remove", is_flag=True, help="Take the worktree and its branch away afterwards.")
@common.json_option
def apply(typed: str, how: str, remove: bool, as_json: bool) -> None:
    """Bring what a task changed in its worktree into the branch that is checked out here.

    What it had not committed is committed first, under the task's title. With a conflict everything stays as it was.
    """
    with common.connect() as client:
        work = _find(client, typed)
    if work is None:
        return
    target = _target(work)
    before, tip = _ask("rev-parse", "HEAD"), _commit(work)
    if how == "merge":
        _merge(work, tip)
    else:
        _cherry_pick(work, tip)
    after = _ask("rev-parse", "HEAD")
    if tip != _line(work, "rev-parse", "HEAD"):
        # Now that it is in: the files are as they were, and are committed.
        work.git(work.path, "reset", "--quiet", tip)
    if remove:
        _remove(work)
    _tell(work, target, before, after, as_json)


def _target(work: Work) -> str:
    """The branch that is checked out here. Exits when nothing can be brought into it."""
    from orchestr8d.task_runners.claude.worktree import changed

    repository = _line(work, "rev-parse", "--path-format=absolute", "--git-common-dir")
    if _ask("rev-parse", "--path-format=absolute", "--git-common-dir") != repository:
        exits.fail(exits.USAGE, f"this is not the repository that task {work.name} worked on, which is {repository}")
    branch = _ask("symbolic-ref", "-q", "--short", "HEAD")
    if not branch:
        exits.fail(exits.WRONG_STATE, "no branch is checked out here: `git switch` to one first")
    if branch == work.branch:
        exits.fail(exits.WRONG_STATE, f"{branch} is the task's own branch: call this where yours is checked out")
    if _ask("diff", "--cached", "--name-only"):
        exits.fail(exits.WRONG_STATE, "something is staged here: commit it or `git stash` first")
    if both := sorted(_dirty() & set(changed(work.git, work.path, work.base))):
        exits.fail(
            exits.WRONG_STATE, f"changed here and by the task: {_names(both)}; commit or `git stash` your changes first"
        )
    return branch


def _dirty() -> set[str]:
    """Files with changes that are not committed, and files that git does not know, from the top of the repository."""
    top = _here("rev-parse", "--show-toplevel").stdout.removesuffix("\n")
    tracked = _here("-C", top, "diff", "--name-only", "--no-renames", "-z", "HEAD").stdout
    untracked = _here("-C", top, "ls-files", "--others", "-z").stdout
    return {name for name in (tracked + untracked).split("\0") if name}


def _commit(work: Work) -> str:
    """All that there is in the worktree, as a commit on top of its branch, which is not moved yet."""
    from orchestr8d.task_runners.claude.worktree import snapshot

    return snapshot(work.git, work.path, _title(work))


def _title(work: Work) -> str:
    text = work.task.get("title") or work.task.get("prompt") or ""
    line = str(text).strip().partition("\n")[0]
    return line[:100] or f"Task {work.name}"


def _merge(work: Work, tip: str) -> None:
    done = _here("merge", "--ff", "-m", f"Merge branch '{work.branch}'", tip)
    if done.returncode:
        _give_up(done, "merge")


def _cherry_pick(work: Work, tip: str) -> None:
    missing = ["--right-only", "--cherry-pick", "--reverse", f"HEAD...{tip}", f"^{work.base}"]
    if _ask("rev-list", "--merges", *missing):
        exits.fail(exits.FAILED, f"there are merges on {work.branch}, which cannot be picked: use --merge")
    picks = _ask("rev-list", *missing).split()
    if not picks:
        return
    done = _here("cherry-pick", "--allow-empty", "--keep-redundant-commits", *picks)
    if done.returncode:
        _give_up(done, "cherry-pick")


def _give_up(done: subprocess.CompletedProcess[str], what: str) -> NoReturn:
    """Everything as it was before; says why it did not work."""
    names = _here("diff", "--name-only", "--diff-filter=U", "-z").stdout.split("\0")
    conflicts = sorted({name for name in names if name})
    begun = _here("rev-parse", "-q", "--verify", "MERGE_HEAD" if what == "merge" else "CHERRY_PICK_HEAD")
    if begun.returncode == 0 and (ended := _here(what, "--abort")).returncode:
        exits.fail(exits.FAILED, f"`git {what} --abort` failed: {ended.stderr.strip()}")
    if conflicts:
        exits.fail(exits.FAILED, f"conflict in {_names(conflicts)}; nothing was changed")
    exits.fail(exits.FAILED, f"git {what}: {(done.stderr or done.stdout).strip()}; nothing was changed")


def _remove(work: Work) -> None:
    from orchestr8d.task_runners.claude import worktree

    task_id = work.task["id"]
    repository = _line(work, "rev-parse", "--path-format=absolute", "--git-common-dir")
    worktree.remove(work.git, work.path, task_id)
    branch = f"refs/heads/{worktree.branch_of(task_id)}"
    if work.git.says(repository, "rev-parse", "-q", "--verify", branch):
        work.git(repository, "update-ref", "-d", branch)


def _names(files: list[str]) -> str:
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return ", ".join(map(output.printable, files[:SHOWN])) + more


def _tell(work: Work, target: str, before: str, after: str, as_json: bool) -> None:
    commits = _here("log", "--reverse", "--format=%h %s", f"{before}..{after}").stdout.splitlines()
    if as_json:
        answer: dict[str, Any] = {"branch": target, "before": before, "after": after, "commits": commits}
        output.print_json(answer)
    elif before == after:
        exits.say(f"{target} has all that task {work.name} did")
    else:
        for line in commits:
            click.echo(output.printable(line))
