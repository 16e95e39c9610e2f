"""Procrastinate: an async task, a worker process and a PostgreSQL on a unix socket.

`procrastinate_peer.py` drives it, `procrastinate_peer.py work CONNINFO` is the worker.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from peer_lines import Driver, Job, answers, main, run_command
from procrastinate import App, PsycopgConnector
from procrastinate.jobs import Status
from psycopg import AsyncConnection

OVER = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.ABORTED)


def application(conninfo: str) -> App:
    """The application as its user writes it."""
    app = App(connector=PsycopgConnector(conninfo=conninfo))

    @app.task(name="build")
    async def build(job: Job) -> int:
        return await run_command(job)

    return app


def postgres_folder() -> Path:
    """Where the system keeps PostgreSQL's programs; raises FileNotFoundError."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda at: at.parts[4])
    given = shutil.which("initdb")
    if not found and not given:
        raise FileNotFoundError("no PostgreSQL on this machine: apt install postgresql")
    return Path(given or found[-1]).resolve().parent


class Procrastinate(Driver):
    """A client of its own, next to the worker."""

    def __init__(self) -> None:
        super().__init__()
        self._data: Path | None = None
        self._app: App
        self._job: int
        # PostgreSQL refuses to run as root.
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:
            user = "postgres" if _is_user("postgres") else "nobody"
            self._as = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}

    async def open(self, folder: Path) -> dict[str, Any]:
        programs = postgres_folder()
        # Not in the given folder: its parents may be closed to PostgreSQL's user.
        data = self._data = Path(tempfile.mkdtemp(prefix="bilt-pg-"))
        if self._as:
            shutil.chown(data, self._as["user"], self._as["group"])
        log = folder / "postgres.log"
        init = self.serve(
            [str(programs / "initdb"), "-D", str(data / "data"), "-A", "trust", "-U", "bench"],
            log,
            cwd="/",
            **self._as,
        )
        if await asyncio.to_thread(init.wait) != 0:
            raise RuntimeError(f"initdb failed: {log.read_text()[-500:]}")
        began = time.monotonic_ns()
        self.serve(
            [str(programs / "postgres"), "-D", str(data / "data"), "-k", str(data), "-h", ""],
            log,
            cwd="/",
            **self._as,
        )
        conninfo = f"host={data} user=bench dbname=postgres"

        async def up() -> None:
            await (await AsyncConnection.connect(conninfo)).close()

        await answers(up)
        self._app = application(conninfo)
        await self._app.open_async()
        await self._app.check_connection_async()
        first = (time.monotonic_ns() - began) / 1e6
        await self._app.schema_manager.apply_schema_async()
        self.serve([sys.executable, __file__, "work", conninfo], folder / "worker.log")
        return {"first_answer_ms": first}

    async def start(self, job: Job) -> None:
        self._job = await self._app.configure_task("build").defer_async(job=job)

    async def cancel(self) -> None:
        await self._app.job_manager.cancel_job_by_id_async(self._job, abort=True)

    async def is_over(self) -> bool:
        return await self._app.job_manager.get_job_status_async(self._job) in OVER

    async def close(self) -> None:
        await self._app.close_async()

    def end_services(self) -> None:
        super().end_services()
        if self._data is not None:
            shutil.rmtree(self._data, ignore_errors=True)


def _is_user(name: str) -> bool:
    return any(entry.pw_name == name for entry in pwd.getpwall())


async def work(conninfo: str) -> None:
    """The worker as its user writes it."""
    app = application(conninfo)
    async with app.open_async():
        await app.run_worker_async()


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        asyncio.run(work(sys.argv[2]))
    else:
        main(Procrastinate())
