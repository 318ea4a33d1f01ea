"""The store's verbs of workflows: each a transaction of the writer, or a read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from orchestr8d.core.evaluation import Decided, Due
from orchestr8d.core.model import Task
from orchestr8d.core.workflow import (
    Archived,
    Extension,
    NewWorkflow,
    Node,
    NodeView,
    Signal,
    Workflow,
    WorkflowView,
)
from orchestr8d.store.sqlite import evaluating, submitting, workflow_rows, workflow_upkeep, workflows
from orchestr8d.store.sqlite.connections import Connections
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import Created, ExpiredWorkflow, Idempotency, Mark, Retention, WorkflowFilter


class WorkflowVerbs(Connections):
    """Implements store.WorkflowStore."""

    async def add_workflow(
        self, new: NewWorkflow, answer: Callable[[Workflow], bytes], once: Idempotency | None = None
    ) -> tuple[bytes, bool]:
        def unit(tx: Tx) -> Created:
            self._check_space(tx)
            return submitting.once(tx, once, lambda: Created([], answer(workflows.add(tx, self._follower, new))))

        created = await self._writer.do(unit)
        return created.body, created.replayed

    async def extend_workflow(
        self, workflow_id: str, more: Extension, by: str | None, answer: Callable[[Sequence[Task]], bytes],
        once: Idempotency | None = None,
    ) -> tuple[bytes, bool]:  # fmt: skip
        def add(tx: Tx) -> Created:
            return Created([], answer(workflows.extend(tx, self._follower, workflow_id, more, by)))

        def unit(tx: Tx) -> Created:
            self._check_space(tx)
            return submitting.once(tx, once, lambda: add(tx))

        created = await self._writer.do(unit)
        return created.body, created.replayed

    async def _steer(self, workflow_id: str, do: Callable[..., object], *args: object) -> Workflow:
        def unit(tx: Tx) -> Workflow:
            do(tx, self._follower, workflow_id, *args)
            # What its own change has caused (a sub-workflow's end, say) is part of the answer.
            tx.follow_up()
            return workflow_rows.workflow(tx.db, workflow_id)

        return await self._writer.do(unit)

    async def begin_workflow(self, workflow_id: str) -> Workflow:
        return await self._steer(workflow_id, workflows.begin)

    async def pause_workflow(self, workflow_id: str) -> Workflow:
        return await self._steer(workflow_id, workflows.pause)

    async def resume_workflow(self, workflow_id: str) -> Workflow:
        return await self._steer(workflow_id, workflows.resume)

    async def cancel_workflow(self, workflow_id: str) -> Workflow:
        return await self._steer(workflow_id, workflows.cancel)

    async def retry_workflow(self, workflow_id: str, from_phase: str | None) -> Workflow:
        return await self._steer(workflow_id, workflows.retry, from_phase)

    async def send_signal(self, workflow_id: str, name: str, payload: Any) -> Signal:
        return await self._writer.do(lambda tx: workflows.signal(tx, self._follower, workflow_id, name, payload))

    async def answer_approval(self, workflow_id: str, task: str, approved: bool, comment: str | None) -> NodeView:
        return await self._writer.do(
            lambda tx: workflows.approve(tx, self._follower, workflow_id, task, approved, comment)
        )

    async def add_milestone(self, workflow_id: str, text: str) -> Workflow:
        def unit(tx: Tx) -> Workflow:
            workflows.add_milestone(tx, workflow_id, text)
            return workflow_rows.workflow(tx.db, workflow_id)

        return await self._writer.do(unit)

    # -- read

    async def workflow(self, workflow_id: str) -> Workflow:
        return await self._read(workflow_rows.workflow, workflow_id)

    async def workflows(self, wanted: WorkflowFilter, limit: int, before: int | None) -> list[Workflow]:
        return await self._read(workflows.listed, wanted, limit, before)

    async def workflow_view(self, workflow_id: str, *, results: bool = False) -> WorkflowView:
        return await self._read(workflows.view, workflow_id, results)

    async def node_of(self, task_id: str) -> Node | None:
        return await self._read(workflows.node_of, task_id)

    async def archive(self, q: str | None, limit: int, before: int | None) -> list[Archived]:
        return await self._read(workflows.archive, q, limit, before)

    async def archived(self, workflow_id: str) -> Archived:
        return await self._read(workflows.archived, workflow_id)

    # -- for the engine

    async def wake_workflows(self) -> int | None:
        return await self._writer.do(lambda tx: evaluating.wake(tx, self._follower))

    async def due_nodes(self, limit: int) -> list[Due]:
        return await self._read(evaluating.due, limit)

    async def decided(self, decided: Decided) -> None:
        await self._writer.do(lambda tx: evaluating.apply(tx, self._follower, self._limits, decided))

    async def marks(self, after: int, limit: int) -> list[Mark]:
        return await self._read(evaluating.marks, after, limit)

    async def marked(self, mark: Mark) -> Due | None:
        return await self._read(evaluating.marked, mark)

    async def reached(self, mark: Mark, text: str) -> None:
        await self._writer.do(lambda tx: evaluating.reached(tx, mark, text))

    async def keep_report(self, mark: Mark, report: str) -> None:
        await self._writer.do(lambda tx: evaluating.archived(tx, mark, report))

    # -- upkeep

    async def expired_workflow(self, retention: Retention) -> ExpiredWorkflow | None:
        return await self._read(workflow_upkeep.expired, retention, self._clock.now())

    async def remove_workflow(self, workflow_id: str) -> None:
        await self._writer.do(lambda tx: workflow_upkeep.remove(tx, workflow_id, self._limits.budgets))
