"""Runs one workflow, step by step, for as long as the store says that it runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.to_thread

from bilt_mcp.state import (
    FINAL,
    Claim,
    DeployState,
    Failure,
    FailureCode,
    Note,
    ProcessRecord,
    SessionStore,
    StepTicket,
    Stopped,
    StoreUnavailable,
)

from .environment import step_environment
from .keepers import KeeperPool
from .processes import ProcessId
from .run_folder import RunFolder, step_file_name
from .step_output import StepOutput
from .step_process import StepCommand, StepProcess, StepResult
from .workflow_file import Step

log = logging.getLogger(__name__)
T = TypeVar("T")

FLUSH_SECONDS = 0.2
RETRY_STORE_SECONDS = 1.0
DEFAULT_LOG_BYTES = 1_310_720
DEFAULT_MAX_MESSAGES = 200


class _Decided(Exception):
    """The workflow is no longer this runner's to go on with: a cancel has won."""


@dataclass(frozen=True)
class _Attempt:
    """How one attempt of a step ended."""

    result: StepResult
    timed_out: bool
    notes: Sequence[Note]

    @property
    def succeeded(self) -> bool:
        return (
            self.result.code == 0
            and not self.timed_out
            and not self.result.stopped
            and self.result.start_error is None
        )


class Runner:
    """One claimed workflow. `run` returns when it is final, or paused and let go."""

    def __init__(
        self,
        store: SessionStore,
        claim: Claim,
        folder: RunFolder,
        keepers: KeeperPool,
        revive: tuple[str, ...],
    ) -> None:
        self._store = store
        self._claim = claim
        self._folder = folder
        self._keepers = keepers
        self._revive = revive
        self._environment: dict[str, str] = {}
        self._process: StepProcess | None = None
        self._cancelled = False
        self._interrupted = False
        self._last_stop: StepResult | None = None
        self._last_notes: Sequence[Note] = ()

    # -- from the worker -------------------------------------------------------------------------

    def cancel(self) -> None:
        """The store says `cancelling`: kill what runs. Never blocks; safe to repeat."""
        self._cancelled = True
        if self._process is not None:
            self._process.cancel()

    def interrupt(self) -> None:
        """The worker must go: kill what runs; the workflow fails as `interrupted`."""
        self._interrupted = True
        if self._process is not None:
            self._process.cancel()

    async def run(self) -> None:
        """Run it to its end."""
        try:
            await self._run_steps()
        except _Decided:
            await self._report_stopped()
        except Exception:
            log.exception("workflow %s: the runner failed", self._claim.workflow_id)
            await self._stop_process()
            await self._fail(
                FailureCode.INTERRUPTED,
                "bilt-mcp itself failed while it ran this workflow; its log has the cause.",
            )
        finally:
            await self._settle_folder()

    # -- the steps -------------------------------------------------------------------------------

    async def _run_steps(self) -> None:
        environment = self._folder.environment()
        if environment is None:
            await self._fail(
                FailureCode.INTERRUPTED,
                "What this workflow needed to run was lost, probably in a power cut. Send the message again.",
            )
            return
        self._environment = environment
        self._folder.write_message(self._claim.message)
        deadline = None
        if self._claim.plan.timeout is not None:
            deadline = time.monotonic() + self._claim.plan.timeout
        while self._claim.position <= len(self._claim.plan.steps):
            if await self._paused():
                return
            if not await self._run_step(deadline):
                return
            position = self._claim.position + 1
            if not await self._insist(lambda p=position: self._store.advance(self._claim, p)):  # type: ignore[misc]
                raise _Decided
            self._claim = replace(self._claim, position=position, confirmed=False)
        await self._complete()

    async def _paused(self) -> bool:
        planned = self._claim.plan.steps[self._claim.position - 1]
        question = None if self._claim.confirmed else planned.confirm
        if await self._insist(lambda: self._store.pause(self._claim, question)):
            return True
        if question is not None:
            raise _Decided  # a gate that could not be opened: only a cancel can have come first
        return False

    async def _run_step(self, deadline: float | None) -> bool:
        """Run the step at the claim's position with its retries; False when the workflow has ended by it."""
        planned = self._claim.plan.steps[self._claim.position - 1]
        step = Step.model_validate(planned.spec)
        for attempt in range(1, step.retries + 2):
            ended = await self._attempt(step, attempt, deadline)
            if ended.succeeded:
                return True
            if self._interrupted:
                await self._fail(
                    FailureCode.INTERRUPTED,
                    f"The worker was told to stop (shutdown or update) while step {step.name} ran.",
                    step.name,
                )
                return False
            out_of_time = deadline is not None and time.monotonic() >= deadline
            if attempt <= step.retries and not out_of_time and not ended.result.lost:
                await self._say([Note(_retry_text(step, attempt, ended), "info", step.name)])
                continue
            await self._fail_step(step, ended)
            return False
        raise AssertionError("unreachable")

    async def _attempt(self, step: Step, attempt: int, deadline: float | None) -> _Attempt:
        """One attempt of a step, from spawn to verified dead. Raises `_Decided` after a cancel."""
        name = step_file_name(self._claim.position, attempt)
        process = await self._keepers.take()
        self._process = process
        self._last_stop = None
        try:
            ticket = await self._insist(
                lambda: self._store.begin_step(self._claim, attempt, _record(process.identity))
            )
            if ticket is None or self._cancelled:
                raise _Decided
            leader = await process.start(self._command(step, ticket, name))
            limit = _sooner(step.timeout, deadline)
            output = StepOutput(
                step.name,
                self._secrets(step),
                self._claim.plan.limits.get("max_messages", DEFAULT_MAX_MESSAGES),
            )
            timed_out = await self._follow(process, ticket, leader, output, limit)
            result = await process.wait()
            ended = _Attempt(result, timed_out, output.finish())
            return await self._close_attempt(process, ticket, ended)
        finally:
            self._process = None
            self._keepers.retire(process)

    async def _follow(
        self,
        process: StepProcess,
        ticket: StepTicket,
        leader: ProcessId | None,
        output: StepOutput,
        limit: float | None,
    ) -> bool:
        """Pass on what the step says until everything it started is dead; whether its time was up."""
        timed_out = False

        async def watch_time(seconds: float) -> None:
            nonlocal timed_out
            await anyio.sleep(seconds)
            timed_out = True
            process.cancel()

        async def pass_on() -> None:
            if leader is not None:
                await self._try(lambda: self._store.step_started(ticket, _record(leader)))
            while True:
                await anyio.sleep(FLUSH_SECONDS)
                await self._flush(output)

        async with anyio.create_task_group() as tasks:
            if limit is not None:
                tasks.start_soon(watch_time, limit)
            tasks.start_soon(pass_on)
            async for chunk in process.chunks():
                output.feed(chunk.data, chunk.dropped)
            await process.wait()
            tasks.cancel_scope.cancel()
        return timed_out

    async def _flush(self, output: StepOutput) -> None:
        notes, percent, progress, wrote = output.take()
        if notes or percent is not None or progress is not None or wrote:
            await self._say(notes, percent=percent, progress=progress, wrote_output=wrote)

    async def _close_attempt(
        self, process: StepProcess, ticket: StepTicket, ended: _Attempt
    ) -> _Attempt:
        result = ended.result
        if result.lost:
            killed = await anyio.to_thread.run_sync(self._keepers.kill_strays)
            result = replace(result, killed=max(result.killed, killed))
            ended = replace(ended, result=result)
        if self._cancelled and not ended.succeeded:
            # The receipt and the last output become durable together, in `_report_stopped`.
            self._last_stop, self._last_notes = result, ended.notes
            if result.survivors:
                await self._wait_for_survivors(process, result)
            raise _Decided
        await self._insist(
            lambda: self._store.step_ended(ticket, _outcome(ended), result.code), always=True
        )
        await self._say(ended.notes)
        if self._cancelled:
            self._last_stop = result
            raise _Decided
        return ended

    async def _wait_for_survivors(self, process: StepProcess, result: StepResult) -> None:
        receipt = self._receipt(result, verified=False)
        await self._try(
            lambda: self._store.stop_unverified(self._claim.epoch, self._claim.workflow_id, receipt)
        )
        await process.wait_gone()
        self._last_stop = replace(result, survivors=0)

    def _command(self, step: Step, ticket: StepTicket, name: str) -> StepCommand:
        bilt = {
            "BILT_MESSAGE": self._claim.message,
            "BILT_MESSAGE_FILE": str(self._folder.message_file),
            "BILT_SESSION_ID": self._claim.session_id,
            "BILT_WORKFLOW_ID": self._claim.workflow_id,
            "BILT_STEP": step.name,
            "BILT_ARTIFACTS": str(self._folder.artifacts),
            "BILT_COOKIE": ticket.cookie,
        }
        return StepCommand(
            argv=step.argv,
            cwd=Path(self._claim.project_root) / step.cwd,
            env=step_environment(step, self._environment, bilt),
            folder=self._folder.path,
            name=name,
            grace=step.grace,
            log_bytes=self._claim.plan.limits.get("log_bytes", DEFAULT_LOG_BYTES),
            on_orphaned=self._revive,
        )

    def _secrets(self, step: Step) -> tuple[str, ...]:
        return tuple(self._environment.get(name, "") for name in step.secrets)

    # -- the end ---------------------------------------------------------------------------------

    async def _complete(self) -> None:
        notes = [Note("Workflow completed.", "success"), *_artifact_notes(self._folder.artifacts)]
        if not await self._insist(lambda: self._store.complete(self._claim, notes)):
            raise _Decided

    async def _fail_step(self, step: Step, ended: _Attempt) -> None:
        result = ended.result
        if result.lost:
            await self._fail(
                FailureCode.WORKER_LOST,
                f"The process that kept step {step.name} was killed from outside, so the step was stopped; nothing of "
                "it is alive. It was not started again by itself.",
                step.name,
            )
        elif result.start_error is not None:
            await self._fail(
                FailureCode.STEP_FAILED,
                f"Step {step.name} could not be started: {result.start_error}.",
                step.name,
            )
        elif ended.timed_out:
            await self._fail(
                FailureCode.TIMED_OUT,
                f"Step {step.name} took too long and was stopped; nothing of it is alive.",
                step.name,
            )
        else:
            await self._fail(
                FailureCode.STEP_FAILED,
                f"Step {step.name} failed with {_exit_text(result)}.",
                step.name,
                result.code,
            )

    async def _fail(
        self, code: FailureCode, message: str, step: str | None = None, exit_code: int | None = None
    ) -> None:
        failure = Failure(code, message, step, exit_code)
        notes = [Note(message, "error", step)]
        if not await self._insist(
            lambda: self._store.fail(self._claim, failure, notes), always=True
        ):
            await self._report_stopped()

    async def _report_stopped(self) -> None:
        """Everything is dead: tell the store, with the receipt."""
        receipt = self._receipt(self._last_stop, verified=True)
        told = f"Stopped: {receipt.processes_killed} processes killed, none alive."
        notes = [*self._last_notes, Note(told, "info", receipt.step)]
        await self._insist(
            lambda: self._store.stopped(self._claim.epoch, self._claim.workflow_id, receipt, notes),
            always=True,
        )

    def _receipt(self, result: StepResult | None, *, verified: bool) -> Stopped:
        steps = self._claim.plan.steps
        position = self._claim.position
        return Stopped(
            verified=verified,
            processes_killed=0 if result is None else result.killed,
            survivors=0 if result is None or verified else result.survivors,
            took_ms=0.0 if result is None else result.took_ms,
            step=steps[position - 1].name if position <= len(steps) else None,
            deploy=DeployState.NOT_STARTED,
        )

    async def _stop_process(self) -> None:
        if self._process is not None:
            self._process.cancel(0)
            await self._process.wait()

    async def _settle_folder(self) -> None:
        # After the answer: making a megabyte of log safe takes longer than a cancel may.
        await anyio.to_thread.run_sync(self._folder.make_logs_safe)
        status = await self._insist(
            lambda: self._store.workflow_status(self._claim.workflow_id), always=True
        )
        if status in FINAL:
            self._folder.forget()

    # -- talking to a store that may be full or locked -------------------------------------------

    async def _insist(self, call: Callable[[], Awaitable[T]], *, always: bool = False) -> T:
        """Call until the store answers. A cancel ends the waiting unless `always`: it must be recorded."""
        while True:
            try:
                return await call()
            except StoreUnavailable as error:
                log.warning("workflow %s: %s", self._claim.workflow_id, error)
                if self._cancelled and not always:
                    raise _Decided from error
                await anyio.sleep(RETRY_STORE_SECONDS)

    async def _try(self, call: Callable[[], Awaitable[object]]) -> None:
        """Call once; what is lost is only display."""
        try:
            await call()
        except StoreUnavailable as error:
            log.warning("workflow %s: %s", self._claim.workflow_id, error)

    async def _say(
        self,
        notes: Sequence[Note],
        *,
        percent: int | None = None,
        progress: str | None = None,
        wrote_output: bool = False,
    ) -> None:
        await self._try(
            lambda: self._store.note(
                self._claim, notes, percent=percent, progress=progress, wrote_output=wrote_output
            )
        )


