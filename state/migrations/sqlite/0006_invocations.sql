-- The first answer given for an idempotency key of a project's invocations. Goes with the session of its workflow.
CREATE TABLE invocation_key (
    project   INTEGER NOT NULL REFERENCES project (n),
    key       TEXT NOT NULL,
    digest    TEXT NOT NULL,
    workflow  INTEGER NOT NULL REFERENCES workflow (n),
    PRIMARY KEY (project, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX invocation_key_of_workflow ON invocation_key (workflow);
