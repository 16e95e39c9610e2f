"""Temporal: its dev server on a SQLite file, a worker process, a workflow of one activity that sends heartbeats.

`temporal_peer.py heartbeat|push` drives it, `temporal_peer.py work ADDRESS` is the worker. With `push` the server
also tells workers of a cancel at once, which is off by default.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from peer_lines import Driver, Job, answers, free_port, main, run_command

QUEUE = "bench"
HEARTBEAT = timedelta(seconds=10)
PUSH = (
    "frontend.WorkerCommandsEnabled=true",
    "system.enableCancelActivityWorkerCommand=true",
)


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(HEARTBEAT.total_seconds() / 2)


@activity.defn
async def build(job: Job) -> int:
    """Run a command, with heartbeats beside it, which is how an activity learns of a cancel."""
    beats = asyncio.create_task(_beat())
    try:
        return await run_command(job)
    finally:
        beats.cancel()


@workflow.defn
class Deploy:
    """One activity."""

    @workflow.run
    async def run(self, job: Job) -> int:
        return await workflow.execute_activity(
            build,
            job,
            start_to_close_timeout=timedelta(hours=1),
            heartbeat_timeout=HEARTBEAT,
            retry_policy=RetryPolicy(maximum_attempts=1),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )


async def work(address: str) -> None:
    """The worker as its user writes it."""
    client = await Client.connect(address)
    await Worker(client, task_queue=QUEUE, workflows=[Deploy], activities=[build]).run()


class Temporal(Driver):
    """A client of its own, next to the server and the worker."""

    def __init__(self, options: tuple[str, ...]) -> None:
        super().__init__()
        self._options = options
        self._client: Client
        self._run: WorkflowHandle[Any, Any]

    async def open(self, folder: Path) -> dict[str, Any]:
        address = f"127.0.0.1:{(port := free_port())}"
        began = time.monotonic_ns()
        self.serve(
            [
                *(str(Path(sys.executable).parent / "temporal"), "server", "start-dev"),
                *("--headless", "--ip", "127.0.0.1", "--port", str(port)),
                *("--http-port", str(free_port()), "--metrics-port", str(free_port())),
                *("--db-filename", str(folder / "temporal.db"), "--log-level", "error"),
                *(part for option in self._options for part in ("--dynamic-config-value", option)),
            ],
            folder / "server.log",
        )

        async def up() -> Client:
            return await Client.connect(address)

        self._client = await answers(up)
        first = (time.monotonic_ns() - began) / 1e6
        self.serve([sys.executable, __file__, "work", address], folder / "worker.log")
        return {"first_answer_ms": first}

    async def start(self, job: Job) -> None:
        self._run = await self._client.start_workflow(
            Deploy.run, job, id=uuid.uuid4().hex, task_queue=QUEUE
        )

    async def cancel(self) -> None:
        await self._run.cancel()

    async def is_over(self) -> bool:
        return (await self._run.describe()).status != WorkflowExecutionStatus.RUNNING


if __name__ == "__main__":
    if sys.argv[1] == "work":
        asyncio.run(work(sys.argv[2]))
    else:
        main(Temporal(PUSH if sys.argv[1] == "push" else ()))
