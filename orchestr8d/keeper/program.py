"""Finds the program that a command names, before anything is started: a missing one is a fault of the task."""

from __future__ import annotations

import os
import stat


class NotFound(Exception):
    """A program or working directory that cannot be used; the text says which and why."""


def check_directory(cwd: str) -> None:
    """Raises NotFound unless `cwd` is a directory that may be entered."""
    try:
        mode = os.stat(cwd).st_mode
    except FileNotFoundError:
        raise NotFound(f"the working directory does not exist: {cwd}") from None
    except OSError as e:
        raise NotFound(f"the working directory cannot be used: {cwd}: {e.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise NotFound(f"the working directory is not a directory: {cwd}")
    if not os.access(cwd, os.X_OK):
        raise NotFound(f"the working directory may not be entered: {cwd}")


def resolve(name: str, path: str, cwd: str) -> str:
    """The absolute path of the program `name`, as a shell standing in `cwd` with this PATH would find it.

    A name with a slash is relative to `cwd`, an empty entry of PATH means `cwd`. Raises NotFound.
    """
    if "/" in name:
        found = _joined(cwd, name)
        fault = _fault(found)
        if fault is None:
            return found
        raise NotFound(f"{name}: {fault}" if name == found else f"{name}: {fault} (looked for {found})")
    refused = None
    for entry in path.split(":"):
        found = _joined(cwd, entry, name)
        fault = _fault(found)
        if fault is None:
            return found
        if fault != _MISSING and refused is None:
            refused = f"{name}: {fault} ({found})"
    raise NotFound(refused or f"{name}: no such program in PATH ({path})")


_MISSING = "no such program"


def _joined(*parts: str) -> str:
    # As it would be typed: `./tool` is DIR/tool.
    return "/" + "/".join(part for part in os.path.join(*parts).split("/") if part not in ("", "."))


def _fault(path: str) -> str | None:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _MISSING
    except OSError as e:
        return (e.strerror or str(e)).lower()
    if stat.S_ISDIR(mode):
        return "is a directory, not a program"
    if not stat.S_ISREG(mode) or not os.access(path, os.X_OK):
        return "is not executable"
    return None
