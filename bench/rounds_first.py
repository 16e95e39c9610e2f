"""Row 1: how soon a client has its first answer, and what a client's process costs."""

from __future__ import annotations

from pathlib import Path

from .figures import Row, Target, rounds
from .jsonrpc import StdioClient
from .kernel import MS, bearers, memory_mib, now
from .product import Product, bare_argv, leave, server_argv

BARE = "the bare MCPServer of the same SDK, over its own stdio"
IDLE_SECONDS = 120.0
"""What is resident outlasts any round; it is told to go at the end."""


def measure_warm(folder: Path, count: int) -> list[Row]:
    """From starting the command to the first list of tools, for the second client of a store."""
    warm = Row(
        "warm",
        "warm start, to the first tools/list",
        BARE,
        target=Target(p50=40, ratio=0.06),
    )
    memory = Row("memory", "memory of a client's process", BARE, unit="MiB")
    store = folder / "warm-store"
    given = {"BILT_WORKER_IDLE": str(IDLE_SECONDS)}
    argv = server_argv(folder, store.name)
    log = folder / "warm.log"
    try:
        with StdioClient(argv, cwd=folder, log=log, env=given) as first:
            # A workflow that has ended: now everything that may be resident is.
            served = Product(folder, first, store)
            served.warm_up()
            _first_answer(argv, folder, given).close()
            for number in rounds(warm.what, count):
                for ours in (True, False) if number % 2 else (False, True):
                    client = _first_answer(argv if ours else bare_argv(), folder, given)
                    (warm.ours if ours else warm.floor).append((now() - client.began) / MS)
                    with client:
                        client.call("bilt_get_session" if ours else "nothing")
                        size = memory_mib(client.pid)
                        assert size is not None
                        (memory.ours if ours else memory.floor).append(size)
            resident = {process.pid for process in bearers(str(store))} - {first.pid}
            shared = sum(memory_mib(pid) or 0.0 for pid in resident)
            memory.counts["MiB more, once for all clients"] = round(shared)
    finally:
        leave(store, patience=0)
    return [warm, memory]


def measure_cold(folder: Path, count: int) -> list[Row]:
    """The same for a store that nobody has used: nothing is resident, nothing was made."""
    cold = Row("cold", "cold start, to the first tools/list", BARE, target=Target(ratio=1.1))
    for number in rounds(cold.what, count):
        for ours in (True, False) if number % 2 else (False, True):
            store = folder / f"cold-store-{number}"
            argv = server_argv(folder, store.name) if ours else bare_argv()
            client = _first_answer(argv, folder, {"BILT_WORKER_IDLE": "0.5"})
            (cold.ours if ours else cold.floor).append((now() - client.began) / MS)
            client.close()
            # What it may have started must not slow the next one down.
            leave(store, patience=10)
    return [cold]


def _first_answer(argv: tuple[str, ...], folder: Path, given: dict[str, str]) -> StdioClient:
    client = StdioClient(argv, cwd=folder, log=folder / "first.log", env=given)
    try:
        client.request("tools/list")
    except BaseException:
        client.close()
        raise
    return client
