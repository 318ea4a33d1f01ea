"""What a workflow looks like in a terminal."""

from __future__ import annotations

from typing import Any

from orchestr8d.cli import tree

T0, T1, T2 = "2026-03-01T09:00:00.000Z", "2026-03-01T09:01:00.000Z", "2026-03-01T09:03:05.000Z"
NOW = 1_772_356_000.0


def task(name: str, phase: str, status: str, **more: Any) -> dict[str, Any]:
    started, completed = (T0, T1) if status == "completed" else (None, None)
    return {"id": name, "phase": phase, "status": status, "started_at": started, "completed_at": completed, **more}


STATUS = {
    "workflow_id": "0198-abcdef12", "name": "ship\x1b it", "status": "blocked", "error": None,
    "waiting_for": [{"kind": "approval", "id": "ok"}],
    "progress": {"percent": 40.5, "current_step": "x", "estimated_time_remaining": 90}, "usage": {"cost_usd": 1.5},
    "milestones": [], "started_at": T0, "completed_at": T2,
    "phases": [
        {"id": "make", "title": "Make it", "status": "completed", "depends_on": [], "percent": 100,
         "started_at": T0, "completed_at": T1},
        {"id": "tell", "status": "pending", "depends_on": ["make"], "percent": 12.5,
         "started_at": None, "completed_at": None},
    ],
}  # fmt: skip
TASKS = [
    task("plan", "make", "completed", agent="architect", usage={"cost_usd": 0.42}),
    task("parts", "make", "running", for_each="x", agent=["{{ a }}", "b"]),
    *(task(f"parts.{i}", "make", "failed" if i == 3 else "completed", parent="parts", index=i, command=["x", "a b"],
           error={"kind": "exit", "message": "exit code 2"} if i == 3 else None) for i in range(5)),
    task("ok", "tell", "pending", approval="Ship?\nReally?", round=1, attempt=2,
         waiting_for=[{"kind": "approval"}]),
    task("undo", "on_failure", "pending", workflow="deploy", waiting_for=[
        {"kind": "workflow_task", "name": "on_failure"}, {"kind": "workflow_task", "name": "ok"}, {"kind": "paused"}]),
]  # fmt: skip


def text(lines: Any) -> list[str]:
    return ["".join(part for part, _ in line).rstrip() for line in lines]


def test_the_tree() -> None:
    assert text(tree.tree(STATUS, TASKS, NOW, fold=2)) == [
        "ship\\x1b it  blocked  40.5 %  3m05s  about 1m30s left  $1.50  abcdef12",
        "waiting for: approval ok",
        "├─ ✓ make: Make it  completed  1m00s",
        "│  ├─ ✓ plan   completed  1m00s  $0.42  architect",
        "│  └─ ● parts  running  for each: {{ a }} | b",
        "│     ├─ ✓ parts.0  completed  1m00s  x 'a b'",
        "│     ├─ ✗ parts.3  failed  x 'a b'  [exit code 2]",
        "│     └─ … 3 more: 3 completed",
        "├─ ○ tell  pending  after make",
        "│  └─ ○ ok  pending  round 1, attempt 2  approval: Ship?\\nReally?  [approval]",
        "└─ on_failure  after a failure",
        "   └─ ○ undo  pending  workflow deploy  [after ok, paused]",
    ]


def test_the_graph() -> None:
    names = {"a": None, "b": None, "plan": "a", "x": "a", "y": "a", "sum": "a", "end": "b", "undo": "on_failure"}
    nodes = [{"id": one, "kind": "task" if phase else "phase", "phase": phase, "status": "pending"}
             for one, phase in names.items()]  # fmt: skip
    ends = [("a", "b"), ("plan", "x"), ("plan", "y"), ("x", "sum"), ("y", "sum"), ("plan", "end")]
    picture = {"nodes": nodes, "edges": [{"from": a, "to": b} for a, b in ends]}
    assert text(tree.graph(picture)) == [
        "○ a  pending",
        "├─ ○ plan  pending",
        "│   ▼",
        "├─ ○ x  pending",
        "├─ ○ y  pending",
        "│   ▼",
        "├─ ○ sum  pending  after x, y",
        "▼",
        "○ b  pending  after a",
        "├─ ○ end  pending  after plan",
        "",
        "on_failure",
        "├─ ○ undo  pending",
    ]


def test_lines_are_cut_by_cells() -> None:
    line = [("日本語", "red"), ("abcdef", "")]
    assert text([tree.cut(line, 12)]) == ["日本語abcdef"]
    assert text([tree.cut(line, 9)]) == ["日本語ab…"]
    assert text([tree.cut(line, 6)]) == ["日本 …"]
