"""Real workflows in tests: a project, a store, the local engine, and a real worker that is gone at the end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import anyio

from bilt_mcp.engine import LocalEngine
from bilt_mcp.state import (
    FINAL,
    CalledStep,
    Caller,
    Invocation,
    Message,
    MessageQuery,
    Project,
    Session,
    SqliteStore,
    Started,
    Status,
    StoreLocation,
    Workflow,
    message_of,
)
from bilt_mcp.state.driver import sqlite3

ME = "local"
"""The account that stdio and the terminal act as."""
LIMIT_SECONDS = 30.0


@dataclass(frozen=True)
class Build:
    """One project's session on a store of its own, with a real worker behind it."""

    store: SqliteStore
    location: StoreLocation
    engine: LocalEngine
    project: Project
    session_id: str

    def declare(self, text: str) -> None:
        """Write the project's bilt.toml."""
        (Path(self.project.root) / "bilt.toml").write_text(text, "utf-8")

    async def start(self, message: str = "go", key: str | None = None) -> str:
        """Accept a message and see to it that a worker is alive; returns the workflow's id."""
        prepared = await self.engine.prepare(self.project, message)
        started = await self.store.start(
            ME,
            self.session_id,
            message,
            prepared.plan,
            workflow_id=prepared.workflow_id,
            key=key,
        )
        await self.engine.wake()
        return started.workflow_id

    async def call(self, *steps: CalledStep) -> Started:
        """Accept an invocation of these steps and see to it that a worker is alive."""
        asked = {"steps": [{"call": step.call, "args": list(step.args)} for step in steps]}
        prepared = await self.engine.prepare_calls(self.project, steps, asked)
        started = await self.store.invoke(
            ME,
            self.project.id,
            message_of(prepared.plan),
            prepared.plan,
            workflow_id=prepared.workflow_id,
            by=Caller("curl", "rest"),
        )
        await self.engine.wake()
        return started

    async def called(self, *steps: CalledStep) -> Invocation:
        """Such an invocation when it is over."""
        started = await self.call(*steps)
        return await self.over(started)

    async def over(self, started: Started) -> Invocation:
        """An invocation when it is over."""
        with anyio.fail_after(LIMIT_SECONDS):
            while True:
                seen = self.store.changes()
                found = await self.store.invocation(ME, started.workflow_id)
                if found.workflow.final:
                    return found
                await self.store.wait_change(seen, 1.0, urgent=True)

    async def session(self) -> Session:
        return await self.store.session(ME, self.session_id)

    async def workflow(self) -> Workflow:
        """The session's newest workflow."""
        workflow = (await self.session()).workflow
        assert workflow is not None
        return workflow

    async def until(
        self, *statuses: Status, step: str | None = None, asking: bool = False
    ) -> Session:
        """Wait until the newest workflow is in one of `statuses`, at `step` if given.

        Only `asking` sees to it that a worker is alive, as the tools do that wait; else nobody does.
        """
        with anyio.fail_after(LIMIT_SECONDS):
            while True:
                seen = self.store.changes()
                session = await self.session()
                workflow = session.workflow
                if (
                    workflow is not None
                    and workflow.status in statuses
                    and step in (None, workflow.step)
                ):
                    return session
                if asking:
                    await self.engine.wake()
                await self.store.wait_change(seen, 0.2 if asking else 1.0, urgent=True)

    async def ended(self) -> Session:
        """Wait until the newest workflow is final."""
        return await self.until(*FINAL)

    async def says(self, text: str, workflow_id: str | None = None) -> Message:
        """Wait until a message that contains `text` is there."""
        with anyio.fail_after(LIMIT_SECONDS):
            while True:
                seen = self.store.changes()
                found = [m for m in await self.messages(workflow_id) if text in m.content]
                if found:
                    return found[0]
                await self.store.wait_change(seen, 1.0, urgent=True)

    async def messages(self, workflow_id: str | None = None) -> list[Message]:
        """Every message of the session, or of one workflow, oldest first."""
        found: list[Message] = []
        while True:
            after = found[-1].id if found else 0
            query = MessageQuery(limit=100, after=after, workflow_id=workflow_id)
            page = await self.store.messages(ME, self.session_id, query)
            found.extend(page.messages)
            if not page.has_more:
                return found

    async def log(self) -> str:
        """All output that became messages."""
        return "\n".join(m.content for m in await self.messages() if m.variant == "log")

    def worker_pid(self) -> int:
        """The pid of the worker that took over last."""
        return int(self._query("SELECT pid FROM worker"))

    def epoch(self) -> int:
        """How many workers have taken over this store."""
        return int(self._query("SELECT epoch FROM worker"))

    def keeper_pid(self) -> int:
        """The pid of the keeper of the step that was begun last."""
        return int(
            self._query(
                "SELECT keeper_pid FROM step_run ORDER BY workflow DESC, started_at DESC LIMIT 1"
            )
        )

    def kill(self, *pids: int, number: int = signal.SIGKILL) -> None:
        """Signal processes of this store."""
        for pid in pids:
            os.kill(pid, number)

    def _query(self, sql: str) -> int:
        with closing(sqlite3.connect(self.location.database)) as connection:
            return int(connection.execute(sql).fetchone()[0])

    def worker_is_alive(self) -> bool:
        """Whether somebody holds the worker's lock."""
        if not self.location.lock.exists():
            return False
        with self.location.lock.open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


