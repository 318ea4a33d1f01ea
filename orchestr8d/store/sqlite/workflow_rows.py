"""The rows of workflows: read, written, made from definitions. No decisions here."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from orchestr8d.core import admission
from orchestr8d.core.errors import Problem
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import Error, NewTask, Spec, Task
from orchestr8d.core.workflow import ROLLBACK, Head, NewWorkflow, Node, Phase, Step, Workflow
from orchestr8d.store.sqlite import reads
from orchestr8d.store.sqlite.transaction import Tx

if TYPE_CHECKING:
    from orchestr8d.store.sqlite.follow import Follower

_JSON = msgspec.json.Encoder()
_HEAD = Head.__struct_fields__
_TEXTS = Workflow.__struct_fields__[len(_HEAD) :]
_NODE = Node.__struct_fields__
_NODE_COLUMNS = ", ".join(f'"{name}"' for name in _NODE)
_INSERT_NODE = f"INSERT INTO workflow_nodes ({_NODE_COLUMNS}) VALUES ({', '.join('?' * len(_NODE))})"
# Text that is kept of a fan's or sub-workflow's results together; a larger one is read from its parts.
MOST_TEXT = 1 << 20
# Of a task that ends with its workflow.
CANCELLED = Error("cancelled", "cancelled with its workflow")
# What of a row changes.
_MOVES = (
    "state", "round", "task_id", "waits", "signals", "open", "failed", "running", "asked", "wake_at", "wake_is_delay",
    "started_at", "completed_at", "feedback",
)  # fmt: skip
_UPDATE_NODE = (
    f"UPDATE workflow_nodes SET {', '.join(f'{name} = ?' for name in _MOVES)} WHERE workflow_id = ? AND id = ?"
)
_LIVES = (
    "status", "paused", "ending", "started", "open", "active", "waiting", "failed", "again", "rollback", "running",
    "deadline_at", "report_at", "started_at", "completed_at", "error", "updated_at",
)  # fmt: skip
_UPDATE_HEAD = f"UPDATE workflows SET {', '.join(f'{name} = ?' for name in _LIVES)} WHERE seq = ?"


# -- read


def head(db: sqlite3.Connection, workflow_id: str) -> Head:
    row = db.execute(f"SELECT {', '.join(_HEAD)} FROM workflows WHERE id = ?", (workflow_id,)).fetchone()
    if row is None:
        raise Problem("not-found", f"there is no workflow {workflow_id}")
    return Head(*row)


def workflow(db: sqlite3.Connection, workflow_id: str) -> Workflow:
    found = workflows(db, "w.id = ?", workflow_id)
    if not found:
        raise Problem("not-found", f"there is no workflow {workflow_id}")
    return found[0]


def workflows(db: sqlite3.Connection, where: str, *args: Any) -> list[Workflow]:
    columns = ", ".join([*(f"w.{name}" for name in _HEAD), *(f"x.{name}" for name in _TEXTS)])
    sql = f"SELECT {columns} FROM workflows w JOIN workflow_texts x ON x.workflow_id = w.id WHERE {where}"
    return [Workflow(*row) for row in db.execute(sql, args)]


def nodes(db: sqlite3.Connection, where: str, *args: Any) -> list[Node]:
    return [Node(*row) for row in db.execute(f"SELECT {_NODE_COLUMNS} FROM workflow_nodes WHERE {where}", args)]


def find_node(db: sqlite3.Connection, workflow_id: str, node_id: str) -> Node | None:
    found = nodes(db, "workflow_id = ? AND id = ?", workflow_id, node_id)
    return found[0] if found else None


def node(db: sqlite3.Connection, workflow_id: str, node_id: str) -> Node:
    found = find_node(db, workflow_id, node_id)
    if found is None:
        raise Problem("not-found", f"there is no task {node_id} in workflow {workflow_id}")
    return found


def edges(db: sqlite3.Connection, workflow_id: str) -> list[tuple[str, str]]:
    return db.execute("SELECT src, dst FROM workflow_edges WHERE workflow_id = ?", (workflow_id,)).fetchall()


def first_full(
    db: sqlite3.Connection, workflow_id: str, shut_parents: Sequence[str], shut_phases: Sequence[str]
) -> Node | None:
    """The first that waits for room outside of fans and phases that have none."""
    where = "workflow_id = ? AND state = 'full'"
    if shut_parents:
        where += f" AND (parent IS NULL OR parent NOT IN ({', '.join('?' * len(shut_parents))}))"
    if shut_phases:
        where += f" AND (phase IS NULL OR phase NOT IN ({', '.join('?' * len(shut_phases))}))"
    found = nodes(db, f'{where} ORDER BY position, "index" LIMIT 1', workflow_id, *shut_parents, *shut_phases)
    return found[0] if found else None


def full_without_need(db: sqlite3.Connection, workflow_id: str) -> list[Node]:
    """Those that waited for the end of a pause only."""
    where = "workflow_id = ? AND state = 'full' AND kind IN ('fan', 'approval')"
    return nodes(db, f'{where} ORDER BY position, "index"', workflow_id)


def unstopped(db: sqlite3.Connection, workflow_id: str, rollback: bool, limit: int) -> list[Node]:
    """Tasks that are neither over nor asked to end; those of the rollback if that is wanted. A fan ends with its
    children."""
    columns = ", ".join(f'n."{name}"' for name in _NODE)
    sql = (
        f"SELECT {columns} FROM workflow_nodes n JOIN tasks t ON t.id = n.task_id "
        "WHERE n.workflow_id = ? AND n.completed_at IS NULL AND (n.phase <> ? OR ?) "
        "AND NOT (n.state = 'open' AND n.kind = 'fan') "
        "AND NOT (t.status IN ('running', 'needs_input') AND t.cancel_requested_at IS NOT NULL) "
        "AND (n.state <> 'open' OR n.kind <> 'workflow' OR EXISTS (SELECT 1 FROM workflows w "
        "WHERE w.parent_task = n.task_id AND w.completed_at IS NULL AND w.ending IS NOT 'cancel')) "
        'ORDER BY n.position, n."index" LIMIT ?'
    )
    return [Node(*row) for row in db.execute(sql, (workflow_id, ROLLBACK, rollback, limit))]


def has_left(db: sqlite3.Connection, workflow_id: str) -> bool:
    """Whether a transaction has left something to a further one."""
    sql = "SELECT EXISTS (SELECT 1 FROM workflow_marks WHERE workflow_id = ? AND what = 'ending')"
    return bool(db.execute(sql, (workflow_id,)).fetchone()[0])


def take_left(tx: Tx, limit: int) -> tuple[str, list[str]] | None:
    """What was left of a workflow, and is to be taken up now: nodes; '' stands for the workflow."""
    first = "SELECT workflow_id FROM workflow_marks WHERE what = 'ending' ORDER BY seq LIMIT 1"
    row = tx.db.execute(first).fetchone()
    if row is None:
        return None
    some = "SELECT seq FROM workflow_marks WHERE workflow_id = ? AND what = 'ending' ORDER BY seq LIMIT ?"
    sql = f"DELETE FROM workflow_marks WHERE seq IN ({some}) RETURNING node"
    return row[0], [node for (node,) in tx.db.execute(sql, (row[0], limit)).fetchall()]


def holder(db: sqlite3.Connection, unique_key: str | None) -> Task | None:
    if unique_key is None:
        return None
    found = reads.tasks(db, "unique_slot IS NOT NULL AND unique_slot = ?", unique_key)
    return found[0] if found else None


def said(db: sqlite3.Connection, of: Node) -> dict[str, Any]:
    """Result and output of a node's task, as templates see them."""
    if of.task_id is None:
        return {"result": None, "output": None}
    return texts(reads.result(db, of.task_id).body, reads.task(db, of.task_id).result_type)


