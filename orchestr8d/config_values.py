"""The kinds of values of settings: each turns what was written into what is used, or says what it expects."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from orchestr8d.core import addresses, durations, notices
from orchestr8d.core.errors import Fault, did_you_mean

FOREVER = "forever"


@dataclass(frozen=True)
class Take:
    """In a field's annotation: `parse` takes the value as written; its ValueError says what is expected."""

    parse: Callable[[Any], Any]


@dataclass(frozen=True)
class Each:
    """In the annotation of an array of tables: `parse` makes one of them, or None and all that is wrong with it."""

    parse: Callable[[Any], tuple[Any, list[Fault]]]


def whole(low: int, high: int = 2**53) -> Take:
    def parse(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low:,} to {high:,}")
        return value

    return Take(parse)


def choice(*names: str) -> Take:
    def parse(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return value.lower()

    return Take(parse)


def exactly(*names: str) -> Take:
    """As choice(), for names in which capitals count."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError(f"expected one of {', '.join(names)}")
        return value

    return Take(parse)


def duration(low: float = 0.0, forever: bool = False) -> Take:
    def parse(value: object) -> float | None:
        if forever and value == FOREVER:
            return None
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError('expected seconds as a number, or a duration like "90s", "15m", "2h", "3d"')
        seconds = durations.seconds(value)
        if seconds < low:
            raise ValueError(f"expected at least {low:g} seconds" + (f', or "{FOREVER}"' if forever else ""))
        return seconds

    return Take(parse)


def byte_size(low: int, high: int = 2**53) -> Take:
    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError('expected bytes as a number, or a size like "16 MB"')
        size = durations.size(value)
        if not low <= size <= high:
            raise ValueError(f"expected a size from {low:,} to {high:,} bytes")
        return size

    return Take(parse)


def words(pattern: str, example: str) -> Take:
    """A list of strings that all match the pattern."""
    fits = re.compile(pattern)

    def parse(value: object) -> list[str]:
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise ValueError(f"expected a list of strings, like {example}")
        for word in value:
            if not fits.fullmatch(word):
                raise ValueError(f"{word!r} does not fit: expected a list like {example}")
        return list(dict.fromkeys(value))

    return Take(parse)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def _rate(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError('expected starts per time, like "30/m", "2/s" or "5/10m"')
    durations.rate(value)
    return value


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError("expected an absolute path")
    return value


def _agent_name(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError('expected the name of an agent, like "code-reviewer", or the path of its file')
    return value


def _program(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value or ("/" in value and not value.startswith("/")):
        raise ValueError('expected a program in PATH, like "claude", or its absolute path')
    return value


def _variable(value: object) -> str:
    # Of `NAME = 1` nothing else can be meant.
    if type(value) is int:
        return str(value)
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("expected the value of a variable, a string")
    return value


def _amount(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1e15:
        raise ValueError("expected a number greater than 0")
    return float(value)


def _channels(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(url, str) for url in value):
        raise ValueError('expected a list of channels, like ["log", "mailto://localhost?from=me@a.org&to=me@a.org"]')
    wrong = []
    for number, url in enumerate(value, 1):
        try:
            notices.check_channel(url)
        except ValueError as e:
            wrong.append(f"channel {number}: {e}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return list(dict.fromkeys(value))


def _notice_types(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"expected a list of {', '.join(notices.TYPES)}")
    names = [notices.ALIASES.get(name, name) for name in value]
    unknown = [f"{name!r}{did_you_mean(name, notices.TYPES)}" for name in names if name not in notices.TYPES]
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)}; there are {', '.join(notices.TYPES)}")
    return list(dict.fromkeys(names))


def _quiet_hours(value: object) -> str:
    notices.read_hours(value if isinstance(value, str) else "")
    return str(value)


def _zone(value: object) -> str:
    try:
        notices.zone(value if isinstance(value, str) else "")
        return str(value)
    except (KeyError, ValueError, OSError):
        raise ValueError('expected the name of a time zone, like "Europe/Berlin"') from None


def address(listen: str) -> tuple[str, int]:
    """`"127.0.0.1:8787"` or `"[::1]:8787"` as host and port. ValueError says what is missing."""
    m = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s\[\]:/]+)):([0-9]{1,5})", listen)
    if not m or int(m[3]) > 65535 or (m[1] and not _is_ipv6(m[1])):
        raise ValueError('expected host and port, like "127.0.0.1:8787" or "[::1]:8787"')
    return m[1] or m[2], int(m[3])


def _is_ipv6(text: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener there. A name other than localhost may lead anywhere."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _listen(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError('expected host and port, like "127.0.0.1:8787" or "[::1]:8787"')
    address(value)
    return value


def _web_url(value: object) -> str:
    message = 'expected a URL like "https://tasks.example.com", without query or password'
    if not isinstance(value, str):
        raise ValueError(message)
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(message)
    if url.query or url.fragment or "@" in url.netloc:
        raise ValueError(message)
    return value.rstrip("/")


def _store_url(value: object) -> str:
    if isinstance(value, str) and value.startswith(("postgres:", "postgresql:")):
        raise ValueError("PostgreSQL is not available in this version; expected sqlite:///PATH")
    if not isinstance(value, str) or not re.fullmatch(r"sqlite:///[^?#\0]+", value):
        raise ValueError('expected a file, like "sqlite:///var/lib/orchestr8d/orchestr8d.db"')
    return value


def _addresses(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError('expected a list of public, loopback, private and networks, like ["public", "10.1.0.0/16"]')
    addresses.read_allow(value)
    return list(dict.fromkeys(value))


def _ladder(value: object) -> list[float]:
    if not isinstance(value, list) or len(value) > 100:
        raise ValueError('expected a list of up to 100 durations, like ["5s", "30s", "2m"]')
    return [_step(item) for item in value]


def _step(value: object) -> float:
    taken = duration().parse(value)
    assert isinstance(taken, float)
    return taken


Flag = Annotated[bool, Take(_flag)]
Rate = Annotated[str, Take(_rate)]
FilePath = Annotated[str, Take(_path)]
Listen = Annotated[str, Take(_listen)]
WebUrl = Annotated[str, Take(_web_url)]
StoreUrl = Annotated[str, Take(_store_url)]
AgentName = Annotated[str, Take(_agent_name)]
QuietHours = Annotated[str, Take(_quiet_hours)]
Zone = Annotated[str, Take(_zone)]
Amount = Annotated[float, Take(_amount)]
Program = Annotated[str, Take(_program)]
# In a table by names of variables of an environment.
Variable = Annotated[str, Take(_variable)]
Positive = Annotated[int, whole(1, 1_000_000_000)]
Seconds = Annotated[float, duration()]
Keep = Annotated[float | None, duration(1, forever=True)]
HOSTS = words(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]", '["tasks.example.com"]')
ORIGINS = words(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?",
                '["https://tasks.example.com"]')  # fmt: skip
LABELS = words(r"[A-Za-z0-9][A-Za-z0-9_.:=@-]{0,127}", '["gpu"]')
CHANNELS = Take(_channels)
NOTICE_TYPES = Take(_notice_types)
PROGRAMS = words(r"[^\0]+", '["make", "/usr/bin/*"]')
VARIABLES = words(r"[A-Za-z_*][A-Za-z0-9_*]*", '["GOPATH", "NPM_*"]')
ADDRESSES = Take(_addresses)
LADDER = Take(_ladder)
TOOLS = words(r"[^\0]+", '["Bash(git *)", "Edit"]')
PATHS = words(r"[^\0]+", '["~/agents", ".claude/agents", "/srv/agents"]')
