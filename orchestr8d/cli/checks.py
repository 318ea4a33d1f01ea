"""The checks of `orchestr8d doctor`: each looks at one thing and says ok, warning or broken."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Literal, NamedTuple

from orchestr8d import __version__, config, keeper
from orchestr8d.cli import exits
from orchestr8d.client.answers import ApiError, NoDaemon
from orchestr8d.client.sync import Client
from orchestr8d.core.errors import Problem
from orchestr8d.state import holder

UNIT = "orchestr8d.service"
MB = 1 << 20


class Check(NamedTuple):
    name: str
    state: Literal["ok", "warning", "broken"]
    message: str


def all_checks() -> list[Check]:
    """Every check, in the order in which one would repair things."""
    state = config.state_dir(os.environ)
    settings = _settings()
    pid = holder(state)
    found = [_python(), _sqlite(), _uvloop(), _keeper(), _pidfd(), _config(settings), _state(state)]
    if isinstance(settings, config.Config):
        found += [_disk(state, settings.store.min_free_disk), _database(config.store_path(settings, state))]
    return [*found, _daemon(), _service(pid), _linger(os.environ)]


def _python() -> Check:
    text = f"{platform.python_implementation()} {platform.python_version()}"
    return Check("python", "ok" if sys.version_info >= (3, 11) else "broken", text)


def _sqlite() -> Check:
    from orchestr8d.store.sqlite import corrupts_wal

    if corrupts_wal(sqlite3.sqlite_version_info):
        # The daemon has one writer, which alone checkpoints; another program at the same file is the danger.
        why = (
            "can corrupt a database that two programs write at once: open it only through orchestr8d (fixed in 3.51.3)"
        )
        return Check("sqlite", "warning", f"{sqlite3.sqlite_version} {why}")
    return Check("sqlite", "ok", sqlite3.sqlite_version)


def _uvloop() -> Check:
    try:
        import uvloop
    except ImportError as error:
        return Check("uvloop", "warning", f"cannot be imported ({error}): slower without it")
    return Check("uvloop", "ok", version(uvloop.__name__))


def _keeper() -> Check:
    """Starts one, which has nothing to do and ends."""
    done = subprocess.run(keeper.command(64, ""), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return Check("keeper", "ok", "what starts commands can be started")
    return Check("keeper", "broken", f"what starts commands ends with {done.returncode}: {done.stderr[-200:].strip()}")


def _pidfd() -> Check:
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (OSError, AttributeError) as error:
        return Check("pidfd", "broken", f"{error}: needs Linux 5.3 or later, and a sandbox that allows pidfd_open")
    return Check("pidfd", "ok", f"Linux {platform.release()}")


def _settings() -> config.Config | config.ConfigError:
    try:
        return config.load(config.find(None, os.environ), os.environ)
    except config.ConfigError as error:
        return error


def _config(settings: config.Config | config.ConfigError) -> Check:
    if isinstance(settings, config.ConfigError):
        return Check("config", "broken", "; ".join(str(fault) for fault in settings.faults))
    return Check("config", "ok", str(config.find(None, os.environ) or "no file, all defaults"))


def _state(state: Path) -> Check:
    try:
        found = state.stat()
    except FileNotFoundError:
        return Check("state", "ok", f"{state} is made by the first start")
    except OSError as error:
        return Check("state", "broken", f"{state}: {error.strerror}")
    if found.st_uid != os.geteuid():
        return Check("state", "broken", f"{state} belongs to uid {found.st_uid}")
    secrets = [path for path in (state / "token", state / "auth-header", state / "secret") if path.exists()]
    loose = [str(path) for path in (state, *secrets) if stat.S_IMODE(path.stat().st_mode) & 0o077]
    if loose:
        return Check("state", "broken", f"open to others: chmod go= {' '.join(loose)}")
    if not os.access(state, os.W_OK | os.X_OK):
        return Check("state", "broken", f"{state} cannot be written")
    return Check("state", "ok", str(state))


def _disk(state: Path, least: int) -> Check:
    place = next(path for path in (state, *state.parents) if path.exists())
    free = shutil.disk_usage(place).free
    text = f"{free // MB:,} MB free at {place}"
    if free < least:
        return Check("disk", "broken", f"{text}: below [store] min_free_disk ({least // MB:,} MB) nothing is accepted")
    return Check("disk", "warning" if free < 2 * least else "ok", text)


def _database(db: Path) -> Check:
    from orchestr8d.store.sqlite import latest_version, schema_version

    if not db.exists():
        return Check("database", "ok", f"{db} is made by the first start")
    try:
        found = schema_version(db)
    except (sqlite3.Error, OSError, Problem) as error:
        return Check("database", "broken", f"{db}: {error}")
    if found > latest_version():
        return Check(
            "database", "broken", f"{db} is of a later orchestr8d (schema {found}, we know {latest_version()})"
        )
    return Check("database", "ok", f"{db}, schema {found}, {db.stat().st_size // MB:,} MB")


def _daemon() -> Check:
    try:
        with Client() as client:
            health = client.health()["status"]
            running = [e for e in client.executors() if e["state"] in {"running", "draining"}]
    except NoDaemon as error:
        return Check("daemon", "broken", f"{error}; {exits.START}")
    except (ApiError, ValueError) as error:
        return Check("daemon", "broken", str(error))
    others = [e["version"] for e in running if e["version"] != __version__]
    if others:
        return Check(
            "daemon", "warning", f"{client.endpoint} is version {others[0]}, this is {__version__}: restart it"
        )
    return Check("daemon", "ok" if health == "ok" else "broken", f"{client.endpoint}, version {__version__}, {health}")


def _service(pid: int | None) -> Check:
    """Whether the daemon that runs here is one of systemd's, and if the unit is installed at all."""
    unit = _unit_of(pid) if pid is not None else None
    if unit is not None:
        return Check("service", "ok", f"the daemon (pid {pid}) runs as {unit}")
    if pid is not None:
        return Check(
            "service", "ok", f"the daemon (pid {pid}) does not run as a service: it is not restarted after a reboot"
        )
    state = _ask("systemctl", "--user", "is-active", UNIT)
    if state is None:
        return Check("service", "ok", "there is no systemd of the user here")
    return Check("service", "ok", f"{UNIT} is {state}")


def _unit_of(pid: int) -> str | None:
    try:
        cgroup = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:
        return None
    parts = [part for line in cgroup.splitlines() for part in line.rpartition(":")[2].split("/")]
    return next((part for part in parts if part.startswith("orchestr8d") and part.endswith(".service")), None)


def _linger(environ: Mapping[str, str]) -> Check:
    user = environ.get("USER") or str(os.getuid())
    if Path("/var/lib/systemd/linger", user).exists():
        return Check("linger", "ok", f"services of {user} run without a login")
    if _ask("systemctl", "--user", "is-enabled", UNIT) != "enabled":
        return Check("linger", "ok", "not needed: the user service is not installed")
    return Check("linger", "warning", f"the service ends when {user} logs out: loginctl enable-linger {user}")


def _ask(*command: str) -> str | None:
    """What a program says in its first line; None where it cannot say."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip().partition("\n")[0] or None
