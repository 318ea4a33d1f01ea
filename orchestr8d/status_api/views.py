"""The shapes of the answers, made from rows by pure functions; the OpenAPI document shows these types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from orchestr8d.core import endings, model
from orchestr8d.core.durations import iso
from orchestr8d.core.states import BUSY, FINAL, AttemptStatus, TaskStatus
from orchestr8d.core.task_input import AGENT_OPTIONS
from orchestr8d.events import Event as LogEvent

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
ResultType = Literal["summary", "text", "json", "file", "notification"]


class Submitted(Struct):
    """A task that was accepted: it is on disk."""

    task_id: str
    status: TaskStatus
    workflow_id: str | None
    estimated_duration: float | None
    check_status_url: str
    message: str


class SubmittedBatch(Struct):
    tasks: list[Submitted]


class Attempt(Struct):
    """One execution of a task."""

    attempt: int
    attempt_id: str
    status: AttemptStatus
    executor_id: str
    started_at: Time
    ended_at: Time | None
    exit_code: int | None
    signal: str | None
    error: model.Error | None
    usage: Any
    resources: model.Resources | None
    session_id: str | None
    account: str | None


class TaskOptions(Struct):
    """The options of a task as they stand; durations in seconds. Those from `model` on are of agents."""

    timeout: float | None
    deadline: float | None
    stall_timeout: float | None
    retry_backoff: model.Backoff
    on_failure: str
    on_completion: list[str | dict[str, Any]]
    callback_url: str | None
    callback_method: str
    run_at: Time | None
    allow_failed: bool
    check: list[str] | None
    model: str | None
    max_turns: int | None
    max_cost_usd: float | None
    json_schema: dict[str, Any] | None
    allowed_tools: list[str] | None
    disallowed_tools: list[str] | None
    permission_mode: str | None
    allow_denied: bool | None
    account: str | None
    resume_from: str | None
    isolation: str | None
    mcp_config: str | dict[str, Any] | None
    runner_args: list[str] | None


class Task(Struct):
    """All that is known of a task. Its environment and stdin are not shown: secrets may be in them."""

    id: str
    task_id: str
    kind: str
    title: str | None
    status: TaskStatus
    waiting_for: list[model.WaitingFor]
    agent: str | None
    command: list[str] | None
    prompt: str | None
    cwd: str | None
    priority: int
    queue: str
    concurrency_key: str | None
    unique_key: str | None
    tags: list[str]
    metadata: dict[str, Any]
    user_id: str
    workflow_id: str | None
    phase: str | None
    schedule_id: str | None
    executor_id: str | None
    session_id: str | None
    retry_of: str | None
    retry_count: int
    max_retries: int
    next_retry_at: Time | None
    depends_on: list[str]
    created_at: Time
    updated_at: Time
    queued_at: Time | None
    started_at: Time | None
    completed_at: Time | None
    result_type: ResultType | None
    error: model.Error | None
    usage: Any
    options: TaskOptions
    # Not in lists.
    attempts: list[Attempt] | UnsetType = UNSET


class Tasks(Struct):
    tasks: list[Task]
    next_cursor: str | None


class ProgressNow(Struct):
    percent: float | None
    current_step: str | None
    estimated_time_remaining: float | None


class Status(Struct):
    """How a task stands, short."""

    task_id: str
    status: TaskStatus
    waiting_for: list[model.WaitingFor]
    progress: ProgressNow
    attempt: int
    retry_count: int
    next_retry_at: Time | None
    created_at: Time
    started_at: Time | None
    estimated_completion: Time | None


class Result(Struct):
    """What a final task left. `result` is text or, when `result_type` is `json`, the value itself."""

    task_id: str
    status: TaskStatus
    result: Any
    result_type: ResultType | None
    result_url: str | None
    files_created: list[str]
    exit_code: int | None
    signal: str | None
    error: model.Error | None
    usage: Any
    resources: model.Resources | None
    output_bytes: int | None
    completed_at: Time | None
    worktree: model.Worktree | None


class Event(Struct):
    """One row of the event log."""

    id: int
    type: str
    timestamp: Time
    task_id: str | None
    workflow_id: str | None
    user_id: str | None
    data: Any


class Events(Struct):
    events: list[Event]
    next_cursor: str | None


class Queue(Struct):
    """A queue: its settings, how many tasks wait in it and how many run."""

    name: str
    limit: int | None
    rate: str | None
    paused: bool
    depth: int
    running: int


class Queues(Struct):
    queues: list[Queue]
    next_cursor: str | None


class Executor(Struct):
    """One daemon's pool of task runners, or one that was."""

    id: str
    host: str
    pid: int
    version: str
    started_at: Time
    heartbeat_at: Time
    labels: list[str]
    slots: int
    running: int
    state: Literal["running", "draining", "stopped", "lost"]


class Executors(Struct):
    executors: list[Executor]
    next_cursor: str | None


class Token(Struct):
    """A token, without its text."""

    token_id: str
    name: str
    scope: model.Scope
    user_id: str | None
    runners: list[str] | None
    agents: list[str] | None
    created_at: Time
    expires_at: Time | None


class NewToken(Struct):
    """A token that was just made: the only time its text is shown."""

    token: str
    token_id: str
    name: str
    scope: model.Scope
    user_id: str | None
    runners: list[str] | None
    agents: list[str] | None
    created_at: Time
    expires_at: Time | None


