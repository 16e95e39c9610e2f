"""A server over HTTP, in a process of its own, on a free port of the loopback; it ends with whoever started it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import uvicorn

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60
END_SECONDS = 20


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
