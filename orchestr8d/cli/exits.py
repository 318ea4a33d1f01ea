"""Exit codes, and the one place where what went wrong becomes a message and a code."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from orchestr8d.client.answers import ApiError

DONE = 0
FAILED = 1
USAGE = 2
NO_DAEMON = 3
NOT_FOUND = 4
WRONG_STATE = 5
NOT_AUTHORISED = 6
TIMED_OUT = 124
INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell reports of a program that SIGPIPE ended

# The shell's completion script calls us with this variable.
COMPLETE = "_ORCHESTR8D_COMPLETE"
BY_STATUS = {401: NOT_AUTHORISED, 403: NOT_AUTHORISED, 404: NOT_FOUND, 409: WRONG_STATE}
START = "start it with `orchestr8d serve`, or `systemctl --user start orchestr8d` if it is installed as a service"


class Exit(click.ClickException):
    """Ends the command with `code`; `message` goes to stderr, if there is one."""

    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code

    def show(self, file: object = None) -> None:
        if self.message:
            say(self.message)


class Left(Exit):
    """Ctrl-C while waiting for something that goes on without us."""

    def __init__(self, message: str) -> None:
        super().__init__(INTERRUPTED, message)


def say(message: str) -> None:
    """One message to whoever runs the command, on stderr."""
    click.echo(f"orchestr8d: {message}", err=True)


def fail(code: int, message: str = "") -> NoReturn:
    raise Exit(code, message)


def run(command: click.Command) -> int:
    """Runs the command line; the exit code of the contract."""
    try:
        code = _run(command)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has had enough, as `| head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED


def _run(command: click.Command) -> int:
    for stream in (sys.stdout, sys.stderr):
        # What the terminal cannot show is escaped, not an error.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a text file, unless replaced
    try:
        if COMPLETE in os.environ:
            return _complete(command, os.environ[COMPLETE])
        with command.make_context("orchestr8d", sys.argv[1:]) as ctx:
            command.invoke(ctx)
        return DONE
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.Abort:
        return INTERRUPTED
    except click.UsageError as error:
        error.show()
        return USAGE
    except BrokenPipeError:
        raise
    except Exception as error:
        return explain(error)


def _complete(command: click.Command, instruction: str) -> int:
    """Answers the shell's completion script."""
    from click.shell_completion import shell_complete

    return shell_complete(command, {}, "orchestr8d", COMPLETE, instruction)


def explain(error: Exception) -> int:
    """Tells what went wrong, in a line (and one for each fault of an input); the exit code for it."""
    from orchestr8d.client.answers import ApiError, ConnectionLost, NoDaemon

    if isinstance(error, Exit):
        error.show()
        return error.code
    if isinstance(error, ApiError):
        _explain_api(error)
        return BY_STATUS.get(error.status, FAILED)
    if isinstance(error, ConnectionLost):
        say(str(error))
        return NO_DAEMON
    if isinstance(error, NoDaemon):
        say(f"{error}; {START}")
        return NO_DAEMON
    if isinstance(error, OSError) and error.filename:
        say(f"{error.filename}: {error.strerror}")
    elif isinstance(error, OSError | ValueError):
        say(str(error))
    else:
        _explain_rare(error)
    return FAILED


def _explain_rare(error: Exception) -> None:
    from orchestr8d.config_file import ConfigError
    from orchestr8d.core.errors import Problem

    if isinstance(error, ConfigError):
        click.echo(str(error), err=True)  # FILE:LINE first, as editors like it
    elif isinstance(error, Problem):
        say(error.detail)
    else:
        say(f"{type(error).__name__}: {error} (this is a bug in orchestr8d)")


def _explain_api(error: ApiError) -> None:
    if not error.errors:
        say(error.detail)
    for fault in error.errors:
        path, message = fault.get("path", ""), fault.get("message", "")
        say(f"{path}: {message}" if path else message)
    if error.status == 401:
        say("give a token in ORCHESTR8_TOKEN, or use the state directory of the daemon's user")
    elif error.retry_after is not None:
        say(f"try again in {error.retry_after:g} s")
