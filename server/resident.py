"""The resident: one process that serves all clients of a store, each on its own connection.

    python -m bilt_mcp.server.resident FOLDER IDENTITY LOCK_FD IDLE_SECONDS

A client's own small process starts it (`joining.py`) and speaks for the client (`relay.py`). It goes when nobody has
been connected for a while. No build is its child: when it is killed, builds go on, and clients start another one.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from pathlib import Path

from bilt_mcp.engine import code_identity

MAX_LOG_BYTES = 1_048_576
FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


def main(arguments: list[str]) -> int:
    """Run a resident; 1 when its code is other code than was asked for."""
    folder, identity, lock, idle = arguments
    # The lock is held for as long as this process lives, and by none of its children.
    os.set_inheritable(int(lock), False)
    if identity != code_identity():
        return 1
    # Half of the start-up is the import of the SDK; collecting garbage meanwhile finds none.
    gc.disable()
    import anyio

    from .residence import ClientLog, Residence

    residence = Residence(f"serve-{identity}.sock", _seconds(idle))
    _log(Path(folder) / "server.log", ClientLog())
    gc.freeze()
    gc.enable()
    anyio.run(residence.run)
    return 0


def _seconds(idle: str) -> float:
    from bilt_mcp.state import IDLE_SECONDS

    try:
        return min(max(float(idle), 0.0), 86_400.0)
    except ValueError:
        return IDLE_SECONDS


def _log(path: Path, client: logging.Handler) -> None:
    if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
        path.replace(path.with_name(path.name + ".1"))
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    own = logging.StreamHandler(open(descriptor, "a", encoding="utf-8"))  # noqa: SIM115
    for handler in (own, client):
        handler.setFormatter(logging.Formatter(FORMAT))
    logging.basicConfig(level=logging.WARNING, handlers=[own, client])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
