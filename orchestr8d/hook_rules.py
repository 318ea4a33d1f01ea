"""Turns hooks that were taken in into tasks, behind the answer that was given already."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import structlog

from orchestr8d.clock import Clock
from orchestr8d.core import hooks
from orchestr8d.core.errors import Problem
from orchestr8d.core.hooks import Rule
from orchestr8d.core.template_work import TemplateError
from orchestr8d.tokens import Caller

Hook = Mapping[str, Any]

# So many hooks wait, of so many bytes together; what comes past that is dropped.
MOST: Final = 1000
MOST_BYTES: Final = 64 << 20
# Larger ones are worked on in a thread: what is done with them is bounded, but others would feel it. For the rest the
# way to a thread and back takes longer than the work.
LARGE: Final = 64 << 10
# So many are worked on side by side: their tasks share a commit.
WORKERS: Final = 16
# Between two log lines that hooks were dropped.
QUIET: Final = 10.0


class Asked(msgspec.Struct, frozen=True):
    """A task that a rule asks for. With a `debounce` (seconds) it stands for those with the same `key`."""

    task: dict[str, Any]
    key: str = ""
    debounce: float | None = None


class _Taken(msgspec.Struct, frozen=True):
    hook: Hook
    caller: Caller
    size: int


class HookRules:
    """The rules of the configuration over the hooks that come. `submit` makes a task with the caller's rights and
    answers its id; `count` is told what became of a hook or rule: `unmatched`, `submitted`, `failed`, `dropped`."""

    def __init__(
        self, clock: Clock, rules: Callable[[], Sequence[Rule]], submit: Callable[[Caller, Asked], Awaitable[str]],
        count: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._rules = rules
        self._submit = submit
        self._count = count
        self._waiting: asyncio.Queue[_Taken] = asyncio.Queue(MOST)
        # Those of one key follow each other in the order in which they came.
        self._debounced = asyncio.Lock()
        self._bytes = 0
        self._dropped = 0
        self._said = -QUIET

    def take(self, hook: Hook, caller: Caller, size: int) -> None:
        """Notes a hook whose body had `size` bytes. Costs next to nothing when no rule is for its event."""
        event = hook.get("hook_event_name")
        if not any(hooks.may_match(rule, event) for rule in self._rules()):
            self._count("unmatched")
        elif self._waiting.full() or self._bytes + size > MOST_BYTES:
            self._drop()
        else:
            self._bytes += size
            self._waiting.put_nowait(_Taken(hook, caller, size))

    def _drop(self) -> None:
        self._count("dropped")
        self._dropped += 1
        now = self._clock.monotonic()
        if now - self._said >= QUIET:
            structlog.get_logger().warning("hooks come faster than tasks are made of them", dropped=self._dropped)
            self._said, self._dropped = now, 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as workers:
            for _ in range(WORKERS):
                workers.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self.run_once()

    async def run_once(self) -> None:
        """Waits for a hook and does what the rules say. Whatever is wrong with it is logged, and goes no further."""
        taken = await self._waiting.get()
        rules = self._rules()
        try:
            large = taken.size > LARGE
            found = await asyncio.to_thread(_found, rules, taken.hook) if large else _found(rules, taken.hook)
            if not found:
                self._count("unmatched")
            for number, result in found:
                if rules[number].debounce is None:
                    await self._make(number, rules[number], taken, result)
                else:
                    async with self._debounced:
                        await self._make(number, rules[number], taken, result)
        except Exception:
            structlog.get_logger().exception("a hook was not worked on", hook=_shown(taken.hook))
        finally:
            self._bytes -= taken.size

    async def _make(self, number: int, rule: Rule, taken: _Taken, result: dict[str, Any] | TemplateError) -> None:
        log = structlog.get_logger().bind(hook=_shown(taken.hook), rule=number)
        if isinstance(result, TemplateError):
            self._count("failed")
            log.warning("a hook made no task: its template fails", reason=f"task.{result}")
            return
        asked = Asked(result)
        if rule.debounce is not None:
            asked = Asked(result, _key(number, taken), rule.debounce)
        try:
            task_id = await self._submit(taken.caller, asked)
        except Problem as problem:
            self._count("failed")
            log.warning("a hook made no task: it is refused", reason=problem.detail)
        else:
            self._count("submitted")
            log.info("a hook made a task", task_id=task_id)


def _found(rules: Sequence[Rule], hook: Hook) -> list[tuple[int, dict[str, Any] | TemplateError]]:
    """The rules that match, by number, each with the task that it asks for."""
    found: list[tuple[int, dict[str, Any] | TemplateError]] = []
    for number, rule in enumerate(rules):
        if hooks.matches(rule, hook):
            try:
                found.append((number, hooks.task(rule, hook)))
            except TemplateError as error:
                found.append((number, error))
    return found


def _key(number: int, taken: _Taken) -> str:
    """Names a rule and a session, and whose they are: nobody's hook changes the task of another's."""
    of = msgspec.json.encode([number, taken.caller.user_id, taken.hook.get("session_id")])
    return f"hook:{hashlib.sha256(of).hexdigest()[:32]}"


def _shown(hook: Hook) -> str:
    return str(hook.get("hook_event_name"))[:100]
