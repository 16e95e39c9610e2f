-- Times are milliseconds since 1970 (UTC). Integer keys `n` and `id` rise and are never used again,
-- so pages and waits go by them and never by a clock. Outside callers see only the UUIDs.

CREATE TABLE project (
    n            INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    account      TEXT NOT NULL,
    root         TEXT NOT NULL,
    name         TEXT NOT NULL,
    description  TEXT NOT NULL DEFAULT '',
    visibility   TEXT NOT NULL DEFAULT 'public' CHECK (visibility IN ('public', 'private')),
    created_at   INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    UNIQUE (account, root)
) STRICT;

CREATE TABLE session (
    n              INTEGER PRIMARY KEY AUTOINCREMENT,
    id             TEXT NOT NULL UNIQUE,
    account        TEXT NOT NULL,
    project        INTEGER NOT NULL REFERENCES project (n),
    revision       INTEGER NOT NULL DEFAULT 1,
    created_at     INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL
) STRICT;

CREATE INDEX session_of_project ON session (project, n);

CREATE TABLE workflow (
    n                   INTEGER PRIMARY KEY AUTOINCREMENT,
    id                  TEXT NOT NULL UNIQUE,
    session             INTEGER NOT NULL REFERENCES session (n),
    project             INTEGER NOT NULL REFERENCES project (n),
    status              TEXT NOT NULL CHECK (status IN
                            ('pending', 'running', 'paused', 'cancelling', 'cancelled', 'completed', 'failed')),
    message             TEXT NOT NULL,
    plan                TEXT NOT NULL,
    max_parallel        INTEGER,
    total_steps         INTEGER NOT NULL CHECK (total_steps > 0),
    position            INTEGER NOT NULL DEFAULT 1 CHECK (position BETWEEN 1 AND total_steps + 1),
    step                TEXT,
    step_percent        INTEGER CHECK (step_percent BETWEEN 0 AND 100),
    step_message        TEXT,
    confirmed_position  INTEGER,
    pause_requested     INTEGER NOT NULL DEFAULT 0,
    epoch               INTEGER,
    boot_id             TEXT,
    started_mono        INTEGER,
    output_mono         INTEGER,
    created_at          INTEGER NOT NULL,
    started_at          INTEGER,
    finished_at         INTEGER,
    cancel_requested_at INTEGER,
    cancel_mono         INTEGER,
    cancel_reason       TEXT,
    failure             TEXT,
    stopped             TEXT,
    CHECK ((finished_at IS NOT NULL) = (status IN ('cancelled', 'completed', 'failed'))),
    CHECK ((failure IS NOT NULL) = (status = 'failed')),
    CHECK (status NOT IN ('cancelling', 'cancelled') OR cancel_requested_at IS NOT NULL),
    CHECK (status NOT IN ('running', 'cancelling', 'completed', 'failed') OR started_at IS NOT NULL),
    CHECK (status NOT IN ('pending', 'paused') OR epoch IS NULL)
) STRICT;

-- A session has one workflow at most that is not final.
CREATE UNIQUE INDEX workflow_active_once ON workflow (session)
    WHERE status NOT IN ('cancelled', 'completed', 'failed');
CREATE INDEX workflow_active ON workflow (status, n)
    WHERE status NOT IN ('cancelled', 'completed', 'failed');
CREATE INDEX workflow_of_session ON workflow (session, n);

-- The same pairs as the transition table in the code.
CREATE TRIGGER workflow_transition BEFORE UPDATE OF status ON workflow
WHEN OLD.status <> NEW.status AND (OLD.status, NEW.status) NOT IN (VALUES
    ('pending', 'running'), ('pending', 'cancelled'),
    ('running', 'paused'), ('running', 'completed'), ('running', 'failed'), ('running', 'cancelling'),
    ('paused', 'running'), ('paused', 'cancelled'),
    ('cancelling', 'cancelled'))
BEGIN
    SELECT RAISE(ABORT, 'no such transition');
END;

CREATE TRIGGER workflow_final_is_final BEFORE UPDATE ON workflow
WHEN OLD.status = 'cancelled' OR OLD.status = 'completed' OR OLD.status = 'failed'
BEGIN
    SELECT RAISE(ABORT, 'final is final');
END;

