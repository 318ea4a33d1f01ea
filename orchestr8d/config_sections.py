"""The sections of the configuration: each key with its default and the values that it takes."""

from __future__ import annotations

import os
from typing import Annotated, Literal, get_args

from msgspec import Struct, field

from orchestr8d import config_values as v
from orchestr8d.core import notices
from orchestr8d.core.model import PermissionMode

DAY = 86400.0
MB = 1 << 20


class Server(Struct, frozen=True):
    listen: v.Listen = "127.0.0.1:8787"
    # None: orchestr8d.sock in the state directory.
    socket: v.FilePath | None = None
    base_url: v.WebUrl | None = None
    max_body: Annotated[int, v.byte_size(1024, 1 << 30)] = 16 * MB
    hosts: Annotated[list[str], v.HOSTS] = []
    origins: Annotated[list[str], v.ORIGINS] = []


class Auth(Struct, frozen=True):
    mode: Annotated[Literal["token", "none"], v.choice("token", "none")] = "token"


class StoreConfig(Struct, frozen=True):
    # None: orchestr8d.db in the state directory.
    url: v.StoreUrl | None = None
    synchronous: Annotated[str, v.choice("full", "extra", "normal")] = "full"
    min_free_disk: Annotated[int, v.byte_size(0)] = 100 * MB


class Retention(Struct, frozen=True):
    """Seconds after which what ended is removed; None keeps it for ever."""

    completed: v.Keep = 90 * DAY
    failed: v.Keep = 90 * DAY
    cancelled: v.Keep = 90 * DAY
    skipped: v.Keep = 90 * DAY
    events: v.Keep = 90 * DAY
    deliveries: v.Keep = 90 * DAY


def _concurrency() -> int:
    return len(os.sched_getaffinity(0)) * 4


class ExecutorConfig(Struct, frozen=True):
    concurrency: Annotated[int, v.whole(1, 10_000)] = field(default_factory=_concurrency)
    labels: Annotated[list[str], v.LABELS] = []
    grace: v.Seconds = 10.0
    children: Annotated[Literal["keep", "stop"], v.choice("keep", "stop")] = "keep"
    head_start: v.Seconds = 900.0


class QueueConfig(Struct, frozen=True):
    """What the file says of a queue; None where it says nothing, and what was set over the API stays."""

    limit: Annotated[int, v.whole(1, 1_000_000)] | None = None
    rate: v.Rate | None = None
    paused: v.Flag | None = None


class LimitsConfig(Struct, frozen=True):
    per_key: v.Positive = 1
    queue_depth: v.Positive = 100_000
    output_bytes: Annotated[int, v.byte_size(1)] = 100 * MB
    max_retries: Annotated[int, v.whole(0, 1_000_000)] = 100
    workflow_tasks: Annotated[int, v.whole(1, 100_000)] = 5000
    fan: Annotated[int, v.whole(1, 100_000)] = 1000
    depth: Annotated[int, v.whole(0, 100)] = 3


class WorkflowsConfig(Struct, frozen=True):
    """Directories with definitions (`*.yaml`) beside the built-in ones."""

    paths: Annotated[list[str], v.PATHS] = []


class CronConfig(Struct, frozen=True):
    """The zone of schedules that name none."""

    timezone: v.Zone = "UTC"


class CommandConfig(Struct, frozen=True):
    allow: Annotated[list[str], v.PROGRAMS] = field(default_factory=lambda: ["*"])
    env_allow: Annotated[list[str], v.VARIABLES] = []


def _agents_at_once() -> int:
    """As many as fit into the machine's memory, at 400 MB each."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(memory // (400 * MB), _concurrency()))


class ClaudeConfig(Struct, frozen=True):
    """`permission_mode` and what follows hold for tasks that do not say it themselves."""

    bin: v.Program = "claude"
    concurrency: Annotated[int, v.whole(1, 10_000)] = field(default_factory=_agents_at_once)
    stall_timeout: v.Seconds = 900.0
    first_byte_timeout: v.Seconds = 300.0
    permission_mode: Annotated[str, v.exactly(*get_args(PermissionMode))] = "acceptEdits"
    allowed_tools: Annotated[list[str], v.TOOLS] = []
    disallowed_tools: Annotated[list[str], v.TOOLS] = []
    mcp_config: v.FilePath | None = None
    env: dict[str, v.Variable] = {}


class Runners(Struct, frozen=True):
    command: CommandConfig = CommandConfig()
    claude: ClaudeConfig = field(default_factory=ClaudeConfig)


class AgentsConfig(Struct, frozen=True):
    """`paths` empty: the project's, the user's and the installed plugins'. `aliases`: a name and what it means."""

    paths: Annotated[list[str], v.PATHS] = []
    aliases: dict[str, v.AgentName] = {}


class AccountConfig(Struct, frozen=True):
    """`env` is added to the environment of agents that run on it."""

    env: dict[str, v.Variable] = {}
    concurrency: Annotated[int, v.whole(1, 10_000)] = 4


class AccountsConfig(Struct, frozen=True):
    """In the order in which they are tried; none: the daemon's own login is the one there is."""

    accounts: dict[str, AccountConfig] = {}


class BudgetConfig(Struct, frozen=True):
    """One of `usd` and `tokens`."""

    usd: v.Amount | None = None
    tokens: v.Amount | None = None
    per: Annotated[
        Literal["task", "tag", "user", "day", "total"], v.choice("task", "tag", "user", "day", "total")
    ] = "total"  # fmt: skip
    on_exceed: Annotated[Literal["wait", "fail"], v.choice("wait", "fail")] = "wait"


class UserConfig(Struct, frozen=True):
    """How a user is told: on which channels, of what, and when not. Who has no section is told in the log."""

    notify: Annotated[list[str], v.CHANNELS] = field(default_factory=lambda: ["log"])
    types: Annotated[list[str], v.NOTICE_TYPES] = field(default_factory=lambda: list(notices.TYPES))
    quiet_hours: v.QuietHours | None = None
    timezone: v.Zone = "UTC"


# As Svix has it.
_LADDER = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 36_000.0)


class WebhooksConfig(Struct, frozen=True):
    """Where may be sent to (core.addresses), and seconds between the attempts: of subscriptions, and of callbacks."""

    allow: Annotated[list[str], v.ADDRESSES] = field(default_factory=lambda: ["public", "loopback"])
    timeout: Annotated[float, v.duration(0.001)] = 15.0
    ladder: Annotated[list[float], v.LADDER] = field(default_factory=lambda: list(_LADDER))
    callback_ladder: Annotated[list[float], v.LADDER] = field(default_factory=lambda: [5.0, 30.0, 120.0])


class LogConfig(Struct, frozen=True):
    level: Annotated[str, v.choice("debug", "info", "warning", "error")] = "info"
    format: Annotated[str, v.choice("auto", "json", "pretty")] = "auto"
