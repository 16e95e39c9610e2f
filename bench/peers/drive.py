"""How the runner speaks to each kind of peer: open, start a job, cancel it, hear that it is over, close."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from bilt_mcp.bench.jsonrpc import StdioClient
from bilt_mcp.bench.kernel import (
    MS,
    Process,
    bearers,
    children,
    identity,
    is_alive,
    kill,
    now,
    until,
)
from bilt_mcp.bench.product import FINAL, STEPS, Product, leave, server_argv

COOKIE = "BILT_BENCH_PEER"
"""A variable that every process of a peer has, unless it overwrites its environment."""
OPEN_SECONDS = 120.0
CALL_SECONDS = 30.0


class Span(NamedTuple):
    """Around one call of a client, CLOCK_MONOTONIC in nanoseconds."""

    began: int
    answered: int


class PeerFailed(Exception):
    """A peer did not do what it was asked."""


def with_descendants(processes: Iterable[Process]) -> set[Process]:
    """These processes and all that they have started and that has not left them."""
    found = {process.pid for process in processes}
    waiting = list(found)
    while waiting:
        new = set(children(waiting.pop())) - found
        found |= new
        waiting += new
    return {process for pid in found if (process := identity(pid)) is not None}


class Peer(ABC):
    """A peer that can be measured. A failure raises `PeerFailed`, or whatever its connection raises."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.cookie = uuid4().hex

    @abstractmethod
    def open(self, folder: Path) -> float | None:
        """Start it, in a folder of its own; the time until its first answer in ms, where there is one."""

    @abstractmethod
    def start(self, marker: str, *, group: bool) -> Span:
        """Start the job: three processes, all of which bear the marker.

        `group` is whether its task, where the user writes it, kills a process group when it is cancelled.
        """

    @abstractmethod
    def cancel(self) -> Span:
        """Cancel it as the peer's documentation says."""

    @abstractmethod
    def await_over(self, seconds: float) -> None:
        """Return when the peer calls the job over, or when the time is up."""

    @abstractmethod
    def disconnect(self) -> None:
        """End it."""

    def processes(self) -> set[Process]:
        """Its own processes, as long as no job runs."""
        # Some overwrite their environment to say what they do in ps: their parents know them.
        return with_descendants(bearers(f"{COOKIE}={self.cookie}"))

    def counted(self) -> set[Process]:
        """Those of its processes whose memory counts: servers and workers, not the client."""
        return self.processes()

    def close(self) -> None:
        """End it, and then whatever of it is left."""
        had = self.processes()
        try:
            self.disconnect()
        finally:
            for process in had | set(bearers(f"{COOKIE}={self.cookie}")):
                kill(process)
            until(lambda: not any(map(is_alive, had)), "the peer's processes are gone")


class Floor(Peer):
    """No peer: Popen and kill. `knows` is whether it is told who left the group."""

    def __init__(self, project: Path, *, knows: bool) -> None:
        super().__init__(project)
        self._knows = knows
        self._marker = ""
        self._leader: subprocess.Popen[bytes] | None = None

    def open(self, folder: Path) -> float | None:
        return None

    def start(self, marker: str, *, group: bool) -> Span:
        self._marker = marker
        began = now()
        self._leader = subprocess.Popen(
            STEPS["tree"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "BILT_MESSAGE": marker},
            cwd=self.project,
            start_new_session=True,
        )
        return Span(began, now())

    def cancel(self) -> Span:
        assert self._leader is not None
        others = bearers(self._marker) if self._knows else []
        began = now()
        os.killpg(self._leader.pid, signal.SIGKILL)
        for process in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self._leader.wait()
        while any(map(is_alive, others)):
            pass
        return Span(began, now())

    def await_over(self, seconds: float) -> None:
        pass

    def disconnect(self) -> None:
        if self._leader is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._leader.pid, signal.SIGKILL)
            self._leader.wait()


class Ours(Peer):
    """bilt-mcp: the small process of a client, the store's resident, and its worker with its keeper."""

    _client: StdioClient
    _served: Product

    def open(self, folder: Path) -> float | None:
        # The project's folder is in the scratch folder, the store in the one for this opening.
        root = self.project.parent
        self._store = folder / "store"
        self._client = StdioClient(
            server_argv(root, str(self._store)),
            cwd=root,
            log=folder / "server.log",
            env={"BILT_WORKER_IDLE": "900", COOKIE: self.cookie},
        )
        self._client.request("tools/list")
        first = (now() - self._client.began) / MS
        self._served = Product(root, self._client, self._store)
        return first

    def start(self, marker: str, *, group: bool) -> Span:
        began = now()
        self._served.send(marker)
        return Span(began, now())

    def cancel(self) -> Span:
        began = now()
        answer = self._served.cancel()
        answered = now()
        if answer["status"] != "cancelled":
            raise PeerFailed(f"a cancel was answered with {answer}")
        return Span(began, answered)

    def await_over(self, seconds: float) -> None:
        until(lambda: self._served.session()["status"] in FINAL, "the workflow is over", seconds)

    def processes(self) -> set[Process]:
        # No variable of ours is passed on to the resident and the worker; all are told the store.
        return super().processes() | with_descendants(bearers(str(self._store)))

    def disconnect(self) -> None:
        self._client.close()
        leave(self._store, patience=0)