def texts(body: bytes | None, result_type: str | None) -> dict[str, Any]:
    """`result` is text, without its last newline; `output` the JSON value, of what is one."""
    if body is None:
        return {"result": None, "output": None}
    text = body.decode(errors="replace").removesuffix("\n")
    output = None
    if result_type == "json":
        output = msgspec.json.decode(body)
    elif result_type == "text":
        try:
            output = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            output = None
    return {"result": text, "output": output}


def failed_ids(db: sqlite3.Connection, workflow_id: str) -> list[str]:
    """The tasks that failed by themselves, but for the parts of fans and rollback."""
    sql = (
        "SELECT id FROM workflow_nodes WHERE workflow_id = ? AND kind <> 'phase' AND parent IS NULL "
        "AND phase <> ? AND state IN ('failed', 'again') ORDER BY position"
    )
    return [node_id for (node_id,) in db.execute(sql, (workflow_id, ROLLBACK))]


# -- written


def save(tx: Tx, head: Head) -> None:
    head.updated_at = tx.now
    tx.db.execute(_UPDATE_HEAD, (*(getattr(head, name) for name in _LIVES), head.seq))


def save_nodes(tx: Tx, changed: Iterable[Node]) -> None:
    tx.db.executemany(
        _UPDATE_NODE, [(*(getattr(n, name) for name in _MOVES), n.workflow_id, n.id) for n in changed]
    )


