"""A store of tasks in plain Python, told once more from the contract and without any regard to speed.

Durations are kept on the clock that nobody sets, named times on the wall clock: in seconds both.
"""

from __future__ import annotations

from dataclasses import dataclass, field

WAITING = {"pending", "queued", "retrying"}
FINAL = {"completed", "failed", "cancelled"}


@dataclass
class Row:
    """A task. `wake` and `deadline` are (clock, seconds), where clock is `elapsed` or `wall`."""

    seq: int
    queue: str
    priority: int
    key: str | None = None
    unique: str | None = None
    deps: list[int] = field(default_factory=list)
    allow_failed: bool = False
    max_retries: int = 0
    backoff: int = 1
    deadline: int | None = None
    lasts: int | None = None
    status: str = "pending"
    holds_key: bool = False
    blockers: list[tuple[str, int]] = field(default_factory=list)
    wake: tuple[str, int] | None = None
    paused: bool = False
    queued_at: int | None = None
    attempt: int = 0
    retries: int = 0
    cancel_requested: bool = False


@dataclass
class Settings:
    limit: int | None = None
    rate: tuple[int, int] | None = None
    paused: bool = False


class Conflict(Exception):
    """The store has to refuse this."""


class Model:
    HEAD_START = 900

    def __init__(self, wall: int) -> None:
        self.wall = wall
        self.elapsed = 0
        self.last_queued_at = 0
        self.per_key = 1
        self.rows: dict[int, Row] = {}
        self.queues: dict[str, Settings] = {}
        self.starts: dict[str, list[int]] = {}

    # -- time

    def advance(self, seconds: int) -> None:
        self.wall += seconds
        self.elapsed += seconds

    def reached(self, wake: tuple[str, int]) -> bool:
        return (self.elapsed if wake[0] == "elapsed" else self.wall) >= wake[1]

    # -- submit

    def submit(
        self, row: Row, on_conflict: str = "reject", delay: int | None = None, run_at: int | None = None
    ) -> Row:
        """The row that stands for the submit: the new one, or the holder of its unique key."""
        same = [r for r in self.rows.values() if r.unique == row.unique and r.status not in FINAL]
        same = same if row.unique is not None else []
        holder = next((r for r in same if r.holds_key), None)
        if holder is not None and on_conflict == "existing":
            return holder
        if holder is not None and on_conflict == "reject":
            raise Conflict
        row.deadline = None if row.lasts is None else self.elapsed + row.lasts
        self.rows[row.seq] = row
        if any(self.rows[d].status in ("failed", "cancelled") for d in row.deps) and not row.allow_failed:
            row.status = "failed"
            return row
        row.blockers = [("task", d) for d in row.deps if self.rows[d].status not in FINAL]
        row.blockers += [("unique", r.seq) for r in same if r.status == "running"]
        row.holds_key = row.unique is not None
        if delay:
            row.wake = ("elapsed", self.elapsed + delay)
        elif run_at is not None and run_at > self.wall:
            row.wake = ("wall", run_at)
        if self.may_queue(row):
            self.enqueue(row)
        if holder is not None:
            holder.holds_key = False
            self.cancel(holder)
        return row

    def retry(self, old: Row, seq: int) -> Row:
        if old.status not in ("failed", "cancelled"):
            raise Conflict
        deps = [d for d in old.deps if self.rows[d].status not in FINAL]
        row = Row(seq, old.queue, old.priority, old.key, old.unique, deps, old.allow_failed, old.max_retries,
                  old.backoff, lasts=old.lasts)  # fmt: skip
        return self.submit(row)

    # -- moves

    def may_queue(self, row: Row) -> bool:
        return not row.paused and not row.blockers and (row.wake is None or self.reached(row.wake))

    def enqueue(self, row: Row) -> None:
        self.last_queued_at = max(self.last_queued_at, self.wall)
        row.status, row.queued_at, row.wake = "queued", self.last_queued_at, None

    def end(self, row: Row, status: str) -> None:
        row.status, row.holds_key, row.paused, row.wake, row.blockers = status, False, False, None, []
        for other in list(self.rows.values()):
            for kind in ("task", "unique"):
                if other.status != "pending" or (kind, row.seq) not in other.blockers:
                    continue
                if kind == "task" and status != "completed" and not other.allow_failed:
                    self.end(other, "failed")
                    continue
                other.blockers.remove((kind, row.seq))
                if self.may_queue(other):
                    self.enqueue(other)

    def cancel(self, row: Row) -> None:
        if row.status in FINAL:
            raise Conflict
        if row.status == "running":
            row.cancel_requested = True
        else:
            self.end(row, "cancelled")

    def pause(self, row: Row) -> None:
        if row.status not in ("pending", "queued") or row.paused:
            raise Conflict
        row.status, row.paused, row.queued_at = "pending", True, None

    def resume(self, row: Row) -> None:
        if not row.paused:
            raise Conflict
        row.paused = False
        if self.may_queue(row):
            self.enqueue(row)

    def edit(self, row: Row, priority: int, queue: str, key: str | None, delay: int | None) -> None:
        """`delay` None leaves the time alone, 0 takes it away."""
        if row.status not in WAITING:
            raise Conflict
        if row.attempt and ((queue, key) != (row.queue, row.key) or delay is not None):
            raise Conflict
        row.priority, row.queue, row.key = priority, queue, key
        if delay is not None:
            row.wake = ("elapsed", self.elapsed + delay) if delay else None
        if row.status in ("pending", "queued"):
            if not self.may_queue(row):
                row.status, row.queued_at = "pending", None
            elif row.status == "pending":
                self.enqueue(row)

    # -- run

    def move_due(self) -> None:
        for row in list(self.rows.values()):
            if row.status in WAITING and row.deadline is not None and self.elapsed >= row.deadline:
                self.end(row, "failed")
        for row in list(self.rows.values()):
            if row.wake is not None and self.reached(row.wake):
                if row.status == "retrying" or self.may_queue(row):
                    self.enqueue(row)
                else:
                    row.wake = None

    def rank(self, row: Row) -> tuple[int, int]:
        assert row.queued_at is not None
        return row.queued_at - row.priority * self.HEAD_START, row.seq

    def room(self, queue: str) -> int:
        """How many more of a queue may start now."""
        settings = self.queues.get(queue, Settings())
        running = sum(r.queue == queue and r.status == "running" for r in self.rows.values())
        room = 1000 if settings.limit is None else settings.limit - running
        if settings.rate is not None:
            starts, period = settings.rate
            room = min(room, starts - sum(t > self.elapsed - period for t in self.starts.get(queue, [])))
        return 0 if settings.paused else room

    def claim(self, free: int) -> list[int]:
        """Whoever is first by rank and may run, one by one."""
        self.move_due()
        started: list[int] = []
        for row in sorted((r for r in self.rows.values() if r.status == "queued"), key=self.rank):
            same = sum(r.status == "running" and r.key == row.key for r in self.rows.values())
            if len(started) < free and self.room(row.queue) > 0 and (row.key is None or same < self.per_key):
                row.status = "running"
                row.attempt += 1
                if self.queues.get(row.queue, Settings()).rate is not None:
                    self.starts.setdefault(row.queue, []).append(self.elapsed)
                started.append(row.seq)
        return started

    def finish(self, row: Row, outcome: str) -> None:
        if outcome == "completed":
            self.end(row, "completed")
        elif row.cancel_requested or outcome == "cancelled":
            self.end(row, "cancelled")
        elif outcome == "interrupted":
            row.status = "queued"
        elif (
            outcome == "exit"
            and row.retries < row.max_retries
            and (row.deadline is None or self.elapsed + row.backoff < row.deadline)
        ):
            row.status = "retrying"
            row.retries += 1
            row.wake = ("elapsed", self.elapsed + row.backoff)
        else:
            self.end(row, "failed")

    def restart(self) -> None:
        """Another daemon knows only of what is queued how late the line is."""
        queued = [r.queued_at or 0 for r in self.rows.values() if r.status == "queued"]
        self.last_queued_at = max(queued, default=0)
