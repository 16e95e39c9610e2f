"""HTTP: what the gate and the routes add to a bare server, and what streams cost that are held."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import anyio

from bilt_mcp.state import SqliteStore, StoreLocation

from .figures import Row, Target, rounds
from .http_wire import HttpWire
from .kernel import MS, Opened, cpu_ns, memory_mib, now
from .product import LINES_CODE, PYTHON, Product, leave
from .rounds_cancel import killed, tree_of
from .rounds_waiting import (
    POLLING,
    WINDOW_SECONDS,
    Poller,
    claimed,
    polling,
    session_of,
    worker_lock,
)
from .serving import Served, bare, ours

Ask = Callable[[], object]
ERA = "2026-07-28"
WRITTEN = re.compile(rb'line (\d+)"')
BEGUN = re.compile(b"retry: ")
COMPLETE = re.compile(b"event: complete\n")
STREAMS = 200
MB = 1024 * 1024 / 1_000_000
SAME = "a bare Starlette route with the same JSON, under the same uvicorn"
NO_OP = "a tool that does nothing, on the bare MCPServer of the same SDK over streamable HTTP"
STDIO = "the same cancel over stdio"
LINES = "a bare Starlette route that streams the lines of the same command, read from its pipe"
HELD = "bare Starlette with as many streams that say nothing"


def measure_http(product: Product, folder: Path, count: int, few: int) -> list[Row]:
    """Look `count` times at an invocation and at a session; cancel, and read a step's line, `few` times."""
    with ExitStack() as stack:
        starting = stack.enter_context(ours(folder, product.store.name, 3 * count + few))
        mcp = stack.enter_context(bare(folder, "mcp"))
        workflow = product.send("lines 1")["workflow_id"]
        product.finish()
        path = f"/v1/invocations/{workflow}"
        served = starting.ready()
        same = folder / "same.json"
        with served.wire() as wire:
            same.write_bytes(wire.ask(wire.request("GET", path, headers=served.callers()[0])))
        routes = stack.enter_context(bare(folder, "routes", str(same))).ready()
        rest = Row("http get", "GET of an invocation, at rest", SAME, target=Target(ratio=1.5))
        return [
            _get(served, path, routes, rest, count),
            _get_running(product, served, routes, count),
            _call(served, mcp.ready(), count),
            _cancel(product, served, few),
            _line(served, routes, few),
        ]


def _get(served: Served, path: str, routes: Served, row: Row, count: int) -> Row:
    with served.wire() as wire, routes.wire() as floor:
        asked = [_asking(wire, path, caller) for caller in served.callers()]
        same = _asking(floor, f"/same/{uuid4()}", {})
        if json.loads(asked[0]()).keys() != json.loads(same()).keys():
            raise RuntimeError("the floor of a GET answers something else")
        _alternate(row, count, [same], asked)
    return row


def _get_running(product: Product, served: Served, routes: Served, count: int) -> Row:
    """A step prints ten lines a second meanwhile, so what was read before is of no use for long."""
    row = Row("http get running", "GET of an invocation, while its step prints", SAME)
    workflow = product.send("busy")["workflow_id"]
    try:
        return _get(served, f"/v1/invocations/{workflow}", routes, row, count)
    finally:
        product.cancel()


def _asking(wire: HttpWire, path: str, caller: Mapping[str, str]) -> Callable[[], bytes]:
    request = wire.request("GET", path, headers=caller)
    return lambda: wire.ask(request)


def _call(served: Served, mcp: Served, count: int) -> Row:
    row = Row("http get_session", "get_session over HTTP", NO_OP, target=Target(ratio=2))
    with served.wire() as wire, mcp.wire() as floor:
        asked = [_calling(wire, "bilt_get_session", caller) for caller in served.callers()]
        _alternate(row, count, [_calling(floor, "nothing", {})], asked)
    return row