def insert_nodes(tx: Tx, new: Sequence[Node]) -> None:
    tx.db.executemany(_INSERT_NODE, [msgspec.structs.astuple(n) for n in new])


def delete_nodes(tx: Tx, doomed: Sequence[Node]) -> None:
    tx.db.executemany(
        "DELETE FROM workflow_nodes WHERE workflow_id = ? AND id = ?", [(n.workflow_id, n.id) for n in doomed]
    )


def mark(tx: Tx, workflow_id: str, node_id: str | None, what: str) -> None:
    tx.db.execute(
        "INSERT OR IGNORE INTO workflow_marks (workflow_id, node, what) VALUES (?, ?, ?)", (workflow_id, node_id, what)
    )
    tx.work.add("workflows")


def insert_tasks(
    tx: Tx, follower: Follower, of: Head, new: Sequence[tuple[Node, NewTask, str | None]]
) -> list[Task]:
    """A row of tasks for each, held until the workflow releases it; the last is what it is tried again for."""
    found = []
    for one, draft, retry_of in new:
        asked = msgspec.structs.replace(
            draft, workflow_id=of.id, phase=one.phase, local_id=one.id, held=True, user_id=of.user_id,
            deadline_at=of.deadline_at, retry_of=retry_of,
        )  # fmt: skip
        facts = admission.Facts(
            queue_depth=1 << 60, head_start=follower.limits.head_start,
            dependencies=reads.statuses(tx.db, asked.spec.depends_on),
        )  # fmt: skip
        admitted = admission.admit(asked, facts, uuid7(tx.now), tx.next_seq(), tx.now)
        assert isinstance(admitted, admission.Admitted)
        found.append(admitted)
    tx.insert(found)
    return [admitted.task for admitted in found]


def again(task: Task) -> NewTask:
    """What makes a task of a workflow again."""
    new = admission.as_new(task)
    # What it waited for outside of the workflow is over.
    new.spec = msgspec.structs.replace(new.spec, depends_on=[])
    new.run_at = None
    return new


def child_of(fan: Node, index: int, item: str) -> Node:
    step = fan.read_step()
    return Node(
        fan.workflow_id, f"{fan.id}.{index}", fan.position, step.kind, "waiting", fan.phase, fan.id, index, fan.depth,
        fan.round, None, 0, 0, 0, 0, 0, None, 0, None, 0, None, None, fan.rule, item, fan.feedback,
    )  # fmt: skip