class Tools(Peer):
    """A job server that speaks MCP over stdio: two or three of its tools are all that is needed."""

    def __init__(self, project: Path, argv: Sequence[str], calls: Calls) -> None:
        super().__init__(project)
        self._argv = argv
        self._calls = calls
        self._job: Any = None

    _client: StdioClient

    def open(self, folder: Path) -> float | None:
        self._client = StdioClient(
            self._argv,
            cwd=self.project,
            log=folder / "server.log",
            env={COOKIE: self.cookie, **self._calls.environment(folder)},
        )
        self._client.request("tools/list")
        return (now() - self._client.began) / MS

    def start(self, marker: str, *, group: bool) -> Span:
        arguments = self._calls.job(self.project, marker)
        began = now()
        answer = self._client.call(self._calls.start, **arguments)
        answered = now()
        self._job = answer[self._calls.answered_id]
        return Span(began, answered)

    def cancel(self) -> Span:
        began = now()
        self._client.call(self._calls.cancel, job_id=self._job)
        return Span(began, now())

    def await_over(self, seconds: float) -> None:
        def over() -> bool:
            status = self._client.call(self._calls.look, job_id=self._job)["status"]
            return status not in self._calls.not_over

        with contextlib.suppress(TimeoutError):
            until(over, "the job is over", seconds, 0.05)

    def disconnect(self) -> None:
        self._client.close()


class Calls(NamedTuple):
    """The tools of such a server."""

    environment: Callable[[Path], Mapping[str, str]]
    job: Callable[[Path, str], Mapping[str, Any]]
    start: str
    answered_id: str
    cancel: str
    look: str
    not_over: tuple[str, ...]


def _kyoo_environment(folder: Path) -> Mapping[str, str]:
    return {"KYOO_HOME": str(folder), "KYOO_PORT": str(_free_port())}


def _kyoo_job(project: Path, marker: str) -> Mapping[str, Any]:
    environment = {"BILT_MESSAGE": marker}
    return {"command": shlex.join(STEPS["tree"]), "cwd": str(project), "env": environment}


def _no_environment(folder: Path) -> Mapping[str, str]:
    return {}


def _plain_job(project: Path, marker: str) -> Mapping[str, Any]:
    return {"command": shlex.join(("env", f"BILT_MESSAGE={marker}", *STEPS["tree"]))}


KYOO = Calls(
    environment=_kyoo_environment,
    job=_kyoo_job,
    start="enqueue",
    answered_id="id",
    cancel="cancel_job",
    look="get_job",
    not_over=("queued", "held", "running"),
)
BACKGROUND_JOB = Calls(
    environment=_no_environment,
    job=_plain_job,
    start="execute_command",
    answered_id="job_id",
    cancel="kill_job",
    look="get_job_status",
    not_over=("running",),
)


class Driven(Peer):
    """A peer with a driver in its own interpreter; bench/peers/peer_lines.py says what the two say."""

    def __init__(self, project: Path, argv: Sequence[str]) -> None:
        super().__init__(project)
        self._argv = argv
        self._held = bytearray()
        self._driver: subprocess.Popen[bytes] | None = None
        self._driver_counts = False

    def open(self, folder: Path) -> float | None:
        self._held.clear()
        began = now()
        with (folder / "driver.log").open("ab") as log:
            # Ctrl-C goes to the runner, which tells it to close.
            self._driver = subprocess.Popen(
                self._argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, COOKIE: self.cookie, "PYTHONPATH": ""},
                start_new_session=True,
                bufsize=0,
            )
        answer = self._ask("open", OPEN_SECONDS, folder=str(folder))
        self._driver_counts = bool(answer.get("driver_counts"))
        first: float = answer.get("first_answer_ms", (answer["answered"] - began) / MS)
        return first

    def start(self, marker: str, *, group: bool) -> Span:
        job = {
            "argv": STEPS["tree"],
            "cwd": str(self.project),
            "env": {"BILT_MESSAGE": marker},
            "group": group,
        }
        answer = self._ask("start", CALL_SECONDS, job=job)
        return Span(answer["began"], answer["answered"])

    def cancel(self) -> Span:
        answer = self._ask("cancel", CALL_SECONDS)
        return Span(answer["began"], answer["answered"])

    def await_over(self, seconds: float) -> None:
        with contextlib.suppress(PeerFailed):
            self._ask("ended", seconds + CALL_SECONDS, seconds=seconds)

    def counted(self) -> set[Process]:
        assert self._driver is not None
        pid = self._driver.pid
        return {found for found in self.processes() if self._driver_counts or found.pid != pid}

    def disconnect(self) -> None:
        if self._driver is None:
            return
        assert self._driver.stdin is not None
        assert self._driver.stdout is not None
        with contextlib.suppress(PeerFailed, OSError, TimeoutError):
            self._ask("close", CALL_SECONDS)
        self._driver.stdin.close()
        try:
            self._driver.wait(CALL_SECONDS)
        except subprocess.TimeoutExpired:
            self._driver.kill()
            self._driver.wait()
        self._driver.stdout.close()

    def _ask(self, op: str, patience: float, **given: Any) -> dict[str, Any]:
        assert self._driver is not None
        assert self._driver.stdin is not None
        self._driver.stdin.write(json.dumps({"op": op, **given}).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self._line(op, patience))
        if "error" in answer:
            raise PeerFailed(f"{op}: {answer['error']}")
        return answer

    def _line(self, op: str, seconds: float) -> bytes:
        assert self._driver is not None
        assert self._driver.stdout is not None
        descriptor = self._driver.stdout.fileno()
        deadline = time.monotonic() + seconds
        while (end := self._held.find(b"\n")) < 0:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([descriptor], [], [], left)[0]:
                raise PeerFailed(f"{op}: no answer within {seconds:.0f} s")
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                raise PeerFailed(f"{op}: the driver has gone")
            self._held += piece
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        return line


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
