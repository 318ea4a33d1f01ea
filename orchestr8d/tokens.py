"""Whose a bearer token is: the first token in its file, stored ones by hash, those of attempts by their signature."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import msgspec

from orchestr8d.clock import Clock
from orchestr8d.core import signature
from orchestr8d.core.model import Scope, Token

PREFIX: Final = "o8d_"
_ATTEMPT: Final = "o8d_a."


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks. `attempt_id` is set for a task's own token (it has that task's rights, whatever `scope` says)."""

    token_id: str
    name: str
    scope: Scope
    user_id: str | None = None
    runners: list[str] | None = None
    agents: list[str] | None = None
    task_id: str | None = None
    attempt_id: str | None = None


def hash_of(token: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(_bytes(token)).hexdigest()


class TokenKeeper:
    """Mints tokens and knows them again.

    Keeps three files in the state directory, all 0600, made at first start: `token` (scope admin), `auth-header` (for
    `curl -H @auth-header`) and `secret` (signs the tokens that are minted, so that none needs to be stored).
    """

    def __init__(self, state: Path, clock: Clock) -> None:
        self._clock = clock
        self._secret = bytes.fromhex(_kept(state / "secret", lambda: secrets.token_hex(32)))
        first = _kept(state / "token", lambda: PREFIX + secrets.token_urlsafe(32))
        header = f"Authorization: Bearer {first}\n"
        if not (state / "auth-header").exists() or (state / "auth-header").read_text() != header:
            _write(state / "auth-header", header)
        caller = Caller(token_id="first", name="first token", scope="admin")  # noqa: S106 (an id, no secret)
        self._known: dict[str, tuple[Caller, int | None]] = {hash_of(first): (caller, None)}

    def load(self, tokens: Iterable[Token]) -> None:
        """What the store holds, at start."""
        for token in tokens:
            self.add(token)

    def add(self, token: Token) -> None:
        caller = Caller(
            token_id=token.id, name=token.name, scope=token.scope, user_id=token.user_id, runners=token.runners,
            agents=token.agents,
        )  # fmt: skip
        self._known[token.hash] = (caller, token.expires_at)

    def remove(self, token_id: str) -> None:
        """A revoked token is unknown from now on."""
        self._known = {h: entry for h, entry in self._known.items() if entry[0].token_id != token_id}

    def mint(self, token_id: str) -> str:
        """The text of the token with this id; the same each time, so that a repeated request can be answered."""
        return PREFIX + self._sign("token", token_id)

    def attempt_token(self, attempt_id: str) -> str:
        """What an attempt's environment carries. It is good for as long as the attempt runs; the gate looks."""
        return f"{_ATTEMPT}{attempt_id}.{self._sign('attempt', attempt_id)}"

    def authenticate(self, bearer: str) -> Caller | None:
        """Whose token it is; None for one that is unknown, revoked or expired."""
        if bearer.startswith(_ATTEMPT):
            return self._attempt(bearer)
        known = self._known.get(hash_of(bearer))
        if known is None:
            return None
        caller, expires_at = known
        return None if expires_at is not None and expires_at <= self._clock.now() else caller

    def _attempt(self, bearer: str) -> Caller | None:
        attempt_id, _, signature = bearer.removeprefix(_ATTEMPT).partition(".")
        if not hmac.compare_digest(_bytes(signature), self._sign("attempt", attempt_id).encode()):
            return None
        return attempt_caller(attempt_id)

    def _sign(self, use: str, what: str) -> str:
        # Keyed BLAKE2 is a MAC (RFC 7693, section 2.9), at a tenth of what an HMAC costs.
        digest = hashlib.blake2b(_bytes(f"{use}:{what}"), key=self._secret, digest_size=32).digest()
        return urlsafe_b64encode(digest).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    # A header may hold any bytes; as text they are what surrogateescape makes of them.
    return text.encode(errors="surrogateescape")


def attempt_caller(attempt_id: str) -> Caller:
    """A caller inside an attempt; whose task that is, whoever runs it knows."""
    return Caller(token_id=f"attempt:{attempt_id}", name="attempt", scope="read", attempt_id=attempt_id)


def _kept(path: Path, make: Callable[[], str]) -> str:
    """The file's one line; made when it is missing or empty."""
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        text = ""
    if text:
        path.chmod(0o600)
        return text
    text = make()
    _write(path, text + "\n")
    return text


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and never readable by others."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def webhook_secret(state: Path) -> str:
    """What signs callbacks and notification posts: the state directory's `webhook-secret`, made at first start."""
    return _kept(state / "webhook-secret", lambda: signature.make_secret(secrets.token_bytes(32)))
