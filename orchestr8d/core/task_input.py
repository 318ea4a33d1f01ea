"""What a submit may say: the types that decode it, and that the OpenAPI document shows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from orchestr8d.core import durations, patterns
from orchestr8d.core.model import PermissionMode

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
AgentName = Annotated[str, Meta(min_length=1, max_length=1024)]
Prompt = Annotated[str, Meta(min_length=1)]
Words = Annotated[list[str], Meta(max_length=1000)]
# Options that only an agent's task has; the others are for all kinds.
AGENT_OPTIONS = (
    "model", "max_turns", "max_cost_usd", "json_schema", "allowed_tools", "disallowed_tools", "permission_mode",
    "allow_denied", "account", "resume_from", "isolation", "mcp_config", "runner_args",
)  # fmt: skip
Priority = Literal["critical", "high", "normal", "low"] | Annotated[int, Meta(ge=-100, le=100)]


class BackoffIn(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    kind: Literal["exponential", "linear", "fixed"] = "exponential"
    base: Duration = 1.0
    cap: Duration = 3600.0
    jitter: bool = True


class ActionIn(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One of: a signal to the task's own workflow; a task to submit, with templates over `task`."""

    signal: Name | None = None
    submit: TaskIn | None = None


# `notification`, `callback_url`, `none`, a URL, or the name of a signal; see core/endings.py.
Action = Annotated[str, Meta(min_length=1, max_length=8192)] | ActionIn
OnCompletion = Action | Annotated[list[Action], Meta(max_length=100)]
Url = Annotated[str, Meta(min_length=1, max_length=8192)]


class Options(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Options of a task; see docs/tasks.md."""

    priority: Priority = "normal"
    timeout: Duration | None = None
    deadline: Duration | None = None
    stall_timeout: Duration | None = None
    max_retries: Annotated[int, Meta(ge=0)] | None = None
    retry_backoff: Literal["exponential", "linear", "fixed"] | BackoffIn = "exponential"
    on_failure: Literal["retry", "fail", "callback"] = "retry"
    on_completion: OnCompletion | None = None
    callback_url: Url | None = None
    callback_method: Literal["POST", "PUT"] = "POST"
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
    # Of agents only.
    model: Name | None = None
    max_turns: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    max_cost_usd: Annotated[float, Meta(gt=0, le=1_000_000)] | None = None
    json_schema: dict[str, Any] | None = None
    allowed_tools: Words | None = None
    disallowed_tools: Words | None = None
    permission_mode: PermissionMode | None = None
    allow_denied: bool | None = None
    account: Name | None = None
    resume_from: str | None = None
    isolation: Literal["none", "worktree"] | None = None
    mcp_config: str | dict[str, Any] | None = None
    runner_args: Words | None = None


class TaskIn(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """A task to run: either a command as argv (no shell unless it is `["sh", "-c", …]`), or an agent with a prompt."""

    command: Argv | None = None
    agent: AgentName | None = None
    prompt: Prompt | None = None
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
    on_failure: Literal["retry", "fail", "callback"] | UnsetType = UNSET
    on_completion: OnCompletion | UnsetType | None = UNSET
    callback_url: Url | UnsetType | None = UNSET
    callback_method: Literal["POST", "PUT"] | UnsetType = UNSET
    run_at: str | UnsetType | None = UNSET
    delay: Duration | UnsetType | None = UNSET
    concurrency_key: Key | UnsetType | None = UNSET
    queue: Name | UnsetType = UNSET
    allow_failed: bool | UnsetType = UNSET
    check: Argv | UnsetType | None = UNSET
    tags: Annotated[list[Key], Meta(max_length=100)] | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    title: Annotated[str, Meta(max_length=1000)] | UnsetType | None = UNSET
    model: Name | UnsetType | None = UNSET
    max_turns: Annotated[int, Meta(ge=1, le=100_000)] | UnsetType | None = UNSET
    max_cost_usd: Annotated[float, Meta(gt=0, le=1_000_000)] | UnsetType | None = UNSET
    json_schema: dict[str, Any] | UnsetType | None = UNSET
    allowed_tools: Words | UnsetType | None = UNSET
    disallowed_tools: Words | UnsetType | None = UNSET
    permission_mode: PermissionMode | UnsetType | None = UNSET
    allow_denied: bool | UnsetType | None = UNSET
    account: Name | UnsetType | None = UNSET
    isolation: Literal["none", "worktree"] | UnsetType | None = UNSET
    mcp_config: str | dict[str, Any] | UnsetType | None = UNSET
    runner_args: Words | UnsetType | None = UNSET


class TaskPatch(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Changes to a task that has not started."""

    command: Argv | UnsetType = UNSET
    prompt: Prompt | UnsetType = UNSET
    cwd: str | UnsetType | None = UNSET
    env: Env | UnsetType = UNSET
    stdin: str | UnsetType | None = UNSET
    priority: Priority | UnsetType = UNSET
    options: OptionsPatch | UnsetType = UNSET