def join_results(tx: Tx, fan: Node, children: Sequence[Node], most: int) -> str | None:
    """Keeps the list of the children's results as the fan's, unless that is too much; answers its type."""
    bodies, total = [], 0
    for child in children:
        row = tx.db.execute(
            "SELECT t.result_type, r.body FROM tasks t LEFT JOIN results r ON r.task_id = t.id WHERE t.id = ?",
            (child.task_id,),
        ).fetchone()
        total += 0 if row[1] is None else len(row[1])
        if total > most:
            return None
        both = texts(row[1] if child.state == "completed" else None, row[0])
        bodies.append(both["result"] if both["output"] is None else both["output"])
    body = _JSON.encode(bodies)
    tx.db.execute("INSERT INTO results (task_id, body) VALUES (?, ?)", (fan.task_id, body))
    return "json"


def end_parent(tx: Tx, of: Head, error: Error | None, most: int) -> None:
    """The task that stands for a sub-workflow ends with it; its result has the output of each of its tasks."""
    assert of.parent_task is not None
    parent = reads.find(tx.db, of.parent_task)
    if parent is None or parent.completed_at is not None:
        return
    if of.status == "cancelled" and head(tx.db, parent.workflow_id or "").ending is not None:
        tx.apply(admission.finalise(parent, "cancelled", tx.now, CANCELLED))
        return
    if of.status != "completed":
        reason = "" if error is None else f": {error.message}"
        why = Error("dependency_failed", f"workflow {of.id} ({of.name}) is {of.status}{reason}")
        tx.apply(admission.finalise(parent, "failed", tx.now, why))
        return
    outputs: dict[str, Any] = {}
    total = 0
    where = "workflow_id = ? AND kind <> 'phase' AND parent IS NULL AND phase <> ? ORDER BY position"
    for one in nodes(tx.db, where, of.id, ROLLBACK):
        both = said(tx.db, one)
        value = both["result"] if both["output"] is None else both["output"]
        total += len(both["result"] or "")
        outputs[one.id] = value if total <= most else None
    tx.db.execute("INSERT INTO results (task_id, body) VALUES (?, ?)", (parent.id, _JSON.encode(outputs)))
    change = admission.finalise(parent, "completed", tx.now)
    change.set["result_type"] = "json"
    tx.apply(change)


# -- made


def insert(tx: Tx, follower: Follower, new: NewWorkflow) -> Head:
    """A workflow that has not begun, with all its rows."""
    workflow_id = uuid7(tx.now)
    d = new.definition
    last = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'workflows'), 0)"
    seq = tx.db.execute(last).fetchone()[0] + 1
    made = Head(
        seq, workflow_id, new.name, new.template, "pending", new.cwd, new.user_id, new.priority, new.callback_url,
        new.max_cost_usd, new.parent_task, new.depth, int(d.fail_fast), d.on_cancel, 0, 0, None, 0, 0, 0, 0, 0, 0,
        d.max_parallel, 0, d.report_every, None,
        None if new.deadline is None else tx.now + round(new.deadline * 1000), tx.now, tx.now, None, None, None,
    )  # fmt: skip
    tx.db.execute(
        f"INSERT INTO workflows ({', '.join(_HEAD)}) VALUES ({', '.join('?' * len(_HEAD))})",
        msgspec.structs.astuple(made),
    )
    values = (_JSON.encode(v).decode() for v in (d, new.params, new.tags, new.metadata, []))
    tx.db.execute(
        f"INSERT INTO workflow_texts (workflow_id, {', '.join(_TEXTS)}) VALUES (?, ?, ?, ?, ?, ?)",
        (workflow_id, *values),
    )
    tx.db.executemany("INSERT INTO workflow_tags (tag, seq) VALUES (?, ?)", [(tag, seq) for tag in set(new.tags)])
    extend(tx, follower, made, d.phases, d.on_failure, new.drafts, founder=new.founder)
    return made


