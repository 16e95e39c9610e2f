-- What may be lost: who has asked how often in the last minute, and when last.

-- Times on a monotonic clock mean nothing on another boot's.
CREATE TABLE boot (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    boot_id  TEXT NOT NULL
) STRICT;

INSERT INTO boot (one, boot_id) VALUES (1, '');

-- One row a bucket, which is half the price of one a hit and an index to count them. `hits`: the time of each that
-- may still count, in milliseconds of `boot`, 8 bytes each, oldest first. `used_at`: the last one's in milliseconds since
-- 1970, `used_mono` the same of `boot`. Rows without `keep_until` go when nothing in them counts.
CREATE TABLE bucket (
    name        TEXT PRIMARY KEY,
    hits        BLOB NOT NULL,
    used_at     INTEGER NOT NULL,
    used_mono   INTEGER,
    keep_until  INTEGER
) STRICT, WITHOUT ROWID;
