"""The product as its users meet it: a project, a server over stdio, the worker that it starts, and their end."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from .jsonrpc import StdioClient, ToolFailed
from .kernel import bearers, until, with_arguments

HERE = Path(__file__).parent
FINAL = {"completed", "failed", "cancelled"}
PATIENCE_SECONDS = 20.0
MIB = 1024 * 1024
FLOODS = {"flood": 64 * MIB, "deluge": 1024 * MIB}
"""How much a step prints, by its name."""

PYTHON = (sys.executable, "-I", "-S")
LINES_CODE = """
import random, sys, time
for _ in range(int(sys.argv[1].split()[-1])):
    time.sleep(random.uniform(0.05, 0.15))
    print("line", time.monotonic_ns(), flush=True)
"""

STEPS: dict[str, tuple[str, ...]] = {
    # Three processes, one of them in a session of its own.
    "tree": ("/bin/sh", "-c", "sleep 1000 & setsid sleep 1000 & : > grown; wait"),
    "hostile": (
        *("/bin/sh", "-c", 'exec "$0" -I -S "$1" "$BILT_MESSAGE" grown'),
        *(sys.executable, str(HERE / "hostile.py")),
    ),
    "start": ("/bin/sh", "-c", ": > started"),
    # Short lines, which cost more than long ones.
    **{name: ("/bin/sh", "-c", f"yes xxx | head -c {size}") for name, size in FLOODS.items()},
    # A build that says a line ten times a second.
    "busy": ("/bin/sh", "-c", "n=0; while :; do n=$((n+1)); echo working on $n; sleep 0.1; done"),
    "lines": ("/bin/sh", "-c", 'exec "$0" -I -S -c "$1" "$BILT_MESSAGE"', PYTHON[0], LINES_CODE),
}
"""What the project can run. The first word of a message chooses; the floor runs the same argv."""


def bilt_toml() -> str:
    """The project's workflow file."""
    steps = [
        f"[[step]]\nname = {json.dumps(name)}\nwhen = {json.dumps(f'^{name}( |$)')}\nrun = {json.dumps(argv)}\n"
        for name, argv in STEPS.items()
    ]
    return "\n".join(['[project]\nname = "bench"\n', *steps])


@contextmanager
def scratch() -> Generator[Path]:
    """A folder with a project and a place for a store; removed when nothing uses it any more."""
    folder = Path(tempfile.mkdtemp(prefix="bilt-bench-"))
    # Whoever interrupts it, or sees it fail, need not wait until what is idle leaves.
    patience = 0.0
    try:
        make_project(folder / "project")
        yield folder
        patience = PATIENCE_SECONDS
    finally:
        try:
            leave(folder, patience=patience)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def make_project(project: Path) -> None:
    """A folder with the workflow file, and the FIFOs by which steps say that they run."""
    project.mkdir()
    (project / "bilt.toml").write_text(bilt_toml(), "utf-8")
    for fifo in ("grown", "started"):
        os.mkfifo(project / fifo)


def leave(place: Path, *, patience: float = PATIENCE_SECONDS) -> None:
    """Return when nothing is alive that was started for this store, or for any below this folder.

    Waits `patience` seconds for all of it to leave by itself; then tells it to, with TERM.
    """

    def gone() -> bool:
        return not bearers(str(place))

    try:
        until(gone, "the background processes leave by themselves", patience, 0.02)
    except (TimeoutError, KeyboardInterrupt) as error:
        # It was asked not to wait, or a round failed in the middle and something still runs. On TERM a worker stops
        # it and goes.
        for process in bearers(str(place)):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
        until(gone, "the background processes leave when they are told to", 30, 0.02)
        if isinstance(error, KeyboardInterrupt):
            raise


def _is_held(lock: Path) -> bool:
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def workers(store: Path) -> list[int]:
    """The worker of a store, if one is alive."""
    return with_arguments("bilt_mcp.engine.worker", str(store / "bilt.db"))


