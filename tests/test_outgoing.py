"""Where connections arrive: judged by listeners on real addresses, in a network namespace of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from tests.arrivals import PORT, Case, Seen, inside

CAN = subprocess.run(["unshare", "-rn", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CAN.returncode != 0, reason="no network namespaces for this user here"),
]
NAME = f"http://hook.test:{PORT}/"
DEFAULT = ["public", "loopback"]
# Sent to with `allow = ["public"]`: nothing may arrive at any of them.
FORBIDDEN = [
    "127.0.0.1", "10.9.9.9", "172.16.9.9", "192.168.9.9", "100.64.9.9", "100.100.100.200", "169.254.169.254",
    "198.18.9.9", "240.9.9.9",
]  # fmt: skip
FORBIDDEN_IPV6 = ["::1", "::", "fc00::9", "fd00:ec2::254", "fec0::9", "64:ff9b:1:a9fe:a9:fe00:808:808"]
# By the URL, where a connection shall arrive.
ALLOWED = {
    "8.8.8.8": "8.8.8.8", "[2606:4700::1111]": "2606:4700::1111", "[::ffff:8.8.8.8]": "8.8.8.8",
    "[::ffff:808:808]": "8.8.8.8", "[64:ff9b::8.8.8.8]": "64:ff9b::808:808", "[2002:808:808::1]": "2002:808:808::1",
    "[::8.8.8.8]": "::8.8.8.8",
}  # fmt: skip


def forms(address: str) -> Iterator[str]:
    """Ways to write an IPv4 address into a URL; some of them only few programs understand."""
    parts = [int(part) for part in address.split(".")]
    number = int(IPv4Address(address))
    high, low = f"{number >> 16:x}", f"{number & 0xFFFF:x}"
    wide = address.translate({ord(str(n)): 0xFF10 + n for n in range(10)})
    for host in (
        address, f"{address}.", str(number), f"0x{number:x}", f"0X{number:X}", f"0{number:o}",
        ".".join(f"0x{part:x}" for part in parts), ".".join(f"0{part:o}" for part in parts),
        ".".join(f"{part:03}" for part in parts), f"{parts[0]}.{number & 0xFFFFFF}",
        f"{parts[0]}.{parts[1]}.{number & 0xFFFF}", f"0x{parts[0]:x}.0{parts[1]:o}.{number & 0xFFFF}",
        wide, wide.replace(".", "。"), address.replace(".", "。"), address.replace(".", "%2e"),
        "".join(f"%{ord(c):x}" for c in address), f"8.8.8.8@{address}", f"user:pass@{address}", f"8.8.8.8%40{address}",
        f"[::ffff:{address}]", f"[::ffff:{high}:{low}]", f"[0:0:0:0:0:ffff:{address}]", f"[::{address}]",
        f"[64:ff9b::{address}]", f"[64:ff9b:1::{address}]", f"[2002:{high}:{low}::1]",
    ):  # fmt: skip
        yield f"http://{host}:{PORT}/"
    yield f"http://8.8.8.8\\@{address}:{PORT}/"
    yield f"http://8.8.8.8:{PORT}#@{address}:{PORT}/"
    yield f"http://{address}:{PORT}\t/"
    yield f"\x00http://{address}:{PORT}/"
    yield f"http://{address}\r\n:{PORT}/"


URLS = [url for address in FORBIDDEN for url in forms(address)] + [
    f"http://{host}:{PORT}/"
    for host in ("localhost", "LOCALHOST.", "0", "0.0.0.0", "[fe80::1]", "[fe80::1%25lo]", "[ff02::1]", "224.0.0.1",
                 "255.255.255.255", *(f"[{address}]" for address in FORBIDDEN_IPV6))
]  # fmt: skip


def test_nothing_arrives_at_a_forbidden_address_however_it_is_written() -> None:
    assert len(URLS) >= 80
    seen = inside([Case(url) for url in URLS])
    assert {url: s.arrived for url, s in zip(URLS, seen, strict=True) if s.arrived} == {}
    assert not any(isinstance(kind, int) for s in seen for kind in s.kinds)


def test_some_are_never_sent_to_even_if_they_are_listed() -> None:
    everything = ["public", "loopback", "private", "0.0.0.0/0", "::/0"]
    never = [f"http://{host}:{PORT}/" for host in (
        "169.254.169.254", "100.100.100.200", "198.18.9.9", "240.9.9.9", "[::]", "[fd00:ec2::254]", "[fec0::9]",
        "[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::1]",
    )]  # fmt: skip
    seen = inside([*(Case(url, everything) for url in never), Case(f"http://10.9.9.9:{PORT}/", everything)])
    assert [s.arrived for s in seen] == [[]] * len(never) + [["10.9.9.9"]]


def test_the_listeners_would_notice() -> None:
    """Sent without the guard most of the same URLs lead to them: however often an address is written, it is met."""
    seen = inside([Case(url, guarded=False) for url in URLS])
    arrived = [address for s in seen for address in s.arrived]
    assert len(arrived) >= 80
    assert all(arrived.count(address) >= 10 for address in FORBIDDEN)
    assert {"fc00::9", "fd00:ec2::254", "fec0::9", "::1", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"} <= set(arrived)


def test_what_is_allowed_arrives() -> None:
    seen = inside([Case(f"http://{host}:{PORT}/") for host in ALLOWED])
    assert [s.arrived for s in seen] == [[to] for to in ALLOWED.values()]
    [named, private] = inside([Case(NAME, looked=[["8.8.8.8"]]), Case(NAME, ["10.9.0.0/16"], [["10.9.9.9"]])])
    assert (named, private) == (Seen([204], ["8.8.8.8"], 1), Seen([204], ["10.9.9.9"], 1))


def test_a_name_that_changes_after_the_check() -> None:
    bad = ["10.9.9.9", "169.254.169.254", "fd00:9::9", "::ffff:10.9.9.9", "64:ff9b::a09:909", "2002:a09:909::1"]
    for seen in inside([Case(NAME, DEFAULT, [["127.0.0.1"], [b]], 3) for b in bad]):
        # One look-up each time: what was checked is what is connected to.
        assert seen == Seen([204, "forbidden_address", "forbidden_address"], ["127.0.0.1"], 3)
    [flips] = inside([Case(NAME, DEFAULT, [["127.0.0.1"], ["10.9.9.9"]] * 10, 20)])
    assert flips == Seen([204, "forbidden_address"] * 10, ["127.0.0.1"] * 10, 20)


def test_one_forbidden_address_among_allowed_ones() -> None:
    found = [["127.0.0.1", "10.9.9.9"], ["10.9.9.9", "127.0.0.1"], ["127.0.0.1", "fd00:9::9"], ["8.8.8.8", "::"]]
    assert inside([Case(NAME, DEFAULT, [f]) for f in found]) == [Seen(["forbidden_address"], [], 1)] * 4


def test_redirects_lead_nowhere() -> None:
    targets = [f"http://{host}:{PORT}/" for host in ("10.9.9.9", "127.0.0.1", "[::ffff:a9fe:a9fe]", "127.1")]
    cases = [Case(f"http://8.8.8.8:{PORT}/", location=to) for to in (*targets, "//10.9.9.9:8000/", "/here")]
    assert inside(cases) == [Seen([307], ["8.8.8.8"], 0)] * len(cases)
    # Whoever follows would have arrived.
    assert inside([Case(c.url, location=c.location, guarded=False) for c in cases[:1]])[0].arrived[1] == "10.9.9.9"
