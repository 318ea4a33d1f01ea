"""Which Host and Origin headers are let in: the first answer to DNS rebinding and to foreign web pages."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from orchestr8d.config import Config
from orchestr8d.core.errors import Problem


class Doors:
    """The allow-list that follows from one configuration."""

    def __init__(self, config: Config) -> None:
        server = config.server
        base = urlsplit(server.base_url) if server.base_url else None
        names = [_hostname(server.listen), *(_hostname(host) for host in server.hosts)]
        if base is not None:
            names.append(base.hostname)
        self._names = {name for name in names if name}
        self._origins = {origin.rstrip("/").lower() for origin in server.origins}
        if base is not None:
            self._origins.add(f"{base.scheme}://{base.netloc}".lower())
        # Host headers that were let in, as they came: clients repeat theirs.
        self._seen: set[str] = set()

    def check_host(self, host: str | None) -> None:
        """Raises Problem for a Host header that is none of ours."""
        if host in self._seen:
            return
        if host is None or not self._ours(host):
            raise Problem("forbidden", f"the Host header {host!r} is not allowed here ([server] hosts)")
        if len(self._seen) < 1000:
            self._seen.add(host)

    def check_origin(self, origin: str | None, host: str | None) -> None:
        """Raises Problem for a page of somebody else. Requests without an Origin come from no page."""
        if origin is None or origin.lower() in self._origins:
            return
        scheme, _, netloc = origin.partition("://")
        same = scheme in ("http", "https") and host is not None and netloc.lower() == host.lower()
        if not same or not self._ours(netloc):
            raise Problem("forbidden", f"the Origin {origin!r} is not allowed here ([server] origins)")

    def _ours(self, host: str) -> bool:
        name = _hostname(host)
        return name is not None and (name in self._names or _loopback(name))


def _hostname(host: str) -> str | None:
    """`name` of `name:port`, `[::1]:port` and the like; None when it is neither."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    return parts.hostname


def _loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
