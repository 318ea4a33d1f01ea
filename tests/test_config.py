"""The configuration: what is taken, from where, and what is said of all that is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestr8d import assembly, config, config_sections
from orchestr8d.config import ConfigError, load
from orchestr8d.config_file import locate


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def faults(file: Path | None, text: str = "", environ: dict[str, str] | None = None) -> list[str]:
    """The lines of the error, each without the file's directory."""
    if file is not None:
        file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, environ or {})
    return [line.replace(f"{file}", "config.toml") for line in str(caught.value).splitlines()]


def test_defaults_need_no_file() -> None:
    c = load(None, {})
    assert (c.server.listen, c.server.socket, c.server.max_body) == ("127.0.0.1:8787", None, 16 << 20)
    assert (c.store.synchronous, c.store.min_free_disk) == ("full", 100 << 20)
    assert c.retention.completed == c.retention.events == 90 * 86400
    assert c.executor.concurrency == len(os.sched_getaffinity(0)) * 4
    assert (c.executor.grace, c.executor.children, c.executor.head_start) == (10, "keep", 900)
    assert (c.limits.per_key, c.limits.queue_depth, c.limits.max_retries) == (1, 100_000, 100)
    assert c.runners.command.allow == ["*"]


def test_values_are_normalised(file: Path) -> None:
    file.write_text("""
server.max_body = "2 MB"
store.synchronous = "NORMAL"
retention.completed = "forever"
retention.failed = 3600
executor.grace = "2m"
queues.builds = { limit = 2, rate = "30/m" }
[queues."night.shift"]
paused = true
[queues.plain]
""")
    c = load(file, {})
    assert c.server.max_body == 2 << 20
    assert c.store.synchronous == "normal"
    assert (c.retention.completed, c.retention.failed) == (None, 3600.0)
    assert c.executor.grace == 120.0
    assert c.queues == {
        "builds": config_sections.QueueConfig(limit=2, rate="30/m"),
        "night.shift": config_sections.QueueConfig(paused=True),
        "plain": config_sections.QueueConfig(),
    }


def test_environment_wins_over_the_file(file: Path) -> None:
    file.write_text('[log]\nlevel = "error"\n[queues.Builds]\nlimit = 1\n')
    c = load(file, {
        "ORCHESTR8D_LOG__LEVEL": "debug",
        "ORCHESTR8D_EXECUTOR__CONCURRENCY": "3",
        "ORCHESTR8D_EXECUTOR__GRACE": "5s",
        "ORCHESTR8D_RUNNERS__COMMAND__ALLOW": '["make", "git"]',
        "ORCHESTR8D_QUEUES__BUILDS__RATE": "30/m",
        "ORCHESTR8D_QUEUES__OTHER__PAUSED": "true",
        "ORCHESTR8D_STATE": "/somewhere",
        "PATH": "/bin",
    })  # fmt: skip
    assert c.log.level == "debug"
    assert (c.executor.concurrency, c.executor.grace) == (3, 5.0)
    assert c.runners.command.allow == ["make", "git"]
    assert c.queues["Builds"] == config_sections.QueueConfig(limit=1, rate="30/m")
    assert c.queues["other"].paused is True


