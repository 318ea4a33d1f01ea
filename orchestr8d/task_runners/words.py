"""The last words of a child, fit to be shown in an error's message."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

import msgspec

from orchestr8d.core import redact
from orchestr8d.core.model import Error
from orchestr8d.core.outcome import Outcome
from orchestr8d.processes import Files
from orchestr8d.processes.files import read, size

# Up to here a file that was just written is read on the event loop: that is quicker than a thread.
INLINE_BYTES = 16 << 10
_TAIL_CHARS = 400
# Enough for as many characters, and for secrets in between that are not shown.
_TAIL_BYTES = 4 << 10
_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


async def explained(outcome: Outcome, files: Files, otherwise: str | None = None) -> Outcome:
    """With the last words on stderr (or, when there are none, in the file `otherwise`) in the message.

    Messages are shown wherever the task is, so without what looks like a secret. The files are left as they are.
    """
    assert outcome.error is not None
    words = await patiently(_tail, files.stderr, _TAIL_BYTES)
    if not words and otherwise is not None:
        words = await patiently(_tail, otherwise, _TAIL_BYTES)
    text = _last_lines(redact.text((words or b"").decode(errors="replace")).strip())
    message = f"{outcome.error.message}: {text}" if text else outcome.error.message
    return msgspec.structs.replace(outcome, error=Error(outcome.error.kind, message))


async def patiently(reader: Callable[[str, int], bytes], path: str, length: int) -> bytes | None:
    """What `reader` reads; None when the file cannot be read, or when descriptors were short for five seconds."""
    for _ in range(50):
        try:
            if length <= INLINE_BYTES:
                return reader(path, length)
            return await asyncio.to_thread(reader, path, length)
        except OSError as e:
            if e.errno not in _DESCRIPTORS:
                return None
            await asyncio.sleep(0.1)
    return None


def _last_lines(text: str) -> str:
    """The end of it, from the beginning of a line if there is one."""
    if len(text) <= _TAIL_CHARS:
        return text
    end = text[-_TAIL_CHARS:]
    return end.partition("\n")[2] or end


def _tail(path: str, length: int) -> bytes:
    """Its last bytes, up to `length`, without the torn line or word at their beginning."""
    start = max(0, size(path) - length)
    data = read(path, length, start)
    if start == 0:
        return data
    # What is torn off could be what makes the rest recognizable as a secret.
    return data.partition(b"\n")[2] or data.partition(b" ")[2]
