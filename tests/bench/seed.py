"""Databases of a daemon that has long been in use, written straight into its schema and kept for the next run."""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

import msgspec

from orchestr8d.core.admission import encode_spec
from orchestr8d.core.ids import uuid7
from orchestr8d.core.model import Attempt, Spec, Task
from orchestr8d.processes import Files
from orchestr8d.store.sqlite import schema
from tests.bench.setting import CACHE, HOLDERS, PAUSED

# Words of titles and commands: one is in every task, one in three of them.
COMMON, RARE, MISSING = "deploy", "quetzalcoatl", "nowhere-to-be-found"
_WORDS = ("build", "test", "lint", "report", "backup", "render", "import", "export", "mail", "index", "train", "scan")
STEP = 20_000
# Four events of each of the newest tasks are kept, as retention would have it.
LOGGED = 200_000
# 1 May 2026, and how far apart the finished ones were submitted.
BEGIN, APART = 1_777_593_600_000, 1_500
EXECUTOR = "01900000-0000-7000-8000-00000000bec0"
SETTLING = "bench-settling"
_ERROR = '{"kind":"exit","message":"exited with code 1"}'
HOLDER = ["/bin/sleep", "3600"]


def seeded(finished: int, waiting: int) -> Path:
    """A database with so many tasks; half of the waiting are in a paused queue, half behind keys whose holders, HOLDERS
    of them, a daemon starts at once."""
    path = CACHE / f"seed-{_digest()}" / f"{finished}-{waiting}.db"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    db = schema.connect(part)
    schema.migrate(db)
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = -400000")
    _Seed(db, finished, waiting).write()
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    part.rename(path)
    return path


def _digest() -> str:
    files = [Path(__file__), *sorted((Path(schema.__file__).parent / "sql").glob("*.sql"))]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]