def test_all_faults_at_once_with_place_key_value_and_near_name(file: Path) -> None:
    text = """
[server]
listn = "x"
max_body = "lots"
origins = [
  "https://a.example",
  "nope",
]
[executor]
concurrency = true
[queues."b c"]
limit = 1
[queues]
x = 5
[webhoks]
allow = ["public"]
[log.level]
x = 1
"""
    environ = {"ORCHESTR8D_LIMITS__PERKEY": "3", "ORCHESTR8D_LOG_LEVEL": "debug"}
    assert faults(file, text, environ) == [
        "config.toml:3: server.listn = \"x\": unknown key (did you mean 'listen'?)",
        'config.toml:4: server.max_body = "lots": expected bytes as a number, or a size like "16 MB"',
        'config.toml:5: server.origins = ["https://a.example", "nope"]: '
        "'nope' does not fit: expected a list like [\"https://tasks.example.com\"]",
        "config.toml:10: executor.concurrency = true: expected a whole number from 1 to 10,000",
        "config.toml:12: queues.b c.limit = 1: 'b c' is no name for a queue: letters, digits and _.:@- only",
        "config.toml:14: queues.x = 5: is a table of settings, not a value",
        "config.toml:16: webhoks.allow = [\"public\"]: unknown section 'webhoks' (did you mean 'webhooks'?)",
        "config.toml:18: log.level.x = 1: log.level takes a value, not a table",
        "environment: ORCHESTR8D_LOG_LEVEL: needs double underscores (did you mean 'ORCHESTR8D_LOG__LEVEL'?)",
        "environment: ORCHESTR8D_LIMITS__PERKEY = 3: unknown key (did you mean 'per_key'?)",
    ]


def test_a_key_in_the_wrong_section_is_pointed_at_the_right_one(file: Path) -> None:
    assert faults(file, "[server]\nconcurrency = 3\n") == [
        "config.toml:2: server.concurrency = 3: unknown key (did you mean 'executor.concurrency'?)"
    ]


@pytest.mark.parametrize(("line", "message"), [
    ('server.listen = "8787"', "expected host and port"),
    ('server.listen = "127.0.0.1"', "expected host and port"),
    ('server.listen = "127.0.0.1:99999"', "expected host and port"),
    ('server.listen = "[::g]:1"', "expected host and port"),
    ('server.socket = "run/x.sock"', "an absolute path"),
    ('server.base_url = "ftp://x"', "expected a URL"),
    ('server.base_url = "https://me:pw@x"', "expected a URL"),
    ("server.max_body = -1", "a size"),
    ("server.max_body = 1", "a size from 1,024"),
    ('server.hosts = "a"', "a list of strings"),
    ('server.hosts = ["http://a"]', "does not fit"),
    ('auth.mode = "off"', "one of token, none"),
    ('store.url = "postgresql://h/db"', "PostgreSQL is not available in this version"),
    ('store.url = "/var/lib/x.db"', "sqlite:///"),
    ('store.synchronous = "off"', "one of full, extra, normal"),
    ("retention.events = 0", 'at least 1 seconds, or "forever"'),
    ("retention.events = false", "expected seconds"),
    ('executor.grace = "soon"', "expected seconds"),
    ("executor.grace = nan", "a duration between 0 and"),
    ("executor.concurrency = 0", "from 1"),
    ('executor.labels = ["a b"]', "does not fit"),
    ('queues.a.rate = "many"', "starts per time"),
    ("queues.a.rate = 3", "starts per time"),
    ("queues.a.paused = 1", "true or false"),
    ("limits.per_key = 1.5", "a whole number"),
    ('runners.command.env_allow = ["A-B"]', "does not fit"),
    ("claude.accounts.a.concurrency = 0", "from 1"),
    ("claude.accounts.a.env.X = true", "a string"),
    ("budgets.a.usd = 0", "greater than 0"),
    ("budgets.a.tokens = true", "greater than 0"),
    ('log.level = "trace"', "one of debug, info, warning, error"),
    ("log = 3", "is a table of settings"),
])  # fmt: skip
def test_wrong_values(file: Path, line: str, message: str) -> None:
    (said,) = faults(file, line + "\n")
    assert said.startswith(f"config.toml:1: {line.split(' = ')[0]} = ")
    assert message in said


def test_accounts_and_budgets(file: Path) -> None:
    file.write_text("""
[claude.accounts.work]
[claude.accounts.spare]
concurrency = 1
env = { CLAUDE_CONFIG_DIR = "/x", A_b = 3 }
[budgets.daily]
usd = 2.5
per = "day"
[budgets."per.tag"]
tokens = 5_000_000
per = "tag"
on_exceed = "fail"
""")
    c = load(file, {})
    assert list(c.claude.accounts.items()) == [
        ("work", config_sections.AccountConfig()),
        ("spare", config_sections.AccountConfig({"CLAUDE_CONFIG_DIR": "/x", "A_b": "3"}, 1)),
    ]
    assert c.budgets == {
        "daily": config_sections.BudgetConfig(2.5, per="day"),
        "per.tag": config_sections.BudgetConfig(None, 5e6, "tag", "fail"),
    }
    file.write_text(config.to_toml(c))
    assert load(file, {}) == c


