-- What may be lost. `at` is milliseconds on the clock of one boot, `boot`: numbers of another one mean nothing.

CREATE TABLE boot (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    boot_id  TEXT NOT NULL
) STRICT;

INSERT INTO boot (one, boot_id) VALUES (1, '');

-- One row for each that counts. `n` rises, so the oldest are found without looking at all.
CREATE TABLE hit (
    n       INTEGER PRIMARY KEY,
    bucket  TEXT NOT NULL,
    at      INTEGER NOT NULL
) STRICT;

CREATE INDEX hit_of_bucket ON hit (bucket, at);

-- When a key or a login was last used: `at` is wall time, `mono` of the boot.
CREATE TABLE seen (
    id        TEXT PRIMARY KEY,
    at        INTEGER NOT NULL,
    mono      INTEGER,
    until_at  INTEGER
) STRICT, WITHOUT ROWID;
