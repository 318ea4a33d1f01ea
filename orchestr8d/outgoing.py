"""Requests that the daemon makes to others: to checked addresses only, no redirects, bounded in time and size."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from msgspec import Struct
from yarl import URL

from orchestr8d import __version__
from orchestr8d.core import addresses
from orchestr8d.core.addresses import Allow

# So much of an answer is read, in bytes; no more of it is wanted.
KEPT: Final = 4096

# Addresses of a host, as texts.
Lookup = Callable[[str], Awaitable[Sequence[str]]]


class Refused(Exception):
    """A request that was not answered. `kind`: `forbidden_address`, `dns`, `connect`, `tls`, `timeout`, `protocol`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Answer(Struct, frozen=True):
    """`body` is its beginning."""

    status: int
    retry_after: str | None
    body: str


async def lookup(host: str) -> Sequence[str]:
    """All addresses of a host. Each look-up has a thread of its own: slow ones must not hold others up."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Sequence[str]] = loop.create_future()

    def tell(found: Sequence[str] | OSError) -> None:
        if future.done():
            return
        if isinstance(found, OSError):
            future.set_exception(found)
        else:
            future.set_result(found)

    def work() -> None:
        found: Sequence[str] | OSError
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found = tuple(dict.fromkeys(str(entry[4][0]) for entry in entries))
        except (OSError, UnicodeError) as e:
            found = e if isinstance(e, OSError) else OSError(str(e))
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, found)

    # Not waited for at the end of the daemon.
    threading.Thread(target=work, name="lookup", daemon=True).start()
    return await future


class _Resolver(AbstractResolver):
    """Gives the connector the addresses that were checked, and no others."""

    def __init__(self, check: Callable[[str], Awaitable[Sequence[addresses.Address]]]) -> None:
        self._check = check

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host, host=str(address), port=port, proto=0, flags=socket.AI_NUMERICHOST,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
            )
            for address in await self._check(host)
        ]  # fmt: skip

    async def close(self) -> None:
        pass


class Outgoing:
    """Sends. A name is resolved once for each connection; all of its addresses must be allowed, and one of those that
    were checked is connected to. No proxy of the environment, no cookies, no connection is used twice."""

    def __init__(self, allow: Callable[[], Allow], find: Lookup = lookup) -> None:
        self._allow = allow
        self._find = find
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, method: str, url: str, body: bytes, headers: Mapping[str, str], timeout: float) -> Answer:  # noqa: ASYNC109 (one limit over all of it)
        """The answer, whatever its status. Raises Refused."""
        try:
            async with asyncio.timeout(timeout) as limit:
                return await self._send(method, url, body, headers, limit)
        except TimeoutError:
            raise Refused("timeout", f"no answer within {timeout:g} seconds") from None
        except aiohttp.ClientConnectorDNSError as e:
            raise Refused("dns", str(e.os_error)) from None
        except aiohttp.ClientSSLError as e:
            raise Refused("tls", str(e)) from None
        except aiohttp.ClientConnectorError as e:
            raise Refused("connect", e.os_error.strerror or str(e.os_error)) from None
        except (aiohttp.ClientError, OSError, ValueError) as e:
            raise Refused("protocol", str(e) or type(e).__name__) from None

    async def _send(
        self, method: str, url: str, body: bytes, headers: Mapping[str, str], limit: asyncio.Timeout
    ) -> Answer:
        where = addresses.place(url)
        if where.address is not None:
            # The connector asks no resolver about those.
            self._judge([where.address])
        sent = {"Content-Type": "application/json", "User-Agent": f"orchestr8d/{__version__}", **headers}
        async with self._open().request(
            method, URL(url, encoded=True), data=body, headers=sent, allow_redirects=False
        ) as response:
            end = limit.when()
            limit.reschedule(None)
            text = (await _beginning(response, end)).decode("utf-8", "replace")
            return Answer(response.status, response.headers.get("Retry-After"), text)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                resolver=_Resolver(self._check), use_dns_cache=False, force_close=True, limit=0
            )
            self._session = aiohttp.ClientSession(
                connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None), skip_auto_headers=["Accept-Encoding"],
            )  # fmt: skip
        return self._session

    async def _check(self, host: str) -> Sequence[addresses.Address]:
        found = [addresses.parse(text) for text in await self._find(host)]
        self._judge(found)
        return found

    def _judge(self, found: Sequence[addresses.Address]) -> None:
        allow = self._allow()
        for address in found:
            if not addresses.is_allowed(address, allow):
                raise Refused("forbidden_address", f"leads to {address}, which is not allowed ([webhooks] allow)")


async def _beginning(response: aiohttp.ClientResponse, end: float | None) -> bytes:
    """What comes of the body until `end`, up to KEPT bytes. The status has come, and counts whatever this becomes."""
    kept = b""
    with suppress(aiohttp.ClientError, TimeoutError):
        async with asyncio.timeout_at(end):
            while len(kept) < KEPT and (chunk := await response.content.read(KEPT - len(kept))):
                kept += chunk
    return kept
