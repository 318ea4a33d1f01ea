"""The store's verbs of schedules: each a transaction of the writer, or a read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from orchestr8d.core.schedules import Firing, FiringView, NewSchedule, Schedule, Step
from orchestr8d.store.sqlite import firing, schedules, submitting
from orchestr8d.store.sqlite.connections import Connections
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import Created, Idempotency, Reconciled, Stale


class ScheduleVerbs(Connections):
    """Implements store.ScheduleStore."""

    async def add_schedules(
        self, new: Sequence[NewSchedule], answer: Callable[[Sequence[Schedule]], bytes], once: Idempotency | None = None
    ) -> tuple[bytes, bool]:
        def unit(tx: Tx) -> Created:
            self._check_space(tx)
            return submitting.once(tx, once, lambda: Created([], answer(schedules.add(tx, new))))

        created = await self._writer.do(unit)
        return created.body, created.replayed

    async def change_schedule(self, name: str, decide: Callable[[Schedule], Schedule]) -> Schedule:
        return await self._writer.do(lambda tx: schedules.change(tx, name, decide))

    async def remove_schedule(self, name: str) -> Schedule:
        gone = await self._writer.do(lambda tx: schedules.remove(tx, name))
        # What a crash leaves of its firings is past its keep one day.
        while await self._writer.do(lambda tx: schedules.forget(tx, gone.id)):
            pass
        return gone

    async def reconcile_schedules(self, said: Sequence[NewSchedule]) -> Reconciled:
        return await self._writer.do(lambda tx: schedules.reconcile(tx, said))

    # -- read

    async def schedule(self, name: str) -> Schedule:
        return await self._read(schedules.named, name)

    async def schedules(self, q: str | None, limit: int, before: int | None) -> list[Schedule]:
        return await self._read(schedules.listed, q, limit, before)

    async def firings(self, schedule_id: str, limit: int, before: int | None) -> list[FiringView]:
        return await self._read(schedules.history, schedule_id, limit, before)

    # -- for the ticker

    async def next_schedule(self) -> int | None:
        return await self._read(schedules.next_due)

    async def due_schedules(self, after: tuple[int, int], until: int, limit: int) -> list[Schedule]:
        return await self._read(schedules.due, after, until, limit)

    async def advance(self, step: Step) -> tuple[Firing | None, bool]:
        def unit(tx: Tx) -> tuple[Firing | None, bool]:
            self._check_space(tx)
            return firing.advance(tx, self._follower, self._limits, step)

        return await self._writer.do(unit)

    async def trigger(
        self, step: Step, answer: Callable[[Firing], bytes], once: Idempotency | None = None
    ) -> tuple[bytes, bool]:
        def unit(tx: Tx) -> Created:
            self._check_space(tx)
            return submitting.once(tx, once, lambda: fired(tx))

        def fired(tx: Tx) -> Created:
            done, _ = firing.advance(tx, self._follower, self._limits, step)
            if done is None:
                raise Stale
            return Created([], answer(done))

        created = await self._writer.do(unit)
        return created.body, created.replayed

    async def rechecked(self, found: Sequence[tuple[Schedule, int | None]]) -> None:
        await self._writer.do(lambda tx: schedules.rechecked(tx, found))
