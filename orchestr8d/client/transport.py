"""What a verb needs of a client: how a request becomes an answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from orchestr8d.client.requests import Request
from orchestr8d.clock import Clock
from orchestr8d.core.ids import uuid7

# What a verb gives: a document, a list of documents, a text; or promises of them.
One = TypeVar("One")
Many = TypeVar("Many")
Text = TypeVar("Text")


class Transport(ABC, Generic[One, Many, Text]):
    """Every request raises ApiError when the daemon refuses, and NoDaemon when there is none."""

    _clock: Clock

    @abstractmethod
    def _one(self, request: Request) -> One: ...

    @abstractmethod
    def _many(self, request: Request, key: str) -> Many:
        """The list that stands under `key` in the answer, of all pages."""

    @abstractmethod
    def _text(self, request: Request) -> Text:
        """The answer as it is."""

    def _key(self, given: str | None) -> str:
        """An idempotency key is always sent, so that a request whose connection broke can be sent again."""
        return given or uuid7(self._clock.now())
