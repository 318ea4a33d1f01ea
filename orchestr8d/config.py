"""The configuration: typed, from TOML and environment, validated as a whole; all faults are named at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct, field

from orchestr8d import config_sections as sections
from orchestr8d import config_values as v
from orchestr8d.config_file import ConfigError as ConfigError
from orchestr8d.config_file import ConfigFault, Key, Setting, fault, flatten, read_environ, read_file
from orchestr8d.core import hooks as hook_rules
from orchestr8d.core import notices, patterns, redact, schedule_input, task_input
from orchestr8d.core.errors import did_you_mean


class Config(Struct, frozen=True):
    """All settings, normalised: durations are seconds, sizes are bytes."""

    server: sections.Server = sections.Server()
    auth: sections.Auth = sections.Auth()
    store: sections.StoreConfig = sections.StoreConfig()
    retention: sections.Retention = sections.Retention()
    executor: sections.ExecutorConfig = field(default_factory=sections.ExecutorConfig)
    queues: dict[str, sections.QueueConfig] = {}
    limits: sections.LimitsConfig = sections.LimitsConfig()
    runners: sections.Runners = field(default_factory=sections.Runners)
    agents: sections.AgentsConfig = sections.AgentsConfig()
    workflows: sections.WorkflowsConfig = sections.WorkflowsConfig()
    claude: sections.AccountsConfig = sections.AccountsConfig()
    budgets: dict[str, sections.BudgetConfig] = {}
    hooks: Annotated[list[hook_rules.Rule], v.Each(hook_rules.rule)] = []
    cron: sections.CronConfig = sections.CronConfig()
    schedules: Annotated[list[schedule_input.ScheduleIn], v.Each(schedule_input.read)] = []
    users: dict[str, sections.UserConfig] = {}
    webhooks: sections.WebhooksConfig = field(default_factory=sections.WebhooksConfig)
    log: sections.LogConfig = sections.LogConfig()


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
    return _loaded(written + read_environ(environ, written), _misspelt(environ))


def server(path: Path | None, environ: Mapping[str, str]) -> sections.Server:
    """Where the daemon listens. What else is set is not looked at: checking all takes longer than a hook may."""
    written = read_file(path) if path is not None else []
    settings = written + read_environ(environ, written)
    return _loaded([setting for setting in settings if setting.key[0] == "server"], []).server


def _loaded(settings: Sequence[Setting], faults: list[ConfigFault]) -> Config:
    values: dict[Key, Any] = {}
    sources: dict[Key, Setting] = {}
    for setting in settings:
        taken = _take(setting)
        if isinstance(taken, list):
            faults += taken
        else:
            values[setting.key] = taken[0]
            sources[setting.key] = setting
    config: Config = _build(Config, (), values)
    faults += _cross_check(config, sources) + _check_budgets(settings)
    if faults:
        raise ConfigError(sorted(faults, key=_place))
    return config


def _place(fault: ConfigFault) -> tuple[bool, int]:
    line = fault.where.rpartition(":")[2]
    return not line.isdigit(), int(line) if line.isdigit() else 0


def _take(setting: Setting) -> tuple[Any] | list[ConfigFault]:
    """The setting's value, normalised, in a tuple; or what is wrong with it."""
    name, is_one, _ = setting.key[0].partition("[")
    each = _each(_fields(Config).get(name))
    if each is None:
        taken = _take_value(setting)
        return taken if isinstance(taken, tuple) else [taken]
    if not is_one:
        return (None,) if setting.value == [] else [fault(setting, f"each of them begins with a line [[{name}]]")]
    made, wrong = each.parse(setting.value)
    return [ConfigFault(setting.where, w.message, f"{setting.name}.{w.path}") for w in wrong] if wrong else (made,)


def _each(node: Any) -> v.Each | None:
    """What makes the tables of an array; None for a node that is none."""
    return next((part for part in getattr(node, "__metadata__", ()) if isinstance(part, v.Each)), None)


def _take_value(setting: Setting) -> tuple[Any] | ConfigFault:
    node: Any = Config
    for depth, name in enumerate(setting.key):
        if get_origin(node) is dict:
            wrong = _no_name(setting.key, depth)
            if wrong is not None:
                return fault(setting, wrong)
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


def _no_name(key: Key, depth: int) -> str | None:
    """What is wrong with `key[depth]`, which the file's author has chosen."""
    name = key[depth]
    if key[depth - 1] == "env":
        return None if re.fullmatch(patterns.ENV_NAME, name) else f"{name!r} is no name for a variable"
    try:
        msgspec.convert(name, task_input.Name)
    except msgspec.ValidationError:
        kinds = {"queues": "a queue", "users": "a user", "budgets": "a budget", "claude": "an account"}
        what = kinds.get(key[0], "an alias")
        return f"{name!r} is no name for {what}: letters, digits and _.:@- only"
    return None