def _calling(wire: HttpWire, tool: str, caller: Mapping[str, str]) -> Ask:
    """A tool call in the era without a handshake, after the first one, which starts the server of a key."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": ERA,
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": tool, "arguments": {}, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": ERA,
        "Mcp-Method": "tools/call",
        "Mcp-Name": tool,
        **caller,
    }
    request = wire.request("POST", "/mcp", body, headers)
    answer = wire.ask(request)
    if b'"structuredContent"' not in answer or b'"isError":true' in answer:
        raise RuntimeError(f"{tool} was answered with {answer[:500]!r}")
    return lambda: wire.ask(request)


def _alternate(row: Row, count: int, floor: Sequence[Ask], ours: Sequence[Ask]) -> None:
    """Callers take turns, too."""
    for number in rounds(row.what, count):
        turns = [
            (floor[number % len(floor)], row.floor),
            (ours[number % len(ours)], row.ours),
        ]
        for call, samples in turns if number % 2 else turns[::-1]:
            began = now()
            call()
            samples.append((now() - began) / MS)


def _cancel(product: Product, served: Served, count: int) -> Row:
    row = Row("http cancel", "cancel over REST, to the verified answer", STDIO)
    row.target = Target(ratio=1.1)
    row.counts["survivors"] = 0
    for number in rounds(row.what, count):
        for rest in (True, False) if number % 2 else (False, True):
            product.warm_up()
            message = f"tree {uuid4().hex}"
            grown = Opened(product.project / "grown")
            workflow = product.send(message)["workflow_id"]
            tree = tree_of(grown, message, 3)
            with served.wire() as wire:
                path, caller = f"/v1/invocations/{workflow}/cancel", served.callers()
                request = wire.request("POST", path, {}, caller[number % len(caller)])
                began = now()
                answer = json.loads(wire.ask(request)) if rest else product.cancel()
                (row.ours if rest else row.floor).append((now() - began) / MS)
            row.counts["survivors"] += killed(tree, message)
            if answer["status"] != "cancelled":
                raise RuntimeError(f"a cancel was answered with {answer}")
    return row


def _line(served: Served, routes: Served, count: int) -> Row:
    row = Row("http line", "line written, to its event", LINES, target=Target(p95=200))
    cookie = served.login()
    argv = quote(json.dumps([*PYTHON, "-c", LINES_CODE, "lines 1"]))
    with served.person(cookie) as person:
        thread = _said(person, "lines 1", None)
        person.open_stream(f"/chat/stream?thread_id={thread}")
        person.until(COMPLETE)
    for number in rounds(row.what, count):
        for is_ours in (True, False) if number % 2 else (False, True):
            with served.person(cookie) if is_ours else routes.wire() as stream:
                if is_ours:
                    stream.open_stream(f"/chat/stream?thread_id={thread}&from=now")
                    with served.person(cookie) as person:
                        _said(person, "lines 1", thread)
                else:
                    stream.open_stream(f"/lines?argv={argv}")
                said, came = stream.until(WRITTEN)
                (row.ours if is_ours else row.floor).append((came - int(said[1])) / MS)
                if is_ours:
                    stream.until(COMPLETE)
    return row


def _said(person: HttpWire, message: str, thread: str | None) -> str:
    """Start a workflow of a thread, or of a new one; the thread."""
    body = {"user_message": message, **({"thread_id": thread} if thread else {})}
    found: str = json.loads(person.post("/chat/message", body))["thread_id"]
    return found


def measure_streams(folder: Path, windows: int, streams: int = STREAMS) -> list[Row]:
    """Hold streams of as many workflows that run and say nothing."""
    location = StoreLocation.of(folder / "streams-store")
    with ExitStack() as stack:
        stack.callback(leave, location.folder, patience=0)
        threads = anyio.run(_threads, location, folder, streams)
        stack.enter_context(worker_lock(location))
        poller = stack.enter_context(polling(location))
        starting = stack.enter_context(ours(folder, location.folder.name))
        (folder / "empty.json").write_text("{}", "utf-8")
        routes = stack.enter_context(bare(folder, "routes", str(folder / "empty.json"))).ready()
        served = starting.ready()
        cookie = served.login()
        before = _size(served)
        for thread in threads:
            wire = stack.enter_context(served.person(cookie))
            wire.open_stream(f"/chat/stream?thread_id={thread}")
            wire.until(BEGUN)
            stack.enter_context(routes.wire()).open_stream("/events")
        share = _share(served, poller, windows, streams)
        memory = Row("http streams", f"a server that holds {streams} streams", HELD, unit="MB")
        memory.target = Target(p50=150)
        memory.ours, memory.floor = [_size(served)], [_size(routes)]
        memory.counts["MB of it for the streams"] = round(memory.ours[0] - before, 1)
        return [memory, share]


async def _threads(location: StoreLocation, folder: Path, count: int) -> list[str]:
    """The sessions of as many running workflows, which this process holds as a worker does."""
    async with SqliteStore(location) as store:
        return [await session_of(store, claim) for claim in await claimed(store, folder, count)]


def _share(served: Served, poller: Poller, windows: int, streams: int) -> Row:
    what = f"a core's share of {streams} streams of running workflows"
    row = Row("http streams idle", what, POLLING, unit="%", target=Target(p50=3))
    time.sleep(1.0)  # until all have told what they had to tell
    poller.look()
    for _ in rounds(row.what, windows):
        began, before = now(), (cpu_ns(served.pid), cpu_ns(poller.pid))
        time.sleep(WINDOW_SECONDS)
        took = now() - began
        row.ours.append(100 * (cpu_ns(served.pid) - before[0]) / took)
        row.floor.append(100 * (cpu_ns(poller.pid) - before[1]) / took)
    return row


def _size(served: Served) -> float:
    size = memory_mib(served.pid)
    if size is None:
        raise RuntimeError("a server has gone")
    return size * MB