def test_faults_of_accounts_and_budgets(file: Path) -> None:
    text = """
[claude.accounts."a b"]
concurrency = 2
[claude.accounts.a]
concurency = 2
[budgets.none]
[budgets.half]
per = "day"
[budgets.both]
usd = 1
tokens = 1
[budgets.x]
usd = 1
per = "week"
"""
    assert faults(file, text) == [
        "config.toml:3: claude.accounts.a b.concurrency = 2: 'a b' is no name for an account: "
        "letters, digits and _.:@- only",
        "config.toml:5: claude.accounts.a.concurency = 2: unknown key (did you mean 'concurrency'?)",
        "config.toml:6: budgets.none = {}: a budget has an amount: one of usd and tokens",
        'config.toml:8: budgets.half.per = "day": a budget has an amount: one of usd and tokens',
        "config.toml:11: budgets.both.tokens = 1: a budget has an amount: one of usd and tokens",
        'config.toml:14: budgets.x.per = "week": expected one of task, tag, user, day, total',
    ]


@pytest.mark.parametrize("listen", ["0.0.0.0:8787", "[::]:8787", "192.168.1.2:80", "example.com:80"])
def test_no_auth_beyond_loopback(file: Path, listen: str) -> None:
    text = f'[server]\nlisten = "{listen}"\n[auth]\nmode = "none"\n'
    (said,) = faults(file, text)
    assert said.startswith("config.toml:2: server.listen") and "loopback" in said
    assert load(None, {"ORCHESTR8D_SERVER__LISTEN": listen}).server.listen == listen


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.9.9.9:1", "[::1]:8787", "localhost:8787"])
def test_no_auth_on_loopback(listen: str) -> None:
    assert load(None, {"ORCHESTR8D_SERVER__LISTEN": listen, "ORCHESTR8D_AUTH__MODE": "none"}).auth.mode == "none"


@pytest.mark.parametrize(("text", "place"), [
    ("a = \n", "config.toml:1: not valid TOML: invalid value"),
    ("\n[x\n", "config.toml:2: not valid TOML: expected ']'"),
    ("[log]\nlevel = 'info'\nlevel = 'info'\n", "config.toml:3: not valid TOML: cannot overwrite a value"),
])  # fmt: skip
def test_syntax_errors_have_a_line(file: Path, text: str, place: str) -> None:
    (said,) = faults(file, text)
    assert said.startswith(place)


