"""The words of the domain as types: task, attempt, queue, executor, token. Times are wall-clock milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from orchestr8d.core.states import AttemptStatus, TaskStatus

PRIORITIES = {"critical": 20, "high": 10, "normal": 0, "low": -10}
Scope = Literal["read", "submit", "admin"]


class Error(msgspec.Struct, frozen=True):
    """Why a task or attempt did not succeed; kinds are those of the contract."""

    kind: str
    message: str


class Backoff(msgspec.Struct, frozen=True):
    """How long to wait before retry n; `base` and `cap` in seconds."""

    kind: Literal["exponential", "linear", "fixed"] = "exponential"
    base: float = 1.0
    cap: float = 3600.0
    jitter: bool = True


class Progress(msgspec.Struct, frozen=True, omit_defaults=True):
    """`estimated_time_remaining` is in seconds."""

    percent: float | None = None
    current_step: str | None = None
    estimated_time_remaining: float | None = None


class Resources(msgspec.Struct, frozen=True):
    """What an attempt's processes took; unknown (None as a whole) where they were adopted from another daemon."""

    cpu_seconds: float
    # Of the largest of its processes. Linux counts what a process was before its exec, and that was a copy of the
    # daemon: a smaller one is shown with the daemon's size.
    max_rss_bytes: int


PermissionMode = Literal["acceptEdits", "auto", "bypassPermissions", "default", "dontAsk", "manual", "plan"]


class AgentSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was asked of an agent; None where the agent's definition or the configuration says it."""

    name: str
    model: str | None = None
    max_turns: int | None = None
    max_cost_usd: float | None = None
    json_schema: dict[str, Any] | None = None
    allowed_tools: list[str] | None = None
    disallowed_tools: list[str] | None = None
    permission_mode: PermissionMode | None = None
    # A run in which something was denied may succeed all the same.
    allow_denied: bool = False
    account: str | None = None
    # The task whose session is gone on with, in a session of its own that begins as a copy of `session_id`.
    resume_from: str | None = None
    session_id: str | None = None
    isolation: Literal["none", "worktree"] = "none"
    # A file, or its content.
    mcp_config: str | dict[str, Any] | None = None
    runner_args: list[str] = []


class Usage(msgspec.Struct, frozen=True):
    """What a model did for an attempt; on a task the sum over its attempts. Tokens, US dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_creation_tokens: int = 0
    cost_usd: float = 0.0
    num_turns: int = 0
    by_model: dict[str, dict[str, Any]] = {}


class Worktree(msgspec.Struct, frozen=True):
    """Where an isolated agent worked: a git worktree and its branch, with what it left there."""

    path: str
    branch: str
    commits: list[str] = []
    files_changed: list[str] = []


class Session(msgspec.Struct, frozen=True):
    """The conversation that an agent's attempt goes on with or begins: its id, whether an earlier attempt has begun it,
    and what it had cost by then. `cap_usd` is what the attempt may spend; None: as much as it likes."""

    id: str
    begun: bool = False
    spent_usd: float = 0.0
    account: str = "default"
    cap_usd: float | None = None


class Spec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was asked for, stored as one JSON value: of a command, or of an agent with its prompt."""

    command: list[str] | None = None
    agent: AgentSpec | None = None
    prompt: str | None = None
    cwd: str | None = None
    env: dict[str, str] = {}
    stdin: str | None = None
    title: str | None = None
    timeout: float | None = None
    deadline: float | None = None
    stall_timeout: float | None = None
    max_retries: int = 0
    backoff: Backoff = Backoff()
    on_failure: Literal["retry", "fail", "callback"] = "retry"
    # `notification`, `callback_url`, URLs, `{"signal": NAME}`, and `{"submit": TASK}` as it was written (core.endings).
    on_completion: list[str | dict[str, Any]] = []
    callback_url: str | None = None
    callback_method: Literal["POST", "PUT"] = "POST"
    # How many tasks came before it, each following from the end of the one before.
    follows: int = 0
    depends_on: list[str] = []
    allow_failed: bool = False
    check: list[str] | None = None
    tags: list[str] = []
    metadata: dict[str, Any] = {}


