"""The design's floors, held by reading the imports: a module imports only from floors below its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = Path(__file__).parent.parent / "orchestr8d"

# Top-level part of the package -> floor. A new module must be given one here.
FLOORS = {
    "core": 0,
    "clock": 1, "config": 1, "events": 1, "keeper": 1, "log": 1, "state": 1, "systemd": 1,
    "agents": 2, "notifications": 2, "processes": 2, "store": 2, "task_runners": 2, "tokens": 2,
    "outgoing": 2, "templates": 2, "transcript": 2,
    "assembly": 3, "cron_ticker": 3, "followups": 3, "hook_rules": 3, "maintenance": 3, "metrics": 3, "notifier": 3,
    "priority_queue": 3, "task_pool": 3, "webhook_dispatcher": 3, "workflow_engine": 3,
    "status_api": 4,
    "client": 5, "daemon": 5,
    "cli": 6,
    "__main__": 7,
}  # fmt: skip
# Modules that are one part together.
PART_OF = {
    "applying": "daemon",
    "agent_files": "agents", "config_file": "config", "config_sections": "config", "config_values": "config",
}  # fmt: skip
# Within floor 2: what a runner runs is processes.
NEIGHBOURS = {("task_runners", "processes")}
# Beyond the floors: part -> what it must not know, even from above. Of the runners the API may know the registry.
STRANGERS = {
    "status_api": tuple(f"task_runners.{p.stem}" for p in PACKAGE.glob("task_runners/[a-z]*.py")),
    "task_runners": ("store",),
    "processes": ("store",),
}
# A core of pure decisions has no use for these.
IMPURE = {
    "aiohttp", "aiosqlite", "asyncio", "concurrent", "http", "io", "logging", "multiprocessing", "pathlib", "random",
    "select", "shutil", "signal", "socket", "sqlite3", "structlog", "subprocess", "sys", "tempfile", "threading",
    "time",
}  # fmt: skip
CLOCKS = {
    ("time", name) for name in (
        "time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "clock_gettime",
        "localtime", "gmtime")
} | {("datetime", "now"), ("datetime", "utcnow"), ("datetime", "today"), ("date", "today")}  # fmt: skip


class Import(NamedTuple):
    """`line` of `path` imports the dotted `target`; `typing_only` when it stands under `if TYPE_CHECKING`."""

    path: Path
    line: int
    target: str
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.path.relative_to(PACKAGE.parent)}:{self.line} imports {self.target}"


def modules(*parts: str) -> list[Path]:
    """The source files of these parts of the package; of all parts without an argument."""
    return [p for p in sorted(PACKAGE.rglob("*.py")) if not parts or part_of(p) in parts]


def part_of(path: Path) -> str:
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return PART_OF.get(name, name)


def imports(path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(), str(path))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for child in node.body
        for inner in ast.walk(child)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            # `from orchestr8d import x` and `from orchestr8d.x import y` both may name a module.
            targets = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            yield Import(path, node.lineno, target, id(node) in typing_only)


def own(found: Import) -> str | None:
    """The part of the package that is imported; None for other packages and for the version."""
    names = found.target.split(".")
    if names[0] != PACKAGE.name or len(names) < 2 or names[1] == "__version__":
        return None
    return PART_OF.get(names[1], names[1])


def test_every_module_has_a_floor() -> None:
    unknown = {part_of(path) for path in modules()} - FLOORS.keys() - {"__init__"}
    assert not unknown, f"give {sorted(unknown)} a floor in FLOORS"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    part = part_of(path)
    floor = FLOORS.get(part, 0)
    wrong = []
    for found in imports(path):
        target = own(found)
        if target is None or target == part or (part, target) in NEIGHBOURS:
            continue
        # A type of the same floor may be named where nothing of it is called; not of a loop by a loop.
        same_floor_type = found.typing_only and FLOORS[target] == floor != 3
        stranger = f"{found.target}.".startswith(tuple(f"orchestr8d.{name}." for name in STRANGERS.get(part, ())))
        if stranger or (FLOORS[target] >= floor and not same_floor_type):
            wrong.append(str(found))
    assert not wrong


def test_core_is_pure() -> None:
    wrong = [str(i) for path in modules("core") for i in imports(path) if i.target.split(".")[0] in IMPURE]
    for path in modules("core"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await):
                wrong.append(f"{path}:{node.lineno} is asynchronous")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("open", "print"):
                wrong.append(f"{path}:{node.lineno} calls {node.func.id}")
            # Ids are random; nothing else comes from the system.
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os" and node.attr != "urandom":
                wrong.append(f"{path}:{node.lineno} uses {ast.unparse(node)}")
    assert not wrong


def test_cli_imports_no_aiohttp() -> None:
    wrong = [str(i) for path in modules("cli") for i in imports(path) if i.target.split(".")[0] == "aiohttp"]
    assert not wrong


def test_only_the_clock_reads_the_clocks() -> None:
    wrong = []
    for path in modules():
        if part_of(path) == "clock":
            continue
        wrong += [str(i) for i in imports(path) if i.target in {".".join(clock) for clock in CLOCKS}]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
                owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
                if (owner, node.attr) in CLOCKS:
                    wrong.append(f"{path}:{node.lineno} calls {owner}.{node.attr}")
    assert not wrong
