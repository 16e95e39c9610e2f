-- Who may use the store over HTTP. Times are milliseconds since 1970; of a secret only its SHA-256 is kept.

CREATE TABLE api_key (
    n           INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    name        TEXT NOT NULL,
    account     TEXT NOT NULL CHECK (account <> ''),
    project     TEXT,
    read_only   INTEGER NOT NULL CHECK (read_only IN (0, 1)),
    digest      BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    shown       TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    revoked_at  INTEGER
) STRICT;

CREATE UNIQUE INDEX api_key_name_once ON api_key (name) WHERE revoked_at IS NULL;

CREATE TRIGGER api_key_revoked_is_revoked BEFORE UPDATE ON api_key
WHEN OLD.revoked_at IS NOT NULL
BEGIN
    SELECT RAISE(ABORT, 'revoked is revoked');
END;

-- `ends_mono` is the end on the clock of the boot in which it began, which nobody can set back.
CREATE TABLE login (
    id          TEXT PRIMARY KEY,
    digest      BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
    api_key     INTEGER NOT NULL REFERENCES api_key (n),
    created_at  INTEGER NOT NULL,
    ends_at     INTEGER NOT NULL,
    boot_id     TEXT NOT NULL,
    ends_mono   INTEGER NOT NULL,
    idle_ms     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX login_of_key ON login (api_key);
CREATE INDEX login_by_end ON login (ends_at);
