"""Starts a command under a small shell that outlives the daemon and records how the command ended."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from orchestr8d.processes.files import Files, create, read
from orchestr8d.processes.program import NotFound, check_directory, resolve
from orchestr8d.processes.spawn import spawn

# In the environment of each process of an attempt, unless a process drops it.
MARKER = "ORCHESTR8_ATTEMPT_ID"
SHELL = "/bin/sh"

# $1 tag, $2 directory, $3 soft limit of descriptors, then the command; descriptor 4 is the exit file. Why it is so:
# - descriptor 3 is the command's stderr, the shell's own goes nowhere: "Killed" and the like would be mixed in. It is
#   given in a subshell, as a redirection of a plain command holds in dash's own process until the command has ended
# - traps, not ignoring, which the command would inherit: a signal to the group must not end the shell first
# - RLIMIT_LOCKS means nothing to Linux since 2.4.25, is inherited and survives `env -i`: it tags the whole tree. The
#   option is -w in dash and busybox, -x in bash and ksh; without either the tree is untagged
# - a daemon wants many descriptors, but programs that use select(2), or close all that they might have, want few
# - a function has its own $@, so that no variable of ours can shadow one of the command's
# - the command is an absolute path, else `exit` or `eval` would run as the shell's own
# - the status goes over a file that is already filled: on a full disk there is room to overwrite, none to write. It is
#   open from the start: the command may put something else in its place
SHIM = """\
trap : HUP INT QUIT USR1 USR2 ALRM TERM
umask 022
ulimit -w "$1" || ulimit -x "$1"
ulimit -S -n "$3"
run() { cd -- "$2" && unset OLDPWD && shift 3 && exec "$@" 3>&- 4>&-; }
(run "$@" 2>&3) && s=0 || s=$?
printf '%03d\\n' "$s" >&4
exit "$s"
"""
_UNWRITTEN = b"...\n"
# A daemon started by nohup or from Python ignores some of these, and children inherit that.
_DEFAULTS = frozenset(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
# dash refuses to start with an OPTIND that is no number; it is the shell's own business in any case.
_DROPPED = frozenset({"OPTIND", "OLDPWD"})


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


def name_of(attempt_id: str, step: str = "") -> str:
    """What the shim is called in its command line, which tells it from its descendants."""
    return f"orchestr8-{step}-{attempt_id}" if step else f"orchestr8-{attempt_id}"


def start(launch: Launch, tag: int, descriptors: int, boot: str) -> int:
    """Make the attempt's files, start its shim and return the pid. Blocks for about a millisecond.

    `tag` is what tag_of() says, `descriptors` the soft limit of descriptors that the command gets, `boot` names the
    machine's present boot.

    Raises NotFound for what is wrong with the command, OSError when a file or the process could not be made.
    """
    check_directory(launch.cwd)
    # No PATH at all: where a shell would look then.
    program = resolve(launch.argv[0], launch.env.get("PATH", os.defpath), launch.cwd)
    files = launch.files
    _make_files(launch, boot)
    env = {k: v for k, v in launch.env.items() if k not in _DROPPED} | {MARKER: launch.attempt_id}
    name = name_of(launch.attempt_id, launch.step)
    # Made here and by nobody else: what is in their place is neither waited for nor written to.
    out = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    stdin = "/dev/null" if launch.stdin is None else files.stdin
    try:
        return spawn(
            SHELL,
            ["sh", "-c", SHIM, name, str(tag), launch.cwd, str(descriptors), program, *launch.argv[1:]],
            env,
            [
                (0, stdin, os.O_RDONLY, 0),
                (1, files.stdout, out, 0o600),
                (2, "/dev/null", os.O_WRONLY, 0),
                (3, files.stderr, out, 0o600),
                (4, files.exit, os.O_WRONLY | os.O_NOFOLLOW, 0),
            ],
            _DEFAULTS,
        )
    except OSError as e:
        if e.errno == errno.E2BIG:
            raise NotFound(f"{launch.argv[0]}: its arguments and environment are longer than the system takes") from e
        raise


def _make_files(launch: Launch, boot: str) -> None:
    files = launch.files
    if launch.step:
        # The attempt could write here, and the step may have been begun before.
        for path in (files.exit, files.stdin, files.stdout, files.stderr):
            Path(path).unlink(missing_ok=True)
    # Behind the status, which is written over the beginning.
    unwritten = _UNWRITTEN + boot.encode()
    try:
        create(files.exit, unwritten)
    except FileNotFoundError:
        Path(files.exit).parent.mkdir(0o700, parents=True, exist_ok=True)
        create(files.exit, unwritten)
    if launch.stdin is not None:
        create(files.stdin, launch.stdin)


def recorded(files: Files) -> int | None:
    """The exit status that the shim wrote; None while there is none, and when it never came to writing it."""
    text = read(files.exit, 64)
    return int(text[:3]) if len(text) >= 4 and text[:3].isdigit() else None


def boot_of(files: Files) -> str:
    """The boot in which the command was started, as start() was told; empty when nobody knows."""
    return read(files.exit, 64)[len(_UNWRITTEN) :].decode(errors="replace")
