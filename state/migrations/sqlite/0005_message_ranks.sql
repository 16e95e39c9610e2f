-- `nth` counts a session's messages of one variant from 1, as `ordinal` counts all of them: how many there are, and which is
-- the thousandth, is then known without counting. Null in what older code has written since: that is counted when it is read.
ALTER TABLE message ADD COLUMN nth INTEGER;

CREATE INDEX message_of_variant ON message (session, variant, id);

UPDATE message SET nth = r.nth
FROM (SELECT id, row_number() OVER (PARTITION BY session, variant ORDER BY id) AS nth FROM message) AS r
WHERE r.id = message.id;

-- Where each workflow begins: with what was asked for. A session has one active workflow, and only that one speaks, so
-- the messages of a workflow follow one another.
CREATE INDEX message_asked ON message (workflow) WHERE side = 'user';
