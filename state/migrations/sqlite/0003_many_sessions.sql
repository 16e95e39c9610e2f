-- So that looking for sessions to delete takes no longer when there are many that stay. Not a partial index on `account`:
-- for a statement that compares it with a parameter, SQLite would then make a new plan each time.
CREATE INDEX session_by_age ON session (updated_at);

-- What is hidden is the oldest of all.
UPDATE session SET updated_at = -1 WHERE account = '';
