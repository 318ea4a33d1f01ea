-- Workflows: their phases and tasks with what they depend on, signals, and what is kept of those that are over.

CREATE TABLE workflows (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  template TEXT,
  status TEXT NOT NULL CHECK (status IN ('pending', 'running', 'paused', 'blocked', 'completed', 'failed', 'cancelled')),
  cwd TEXT NOT NULL,
  user_id TEXT NOT NULL,
  priority INTEGER NOT NULL,
  callback_url TEXT,
  max_cost_usd REAL,
  parent_task TEXT,
  depth INTEGER NOT NULL,
  fail_fast INTEGER NOT NULL CHECK (fail_fast IN (0, 1)),
  on_cancel TEXT,
  started INTEGER NOT NULL CHECK (started IN (0, 1)),
  paused INTEGER NOT NULL CHECK (paused IN (0, 1)),
  ending TEXT CHECK (ending IN ('cancel', 'fail')),
  open INTEGER NOT NULL CHECK (open >= 0),
  active INTEGER NOT NULL CHECK (active >= 0),
  waiting INTEGER NOT NULL CHECK (waiting >= 0),
  failed INTEGER NOT NULL CHECK (failed >= 0),
  again INTEGER NOT NULL CHECK (again >= 0),
  rollback INTEGER NOT NULL CHECK (rollback IN (0, 1)),
  max_parallel INTEGER,
  running INTEGER NOT NULL CHECK (running >= 0),
  report_every REAL,
  report_at INTEGER,
  deadline_at INTEGER,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  started_at INTEGER,
  completed_at INTEGER,
  error TEXT,
  CHECK ((completed_at IS NOT NULL) = (status IN ('completed', 'failed', 'cancelled'))),
  CHECK (completed_at IS NULL OR report_at IS NULL)
) STRICT;
CREATE INDEX workflows_status ON workflows (status, seq);
CREATE INDEX workflows_name ON workflows (name, seq);
CREATE INDEX workflows_user ON workflows (user_id, seq);
CREATE INDEX workflows_report ON workflows (report_at) WHERE report_at IS NOT NULL;
CREATE INDEX workflows_parent ON workflows (parent_task) WHERE parent_task IS NOT NULL;

-- What seldom changes, so that a count costs no copy of it.
CREATE TABLE workflow_texts (
  workflow_id TEXT NOT NULL PRIMARY KEY,
  definition TEXT NOT NULL,
  params TEXT NOT NULL,
  tags TEXT NOT NULL,
  metadata TEXT NOT NULL,
  milestones TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE workflow_tags (
  tag TEXT NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (tag, seq)
) STRICT, WITHOUT ROWID;

-- Phases and tasks, by their local ids.
CREATE TABLE workflow_nodes (
  workflow_id TEXT NOT NULL,
  id TEXT NOT NULL,
  position INTEGER NOT NULL,
  kind TEXT NOT NULL CHECK (kind IN ('phase', 'task', 'fan', 'approval', 'workflow')),
  state TEXT NOT NULL CHECK (state IN ('waiting', 'when', 'timed', 'held', 'full', 'render', 'open', 'again',
                                       'completed', 'failed', 'cut', 'cancelled', 'skipped')),
  phase TEXT,
  parent TEXT,
  "index" INTEGER,
  depth INTEGER NOT NULL,
  round INTEGER NOT NULL,
  task_id TEXT CHECK ((task_id IS NULL) = (kind = 'phase')),
  waits INTEGER NOT NULL CHECK (waits >= 0),
  signals INTEGER NOT NULL CHECK (signals >= 0 AND (signals = 0 OR state = 'held')),
  open INTEGER NOT NULL CHECK (open >= 0),
  failed INTEGER NOT NULL CHECK (failed >= 0),
  running INTEGER NOT NULL CHECK (running >= 0),
  max_parallel INTEGER,
  asked INTEGER NOT NULL CHECK (asked >= 0),
  wake_at INTEGER CHECK (wake_at IS NULL OR state IN ('timed', 'held', 'open')),
  wake_is_delay INTEGER NOT NULL CHECK (wake_is_delay IN (0, 1)),
  started_at INTEGER,
  completed_at INTEGER,
  rule TEXT NOT NULL,
  item TEXT,
  feedback TEXT,
  PRIMARY KEY (workflow_id, id),
  CHECK ((completed_at IS NOT NULL) = (state IN ('completed', 'failed', 'cut', 'cancelled', 'skipped')))
) STRICT, WITHOUT ROWID;
-- Members of a phase that are in a state: those that wait for room; those that are left when it ends early.
CREATE INDEX workflow_nodes_phase ON workflow_nodes (workflow_id, phase, position, "index") WHERE phase IS NOT NULL;
CREATE INDEX workflow_nodes_parent ON workflow_nodes (workflow_id, parent, "index") WHERE parent IS NOT NULL;
CREATE INDEX workflow_nodes_full ON workflow_nodes (workflow_id, position, "index") WHERE state = 'full';
CREATE INDEX workflow_nodes_due ON workflow_nodes (workflow_id, position, "index") WHERE state IN ('when', 'render');
CREATE INDEX workflow_nodes_wake ON workflow_nodes (wake_at) WHERE wake_at IS NOT NULL;

-- Who depends on whom, phases and tasks alike, as declared.
CREATE TABLE workflow_edges (
  workflow_id TEXT NOT NULL,
  src TEXT NOT NULL,
  dst TEXT NOT NULL,
  PRIMARY KEY (workflow_id, src, dst)
) STRICT, WITHOUT ROWID;

-- The last payload that was sent under each name, and who waits for one that was not.
CREATE TABLE signals (
  workflow_id TEXT NOT NULL,
  name TEXT NOT NULL,
  payload TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (workflow_id, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE signal_waits (
  workflow_id TEXT NOT NULL,
  name TEXT NOT NULL,
  node TEXT NOT NULL,
  PRIMARY KEY (workflow_id, name, node)
) STRICT, WITHOUT ROWID;

-- What is still to be done, outside of the transaction that caused it: milestones to be written, reports to be kept; or
-- in further ones: the ends of tasks of a long cascade.
CREATE TABLE workflow_marks (
  -- Never used again: whoever takes one may be late.
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  workflow_id TEXT NOT NULL,
  node TEXT,
  what TEXT NOT NULL CHECK (what IN ('milestone', 'archive', 'ending')),
  UNIQUE (workflow_id, node, what)
) STRICT;

-- Finished workflows with their reports; they outlive their tasks.
CREATE TABLE archive (
  seq INTEGER PRIMARY KEY,
  workflow_id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL,
  status TEXT NOT NULL,
  user_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  completed_at INTEGER NOT NULL,
  report TEXT NOT NULL
) STRICT;
CREATE VIRTUAL TABLE archive_text USING fts5 (
  name, report, content = 'archive', content_rowid = 'seq', tokenize = 'unicode61'
);

-- The local id of a task in its workflow.
ALTER TABLE tasks ADD COLUMN local_id TEXT;
