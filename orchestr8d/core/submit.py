"""What a submit may say, as the types that decode it, and the step from there to a NewTask: all faults at once."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from orchestr8d.core import durations, patterns
from orchestr8d.core.errors import Fault, enough, refuse
from orchestr8d.core.model import PRIORITIES, Backoff, NewTask, Spec

# A string or number with the meaning of a duration; the pattern stands in the OpenAPI document.
_EXPECTED = 'seconds as a number, or a duration like "90s", "15m", "2h", "3d", up to 100,000 days'
Duration = (
    Annotated[str, patterns.whole(patterns.DURATION, _EXPECTED)]
    | Annotated[float, Meta(ge=0, le=durations.MAX_SECONDS)]
)
Name = Annotated[
    str, patterns.whole(patterns.NAME, "1 to 128 letters, digits or _.:@- that begin with a letter or digit")
]
Key = Annotated[str, Meta(min_length=1, max_length=512)]
Argv = Annotated[list[str], Meta(min_length=1, max_length=10_000)]
Env = Annotated[dict[str, str], Meta(max_length=10_000)]
Priority = Literal["critical", "high", "normal", "low"] | Annotated[int, Meta(ge=-100, le=100)]

# Fields of capabilities that this version does not have: 422 `not-available`, by path from the task.
LATER: frozenset[str] = frozenset(
    ["agent", "prompt", "workflow_id"]
    + [f"options.{o}" for o in (
        "on_completion", "callback_url", "callback_method", "model", "max_turns", "max_cost_usd", "json_schema",
        "allowed_tools", "disallowed_tools", "permission_mode", "allow_denied", "account", "resume_from", "isolation",
        "mcp_config", "runner_args")]
)  # fmt: skip
LATER_VALUES = {"options.on_failure": "callback"}

# execve's own limits on Linux: one string, and all strings together (a quarter of the 8 MB stack).
MAX_ARG = 128 * 1024 - 1
MAX_ARGS = 1_800_000
# How deep metadata may be nested: far below what a decoder gives up at.
MAX_DEPTH = 64
_ENV_NAMES = re.compile(rf"(?:{patterns.ENV_NAME}\0)*")
_ENV_NAME = re.compile(patterns.ENV_NAME)


class BackoffIn(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    kind: Literal["exponential", "linear", "fixed"] = "exponential"
    base: Duration = 1.0
    cap: Duration = 3600.0
    jitter: bool = True


class Options(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Options of a task; see docs/tasks.md."""

    priority: Priority = "normal"
    timeout: Duration | None = None
    deadline: Duration | None = None
    stall_timeout: Duration | None = None
    max_retries: Annotated[int, Meta(ge=0)] | None = None
    retry_backoff: Literal["exponential", "linear", "fixed"] | BackoffIn = "exponential"
    on_failure: Literal["retry", "fail"] = "retry"
    run_at: str | None = None
    delay: Duration | None = None
    unique_key: Key | None = None
    on_conflict: Literal["reject", "existing", "replace"] = "reject"
    concurrency_key: Key | None = None
    queue: Name = "default"
    depends_on: Annotated[list[str], Meta(max_length=1000)] = []
    allow_failed: bool = False
    check: Argv | None = None
    tags: Annotated[list[Key], Meta(max_length=100)] = []
    metadata: dict[str, Any] = {}
    user_id: Key | None = None
    title: Annotated[str, Meta(max_length=1000)] | None = None