class Tokens(Struct):
    tokens: list[Token]
    next_cursor: str | None


def _when(ms: int) -> str:
    text = iso(ms)
    assert text is not None
    return text


def _raw(text: str | None) -> Any:
    return None if text is None else msgspec.Raw(text.encode())


def task_url(task_id: str) -> str:
    return f"/api/v1/tasks/{task_id}"


def submitted(row: model.Task) -> Submitted:
    if row.status == "queued":
        message = "queued; it runs as soon as its turn comes"
    elif row.status == "pending":
        message = "accepted; it waits for its time or for other tasks"
    else:
        message = f"it is {row.status}"
    return Submitted(row.id, row.status, row.workflow_id, None, f"{task_url(row.id)}/status", message)


def next_retry_at(row: model.Task) -> str | None:
    return iso(row.wake_at) if row.status == "retrying" else None


def task(view: model.TaskView, *, with_attempts: bool = True) -> Task:
    row = view.task
    spec = row.read_spec()
    return Task(
        row.id, row.id, row.kind, spec.title, row.status, view.waiting_for, row.agent, spec.command, spec.prompt,
        spec.cwd, row.priority, row.queue, row.concurrency_key, row.unique_key, spec.tags, spec.metadata, row.user_id,
        row.workflow_id, row.phase, row.schedule_id, row.executor_id, row.session_id, row.retry_of, row.retry_count,
        spec.max_retries, next_retry_at(row), spec.depends_on, _when(row.created_at), _when(row.updated_at),
        iso(row.queued_at), iso(row.started_at), iso(row.completed_at), row.result_type,  # type: ignore[arg-type]  # CHECKed
        row.read_error(), _raw(row.usage), _options(row, spec),
        [attempt(a) for a in view.attempts] if with_attempts else UNSET,
    )  # fmt: skip


def _options(row: model.Task, spec: model.Spec) -> TaskOptions:
    return TaskOptions(
        spec.timeout, spec.deadline, spec.stall_timeout, spec.backoff, spec.on_failure,
        endings.shown(spec.on_completion), spec.callback_url, spec.callback_method,
        iso(row.wake_at) if row.status == "pending" else None, spec.allow_failed, spec.check,
        *(None if spec.agent is None else getattr(spec.agent, name) for name in AGENT_OPTIONS),
    )  # fmt: skip


def attempt(row: model.Attempt) -> Attempt:
    return Attempt(
        row.number, row.id, row.status, row.executor_id, _when(row.started_at), iso(row.ended_at), row.exit_code,
        row.signal, _error(row.error), _raw(row.usage), _resources(row.resources), row.session_id, row.account,
    )  # fmt: skip


def _error(text: str | None) -> model.Error | None:
    return None if text is None else msgspec.json.decode(text, type=model.Error)


def _resources(text: str | None) -> model.Resources | None:
    return None if text is None else msgspec.json.decode(text, type=model.Resources)


def status(view: model.TaskView) -> Status:
    row = view.task
    progress = row.read_progress()
    left = progress.estimated_time_remaining if row.status in BUSY else None
    return Status(
        row.id, row.status, view.waiting_for, ProgressNow(progress.percent, progress.current_step, left), row.attempt,
        row.retry_count, next_retry_at(row), _when(row.created_at), iso(row.started_at),
        None if left is None else iso(row.updated_at + round(left * 1000)),
    )  # fmt: skip


def is_final(row: model.Task) -> bool:
    return row.status in FINAL


def result(found: model.Result) -> Result:
    row, last = found.task, found.attempt
    value: Any = None
    if found.body is not None:
        value = msgspec.Raw(found.body) if row.result_type == "json" else found.body.decode("utf-8", "replace")
    return Result(
        row.id, row.status, value, row.result_type,  # type: ignore[arg-type]  # CHECKed by the store
        f"{task_url(row.id)}/logs?stream=stdout" if row.result_type == "file" else None,
        files_created(last), None if last is None else last.exit_code, None if last is None else last.signal,
        row.read_error(), _raw(row.usage), None if last is None else _resources(last.resources),
        None if last is None else last.output_bytes, iso(row.completed_at),
        worktree(last),
    )  # fmt: skip


def files_created(last: model.Attempt | None) -> list[str]:
    if last is None or last.files_created is None:
        return []
    return msgspec.json.decode(last.files_created, type=list[str])


def worktree(last: model.Attempt | None) -> model.Worktree | None:
    return None if last is None or last.worktree is None else msgspec.json.decode(last.worktree, type=model.Worktree)


def event(row: LogEvent) -> Event:
    return Event(row.id, row.type, _when(row.at), row.task_id, row.workflow_id, row.user_id, row.data)


def queue(row: model.Queue) -> Queue:
    return Queue(row.name, row.limit, row.rate, row.paused, row.depth, row.running)


def executor(row: model.Executor) -> Executor:
    return Executor(
        row.id, row.host, row.pid, row.version, _when(row.started_at), _when(row.heartbeat_at), row.labels, row.slots,
        row.running, row.state,
    )  # fmt: skip


def token(row: model.Token) -> Token:
    return Token(
        row.id, row.name, row.scope, row.user_id, row.runners, row.agents, _when(row.created_at), iso(row.expires_at)
    )
