"""A git repository for tests, and git itself, out of sight of the account that runs the tests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ENV = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_AUTHOR_NAME": "Somebody", "GIT_AUTHOR_EMAIL": "somebody@example.com",
    "GIT_COMMITTER_NAME": "Somebody", "GIT_COMMITTER_EMAIL": "somebody@example.com",
}  # fmt: skip


def git(where: Path, *args: str) -> str:
    done = subprocess.run(["git", "-C", str(where), *args], env=ENV, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (args, done.stderr)
    return done.stdout.strip()


def commit(where: Path, message: str, **files: str) -> str:
    """A commit with `files` (`a_txt="…"` is a.txt); its id."""
    for name, text in files.items():
        (where / name.replace("_", ".")).write_text(text)
    git(where, "add", "--all")
    git(where, "commit", "--quiet", "--allow-empty", "-m", message)
    return git(where, "rev-parse", "HEAD")


def repository(path: Path) -> Path:
    """With one commit on the branch `main`, of a.txt and sub/b.txt."""
    (path / "sub").mkdir(parents=True)
    git(path, "init", "--quiet", "--initial-branch=main")
    git(path, "config", "user.name", "Somebody")
    git(path, "config", "user.email", "somebody@example.com")
    (path / "sub/b.txt").write_text("b\n")
    commit(path, "first", a_txt="a\n")
    return path
