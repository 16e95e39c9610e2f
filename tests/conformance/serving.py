"""A server over HTTP, in a process of its own, on a free port of the loopback; it ends with whoever started it."""

from __future__ import annotations

import contextlib
import re
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import uvicorn

from tests.support.places import Place

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
END_SECONDS = 20

OURS = ("-m", "bilt_mcp.server", "serve")


def serve(app: Any) -> None:
    """Say the URL of this ASGI application on a line, and serve it until the standard input ends."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", flush=True)

        def watch() -> None:
            sys.stdin.read()
            server.should_exit = True

        threading.Thread(target=watch, daemon=True).start()
        server.run([listening])


@contextlib.contextmanager
def bilt(place: Place, log: Path) -> Generator[str]:
    """The URL of our server as anybody starts it, `bilt-mcp serve`; `log` gets what it says."""
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, *OURS, "--port", "0", "--no-auth", *place.arguments],
            env=dict(place.environ),
            stdin=subprocess.DEVNULL,
            stderr=errors,
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (ready := re.search(r"ready on (\S+)", log.read_text("utf-8"))):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"bilt-mcp serve did not get ready: {log.read_text('utf-8')}")
            time.sleep(0.02)
        yield f"{ready[1]}/mcp"
        process.terminate()
        process.wait(END_SECONDS)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def serving(
    module: str, *arguments: str, environ: Mapping[str, str], log: Path | None = None
) -> Generator[str]:
    """The URL of `python -m module`, which calls `serve`; it is gone afterwards. `log` gets its standard error."""
    with log.open("w") if log else contextlib.nullcontext() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            came = selector.select(START_SECONDS)
        url = process.stdout.readline().strip() if came else ""
        if not url:
            raise RuntimeError(f"{module} did not say its URL")
        yield url
        process.stdin.close()
        process.wait(END_SECONDS)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
