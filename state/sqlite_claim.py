"""How a worker finds what waits, and takes it."""

from __future__ import annotations

from .sqlite_rows import NOT_FINAL

WAITS = f"""
    SELECT 1 FROM workflow
    WHERE {NOT_FINAL} AND (status = 'pending' OR (status = 'running' AND epoch IS NULL)) LIMIT 1"""
"""Whether anything waits; it may have to wait for room in its project."""

# The oldest that waits in a certain way. The count keeps a project within its own `max_parallel`.
_OLDEST = f"""
    SELECT n FROM (
        SELECT w.n FROM workflow AS w
        WHERE w.{NOT_FINAL} AND w.{{waits}}
          AND (w.max_parallel IS NULL OR w.max_parallel > (
                SELECT count(*) FROM workflow AS o WHERE o.{NOT_FINAL}
                  AND o.project = w.project AND o.status IN ('running', 'cancelling') AND o.epoch IS NOT NULL))
        ORDER BY w.n LIMIT 1)"""
_NEW, _LET_GO = "status = 'pending'", "status = 'running' AND w.epoch IS NULL"
# Each way by itself, so that it is read in its order.
CLAIM = f"""
    UPDATE workflow SET
        status = 'running', epoch = :epoch, started_at = coalesce(started_at, :now),
        started_mono = CASE
            WHEN started_at IS NULL THEN :mono
            WHEN boot_id = :boot THEN started_mono
            ELSE :mono - max(0, :now - started_at) END,
        boot_id = :boot, output_mono = :mono
    WHERE n = (
        SELECT min(n) FROM ({_OLDEST.format(waits=_NEW)} UNION ALL {_OLDEST.format(waits=_LET_GO)}))
      AND :epoch = (SELECT epoch FROM worker)
    RETURNING n"""
"""Takes the oldest that waits: new, or let go at a pause and confirmed or resumed since."""

CLAIMED = """
    SELECT w.id, s.account, s.id AS session_id, p.id AS project_id, p.root,
           w.message, w.plan, w.position, w.confirmed_position
    FROM workflow AS w JOIN session AS s ON s.n = w.session JOIN project AS p ON p.n = w.project
    WHERE w.n = :n"""
"""All that a worker must know of what it took."""