class _Seed:
    def __init__(self, db: sqlite3.Connection, finished: int, waiting: int) -> None:
        self._db = db
        self._finished = finished
        self._waiting = waiting
        self._random = random.Random(finished)

    def write(self) -> None:
        self._add(self._done(), self._write_finished)
        self._add(self._in_queues(), self._write_tasks)
        last = self._finished + self._waiting
        self._db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('text_seq', ?)", (str(last),))
        depths = ((PAUSED, self._waiting - self._waiting // 2), ("default", self._waiting // 2))
        self._db.executemany("INSERT INTO queues (name, depth) VALUES (?, ?)", depths)

    def _add(self, tasks: Iterator[Task], write: Callable[[list[Task]], None]) -> None:
        while some := list(islice(tasks, STEP)):
            self._db.execute("BEGIN")
            write(some)
            self._db.execute("COMMIT")

    def _done(self) -> Iterator[Task]:
        rare = set(self._random.sample(range(1, self._finished + 1), 3))
        for seq in range(1, self._finished + 1):
            draw = self._random.random()
            status = "completed" if draw < 0.9 else "failed" if draw < 0.97 else "cancelled"
            created = BEGIN + seq * APART
            ended = created + self._random.randrange(20, 60_000)
            yield _task(
                seq, created, _spec(seq, RARE if seq in rare else None), status=status, attempt=1,
                executor_id=EXECUTOR, updated_at=ended, queued_at=created, started_at=created + 5, completed_at=ended,
                result_type="text", error=_ERROR if status == "failed" else None,
            )  # fmt: skip

    def _in_queues(self) -> Iterator[Task]:
        for i in range(self._waiting):
            seq = self._finished + i + 1
            created = BEGIN + seq * APART
            spec = _spec(seq, None)
            if i % 2 == 0:
                yield _task(seq, created, spec, queue=PAUSED, queued_at=created)
            else:
                # The first of each key is the one that runs.
                first = i // 2 < HOLDERS
                yield _task(
                    seq, created, _spec(seq, None, HOLDER) if first else spec, queued_at=created,
                    concurrency_key=f"key-{i // 2 % HOLDERS}", hold=None if first else "concurrency_key",
                )  # fmt: skip

    def _write_finished(self, tasks: list[Task]) -> None:
        self._write_tasks(tasks)
        attempts = [_attempt(task) for task in tasks]
        _insert(self._db, "attempts", attempts)
        results = [(task.id, b"done: %d warnings" % (task.seq % 7)) for task in tasks if task.status == "completed"]
        self._db.executemany("INSERT INTO results (task_id, body) VALUES (?, ?)", results)
        events = [
            event
            for task, attempt in zip(tasks, attempts, strict=True)
            if task.seq > self._finished - LOGGED
            for event in _events(task, attempt)
        ]
        self._db.executemany("INSERT INTO events (type, at, task_id, user_id, data) VALUES (?, ?, ?, ?, ?)", events)

    def _write_tasks(self, tasks: list[Task]) -> None:
        _insert(self._db, "tasks", tasks)
        specs = [(task.seq, task.read_spec()) for task in tasks]
        self._db.executemany(
            "INSERT INTO task_text (rowid, title, input) VALUES (?, ?, ?)",
            [(seq, spec.title or "", " ".join(spec.command or [])) for seq, spec in specs],
        )
        tags = [(tag, seq) for seq, spec in specs for tag in spec.tags]
        self._db.executemany("INSERT INTO task_tags (tag, seq) VALUES (?, ?)", tags)


def add_running(path: Path, count: int, files: Callable[[str], Files]) -> None:
    """Tasks that a killed daemon left running, in a paused queue; the children of half of them have ended since."""
    db = schema.connect(path)
    seq = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'tasks'").fetchone()[0]
    created = BEGIN + seq * APART
    spec = encode_spec(Spec(command=["/bin/true"], cwd="/"))
    tasks = [
        _task(seq + i, created, spec, queue=SETTLING, status="running", attempt=1, executor_id=EXECUTOR,
              queued_at=created, started_at=created)
        for i in range(1, count + 1)
    ]  # fmt: skip
    attempts = [_attempt(task) for task in tasks]
    db.execute("BEGIN")
    _insert(db, "tasks", tasks)
    _insert(db, "attempts", attempts)
    db.execute("INSERT OR IGNORE INTO queues (name, paused) VALUES (?, 1)", (SETTLING,))
    db.execute("COMMIT")
    db.close()
    for i, attempt in enumerate(attempts):
        made = files(attempt.id)
        Path(made.exit).parent.mkdir(parents=True, exist_ok=True)
        Path(made.exit).write_text("000\n" if i % 2 else "...\n")
        Path(made.stdout).touch()
        Path(made.stderr).touch()


def _spec(seq: int, word: str | None, command: list[str] | None = None) -> str:
    draw = random.Random(seq)
    return encode_spec(
        Spec(
            command=command or [COMMON, draw.choice(_WORDS), f"--target=module{seq % 5000}", f"host{seq % 97}"],
            cwd="/", title=f"{draw.choice(_WORDS)} {word or draw.choice(_WORDS)} {seq}",
            tags=["nightly"] if seq % 10 == 0 else [],
        )
    )  # fmt: skip


def _task(seq: int, created: int, spec: str, **columns: object) -> Task:
    """A queued one, but for `columns`."""
    row: dict[str, object] = dict.fromkeys(Task.__struct_fields__)
    row |= {
        "seq": seq, "id": uuid7(created), "kind": "command", "status": "queued", "queue": "default", "priority": 0,
        "rank": created, "user_id": "local", "attempt": 0, "retry_count": 0, "blockers": 0, "paused": 0,
        "wake_is_delay": 0, "lane": "", "created_at": created, "updated_at": created, "spec": spec,
    }  # fmt: skip
    return Task(**{**row, **columns})  # type: ignore[arg-type]  # the columns of the table


def _attempt(task: Task) -> Attempt:
    row: dict[str, object] = dict.fromkeys(Attempt.__struct_fields__)
    row |= {
        "id": uuid7(task.created_at), "task_id": task.id, "number": 1, "executor_id": EXECUTOR, "status": task.status,
        "started_at": task.started_at, "ended_at": task.completed_at, "error": task.error,
    }  # fmt: skip
    if task.completed_at is not None:
        row |= {
            "exit_code": int(task.status == "failed"), "output_bytes": 17,
            "resources": '{"cpu_seconds":0.01,"max_rss_bytes":null}',
        }  # fmt: skip
    return Attempt(**row)  # type: ignore[arg-type]  # the columns of the table


def _events(task: Task, attempt: Attempt) -> Iterable[tuple[object, ...]]:
    steps = (("created", task.created_at), ("queued", task.created_at), ("started", task.started_at),
             (task.status, task.completed_at))  # fmt: skip
    for what, at in steps:
        data = {"status": what, "kind": "command", "queue": task.queue, "attempt_id": attempt.id}
        yield f"task.{what}", at, task.id, task.user_id, msgspec.json.encode(data).decode()


def _insert(db: sqlite3.Connection, table: str, rows: list[Task] | list[Attempt]) -> None:
    columns = rows[0].__struct_fields__
    sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    db.executemany(sql, [msgspec.structs.astuple(row) for row in rows])


def flush() -> None:
    """Before measuring: what was copied must not be on its way to the disk any more."""
    os.sync()
