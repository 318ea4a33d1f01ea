"""From what a submit says to a NewTask: all that its types cannot check, all faults at once."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from orchestr8d.core import durations, endings, patterns
from orchestr8d.core.addresses import Allow
from orchestr8d.core.errors import Fault, did_you_mean, enough, refuse
from orchestr8d.core.model import PRIORITIES, AgentSpec, Backoff, NewTask, Spec
from orchestr8d.core.task_input import AGENT_OPTIONS, BackoffIn, Options, OptionsPatch, TaskIn, TaskPatch

# Retries where the task does not say: an agent may do better another time, a command's exit code is an answer.
AGENT_RETRIES = 3
# execve's own limits on Linux: one string, and all strings together (a quarter of the 8 MB stack).
MAX_ARG = 128 * 1024 - 1
MAX_ARGS = 1_800_000
# How deep metadata may be nested: far below what a decoder gives up at.
MAX_DEPTH = 64
_ENV_NAMES = re.compile(rf"(?:{patterns.ENV_NAME}\0)*")
_ENV_NAME = re.compile(patterns.ENV_NAME)


class AgentRules(Struct, frozen=True):
    """Why no agent can run here, and why none may bypass permissions (None: it may); the accounts that there are."""

    off: str | None = None
    no_bypass: str | None = None
    accounts: tuple[str, ...] = ()


class Policy(Struct, frozen=True):
    """What a submit is held against, from the configuration and the caller's token."""

    max_retries: int = 100
    allow: tuple[str, ...] = ("*",)
    user_id: str = "local"
    home: str = "/"
    agents: AgentRules = AgentRules()
    # Where callbacks may go ([webhooks] allow).
    addresses: Allow = Allow()
    # Whether the task is of a workflow: signals go there.
    in_workflow: bool = False


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


def check(task: TaskIn | TaskPatch, policy: Policy, faults: list[Fault], at: str = "", follows: int = 0) -> None:
    """Adds what the types cannot say to `faults`, with paths that begin with `at`. UNSET stands for what a patch leaves
    out, and for what is wrong already (core.decode). `follows`: how many tasks this one is to follow."""
    o = task.options if task.options is not UNSET else OptionsPatch()
    if isinstance(task, TaskIn):
        _check_kind(task, faults, at)
        endings.check_together(task.options or Options(), faults, at)  # UNSET when wrong
    if task.command is not UNSET and task.command is not None:
        _check_argv(task.command, f"{at}command", policy, faults)
    if task.env is not UNSET:
        _check_env(task.env, f"{at}env", faults)
    if task.cwd is not UNSET and task.cwd is not None:
        check_cwd(task.cwd, f"{at}cwd", faults)
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
    for name in ("metadata", "json_schema", "mcp_config"):
        value = getattr(o, name)
        if isinstance(value, dict) and is_deeper(value, MAX_DEPTH):
            faults.append(Fault(f"{at}options.{name}", f"nested more than {MAX_DEPTH} levels deep"))
    _check_agent_options(o, policy, faults, at)
    endings.check(
        o, at, endings.Rules(policy.addresses, policy.in_workflow), faults,
        lambda next_one, found, path: _check_follow_up(next_one, policy, found, path, follows + 1),
    )  # fmt: skip
    for name in ("title", "unique_key"):
        text = getattr(o, name, None)  # no patch knows unique_key
        if isinstance(text, str) and "\0" in text:
            faults.append(Fault(f"{at}options.{name}", "must not contain NUL"))


