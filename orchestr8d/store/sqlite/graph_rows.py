"""The rows of a workflow that a transaction touches: read once, changed in memory with the counts that depend on them,
written at its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from orchestr8d.core import dag
from orchestr8d.core.model import Task
from orchestr8d.core.workflow import ROLLBACK, Head, Node, Step
from orchestr8d.store.sqlite import reads, workflow_rows
from orchestr8d.store.sqlite.transaction import Tx


class Rows:
    def __init__(self, tx: Tx, head: Head) -> None:
        self.tx = tx
        self.head = head
        # What is still to be done, each with the node whose state tells of it; whether what is left is to be cancelled,
        # and whether some may run that waited for room.
        self.todo: deque[tuple[str, Callable[[], None]]] = deque()
        self.stops = False
        self.room_freed = False
        # Whether tasks wait to have a phase run again that did not, or the other way.
        self.asks_moved = False
        # How much was done in this transaction.
        self.done = 0
        self._nodes: dict[str, Node] = {}
        self._steps: dict[str, Step] = {}
        self._changed: set[str] = set()

    @property
    def id(self) -> str:
        return self.head.id

    def node(self, node_id: str) -> Node:
        if node_id not in self._nodes:
            self._nodes[node_id] = workflow_rows.node(self.tx.db, self.id, node_id)
        return self._nodes[node_id]

    def step(self, node: Node) -> Step | None:
        """Its rule, None of a phase."""
        if node.kind == "phase":
            return None
        return self.rule(node)

    def rule(self, node: Node) -> Step:
        if node.id not in self._steps:
            self._steps[node.id] = node.read_step()
        return self._steps[node.id]

    def keep(self, found: Sequence[Node]) -> list[Node]:
        """Rows that were read, or what this transaction has made of them."""
        return [self._nodes.setdefault(node.id, node) for node in found]

    def members(self, node: Node) -> list[Node]:
        """Of a phase its tasks, but for the children of fans; of a fan its children."""
        of_phase = "phase = ? AND parent IS NULL ORDER BY position"
        where = of_phase if node.kind == "phase" else 'parent = ? ORDER BY "index"'
        return self.keep(workflow_rows.nodes(self.tx.db, f"workflow_id = ? AND {where}", self.id, node.id))

    def all(self) -> dict[str, Node]:
        found = self.keep(workflow_rows.nodes(self.tx.db, 'workflow_id = ? ORDER BY position, "index"', self.id))
        return {node.id: node for node in found}

    def dependents(self, node_id: str) -> list[Node]:
        sql = "SELECT dst FROM workflow_edges WHERE workflow_id = ? AND src = ?"
        return [self.node(dst) for (dst,) in self.tx.db.execute(sql, (self.id, node_id)).fetchall()]

    def task(self, node: Node) -> Task:
        assert node.task_id is not None
        return reads.task(self.tx.db, node.task_id)

    def set(self, node: Node, **changes: Any) -> None:
        """Changes a row, and keeps the counts that depend on its state."""
        before = self._weight(node)
        for name, value in changes.items():
            setattr(node, name, value)
        self._changed.add(node.id)
        after = self._weight(node)
        if before != after and node.phase != ROLLBACK:
            self.head.active += after[0] - before[0]
            self.head.waiting += after[1] - before[1]
            self.head.again += after[2] - before[2]
            self.asks_moved |= after[2] != before[2]
        if ran := after[3] - before[3]:
            for scope in self.scopes(node):
                scope.running += ran
                if isinstance(scope, Node):
                    self._changed.add(scope.id)
            self.room_freed |= ran < 0

    @staticmethod
    def _weight(node: Node) -> tuple[bool, bool, bool, bool]:
        if node.kind == "phase":
            return False, False, False, False
        return dag.is_active(node), dag.is_waiting(node), node.state == "again", dag.takes_room(node)

    def scopes(self, node: Node) -> list[Head | Node]:
        found: list[Head | Node] = [self.head]
        for name in (node.parent, node.phase):
            if name is not None:
                found.append(self.node(name))
        return found

    def tell(self, what: str, **data: Any) -> None:
        self.tx.tell(f"workflow.{what}", {"name": self.head.name, **data}, about=(None, self.id, self.head.user_id))

    def edges(self) -> list[tuple[str, str]]:
        return workflow_rows.edges(self.tx.db, self.id)

    def forget(self, node: Node) -> None:
        """Removes the row of a fan's child."""
        workflow_rows.delete_nodes(self.tx, [node])
        self._nodes.pop(node.id, None)
        self._changed.discard(node.id)

    def flush(self) -> None:
        """Before something is looked up by the states of nodes."""
        workflow_rows.save_nodes(self.tx, [self._nodes[node_id] for node_id in self._changed])
        self._changed.clear()

    def later(self, do: Callable[[Node], None], node: Node, because: Node | None = None) -> None:
        """Does something with a node, to which it comes because of its own state or that of another."""
        self.todo.append(((because or node).id, lambda: do(node)))
