"""The templates of workflows: those that the package brings, and the YAML files of the configured directories."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Final

import structlog
from msgspec import Struct

from orchestr8d.core import definition, yaml_text
from orchestr8d.core.errors import Fault, Problem, did_you_mean
from orchestr8d.core.workflow import Param
from orchestr8d.core.workflow_params import declared

BUILT_IN: Final = Path(__file__).parent
_MOST_FILES: Final = 1000
_MOST_SHOWN: Final = 3


class Template(Struct, frozen=True):
    """`definition` is as it was written, and shared by all who ask: nobody changes it. Its tasks are not checked."""

    name: str
    path: str
    description: str
    params: Mapping[str, Param]
    phases: Sequence[str]
    definition: dict[str, Any]


class Templates:
    """Each call looks at the disk for what has changed, so it belongs into a thread, in which it may be made."""

    def __init__(self, paths: Callable[[], Sequence[str]], home: Path | None) -> None:
        """`paths`: directories as they are configured; `~` is `home`."""
        self._paths = paths
        self._home = home
        self._lock = Lock()
        self._built_in: dict[str, Template] = {}
        self._files: dict[str, _File] = {}

    def get(self, name: str) -> dict[str, Any]:
        """The definition of that name. Raises Problem not-found, with a near name."""
        return self.template(name).definition

    def template(self, name: str) -> Template:
        found, _ = self._look()
        if name not in found:
            raise Problem("not-found", f"there is no template {name[:200]!r}{did_you_mean(name, sorted(found))}")
        return found[name]

    def names(self) -> list[str]:
        return sorted(self._look()[0])

    def listed(self) -> tuple[list[Template], list[str]]:
        """All templates by name, and what lies beside them and cannot be used, as `PATH: why`."""
        found, ignored = self._look()
        return [found[name] for name in sorted(found)], ignored

    def _look(self) -> tuple[Mapping[str, Template], list[str]]:
        with self._lock:
            if not self._built_in:
                built_in = map(_built_in, sorted(BUILT_IN.glob("*.yaml")))
                self._built_in = {template.name: template for template in built_in}
            ignored: list[str] = []
            own = self._own(ignored)
            return {**self._built_in, **own}, ignored

    def _own(self, ignored: list[str]) -> dict[str, Template]:
        """Of the configured directories, the first one's wins."""
        found: dict[str, Template] = {}
        known, self._files = self._files, {}
        for path in self._own_files(ignored):
            before = known.get(str(path))
            self._files[str(path)] = file = _read(path, before)
            if file.template is None:
                ignored.append(f"{path}: {file.fault}")
                if before is None or before.fault != file.fault:
                    structlog.get_logger().warning("a template cannot be used", path=str(path), reason=file.fault)
            elif file.template.name in found:
                ignored.append(f"{path}: {found[file.template.name].path} has the same name {file.template.name!r}")
            else:
                found[file.template.name] = file.template
        return found

    def _own_files(self, ignored: list[str]) -> Iterator[Path]:
        looked_at = 0
        for text in dict.fromkeys(self._paths()):
            directory = self._home / text[2:] if self._home is not None and text.startswith("~/") else Path(text)
            try:
                names = sorted(entry.name for entry in os.scandir(directory) if entry.name.endswith(".yaml"))
            except (OSError, ValueError) as e:
                ignored.append(f"{directory}: cannot be read: {_reason(e)}")
                continue
            for name in names:
                looked_at += 1
                if looked_at > _MOST_FILES:
                    ignored.append(f"{directory}: more than {_MOST_FILES:,} files: the rest is left out")
                    return
                yield directory / name


class _File(Struct, frozen=True):
    """One file as it was read: a template, or what is wrong with it."""

    stamp: tuple[int, ...]
    template: Template | None = None
    fault: str = ""


def _built_in(path: Path) -> Template:
    file = _read(path, None)
    assert file.template is not None, f"{path}: {file.fault}"
    return file.template


def _read(path: Path, before: _File | None) -> _File:
    """Never raises; a file that has not changed is not read again. Only a regular file is opened: a pipe would wait."""
    stamp: tuple[int, ...] = ()
    try:
        status = path.stat()
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, status.st_dev)
        if before is not None and before.stamp == stamp:
            return before
        if not stat.S_ISREG(status.st_mode):
            return _File(stamp, fault="is no regular file")
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            said = yaml_text.read(file.read(yaml_text.MAX_SIZE + 1) or b"")
    except OSError as e:
        return _File(stamp, fault=f"cannot be read: {_reason(e)}")
    except ValueError as e:  # yaml_text.YamlError; a NUL in the path
        return _File(stamp, fault=str(e))
    head, faults = definition.head(said)
    params: dict[str, Param] = {} if head is None else declared(head.params, faults)
    if head is None or faults:
        return _File(stamp, fault=_sentence(faults))
    template = Template(
        head.name, str(path), head.description or "", params, [phase.id for phase in head.phases], said
    )  # fmt: skip
    return _File(stamp, template)


def _sentence(faults: Sequence[Fault]) -> str:
    shown = [f"{fault.path}: {fault.message}" if fault.path else fault.message for fault in faults[:_MOST_SHOWN]]
    return "; ".join(shown) + (f" (and {len(faults) - _MOST_SHOWN} more)" if len(faults) > _MOST_SHOWN else "")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
