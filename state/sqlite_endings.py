"""The store on SQLite: how a workflow that a worker holds ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .driver import sqlite3
from .models import Claim, DeployState, Failure, Note, Stopped
from .sqlite_base import Row, one
from .sqlite_rows import DEPLOY_STATE, failure_text, quoted, stopped_text
from .sqlite_writes import SharedWrites
from .transitions import Event, sources

CURRENT = "(SELECT epoch FROM worker)"
"""The epoch of the present worker: nobody else's writes count."""
HELD = f"id = :id AND epoch = :epoch AND :epoch = {CURRENT}"
"""The workflow of a claim, as long as its epoch holds it and no other worker has taken over."""


class EndingVerbs(SharedWrites):
    """A part of `SessionStore`, whose docstrings are the contract."""

    async def complete(self, claim: Claim, notes: Sequence[Note]) -> bool:
        """See `SessionStore.complete`."""
        return await self._write(
            lambda c: self._end(c, claim, Event.COMPLETE, "completed", None, notes)
        )

    async def fail(self, claim: Claim, failure: Failure, notes: Sequence[Note]) -> bool:
        """See `SessionStore.fail`."""
        return await self._write(
            lambda c: self._end(c, claim, Event.FAIL, "failed", failure_text(failure), notes),
            vital=True,
        )

    def _end(
        self,
        c: sqlite3.Connection,
        claim: Claim,
        event: Event,
        status: str,
        failure: str | None,
        notes: Sequence[Note],
    ) -> bool:
        row = one(
            c,
            f"""UPDATE workflow SET status = :status, finished_at = :now, failure = :failure
                WHERE {HELD} AND status IN ({quoted(sources(event))}) RETURNING n, session""",
            id=claim.workflow_id,
            epoch=claim.epoch,
            status=status,
            now=self._clock.now(),
            failure=failure,
        )
        if row is None:
            return False
        self._append(c, row["session"], row["n"], notes)
        self._touch(c, row["session"])
        return True

    async def stopped(
        self, epoch: int, workflow_id: str, receipt: Stopped, notes: Sequence[Note]
    ) -> bool:
        """See `SessionStore.stopped`."""

        def end(c: sqlite3.Connection) -> bool:
            row = self._cancelling_row(c, epoch, workflow_id)
            if row is None:
                return False
            kept = replace(receipt, deploy=DeployState(row["deploy"]))
            done = self._finish_cancel(c, row["n"], stopped_text(kept), notes)
            # Afterwards: what a step said last comes before its end.
            self._close_steps(c, row["n"], "stopped")
            return done

        return await self._write(end, vital=True)

    async def stop_unverified(self, epoch: int, workflow_id: str, receipt: Stopped) -> bool:
        """See `SessionStore.stop_unverified`."""

        def keep(c: sqlite3.Connection) -> bool:
            row = self._cancelling_row(c, epoch, workflow_id)
            if row is None:
                return False
            kept = replace(receipt, deploy=DeployState(row["deploy"]))
            c.execute(
                "UPDATE workflow SET stopped = ? WHERE n = ? AND status = 'cancelling'",
                (stopped_text(kept), row["n"]),
            )
            self._touch_of(c, row["n"])
            return True

        return await self._write(keep)

    def _cancelling_row(self, c: sqlite3.Connection, epoch: int, workflow_id: str) -> Row | None:
        return one(
            c,
            f"""SELECT w.n, {DEPLOY_STATE} AS deploy FROM workflow AS w
                WHERE w.id = :id AND w.epoch = :epoch AND :epoch = {CURRENT} AND w.status = 'cancelling'""",
            id=workflow_id,
            epoch=epoch,
        )
