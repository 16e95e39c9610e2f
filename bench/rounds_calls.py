"""Row 3: what a call costs, and a server, against the bare server of the same SDK."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.figures import Row, Target, rounds
from bench.jsonrpc import StdioClient
from bench.kernel import MS, Opened, memory_mib, now
from bench.product import Product, bare_argv, server_argv

NO_OP = "a tool that does nothing, on the bare MCPServer of the same SDK over its own stdio"


def measure_calls(product: Product, folder: Path, count: int) -> list[Row]:
    """Look at a session that is at rest and one that is running; list the tools."""
    limit = Target(ratio=2)
    rest = Row("get_session", "get_session, at rest", NO_OP, target=limit)
    busy = Row("get_session running", "get_session, while a step runs", NO_OP, target=limit)
    page = Row("get_messages", "get_messages, a page of 50", NO_OP)
    tools = Row("tools/list", "tools/list", "tools/list of the bare server (one tool)")
    with StdioClient(bare_argv(), cwd=folder, log=folder / "bare.log") as bare:

        def nothing() -> object:
            return bare.call("nothing")

        def read() -> object:
            return product.client.call("bilt_get_messages", session_id=product.session_id)

        def list_bare() -> object:
            return bare.request("tools/list")

        def list_ours() -> object:
            return product.client.request("tools/list")

        _alternate(rest, count, nothing, product.session)
        _alternate(page, max(1, count // 5), nothing, read)
        _alternate(tools, count, list_bare, list_ours)
        grown = Opened(product.project / "grown")
        product.send("tree calls")
        grown.moment()
        _alternate(busy, count, nothing, product.session)
        product.cancel()
    return [rest, busy, page, tools]


def _alternate(
    row: Row, count: int, floor: Callable[[], object], ours: Callable[[], object]
) -> None:
    floor()
    ours()
    for number in rounds(row.what, count):
        turns = [(floor, row.floor), (ours, row.ours)]
        for call, samples in turns if number % 2 else turns[::-1]:
            began = now()
            call()
            samples.append((now() - began) / MS)


def measure_cold(folder: Path, count: int) -> list[Row]:
    """From nothing to the first list of tools, and the memory that the server then has."""
    floor_is = "the bare server"
    cold = Row("cold", "cold start, to the first tools/list", floor_is)
    memory = Row("memory", "memory of a server", floor_is, unit="MiB")
    for number in rounds(cold.what, count):
        for ours in (True, False) if number % 2 else (False, True):
            argv = server_argv(folder, "cold-store") if ours else bare_argv()
            with StdioClient(argv, cwd=folder, log=folder / "cold.log") as client:
                client.request("tools/list")
                (cold.ours if ours else cold.floor).append((now() - client.began) / MS)
                client.call("bilt_get_session" if ours else "nothing")
                size = memory_mib(client.pid)
                assert size is not None
                (memory.ours if ours else memory.floor).append(size)
    return [cold, memory]
