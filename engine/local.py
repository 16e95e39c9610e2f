"""The engine on this machine, as tools see it: prepares workflows, and sees to it that a worker is alive."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import anyio
import anyio.to_thread

from bilt_mcp.state import (
    IDLE_SECONDS,
    CalledStep,
    Caller,
    DeployState,
    Halted,
    History,
    InvalidWorkflowFile,
    KeptFile,
    KeptText,
    LineRange,
    NewProject,
    Offer,
    Plan,
    Prepared,
    Problem,
    Project,
    SessionStore,
    StepRun,
    Stopped,
    StoreFull,
    StoreLocation,
    StoreUnavailable,
    limited_to,
)

from .called_steps import plan_calls
from .control import ask
from .environment import capture_environment, missing_secrets
from .identity import code_identity
from .kept import KeptReader
from .new_project import make_project
from .offer import offer
from .planning import make_plan, planned
from .run_folder import RunFolder
from .tracing import trace_settings, without_telemetry
from .workflow_file import load
from .workflow_step import Step

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 10.0
ANSWER_SECONDS = 0.25
START_SECONDS = 3.0
ASK_SECONDS = 1.0
"""How often those who merely look ask whether the worker lives: that costs as much as the look."""

WorkerState = Literal["alive", "idle", "missing"]
"""One answers; none is there and nothing waits for one; work waits and none can be had."""

_asked: dict[Path, float] = {}
"""When this process asked last, by the worker's lock: for all clients that it serves."""
_started: list[subprocess.Popen[bytes]] = []
"""The workers that this process has started: they are to outlive it, but whoever has children must collect them."""


def worker_command(
    location: StoreLocation, idle_seconds: float, patience_seconds: float = PATIENCE_SECONDS
) -> tuple[str, ...]:
    """How a worker for this store is started that waits so long for the one before it."""
    # -P: a file in the current folder must not be imported instead of ours.
    command = (sys.executable, "-P", "-m", "bilt_mcp.engine.worker")
    seconds = (str(idle_seconds), str(patience_seconds))
    return (*command, str(location.database), str(location.folder), *seconds)


def revival(location: StoreLocation, idle_seconds: float) -> tuple[str, ...]:
    """How a keeper starts the next worker when its own is gone (`StepCommand.on_orphaned`)."""
    return (str(location.starting), *worker_command(location, idle_seconds))


