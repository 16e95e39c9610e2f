"""DBOS: a workflow of one preemptible step in the application's own process, on SQLite.

The driver is that application, so it counts as the peer's process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSConfig, WorkflowHandleAsync
from peer_lines import Driver, Job, main, run_command


@DBOS.step(preemptible=True)
async def build(job: Job) -> int:
    """Run a command."""
    return await run_command(job)


@DBOS.workflow()
async def deploy(job: Job) -> int:
    """One step."""
    return await build(job)


class Dbos(Driver):
    """Starts and cancels by DBOS' own functions, in process."""

    _handle: WorkflowHandleAsync[int]

    async def open(self, folder: Path) -> dict[str, Any]:
        config: DBOSConfig = {
            "name": "bench",
            "system_database_url": f"sqlite:///{folder / 'dbos.db'}",
            "log_level": "ERROR",
        }
        DBOS(config=config)
        DBOS.launch()
        await DBOS.list_workflows_async(limit=1)
        return {"driver_counts": True}

    async def start(self, job: Job) -> None:
        self._handle = await DBOS.start_workflow_async(deploy, job)

    async def cancel(self) -> None:
        await DBOS.cancel_workflow_async(self._handle.workflow_id)

    async def is_over(self) -> bool:
        return (await self._handle.get_status()).status not in ("PENDING", "ENQUEUED")

    async def close(self) -> None:
        DBOS.destroy(workflow_completion_timeout_sec=0)


if __name__ == "__main__":
    main(Dbos())
