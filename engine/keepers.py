"""Keepers: one spare is kept ready, because starting one takes longer than starting a step."""

from __future__ import annotations

import contextlib
import logging
import math

import anyio

from .processes import is_alive, kill_strays
from .step_process import KeeperNotReady, StepProcess, keeper_pids

log = logging.getLogger(__name__)
RETRY_SECONDS = 1.0
BREATH_SECONDS = 0.03
TRIES = 3


class KeeperPool:
    """Hands out keepers, a ready one when there is one, and takes back those that are done."""

    def __init__(self) -> None:
        self._spare: StepProcess | None = None
        self._taken = anyio.Event()
        self._retire, self._retired = anyio.create_memory_object_stream[StepProcess](math.inf)

    async def run(self) -> None:
        """Keep a spare ready and end what was retired, until it is cancelled; then end the spare too."""
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._keep_ready)
                async for process in self._retired:
                    tasks.start_soon(process.aclose)
        finally:
            with anyio.CancelScope(shield=True):
                while self._retired.statistics().current_buffer_used:
                    await (await self._retired.receive()).aclose()
                if self._spare is not None:
                    await self._spare.aclose()
            self._retire.close()
            self._retired.close()

    async def take(self) -> StepProcess:
        """A keeper that waits for its step. Raises OSError when none can be started."""
        spare, self._spare = self._spare, None
        self._taken.set()
        if spare is not None:
            if is_alive(spare.identity):
                return spare
            self.retire(spare)
        for _ in range(TRIES - 1):
            # It had no step yet, so whoever killed it has stopped nothing.
            with contextlib.suppress(KeeperNotReady):
                return await StepProcess.spawn()
        return await StepProcess.spawn()

    def retire(self, process: StepProcess) -> None:
        """End a keeper, and whatever still runs of its step, without waiting for it."""
        self._retire.send_nowait(process)

    @staticmethod
    def kill_strays() -> int:
        """Kill what a killed keeper left: orphans come to this process, because it is a subreaper.

        Blocks the loop for the milliseconds it takes, so that no new keeper can be taken for a stray.
        """
        return kill_strays(keeper_pids())

    async def _keep_ready(self) -> None:
        while True:
            if self._spare is None:
                try:
                    self._spare = await StepProcess.spawn()
                except OSError:
                    log.exception("cannot start a spare keeper")
                    await anyio.sleep(RETRY_SECONDS)
                    continue
            self._taken = anyio.Event()
            await self._taken.wait()
            await anyio.sleep(
                BREATH_SECONDS
            )  # a new spare must not compete with the step that took the last one
