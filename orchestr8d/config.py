"""The configuration: typed, from TOML and environment, validated as a whole; all faults are named at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct, field

from orchestr8d import config_values as v
from orchestr8d.config_file import ConfigError as ConfigError
from orchestr8d.config_file import ConfigFault, Key, Setting, fault, flatten, read_environ, read_file
from orchestr8d.core import submit
from orchestr8d.core.errors import did_you_mean

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


class CommandConfig(Struct, frozen=True):
    allow: Annotated[list[str], v.PROGRAMS] = field(default_factory=lambda: ["*"])
    env_allow: Annotated[list[str], v.VARIABLES] = []


class Runners(Struct, frozen=True):
    command: CommandConfig = CommandConfig()


class LogConfig(Struct, frozen=True):
    level: Annotated[str, v.choice("debug", "info", "warning", "error")] = "info"
    format: Annotated[str, v.choice("auto", "json", "pretty")] = "auto"


class Config(Struct, frozen=True):
    """All settings, normalised: durations are seconds, sizes are bytes."""

    server: Server = Server()
    auth: Auth = Auth()
    store: StoreConfig = StoreConfig()
    retention: Retention = Retention()
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    queues: dict[str, QueueConfig] = {}
    limits: LimitsConfig = LimitsConfig()
    runners: Runners = Runners()
    log: LogConfig = LogConfig()


# What is fixed when the daemon starts. Everything else follows a reload.
FIXED = frozenset({
    "server.listen", "server.socket", "auth.mode", "store.url", "store.synchronous", "executor.labels",
    "log.format",
})  # fmt: skip


def find(explicit: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to use: `explicit`, $ORCHESTR8D_CONFIG, the user's, the machine's; None when there is none."""
    if explicit is not None:
        return explicit
    if environ.get("ORCHESTR8D_CONFIG"):
        return Path(environ["ORCHESTR8D_CONFIG"])
    user = _xdg(environ, "XDG_CONFIG_HOME", ".config") / "orchestr8d" / "config.toml"
    return next((path for path in (user, Path("/etc/orchestr8d/config.toml")) if path.exists()), None)


def state_dir(environ: Mapping[str, str]) -> Path:
    """Where the daemon keeps what must survive it. The directory may not exist yet."""
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].split(":")[0])
    if environ.get("ORCHESTR8D_STATE"):
        return Path(environ["ORCHESTR8D_STATE"]).absolute()
    return _xdg(environ, "XDG_STATE_HOME", ".local/state") / "orchestr8d"


def _xdg(environ: Mapping[str, str], name: str, default: str) -> Path:
    # The XDG specification: a relative path there is to be ignored.
    if environ.get(name, "").startswith("/"):
        return Path(environ[name])
    return Path(environ.get("HOME") or Path.home()) / default


def store_path(config: Config, state: Path) -> Path:
    """The database's file. In `sqlite:///var/lib/x.db`, and with four slashes, the path is /var/lib/x.db."""
    if config.store.url is None:
        return state / "orchestr8d.db"
    return Path("/" + config.store.url.removeprefix("sqlite:///").lstrip("/"))


def load(path: Path | None, environ: Mapping[str, str]) -> Config:
    """The environment's settings over the file's over the defaults. ConfigError names every fault."""
    written = read_file(path) if path is not None else []
    settings = written + read_environ(environ, written)
    faults = _misspelt(environ)
    values: dict[Key, Any] = {}
    sources: dict[Key, Setting] = {}
    for setting in settings:
        taken = _take(setting)
        if isinstance(taken, ConfigFault):
            faults.append(taken)
        else:
            values[setting.key] = taken[0]
            sources[setting.key] = setting
    config: Config = _build(Config, (), values)
    faults += _cross_check(config, sources)
    if faults:
        raise ConfigError(sorted(faults, key=_place))
    return config


def _place(fault: ConfigFault) -> tuple[bool, int]:
    line = fault.where.rpartition(":")[2]
    return not line.isdigit(), int(line) if line.isdigit() else 0


def _take(setting: Setting) -> tuple[Any] | ConfigFault:
    """The setting's value, normalised, in a tuple; or what is wrong with it."""
    node: Any = Config
    for depth, name in enumerate(setting.key):
        if get_origin(node) is dict:
            try:
                msgspec.convert(name, submit.Name)
            except msgspec.ValidationError:
                return fault(setting, f"{name!r} is no name for a queue: letters, digits and _.:@- only")
            node = get_args(node)[1]
        elif not _is_section(node):
            return fault(setting, f"{'.'.join(setting.key[:depth])} takes a value, not a table")
        elif name not in _fields(node):
            what = "key" if depth == len(setting.key) - 1 else f"section {name!r}"
            return fault(setting, f"unknown {what}{_near(setting.key, depth)}")
        else:
            node = _fields(node)[name]
    if _is_section(node) or get_origin(node) is dict:
        # An empty table says nothing, but names a queue.
        return (None,) if setting.value == {} else fault(setting, "is a table of settings, not a value")
    try:
        return (_taker(node).parse(setting.value),)
    except ValueError as e:
        return fault(setting, str(e))


