"""Following tasks to their end: their output as it comes, their outcome as an exit code."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, NamedTuple

from orchestr8d.cli import exits
from orchestr8d.cli.output import fault, printable, short
from orchestr8d.client.answers import Json
from orchestr8d.client.streams import PATIENCE
from orchestr8d.client.sync import Client
from orchestr8d.core.states import FINAL

Stream = Literal["stdout", "stderr", "transcript"]
STREAMS: dict[Stream, int] = {"stdout": 1, "stderr": 2, "transcript": 1}


def write(fd: int, data: bytes) -> None:
    """All of `data`, past Python's buffers: threads may write at once, and an exit loses nothing."""
    while data:
        data = data[os.write(fd, data) :]


def goes_on(task_id: str) -> str:
    name = short(task_id)
    return f"task {name} goes on; `orchestr8d wait {name}` waits for it, `orchestr8d cancel {name}` ends it"


def wait(client: Client, task_id: str, timeout: float | None) -> Json:
    """The final status. Exits with 124 when `timeout` passes first, with 130 on Ctrl-C; the task goes on."""
    try:
        return client.wait(task_id, timeout)
    except KeyboardInterrupt:
        raise exits.Left(goes_on(task_id)) from None
    except TimeoutError:
        exits.fail(exits.TIMED_OUT, f"--timeout passed; {goes_on(task_id)}")


def streams_of(task: Json) -> list[Stream]:
    """What there is to read of a task: of an agent what it did, not the records by which it says so."""
    return ["transcript" if task.get("agent") else "stdout", "stderr"]


class What(NamedTuple):
    """Which output to copy: of all attempts from `first` on, or of that one `only`; of it the last `tail` lines."""

    first: int = 1
    only: bool = False
    tail: int | None = None


EVERYTHING = What()


def follow(
    client: Client, task_id: str, timeout: float | None, what: What = EVERYTHING,
    streams: Iterable[Stream] | None = None,
) -> Json:  # fmt: skip
    """Copies a task's output to our stdout and stderr as it comes, until the task is final; its last status."""
    named = streams_of(client.task(task_id)) if streams is None else streams
    readers = [_Reader(client, task_id, stream, what) for stream in named]
    for reader in readers:
        reader.start()
    last = wait(client, task_id, timeout)
    try:
        for reader in readers:
            reader.finish()
    except KeyboardInterrupt:
        raise exits.Left("") from None
    return last


class _Reader(threading.Thread):
    """Copies one stream of a task to a file descriptor."""

    def __init__(self, client: Client, task_id: str, stream: Stream, what: What) -> None:
        super().__init__(daemon=True)
        self._client = Client(client.endpoint, patience=PATIENCE)
        self._copy = partial(copy_all, self._client, task_id, stream, what)
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            self._copy()
        except BrokenPipeError:
            os._exit(exits.BROKEN_PIPE)  # nobody reads on, and the main thread may sit in a request for a minute
        except Exception as error:
            self._error = error  # told by the thread that waits for us
        finally:
            self._client.close()

    def finish(self) -> None:
        self.join()
        if self._error is not None:
            raise self._error


def copy_all(client: Client, task_id: str, stream: Stream, what: What) -> None:
    """Attempts' output, in their order, until the task is final and all was copied."""
    attempt = what.first
    while _started(client, task_id, attempt):
        _copy(client, task_id, stream, attempt, what.tail if attempt == what.first else None)
        if what.only:
            return
        attempt += 1


def _started(client: Client, task_id: str, attempt: int) -> bool:
    """Waits for that attempt to begin; False when the task ended without it."""
    status = client.status(task_id)
    while status["status"] not in FINAL and (status["attempt"] or 0) < attempt:
        before, status = status, client.status(task_id, wait=50)
        if status == before:  # a daemon on its way out does not let us wait
            time.sleep(0.2)
    return (status["attempt"] or 0) >= attempt


def _copy(client: Client, task_id: str, stream: Stream, attempt: int, tail: int | None) -> None:
    for chunk in client.logs(task_id, follow=True, stream=stream, attempt=attempt, tail=tail):
        write(STREAMS[stream], chunk)


def outcome(last: Json, describe: Callable[[], str] | None = None) -> None:
    """Exits with 1 unless the task succeeded; `describe` gives the reason to show."""
    if last["status"] in {"completed", "skipped"}:
        return
    exits.fail(exits.FAILED, describe() if describe else "")


def failure(client: Client, task_id: str) -> str:
    """Why a task has no success to show, in a line."""
    task = client.task(task_id)
    why, status = fault(task), str(task["status"])
    said = why if why.startswith(status) else f"{status}: {why}" if why else status
    return printable(f"task {short(task_id)} {said}")
