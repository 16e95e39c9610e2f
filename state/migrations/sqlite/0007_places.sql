-- The newest message of the session in the moment in which an attempt began and ended, and in which a gate was opened: so
-- what happened in a workflow has one order that never changes, for whoever reads on from where he left. Null in what
-- older code has written: there the clock says it.
ALTER TABLE step_run ADD COLUMN began_after INTEGER;
ALTER TABLE step_run ADD COLUMN ended_after INTEGER;
ALTER TABLE gate ADD COLUMN asked_after INTEGER;