def server_argv(folder: Path, store: str = "store", project: str = "project") -> tuple[str, ...]:
    """How a server for the scratch project, or another one, is started."""
    places = ("--project", str(folder / project), "--store", str(folder / store))
    installed = Path(sysconfig.get_path("scripts"), "bilt-mcp")
    if installed.exists():  # what clients start
        return (str(installed), *places)
    return (sys.executable, "-P", "-m", "bilt_mcp.server", *places)


def bare_argv() -> tuple[str, ...]:
    """How the SDK's bare server is started."""
    return (sys.executable, "-P", str(HERE / "bare_server.py"))


class Product:
    """One server and its session; use it as an agent does."""

    def __init__(self, folder: Path, client: StdioClient, store: Path | None = None) -> None:
        self.project = folder / "project"
        self.store = store or folder / "store"
        self.client = client
        session = client.call("bilt_get_session")
        self.session_id: str = session["session_id"]

    def send(self, message: str) -> dict[str, Any]:
        """Start a workflow."""
        return self.client.call("bilt_send_message", session_id=self.session_id, message=message)

    def session(self) -> dict[str, Any]:
        """Look at the session."""
        return self.client.call("bilt_get_session", session_id=self.session_id)

    def cancel(self) -> dict[str, Any]:
        """Stop the workflow."""
        return self.client.call("bilt_cancel_workflow", session_id=self.session_id)

    def finish(self) -> None:
        """Wait until the workflow has completed; anything else is a failure of the bench."""
        session = self.session()
        while session["status"] not in FINAL:
            session = self.client.call(
                "bilt_get_session",
                session_id=self.session_id,
                wait_seconds=30,
                after_revision=session["revision"],
            )
        if session["status"] != "completed":
            raise RuntimeError(f"a step of the bench failed: {session['message']}")

    def messages(self, after: int) -> dict[str, Any]:
        """Read on."""
        return self.client.call(
            "bilt_get_messages", session_id=self.session_id, after=after, limit=100
        )

    def newest_message(self) -> int:
        """Where to read on from."""
        page = self.client.call("bilt_get_messages", session_id=self.session_id, limit=1)
        newest: int = page["next_after"]
        return newest

    def warm_up(self) -> None:
        """Run a workflow that nobody measures, unless the worker is there already."""
        if not _is_held(self.store / "worker.lock"):
            self.send("lines 1")
            self.finish()

    def worker(self) -> int:
        """The number of the worker."""
        self.warm_up()
        return workers(self.store)[0]

    @contextmanager
    def nothing_left_running(self) -> Generator[None]:
        """Whatever happens in the block, its workflow does not outlive it."""
        try:
            yield
        except BaseException:
            with suppress(ToolFailed, OSError, EOFError, TimeoutError, ValueError):
                self.cancel()
            raise


@contextmanager
def builds_beside(folder: Path, count: int) -> Generator[None]:
    """While the block runs, as many other projects build on the same store; 0 is silence."""
    with ExitStack() as stack:
        for number in range(count):
            name = f"beside{number}"
            make_project(folder / name)
            argv = server_argv(folder, project=name)
            client = stack.enter_context(
                StdioClient(argv, cwd=folder, log=folder / "beside.log", env={})
            )
            beside = Product(folder, client)
            stack.enter_context(beside.nothing_left_running())
            beside.send("busy")
            stack.callback(beside.cancel)
            until(lambda b=beside: b.session()["status"] == "running", f"{name} builds")  # type: ignore[misc]
        yield


@contextmanager
def product(folder: Path, worker_idle: float) -> Generator[Product]:
    """A server for the scratch project, warm."""
    environment = {"BILT_WORKER_IDLE": str(worker_idle)}
    client = StdioClient(
        server_argv(folder), cwd=folder, log=folder / "server.log", env=environment
    )
    with client:
        served = Product(folder, client)
        with served.nothing_left_running():
            served.warm_up()
            yield served
