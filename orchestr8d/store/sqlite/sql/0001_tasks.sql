-- Tasks, their attempts and results, the queues they wait in, the log of what happened, and who may ask.

CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tasks (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  kind TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending', 'queued', 'running', 'needs_input', 'retrying', 'parked',
                                         'completed', 'failed', 'cancelled', 'skipped')),
  hold TEXT CHECK (hold IS NULL OR status = 'queued'),
  parked_for TEXT CHECK (parked_for IS NULL OR status = 'parked'),
  queue TEXT NOT NULL,
  lane TEXT NOT NULL DEFAULT '',
  priority INTEGER NOT NULL CHECK (priority BETWEEN -100 AND 100),
  rank INTEGER NOT NULL,
  user_id TEXT NOT NULL,
  agent TEXT,
  workflow_id TEXT,
  phase TEXT,
  schedule_id TEXT,
  session_id TEXT,
  concurrency_key TEXT,
  unique_key TEXT,
  unique_slot TEXT,
  retry_of TEXT,
  executor_id TEXT,
  attempt INTEGER NOT NULL CHECK (attempt >= 0),
  retry_count INTEGER NOT NULL CHECK (retry_count BETWEEN 0 AND attempt),
  blockers INTEGER NOT NULL CHECK (blockers >= 0 AND (blockers = 0 OR status = 'pending')),
  paused INTEGER NOT NULL CHECK (paused IN (0, 1) AND (paused = 0 OR status = 'pending')),
  wake_at INTEGER CHECK (wake_at IS NULL OR status IN ('pending', 'retrying', 'parked')),
  wake_is_delay INTEGER NOT NULL CHECK (wake_is_delay IN (0, 1)),
  deadline_at INTEGER,
  cancel_requested_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  queued_at INTEGER CHECK (queued_at IS NOT NULL OR status <> 'queued'),
  started_at INTEGER CHECK (started_at IS NOT NULL OR status NOT IN ('running', 'needs_input', 'retrying')),
  completed_at INTEGER,
  result_type TEXT,
  progress TEXT,
  error TEXT,
  usage TEXT,
  spec TEXT NOT NULL,
  CHECK ((completed_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled', 'skipped'))),
  CHECK (executor_id IS NOT NULL OR status NOT IN ('running', 'needs_input')),
  CHECK (wake_at IS NOT NULL OR status <> 'retrying'),
  CHECK (error IS NOT NULL OR status <> 'failed'),
  CHECK (unique_slot IS NULL OR completed_at IS NULL)
) STRICT;

-- What may be claimed, and nothing else: a claim costs the same whatever waits elsewhere.
CREATE INDEX tasks_claim ON tasks (queue, lane, rank, seq) WHERE status = 'queued' AND hold IS NULL;
CREATE INDEX tasks_parked ON tasks (parked_for, queue, lane, rank, seq)
  WHERE status = 'parked' AND parked_for IS NOT NULL;
CREATE INDEX tasks_key ON tasks (concurrency_key, queue, lane, rank, seq)
  WHERE status = 'queued' AND concurrency_key IS NOT NULL;
CREATE INDEX tasks_key_open ON tasks (concurrency_key)
  WHERE status = 'queued' AND concurrency_key IS NOT NULL AND hold IS NULL;
CREATE INDEX tasks_busy ON tasks (queue) WHERE status IN ('running', 'needs_input');
CREATE INDEX tasks_key_busy ON tasks (concurrency_key)
  WHERE status IN ('running', 'needs_input') AND concurrency_key IS NOT NULL;
CREATE INDEX tasks_wake ON tasks (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX tasks_deadline ON tasks (deadline_at)
  WHERE deadline_at IS NOT NULL AND status IN ('pending', 'queued', 'retrying', 'parked');
CREATE UNIQUE INDEX tasks_unique ON tasks (unique_slot) WHERE unique_slot IS NOT NULL;
CREATE INDEX tasks_unique_live ON tasks (unique_key) WHERE unique_key IS NOT NULL AND completed_at IS NULL;
-- Lists. Most tasks share the common values, for which a walk from the newest is quick; the index has the others.
CREATE INDEX tasks_status ON tasks (status, seq);
CREATE INDEX tasks_queue ON tasks (queue, seq) WHERE queue <> 'default';
CREATE INDEX tasks_user ON tasks (user_id, seq) WHERE user_id <> 'local';
CREATE INDEX tasks_agent ON tasks (agent, seq) WHERE agent IS NOT NULL;
-- What an agent's tasks took, the newest first.
CREATE INDEX tasks_usage ON tasks (agent, seq) WHERE usage IS NOT NULL AND completed_at IS NOT NULL;
CREATE INDEX tasks_workflow ON tasks (workflow_id, seq) WHERE workflow_id IS NOT NULL;
CREATE INDEX tasks_schedule ON tasks (schedule_id, seq) WHERE schedule_id IS NOT NULL;

-- The table of core/states.py: no statement, of whatever program, takes a task another way.
CREATE TRIGGER tasks_transition BEFORE UPDATE OF status ON tasks
WHEN OLD.status <> NEW.status AND OLD.status || '>' || NEW.status NOT IN (
    'needs_input>cancelled', 'needs_input>failed', 'needs_input>parked', 'needs_input>running',
    'parked>cancelled', 'parked>failed', 'parked>queued', 'pending>cancelled',
    'pending>completed', 'pending>failed', 'pending>queued', 'pending>skipped',
    'queued>cancelled', 'queued>failed', 'queued>parked', 'queued>pending',
    'queued>running', 'retrying>cancelled', 'retrying>failed', 'retrying>queued',
    'running>cancelled', 'running>completed', 'running>failed', 'running>needs_input',
    'running>parked', 'running>queued', 'running>retrying'
)
BEGIN
  SELECT RAISE(ABORT, 'no such transition');
END;

CREATE TABLE task_tags (
  tag TEXT NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (tag, seq)
) STRICT, WITHOUT ROWID;

-- What still holds a pending task back: a row goes when its reason does, and tasks.blockers counts them.
CREATE TABLE task_deps (
  depends_on TEXT NOT NULL,
  task_id TEXT NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('task', 'unique')),
  PRIMARY KEY (depends_on, task_id, kind)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_deps_task ON task_deps (task_id);

-- Ended tasks whose dependents are not all told yet: a long cascade goes on in steps.
CREATE TABLE loose_ends (
  task_id TEXT NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
  id TEXT NOT NULL PRIMARY KEY,
  task_id TEXT NOT NULL,
  number INTEGER NOT NULL CHECK (number > 0),
  executor_id TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('running', 'completed', 'failed', 'interrupted', 'parked', 'cancelled')),
  started_at INTEGER NOT NULL,
  ended_at INTEGER,
  exit_code INTEGER,
  signal TEXT,
  session_id TEXT,
  account TEXT,
  cap_usd REAL,
  output_bytes INTEGER,
  error TEXT,
  usage TEXT,
  resources TEXT,
  files_created TEXT,
  worktree TEXT,
  UNIQUE (task_id, number),
  CHECK ((ended_at IS NULL) = (status = 'running'))
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_running ON attempts (executor_id) WHERE status = 'running';
CREATE INDEX attempts_account ON attempts (account) WHERE status = 'running' AND account IS NOT NULL;

-- Accounts that are not open, and the breaker over all of them, whose name is empty. See core/governor.py.
CREATE TABLE valves (
  name TEXT NOT NULL PRIMARY KEY,
  state TEXT NOT NULL CHECK (state IN ('limited', 'closed')),
  until INTEGER CHECK (until IS NOT NULL OR state = 'closed'),
  jitter INTEGER NOT NULL,
  guessed INTEGER NOT NULL CHECK (guessed IN (0, 1)),
  step INTEGER NOT NULL,
  probe TEXT,
  reason TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What was spent of each budget, by whom (`key`: a task, tag or user) and when (`period`: a day since the epoch, or 0).
CREATE TABLE funds (
  budget TEXT NOT NULL,
  period INTEGER NOT NULL,
  key TEXT NOT NULL,
  used REAL NOT NULL DEFAULT 0,
  reserved REAL NOT NULL DEFAULT 0,
  PRIMARY KEY (budget, period, key)
) STRICT, WITHOUT ROWID;

-- What is set aside for attempts that run.
CREATE TABLE reservations (
  attempt_id TEXT NOT NULL,
  budget TEXT NOT NULL,
  period INTEGER NOT NULL,
  key TEXT NOT NULL,
  unit TEXT NOT NULL CHECK (unit IN ('usd', 'tokens')),
  amount REAL NOT NULL,
  PRIMARY KEY (attempt_id, budget, key)
) STRICT, WITHOUT ROWID;

CREATE TABLE results (
  task_id TEXT NOT NULL PRIMARY KEY,
  body BLOB NOT NULL
) STRICT;

CREATE TABLE queues (
  name TEXT NOT NULL PRIMARY KEY,
  max_running INTEGER CHECK (max_running >= 0),
  rate TEXT,
  paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
  -- How many tasks wait in it; kept by each transition in its own transaction.
  depth INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Starts within the period of a queue's rate; only queues with a rate have any.
CREATE TABLE queue_starts (
  queue TEXT NOT NULL,
  at INTEGER NOT NULL,
  attempt_id TEXT NOT NULL,
  PRIMARY KEY (queue, at, attempt_id)
) STRICT, WITHOUT ROWID;

-- AUTOINCREMENT: an id is never given twice, even when the newest rows were pruned.
CREATE TABLE events (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  type TEXT NOT NULL,
  at INTEGER NOT NULL,
  task_id TEXT,
  workflow_id TEXT,
  user_id TEXT,
  data TEXT NOT NULL
) STRICT;
CREATE INDEX events_task ON events (task_id, id) WHERE task_id IS NOT NULL;

CREATE TABLE executors (
  id TEXT NOT NULL PRIMARY KEY,
  host TEXT NOT NULL,
  pid INTEGER NOT NULL,
  version TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  heartbeat_at INTEGER NOT NULL,
  labels TEXT NOT NULL,
  slots INTEGER NOT NULL,
  running INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('running', 'draining', 'stopped', 'lost'))
) STRICT, WITHOUT ROWID;

CREATE TABLE tokens (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  hash TEXT NOT NULL UNIQUE,
  scope TEXT NOT NULL CHECK (scope IN ('read', 'submit', 'admin')),
  user_id TEXT,
  runners TEXT,
  agents TEXT,
  created_at INTEGER NOT NULL,
  expires_at INTEGER
) STRICT, WITHOUT ROWID;

-- The first answer to a creating request, for its twin.
CREATE TABLE idempotency (
  scope TEXT NOT NULL,
  key TEXT NOT NULL,
  digest TEXT NOT NULL,
  body BLOB NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_age ON idempotency (created_at);

-- Filled behind the submits, in steps (meta `text_seq` says how far): inside them it would cost as much as the task.
-- Short beginnings of words have an index of their own: without it a search merges every word that they begin.
CREATE VIRTUAL TABLE task_text USING fts5 (title, input, content = '', prefix = '1 2 3 4', tokenize = 'unicode61');