def extend(
    tx: Tx, follower: Follower, of: Head, phases: Sequence[Phase], rollback: Sequence[Step],
    drafts: dict[str, NewTask], *, founder: tuple[str, str] | None = None, depth: int | None = None, position: int = 0,
    known: frozenset[str] = frozenset(),
) -> list[Node]:  # fmt: skip
    """Makes the rows of phases and their tasks, but for those that are `known`; answers the new nodes."""
    depth = of.depth if depth is None else depth
    made: list[Node] = []
    for phase in phases:
        if phase.id not in known:
            bare = msgspec.structs.replace(phase, tasks=[])
            made.append(_phase(of.id, bare, position + len(made), depth, len(phase.tasks)))
        made += [
            _task(of.id, step, phase.id, position + len(made) + n, depth)
            for n, step in enumerate(s for s in phase.tasks if s.id not in known)
        ]
    if rollback:
        bare = Phase(ROLLBACK)
        made.append(_phase(of.id, bare, position + len(made), depth, len(rollback)))
        steps = [_task(of.id, step, ROLLBACK, position + len(made) + n, depth) for n, step in enumerate(rollback)]
        for before, after in pairwise(steps):
            after.waits += 1
            tx.db.execute(
                "INSERT INTO workflow_edges (workflow_id, src, dst) VALUES (?, ?, ?)", (of.id, before.id, after.id)
            )
        made += steps
    fresh = [one for one in made if one.kind != "phase" and (founder is None or one.id != founder[0])]
    pairs = [(one, drafts.get(one.id) or _stand_in(one.read_step(), of), None) for one in fresh]
    for one, task in zip(fresh, insert_tasks(tx, follower, of, pairs), strict=True):
        one.task_id = task.id
    if founder is not None:
        (one,) = (n for n in made if n.id == founder[0])
        one.task_id = founder[1]
        columns = {"workflow_id": of.id, "phase": one.phase, "local_id": one.id}
        tx.apply(admission.Change(reads.task(tx.db, founder[1]), columns, []))
    insert_nodes(tx, made)
    rules: list[Phase | Step] = [*phases, *(step for phase in phases for step in phase.tasks)]
    wired = [(of.id, other, r.id) for r in rules if r.id not in known for other in dict.fromkeys(r.depends_on)]
    tx.db.executemany("INSERT INTO workflow_edges (workflow_id, src, dst) VALUES (?, ?, ?)", wired)
    of.open += sum(one.kind != "phase" and one.phase != ROLLBACK for one in made)
    return made


def _phase(workflow_id: str, phase: Phase, position: int, depth: int, size: int) -> Node:
    return Node(
        workflow_id, phase.id, position, "phase", "waiting", None, None, None, depth, 0, None,
        len(set(phase.depends_on)), 0, size, 0, 0, phase.max_parallel, 0, None, 0, None, None,
        _JSON.encode(phase).decode(), None, None,
    )  # fmt: skip


def _task(workflow_id: str, step: Step, phase: str, position: int, depth: int) -> Node:
    # It waits for its phase to begin, and for its own dependencies.
    return Node(
        workflow_id, step.id, position, "fan" if step.for_each is not None else step.kind, "waiting", phase, None, None,
        depth, 0, None, 1 + len(set(step.depends_on)), 0, 0, 0, 0, step.max_parallel, 0, None, 0, None, None,
        _JSON.encode(step).decode(), None, None,
    )  # fmt: skip


def _stand_in(step: Step, of: Head) -> NewTask:
    """The row of what runs nothing itself: an approval, a sub-workflow."""
    return NewTask(spec=Spec(title=step.approval or step.workflow), kind=step.kind, priority=of.priority)


def shift(tx: Tx, ms: int) -> None:
    """The wall clock was set: what came from durations still means them."""
    tx.db.execute(
        "UPDATE workflow_nodes SET wake_at = wake_at + ? WHERE wake_at IS NOT NULL AND wake_is_delay = 1", (ms,)
    )
    # From its start and the ends of its tasks others are counted (not_before).
    tx.db.execute(
        "UPDATE workflow_nodes SET started_at = started_at + ?1, completed_at = completed_at + ?1 "
        "WHERE workflow_id IN (SELECT id FROM workflows WHERE completed_at IS NULL)", (ms,)
    )  # fmt: skip
    tx.db.execute(
        "UPDATE workflows SET report_at = report_at + ?1, deadline_at = deadline_at + ?1, started_at = started_at + ?1 "
        "WHERE completed_at IS NULL", (ms,)
    )  # fmt: skip
