"""What is to be started: the command of an attempt, and the marks that it and all its descendants will bear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from orchestr8d.processes.files import Files, create

# In the environment of each process of an attempt, unless a process drops it.
MARKER = "ORCHESTR8_ATTEMPT_ID"


@dataclass(frozen=True)
class Launch:
    """What to start: `argv` as the task gave it, the whole environment, input (None: /dev/null).

    `step` is empty for the command itself; a further one of the same attempt (its check) has a name. `files` are the
    step's own.
    """

    attempt_id: str
    argv: Sequence[str]
    cwd: str
    env: Mapping[str, str]
    files: Files
    stdin: bytes | None = None
    step: str = ""


def tag_of(attempt_id: str, ceiling: int) -> int:
    """The number that tags an attempt's processes: below `ceiling`, as only root may raise a limit."""
    return int.from_bytes(blake2b(attempt_id.encode(), digest_size=8).digest(), "big") % ceiling


def put_input(launch: Launch) -> None:
    """Make the file that the command reads. FileExistsError when anything is in its place."""
    path = Path(launch.files.stdin)
    if launch.step:
        # The attempt could write here, and the step may have been begun before.
        path.unlink(missing_ok=True)
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    create(str(path), launch.stdin or b"")
