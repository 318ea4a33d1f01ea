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

# What can fail returns the error's number; errno is not used.
_int, _short, _pointer, _string = ctypes.c_int, ctypes.c_short, ctypes.c_void_p, ctypes.c_char_p
_strings = ctypes.POINTER(_string)
# Only the one call that takes its time lets the lock go: to have it back, each would have to wait.
_libc = ctypes.PyDLL(None)
_posix_spawn = ctypes.CDLL(None).posix_spawn
_posix_spawn.argtypes = (ctypes.POINTER(_int), _string, _pointer, _pointer, _strings, _strings)
_posix_spawn.restype = _int
for _name, *_arguments in (
    ("posix_spawn_file_actions_init", _pointer),
    ("posix_spawn_file_actions_addopen", _pointer, _int, _string, _int, ctypes.c_uint),
    ("posix_spawn_file_actions_addchdir_np", _pointer, _string),
    ("posix_spawn_file_actions_destroy", _pointer),
    ("posix_spawnattr_init", _pointer),
    ("posix_spawnattr_setflags", _pointer, _short),
    ("posix_spawnattr_setsigmask", _pointer, _pointer),
    ("posix_spawnattr_setsigdefault", _pointer, _pointer),
    ("sigemptyset", _pointer),
    ("sigaddset", _pointer, _int),
):
    _function = getattr(_libc, _name)
    _function.argtypes, _function.restype = _arguments, _int
# (descriptor, path, flags, mode): opened in the child, in this order.
Open = tuple[int, str, int, int]


def spawn(
    path: str, argv: Sequence[str], env: Mapping[str, str], cwd: str, opens: Iterable[Open], defaults: frozenset[int]
) -> int:
    """Start the program at `path` in `cwd`, in a session of its own, and return its pid.

    Its signal mask is empty, the signals in `defaults` have their default action. Blocks until the program was started;
    OSError when it was not, also when one of its files could not be opened; ValueError for text with a NUL or one
    that the file system's encoding cannot express.
    """
    words, variables = _array(argv), _array([f"{name}={value}" for name, value in env.items()])
    attributes = _attributes(defaults)
    actions = ctypes.create_string_buffer(_ROOM)
    _check(_libc.posix_spawn_file_actions_init(actions), path)
    try:
        for fd, name, flags, mode in opens:
            # The path is copied.
            _check(_libc.posix_spawn_file_actions_addopen(actions, fd, _text(name), flags, mode), name)
        _check(_libc.posix_spawn_file_actions_addchdir_np(actions, _text(cwd)), cwd)
        pid = _int()
        _check(_posix_spawn(ctypes.byref(pid), _text(path), actions, attributes, words, variables), path)
        return pid.value
    finally:
        _libc.posix_spawn_file_actions_destroy(actions)


@cache
def _attributes(defaults: frozenset[int]) -> ctypes.Array[ctypes.c_char]:
    """Only read once they are made, so threads share them; they own no memory, so nothing is to be destroyed."""
    attributes = ctypes.create_string_buffer(_ROOM)
    _check(_libc.posix_spawnattr_init(attributes), "posix_spawn")
    _check(_libc.posix_spawnattr_setflags(attributes, _SETSIGDEF | _SETSIGMASK | _SETSID), "posix_spawn")
    _check(_libc.posix_spawnattr_setsigmask(attributes, _signals(frozenset())), "posix_spawn")
    _check(_libc.posix_spawnattr_setsigdefault(attributes, _signals(defaults)), "posix_spawn")
    return attributes


def _signals(numbers: frozenset[int]) -> ctypes.Array[ctypes.c_char]:
    signals = ctypes.create_string_buffer(_ROOM)
    _libc.sigemptyset(signals)
    for number in numbers:
        _libc.sigaddset(signals, number)
    return signals


def _array(words: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    """Ends with NULL, and keeps the bytes alive that it points to."""
    return (ctypes.c_char_p * (len(words) + 1))(*map(_text, words), None)


def _text(word: str) -> bytes:
    encoded = os.fsencode(word)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded


def _check(error: int, what: str) -> None:
    if error:
        raise OSError(error, os.strerror(error), what)
