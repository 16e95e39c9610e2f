"""What every driver of a peer shares: JSON lines in, JSON lines out, and the command that its jobs run.

A driver runs with the interpreter of its peer and is asked, one line at a time:

    {"op": "open", "folder": F}       start the peer's own processes; until then nothing of it runs
    {"op": "start", "job": {...}}     hand in a job as a client of the peer does
    {"op": "cancel"}                  cancel that job as the peer's documentation says
    {"op": "ended", "seconds": S}     wait until the peer calls that job over
    {"op": "close"}                   end everything; the end of the input says the same

and answers each with one line: `began` and `answered` (CLOCK_MONOTONIC, ns) around what it did, and what the
operation itself has to say, or `error`. A job is `{"argv", "cwd", "env", "group"}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

Job = dict[str, Any]


async def run_command(job: Job) -> int:
    """The body of a task that runs a command, and stops it when the task is cancelled.

    `group` False is what one writes first: end the process that one has started. True is what a careful person
    writes: a process group of its own, and KILL for all of it.
    """
    process = await asyncio.create_subprocess_exec(
        *job["argv"],
        cwd=job["cwd"],
        env={**os.environ, **job["env"]},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=job["group"],
    )
    try:
        return await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            if job["group"]:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.terminate()
        await process.wait()
        raise


class Driver:
    """What a peer's driver overrides."""

    def __init__(self) -> None:
        self._services: list[subprocess.Popen[Any]] = []

    async def open(self, folder: Path) -> dict[str, Any]:
        """Start the peer; `first_answer_ms` if it is not the time since this process was started."""
        raise NotImplementedError

    async def start(self, job: Job) -> None:
        """Hand in a job."""
        raise NotImplementedError

    async def cancel(self) -> None:
        """Cancel the job that was handed in last."""
        raise NotImplementedError

    async def is_over(self) -> bool:
        """Whether the peer calls that job over."""
        raise NotImplementedError

    async def close(self) -> None:
        """Leave the peer."""

    def serve(self, argv: list[str], log: Path, **options: Any) -> subprocess.Popen[Any]:
        """Start one of the peer's own processes; it ends when the driver does."""
        with log.open("ab") as out:
            service = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, **options
            )
        self._services.append(service)
        return service

    def end_services(self) -> None:
        """End what `serve` started, last first."""
        for service in reversed(self._services):
            service.terminate()
            try:
                service.wait(15)
            except subprocess.TimeoutExpired:
                service.kill()
                service.wait()
        self._services.clear()


async def answers(what: Any, seconds: float = 60, nap: float = 0.005) -> Any:
    """Call `what` until it raises nothing and returns something that is not False; returns that."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = await what()
        except Exception:
            if time.monotonic() > deadline:
                raise
        else:
            if found is not False:
                return found
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {seconds:.0f} s")
        await asyncio.sleep(nap)


def free_port() -> int:
    """A TCP port of the loopback device that nobody uses just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main(driver: Driver) -> None:
    """Serve the lines of the standard input until it ends."""
    # Whatever the peer prints must not come between the lines.
    lines = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    asyncio.run(_serve(driver, lines))


async def _serve(driver: Driver, out: Any) -> None:
    loop = asyncio.get_running_loop()
    try:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asked = json.loads(line)
            answer: dict[str, Any] = {"began": time.monotonic_ns()}
            try:
                found = await _do(driver, asked)
            except Exception as error:
                found = {"error": f"{type(error).__name__}: {error}"}
            answer["answered"] = time.monotonic_ns()
            print(json.dumps(answer | (found or {})), file=out, flush=True)
            if asked["op"] == "close":
                break
    finally:
        driver.end_services()


async def _do(driver: Driver, asked: dict[str, Any]) -> dict[str, Any] | None:
    match asked["op"]:
        case "open":
            return await driver.open(Path(asked["folder"]))
        case "start":
            await driver.start(asked["job"])
        case "cancel":
            await driver.cancel()
        case "ended":
            await answers(driver.is_over, asked["seconds"], 0.05)
        case "close":
            await driver.close()
        case other:
            raise ValueError(f"no such operation: {other}")
    return None
