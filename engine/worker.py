"""The worker: one process for a store. It claims workflows, runs them, kills them, and sweeps what others left.

    python -m bilt_mcp.engine.worker DATABASE FOLDER IDLE_SECONDS PATIENCE_SECONDS [STARTING_LOCK_FD]

It is started when there is work (`local.py`), holds a lock for as long as it lives, outlives whoever
started it, and goes after a while without work.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from bilt_mcp.state import (
    FINAL,
    VERSION,
    WAL_RESET_NOTE,
    Account,
    Caller,
    DeployState,
    Failure,
    FailureCode,
    LostWorkflow,
    ProcessRecord,
    SessionStore,
    SqliteStore,
    Status,
    Stopped,
    StoreLocation,
    StoreUnavailable,
    boot_id,
)

from . import control
from .heart import beat, show_life
from .housekeeping import keep_house, size_of
from .identity import code_identity
from .keepers import KeeperPool
from .local import revival
from .patience import insist
from .processes import ProcessId, Remains, Swept, become_subreaper, identify, sweep
from .run_folder import RunFolder, step_file_name
from .runner import Runner
from .step_log import pids_path
from .step_spans import StepSpans

log = logging.getLogger("bilt_mcp.worker")

CODE = code_identity()
"""What this process runs, whatever is installed since."""
LOOK_SECONDS = 1.0
LEAST_PLACES = 16
"""Workflows at once where nobody says otherwise: steps mostly wait, and one that is pending seems to hang."""
MAX_LOG_BYTES = 1_048_576
FINISH_SECONDS = 2.0
"""How long a worker that leaves tries to send its last spans."""
PREPARED_SECONDS = 3600.0
"""After this time what was prepared and not accepted is somebody's crash."""