def test_unreadable_files(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml: cannot be read: No such file"):
        load(tmp_path / "nothing.toml", {})
    file.write_bytes(b"# fine\n[log]\nlevel = '\xff'\n")
    with pytest.raises(ConfigError, match=":3: not UTF-8 text"):
        load(file, {})


def test_secrets_are_not_shown(file: Path) -> None:
    (said,) = faults(file, '[store]\nurl = "postgresql://me:hunter22@db/x"\n')
    assert "hunter22" not in said


def test_find(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    user = tmp_path / ".config" / "orchestr8d" / "config.toml"
    assert config.find(None, home) in (None, Path("/etc/orchestr8d/config.toml"))
    user.parent.mkdir(parents=True)
    user.touch()
    assert config.find(None, home) == user
    assert config.find(None, {"HOME": "/nowhere", "XDG_CONFIG_HOME": str(tmp_path / ".config")}) == user
    assert config.find(None, home | {"XDG_CONFIG_HOME": "relative"}) == user
    assert config.find(None, home | {"ORCHESTR8D_CONFIG": "/x.toml"}) == Path("/x.toml")
    assert config.find(Path("y.toml"), home | {"ORCHESTR8D_CONFIG": "/x.toml"}) == Path("y.toml")


def test_state_dir() -> None:
    environ = {"HOME": "/home/me"}
    assert config.state_dir(environ) == Path("/home/me/.local/state/orchestr8d")
    environ["XDG_STATE_HOME"] = "/s"
    assert config.state_dir(environ) == Path("/s/orchestr8d")
    environ["ORCHESTR8D_STATE"] = "/own"
    assert config.state_dir(environ) == Path("/own")
    environ["STATE_DIRECTORY"] = "/var/lib/a:/var/lib/b"
    assert config.state_dir(environ) == Path("/var/lib/a")


def test_store_path(tmp_path: Path) -> None:
    assert config.store_path(load(None, {}), tmp_path) == tmp_path / "orchestr8d.db"
    for url in ("sqlite:///var/lib/o.db", "sqlite:////var/lib/o.db"):
        c = load(None, {"ORCHESTR8D_STORE__URL": url})
        assert config.store_path(c, tmp_path) == Path("/var/lib/o.db")


def test_reload(file: Path) -> None:
    old = load(None, {})
    file.write_text("""
log.level = "debug"
log.format = "json"
server.listen = "127.0.0.1:1"
server.hosts = ["a"]
store.min_free_disk = 0
[queues.q]
limit = 1
""")
    new = load(file, {})
    applied, restart = config.changed(old, new)
    assert applied == ["log.level", "queues.q.limit", "server.hosts", "store.min_free_disk"]
    assert restart == ["log.format", "server.listen"]
    now = config.reloaded(old, new)
    assert (now.server.listen, now.server.hosts, now.log.format) == ("127.0.0.1:8787", ["a"], "auto")
    assert config.changed(now, now) == ([], [])


def test_what_is_fixed_exists() -> None:
    assert {".".join(key) for key in config.every_key()} >= config.FIXED


def test_to_toml_reads_back_as_the_same(file: Path) -> None:
    file.write_text("""
[retention]
events = "forever"
[queues."a.b"]
limit = 3
[server]
hosts = ["x", "y"]
""")
    c = load(file, {})
    file.write_text(config.to_toml(c))
    assert load(file, {}) == c


def test_what_is_shown_has_no_secrets(file: Path) -> None:
    file.write_text("""
[runners.claude.env]
ANTHROPIC_API_KEY = "hunter2"
ANTHROPIC_BASE_URL = "http://me:hunter2@localhost/"
[claude.accounts.work]
env = { CLAUDE_CODE_OAUTH_TOKEN = "hunter2" }
[[hooks]]
event = "Stop"
[hooks.task]
command = ["true"]
env = { API_TOKEN = "hunter2" }
""")
    c = load(file, {})
    assert config.to_toml(c).count("hunter2") == 4
    for shown in (config.to_toml(c, secrets=False), str(config.to_tree(c, secrets=False))):
        assert "hunter2" not in shown
        assert "localhost" in shown


KEYS = st.sampled_from(["a", "b", "'c d'", '"e.f"', "g-h"])
VALUES = st.sampled_from(["1", "[\n  1,\n\n  2, # two\n]", '"""\n[no.header]\nx = 1\n"""', "{ x = 1, y = 2 }", "'#'"])


@given(st.lists(st.tuples(KEYS, st.lists(st.tuples(KEYS, VALUES), max_size=4, unique_by=lambda kv: kv[0])),
                max_size=4, unique_by=lambda table: table[0]))  # fmt: skip
def test_locate_finds_the_line_where_each_key_begins(tables: list[tuple[str, list[tuple[str, str]]]]) -> None:
    text, expected = "# head\n\n", {}
    for table, body in tables:
        name = table.strip("'\"")
        expected[(name,)] = text.count("\n") + 1
        text += f"[{table}] # a table\n"
        for key, value in body:
            path = (name, key.strip("'\""))
            at = text.count("\n") + 1
            expected.update({(*path, "x"): at, (*path, "y"): at} if "{" in value else {path: at})
            text += f"{key} = {value}\n\n"
    assert locate(text) == expected


def test_the_locator_knows_arrays_of_tables_and_windows_line_ends() -> None:
    assert locate("[[a.b]]\r\nx = 1\r\n[[a.b]]\r\nx = 2\r\n") == {
        ("a", "b[0]"): 1, ("a", "b[0]", "x"): 2, ("a", "b[1]"): 3, ("a", "b[1]", "x"): 4,
    }  # fmt: skip


def test_aliases_of_agents(file: Path) -> None:
    file.write_text('agents.paths = ["~/a", "team"]\n[agents.aliases]\nreviewer = "code-reviewer"\n"a:b" = "./x.md"\n')
    c = load(file, {"ORCHESTR8D_AGENTS__ALIASES__FIXER": "debugger"})
    aliases = {"reviewer": "code-reviewer", "a:b": "./x.md", "fixer": "debugger"}
    assert c.agents == config_sections.AgentsConfig(["~/a", "team"], aliases)
    file.write_text(config.to_toml(c))
    assert load(file, {}) == c
    assert config.changed(config.Config(), c) == (
        ["agents.aliases.a:b", "agents.aliases.fixer", "agents.aliases.reviewer", "agents.paths"], []
    )  # fmt: skip
    name = 'expected the name of an agent, like "code-reviewer", or the path of its file'
    text = '[agents]\naliases."b c" = "x"\naliases.x = 1\naliases.y = ""\naliases.z = {a = 1}\npaths = "a"'
    assert faults(file, text) == [
        "config.toml:2: agents.aliases.b c = \"x\": 'b c' is no name for an alias: letters, digits and _.:@- only",
        f"config.toml:3: agents.aliases.x = 1: {name}",
        f'config.toml:4: agents.aliases.y = "": {name}',
        "config.toml:5: agents.aliases.z.a = 1: agents.aliases.z takes a value, not a table",
        'config.toml:6: agents.paths = "a": '
        'expected a list of strings, like ["~/agents", ".claude/agents", "/srv/agents"]',
    ]


def test_rules_for_hooks(file: Path) -> None:
    file.write_text("""
[[hooks]]
event = "Stop"
task = { command = ["a", "{{ hook.cwd }}"], options = { priority = "{{ 5 }}", tags = ["x"] } }
[[hooks]]
event = "Post.*"
tool_name = "^Edit$"
debounce = "30s"
[hooks.task]
command = "{{ hook.argv }}"
""")
    c = load(file, {})
    first, second = c.hooks
    assert (first.event, first.debounce, first.task["options"]["tags"]) == ("Stop", None, ["x"])
    assert (second.tool_name, second.debounce, second.task) == ("^Edit$", 30.0, {"command": "{{ hook.argv }}"})
    assert config.changed(load(None, {}), c) == (["hooks[0]", "hooks[1]"], [])
    file.write_text(config.to_toml(c))
    assert load(file, {}) == c


def test_all_that_is_wrong_with_rules_for_hooks(file: Path) -> None:
    text = """
[[hooks]]
event = "("
tool_nam = "a"
task = { command = ["{{ hok }}"], cwd = "x", options = { priorty = 1, delay = "1s" } }

[[hooks]]
event = "("
prompt = "*"
debounce = "soon"
[[hooks]]
event = "a"
debounce = 3
prompt = "+"
task = { command = ["a"], options = { unique_key = "k" } }
"""
    assert faults(file, text) == [
        "config.toml:2: hooks[0].tool_nam: unknown field (did you mean 'tool_name'?)",
        "config.toml:2: hooks[0].task.options.priorty: unknown field (did you mean 'priority'?)",
        "config.toml:2: hooks[0].task.command[0]: 'hok' is not known (did you mean 'hook'?)",
        'config.toml:7: hooks[1].debounce: expected seconds as a number, or a duration like "90s", "15m", "2h", "3d", '
        "up to 100,000 days",
        "config.toml:7: hooks[1].task: required, but missing",
        "config.toml:11: hooks[2].prompt: not a regular expression: nothing to repeat at position 0",
        "config.toml:11: hooks[2].task.options.unique_key: does not go together with debounce, which sets it",
    ]
    assert faults(file, "hooks = 3") == ["config.toml:1: hooks = 3: each of them begins with a line [[hooks]]"]


SCHEDULES = """
cron.timezone = "Asia/Tokyo"
[[schedules]]
name = "nightly"
schedule = "0 3 * * *"
catch_up = "one"
catch_up_window = "12h"
task = { command = ["make"], env = { API_TOKEN = "hunter2" }, options = { timeout = "1h", tags = ["x"] } }
[[schedules]]
name = "once"
schedule = { at = 2020-03-01T09:00:00+01:00 }
active = false
[schedules.workflow]
template = "research"
params = { question = "why", since = 2026-03-01 }
"""


def test_schedules(file: Path) -> None:
    file.write_text(SCHEDULES)
    c = load(file, {})
    first, second = assembly.schedules(c)
    assert (first.name, first.rule, first.timezone, first.source) == ("nightly", "0 3 * * *", "Asia/Tokyo", "config")
    assert (first.catch_up, first.catch_up_window, first.overlap, first.active) == ("one", 43200, "skip", True)
    assert first.task == {
        "command": ["make"], "env": {"API_TOKEN": "hunter2"}, "options": {"timeout": "1h", "tags": ["x"]},
    }  # fmt: skip
    # Times are text, as in JSON; that one has passed says nothing.
    assert second.rule == {"at": "2020-03-01T09:00:00+01:00"} and not second.active
    assert second.workflow == {"template": "research", "params": {"question": "why", "since": "2026-03-01"}}
    assert config.changed(load(None, {}), c) == (["cron.timezone", "schedules[0]", "schedules[1]"], [])
    assert "hunter2" not in config.to_toml(c, secrets=False)
    file.write_text(config.to_toml(c))
    assert load(file, {}) == c


def test_all_that_is_wrong_with_schedules(file: Path) -> None:
    text = """cron.timezone = "Europe/Berlim"
[[schedules]]
name = "a"
schedule = "61 * * * *"
timezone = "Europe/Berlim"
task = { command = ["a"], cwd = "b", options = { timeut = 1 } }
[[schedules]]
name = "b c"
schedul = "@daily"
overlap = "skipp"
[[schedules]]
name = "d"
schedule = { at = 2026-03-01T09:00:00 }
[schedules.workflow.definition]
name = "w"
phases = [{ id = "p", depends_on = ["q"] }]
[[schedules]]
name = "e"
schedule = "@daily"
task = { command = ["a"] }
[[schedules]]
name = "e"
schedule = "@dayly"
task = { command = ["a"] }
[[schedules]]
name = "e"
schedule = "@daily"
task = { command = ["a"] }
"""
    first = ("task.options.timeut", "schedule", "timezone", "task.cwd")
    told = faults(file, text)
    assert [line.split(": ")[:2] for line in told] == [
        ["config.toml:1", 'cron.timezone = "Europe/Berlim"'],
        *(["config.toml:2", f"schedules[0].{at}"] for at in first),
        *(["config.toml:7", f"schedules[1].{at}"] for at in ("name", "schedul", "overlap", "schedule", "task")),
        ["config.toml:11", "schedules[2].schedule.at"],
        ["config.toml:21", "schedules[4].schedule"], ["config.toml:25", "schedules[5].name"],
    ]  # fmt: skip
    assert told[-1].endswith("there is a schedule 'e' already: schedules[3]")
    workflow = text[text.index('[[schedules]]\nname = "d"') : text.index('[[schedules]]\nname = "e"')]
    # Which accounts there are is not looked at here.
    workflow = workflow.replace("09:00:00", "09:00:00Z") + "[schedules.workflow.definition.defaults]\naccount = 'a'\n"
    assert faults(file, workflow) == [
        "config.toml:1: schedules[0].workflow.phases[0].depends_on[0]: there is no phase or task 'q'"
    ]
    assert faults(file, "schedules = 3")[0].endswith("each of them begins with a line [[schedules]]")


def test_variables_for_agents_are_taken_as_they_stand(file: Path) -> None:
    file.write_text("[runners.claude.env]\nIS_SANDBOX = 1\nANTHROPIC_BASE_URL = 'http://127.0.0.1:1'\n")
    prefix = "ORCHESTR8D_RUNNERS__CLAUDE__"
    c = load(file, {f"{prefix}ENV__Some__Name": "007", f"{prefix}BIN": "/opt/claude"})
    assert c.runners.claude.env == {"IS_SANDBOX": "1", "ANTHROPIC_BASE_URL": "http://127.0.0.1:1", "Some__Name": "007"}
    assert c.runners.claude.bin == "/opt/claude"
    file.write_text(config.to_toml(c))
    assert load(file, {}) == c
    assert faults(file, '[runners.claude]\nbin = "bin/claude"\nenv.a-b = "x"\npermission_mode = "acceptedits"\n') == [
        'config.toml:2: runners.claude.bin = "bin/claude": '
        'expected a program in PATH, like "claude", or its absolute path',
        "config.toml:3: runners.claude.env.a-b = \"x\": 'a-b' is no name for a variable",
        'config.toml:4: runners.claude.permission_mode = "acceptedits": '
        "expected one of acceptEdits, auto, bypassPermissions, default, dontAsk, manual, plan",
    ]


def test_agents_at_once_fit_into_the_memory() -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 1 <= load(None, {}).runners.claude.concurrency <= max(1, memory // (400 << 20))


def test_users(file: Path) -> None:
    file.write_text("""
[users.local]
notify = ["log", "log", "mailto://me:hunter2@smtp.example.com?from=a@a.org&to=b@b.org", "slack://hunter2/B/C"]
types = ["failure", "alert", "task_failure"]
quiet_hours = "22:00-07:00"
timezone = "Europe/Berlin"
[users.other]
""")
    c = load(file, {})
    assert c.users == {
        "local": config_sections.UserConfig(
            ["log", "mailto://me:hunter2@smtp.example.com?from=a@a.org&to=b@b.org", "slack://hunter2/B/C"],
            ["task_failure", "alert"], "22:00-07:00", "Europe/Berlin",
        ),
        "other": config_sections.UserConfig(),
    }  # fmt: skip
    assert (c.users["other"].notify, c.users["other"].timezone) == (["log"], "UTC")
    assert "hunter2" not in config.to_toml(c, secrets=False)
    file.write_text(config.to_toml(c))
    assert load(file, {}) == c


def test_faults_of_users(file: Path) -> None:
    text = """
[users."a b"]
notify = ["log"]
[users.a]
notify = ["lgo", "log", "mailto://me:hunter2@a.org", "https://me:hunter2@a.org/"]
types = ["task_failed"]
quiet_hours = "22-7"
timezone = "Berlin"
[users.b]
notify = "slack://hunter2/x"
"""
    said = faults(file, text)
    assert not any("hunter2" in line for line in said)
    assert said[0].startswith("config.toml:3: users.a b.notify = [\"log\"]: 'a b' is no name for a user")
    shown = '["lgo", "log", "mailto://...", "https://..."]'
    assert said[1].startswith(f"config.toml:5: users.a.notify = {shown}: channel 1: ")
    assert "channel 3: mailto://: expected one address in from=" in said[1] and "channel 4: https://: " in said[1]
    assert said[2].startswith("config.toml:6: users.a.types = [\"task_failed\"]: unknown: 'task_failed' (did you mean ")
    assert said[3].endswith('expected two different times of the day, like "22:00-07:00"')
    assert said[4].endswith('expected the name of a time zone, like "Europe/Berlin"')
    assert said[5].startswith('config.toml:10: users.b.notify = ["slack://..."]: expected a list of channels')
