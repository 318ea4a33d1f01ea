"""Run in a network namespace of its own: sends to each URL of a list, and tells at which addresses connections arrived.

Everything is local there: whatever address is connected to, a listener takes it, and says which one it was.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from orchestr8d.core import addresses
from orchestr8d.outgoing import Outgoing, Refused

PORT = 8000
LOCAL = [
    "8.8.8.0/24", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "198.18.0.0/15",
    "240.0.0.0/5", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::/96", "fc00::/7", "fec0::/10", "2606:4700::/32",
]  # fmt: skip
ANSWER = b"HTTP/1.1 %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Case(msgspec.Struct):
    """`looked` is what each look-up of a name that ends in `.test` gives, whoever looks; the last one stays."""

    url: str
    allow: Sequence[str] = ("public",)
    looked: list[list[str]] = []
    times: int = 1
    # The listener answers with a redirect to there.
    location: str | None = None
    # False: sent as anyone would, to prove that the listener would have seen it.
    guarded: bool = True


class Seen(msgspec.Struct):
    """`kinds`: of each time the status, or why it was refused; `asked`: how many look-ups there were."""

    kinds: list[int | str]
    arrived: list[str]
    asked: int


def inside(cases: Sequence[Case]) -> list[Seen]:
    """What becomes of the cases in a namespace of their own."""
    done = subprocess.run(
        ["unshare", "-rn", sys.executable, "-m", "tests.arrivals"], input=msgspec.json.encode(cases),
        cwd=Path(__file__).parents[1], env=dict(os.environ), capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return msgspec.json.decode(done.stdout, type=list[Seen])


class _Place:
    def __init__(self) -> None:
        self._case = Case("")
        self._seen = Seen([], [], 0)
        self._look = socket.getaddrinfo
        socket.getaddrinfo = self._getaddrinfo  # type: ignore[assignment]

    def _getaddrinfo(self, host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        if not str(host).endswith(".test"):
            return self._look(host, port, *rest, **more)
        given = self._case.looked[min(self._seen.asked, len(self._case.looked) - 1)]
        self._seen.asked += 1
        return [entry for one in given for entry in self._look(one, port, type=socket.SOCK_STREAM)]

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._seen.arrived.append(writer.get_extra_info("sockname")[0])
        to = self._case.location
        writer.write(ANSWER % (b"204 No Content" if to is None else f"307 There\r\nLocation: {to}".encode()))
        await writer.drain()
        writer.close()

    async def send(self, case: Case) -> Seen:
        self._case, self._seen = case, Seen([], [], 0)
        outgoing = Outgoing(lambda: addresses.read_allow(case.allow))
        for _ in range(case.times):
            try:
                if case.guarded:
                    kind: int | str = (await outgoing.send("POST", case.url, b"{}", {}, 5)).status
                else:
                    async with aiohttp.ClientSession() as session, session.post(case.url, data=b"{}") as response:
                        kind = response.status
            except Refused as refused:
                kind = refused.kind
            except (aiohttp.ClientError, OSError, ValueError) as error:
                kind = type(error).__name__
            self._seen.kinds.append(kind)
        await outgoing.close()
        return self._seen


async def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for network in LOCAL:
        family = "-6" if ":" in network else "-4"
        subprocess.run(["ip", family, "route", "add", "local", network, "dev", "lo"], check=True)
    place = _Place()
    for address in ("0.0.0.0", "::"):
        await asyncio.start_server(place.take, address, PORT)
    cases = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Case])
    sys.stdout.buffer.write(msgspec.json.encode([await place.send(case) for case in cases]))


if __name__ == "__main__":
    asyncio.run(main())
