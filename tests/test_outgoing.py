"""Where connections arrive: judged by listeners on real addresses, in a network namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
CAN = subprocess.run(["unshare", "-rn", "ip", "link", "set", "lo", "up"], capture_output=True, check=False)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CAN.returncode != 0, reason="no network namespaces for this user here"),
]

# Runs inside. `looked` is what each look-up of the name gives, one after the other, whoever looks.
INSIDE = """
import asyncio, json, socket, subprocess, sys
from orchestr8d.core import addresses
from orchestr8d.outgoing import Outgoing, Refused

looked, allow, times, url = json.loads(sys.argv[1])
HERE = ["127.0.0.1", "10.9.9.9", "169.254.169.254", "fd00:9::9"]
arrived, asked = [], 0
real = socket.getaddrinfo

def getaddrinfo(host, port, *rest, **more):
    global asked
    if host in ("hook.test", b"hook.test"):
        given = looked[min(asked, len(looked) - 1)]
        asked += 1
        return [entry for one in given for entry in real(one, port, type=socket.SOCK_STREAM)]
    return real(host, port, *rest, **more)

socket.getaddrinfo = getaddrinfo

async def main():
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in HERE[1:]:
        subprocess.run(["ip", "addr", "add", address + ("/128" if ":" in address else "/32"), "dev", "lo", *(
            ["nodad"] if ":" in address else [])], check=True)

    def take(address):
        async def serve(reader, writer):
            arrived.append(address)
            await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(b"HTTP/1.1 204 No Content\\r\\nConnection: close\\r\\n\\r\\n")
            await writer.drain()
            writer.close()
        return serve

    servers = [await asyncio.start_server(take(address), address, 8000) for address in HERE]
    outgoing = Outgoing(lambda: addresses.read_allow(allow))
    kinds = []
    for _ in range(times):
        try:
            kinds.append((await outgoing.send("POST", url, b"{}", {}, 10)).status)
        except Refused as refused:
            kinds.append(refused.kind)
    await outgoing.close()
    print(json.dumps({"kinds": kinds, "arrived": arrived, "asked": asked}))

asyncio.run(main())
"""
NAME = "http://hook.test:8000/"


def inside(looked: list[list[str]], allow: list[str], times: int = 1, url: str = NAME) -> Any:
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", INSIDE, json.dumps([looked, allow, times, url])],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_listeners_would_notice() -> None:
    seen = inside([["10.9.9.9"]], ["private"])
    assert seen == {"kinds": [204], "arrived": ["10.9.9.9"], "asked": 1}
    assert inside([], ["private"], url="http://[fd00:9::9]:8000/")["arrived"] == ["fd00:9::9"]


@pytest.mark.parametrize("bad", ["10.9.9.9", "169.254.169.254", "fd00:9::9", "::ffff:10.9.9.9"])
def test_a_name_that_changes_after_the_check(bad: str) -> None:
    seen = inside([["127.0.0.1"], [bad]], ["public", "loopback"], times=3)
    assert seen["kinds"] == [204, "forbidden_address", "forbidden_address"]
    assert seen["arrived"] == ["127.0.0.1"]


def test_a_name_that_flips_each_time() -> None:
    seen = inside([["127.0.0.1"], ["10.9.9.9"]] * 10, ["public", "loopback"], times=20)
    assert seen == {"kinds": [204, "forbidden_address"] * 10, "arrived": ["127.0.0.1"] * 10, "asked": 20}


@pytest.mark.parametrize("found", [["127.0.0.1", "10.9.9.9"], ["10.9.9.9", "127.0.0.1"], ["127.0.0.1", "fd00:9::9"]])
def test_one_forbidden_address_among_allowed_ones(found: list[str]) -> None:
    assert inside([found], ["public", "loopback"]) == {"kinds": ["forbidden_address"], "arrived": [], "asked": 1}


def test_literals_that_are_forbidden() -> None:
    for host in ("10.9.9.9", "169.254.169.254", "[fd00:9::9]", "[::ffff:10.9.9.9]", "[::ffff:a9fe:a9fe]"):
        seen = inside([], ["public", "loopback"], url=f"http://{host}:8000/")
        assert seen == {"kinds": ["forbidden_address"], "arrived": [], "asked": 0}
    assert inside([], ["private", "169.254.0.0/16"], url="http://169.254.169.254:8000/")["arrived"] == []


def test_numbers_that_resolvers_take() -> None:
    """Were such a URL stored, what is connected to would be judged all the same."""
    for host in ("0x0a090909", "10.591113", "167840009"):
        assert inside([], ["public", "loopback"], url=f"http://{host}:8000/")["arrived"] == []