def _check_follow_up(task: TaskIn, policy: Policy, faults: list[Fault], at: str, follows: int) -> None:
    """Adds what is wrong with a task that is to follow, as far as it can be told before its templates have values."""
    if enough(faults):
        return
    if follows > endings.MOST_FOLLOWS:
        faults.append(Fault(at.rstrip("."), f"more than {endings.MOST_FOLLOWS} tasks that follow from one another"))
        return
    found: list[Fault] = []
    unsure = endings.check_templates(task, faults, at)
    # It is of no workflow, whatever it follows from.
    check(task, msgspec.structs.replace(policy, in_workflow=False), found, at, follows)
    o = task.options or Options()  # UNSET when wrong
    if task.agent is not None and policy.agents.off is not None:
        found.append(Fault(f"{at}agent", policy.agents.off, "unprocessable"))
    if isinstance(o.user_id, str):
        found.append(Fault(f"{at}options.user_id", "belongs to whom the task that it follows belongs to"))
    faults += [fault for fault in found if fault.path not in unsure]


def _check_kind(task: TaskIn, faults: list[Fault], at: str) -> None:
    """Adds what does not go together. What is UNSET was given, though wrong."""
    o = task.options or Options()  # UNSET when wrong
    if task.command is not None and task.agent is not None:
        faults.append(Fault(f"{at}agent", "give a command or an agent, not both"))
    elif task.agent is not None:
        if task.prompt is None:
            faults.append(Fault(f"{at}prompt", "required with an agent, but missing"))
        if task.stdin is not None:
            faults.append(Fault(f"{at}stdin", "only for commands: an agent reads its prompt"))
    elif task.command is not None:
        if task.prompt is not None:
            faults.append(Fault(f"{at}prompt", "only for agents; name one as `agent`"))
        for name in AGENT_OPTIONS:
            if getattr(o, name) is not None:
                faults.append(Fault(f"{at}options.{name}", "only for agents"))
    else:
        faults.append(Fault(f"{at}command", "give a command (argv), or an agent with its prompt"))


def _check_agent_options(o: Options | OptionsPatch, policy: Policy, faults: list[Fault], at: str) -> None:
    if o.permission_mode == "bypassPermissions" and policy.agents.no_bypass is not None:
        faults.append(Fault(f"{at}options.permission_mode", policy.agents.no_bypass, "unprocessable"))
    if isinstance(o.account, str) and o.account not in policy.agents.accounts:
        message = f"there is no such account in [claude.accounts]{did_you_mean(o.account, policy.agents.accounts)}"
        faults.append(Fault(f"{at}options.account", message, "unprocessable"))
    if isinstance(o.mcp_config, str) and not o.mcp_config.startswith("/"):
        faults.append(Fault(f"{at}options.mcp_config", "must be the absolute path of a file, or its content"))
    for name in ("allowed_tools", "disallowed_tools", "runner_args", "mcp_config"):
        words = getattr(o, name)
        if isinstance(words, (list, str)) and any("\0" in word for word in words):
            faults.append(Fault(f"{at}options.{name}", "must not contain NUL"))


def check_programs(spec: Spec, policy: Policy, faults: list[Fault]) -> None:
    """Adds the programs that must not be run: what may be changes with the configuration."""
    for path, argv in (("command", spec.command), ("options.check", spec.check)):
        if argv is not None:
            _check_program(argv, path, policy, faults)


def new_task(task: TaskIn, policy: Policy, faults: list[Fault], at: str = "") -> NewTask | None:
    """The task as admission takes it; what is wrong is added to `faults`, with paths that begin with `at`."""
    before = len(faults)
    check(task, policy, faults, at)
    if task.agent is not None and policy.agents.off is not None:
        faults.append(Fault(f"{at}agent", policy.agents.off, "unprocessable"))
    return None if len(faults) > before else built(task, policy, at)


