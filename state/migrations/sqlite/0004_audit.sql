-- Who decided what, and why. Goes with its session; a project's own rows have none.
CREATE TABLE audit (
    n          INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    account    TEXT NOT NULL,
    action     TEXT NOT NULL CHECK (action IN
                   ('start', 'confirm', 'decline', 'expire', 'cancel', 'pause', 'resume', 'create_project')),
    session    INTEGER REFERENCES session (n),
    workflow   INTEGER REFERENCES workflow (n),
    project    INTEGER REFERENCES project (n),
    principal  TEXT NOT NULL,
    client     TEXT NOT NULL,
    surface    TEXT NOT NULL,
    reason     TEXT,
    CHECK ((action = 'create_project') = (workflow IS NULL))
) STRICT;

CREATE INDEX audit_of_session ON audit (session, n);
CREATE INDEX audit_of_projects ON audit (account, at) WHERE action = 'create_project';

-- What was decided is not rewritten.
CREATE TRIGGER audit_stays BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'what was decided is not rewritten');
END;

-- A project has a name of its own once an agent can choose one; folders that were opened may share theirs.
CREATE INDEX project_by_name ON project (account, name);
