"""What tests of workflows on a store share: definitions from text, a hand that runs them, and what holds always."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from orchestr8d.core import dag, definition, step_input, submit, yaml_text
from orchestr8d.core.decode import convert
from orchestr8d.core.definition import Bounds
from orchestr8d.core.errors import refuse
from orchestr8d.core.model import NewTask
from orchestr8d.core.outcome import Outcome
from orchestr8d.core.submit import Policy
from orchestr8d.core.task_input import TaskIn
from orchestr8d.core.workflow import FINAL, OVER, ROLLBACK, Extension, Head, NewWorkflow, Node, Workflow, WorkflowView
from orchestr8d.store.types import NoticeFilter, WorkflowFilter
from orchestr8d.workflow_engine import WorkflowEngine
from tests.store.helpers import Hand

POLICY = Policy(home="/tmp", in_workflow=True)


def checked(text: str | dict[str, Any], **params: Any) -> definition.Checked:
    raw = yaml_text.read(text.encode()) if isinstance(text, str) else text
    found = definition.check({"name": "w", **raw}, params, POLICY, Bounds(5000, 1000))
    refuse(found.faults)
    return found


def phase(*tasks: str, **more: Any) -> str:
    """A workflow of one phase; `more` is beside it."""
    lines = [f"{name}: {value}" for name, value in more.items()]
    return "\n".join([*lines, "phases:", "  - id: p", "    tasks:", *(f"      - {{{task}}}" for task in tasks)])


class Flows:
    """Runs workflows on a store, as the engine and an executor would; `templates` are those of sub-workflows."""

    def __init__(self, hand: Hand, folder: Path, templates: Mapping[str, str] | None = None) -> None:
        self.hand = hand
        self.store = hand.store
        self.templates = templates or {}
        self.engine = WorkflowEngine(self.store, hand.clock, self._make, self._sub, lambda a: folder / a, folder)
        self.ran: list[str] = []
        self.running: dict[str, Any] = {}

    async def _make(self, head: Head, node: Node, body: dict[str, Any]) -> NewTask:
        task, faults = convert(body, TaskIn)
        refuse(faults)
        assert task is not None
        new = submit.new_task(task, msgspec.structs.replace(POLICY, user_id=head.user_id), faults)
        refuse(faults)
        assert new is not None
        return step_input.finished(new, body.get("options", {}), head.priority)

    async def _sub(self, head: Head, node: Node, params: dict[str, Any]) -> NewWorkflow:
        name = node.read_step().workflow
        assert name is not None
        return self.new(self.templates[name], parent_task=node.task_id, depth=head.depth + 1, params=params)

    def new(self, text: str | dict[str, Any], params: dict[str, Any] | None = None, **more: Any) -> NewWorkflow:
        found = checked(text, **(params or {}))
        return NewWorkflow(
            name=found.definition.name, definition=found.definition, drafts=found.drafts, params=found.params, **more
        )

    async def add(self, text: str | dict[str, Any], params: dict[str, Any] | None = None, **more: Any) -> str:
        body, _ = await self.store.add_workflow(self.new(text, params, **more), lambda w: w.id.encode())
        await self.turn()
        return body.decode()

    async def extend(
        self, workflow_id: str, phases: list[Any] = [], tasks: list[Any] = [], by: str | None = None  # noqa: B006
    ) -> list[str]:
        whole = await self.store.workflow(workflow_id)
        found = definition.extend(
            whole.read_definition(), msgspec.json.decode(whole.params), {f"p{n}.": p for n, p in enumerate(phases)},
            {f"t{n}.": t for n, t in enumerate(tasks)}, POLICY, Bounds(5000, 1000),
        )  # fmt: skip
        refuse(found.faults)
        more = Extension(whole.definition, found.definition, found.drafts)
        body, _ = await self.store.extend_workflow(
            workflow_id, more, by, lambda tasks: " ".join(t.id for t in tasks).encode()
        )
        await self.turn()
        return body.decode().split()

    async def turn(self) -> None:
        """All that is due is done."""
        now = self.hand.clock.now()
        for _ in range(1000):
            due = await self.engine.run_once(now), await self.store.wake_workflows()
            # What a step leaves is there after it, of which the engine is told by the bus.
            if due[0] != 0 and (due[1] is None or due[1] > now):
                return
        raise AssertionError("no end of what is due")

    async def claim(self) -> list[str]:
        """What may run begins to; answers the local ids."""
        await self.turn()
        names = []
        while claims := await self.hand.claim():
            for claim in claims:
                name = claim.task.local_id or claim.task.id
                # The same in another workflow runs already.
                name = name if name not in self.running else f"{name} {claim.task.id}"
                self.running[name] = claim
                names.append(name)
            await self.turn()
        self.ran += names
        return names

    async def end(self, name: str, outcome: Any = "completed") -> None:
        """`outcome`: as of Hand.end, or bytes that the task has said."""
        claim = self.running.pop(name)
        if isinstance(outcome, bytes):
            outcome = Outcome(status="completed", exit_code=0, result_type="text", result=outcome)
        await self.hand.end(claim, outcome)
        await self.turn()

    async def run(self, outcomes: Mapping[str, Any] | None = None) -> list[str]:
        """Until nothing runs any more; answers the local ids in the order in which they began."""
        said = outcomes or {}
        before = len(self.ran)
        while await self.claim() or self.running:
            for name in list(self.running):
                await self.end(name, said.get(name, b"said " + name.encode()))
        return self.ran[before:]

    async def view(self, workflow_id: str) -> WorkflowView:
        return await self.store.workflow_view(workflow_id, results=True)

    async def head(self, workflow_id: str) -> Workflow:
        return await self.store.workflow(workflow_id)

    async def status(self, workflow_id: str) -> str:
        return (await self.store.workflow(workflow_id)).status

    async def states(self, workflow_id: str) -> dict[str, str]:
        view = await self.view(workflow_id)
        return {v.node.id: v.node.state for v in (*view.phases, *view.tasks)}

    async def error(self, workflow_id: str, node_id: str) -> str | None:
        view = await self.view(workflow_id)
        (task,) = [v.task for v in view.tasks if v.node.id == node_id]
        error = None if task is None else task.read_error()
        return None if error is None else error.kind

    async def notices(self) -> list[str]:

        found = await self.store.notices(NoticeFilter(), 1000, None)
        return [n.type for n in found][::-1]


async def check_flows(store: Any) -> None:
    """Counts that are kept equal a recount; what is over is over as a whole."""
    before = None
    while page := await store.workflows(WorkflowFilter(), 100, before):
        before = page[-1].seq
        for head in page:
            check_flow(head, await store.workflow_view(head.id))


def check_flow(head: Workflow, view: WorkflowView) -> None:
    nodes = {v.node.id: v.node for v in (*view.phases, *view.tasks)}
    steps = {n.id: n.read_step() for n in nodes.values() if n.kind != "phase"}
    counted = dag.tally(nodes.values(), steps)
    if head.status not in FINAL and head.started:
        for name, value in counted.items():
            if name == "running":
                value = sum(map(dag.takes_room, nodes.values()))
            assert getattr(head, name) == value, f"{name} of {head.id}: {getattr(head, name)}, counted {value}"
    for scope, mine in ((head, None), *((n, n.id) for n in nodes.values() if n.max_parallel is not None)):
        runs = [n for n in nodes.values() if dag.takes_room(n) and (mine is None or mine in (n.phase, n.parent))]
        assert scope.max_parallel is None or len(runs) <= scope.max_parallel, f"{len(runs)} run in {mine}"
    needed: dict[str, list[Node]] = {}
    for src, dst in view.edges:
        needed.setdefault(dst, []).append(nodes[src])
    for node in nodes.values():
        if node.state == "waiting" and head.started and node.parent is None and node.phase != ROLLBACK != node.id:
            phase = None if node.phase is None else nodes[node.phase]
            assert node.waits == dag.waits_of(node, needed.get(node.id, ()), phase, steps), node
            assert node.waits, node
    if head.status in FINAL:
        assert all(n.state in OVER for n in nodes.values()), {n.id: n.state for n in nodes.values()}
        assert head.open == head.active == head.waiting == head.again == head.running == 0, head
    else:
        assert not head.started or counted["open"] or head.rollback
    for v in (*view.phases, *view.tasks):
        node = v.node
        if node.kind in ("phase", "fan"):
            mine = [n for n in nodes.values() if (n.phase == node.id and n.parent is None and node.kind == "phase")
                    or n.parent == node.id]
            if node.state == "open" or (node.kind == "phase" and node.state == "waiting"):
                assert node.open == sum(n.state not in OVER for n in mine), node
        if v.task is not None:
            over = v.task.completed_at is not None
            assert over == (node.state in OVER or node.state == "again"), (node.id, node.state, v.task.status)
    assert (head.status == "paused") == bool(head.paused and head.status not in FINAL) or not head.started
