"""What a request brings: its body, bounded while it is read, its query and its idempotency key, all faults at once."""

from __future__ import annotations

import hashlib
import re
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from orchestr8d.core.decode import convert, decode_json
from orchestr8d.core.errors import Fault, Problem, refuse
from orchestr8d.status_api.route import ANY, Route
from orchestr8d.store.types import Idempotency
from orchestr8d.tokens import Caller

_KEY = re.compile(r"[\x21-\x7e]{1,255}")
# So many values one filter may have.
_MOST_VALUES = 100


@dataclass(frozen=True)
class Inputs:
    """How one route's requests are decoded."""

    route: Route
    decoder: msgspec.json.Decoder[Any] = field(init=False)
    # What stands for an empty body; the query of a request that has none, and the parameters that may be given more
    # than once.
    no_body: bytes = field(init=False)
    no_query: Any = field(init=False)
    repeatable: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        fields = msgspec.structs.fields(self.route.query)
        lists = frozenset(f.encode_name for f in fields if typing.get_origin(f.type) is list)
        object.__setattr__(self, "decoder", msgspec.json.Decoder(self.route.body))
        object.__setattr__(self, "no_body", b"null" if self.route.body is ANY else b"{}")
        object.__setattr__(self, "no_query", self.route.query())
        object.__setattr__(self, "repeatable", lists)

    def decode(
        self, request: web.Request, caller: Caller, body: bytes
    ) -> tuple[Any, Any, Idempotency | None, list[Fault]]:
        """Query, body and idempotency key, and the faults of all three; with any, of the body what is right of it."""
        if self.route.yaml and is_yaml(request):
            return self._as_it_came(request, caller, body)
        query, faults = self._query(request)
        once = self._once(request, caller, body, faults) if self.route.once else None
        value = None
        if self.route.writes:
            given = body if body or self.route.body_required else self.no_body
            value, wrong = decode_json(given, self.decoder)
            faults += wrong
        return query, value, once, faults

    def _as_it_came(
        self, request: web.Request, caller: Caller, body: bytes
    ) -> tuple[dict[str, list[str]], bytes, Idempotency | None, list[Fault]]:
        faults: list[Fault] = []
        query = {name: request.query.getall(name) for name in dict.fromkeys(request.query)}
        once = None
        if self.route.once:
            once = self._once(request, caller, request.rel_url.raw_query_string.encode() + b"\0" + body, faults)
        return query, body, once, faults

    def _query(self, request: web.Request) -> tuple[Any, list[Fault]]:
        if not request.query_string:
            return self.no_query, []
        given: dict[str, Any] = {}
        faults: list[Fault] = []
        for name, text in request.query.items():
            if name in self.repeatable:
                given.setdefault(name, []).append(text)
            elif name in given:
                faults.append(Fault(name, "given more than once"))
            else:
                given[name] = text
        query, wrong = convert(given, self.route.query, strict=False)
        # Lenient decoding takes the text `null` for None, but no parameter is given in order to be absent.
        nulls = [
            Fault(name, "expected a value") for name in given if query is not None and getattr(query, name) is None
        ]
        return query, faults + wrong + nulls

    def _once(self, request: web.Request, caller: Caller, body: bytes, faults: list[Fault]) -> Idempotency | None:
        keys = request.headers.getall("Idempotency-Key", None)
        if keys is None:
            return None
        if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
            faults.append(Fault("Idempotency-Key", "expected one key of 1 to 255 visible ASCII characters"))
            return None
        # The path counts as part of what is asked for: one key must not stand for two tasks' retries.
        digest = hashlib.sha256(request.rel_url.raw_path.encode() + b"\0" + body).hexdigest()
        return Idempotency(f"{caller.token_id} {self.route.method} {self.route.template}", keys[0], digest)


def distinct(name: str, given: Iterable[str]) -> tuple[str, ...]:
    """The values of a filter, each once. Raises Problem when there are more than anybody asks for."""
    values = tuple(dict.fromkeys(given))
    if len(values) > _MOST_VALUES:
        refuse([Fault(name, f"more than {_MOST_VALUES} values")])
    return values


def is_yaml(request: web.Request) -> bool:
    return _content_type(request) == "application/yaml"


def _content_type(request: web.Request) -> str:
    return request.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def check_content_type(request: web.Request, route: Route) -> None:
    """Raises Problem for a body that is not declared to be JSON, or YAML: an HTML form cannot declare that."""
    if request.headers.get("Content-Type") != "application/json" and _content_type(request) != "application/json":
        if not route.yaml:
            raise Problem("unsupported-media-type", "the body must be sent as Content-Type: application/json")
        if not is_yaml(request):
            message = "the body must be sent as Content-Type: application/json, or as application/yaml"
            raise Problem("unsupported-media-type", message)
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem("unsupported-media-type", "the body must be sent as it is, without a Content-Encoding")


async def read_body(request: web.Request, limit: int) -> bytes:
    """The whole body. Problem as soon as it is clear that it is longer than `limit` bytes."""
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit)
    if request.headers.get("Expect"):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    chunks: list[bytes] = []
    size = 0
    while chunk := await request.content.readany():
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int) -> Problem:
    return Problem("too-large", f"the body is longer than {limit} bytes ([server] max_body)")
