"""Runs one workflow, step by step, for as long as the store says that it runs."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import anyio
import anyio.to_thread
from pydantic import ValidationError

from bilt_mcp.state import (
    FINAL,
    Caller,
    CannotCancel,
    Claim,
    DeployState,
    Failure,
    FailureCode,
    Halted,
    Note,
    Refusal,
    SessionStore,
    Stopped,
    StoreUnavailable,
    limited_to,
)

from .artifact_notes import artifact_notes
from .call_variables import call_variables, keep_for_others
from .housekeeping import size_of
from .keepers import KeeperPool
from .patience import attempt as try_once
from .patience import insist
from .run_folder import RunFolder
from .safe_text import Redactor
from .step_attempt import Ended, NotRunning, StepAttempt
from .step_process import StepResult
from .step_spans import StepSpans, WorkflowSpans
from .workflow_step import Step

log = logging.getLogger(__name__)
T = TypeVar("T")

HALT_SECONDS = 9.0


class Runner:
    """One claimed workflow. `run` returns when it is final, or paused and let go."""

    def __init__(
        self,
        store: SessionStore,
        claim: Claim,
        folder: RunFolder,
        keepers: KeeperPool,
        revive: tuple[str, ...],
        spans: StepSpans | None = None,
    ) -> None:
        self._store = store
        self._claim = claim
        self._folder = folder
        self._keepers = keepers
        self._revive = revive
        self._environment: dict[str, str] = {}
        self._spans: WorkflowSpans = (spans or StepSpans()).of(claim, folder.trace())
        self._deadline: float | None = None
        self._attempt: StepAttempt | None = None
        self._last: Ended | None = None
        self._cancelled = False
        self._interrupted = False
        self._unrecorded: tuple[str | None, Caller] | None = None
        self._dead = anyio.Event()
        self._over = False

    # -- from the worker -------------------------------------------------------------------------

    def cancel(self) -> None:
        """The store says `cancelling`: kill what runs. Never blocks; safe to repeat."""
        self._cancelled = True
        if self._attempt is not None:
            self._attempt.stop()

    def interrupt(self) -> None:
        """The worker must go: kill what runs; the workflow fails as `interrupted`."""
        self._interrupted = True
        if self._attempt is not None:
            self._attempt.stop()

    def is_for(self, account: str, session_id: str | None, workflow_id: str | None) -> bool:
        """Whether it runs the workflow of this session, or this workflow, and that is not over yet."""
        claim = self._claim
        mine = session_id in (None, claim.session_id) and workflow_id in (None, claim.workflow_id)
        theirs = claim.account == account and limited_to(account) in (None, claim.project_id)
        named = session_id is not None or workflow_id is not None
        return not self._over and theirs and named and mine

    async def halt(self, reason: str | None, by: Caller) -> Halted:
        """A cancel that the store could not take: kill what runs, and record it as soon as the store can.

        Returns when everything is dead, or after `HALT_SECONDS`.
        """
        self._unrecorded = self._unrecorded or (reason, by)
        self.cancel()
        if self._attempt is not None:
            with anyio.move_on_after(HALT_SECONDS):
                await self._dead.wait()
        dead = self._attempt is None or self._dead.is_set()
        receipt = self._receipt(None if self._last is None else self._last.result, verified=dead)
        return Halted(self._claim.workflow_id, replace(receipt, deploy=await self._deploy()))

    async def _deploy(self) -> DeployState:
        claim = self._claim
        try:
            return (await self._store.workflow(claim.account, claim.workflow_id)).deploy
        except Exception:  # a damaged store may raise anything
            # Not even to be read: a deploy step that may have been reached may have done something.
            reached = claim.plan.steps[: claim.position]
            maybe = any(step.deploy and not step.dry_run for step in reached)
            return DeployState.INTERRUPTED if maybe else DeployState.NOT_STARTED

    async def run(self) -> None:
        """Run it to its end."""
        try:
            await self._run_steps()
        except NotRunning:
            await self._report_stopped()
        except StoreUnavailable:
            await self._report_stopped()  # raised only after a cancel, see `_insist`
        except Exception as error:
            log.exception("workflow %s: the runner failed", self._claim.workflow_id)
            await self._fail(
                FailureCode.INTERRUPTED,
                f"bilt-mcp itself failed while it ran this workflow ({type(error).__name__}: {error}).",
            )
        finally:
            self._over = True
            await self._settle_folder()

    # -- the steps -------------------------------------------------------------------------------

    async def _run_steps(self) -> None:
        if self._claim.plan.refused:
            await self._fail_refused(self._claim.plan.refused)
            return
        environment = self._folder.environment()
        if environment is None:
            await self._fail(
                FailureCode.INTERRUPTED,
                "What this workflow needed to run was lost, probably in a power cut. Send the message again.",
            )
            return
        self._environment = environment
        self._folder.write_message(self._claim.message)
        if self._claim.plan.timeout is not None:
            self._deadline = time.monotonic() + self._claim.plan.timeout
        while self._claim.position <= len(self._claim.plan.steps):
            if await self._paused() or not await self._run_step():
                return
            position = self._claim.position + 1
            if not await self._advance(position):
                raise NotRunning
            self._claim = replace(self._claim, position=position, confirmed=False)
        await self._complete()

    async def _paused(self) -> bool:
        planned = self._claim.plan.steps[self._claim.position - 1]
        asks = not self._claim.confirmed and not planned.dry_run
        question = planned.confirm if asks else None
        if await self._insist(lambda: self._store.pause(self._claim, question)):
            return True
        if question is not None:
            raise NotRunning  # a gate that could not be opened: only a cancel can have come first
        return False

    async def _run_step(self) -> bool:
        """Run the step at the claim's position with its retries; False when the workflow has ended by it."""
        planned = self._claim.plan.steps[self._claim.position - 1]
        if planned.dry_run:
            await self._say(
                [Note(f"Step {planned.name} was not executed: a dry run.", "info", planned.name)]
            )
            return True
        try:
            step = Step.model_validate(planned.spec)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            told = f"Step {planned.name} was accepted by another version and cannot be read: {why}."
            await self._fail(FailureCode.INVALID_WORKFLOW, told, planned.name)
            return False
        for number in range(1, step.retries + 2):
            if self._interrupted:
                await self._fail_interrupted(step)
                return False
            ended = await self._run_attempt(step, number)
            if ended.succeeded:
                await keep_for_others(self._claim, self._folder, number)
                return True
            out_of_time = self._deadline is not None and time.monotonic() >= self._deadline
            final = number > step.retries or out_of_time or ended.result.lost
            if not final and not self._interrupted:
                told = _retry_text(step, number, ended)
                await self._say([Note(told, "info", step.name)])
                continue
            if self._interrupted:
                await self._fail_interrupted(step)
            else:
                await self._fail_step(step, ended)
            return False
        raise AssertionError("unreachable")

    async def _run_attempt(self, step: Step, number: int) -> Ended:
        span = self._spans.begin(step, number)
        attempt = StepAttempt(
            self._store,
            self._claim,
            step,
            number,
            self._environment,
            self._folder,
            self._revive,
            {**span.variables, **call_variables(self._claim, self._folder)},
        )
        self._attempt, self._last = attempt, None
        if self._cancelled:
            attempt.stop()
        try:
            ended = await attempt.run(self._keepers, self._limit(step), self._report_survivors)
        finally:
            self._attempt = None
        span.end(
            ended, "cancelled" if self._cancelled else "interrupted" if self._interrupted else ""
        )
        if self._cancelled:
            self._last = ended
            self._dead.set()
        if self._cancelled and not ended.succeeded:
            # Its last output and the receipt become durable together, in `_report_stopped`.
            raise NotRunning
        ticket = attempt.ticket
        assert ticket is not None
        result = ended.result
        await insist(
            lambda: self._store.step_ended(ticket, ended.outcome, result.code, ended.notes)
        )
        if self._cancelled:
            self._last = replace(ended, notes=())
            raise NotRunning
        return ended

    def _limit(self, step: Step) -> float | None:
        limits = [] if step.timeout is None else [step.timeout]
        if self._deadline is not None:
            limits.append(max(0.0, self._deadline - time.monotonic()))
        return min(limits, default=None)

    async def _advance(self, position: int) -> bool:
        return await self._insist(lambda: self._store.advance(self._claim, position))

    # -- the end ---------------------------------------------------------------------------------

    async def _complete(self) -> None:
        notes = [Note("Workflow completed.", "success"), *self._artifact_notes()]
        if not await self._insist(lambda: self._store.complete(self._claim, notes)):
            raise NotRunning

    def _artifact_notes(self) -> list[Note]:
        secrets = {name for step in self._claim.plan.steps for name in step.spec.get("secrets", ())}
        redactor = Redactor(self._environment.get(name, "") for name in secrets)
        return artifact_notes(self._folder.artifacts, redactor)

    async def _fail_refused(self, refused: Sequence[Refusal]) -> None:
        more = f" And {len(refused) - 1} more cannot be run." if refused[1:] else ""
        told = f"Nothing was run. Step {refused[0].index + 1}: {refused[0].message}{more}"
        await self._fail(FailureCode.INVALID_WORKFLOW, told, refused[0].call)

    async def _fail_interrupted(self, step: Step) -> None:
        await self._fail(
            FailureCode.INTERRUPTED,
            f"The worker was told to stop (a shutdown or an update) at step {step.name}; nothing of it is alive.",
            step.name,
        )

    async def _fail_step(self, step: Step, ended: Ended) -> None:
        result = ended.result
        if result.lost:
            await self._fail(
                FailureCode.WORKER_LOST,
                f"The process that kept step {step.name} was killed from outside, so the step was stopped; nothing of "
                "it is alive. It was not started again by itself.",
                step.name,
            )
        elif result.start_error is not None:
            told = f"Step {step.name} could not be started: {result.start_error}."
            await self._fail(FailureCode.STEP_FAILED, told, step.name)
        elif ended.timed_out:
            told = f"Step {step.name} took too long and was stopped; nothing of it is alive."
            await self._fail(FailureCode.TIMED_OUT, told, step.name, None, ended.last_lines)
        else:
            told, code = f"Step {step.name} failed with {_exit_text(result)}.", result.code
            await self._fail(FailureCode.STEP_FAILED, told, step.name, code, ended.last_lines)

    async def _fail(
        self,
        code: FailureCode,
        message: str,
        step: str | None = None,
        exit_code: int | None = None,
        last_lines: str = "",
    ) -> None:
        failure = Failure(code, message, step, exit_code)
        told = f"{message} Its last lines:\n{last_lines}" if last_lines else message
        notes = [Note(told, "error", step)]
        if not await insist(lambda: self._store.fail(self._claim, failure, notes)):
            await self._report_stopped()

    async def _report_stopped(self) -> None:
        """Everything is dead: tell the store, with the receipt."""
        self._dead.set()
        if self._unrecorded is not None:
            await insist(self._decide)
        result = None if self._last is None else self._last.result
        receipt = self._receipt(result, verified=True)
        told = f"Stopped: {receipt.processes_killed} processes killed, none alive."
        said = () if self._last is None else self._last.notes
        notes = [*said, Note(told, "info", receipt.step)]
        await insist(
            lambda: self._store.stopped(self._claim.epoch, self._claim.workflow_id, receipt, notes)
        )

    async def _decide(self) -> None:
        """Record the cancel that `halt` has carried out, unless another one was recorded meanwhile."""
        assert self._unrecorded is not None
        claim = self._claim
        if await self._store.workflow_status(claim.workflow_id) not in FINAL:
            with contextlib.suppress(CannotCancel):
                await self._store.cancel(claim.account, claim.session_id, *self._unrecorded)

    async def _report_survivors(self, result: StepResult) -> None:
        log.warning("workflow %s: %d survivors", self._claim.workflow_id, result.survivors)
        receipt = self._receipt(result, verified=False)
        await try_once(
            lambda: self._store.stop_unverified(self._claim.epoch, self._claim.workflow_id, receipt)
        )

    def _receipt(self, result: StepResult | None, *, verified: bool) -> Stopped:
        steps = self._claim.plan.steps
        position = self._claim.position
        return Stopped(
            verified=verified,
            processes_killed=0 if result is None else result.killed,
            survivors=0 if result is None else result.survivors,
            took_ms=0.0 if result is None else result.took_ms,
            step=steps[position - 1].name if position <= len(steps) else None,
            deploy=DeployState.NOT_STARTED,  # the store knows better, and says so
        )

    async def _settle_folder(self) -> None:
        # After the answer: making a megabyte of log safe takes longer than a cancel may.
        try:
            await anyio.to_thread.run_sync(self._folder.make_logs_safe)
            status = await insist(lambda: self._store.workflow_status(self._claim.workflow_id))
            if status in FINAL:
                self._folder.forget_outputs()
                size = await anyio.to_thread.run_sync(size_of, self._folder.path)
                await try_once(lambda: self._store.keep_files(self._claim.workflow_id, size))
                self._folder.forget()
        except Exception:
            # Steps can write there; whatever they left must not end the worker and all that it runs.
            log.warning("workflow %s: its folder", self._claim.workflow_id, exc_info=True)

    # -- the store -------------------------------------------------------------------------------

    async def _insist(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call until the store answers, or a cancel has been seen: then nothing more is to be started."""
        return await insist(call, unless=lambda: self._cancelled)

    async def _say(self, notes: Sequence[Note]) -> None:
        if notes:
            await try_once(lambda: self._store.note(self._claim, notes, wrote_output=True))


def _exit_text(result: StepResult) -> str:
    if result.signal is not None:
        return f"signal {result.signal}"
    return f"exit code {result.code}"


def _retry_text(step: Step, number: int, ended: Ended) -> str:
    why = "took too long" if ended.timed_out else f"failed with {_exit_text(ended.result)}"
    if ended.result.start_error is not None:
        why = "could not be started"
    return f"Step {step.name} {why}; attempt {number + 1} of {step.retries + 1}."