def _near(key: Key, depth: int) -> str:
    """A near name for the unknown `key[depth]`: among its siblings, else the same key of another section."""
    above = ("queues", "NAME")[:depth] if key[0] == "queues" else key[:depth]
    siblings = {k[depth] for k in every_key() if len(k) > depth and k[:depth] == above}
    hint = did_you_mean(key[depth], sorted(siblings))
    if not hint and depth == len(key) - 1:
        hint = next((f" (did you mean {'.'.join(k)!r}?)" for k in every_key() if k[-1] == key[-1]), "")
    return hint


@cache
def every_key() -> tuple[Key, ...]:
    """Every key that there is, in order; a queue's as ("queues", "NAME", …)."""

    def walk(node: Any, at: Key) -> list[Key]:
        if get_origin(node) is dict:
            return walk(get_args(node)[1], (*at, "NAME"))
        if not _is_section(node):
            return [at]
        return [key for name, inner in _fields(node).items() for key in walk(inner, (*at, name))]

    return tuple(walk(Config, ()))


def _is_section(node: Any) -> bool:
    return isinstance(node, type) and issubclass(node, Struct)


@cache
def _fields(section: type[Struct]) -> dict[str, Any]:
    return get_type_hints(section, include_extras=True)


def _taker(node: Any) -> v.Take:
    """The parser in `Annotated[T, Take(…)]`, also within `… | None`."""
    for part in (*getattr(node, "__metadata__", ()), *get_args(node)):
        if isinstance(part, v.Take):
            return part
        if get_origin(part) is Annotated:
            return _taker(part)
    raise TypeError(f"no parser in {node}")


def _build(section: Any, at: Key, values: Mapping[Key, Any]) -> Any:
    """The section's struct, from the values whose keys begin with `at`; the rest are its defaults."""
    given: dict[str, Any] = {}
    for name, node in _fields(section).items():
        key = (*at, name)
        if get_origin(node) is dict:
            names = {k[len(key)]: None for k in values if k[: len(key)] == key and len(k) > len(key)}
            given[name] = {n: _build(get_args(node)[1], (*key, n), values) for n in names}
        elif _is_section(node):
            given[name] = _build(node, key, values)
        elif key in values:
            given[name] = values[key]
    return section(**given)


def _misspelt(environ: Mapping[str, str]) -> list[ConfigFault]:
    """Variables that a doubled underscore would make a setting: else they would be ignored without a word."""
    single = {"ORCHESTR8D_" + "_".join(k).upper(): "ORCHESTR8D_" + "__".join(k).upper() for k in every_key()}
    return [
        ConfigFault("environment", f"needs double underscores (did you mean {single[name]!r}?)", name)
        for name in sorted(environ)
        if name in single
    ]


def _cross_check(config: Config, sources: Mapping[Key, Setting]) -> list[ConfigFault]:
    """What no key alone can tell."""
    host, _ = v.address(config.server.listen)
    if config.auth.mode == "none" and not v.is_loopback(host):
        setting = sources[("server", "listen")]
        return [fault(setting, 'with [auth] mode = "none" only a loopback address may be listened on')]
    return []


def changed(old: Config, new: Config) -> tuple[list[str], list[str]]:
    """Keys whose values differ: those that a reload applies, and those that need a restart."""
    before, after = _flat(old), _flat(new)
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return [n for n in names if n not in FIXED], [n for n in names if n in FIXED]


def reloaded(old: Config, new: Config) -> Config:
    """What holds after a reload: `new`, but for the keys that need a restart."""
    for name in FIXED:
        section, key = name.split(".")
        kept = msgspec.structs.replace(getattr(new, section), **{key: getattr(getattr(old, section), key)})
        new = msgspec.structs.replace(new, **{section: kept})
    return new


def _flat(config: Config) -> dict[str, Any]:
    return {".".join(key): value for key, value in flatten(msgspec.to_builtins(config)) if value != {}}


def to_toml(config: Config) -> str:
    """The settings in force as TOML that `load` reads as the same; keys without a value stand in comments."""
    lines: list[str] = []
    for section, body in _sections(msgspec.to_builtins(config), ()):
        lines += ["", f"[{section}]"]
        for name, value in body.items():
            if value is None and section == "retention":
                value = v.FOREVER
            lines.append(f"{name} = {_toml(value)}" if value is not None else f"# {name} is not set")
    return "\n".join(lines[1:]) + "\n"


def _sections(tree: dict[str, Any], at: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    flat = {name: value for name, value in tree.items() if not isinstance(value, dict)}
    found = [(".".join(at), flat)] if flat else []
    for name, value in tree.items():
        if isinstance(value, dict):
            quoted = name if name.replace("-", "").replace("_", "").isalnum() else _toml(name)
            found += _sections(value, (*at, quoted))
    return found


def _toml(value: Any) -> str:
    """Strings, numbers, flags and lists of strings: JSON writes them as TOML does."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