class Worker:
    """The life of one worker, under one epoch."""

    def __init__(
        self,
        store: SessionStore,
        location: StoreLocation,
        idle_seconds: float,
        spans: StepSpans | None = None,
    ) -> None:
        self._store = store
        self._location = location
        self._idle_seconds = idle_seconds
        self._places = 0
        self._runners: dict[str, Runner] = {}
        self._keepers = KeeperPool()
        self._spans = spans or StepSpans()
        self._looked = self._stopping = False
        self._epoch = 0

    async def take_over(self) -> None:
        """Become the store's worker."""
        own = identify(os.getpid())
        record = ProcessRecord(boot_id(), os.getpid(), own.start_ticks if own else 0)
        self._epoch = await self._store.take_over(record, VERSION)
        log.info(
            "worker %d took over store %s, epoch %d",
            os.getpid(),
            self._location.database,
            self._epoch,
        )
        if WAL_RESET_NOTE:
            log.warning("%s", WAL_RESET_NOTE)

    async def run(self, ready: Callable[[], None]) -> None:
        """Work until there has been nothing to do for the idle time, or a signal asks to stop.

        `ready` is called as soon as it can be asked whether it lives.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._stop_on_signal)
            tasks.start_soon(self._answer_bell)
            await tasks.start(control.serve, self._location.control, self._answer)
            ready()
            tasks.start_soon(self._keepers.run)
            tasks.start_soon(beat, self._location, lambda: bool(self._runners))
            await self._sweep(tasks)
            tasks.start_soon(keep_house, self._store, self._location, self._epoch)
            await self._work(tasks)
            tasks.cancel_scope.cancel()
        log.info("worker %d leaves", os.getpid())

    # -- what is left of dead workers ------------------------------------------------------------

    async def _sweep(self, tasks: TaskGroup) -> None:
        for lost in await insist(lambda: self._store.lost(self._epoch)):
            remains = [self._remains(lost, number) for number in range(len(lost.steps))]
            swept = await anyio.to_thread.run_sync(sweep, remains)
            if swept.survivors and lost.status is Status.CANCELLING:
                tasks.start_soon(self._sweep_on, lost, remains, swept)
            else:
                await self._report_lost(lost, swept)
        await self._settle_folders()

    def _remains(self, lost: LostWorkflow, number: int) -> Remains:
        step = lost.steps[number]
        name = step_file_name(step.ticket.position, step.ticket.attempt)
        return Remains(
            keeper=_process(step.keeper),
            leader=_process(step.leader),
            cookie=step.ticket.cookie,
            pids_path=pids_path(self._location.run(lost.workflow_id), name),
        )

    async def _sweep_on(self, lost: LostWorkflow, remains: list[Remains], swept: Swept) -> None:
        # A cancel is not over before everything is verified dead, however long that takes.
        killed = swept.killed
        while swept.survivors:
            await anyio.sleep(1)
            swept = await anyio.to_thread.run_sync(sweep, remains)
            killed += swept.killed
        await self._report_lost(lost, replace(swept, killed=killed))

    async def _report_lost(self, lost: LostWorkflow, swept: Swept) -> None:
        here = all(
            record is None or record.boot_id == boot_id()
            for step in lost.steps
            for record in (step.keeper, step.leader)
        )
        code, why = (
            (FailureCode.WORKER_LOST, "The worker that ran this workflow was killed")
            if here
            else (FailureCode.INTERRUPTED, "The machine was restarted while this workflow ran")
        )
        at = f" at step {lost.step}" if lost.step else ""
        left = (
            "nothing of it is alive"
            if not swept.survivors
            else f"{swept.survivors} processes could not be killed"
        )
        failure = Failure(
            code, f"{why}{at}; {left}. It was not started again by itself.", lost.step
        )
        receipt = Stopped(
            verified=not swept.survivors,
            processes_killed=swept.killed,
            survivors=swept.survivors,
            took_ms=0.0,
            step=lost.step,
            deploy=DeployState.NOT_STARTED,
        )
        await insist(
            lambda: self._store.report_lost(self._epoch, lost.workflow_id, failure, receipt)
        )
        log.warning("workflow %s: %s; %d killed", lost.workflow_id, failure.message, swept.killed)

    async def _settle_folders(self) -> None:
        """Finish what others had no time for: raw logs made safe, environments forgotten."""
        for name in sorted(os.listdir(self._location.open)):
            workflow_id = name.removesuffix(".json")
            if workflow_id in self._runners:
                continue
            try:
                await self._settle_folder(workflow_id)
            except (OSError, ValueError, StoreUnavailable) as error:
                # A step may have left anything there; it must not end the worker, nor the next ones.
                log.warning("workflow %s: its folder: %s", workflow_id, error)

    async def _settle_folder(self, workflow_id: str) -> None:
        status = await self._store.workflow_status(workflow_id)
        folder = RunFolder(self._location, workflow_id)
        if status in FINAL:
            folder.forget_outputs()
            await anyio.to_thread.run_sync(folder.make_logs_safe)
            size = await anyio.to_thread.run_sync(size_of, folder.path)
            await self._store.keep_files(workflow_id, size)
            folder.forget()
        elif (
            status is None and _age(self._location.open / f"{workflow_id}.json") > PREPARED_SECONDS
        ):
            folder.discard()

    # -- work ------------------------------------------------------------------------------------

    async def _work(self, tasks: TaskGroup) -> None:
        idle_since = time.monotonic()
        while not (self._stopping and not self._runners):
            seen = self._store.changes()
            try:
                await self._look(tasks)
                self._looked = True
                if self._runners:
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since >= self._idle_seconds:
                    await self._settle_folders()
                    if await self._store.leave(self._epoch):
                        return
                    idle_since = time.monotonic()
            except StoreUnavailable as error:
                log.warning("%s", error)
                await anyio.sleep(LOOK_SECONDS)
            left = idle_since + self._idle_seconds - time.monotonic()
            wait = LOOK_SECONDS if self._runners else max(0.01, min(LOOK_SECONDS, left))
            await self._store.wait_change(seen, wait)

    async def _look(self, tasks: TaskGroup) -> None:
        for workflow_id in await self._store.cancelling(self._epoch):
            if workflow_id in self._runners:
                self._runners[workflow_id].cancel()
        while not self._stopping and len(self._runners) < self._most_at_once():
            claim = await self._store.claim(self._epoch)
            if claim is None:
                return
            folder = RunFolder(self._location, claim.workflow_id)
            revive = revival(self._location, self._idle_seconds)
            runner = Runner(self._store, claim, folder, self._keepers, revive, self._spans)
            self._runners[claim.workflow_id] = runner
            show_life(self._location)
            tasks.start_soon(self._run, claim.workflow_id, runner)

    def _most_at_once(self) -> int:
        # A settings file that is wrong is told to who sends a message; what was accepted goes on as before.
        with contextlib.suppress(StoreUnavailable):
            self._places = self._store.settings().max_running or 0
        return self._places or max(LEAST_PLACES, 2 * (os.cpu_count() or 1))

    async def _run(self, workflow_id: str, runner: Runner) -> None:
        try:
            await runner.run()
        finally:
            del self._runners[workflow_id]
            self._store.nudge()

    async def _answer(self, asked: control.Request) -> control.Request:
        """Nothing asked: alive. A cancel that could not be recorded: kill first, record later."""
        # Not before it has taken up what waits: else two who retire each other's workers would never get on.
        if "retire" in asked and self._looked:
            log.info("worker %d: other code takes over when nothing runs any more", os.getpid())
            self._stopping = True
            self._store.nudge()
        if "halt" not in asked:
            return {"code": CODE}
        for runner in list(self._runners.values()):
            who = Account(asked["account"], asked.get("project"))
            if runner.is_for(who, asked["halt"], asked.get("workflow")):
                halted = await runner.halt(asked["reason"], Caller(**asked["by"]))
                return {"workflow_id": halted.workflow_id, "stopped": asdict(halted.stopped)}
        return {}

    async def _answer_bell(self) -> None:
        try:
            bell = _open_bell(self._location.doorbell)
        except OSError as error:
            log.warning("no bell, so looking every 20 ms is all: %s", error)
            return
        try:
            while True:
                await anyio.wait_readable(bell)
                os.read(bell, 4096)
                self._store.nudge()
        finally:
            os.close(bell)

    async def _stop_on_signal(self) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                log.warning("worker %d: signal %d, stopping what runs", os.getpid(), number)
                self._stopping = True
                for runner in list(self._runners.values()):
                    runner.interrupt()
                self._store.nudge()


def _process(record: ProcessRecord | None) -> ProcessId | None:
    return None if record is None else ProcessId(record.boot_id, record.pid, record.start_ticks)


def _open_bell(path: Path) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkfifo(path, 0o600)
    # Both ways, so that it is never at its end; a FIFO only, because nothing else can be waited for.
    bell = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not stat.S_ISFIFO(os.fstat(bell).st_mode):
        os.close(bell)
        raise OSError(f"{path} is not a FIFO")
    return bell


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


async def serve(
    location: StoreLocation, idle_seconds: float, starting: int | None, spans: StepSpans
) -> None:
    """Open the store, take over, and only then let others try to start a worker."""
    async with SqliteStore(location) as store:
        worker = Worker(store, location, idle_seconds, spans)
        await worker.take_over()

        def ready() -> None:
            if starting is not None:
                os.close(starting)

        await worker.run(ready)


def _lock(location: StoreLocation, patience_seconds: float) -> int | None:
    """The worker's lock, or None when another worker keeps it for that long."""
    held = os.open(location.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return held
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(held)
                return None
            time.sleep(0.005 if patience_seconds < math.inf else 0.05)


def main(arguments: list[str]) -> int:
    """Run a worker; 0 also when another one is there already."""
    database, folder, idle_seconds, patience_seconds, *rest = arguments
    location = StoreLocation(Path(database), Path(folder))
    _log_to(location.worker_log)
    lock = _lock(location, float(patience_seconds))
    if lock is None:
        return 0
    become_subreaper()
    spans = StepSpans()
    anyio.run(serve, location, float(idle_seconds), int(rest[0]) if rest else None, spans)
    os.close(lock)  # the next worker need not wait for an endpoint that does not answer
    spans.finish(FINISH_SECONDS)
    return 0


def _log_to(path: Path) -> None:
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    handler = logging.StreamHandler(open(descriptor, "a", encoding="utf-8"))  # noqa: SIM115
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
