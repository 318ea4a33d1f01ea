"""Finds the daemon: by `$ORCHESTR8_URL`, the state directory's socket, or `[server] listen` and the token."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

SOCKET = "orchestr8d.sock"


class Endpoint(NamedTuple):
    """Where a daemon listens: a Unix `socket`, or `host` and `port`. `prefix`: the path that a proxy adds."""

    socket: str | None = None
    host: str = "localhost"
    port: int = 0
    tls: bool = False
    prefix: str = ""
    token: str | None = None

    def __str__(self) -> str:
        if self.socket is not None:
            return self.socket
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.prefix}"


def find(environ: Mapping[str, str]) -> Endpoint:
    """The endpoint to talk to; nothing is sent. ValueError when the URL or the configuration is unusable."""
    token = environ.get("ORCHESTR8_TOKEN") or None
    url = environ.get("ORCHESTR8_URL")
    if url:
        return parse_url(url, token)
    from orchestr8d import config, config_values  # late: the environment may already have answered

    state = config.state_dir(environ)
    if _listening(state / SOCKET):
        return Endpoint(socket=str(state / SOCKET), token=token)
    try:
        server = config.server(config.find(None, environ), environ)
    except config.ConfigError:
        raise ValueError("the configuration has faults: `orchestr8d config check` lists them") from None
    if server.socket and _listening(Path(server.socket)):
        return Endpoint(socket=server.socket, token=token)
    host, port = config_values.address(server.listen)
    return Endpoint(host=_reachable(host), port=port, token=token or _token(state))


def parse_url(url: str, token: str | None) -> Endpoint:
    """`http://HOST:PORT[/PREFIX]`, `https://…` or `unix:///path/of/the/socket`."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme == "unix" and parts.path.startswith("/") and not parts.netloc:
        return Endpoint(socket=parts.path, token=token)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"ORCHESTR8_URL is {url!r}: expected http://HOST:PORT or unix:///PATH")
    tls = parts.scheme == "https"
    return Endpoint(None, parts.hostname, port or (443 if tls else 80), tls, parts.path.rstrip("/"), token)


def _listening(path: Path) -> bool:
    """Whether somebody accepts connections there; a socket that a killed daemon left does not count."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except OSError:  # none, stale, not ours to open, or a path too long for a socket
            return False
    return True


def _reachable(host: str) -> str:
    """A wildcard address is for listening; one connects to loopback."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (nothing is bound here)


def _token(state: Path) -> str | None:
    try:
        return (state / "token").read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None
