"""posix_spawn(3) without the interpreter's lock.

`os.posix_spawn` holds the lock until the child has become the new program: half a millisecond for each child in which
nothing else of the daemon runs. A call through ctypes lets it go, and half as many children again are started a second.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

# The same in glibc and musl. Their structures take 80, 128 and 336 bytes; here is room for more.
_SETSIGDEF, _SETSIGMASK, _SETSID = 0x04, 0x08, 0x80
_ROOM = 1024

_libc = ctypes.CDLL(None)
# (descriptor, path, flags, mode): opened in the child, in this order.
Open = tuple[int, str, int, int]


def spawn(
    path: str, argv: Sequence[str], env: Mapping[str, str], opens: Iterable[Open], defaults: frozenset[int]
) -> int:
    """Start the program at `path` in a session of its own and return its pid.

    Its signal mask is empty, the signals in `defaults` have their default action. Blocks until the program was started;
    OSError when it was not, also when one of its files could not be opened.
    """
    actions = ctypes.create_string_buffer(_ROOM)
    _check(_libc.posix_spawn_file_actions_init(actions), path)
    try:
        for fd, name, flags, mode in opens:
            error = _libc.posix_spawn_file_actions_addopen(actions, fd, _text(name), flags, ctypes.c_uint(mode))
            _check(error, name)
        pid = ctypes.c_int()
        words, variables = _array(argv), _array([f"{name}={value}" for name, value in env.items()])
        attributes = _attributes(defaults)
        error = _libc.posix_spawn(ctypes.byref(pid), _text(path), actions, attributes, words, variables)
        _check(error, path)
        return pid.value
    finally:
        _libc.posix_spawn_file_actions_destroy(actions)


@cache
def _attributes(defaults: frozenset[int]) -> ctypes.Array[ctypes.c_char]:
    attributes = ctypes.create_string_buffer(_ROOM)
    _check(_libc.posix_spawnattr_init(attributes), "posix_spawn")
    flags = ctypes.c_short(_SETSIGDEF | _SETSIGMASK | _SETSID)
    _check(_libc.posix_spawnattr_setflags(attributes, flags), "posix_spawn")
    _check(_libc.posix_spawnattr_setsigmask(attributes, _signals(frozenset())), "posix_spawn")
    _check(_libc.posix_spawnattr_setsigdefault(attributes, _signals(defaults)), "posix_spawn")
    return attributes


def _signals(numbers: frozenset[int]) -> ctypes.Array[ctypes.c_char]:
    signals = ctypes.create_string_buffer(_ROOM)
    _libc.sigemptyset(signals)
    for number in numbers:
        _libc.sigaddset(signals, int(number))
    return signals


def _array(words: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * (len(words) + 1))(*map(_text, words), None)


def _text(word: str) -> bytes:
    encoded = os.fsencode(word)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded


def _check(error: int, what: str) -> None:
    if error:
        raise OSError(error, os.strerror(error), what)