class TaskIn(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A task to run: a command as argv (no shell unless it is `["sh", "-c", …]`)."""

    command: Argv
    cwd: str | None = None
    env: Env = {}
    stdin: str | None = None
    options: Options = Options()


class Batch(Struct, forbid_unknown_fields=True):
    """Up to 1,000 tasks, all or none."""

    tasks: Annotated[list[TaskIn], Meta(min_length=1, max_length=1000)]


class OptionsPatch(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Any option that is not yet used; what is absent stays."""

    priority: Priority | UnsetType = UNSET
    timeout: Duration | UnsetType | None = UNSET
    deadline: Duration | UnsetType | None = UNSET
    stall_timeout: Duration | UnsetType | None = UNSET
    max_retries: Annotated[int, Meta(ge=0)] | UnsetType = UNSET
    retry_backoff: Literal["exponential", "linear", "fixed"] | BackoffIn | UnsetType = UNSET
    on_failure: Literal["retry", "fail"] | UnsetType = UNSET
    run_at: str | UnsetType | None = UNSET
    delay: Duration | UnsetType | None = UNSET
    concurrency_key: Key | UnsetType | None = UNSET
    queue: Name | UnsetType = UNSET
    allow_failed: bool | UnsetType = UNSET
    check: Argv | UnsetType | None = UNSET
    tags: Annotated[list[Key], Meta(max_length=100)] | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    title: Annotated[str, Meta(max_length=1000)] | UnsetType | None = UNSET


class TaskPatch(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Changes to a task that has not started."""

    command: Argv | UnsetType = UNSET
    cwd: str | UnsetType | None = UNSET
    env: Env | UnsetType = UNSET
    stdin: str | UnsetType | None = UNSET
    priority: Priority | UnsetType = UNSET
    options: OptionsPatch | UnsetType = UNSET


class Policy(Struct, frozen=True):
    """What a submit is held against, from the configuration and the caller's token."""

    max_retries: int = 100
    allow: tuple[str, ...] = ("*",)
    user_id: str = "local"
    home: str = "/"


def _seconds(value: str | float | None) -> float | None:
    return None if value is None else durations.seconds(value)


def _time(value: str | None) -> int | None:
    return None if value is None else durations.parse_time(value)


def priority(value: str | int) -> int:
    return PRIORITIES[value] if isinstance(value, str) else value


def _backoff(value: str | BackoffIn) -> Backoff:
    if isinstance(value, str):
        return Backoff(value)  # type: ignore[arg-type]  # one of the literals, checked by decoding
    return Backoff(value.kind, durations.seconds(value.base), durations.seconds(value.cap), value.jitter)


def check(task: TaskIn | TaskPatch, policy: Policy, faults: list[Fault], at: str = "") -> None:
    """Adds what the types cannot say to `faults`, with paths that begin with `at`. UNSET stands for what a patch leaves
    out, and for what is wrong already (core.decode)."""
    o = task.options if task.options is not UNSET else OptionsPatch()
    if task.command is not UNSET:
        _check_argv(task.command, f"{at}command", policy, faults)
    if task.env is not UNSET:
        _check_env(task.env, f"{at}env", faults)
    if task.cwd is not UNSET and task.cwd is not None:
        _check_cwd(task.cwd, f"{at}cwd", faults)
    if o.check is not UNSET and o.check is not None:
        _check_argv(o.check, f"{at}options.check", policy, faults)
    if o.max_retries is not UNSET and (o.max_retries or 0) > policy.max_retries:
        faults.append(Fault(f"{at}options.max_retries", f"at most {policy.max_retries} ([limits] max_retries)"))
    if o.run_at is not UNSET and o.run_at is not None:
        if o.delay is not UNSET and o.delay is not None:
            faults.append(Fault(f"{at}options.delay", "give run_at or delay, not both"))
        try:
            durations.parse_time(o.run_at)
        except ValueError as e:
            faults.append(Fault(f"{at}options.run_at", str(e)))
    if o.metadata is not UNSET and _is_deeper(o.metadata, MAX_DEPTH):
        faults.append(Fault(f"{at}options.metadata", f"nested more than {MAX_DEPTH} levels deep"))
    for name in ("title", "unique_key"):
        text = getattr(o, name, None)  # no patch knows unique_key
        if isinstance(text, str) and "\0" in text:
            faults.append(Fault(f"{at}options.{name}", "must not contain NUL"))


def check_programs(spec: Spec, policy: Policy, faults: list[Fault]) -> None:
    """Adds the programs that must not be run: what may be changes with the configuration."""
    for path, argv in (("command", spec.command), ("options.check", spec.check)):
        if argv is not None:
            _check_program(argv, path, policy, faults)


def new_task(task: TaskIn, policy: Policy, faults: list[Fault], at: str = "") -> NewTask | None:
    """The task as admission takes it; what is wrong is added to `faults`, with paths that begin with `at`."""
    o = task.options
    before = len(faults)
    check(task, policy, faults, at)
    if len(faults) > before:
        return None
    spec = Spec(
        command=task.command, cwd=task.cwd or policy.home, env=task.env, stdin=task.stdin, title=o.title,
        timeout=_seconds(o.timeout), deadline=_seconds(o.deadline), stall_timeout=_seconds(o.stall_timeout),
        max_retries=o.max_retries or 0, backoff=_backoff(o.retry_backoff), on_failure=o.on_failure,
        depends_on=list(dict.fromkeys(o.depends_on)), allow_failed=o.allow_failed, check=o.check,
        tags=list(dict.fromkeys(o.tags)), metadata=o.metadata,
    )  # fmt: skip
    return NewTask(
        spec=spec, queue=o.queue, priority=priority(o.priority), user_id=o.user_id or policy.user_id,
        concurrency_key=o.concurrency_key, unique_key=o.unique_key, on_conflict=o.on_conflict,
        run_at=_time(o.run_at), delay=_seconds(o.delay), at=at,
    )  # fmt: skip


def _check_program(argv: list[str], path: str, policy: Policy, faults: list[Fault]) -> None:
    if policy.allow != ("*",) and not any(fnmatch.fnmatch(argv[0], pattern) for pattern in policy.allow):
        faults.append(Fault(f"{path}[0]", "this program is not in [runners.command] allow", "unprocessable"))


def _check_argv(argv: list[str], path: str, policy: Policy, faults: list[Fault]) -> None:
    if not argv[0]:
        faults.append(Fault(f"{path}[0]", "the program's name must not be empty"))
    _check_program(argv, path, policy, faults)
    if _surely_fit(argv):
        return
    total = 0
    for i, word in enumerate(argv):
        if enough(faults):
            return
        size = len(word) if word.isascii() else len(word.encode())
        total += size + 9
        if "\0" in word:
            faults.append(Fault(f"{path}[{i}]", "must not contain NUL"))
        if size > MAX_ARG:
            faults.append(Fault(f"{path}[{i}]", f"longer than {MAX_ARG} bytes, the most for one argument; use stdin"))
    if total > MAX_ARGS:
        faults.append(Fault(path, f"longer than {MAX_ARGS} bytes in all; use stdin"))


def _check_env(env: dict[str, str], path: str, faults: list[Fault]) -> None:
    if _ENV_NAMES.fullmatch("".join([f"{name}\0" for name in env])) and _surely_fit([*env, *env.values()]):
        return
    total = 0
    for name, value in env.items():
        if enough(faults):
            return
        size = len(name) + (len(value) if value.isascii() else len(value.encode()))
        total += size + 10
        if not _ENV_NAME.fullmatch(name):
            faults.append(Fault(f"{path}.{name}", "not a name for an environment variable: letters, digits and _ only"))
        if "\0" in value:
            faults.append(Fault(f"{path}.{name}", "must not contain NUL"))
        if size + 1 > MAX_ARG:
            faults.append(Fault(f"{path}.{name}", f"longer than the system's {MAX_ARG} bytes for one variable"))
    if total > MAX_ARGS:
        faults.append(Fault(path, f"longer than {MAX_ARGS} bytes in all"))


def _surely_fit(words: Collection[str]) -> bool:
    """Whether nothing is wrong with the size and the bytes of any of them, told quickly: there may be a million."""
    text = "".join(words)
    # A character is at most four bytes, a variable is two words; each word has an end, and a pointer to it.
    longest, total = max(map(len, words), default=0) * 8, len(text) * 4 + len(words) * 10
    return longest < MAX_ARG and total < MAX_ARGS and "\0" not in text


def _check_cwd(cwd: str, path: str, faults: list[Fault]) -> None:
    if not cwd.startswith("/"):
        faults.append(Fault(path, "must be an absolute path: the daemon has a working directory of its own"))
    if "\0" in cwd or len(cwd.encode()) > 4095:
        faults.append(Fault(path, "not a path"))


def _is_deeper(value: dict[str, Any], levels: int) -> bool:
    level: list[Any] = [value]
    while level and levels:
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) is dict or type(item) is list
        ]
        levels -= 1
    return bool(level)