class LocalEngine:
    """`tools.Engine` with one worker process for the store, started when there is work for it."""

    def __init__(
        self,
        store: SessionStore,
        location: StoreLocation,
        environ: Mapping[str, str],
        idle_seconds: float = IDLE_SECONDS,
        projects: Path | None = None,
        trace_context: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`trace_context` tells the place of the current call in its trace, as `tracing.Place.variables`."""
        self._store = store
        self._location = location
        self._environ = dict(environ)
        self._idle_seconds = idle_seconds
        self._projects = projects or location.folder / "projects"
        self._trace_context = trace_context
        self._kept = KeptReader(location)

    async def prepare(self, project: Project, message: str) -> Prepared:
        """See `tools.Engine.prepare`. The caller's environment is looked at now, once."""
        await self._retire_other_code()
        # A thread, because a slow `when` may block; nothing is started from it that must outlive it.
        return await anyio.to_thread.run_sync(self._prepare, project, message)

    async def _retire_other_code(self) -> None:
        # Before there is something to take up: other code must not be what runs it.
        with contextlib.suppress(OSError):
            if _is_held(self._location.lock) and not await self._is_alive():
                await self._retire()

    def _prepare(self, project: Project, message: str) -> Prepared:
        file = load(Path(project.root))
        steps = file.select(message)
        if missing := missing_secrets(steps, self._environ):
            raise InvalidWorkflowFile(
                file.path,
                [
                    Problem(
                        f'step "{step}".secrets',
                        f"{name} is not set where bilt-mcp runs; set it in the client's `env` for this server",
                    )
                    for step, name in missing
                ],
            )
        return self._keep(make_plan(file, [planned(step) for step in steps]), steps)

    async def prepare_calls(
        self, project: Project, steps: Sequence[CalledStep], request: Mapping[str, Any]
    ) -> Prepared:
        """See `tools.Engine.prepare_calls`. The caller's environment is looked at now, once."""
        await self._retire_other_code()
        return await anyio.to_thread.run_sync(self._prepare_calls, project, steps, request)

    def _prepare_calls(
        self, project: Project, calls: Sequence[CalledStep], request: Mapping[str, Any]
    ) -> Prepared:
        found = plan_calls(Path(project.root), calls, request, self._environ)
        if found.plan.refused:
            return Prepared(str(uuid4()), found.plan)  # nothing of it needs anything to run
        return self._keep(found.plan, found.steps, found.args)

    def _keep(
        self, plan: Plan, steps: Sequence[Step], args: Mapping[int, str] | None = None
    ) -> Prepared:
        """Keep what the plan's steps need to run."""
        prepared = Prepared(str(uuid4()), plan)
        try:
            folder = self._folder(prepared.workflow_id)
            secrets = sorted({name for step in steps for name in step.secrets})
            trace = {
                "context": dict(self._trace_context()),
                "settings": trace_settings(self._environ),
            }
            folder.create(capture_environment(steps, self._environ), secrets, trace, args)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise (StoreFull if full else StoreUnavailable)(
                f"Cannot write to {self._location.runs}: {error.strerror}. Nothing was started. Make room or change "
                "the permissions, then send the message again."
            ) from error
        return prepared

    async def offers(self, projects: Sequence[Project]) -> Sequence[Offer]:
        """See `tools.Engine.offers`."""
        roots = [Path(project.root) for project in projects]
        return await anyio.to_thread.run_sync(lambda: [offer(root) for root in roots])

    def discard(self, prepared: Prepared) -> None:
        """See `tools.Engine.discard`."""
        self._folder(prepared.workflow_id).discard()

    def new_project(self, name: str, description: str) -> NewProject:
        """See `tools.Engine.new_project`."""
        root = self._projects / name
        return NewProject(str(root), lambda: make_project(root, name, description))

    def forget(self, workflow_id: str) -> None:
        """See `tools.Engine.forget`."""
        self._folder(workflow_id).forget()

    def _folder(self, workflow_id: str) -> RunFolder:
        return RunFolder(self._location, workflow_id)

    async def halt(
        self,
        account: str,
        session_id: str | None,
        reason: str | None,
        by: Caller,
        workflow_id: str | None = None,
    ) -> Halted | None:
        """See `tools.Engine.halt`."""
        which = {"halt": session_id, "workflow": workflow_id}
        who = {"account": account, "project": limited_to(account)}
        said = await ask(
            self._location.control, {**which, **who, "reason": reason, "by": asdict(by)}
        )
        if not said or "workflow_id" not in said:
            return None
        stopped = Stopped(**said["stopped"])
        # JSON has no enumerations.
        return Halted(said["workflow_id"], replace(stopped, deploy=DeployState(stopped.deploy)))

    # -- what is kept of workflows -----------------------------------------------------------------

    async def read_log(self, history: History, run: StepRun, wanted: LineRange) -> KeptText | None:
        """See `tools.Engine.read_log`."""
        return await anyio.to_thread.run_sync(self._kept.log, history, run, wanted)

    def log_mark(self, workflow_id: str, run: StepRun) -> object:
        """See `tools.Engine.log_mark`."""
        return self._kept.log_mark(workflow_id, run)

    async def artifacts(self, history: History, most: int) -> Sequence[KeptFile]:
        """See `tools.Engine.artifacts`."""
        return await anyio.to_thread.run_sync(self._kept.artifacts, history, most)

    async def read_artifact(
        self, history: History, path: bytes, wanted: LineRange
    ) -> KeptText | bytes | None:
        """See `tools.Engine.read_artifact`."""
        return await anyio.to_thread.run_sync(self._kept.artifact, history, path, wanted)

    def artifact_count(self, workflow_id: str, *, final: bool = False) -> int:
        """See `tools.Engine.artifact_count`."""
        return self._kept.artifact_count(workflow_id, final)

    # -- the worker --------------------------------------------------------------------------------

    def heartbeat(self) -> int | None:
        """See `tools.Engine.heartbeat`."""
        try:
            return self._location.heartbeat.stat().st_mtime_ns // 1_000_000
        except OSError:
            return None

    async def wake(self, *, news: bool = True) -> None:
        """See `tools.Engine.wake`."""
        asked = _asked.get(self._location.lock, -ASK_SECONDS)
        if not news and time.monotonic() - asked < ASK_SECONDS:
            return
        _asked[self._location.lock] = time.monotonic()
        _reap()
        self._ring()
        try:
            if _is_held(self._location.lock) and not await self._store.worker_leaving():
                if await self._is_alive():
                    return
                if await self._retire():
                    # It finishes what it runs; the next one waits for that, however long it takes.
                    self._start_worker(float("inf"))
                    return
            self._start_worker()
        except (OSError, StoreUnavailable):
            log.exception("cannot start a worker for %s", self._location.database)

    async def worker(self) -> WorkerState:
        """How it is with the worker; tries to start one when work waits and there is none that answers."""
        if await self._answers():
            return "alive"
        if not await self._store.waiting_for_worker():
            return "idle"
        await self.wake()
        with anyio.move_on_after(START_SECONDS):
            while not await self._answers():  # noqa: ASYNC110
                await anyio.sleep(0.02)
            return "alive"
        return "missing"

    async def _answers(self) -> bool:
        if not _is_held(self._location.lock):
            return False
        control = self._location.control  # there is none where there can be no socket
        return not control.exists() or await ask(control, {}, ANSWER_SECONDS) is not None

    async def _is_alive(self) -> bool:
        # A worker that was killed this very moment still holds its lock for a little while.
        control = self._location.control
        if not control.exists() or _is_held(self._location.starting):
            return True  # another one is on its way
        said = await ask(control, {}, ANSWER_SECONDS)
        if said is not None:
            # With what a new worker would run now, not with our own: that may be replaced on the disk since.
            return said.get("code") == code_identity()
        deadline = time.monotonic() + ANSWER_SECONDS
        while _is_held(self._location.lock):
            if time.monotonic() > deadline:
                return True  # slow, or stopped
            await anyio.sleep(0.005)
        return False

    async def _retire(self) -> bool:
        """Ask a worker of other code to take up nothing more; False where none is there to be asked."""
        said = await ask(self._location.control, {"retire": True}, ANSWER_SECONDS)
        return said is not None

    def _ring(self) -> None:
        # Saves the time until the worker looks by itself; nothing depends on it.
        with contextlib.suppress(OSError):
            bell = os.open(self._location.doorbell, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.write(bell, b"!")
            finally:
                os.close(bell)

    def _start_worker(self, patience_seconds: float = PATIENCE_SECONDS) -> None:
        # Whoever starts a worker holds this lock; the worker inherits it and lets go when it holds its own. So of
        # many servers one starts a worker, and one that dies on the way leaves nothing locked.
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        starting = os.open(self._location.starting, flags, 0o600)
        try:
            try:
                fcntl.flock(starting, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            with open(
                os.open(self._location.worker_log, flags | os.O_APPEND, 0o600), "ab"
            ) as errors:
                _started.append(
                    subprocess.Popen(
                        [
                            *worker_command(self._location, self._idle_seconds, patience_seconds),
                            str(starting),
                        ],
                        stdin=subprocess.DEVNULL,
                        stdout=errors,
                        stderr=errors,
                        cwd=self._location.folder,
                        env=without_telemetry(self._environ),
                        start_new_session=True,
                        pass_fds=(starting,),
                    )
                )
        finally:
            os.close(starting)


def _reap() -> None:
    _started[:] = [process for process in _started if process.poll() is None]


def _is_held(lock: Path) -> bool:
    try:
        probe = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(probe, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(probe)
    return False
