-- Schedules, what became of their due times, and how what they start waits for its turn.

CREATE TABLE schedules (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  name TEXT NOT NULL UNIQUE,
  rule TEXT NOT NULL,
  timezone TEXT NOT NULL,
  task TEXT,
  workflow TEXT,
  catch_up TEXT NOT NULL CHECK (catch_up IN ('none', 'one', 'all')),
  catch_up_window REAL,
  overlap TEXT NOT NULL CHECK (overlap IN ('skip', 'queue', 'allow', 'replace')),
  jitter REAL NOT NULL CHECK (jitter >= 0),
  active INTEGER NOT NULL CHECK (active IN (0, 1)),
  source TEXT NOT NULL CHECK (source IN ('api', 'config')),
  user_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  next_at INTEGER CHECK ((next_at IS NOT NULL) = active),
  last_run INTEGER,
  recheck INTEGER NOT NULL CHECK (recheck IN (0, 1)),
  strikes INTEGER NOT NULL CHECK (strikes >= 0),
  alerting INTEGER NOT NULL CHECK (alerting IN (0, 1)),
  CHECK ((task IS NULL) <> (workflow IS NULL))
) STRICT;
-- What is due next: a look costs the same however many there are.
CREATE INDEX schedules_next ON schedules (next_at, seq) WHERE next_at IS NOT NULL;
CREATE INDEX schedules_config ON schedules (name) WHERE source = 'config';

-- One for each due time; of those that were missed in one go, one for all.
CREATE TABLE firings (
  schedule_id TEXT NOT NULL,
  time INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('fired', 'missed', 'skipped')),
  reason TEXT CHECK ((reason IS NULL) = (state = 'fired')),
  task_id TEXT,
  workflow_id TEXT,
  at INTEGER NOT NULL,
  "trigger" TEXT NOT NULL CHECK ("trigger" IN ('due', 'catch_up', 'manual')),
  count INTEGER NOT NULL CHECK (count = 1 OR state = 'missed'),
  until INTEGER NOT NULL CHECK (until >= time),
  PRIMARY KEY (schedule_id, time),
  CHECK ((state = 'fired') = ((task_id IS NULL) <> (workflow_id IS NULL)))
) STRICT, WITHOUT ROWID;
CREATE INDEX firings_age ON firings (at);

-- What a schedule has started and is not over.
CREATE INDEX tasks_schedule_open ON tasks (schedule_id) WHERE schedule_id IS NOT NULL AND completed_at IS NULL;
ALTER TABLE workflows ADD COLUMN schedule_id TEXT;
-- When it begins by itself, but not before the task or workflow `begin_after` is over.
ALTER TABLE workflows ADD COLUMN begin_at INTEGER;
ALTER TABLE workflows ADD COLUMN begin_after TEXT CHECK (begin_after IS NULL OR begin_at IS NOT NULL);
CREATE INDEX workflows_schedule_open ON workflows (schedule_id) WHERE schedule_id IS NOT NULL AND completed_at IS NULL;
CREATE INDEX workflows_begin ON workflows (begin_at) WHERE begin_at IS NOT NULL AND begin_after IS NULL;
CREATE INDEX workflows_begin_after ON workflows (begin_after) WHERE begin_after IS NOT NULL;
