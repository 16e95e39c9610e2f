"""Row 4: what a call costs, against the bare server of the same SDK."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .figures import Row, Target, rounds
from .jsonrpc import StdioClient
from .kernel import MS, Opened, now
from .product import Product, bare_argv

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