CREATE TRIGGER workflow_decided_is_decided BEFORE UPDATE OF cancel_requested_at ON workflow
WHEN OLD.cancel_requested_at IS NOT NULL AND NEW.cancel_requested_at IS NOT OLD.cancel_requested_at
BEGIN
    SELECT RAISE(ABORT, 'a cancel is decided once');
END;

-- One row for each attempt of a step; written before its process is allowed to start.
CREATE TABLE step_run (
    workflow      INTEGER NOT NULL REFERENCES workflow (n),
    position      INTEGER NOT NULL,
    attempt       INTEGER NOT NULL,
    name          TEXT NOT NULL,
    deploy        INTEGER NOT NULL DEFAULT 0 CHECK (deploy IN (0, 1)),
    epoch         INTEGER NOT NULL,
    started_at    INTEGER NOT NULL,
    finished_at   INTEGER,
    exit_code     INTEGER,
    outcome       TEXT CHECK (outcome IN ('succeeded', 'failed', 'timed_out', 'stopped', 'lost', 'not_started')),
    boot_id       TEXT,
    keeper_pid    INTEGER,
    keeper_ticks  INTEGER,
    leader_pid    INTEGER,
    leader_ticks  INTEGER,
    PRIMARY KEY (workflow, position, attempt),
    CHECK ((finished_at IS NULL) = (outcome IS NULL))
) STRICT, WITHOUT ROWID;

CREATE TRIGGER step_only_while_running BEFORE INSERT ON step_run
WHEN NOT EXISTS (
    SELECT 1 FROM workflow AS w
    WHERE w.n = NEW.workflow AND w.status = 'running' AND w.epoch = NEW.epoch AND w.position = NEW.position)
BEGIN
    SELECT RAISE(ABORT, 'no step outside a running workflow');
END;

CREATE TRIGGER deploy_only_in_current_epoch BEFORE INSERT ON step_run
WHEN NEW.deploy = 1 AND NEW.epoch IS NOT (SELECT epoch FROM worker)
BEGIN
    SELECT RAISE(ABORT, 'no deploy step outside the current epoch');
END;

-- The one worker of this store. `epoch` rises with every worker that takes over, and fences its predecessors.
CREATE TABLE worker (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    epoch        INTEGER NOT NULL,
    leaving      INTEGER NOT NULL DEFAULT 1 CHECK (leaving IN (0, 1)),
    boot_id      TEXT,
    pid          INTEGER,
    start_ticks  INTEGER,
    version      TEXT,
    started_at   INTEGER
) STRICT;

INSERT INTO worker (one, epoch) VALUES (1, 0);

-- A question that only a person may answer, before the step at `position`.
CREATE TABLE gate (
    id           TEXT PRIMARY KEY,
    workflow     INTEGER NOT NULL REFERENCES workflow (n),
    position     INTEGER NOT NULL,
    step         TEXT NOT NULL,
    message      TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    answer       TEXT CHECK (answer IN ('confirmed', 'declined', 'skipped', 'cancelled')),
    answered_at  INTEGER,
    answered_by  TEXT,
    CHECK ((answer IS NULL) = (answered_at IS NULL))
) STRICT;

CREATE UNIQUE INDEX gate_open_once ON gate (workflow) WHERE answer IS NULL;

-- `ordinal` counts a session's messages from 1, so that their number is known without counting. No AUTOINCREMENT:
-- messages go only with their whole session, so within a session ids rise all the same, at one page a write less.
-- For an IN of more than two values SQLite fills a table with them for each row that is written: `variant` has none.
CREATE TABLE message (
    id          INTEGER PRIMARY KEY,
    ordinal     INTEGER NOT NULL,
    session     INTEGER NOT NULL REFERENCES session (n),
    workflow    INTEGER REFERENCES workflow (n),
    step        TEXT,
    side        TEXT NOT NULL CHECK (side IN ('user', 'ai')),
    variant     TEXT NOT NULL CHECK
                    (variant = 'info' OR variant = 'error' OR variant = 'success' OR variant = 'log'),
    content     TEXT NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX message_of_session ON message (session, id);

-- The first answer given for an idempotency key.
CREATE TABLE idempotency (
    session   INTEGER NOT NULL REFERENCES session (n),
    key       TEXT NOT NULL,
    digest    TEXT NOT NULL,
    workflow  INTEGER NOT NULL REFERENCES workflow (n),
    PRIMARY KEY (session, key)
) STRICT, WITHOUT ROWID;