class Gate:
    """A FIFO in a build's project: a step waits in `read x < gate` until the test opens it."""

    def __init__(self, build: Build) -> None:
        self._path = Path(build.project.root) / "gate"
        os.mkfifo(self._path)

    async def open(self) -> None:
        """Let the step that reads go on. Never blocks the loop: a FIFO without a reader cannot be opened yet."""
        with anyio.fail_after(LIMIT_SECONDS):
            while True:
                try:
                    writer = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
                except OSError:
                    await anyio.sleep(0.005)
                    continue
                os.write(writer, b"go\n")
                os.close(writer)
                return


@asynccontextmanager
async def build_in(
    folder: Path, environ: Mapping[str, str] | None = None, idle_seconds: float = 30.0
) -> AsyncGenerator[Build]:
    """A new project and store below `folder`; at the end its worker is told to go, and waited for."""
    root = folder / "project"
    root.mkdir()
    location = StoreLocation.of(folder / "store")
    async with SqliteStore(location) as store:
        project = await store.open_project(ME, str(root), "project")
        session = await store.latest_session(ME, project.id)
        given = {**os.environ, **(environ or {})}
        engine = LocalEngine(store, location, given, idle_seconds)
        build = Build(store, location, engine, project, session.id)
        try:
            yield build
        finally:
            with anyio.CancelScope(shield=True):
                await _send_away(build)


async def _send_away(build: Build) -> None:
    with anyio.fail_after(LIMIT_SECONDS):
        while build.worker_is_alive():
            with contextlib.suppress(ProcessLookupError, TypeError):
                os.kill(build.worker_pid(), signal.SIGTERM)
            await anyio.sleep(0.02)


async def another_session(build: Build) -> Build:
    """A second project with a session of its own on the same store and engine."""
    root = Path(build.project.root).with_name(f"project{os.urandom(4).hex()}")
    root.mkdir()
    project = await build.store.open_project(ME, str(root), root.name)
    session = await build.store.latest_session(ME, project.id)
    return Build(build.store, build.location, build.engine, project, session.id)


def second_session(build: Build) -> Build:
    """A further session of the same project."""
    session_id = str(uuid4())
    with closing(sqlite3.connect(build.location.database)) as connection, connection:
        connection.execute(
            """INSERT INTO session (id, account, project, created_at, updated_at)
               SELECT ?, account, n, 0, 0 FROM project WHERE id = ?""",
            (session_id, build.project.id),
        )
    return replace(build, session_id=session_id)