def _record(process: ProcessId) -> ProcessRecord:
    return ProcessRecord(process.boot_id, process.pid, process.start_ticks)


def _sooner(timeout: float | None, deadline: float | None) -> float | None:
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    limits = [seconds for seconds in (timeout, left) if seconds is not None]
    return min(limits, default=None)


def _outcome(ended: _Attempt) -> str:
    if ended.succeeded:
        return "succeeded"
    if ended.result.lost:
        return "lost"
    return "timed_out" if ended.timed_out else "failed"


def _exit_text(result: StepResult) -> str:
    if result.signal is not None:
        return f"signal {result.signal}"
    return f"exit code {result.code}"


def _retry_text(step: Step, attempt: int, ended: _Attempt) -> str:
    why = "took too long" if ended.timed_out else f"failed with {_exit_text(ended.result)}"
    if ended.result.start_error is not None:
        why = "could not be started"
    return f"Step {step.name} {why}; attempt {attempt + 1} of {step.retries + 1}."


def _artifact_notes(folder: Path, most: int = 20) -> list[Note]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if not found:
        return []
    listed = [f"{path.relative_to(folder)} ({path.stat().st_size} bytes)" for path in found[:most]]
    more = f"\n… and {len(found) - most} more" if len(found) > most else ""
    return [Note(f"Artifacts in {folder}:\n" + "\n".join(listed) + more, "info")]
