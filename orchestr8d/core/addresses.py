"""Where the daemon may send to: URLs are checked when they are given, addresses each time before they are used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from msgspec import Struct

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL: Final = 2048
_NEVER: Final[tuple[Network, ...]] = tuple(map(ip_network, (
    "0.0.0.0/8", "169.254.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4", "100.100.100.200/32",
    "::/128", "fe80::/10", "fec0::/10", "ff00::/8", "fd00:ec2::254/128",
)))  # fmt: skip
_LOOPBACK: Final[tuple[Network, ...]] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
_PRIVATE: Final[tuple[Network, ...]] = tuple(map(ip_network, (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7",
    # A site's own NAT64 (RFC 8215): where in it the IPv4 address stands is known to the site only.
    "64:ff9b:1::/48",
)))  # fmt: skip
# What ends in an IPv4 address: mapped, compatible, NAT64 (RFC 6052, and the usual one of RFC 8215).
_ENDS_IN_IPV4: Final = tuple(map(IPv6Network, ("::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/96")))
_6TO4: Final = IPv6Network("2002::/16")

_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<place>[^/?]*)(?P<rest>.*)")
_PLACE: Final = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_QUAD: Final = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})")
_LABEL: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_PORTS: Final = {"http": 80, "https": 443}


class Allow(Struct, frozen=True):
    """Which addresses may be sent to: kinds of them, and networks. Some never may, whatever is listed."""

    public: bool = True
    loopback: bool = True
    private: bool = False
    networks: tuple[Network, ...] = ()


def read_allow(words: Sequence[str]) -> Allow:
    """From the words `public`, `loopback`, `private` and networks. ValueError names one that is none of them."""
    kinds = {"public", "loopback", "private"}
    networks = []
    for word in words:
        if word not in kinds:
            try:
                networks.append(ip_network(word))
            except ValueError:
                raise ValueError(f"{word!r} is not public, loopback, private or a network like 10.1.0.0/16") from None
    return Allow("public" in words, "loopback" in words, "private" in words, tuple(networks))


def is_allowed(address: Address, allow: Allow) -> bool:
    """Whether a connection to this address may be made."""
    real = _judged(address)
    if _in(real, _NEVER):
        return False
    if _in(real, allow.networks):
        return True
    if _in(real, _LOOPBACK):
        return allow.loopback
    return allow.private if _in(real, _PRIVATE) else allow.public


def _judged(address: Address) -> Address:
    """An IPv6 address that leads to an IPv4 one is judged as that."""
    if isinstance(address, IPv4Address) or address in _LOOPBACK[1]:
        return address
    number = int(address)
    if any(address in network for network in _ENDS_IN_IPV4):
        return IPv4Address(number & 0xFFFFFFFF)
    return IPv4Address(number >> 80 & 0xFFFFFFFF) if address in _6TO4 else address


def _in(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


class Place(Struct, frozen=True):
    """Where a URL leads to."""

    scheme: str
    host: str
    port: int
    # Set when the host is no name.
    address: Address | None = None

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def place(url: str) -> Place:
    """Where the URL leads to. ValueError says what is wrong with it; whether an address is allowed is not looked at."""
    if len(url) > MAX_URL:
        raise ValueError(f"is longer than {MAX_URL} characters")
    if any(not "!" <= c <= "~" for c in url):
        raise ValueError("has a space, a control character or one that is not ASCII: write it percent-encoded")
    if "\\" in url:
        raise ValueError("has a backslash")
    parts = _URL.fullmatch(url)
    if parts is None or parts["scheme"].lower() not in _PORTS:
        raise ValueError("expected a URL that begins with http:// or https://")
    if "#" in url:
        raise ValueError("has a fragment (#…), which is never sent")
    if "@" in parts["place"]:
        raise ValueError("has a user or password: send those in a header")
    scheme = parts["scheme"].lower()
    where = _PLACE.fullmatch(parts["place"])
    port = _PORTS[scheme] if where is None or where["port"] is None else int(where["port"])
    if where is None or not 0 < port <= 65535:
        raise ValueError("expected a host, and after it a port from 1 to 65535 or none")
    if where["ipv6"] is not None:
        address: Address | None = _ipv6(where["ipv6"])
        return Place(scheme, str(address), port, address)
    name = where["name"].lower()
    return Place(scheme, name, port, _ipv4(name))


def _ipv6(text: str) -> IPv6Address:
    try:
        if "%" not in text:
            return IPv6Address(text)
    except ValueError:
        pass
    raise ValueError("expected an IPv6 address between the brackets, without a zone")


def _ipv4(name: str) -> IPv4Address | None:
    """The address that a host is; None when it is a name."""
    labels = name.removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        # Resolvers take many things for numbers: 127.1, 0x7f000001, 017700000001.
        try:
            if _QUAD.fullmatch(name):
                return IPv4Address(name)
        except ValueError:
            pass
        raise ValueError("expected a name, four decimal numbers like 192.0.2.1, or [IPv6]")
    if len(name) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("expected a host's name, of letters, digits, dots and hyphens")
    return None


def fault(url: str, allow: Allow) -> str | None:
    """What is wrong with a URL that shall be sent to; None when nothing is, as far as the URL alone can tell."""
    try:
        where = place(url)
    except ValueError as e:
        return str(e)
    if where.address is not None and not is_allowed(where.address, allow):
        return f"leads to {where.address}, which is not allowed ([webhooks] allow)"
    return None


def parse(text: str) -> Address:
    """An address as a resolver gives it: one of a link may have a zone."""
    return ip_address(text.partition("%")[0])