def patched(new: NewTask, patch: TaskPatch, policy: Policy) -> NewTask:
    """The task with `patch` applied. Raises Problem with all faults."""
    faults: list[Fault] = []
    check(patch, policy, faults)
    refuse(faults)
    spec: dict[str, Any] = {}
    head: dict[str, Any] = {}
    o = patch.options if patch.options is not UNSET else OptionsPatch()
    for name in ("command", "env", "stdin"):
        if (value := getattr(patch, name)) is not UNSET:
            spec[name] = value
    if patch.cwd is not UNSET:
        spec["cwd"] = patch.cwd or policy.home
    for name in ("timeout", "deadline", "stall_timeout"):
        if (value := getattr(o, name)) is not UNSET:
            spec[name] = _seconds(value)
    if o.retry_backoff is not UNSET:
        spec["backoff"] = _backoff(o.retry_backoff)
    for name in ("max_retries", "on_failure", "allow_failed", "check", "tags", "metadata", "title"):
        if (value := getattr(o, name)) is not UNSET:
            spec[name] = value
    for name in ("queue", "concurrency_key"):
        if (value := getattr(o, name)) is not UNSET:
            head[name] = value
    for value in (patch.priority, o.priority):
        if value is not UNSET:
            head["priority"] = priority(value)
    if o.run_at is not UNSET or o.delay is not UNSET:
        head["run_at"] = None if o.run_at is UNSET else _time(o.run_at)
        head["delay"] = None if o.delay is UNSET else _seconds(o.delay)
    return msgspec.structs.replace(new, spec=msgspec.structs.replace(new.spec, **spec), **head)
