"""One attempt of a step: from a keeper that waits to everything it started verified dead."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import anyio

from bilt_mcp.state import Claim, Note, ProcessRecord, SessionStore, StepTicket

from .environment import step_environment
from .keepers import KeeperPool
from .patience import attempt as try_once
from .patience import insist
from .processes import ProcessId
from .run_folder import RunFolder, step_file_name
from .step_log import read_log
from .step_output import StepOutput
from .step_process import StepCommand, StepProcess, StepResult
from .workflow_step import Step

FLUSH_SECONDS = 0.2
"""Output becomes a message at most this often: a message for every line would be too many."""
GATHER_SECONDS = 0.02
"""What is written so soon after a silence is told together."""
END_BYTES = 1 << 16
DEFAULT_LOG_BYTES = 1_310_720
DEFAULT_MAX_MESSAGES = 200


class NotRunning(Exception):
    """The workflow is no longer running under this claim: nothing was started."""


@dataclass(frozen=True)
class Ended:
    """How an attempt ended, and what it said last. Nothing of it is alive."""

    result: StepResult
    timed_out: bool
    notes: Sequence[Note]
    last_lines: str = ""
    """For whoever looks at failures only."""

    @property
    def succeeded(self) -> bool:
        """Whether the step did what it should: ended by itself, with exit code 0, in time."""
        result = self.result
        spoiled = self.timed_out or result.stopped or result.lost or result.start_error is not None
        return result.code == 0 and not spoiled

    @property
    def outcome(self) -> str:
        """The attempt's outcome as the store keeps it."""
        if self.succeeded:
            return "succeeded"
        if self.result.start_error is not None:
            return "not_started"
        if self.result.lost:
            return "lost"
        return "timed_out" if self.timed_out else "failed"


class StepAttempt:
    """One attempt; `stop` may be called at any time, before it runs too."""

    def __init__(
        self,
        store: SessionStore,
        claim: Claim,
        step: Step,
        number: int,
        environment: Mapping[str, str],
        folder: RunFolder,
        revive: tuple[str, ...],
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """`variables` are what the step gets beside those of every step."""
        self._store = store
        self._claim = claim
        self._step = step
        self._number = number
        self._environment = environment
        self._folder = folder
        self._revive = revive
        self._variables = variables or {}
        self._process: StepProcess | None = None
        self._stopped = False
        self.ticket: StepTicket | None = None

    def stop(self) -> None:
        """TERM, after the step's grace KILL. Never blocks; safe to repeat."""
        self._stopped = True
        if self._process is not None:
            self._process.cancel()

    async def run(
        self,
        keepers: KeeperPool,
        limit: float | None,
        on_survivors: Callable[[StepResult], Awaitable[None]],
    ) -> Ended:
        """Run it for at most `limit` seconds.

        `on_survivors` is told when the kill takes longer than it may; it is waited for all the same. Raises
        `NotRunning` when the workflow is not to run any more, and OSError when no keeper can be started.
        """
        process = await keepers.take()
        try:
            return await self._run(process, limit, on_survivors)
        finally:
            self._process = None
            keepers.retire(process)

    async def _run(
        self,
        process: StepProcess,
        limit: float | None,
        on_survivors: Callable[[StepResult], Awaitable[None]],
    ) -> Ended:
        if self._stopped:
            raise NotRunning
        # The intent is durable before anything starts: whoever sweeps after a crash knows where to look.
        keeper = _record(process.identity)
        ticket = await insist(
            lambda: self._store.begin_step(self._claim, self._number, keeper),
            unless=lambda: self._stopped,
        )
        if ticket is None:
            raise NotRunning
        self.ticket = ticket
        if self._stopped:
            await insist(lambda: self._store.step_ended(ticket, "not_started", None))
            raise NotRunning
        self._process = process
        leader = await process.start(self._command(ticket))
        secrets = [self._environment.get(name, "") for name in self._step.secrets]
        most = self._claim.plan.limits.get("max_messages", DEFAULT_MAX_MESSAGES)
        output = StepOutput(self._step.name, secrets, most)
        timed_out = await self._follow(process, ticket, leader, output, limit)
        result = await process.wait()
        if result.lost:
            result = replace(result, killed=KeeperPool.kill_strays())
        if result.survivors:
            await on_survivors(result)
            await process.wait_gone()
            result = replace(result, survivors=0)
        log = read_log(self._folder.path, self._name) if output.incomplete else b""
        end = log[-END_BYTES:]
        notes = output.finish(end[end.find(b"\n") + 1 :])
        return Ended(result, timed_out, notes, output.last_lines)

    async def _follow(
        self,
        process: StepProcess,
        ticket: StepTicket,
        leader: ProcessId | None,
        output: StepOutput,
        limit: float | None,
    ) -> bool:
        """Pass on what the step says until the keeper has reported; whether its time was up."""
        timed_out = False
        heard = anyio.Event()

        async def watch_time(seconds: float) -> None:
            nonlocal timed_out
            await anyio.sleep(seconds)
            timed_out = True
            process.cancel()

        async def pass_on() -> None:
            if leader is not None:
                started = _record(leader)
                await try_once(lambda: self._store.step_started(ticket, started))
            nonlocal heard
            while True:
                await heard.wait()
                await anyio.sleep(GATHER_SECONDS)
                heard = anyio.Event()
                await self._say(output)
                # Steps that speak all the time do so together: the store then syncs once for all of them.
                await anyio.sleep(FLUSH_SECONDS - time.monotonic() % FLUSH_SECONDS)

        async with anyio.create_task_group() as tasks:
            if limit is not None:
                tasks.start_soon(watch_time, limit)
            tasks.start_soon(pass_on)
            async for chunk in process.chunks():
                output.feed(chunk.data, chunk.dropped)
                heard.set()
            tasks.cancel_scope.cancel()
        return timed_out

    async def _say(self, output: StepOutput) -> None:
        notes, percent, progress, wrote = output.take()
        if notes or percent is not None or progress is not None or wrote:
            await try_once(
                lambda: self._store.note(
                    self._claim, notes, percent=percent, progress=progress, wrote_output=wrote
                )
            )

    @property
    def _name(self) -> str:
        return step_file_name(self._claim.position, self._number)

    def _command(self, ticket: StepTicket) -> StepCommand:
        step = self._step
        bilt = {
            "BILT_MESSAGE": self._claim.message,
            "BILT_MESSAGE_FILE": str(self._folder.message_file),
            "BILT_SESSION_ID": self._claim.session_id,
            "BILT_WORKFLOW_ID": self._claim.workflow_id,
            "BILT_STEP": step.name,
            "BILT_ARTIFACTS": str(self._folder.artifacts),
            "BILT_COOKIE": ticket.cookie,
            **self._variables,
        }
        return StepCommand(
            argv=step.argv,
            cwd=Path(self._claim.project_root) / step.cwd,
            env=step_environment(step, self._environment, bilt),
            folder=self._folder.path,
            name=self._name,
            grace=step.grace,
            log_bytes=self._claim.plan.limits.get("log_bytes", DEFAULT_LOG_BYTES),
            on_orphaned=self._revive,
        )


def _record(process: ProcessId) -> ProcessRecord:
    return ProcessRecord(process.boot_id, process.pid, process.start_ticks)
