-- What lies beside the database for each workflow: its logs and artifacts. Kept apart from `workflow`,
-- whose final rows never change. A row outlives its workflow until the files are deleted too.
CREATE TABLE kept_files (
    workflow  TEXT PRIMARY KEY,
    bytes     INTEGER NOT NULL CHECK (bytes >= 0),
    pruned    INTEGER NOT NULL DEFAULT 0 CHECK (pruned IN (0, 1))
) STRICT, WITHOUT ROWID;

CREATE INDEX kept_files_pruned ON kept_files (workflow) WHERE pruned = 1;

-- Their sum, so that it is known without adding them up.
CREATE TABLE kept_total (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    bytes  INTEGER NOT NULL CHECK (bytes >= 0)
) STRICT;

INSERT INTO kept_total (one, bytes) VALUES (1, 0);

CREATE TRIGGER kept_files_come AFTER INSERT ON kept_files
BEGIN
    UPDATE kept_total SET bytes = bytes + NEW.bytes;
END;

CREATE TRIGGER kept_files_change AFTER UPDATE OF bytes ON kept_files
BEGIN
    UPDATE kept_total SET bytes = bytes + NEW.bytes - OLD.bytes;
END;

CREATE TRIGGER kept_files_go AFTER DELETE ON kept_files
BEGIN
    UPDATE kept_total SET bytes = bytes - OLD.bytes;
END;
