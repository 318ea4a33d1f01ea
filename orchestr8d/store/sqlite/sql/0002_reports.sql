-- What tells of a task's end, or follows from it.

-- Tasks that are to follow from the end of another, as they were written: a row goes with the submit that it becomes.
CREATE TABLE followups (
  seq INTEGER PRIMARY KEY,
  task_id TEXT NOT NULL,
  position INTEGER NOT NULL CHECK (position >= 0),
  spec TEXT NOT NULL,
  UNIQUE (task_id, position)
) STRICT;

-- Webhooks: subscriptions to events.
CREATE TABLE webhooks (
  id TEXT NOT NULL PRIMARY KEY,
  url TEXT NOT NULL,
  events TEXT NOT NULL,
  user_id TEXT,
  headers TEXT NOT NULL,
  secrets TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('active', 'paused', 'disabled')),
  reason TEXT,
  created_at INTEGER NOT NULL,
  failures INTEGER NOT NULL DEFAULT 0 CHECK (failures >= 0),
  failing_since INTEGER,
  probe_at INTEGER CHECK (probe_at IS NULL OR status = 'paused'),
  probes INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Events on their way, each to one endpoint, with the very bytes that are sent. AUTOINCREMENT: pages never show another's.
CREATE TABLE deliveries (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  endpoint TEXT NOT NULL,
  webhook_id TEXT,
  url TEXT NOT NULL,
  method TEXT NOT NULL,
  event_id INTEGER,
  place INTEGER NOT NULL,
  type TEXT NOT NULL,
  task_id TEXT,
  user_id TEXT NOT NULL,
  quiet INTEGER NOT NULL CHECK (quiet IN (0, 1)),
  status TEXT NOT NULL CHECK (status IN ('pending', 'delivered', 'dead')),
  fresh INTEGER NOT NULL CHECK (fresh IN (0, 1)),
  tries INTEGER NOT NULL CHECK (tries >= 0 AND (tries = 0 OR fresh = 0)),
  retry_count INTEGER NOT NULL CHECK (retry_count >= 0),
  next_at INTEGER,
  created_at INTEGER NOT NULL,
  done_at INTEGER,
  attempts TEXT NOT NULL,
  body BLOB NOT NULL,
  CHECK ((done_at IS NULL) = (status = 'pending')),
  CHECK ((next_at IS NOT NULL) = (status = 'pending'))
) STRICT;
-- What is to be sent, and nothing else: first attempts in the order of the log, the others when they are due.
CREATE INDEX deliveries_fresh ON deliveries (endpoint, place, seq) WHERE status = 'pending' AND fresh = 1;
CREATE INDEX deliveries_again ON deliveries (endpoint, next_at, seq) WHERE status = 'pending' AND fresh = 0;
CREATE UNIQUE INDEX deliveries_once ON deliveries (event_id, endpoint, url) WHERE event_id IS NOT NULL;
CREATE INDEX deliveries_done ON deliveries (done_at) WHERE done_at IS NOT NULL;
CREATE INDEX deliveries_dead ON deliveries (seq) WHERE status = 'dead';
CREATE INDEX deliveries_task ON deliveries (task_id, seq) WHERE task_id IS NOT NULL;
CREATE INDEX deliveries_webhook ON deliveries (webhook_id, seq) WHERE webhook_id IS NOT NULL;
-- Notifications, in the order in which they were made; see core/notices.py.
CREATE TABLE notices (
  seq INTEGER NOT NULL PRIMARY KEY,
  id TEXT NOT NULL UNIQUE,
  user_id TEXT NOT NULL,
  type TEXT NOT NULL CHECK (type IN (
    'phase_start', 'phase_complete', 'task_complete', 'task_failure', 'milestone', 'update', 'needs_input',
    'quality_gate', 'blocker', 'alert')),
  title TEXT,
  message TEXT NOT NULL,
  priority TEXT NOT NULL CHECK (priority IN ('low', 'normal', 'high', 'critical')),
  workflow_id TEXT,
  task_id TEXT,
  metadata TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  acked_at INTEGER,
  delivered_at INTEGER
) STRICT;
CREATE INDEX notices_user ON notices (user_id);
CREATE INDEX notices_type ON notices (type);
CREATE INDEX notices_workflow ON notices (workflow_id) WHERE workflow_id IS NOT NULL;
CREATE INDEX notices_unread ON notices (seq) WHERE acked_at IS NULL;

-- Where a notification goes: `channel` names one of those that its user has in the configuration.
CREATE TABLE notice_channels (
  notice INTEGER NOT NULL,
  position INTEGER NOT NULL,
  user_id TEXT NOT NULL,
  channel TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('pending', 'held', 'delivered', 'dead')),
  attempts INTEGER NOT NULL DEFAULT 0,
  next_at INTEGER,
  error TEXT,
  PRIMARY KEY (notice, position),
  CHECK ((next_at IS NOT NULL) = (status IN ('pending', 'held')))
) STRICT, WITHOUT ROWID;
-- Only of what is not settled: what is done costs a look at what is due nothing.
CREATE INDEX notice_channels_due ON notice_channels (next_at, user_id, channel) WHERE next_at IS NOT NULL;