def _near(key: Key, depth: int) -> str:
    """A near name for the unknown `key[depth]`: among its siblings, else the same key of another section."""
    above = _general(key[:depth])
    siblings = {k[depth] for k in every_key() if len(k) > depth and k[:depth] == above}
    hint = did_you_mean(key[depth], sorted(siblings))
    if not hint and depth == len(key) - 1:
        hint = next((f" (did you mean {'.'.join(k)!r}?)" for k in every_key() if k[-1] == key[-1]), "")
    return hint


def _general(key: Key) -> Key:
    """The key as `every_key` has it: NAME for what the file's author has chosen."""
    node: Any = Config
    found = []
    for name in key:
        is_chosen = get_origin(node) is dict
        found.append("NAME" if is_chosen else name)
        node = get_args(node)[1] if is_chosen else _fields(node).get(name) if _is_section(node) else None
    return tuple(found)


@cache
def every_key() -> tuple[Key, ...]:
    """Every key that there is, in order; a queue's as ("queues", "NAME", …), an alias's as (…, "aliases", "NAME")."""

    def walk(node: Any, at: Key) -> list[Key]:
        if _each(node) is not None:
            return [(*at, name) for name in _fields(get_args(get_args(node)[0])[0])]
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
            one = get_args(node)[1]
            given[name] = {n: _build(one, (*key, n), values) if _is_section(one) else values[(*key, n)] for n in names}
        elif _each(node) is not None:
            given[name] = [value for k, value in values.items() if k[0].startswith(f"{name}[")]
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
    faults = []
    host, _ = v.address(config.server.listen)
    if config.auth.mode == "none" and not v.is_loopback(host):
        setting = sources[("server", "listen")]
        faults.append(fault(setting, 'with [auth] mode = "none" only a loopback address may be listened on'))
    at = [setting for key, setting in sources.items() if key[0].startswith("schedules[")]
    first: dict[str, str] = {}
    for setting, schedule in zip(at, config.schedules, strict=True):
        where = first.setdefault(schedule.name, setting.name)
        if where != setting.name:
            message = f"there is a schedule {schedule.name!r} already: {where}"
            faults.append(ConfigFault(setting.where, message, f"{setting.name}.name"))
    return faults


def _check_budgets(settings: Sequence[Setting]) -> list[ConfigFault]:
    by_name: dict[str, list[Setting]] = {}
    for setting in settings:
        if setting.key[0] == "budgets" and len(setting.key) > 1:
            by_name.setdefault(setting.key[1], []).append(setting)
    faults = []
    for of in by_name.values():
        amounts = [setting for setting in of if setting.key[2:] in (("usd",), ("tokens",))]
        if len({setting.key for setting in amounts}) != 1:
            faults.append(fault((amounts or of)[-1], "a budget has an amount: one of usd and tokens"))
    return faults


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
    return {".".join(key): value for key, value in flatten(msgspec.to_builtins(config)) if value not in ({}, [])}


def to_tree(config: Config, *, secrets: bool = True) -> dict[str, Any]:
    """The settings in force as dicts and lists; without `secrets` what looks like one is hidden."""
    tree: dict[str, Any] = msgspec.to_builtins(config)
    if secrets:
        return tree
    for user in tree["users"].values():
        user["notify"] = list(notices.named(user["notify"]))
    return {section: redact.value(section, body) for section, body in tree.items()}


def to_toml(config: Config, *, secrets: bool = True) -> str:
    """The settings in force as TOML that `load` reads as the same, if it has the `secrets`; keys without a value stand
    in comments."""
    lines: list[str] = []
    tree = to_tree(config, secrets=secrets)
    each = [
        (name, {k: item for k, item in one.items() if item is not None})
        for name in ("hooks", "schedules")
        for one in tree.pop(name)
    ]
    for section, body in _sections(tree, ()):
        lines += ["", f"[{section}]"]
        for name, value in body.items():
            if value is None and section == "retention":
                value = v.FOREVER
            lines.append(f"{_key(name)} = {_toml(value)}" if value is not None else f"# {name} is not set")
    for section, body in each:
        lines += ["", f"[[{section}]]", *(f"{name} = {_toml(value)}" for name, value in body.items())]
    return "\n".join(lines[1:]) + "\n"


def _sections(tree: dict[str, Any], at: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    flat = {name: value for name, value in tree.items() if not isinstance(value, dict)}
    found = [(".".join(at), flat)] if flat else []
    for name, value in tree.items():
        if isinstance(value, dict):
            found += _sections(value, (*at, _key(name)))
    return found


def _key(name: str) -> str:
    return name if name.replace("-", "").replace("_", "").isalnum() else _toml(name)


def _toml(value: Any) -> str:
    """A value on one line: JSON writes strings, numbers and flags as TOML does."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(name)} = {_toml(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
