"""A workflow within a transaction: walks along its edges and applies what core.dag decides. What it costs depends on
the edges that are walked, not on the size of the workflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from orchestr8d.core import admission, dag, workflow_notices
from orchestr8d.core.model import Error, NewTask, Task
from orchestr8d.core.workflow import OVER, ROLLBACK, Head, Node, NodeState
from orchestr8d.store.sqlite import again, closing, fans, left, reads, signals, workflow_rows
from orchestr8d.store.sqlite.graph_rows import Rows
from orchestr8d.store.sqlite.notices import notify
from orchestr8d.store.sqlite.transaction import Tx

if TYPE_CHECKING:
    from orchestr8d.store.sqlite.follow import Follower

_JSON = msgspec.json.Encoder()
# So much is done in one transaction; more goes on in the next, from durable marks.
STEP = 500
# What the row of a node's task becomes.
_TASK_STATUS = {
    "completed": "completed", "failed": "failed", "cut": "failed", "cancelled": "cancelled", "skipped": "skipped",
}  # fmt: skip


class Graph(Rows):
    """Walks along the edges; what it does with ends and with what runs again is in `closing` and `again`."""

    def __init__(self, tx: Tx, follower: Follower, head: Head) -> None:
        super().__init__(tx, head)
        self.follower = follower

    def save(self) -> None:
        """Does what is left to do, and writes what has changed."""
        self._work()
        before = self.head.status
        if self.head.completed_at is None and self.head.started:
            self.head.status = dag.standing(self.head)
        if self.head.status != before and "blocked" in (before, self.head.status) and self.head.parent_task is not None:
            self.tx.stand_ins.append(self.head.parent_task)
        if self.head.status != before and self.head.status == "blocked":
            self.tell("blocked", status="blocked")
            if new := workflow_notices.blocked(self.head, signals.waited_for(self)):
                notify(self.tx, new)
        self.flush()
        workflow_rows.save(self.tx, self.head)

    def _work(self) -> None:
        while self.done < STEP:
            if self.todo:
                self.done += 1
                self.todo.popleft()[1]()
            elif self.stops:
                self.stops = False
                closing.cancel_rest(self)
            elif self.room_freed:
                self.room_freed = False
                self._fill()
            elif self.head.again and not workflow_rows.has_left(self.tx.db, self.id) and again.run_again(self):
                continue
            elif not closing.close(self):
                return
        left.leave(self)


    # -- forward

    def begin(self) -> None:
        """The workflow starts: what waits for nothing goes on."""
        head = self.head
        head.started, head.status, head.started_at = 1, "running", self.tx.now
        if head.report_every is not None:
            head.report_at = self.tx.now + round(head.report_every * 1000)
            self.tx.work.add("workflows")
        self.tell("started", status="running")
        first = workflow_rows.nodes(
            self.tx.db, "workflow_id = ? AND kind = 'phase' AND waits = 0 ORDER BY position", self.id
        )
        for phase in self.keep(first):
            if phase.id != ROLLBACK:
                self.met(phase)

    def met(self, node: Node) -> None:
        """All that it depends on lets it go on."""
        if node.state != "waiting" or node.waits or not self.head.started:
            return
        if node.kind != "phase":
            self.go(node)
        elif self.head.ending is not None:
            return  # no phase begins any more
        elif node.read_phase().when is not None:
            self.set(node, state="when")
            self.tx.work.add("workflows")
        else:
            self.open_phase(node)

    def open_phase(self, phase: Node) -> None:
        self.set(phase, state="open", started_at=phase.started_at or self.tx.now)
        self.tell("phase_started", phase=phase.id, round=phase.round)
        if phase.id != ROLLBACK:
            notify(self.tx, workflow_notices.phase_started(self.head, phase))
        for member in self.members(phase):
            if member.state == "waiting" and member.waits:
                self.set(member, waits=member.waits - 1)
                self.later(self.met, member)
        self.end_phase(phase)

    def go(self, node: Node) -> None:
        """A task goes on from its state, as far as it can without an evaluation."""
        if self.head.ending is not None and node.phase != ROLLBACK:
            self.end(node, "cancelled", workflow_rows.CANCELLED)
            return
        step = self.rule(node)
        unsent = signals.unsent(self, step) if node.parent is None else []
        room = not self.head.paused and (not dag.needs_room(node) or dag.has_room(self.scopes(node)))
        state = dag.next_state(node, step, len(unsent), room=room)
        if node.kind == "fan" and state == "render" and (children := self.members(node)):
            fans.reopen(self, node, children)
        elif state == "open":
            self.release(node, None)
        elif state == "held":
            signals.hold(self, node, step, unsent)
        else:
            self.set(node, state=state)
            self.tx.work.add("workflows")
            self.tx.quiet.append(node.task_id or self.id)

    def release(self, node: Node, new: NewTask | None) -> None:
        """Its task may run; `new`: as what, where that was not known at submit."""
        task = self.task(node)
        self.set(node, state="open", started_at=node.started_at or self.tx.now)
        if task.completed_at is not None:  # cancelled at the same time: its end is told
            return
        new = new or admission.as_new(task)
        holder = workflow_rows.holder(self.tx.db, new.unique_key)
        if holder is not None:
            why = f"unique_key {new.unique_key!r} is held by task {holder.id}"
            self.end(node, "failed", Error("dependency_failed", why))
            return
        f = self.follower
        change = admission.release(task, new, self.tx.now, f.last_queued_at, f.limits.head_start)
        self.follower.note(self.tx.apply(change))

    # -- answers of the engine, and time

    def time(self, node: Node, wake_at: int | None, is_delay: bool) -> None:
        """It may go on at once, or from a time."""
        self.set(node, wake_at=wake_at, wake_is_delay=int(is_delay and wake_at is not None))
        self.go(node)

    def ask(self, node: Node, question: str) -> None:
        """An approval: a person is asked."""
        step = self.rule(node)
        wake_at = None if step.timeout is None else self.tx.now + round(step.timeout * 1000)
        self.set(
            node, state="open", started_at=self.tx.now, wake_at=wake_at, wake_is_delay=int(wake_at is not None)
        )  # fmt: skip
        task = self.task(node)
        spec = msgspec.structs.replace(task.read_spec(), title=question[:1000])
        self.tx.apply(admission.Change(task, {"spec": admission.encode_spec(spec)}, []))
        notify(self.tx, workflow_notices.question(self.head, node, question))
        self.tx.work.add("workflows")

    def due(self, node: Node) -> None:
        """Its time has come: to go on, or that somebody should have answered."""
        if node.state == "timed":
            self.set(node, wake_at=None, wake_is_delay=0)
            self.go(node)
        elif node.state == "open" and self.rule(node).on_timeout == "approve":
            self.end(node, "completed")
        else:
            whom = "a signal" if node.state == "held" else "an answer"
            self.end(node, "failed", Error("timeout", f"{whom} did not come in time"))

    def fail(self, node: Node, error: Error) -> None:
        """What was to be evaluated of it cannot be."""
        if node.kind != "phase":
            self.end(node, "failed", error)
            return
        self._failed()
        self.phase_over(node, "failed")
        self.end_members(node)

    def give_up(self, node: Node) -> None:
        """The workflow ends: it does not begin any more."""
        if node.kind == "phase":
            self.set(node, state="waiting")
        else:
            self.end(node, "cancelled", workflow_rows.CANCELLED)

    def set_paused(self, paused: bool) -> None:
        """Known at once to what is queued in this transaction (Tx.apply)."""
        self.head.paused = int(paused)
        workflow_rows.save(self.tx, self.head)

    def make_room(self) -> None:
        """A pause is over."""
        self.room_freed = True

    def _fill(self) -> None:
        """Those that waited for room, in order, as far as there is some now."""
        self.flush()
        for node in self.keep([] if self.head.paused else workflow_rows.full_without_need(self.tx.db, self.id)):
            self.go(node)
        shut: dict[str, list[str]] = {"parent": [], "phase": []}
        while not self.head.paused and dag.has_room([self.head]):
            if self.done >= STEP:
                self.room_freed = True
                return
            self.flush()
            found = workflow_rows.first_full(self.tx.db, self.id, shut["parent"], shut["phase"])
            if found is None:
                return
            (node,) = self.keep([found])
            for column in ("parent", "phase"):
                name = getattr(node, column)
                if name is not None and not dag.has_room([self.node(name)]):
                    shut[column].append(name)
                    break
            else:
                # The others are nothing that is done: a further transaction would find them again.
                self.done += 1
                self.go(node)


    # -- ends

    def task_ended(self, task: Task) -> None:
        """The row of one of its tasks has become final."""
        assert task.local_id is not None
        if task.local_id not in self._nodes and workflow_rows.find_node(self.tx.db, self.id, task.local_id) is None:
            return  # of a fan that runs again meanwhile
        node = self.node(task.local_id)
        if node.task_id != task.id or node.state in OVER or node.state == "again":
            return
        state: NodeState = task.status  # type: ignore[assignment]  # a final one
        self.over(node, state, task)

    def end(
        self, node: Node, state: NodeState, error: Error | None = None, result_type: str | None = None
    ) -> None:  # fmt: skip
        """A task ends without having run, or a fan or sub-workflow with its parts."""
        if node.state in OVER:  # by another way to it
            return
        task = self.task(node)
        if task.completed_at is None:
            if task.status in ("running", "needs_input"):
                asked_at = task.cancel_requested_at or self.tx.now
                self.tx.apply(admission.Change(task, {"cancel_requested_at": asked_at}, []))
                self.tx.cancels.append(task.id)
                return
            change = admission.finalise(task, _TASK_STATUS[state], self.tx.now, error)
            change.set["result_type"] = result_type
            task = self.tx.apply(change)
        self.over(node, state, task)

    def over(self, node: Node, state: NodeState, task: Task) -> None:
        step = self.rule(node)
        if node.state == "held":
            signals.forget(self, node)
        self._stop_parts(node, state, task)
        signals.of_end(self, node, task)
        gone = {"wake_at": None, "wake_is_delay": 0, "signals": 0}
        if state == "failed" and dag.asks_again(self.head, node, step):
            self.set(node, state="again", **gone)
            return
        self.set(node, state=state, completed_at=self.tx.now, **gone)
        if state == "completed" and step.milestone is not None:
            workflow_rows.mark(self.tx, self.id, node.id, "milestone")
        container = node.parent or node.phase
        if container is not None:
            holder = self.node(container)
            failed = node.state not in dag.SATISFYING if node.parent is not None else dag.counts(node, step)
            self.set(holder, open=holder.open - 1, failed=holder.failed + failed)
            self.later(self.end_fan if node.parent is not None else self.end_phase, holder)
        if node.phase != ROLLBACK:
            self.head.open -= 1
            if dag.fails_workflow(node, step):
                self._failed()
        # Rollback goes on whatever becomes of its parts.
        self.tell_dependents(node, node.phase == ROLLBACK or dag.satisfies(node, step))

    def _failed(self) -> None:
        self.head.failed += 1
        if self.head.fail_fast and self.head.ending is None:
            # What it cuts off is cut off first.
            self.head.ending, self.stops = "fail", True

    def _stop_parts(self, node: Node, state: NodeState, task: Task) -> None:
        """Of a sub-workflow or fan that ended without them."""
        if node.kind == "workflow" and state != "completed":
            self.tx.orphans.append(task.id)
        if node.kind == "fan":
            fans.stop(self, node)

    def tell_dependents(self, node: Node, satisfied: bool) -> None:
        if node.state == "cancelled" and self.head.ending is not None and not satisfied:
            return  # whatever is left is cancelled too
        for dependent in self.dependents(node.id):
            if dependent.state != "waiting":
                continue
            if satisfied:
                self.set(dependent, waits=dependent.waits - 1)
                self.later(self.met, dependent)
            else:
                self.later(lambda dependent: self.cut(dependent, dag.cut_off(node)), dependent, because=node)

    def cut(self, node: Node, error: Error) -> None:
        """It never starts, because of what it depends on."""
        if node.state in OVER:  # by another way to it
            return
        if node.kind != "phase":
            self.end(node, "cut", error)
            return
        self.phase_over(node, "cut")
        self.end_members(node)

    def skip(self, node: Node) -> None:
        """Its `when` is false."""
        if node.kind != "phase":
            self.end(node, "skipped")
            return
        self.phase_over(node, "skipped")
        self.end_members(node)

    def end_members(self, node: Node) -> None:
        """What is left of a phase that never begins, or of a fan that is over."""
        if node.kind == "fan":
            fans.stop(self, node)
        elif node.kind == "phase" and node.state != "cancelled":
            state: NodeState = "skipped" if node.state == "skipped" else "cut"
            error = None if state == "skipped" else dag.never_begun(node)
            for member in self.members(node):
                if member.state not in OVER:
                    self.later(lambda member: self.end(member, state, error), member, because=node)

    def end_phase(self, phase: Node) -> None:
        if phase.state != "open" or phase.open:
            return
        if phase.id == ROLLBACK:
            self.phase_over(phase, "failed" if phase.failed else "completed")
            return
        members = self.members(phase)
        if not members and not self.dependents(phase.id) and self.head.open:
            # Somebody may be about to give it tasks; it holds nobody.
            return
        cancelled = sum(member.state == "cancelled" for member in members) if self.head.ending else 0
        self.phase_over(phase, dag.phase_state(phase, self.head.ending, cancelled))

    def phase_over(self, phase: Node, state: NodeState) -> None:
        self.set(phase, state=state, completed_at=self.tx.now)
        failed = state in ("failed", "cut", "cancelled")
        status = "failed" if state == "cut" else state
        self.tell("phase_failed" if failed else "phase_completed", phase=phase.id, status=status, round=phase.round)
        if phase.id == ROLLBACK:
            return
        if state in ("completed", "failed"):
            notify(self.tx, workflow_notices.phase_over(self.head, phase))
        if state == "completed" and phase.read_phase().milestone is not None:
            workflow_rows.mark(self.tx, self.id, phase.id, "milestone")
        self.tell_dependents(phase, dag.satisfies(phase, None))

    def end_fan(self, fan: Node) -> None:
        fans.end(self, fan)


def sub_moved(tx: Tx, follower: Follower, task_id: str) -> None:
    """A sub-workflow is blocked, or not any more: so may be the one of the task that stands for it."""
    row = tx.db.execute("SELECT status FROM workflows WHERE parent_task = ?", (task_id,)).fetchone()
    task = reads.find(tx.db, task_id)
    if task is None or task.completed_at is not None or task.workflow_id is None or task.local_id is None:
        return
    graph = opened(tx, follower, task.workflow_id)
    node = graph.node(task.local_id)
    if node.task_id == task_id and node.state == "open":
        graph.set(node, open=int(row[0] != "blocked"))
        graph.save()


def opened(tx: Tx, follower: Follower, workflow_id: str) -> Graph:
    return Graph(tx, follower, workflow_rows.head(tx.db, workflow_id))


def ended(tx: Tx, follower: Follower, tasks: Sequence[Task]) -> None:
    """Tasks of workflows have become final: what follows from that follows here and now."""
    graphs: dict[str, Graph] = {}
    for task in tasks:
        assert task.workflow_id is not None
        if task.workflow_id not in graphs:
            graphs[task.workflow_id] = opened(tx, follower, task.workflow_id)
        graphs[task.workflow_id].task_ended(task)
    for graph in graphs.values():
        graph.save()


def cancel(tx: Tx, follower: Follower, workflow_id: str) -> Head:
    """Nothing more starts, what runs is asked to end; where nothing runs it is over at once."""
    graph = opened(tx, follower, workflow_id)
    closing.cancel(graph)
    graph.save()
    return graph.head