class NewTask(msgspec.Struct, kw_only=True):
    """A validated submit: everything that admission needs to decide about it."""

    spec: Spec
    kind: str = "command"
    queue: str = "default"
    priority: int = 0
    user_id: str = "local"
    concurrency_key: str | None = None
    unique_key: str | None = None
    on_conflict: Literal["reject", "existing", "replace"] = "reject"
    run_at: int | None = None
    delay: float | None = None
    retry_of: str | None = None
    # Of a workflow's: it waits until that releases it (`held`), under a name of its own.
    workflow_id: str | None = None
    phase: str | None = None
    local_id: str | None = None
    held: bool = False
    deadline_at: int | None = None
    # Of a schedule's: the tasks and workflows whose ends it waits for, whatever ends they are.
    schedule_id: str | None = None
    after: Sequence[str] = ()
    # Where it stood in what was submitted, for faults: `tasks[3].` in a batch.
    at: str = ""


class Task(msgspec.Struct):
    """A row of the tasks table, field by column, in the table's order."""

    seq: int
    id: str
    kind: str
    status: TaskStatus
    # What keeps a queued task from being claimed; None when it may be: 'concurrency_key', 'workflow' (that is paused).
    hold: str | None
    # What a parked task waits for: 'limit', or 'budget:NAME/KEY'.
    parked_for: str | None
    queue: str
    # Which accounts it may run on (core.claims): '' where it needs none.
    lane: str
    priority: int
    rank: int
    user_id: str
    agent: str | None
    workflow_id: str | None
    phase: str | None
    schedule_id: str | None
    session_id: str | None
    concurrency_key: str | None
    unique_key: str | None
    # The unique_key while this task is the one that holds it; unique over all tasks.
    unique_slot: str | None
    retry_of: str | None
    executor_id: str | None
    # How many attempts were started, and how many retries were begun or are waited for.
    attempt: int
    retry_count: int
    # How many edges of task_deps still hold it back; one more while its workflow does.
    blockers: int
    paused: int
    # When it moves by itself: `run_at` while pending, `next_retry_at` while retrying. Follows a set clock if a delay.
    wake_at: int | None
    wake_is_delay: int
    deadline_at: int | None
    cancel_requested_at: int | None
    created_at: int
    updated_at: int
    queued_at: int | None
    started_at: int | None
    completed_at: int | None
    result_type: str | None
    # JSON: Progress, Error, usage, Spec.
    progress: str | None
    error: str | None
    usage: str | None
    spec: str
    # Its name in its workflow.
    local_id: str | None

    def read_spec(self) -> Spec:
        return msgspec.json.decode(self.spec, type=Spec)

    def read_error(self) -> Error | None:
        return None if self.error is None else msgspec.json.decode(self.error, type=Error)

    def read_progress(self) -> Progress:
        return Progress() if self.progress is None else msgspec.json.decode(self.progress, type=Progress)


class Attempt(msgspec.Struct):
    """A row of the attempts table: one execution of a task."""

    id: str
    task_id: str
    number: int
    executor_id: str
    status: AttemptStatus
    started_at: int
    ended_at: int | None
    exit_code: int | None
    signal: str | None
    # Of agents: the conversation, the account that it runs on, and what was set aside for it of budgets.
    session_id: str | None
    account: str | None
    cap_usd: float | None
    output_bytes: int | None
    # JSON: Error, Usage, Resources, list of paths, Worktree.
    error: str | None
    usage: str | None
    resources: str | None
    files_created: str | None
    worktree: str | None


class Queue(msgspec.Struct):
    """A queue's settings and what is in it. `depth` counts the waiting, `rate` is (starts, seconds)."""

    name: str
    limit: int | None = None
    rate: str | None = None
    paused: bool = False
    depth: int = 0
    running: int = 0
    # When its rate lets the next one start; None when that is now.
    open_at: int | None = None


class Executor(msgspec.Struct):
    id: str
    host: str
    pid: int
    version: str
    started_at: int
    heartbeat_at: int
    labels: list[str]
    slots: int
    running: int
    state: Literal["running", "draining", "stopped", "lost"]


class Token(msgspec.Struct):
    """A token as it is stored: the hash only."""

    id: str
    name: str
    hash: str
    scope: Scope
    user_id: str | None
    runners: list[str] | None
    agents: list[str] | None
    created_at: int
    expires_at: int | None


class WaitingFor(msgspec.Struct, omit_defaults=True):
    """One reason why a task does not run yet."""

    kind: str
    id: str | None = None
    name: str | None = None
    until: str | None = None
    account: str | None = None


class TaskView(msgspec.Struct):
    """A task with what the API shows beside its row."""

    task: Task
    waiting_for: list[WaitingFor]
    attempts: list[Attempt] = []


class Result(msgspec.Struct):
    """What a final task left: `body` is UTF-8 text, or JSON when the task's result_type is `json`."""

    task: Task
    body: bytes | None
    attempt: Attempt | None
