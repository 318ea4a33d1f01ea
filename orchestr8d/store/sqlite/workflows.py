"""The verbs of workflows within a transaction: start, extend, steer, signals, approvals, retry; and what is read."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from orchestr8d.core import dag, workflow_notices
from orchestr8d.core.errors import Fault, Problem, did_you_mean
from orchestr8d.core.model import Error, Task
from orchestr8d.core.sessions import read_usage
from orchestr8d.core.states import BUSY
from orchestr8d.core.workflow import (
    FINAL,
    OVER,
    ROLLBACK,
    Archived,
    Extension,
    Head,
    NewWorkflow,
    Node,
    NodeView,
    Signal,
    Workflow,
    WorkflowView,
)
from orchestr8d.store.sqlite import again, closing, reads, signals, workflow_rows
from orchestr8d.store.sqlite.follow import Follower
from orchestr8d.store.sqlite.graph import Graph, opened
from orchestr8d.store.sqlite.notices import notify
from orchestr8d.store.sqlite.transaction import Tx
from orchestr8d.store.types import Stale, WorkflowFilter

_JSON = msgspec.json.Encoder()


def add(tx: Tx, follower: Follower, new: NewWorkflow) -> Workflow:
    if new.founder is not None:
        _check_founder(reads.task(tx.db, new.founder[1]))
    head = workflow_rows.insert(tx, follower, new)
    graph = Graph(tx, follower, head)
    graph.tell("created", workflow_id=head.id, status="pending", template=head.template)
    if new.founder is not None:
        _found(graph, new.founder[0])
    if new.start:
        graph.begin()
    graph.save()
    return workflow_rows.workflow(tx.db, head.id)


def _check_founder(task: Task) -> None:
    if task.workflow_id is not None:
        raise Problem("conflict", f"task {task.id} is of workflow {task.workflow_id} already")
    if task.status not in BUSY:
        raise Problem("conflict", f"task {task.id} is {task.status}: it adds no tasks")


def _found(graph: Graph, founder: str) -> None:
    """The task that makes a workflow of itself runs already, and so does its phase."""
    node = graph.node(founder)
    assert node.phase is not None
    graph.set(graph.node(node.phase), state="open", started_at=graph.tx.now)
    graph.set(node, state="open", waits=0, started_at=graph.tx.now)


def extend(
    tx: Tx, follower: Follower, workflow_id: str, more: Extension, by: str | None
) -> list[Task]:  # fmt: skip
    """Phases and tasks are added; raises Stale when the definition has become another one."""
    whole = workflow_rows.workflow(tx.db, workflow_id)
    if whole.completed_at is not None or whole.ending is not None:
        raise Problem("conflict", f"workflow {workflow_id} is {whole.status}: nothing can be added to it")
    if whole.definition != more.old:
        raise Stale
    graph = opened(tx, follower, workflow_id)
    nodes = graph.all()
    _check_open(nodes, more)
    depth = graph.head.depth
    if by is not None:
        adder = next((n for n in nodes.values() if n.task_id == by), None)
        depth = depth if adder is None else adder.depth + 1
    made = workflow_rows.extend(
        tx, follower, graph.head, more.definition.phases, (), more.drafts, depth=depth,
        position=1 + max((n.position for n in nodes.values()), default=0), known=frozenset(nodes),
    )  # fmt: skip
    text = _JSON.encode(more.definition).decode()
    tx.db.execute("UPDATE workflow_texts SET definition = ? WHERE workflow_id = ?", (text, workflow_id))
    fresh = {node.id for node in made}
    nodes = graph.all()
    for node in made:
        if node.kind != "phase" and node.phase not in fresh and node.phase is not None:
            phase = nodes[node.phase]
            graph.set(phase, open=phase.open + 1)
    if graph.head.started:
        again.wire(graph, nodes, [nodes[node_id] for node_id in fresh])
    graph.save()
    return [reads.task(tx.db, node.task_id) for node in made if node.task_id is not None]


def _check_open(nodes: dict[str, Node], more: Extension) -> None:
    """Raises Problem when a task is added to a phase that is over."""
    for phase in more.definition.phases:
        known = nodes.get(phase.id)
        if known is not None and known.state in OVER and any(step.id not in nodes for step in phase.tasks):
            state = "failed" if known.state == "cut" else known.state
            raise Problem("conflict", f"phase {phase.id} is {state}: no task can be added to it")


def begin(tx: Tx, follower: Follower, workflow_id: str) -> None:
    graph = opened(tx, follower, workflow_id)
    if graph.head.started:
        raise Problem("conflict", f"workflow {workflow_id} is {graph.head.status}: it has begun already")
    if not graph.head.open:
        raise Problem("conflict", f"workflow {workflow_id} has no tasks yet: add some, then start it")
    graph.begin()
    graph.save()


def pause(tx: Tx, follower: Follower, workflow_id: str) -> None:
    graph = opened(tx, follower, workflow_id)
    _must_live(graph.head)
    if graph.head.paused:
        raise Problem("conflict", f"workflow {workflow_id} is paused already")
    graph.set_paused(True)
    for task in reads.tasks(tx.db, "workflow_id = ? AND status = 'queued'", workflow_id):
        tx.db.execute("UPDATE tasks SET hold = 'workflow' WHERE seq = ?", (task.seq,))
        tx.quiet.append(task.id)
        if task.concurrency_key is not None:
            tx.keys.add(task.concurrency_key)
    graph.tell("paused", status="paused")
    graph.save()
    for sub in _subs(tx.db, workflow_id, "paused = 0"):
        pause(tx, follower, sub)


def resume(tx: Tx, follower: Follower, workflow_id: str) -> None:
    graph = opened(tx, follower, workflow_id)
    if not graph.head.paused:
        raise Problem("conflict", f"workflow {workflow_id} is {graph.head.status}: only a paused one can be resumed")
    graph.set_paused(False)
    for task in reads.tasks(tx.db, "workflow_id = ? AND status = 'queued' AND hold = 'workflow'", workflow_id):
        hold = None if task.concurrency_key is None else "concurrency_key"
        tx.db.execute("UPDATE tasks SET hold = ? WHERE seq = ?", (hold, task.seq))
        tx.quiet.append(task.id)
        if task.concurrency_key is not None:
            tx.keys.add(task.concurrency_key)
    graph.tell("resumed", status="running")
    graph.make_room()
    graph.save()
    for sub in _subs(tx.db, workflow_id, "paused = 1"):
        resume(tx, follower, sub)


def _subs(db: sqlite3.Connection, workflow_id: str, where: str) -> list[str]:
    """The sub-workflows that are not over."""
    sql = (
        "SELECT w.id FROM workflow_nodes n JOIN workflows w ON w.parent_task = n.task_id "
        f"WHERE n.workflow_id = ? AND n.kind = 'workflow' AND w.completed_at IS NULL AND w.started = 1 AND w.{where}"
    )
    return [sub for (sub,) in db.execute(sql, (workflow_id,)).fetchall()]


def _must_live(head: Head) -> None:
    if not head.started:
        raise Problem("conflict", f"workflow {head.id} has not begun")
    if head.status in FINAL:
        raise Problem("conflict", f"workflow {head.id} is {head.status} already")


def cancel(tx: Tx, follower: Follower, workflow_id: str) -> None:
    graph = opened(tx, follower, workflow_id)
    if graph.head.status in FINAL:
        raise Problem("conflict", f"workflow {workflow_id} is {graph.head.status} already")
    if graph.head.ending != "cancel":
        closing.cancel(graph)
        graph.save()


def retry(tx: Tx, follower: Follower, workflow_id: str, from_phase: str | None) -> None:
    graph = opened(tx, follower, workflow_id)
    head = graph.head
    if head.status not in ("failed", "cancelled"):
        what = f"workflow {workflow_id} is {head.status}"
        raise Problem("conflict", f"{what}: only a failed or cancelled one can be retried")
    nodes = graph.all()
    if from_phase is None:
        rerun = dag.unfinished(nodes, graph.edges())
    else:
        phases = [n.id for n in nodes.values() if n.kind == "phase" and n.id != ROLLBACK]
        if from_phase not in phases:
            near = did_you_mean(from_phase, phases)
            message = f"there is no phase {from_phase!r}{near}"
            raise Problem("unprocessable", message, [Fault("from", message, "unprocessable")])
        rerun = dag.downstream(nodes, graph.edges(), [from_phase])
    # Fans that run as a whole have other items: of rollback, what fails this time.
    whole = set(rerun.tasks) if from_phase is not None else set()
    whole |= {n.id for n in nodes.values() if n.phase == ROLLBACK}
    for node in [n for n in nodes.values() if n.parent in whole]:
        rerun.tasks.discard(node.id)
        del nodes[node.id]
        graph.forget(node)
    rollback = {n.id for n in nodes.values() if n.phase == ROLLBACK}
    if rollback:
        rerun = dag.Rerun(rerun.tasks | rollback, rerun.begin | {ROLLBACK}, rerun.reopen - {ROLLBACK})
    head.ending, head.completed_at, head.error, head.status = None, None, None, "running"
    graph.set_paused(False)
    # It may not have begun; or the clock was set back since.
    head.started_at = min(head.started_at or tx.now, tx.now)
    if head.deadline_at is not None and head.deadline_at <= tx.now:
        # It has done what it could: whoever retries knows that it has passed.
        head.deadline_at = None
    if head.report_every is not None:
        head.report_at = tx.now + round(head.report_every * 1000)
        tx.work.add("workflows")
    tx.db.execute("DELETE FROM workflow_marks WHERE workflow_id = ? AND what = 'archive'", (workflow_id,))
    graph.tell("started", status="running", retried=True)
    again.run(graph, nodes, rerun, None)
    graph.save()


def signal(tx: Tx, follower: Follower, workflow_id: str, name: str, payload: Any) -> Signal:
    graph = opened(tx, follower, workflow_id)
    if graph.head.status in FINAL:
        raise Problem("conflict", f"workflow {workflow_id} is {graph.head.status}: nothing waits for a signal any more")
    signals.send(graph, name, payload)
    graph.save()
    return Signal(name, payload, tx.now)


def approve(
    tx: Tx, follower: Follower, workflow_id: str, node_id: str, approved: bool, comment: str | None
) -> NodeView:  # fmt: skip
    graph = opened(tx, follower, workflow_id)
    node = graph.node(node_id)
    if node.kind != "approval":
        raise Problem("conflict", f"task {node_id} is no approval")
    if node.state in OVER:
        raise Problem("conflict", f"task {node_id} is {'failed' if node.state == 'cut' else node.state} already")
    if node.state != "open":
        raise Problem("conflict", f"task {node_id} was not asked for yet: what it depends on is not over")
    if comment is not None:
        assert node.task_id is not None
        tx.db.execute("INSERT INTO results (task_id, body) VALUES (?, ?)", (node.task_id, comment.encode()))
    result_type = None if comment is None else "text"
    if approved:
        graph.end(node, "completed", result_type=result_type)
    else:
        graph.end(node, "failed", Error("rejected", comment or "rejected"), result_type)
    graph.save()
    return _node_view(tx.db, workflow_rows.node(tx.db, workflow_id, node_id), results=True)


def add_milestone(tx: Tx, workflow_id: str, text: str, phase: str | None = None, task: str | None = None) -> None:
    head = workflow_rows.head(tx.db, workflow_id)
    (said,) = tx.db.execute("SELECT milestones FROM workflow_texts WHERE workflow_id = ?", (workflow_id,)).fetchone()
    one = {"text": text, "at": tx.now, "phase": phase, "task": task}
    all_of_them = _JSON.encode([*msgspec.json.decode(said), one]).decode()
    tx.db.execute("UPDATE workflow_texts SET milestones = ? WHERE workflow_id = ?", (all_of_them, workflow_id))
    about = (None, workflow_id, head.user_id)
    tx.tell("workflow.milestone", {"name": head.name, "text": text, "phase": phase, "task": task}, about=about)
    notify(tx, workflow_notices.milestone(head, text))


# -- read


def listed(db: sqlite3.Connection, wanted: WorkflowFilter, limit: int, before: int | None) -> list[Workflow]:
    where, args = ["TRUE"], list[Any]()
    for column in ("name", "user_id"):
        if (value := getattr(wanted, column)) is not None:
            where.append(f"w.{column} = ?")
            args.append(value)
    if wanted.status:
        where.append(f"w.status IN ({', '.join('?' * len(wanted.status))})")
        args += wanted.status
    for tag in wanted.tags:
        where.append("EXISTS (SELECT 1 FROM workflow_tags g WHERE g.tag = ? AND g.seq = w.seq)")
        args.append(tag)
    if wanted.tail is not None:
        where.append("substr(w.id, ?) = ?")
        args += [-len(wanted.tail), wanted.tail]
    if before is not None:
        where.append("w.seq < ?")
        args.append(before)
    return workflow_rows.workflows(db, f"{' AND '.join(where)} ORDER BY w.seq DESC LIMIT ?", *args, limit)


def view(db: sqlite3.Connection, workflow_id: str, results: bool) -> WorkflowView:
    whole = workflow_rows.workflow(db, workflow_id)
    found = workflow_rows.nodes(db, 'workflow_id = ? ORDER BY position, "index"', workflow_id)
    edges = workflow_rows.edges(db, workflow_id)
    of_workflow = {t.id: t for t in reads.tasks(db, "workflow_id = ?", workflow_id)}
    states = {node.id: node for node in found}
    needed: dict[str, list[str]] = {}
    for src, dst in edges:
        needed.setdefault(dst, []).append(src)
    unsent: dict[str, list[str]] = {}
    for name, node_id in db.execute("SELECT name, node FROM signal_waits WHERE workflow_id = ?", (workflow_id,)):
        unsent.setdefault(node_id, []).append(name)
    views = []
    for node in found:
        task = None if node.task_id is None else of_workflow.get(node.task_id)
        shown = NodeView(node, task, unsent=unsent.get(node.id, ()))
        if node.state == "waiting":
            shown.waiting_for = _waits(node, needed.get(node.id, ()), states)
        elif node.kind == "workflow" and node.state == "open":
            sql = "SELECT id FROM workflows WHERE parent_task = ? AND status = 'blocked'"
            shown.blocked = next((sub for (sub,) in db.execute(sql, (node.task_id,))), None)
        if results and task is not None and task.completed_at is not None:
            left = reads.result(db, task.id)
            shown.result = left.body
            shown.exit_code = None if left.attempt is None else left.attempt.exit_code
        views.append(shown)
    spent = sum(read_usage(task.usage).cost_usd for task in of_workflow.values())
    phases = [v for v in views if v.node.kind == "phase"]
    return WorkflowView(whole, phases, [v for v in views if v.node.kind != "phase"], edges, spent)


def _waits(node: Node, needed: Sequence[str], states: dict[str, Node]) -> list[str]:
    """What it depends on that is not over; its phase while that has not begun."""
    left = [other for other in needed if other in states and states[other].state not in OVER]
    phase = None if node.phase is None else states.get(node.phase)
    if phase is not None and phase.state not in OVER and phase.state != "open":
        left.append(phase.id)
    return left


def _node_view(db: sqlite3.Connection, node: Node, *, results: bool) -> NodeView:
    assert node.task_id is not None
    task = reads.task(db, node.task_id)
    return NodeView(node, task, reads.result(db, task.id).body if results else None)


def node_of(db: sqlite3.Connection, task_id: str) -> Node | None:
    """The node that a task stands for now."""
    task = reads.task(db, task_id)
    if task.workflow_id is None or task.local_id is None:
        return None
    node = workflow_rows.find_node(db, task.workflow_id, task.local_id)
    return node if node is not None and node.task_id == task_id else None


def archive(db: sqlite3.Connection, q: str | None, limit: int, before: int | None) -> list[Archived]:
    columns = ", ".join(f"a.{name}" for name in Archived.__struct_fields__)
    where, args = ["TRUE"], list[Any]()
    source = "archive a"
    if q is not None:
        source = "archive_text f CROSS JOIN archive a ON a.seq = f.rowid"
        where.append("f.archive_text MATCH ?")
        args.append(reads.match_words(q))
    if before is not None:
        where.append("a.seq < ?")
        args.append(before)
    sql = f"SELECT {columns} FROM {source} WHERE {' AND '.join(where)} ORDER BY a.seq DESC LIMIT ?"
    return [Archived(*row) for row in db.execute(sql, (*args, limit))]


def archived(db: sqlite3.Connection, workflow_id: str) -> Archived:
    columns = ", ".join(Archived.__struct_fields__)
    row = db.execute(f"SELECT {columns} FROM archive WHERE workflow_id = ?", (workflow_id,)).fetchone()
    if row is None:
        raise Problem("not-found", f"there is no finished workflow {workflow_id} in the archive")
    return Archived(*row)


def keep(tx: Tx, workflow_id: str, report: str) -> None:
    """Puts a finished workflow's report into the archive, in the place of an earlier one."""
    head = workflow_rows.head(tx.db, workflow_id)
    if head.completed_at is None:
        return
    old = tx.db.execute("SELECT seq, name, report FROM archive WHERE workflow_id = ?", (workflow_id,)).fetchone()
    if old is not None:
        tx.db.execute(
            "INSERT INTO archive_text (archive_text, rowid, name, report) VALUES ('delete', ?, ?, ?)", old
        )
        tx.db.execute("DELETE FROM archive WHERE seq = ?", (old[0],))
    row = (workflow_id, head.name, head.status, head.user_id, head.created_at, head.completed_at, report)
    seq = tx.db.execute(
        "INSERT INTO archive (workflow_id, name, status, user_id, created_at, completed_at, report) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)", row,
    ).lastrowid  # fmt: skip
    tx.db.execute("INSERT INTO archive_text (rowid, name, report) VALUES (?, ?, ?)", (seq, head.name, report))
