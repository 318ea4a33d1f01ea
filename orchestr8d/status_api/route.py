"""A route as data: the application, the gate, the OpenAPI document and the tests are all made from these."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec
from aiohttp import web

from orchestr8d.core.errors import Fault
from orchestr8d.core.model import Scope
from orchestr8d.status_api.services import Services
from orchestr8d.store.types import Idempotency
from orchestr8d.tokens import Caller

# What a task's own token may do with a route: nothing; use it for its own task, and read tasks of its workflow by it;
# use it for its own workflow; or be told why not by the handler.
Inside = Literal["no", "own", "workflow", "any"]


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No fields: the query or body of a route that takes none."""


@dataclass(frozen=True)
class Media:
    """An answer that is no JSON. `stream`: of events, rather than one text."""

    content_type: str
    description: str
    stream: bool = False


Answer = type | Media
# A body of any JSON, of which an empty one is null.
ANY: Final[Any] = Any


@dataclass(slots=True)
class Call:
    """One request that passed the gate."""

    request: web.Request
    caller: Caller
    query: Any
    body: Any
    # Set when the route creates and the client gave an Idempotency-Key.
    once: Idempotency | None
    # Whose request it is by now: for what stays open. Raises Problem when the token is revoked or has expired.
    recheck: Callable[[], Caller]

    def path(self, name: str) -> str:
        return self.request.match_info[name]


Handler = Callable[[Services, Call], Awaitable[web.StreamResponse]]
# Further faults of a request that is refused: of its body there is what is right of it (core.decode.decode_json).
Also = Callable[[Services, Call], Awaitable[list[Fault]]]


@dataclass(frozen=True)
class Route:
    """`scope` None is open to everybody. `answers` are what a good request gets, by status: a type to be encoded as
    JSON, a Media, or several of them by what the query asks for. `problems` are the statuses beside those that
    every route of its sort can answer."""

    method: str
    path: str
    handler: Handler
    summary: str
    scope: Scope | None
    answers: Mapping[int, Answer | tuple[Answer, ...]]
    problems: tuple[int, ...] = ()
    body: type = Nothing
    # Without it an empty body is as good as `{}`.
    body_required: bool = False
    query: type[msgspec.Struct] = Nothing
    # What the handler would refuse a body for, so that all its faults are listed with those of the types.
    also: Also | None = None
    # Takes a document of YAML too: body and query are then handed over as they came, as bytes and as lists by name.
    yaml: bool = False
    # Takes an Idempotency-Key.
    once: bool = False
    inside: Inside = "no"
    # Other request headers that it reads, and response headers by status: name → what it says.
    request_headers: Mapping[str, str] = field(default_factory=dict)
    response_headers: Mapping[int, Mapping[str, str]] = field(default_factory=dict)

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    @property
    def template(self) -> str:
        """The path as OpenAPI writes it: `/files/{path}`, without patterns."""
        return self.path.replace(":.+}", "}")

    def answers_of(self, status: int) -> tuple[Answer, ...]:
        found = self.answers[status]
        return found if isinstance(found, tuple) else (found,)

    def statuses(self) -> list[int]:
        """Every problem that it can answer."""
        found = {400, *self.problems}
        found |= {403} if self.scope is None else {401, 403, 503}
        if self.writes:
            found |= {413, 415}
        if "{" in self.path:
            found.add(404)
        return sorted(found - set(self.answers))
