"""Tokens: made, listed without their text, revoked."""

from __future__ import annotations

from typing import Annotated

import msgspec
from aiohttp import web

from orchestr8d import tokens as keeper
from orchestr8d.core import durations, model
from orchestr8d.core.errors import Fault, Problem
from orchestr8d.core.ids import uuid7
from orchestr8d.core.task_input import Key, Name
from orchestr8d.status_api import cursors, respond, views
from orchestr8d.status_api.cursors import Page
from orchestr8d.status_api.route import Call, Route
from orchestr8d.status_api.services import Services


class TokenIn(msgspec.Struct, forbid_unknown_fields=True):
    """A token to make. `expires` is a time with an offset, or a duration from now on."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    scope: model.Scope
    user_id: Key | None = None
    runners: Annotated[list[Name], msgspec.Meta(min_length=1, max_length=100)] | None = None
    agents: Annotated[list[Key], msgspec.Meta(min_length=1, max_length=1000)] | None = None
    expires: Annotated[str, msgspec.Meta(max_length=100)] | Annotated[float, msgspec.Meta(gt=0)] | None = None


def _expiry(expires: str | float | None, now: int) -> int | None:
    """In wall-clock milliseconds. Raises Problem for what is no time, or is past already."""
    if expires is None:
        return None
    try:
        if isinstance(expires, str) and not durations.is_duration(expires):
            at = durations.parse_time(expires)
        else:
            at = now + round(durations.seconds(expires) * 1000)
        if at <= now:
            raise ValueError("is not in the future")
    except ValueError as e:
        raise Problem("invalid", f"expires: {e}", [Fault("expires", str(e))]) from None
    return at


async def create(services: Services, call: Call) -> web.Response:
    wanted: TokenIn = call.body
    now = services.clock.now()
    token_id = uuid7(now)
    row = model.Token(
        token_id, wanted.name, keeper.hash_of(services.tokens.mint(token_id)), wanted.scope, wanted.user_id,
        wanted.runners, wanted.agents, now, _expiry(wanted.expires, now),
    )  # fmt: skip
    body, replayed = await services.store.add_token(row, respond.encode(views.token(row)), call.once)
    if not replayed:
        services.tokens.add(row)
    # What is kept for a repeated request has no secret in it: the text is minted again.
    shown = msgspec.json.decode(body, type=views.Token)
    answer = views.NewToken(services.tokens.mint(shown.token_id), *msgspec.structs.astuple(shown))
    return respond.json(answer, 200 if replayed else 201)


async def index(services: Services, call: Call) -> web.Response:
    found = await services.store.tokens()
    shown, more = cursors.page("tokens", found, lambda token: token.id, call.query, newest_first=True)
    return respond.json(views.Tokens([views.token(row) for row in shown], more))


async def revoke(services: Services, call: Call) -> web.Response:
    token_id = call.path("id")
    row = next((token for token in await services.store.tokens() if token.id == token_id), None)
    if row is None:
        raise Problem("not-found", f"there is no token {token_id}")
    await services.store.revoke_token(token_id)
    services.tokens.remove(token_id)
    return respond.json(views.token(row))


ROUTES = (
    Route(
        "POST", "/api/v1/tokens", create, "Make a token; its text is shown this once", "admin",
        {201: views.NewToken, 200: views.NewToken}, (409,), body=TokenIn, body_required=True, once=True,
    ),
    Route("GET", "/api/v1/tokens", index, "List tokens, newest first", "admin", {200: views.Tokens}, query=Page),
    Route("DELETE", "/api/v1/tokens/{id}", revoke, "Revoke a token", "admin", {200: views.Token}),
)  # fmt: skip