def built(task: TaskIn, policy: Policy, at: str = "") -> NewTask:
    """The same of a task with which nothing is wrong."""
    o = task.options
    agent = None if task.agent is None else _agent(task.agent, o)
    retries = min(AGENT_RETRIES if agent is not None else 0, policy.max_retries)
    spec = Spec(
        command=task.command, agent=agent, prompt=task.prompt, cwd=task.cwd or policy.home, env=task.env,
        stdin=task.stdin, title=o.title,
        timeout=_seconds(o.timeout), deadline=_seconds(o.deadline), stall_timeout=_seconds(o.stall_timeout),
        max_retries=retries if o.max_retries is None else o.max_retries,
        backoff=_backoff(o.retry_backoff), on_failure=o.on_failure,
        on_completion=endings.stored(o.on_completion, is_agent=agent is not None),
        callback_url=o.callback_url, callback_method=o.callback_method,
        depends_on=list(dict.fromkeys(o.depends_on)), allow_failed=o.allow_failed, check=o.check,
        tags=list(dict.fromkeys(o.tags)), metadata=o.metadata,
    )  # fmt: skip
    return NewTask(
        spec=spec, kind="command" if agent is None else "claude", queue=o.queue, priority=priority(o.priority),
        user_id=o.user_id or policy.user_id,
        concurrency_key=o.concurrency_key, unique_key=o.unique_key, on_conflict=o.on_conflict,
        run_at=_time(o.run_at), delay=_seconds(o.delay), at=at,
    )  # fmt: skip


def _agent(name: str, o: Options) -> AgentSpec:
    given = {option: value for option in AGENT_OPTIONS if (value := getattr(o, option)) is not None}
    return AgentSpec(name, **given)


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


def check_cwd(cwd: str, path: str, faults: list[Fault]) -> None:
    if not cwd.startswith("/"):
        faults.append(Fault(path, "must be an absolute path: the daemon has a working directory of its own"))
    if "\0" in cwd or len(cwd.encode()) > 4095:
        faults.append(Fault(path, "not a path"))


def is_deeper(value: dict[str, Any], levels: int) -> bool:
    """Whether lists and mappings in a mapping go deeper than so many levels."""
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
    o = patch.options if patch.options is not UNSET else OptionsPatch()
    _check_patched_kind(new.spec, patch, o, faults)
    refuse(faults)
    spec: dict[str, Any] = {}
    head: dict[str, Any] = {}
    given = {name: value for name in AGENT_OPTIONS if (value := getattr(o, name, UNSET)) is not UNSET}
    if given and new.spec.agent is not None:
        defaults = AgentSpec(new.spec.agent.name)
        given = {name: getattr(defaults, name) if value is None else value for name, value in given.items()}
        spec["agent"] = msgspec.structs.replace(new.spec.agent, **given)
    for name in ("command", "prompt", "env", "stdin"):
        if (value := getattr(patch, name)) is not UNSET:
            spec[name] = value
    if patch.cwd is not UNSET:
        spec["cwd"] = patch.cwd or policy.home
    for name in ("timeout", "deadline", "stall_timeout"):
        if (value := getattr(o, name)) is not UNSET:
            spec[name] = _seconds(value)
    if o.retry_backoff is not UNSET:
        spec["backoff"] = _backoff(o.retry_backoff)
    if o.on_completion is not UNSET:
        spec["on_completion"] = endings.stored(o.on_completion, is_agent=new.spec.agent is not None)
    for name in (
        "max_retries", "on_failure", "callback_url", "callback_method", "allow_failed", "check", "tags", "metadata",
        "title",
    ):  # fmt: skip
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
    after = msgspec.structs.replace(new.spec, **spec)
    endings.check_together(after, faults)
    refuse(faults)
    return msgspec.structs.replace(new, spec=after, **head)


def _check_patched_kind(spec: Spec, patch: TaskPatch, o: OptionsPatch, faults: list[Fault]) -> None:
    """Adds what the task's kind does not have: that never changes."""
    if spec.agent is not None:
        wrong = [name for name in ("command", "stdin") if getattr(patch, name) is not UNSET]
        faults += [Fault(name, "only for commands, and this is an agent's task") for name in wrong]
        return
    wrong = ["prompt"] if patch.prompt is not UNSET else []
    wrong += [f"options.{name}" for name in AGENT_OPTIONS if getattr(o, name, UNSET) is not UNSET]
    faults += [Fault(name, "only for agents, and this is a command") for name in wrong]
