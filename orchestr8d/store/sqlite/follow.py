"""What follows from a task's end or a key's release, in the same transaction: dependents go on or are cut off, the next
of a key may run, what the task asked for its end is done. No sweep is needed, and none can be missed."""

from __future__ import annotations

from collections.abc import Sequence

from orchestr8d.core import admission, claims
from orchestr8d.core.model import Task
from orchestr8d.store.sqlite import endings, funds, graph, overlaps, reads
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import Limits

_KEYED = "status = 'queued' AND hold IS NOT 'workflow' AND concurrency_key IS NOT NULL AND concurrency_key = "
_KEY_PLACES = reads.places("tasks_key", f"{_KEYED} :key")
_KEY_FIRST = f"{_KEYED} ? AND queue = ? AND lane = ? ORDER BY rank, seq LIMIT ?"
# The index is named: left to itself, SQLite would rather walk through everything that is queued.
_KEY_OPEN = (
    "seq IN (SELECT seq FROM tasks INDEXED BY tasks_key_open "
    "WHERE status = 'queued' AND concurrency_key IS NOT NULL AND hold IS NULL AND concurrency_key = ?)"
)


# Dependents that one transaction tells of an end; a longer cascade goes on in the next, from its durable marks.
CASCADE_STEP = 1000


class Follower:
    """Holds what the decisions need; a reload exchanges the limits."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.last_queued_at = 0
        # Of workflows in which tasks wait to have phases run again: for whose ends they wait at least. Where it is not
        # known, all of the workflow is looked at, which is long to do at each end.
        self.busy: dict[str, Sequence[str]] = {}

    def __call__(self, tx: Tx) -> None:
        left = CASCADE_STEP
        while (tx.ended or tx.orphans or tx.stand_ins) and left > 0:
            batch, tx.ended = tx.ended, []
            of_workflows = [task for task in batch if task.workflow_id is not None]
            if of_workflows:
                graph.ended(tx, self, of_workflows)
            while batch and left > 0:
                left -= self._release_dependents(tx, batch.pop(), left)
            self._mark(tx, batch)
            self._tell_workflows(tx)
        while tx.orphans or tx.stand_ins:
            self._tell_workflows(tx)
        if tx.ended:
            self._mark(tx, tx.ended)
            tx.ended.clear()
        finals, tx.finals = tx.finals, []
        for task in finals:
            endings.ended(tx, task)
            if task.schedule_id is not None:
                overlaps.over(tx, task.id)
        gone, tx.left = tx.left, []
        for task in gone:
            funds.release(tx, self.limits.budgets, task)
        for key in sorted(tx.keys):
            self._window(tx, key)
        tx.keys.clear()

    def go_on(self, tx: Tx) -> bool:
        """Takes up what an earlier transaction left undone of a cascade; True when there was something."""
        marked = [row[0] for row in tx.db.execute("SELECT task_id FROM loose_ends LIMIT ?", (CASCADE_STEP,))]
        tx.db.executemany("DELETE FROM loose_ends WHERE task_id = ?", [(task_id,) for task_id in marked])
        tx.ended += [task for task_id in marked if (task := reads.find(tx.db, task_id)) is not None]
        if marked:
            self(tx)
        return bool(marked)

    def _tell_workflows(self, tx: Tx) -> None:
        """Sub-workflows whose tasks ended without them; those whose sub-workflows are blocked, or not any more."""
        moved, tx.stand_ins = tx.stand_ins, []
        for task_id in moved:
            graph.sub_moved(tx, self, task_id)
        gone, tx.orphans = tx.orphans, []
        for task_id in gone:
            sql = "SELECT id FROM workflows WHERE parent_task = ? AND completed_at IS NULL"
            for (workflow_id,) in tx.db.execute(sql, (task_id,)).fetchall():
                graph.cancel(tx, self, workflow_id)

    @staticmethod
    def _mark(tx: Tx, ended: Sequence[Task]) -> None:
        tx.db.executemany("INSERT OR IGNORE INTO loose_ends (task_id) VALUES (?)", [(task.id,) for task in ended])
        # No event says that something is due at once.
        tx.quiet += [task.id for task in ended]

    def _release_dependents(self, tx: Tx, ended: Task, most: int) -> int:
        """Tells up to `most` tasks that wait for `ended`; answers how many it told."""
        edges = tx.db.execute(
            "SELECT task_id, kind FROM task_deps WHERE depends_on = ? LIMIT ?", (ended.id, most)
        ).fetchall()
        if len(edges) == most:
            self._mark(tx, [ended])
        for task_id, kind in edges:
            # Read anew: an earlier edge may have moved it.
            task = reads.task(tx.db, task_id)
            if task.status != "pending":
                continue
            error = admission.dependency_ended(task, ended, kind)
            if error is not None:
                tx.apply(admission.finalise(task, "failed", tx.now, error))
                continue
            tx.db.execute(
                "DELETE FROM task_deps WHERE depends_on = ? AND task_id = ? AND kind = ?", (ended.id, task_id, kind)
            )
            task = tx.apply(admission.Change(task, {"blockers": task.blockers - 1}, []))
            if admission.may_queue(task, tx.now):
                self.enqueue(tx, task)
        return len(edges)

    def enqueue(self, tx: Tx, task: Task) -> Task:
        task = tx.apply(admission.enqueue(task, tx.now, self.last_queued_at, self.limits.head_start))
        self.note(task)
        return task

    def note(self, task: Task) -> None:
        """queued_at never runs backwards, whatever the clock does."""
        if task.queued_at is not None:
            self.last_queued_at = max(self.last_queued_at, task.queued_at)

    def key_free(self, tx: Tx, key: str) -> int:
        """How many more tasks of this key may run."""
        keyed = "concurrency_key IS NOT NULL AND concurrency_key = ?"
        sql = f"SELECT count(*) FROM tasks WHERE {reads.BUSY_SQL} AND {keyed}"
        running: int = tx.db.execute(sql, (key,)).fetchone()[0]
        return self.limits.per_key - running

    def _window(self, tx: Tx, key: str) -> None:
        free = self.key_free(tx, key)
        first: list[Task] = []
        if free > 0:
            for queue, lane in tx.db.execute(_KEY_PLACES, {"key": key}).fetchall():
                first += reads.tasks(tx.db, _KEY_FIRST, key, queue, lane, free)
        change = claims.window(first, reads.tasks(tx.db, _KEY_OPEN, key), free)
        if change.open:
            tx.db.executemany("UPDATE tasks SET hold = NULL WHERE seq = ?", [(seq,) for seq in change.open])
        if change.hold:
            tx.db.executemany(
                "UPDATE tasks SET hold = 'concurrency_key' WHERE seq = ?", [(seq,) for seq in change.hold]
            )
