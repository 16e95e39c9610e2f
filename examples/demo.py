"""The whole of bilt-mcp in half a minute: a real client, over real stdio, builds a real project and stops it.

    make demo

It builds `examples/storefront` in a temporary copy, follows the build as an agent would, starts a
second one, cancels it in the middle, and counts what is left alive.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from rich.console import Console
from rich.json import JSON
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.terminal_theme import MONOKAI

STOREFRONT = Path(__file__).parent / "storefront"
FINAL = {"completed", "failed", "cancelled"}
STYLES = {"info": "cyan", "error": "bold red", "success": "bold green", "log": "dim"}

console = Console(highlight=False, record=True)


class Agent:
    """Calls tools as an agent does, and shows each call."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, tool: str, *, show: bool = True, **arguments: Any) -> dict[str, Any]:
        if show:
            said = ", ".join(
                f"{key}={value!r}" for key, value in arguments.items() if key != "session_id"
            )
            console.print(f"[bold magenta]agent[/] → [bold]{tool}[/]({escape(said)})")
        result = await self._client.call_tool(tool, arguments)
        answer: dict[str, Any] = result.structured_content or {}
        return answer


async def follow(agent: Agent, session_id: str, *, until_percent: int = 101) -> dict[str, Any]:
    """Show progress and new messages until the workflow ends, or is so far; returns the session."""
    columns = (TextColumn("[bold]{task.percentage:>3.0f} %"), BarColumn(40), TimeElapsedColumn())
    messages = await agent.call("bilt_get_messages", show=False, session_id=session_id, limit=1)
    after, revision = messages["next_after"], 0
    with Progress(
        *columns, TextColumn("{task.description}"), console=console, transient=True
    ) as bar:
        task = bar.add_task("starting", total=100)
        while True:
            # One call that answers as soon as something changes: no polling, no wasted turns.
            session = await agent.call(
                "bilt_get_session",
                show=False,
                session_id=session_id,
                wait_seconds=1,
                after_revision=revision,
            )
            revision, progress = session["revision"], session["progress"]
            page = await agent.call(
                "bilt_get_messages", show=False, session_id=session_id, after=after
            )
            after = page["next_after"]
            for message in page["messages"]:
                show(bar.console, message)
            bar.update(task, completed=progress["percent"], description=escape(progress["message"]))
            if session["status"] in FINAL or progress["percent"] >= until_percent:
                return session


def show(out: Console, message: dict[str, Any]) -> None:
    style = STYLES[message["variant"]]
    step = f"{message['step'] or ''}"
    for line in message["content"].splitlines():
        out.print(
            f"  [blue]{step:>8}[/] [{style}]{escape(line)}[/]", overflow="ellipsis", no_wrap=True
        )


def panel(answer: dict[str, Any], title: str, style: str) -> Panel:
    shown = JSON.from_data(answer)
    shown.text.no_wrap = False
    return Panel(shown, title=title, style=style, expand=False)


def alive(workflow_id: str) -> list[str]:
    """The commands of all processes of a workflow, by their environment: asked of the kernel, not of bilt."""
    found: list[str] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if f"BILT_WORKFLOW_ID={workflow_id}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


async def demo(project: Path, store: Path) -> int:
    started = time.monotonic()
    console.print(
        Panel.fit("[bold]bilt-mcp[/]: start, watch and [bold]really stop[/] a build", style="green")
    )
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    server = StdioServerParameters(
        command=sys.executable,
        args=["-m", "bilt_mcp.server", "--project", str(project), "--store", str(store)],
        env={"PATH": path, "BILT_WORKER_IDLE": "0.5"},
    )
    async with Client(server) as client:
        agent = Agent(client)
        console.rule("1  build")
        session = await agent.call("bilt_get_session")
        session_id = session["session_id"]
        await agent.call("bilt_send_message", session_id=session_id, message="Build the storefront")
        session = await follow(agent, session_id)
        console.print(f"[bold green]{session['status']}[/] in {time.monotonic() - started:.1f} s\n")
        if session["status"] != "completed":
            console.print(session["message"])
            return 1

        console.export_text()  # a picture begins here
        console.rule("2  build and deploy, then change our mind")
        await agent.call(
            "bilt_send_message", session_id=session_id, message="Build it again and deploy it"
        )
        session = await follow(agent, session_id, until_percent=30)
        workflow_id = session["workflow_id"]
        console.print(
            f"\n[bold]{len(alive(workflow_id))} processes[/] of this workflow are alive, the kernel says."
        )
        before = time.monotonic()
        receipt = await agent.call(
            "bilt_cancel_workflow", session_id=session_id, reason="The user changed their mind"
        )
        took = (time.monotonic() - before) * 1000
        console.print(panel(receipt, "the receipt", "green"))
        left = alive(workflow_id)
        console.print(
            f"Answered after [bold]{took:.0f} ms[/]; now [bold]{len(left)} processes[/] are alive.\n"
        )

        console.rule("3  cancel it once more")
        error = await agent.call("bilt_cancel_workflow", session_id=session_id)
        console.print(panel(error, "the documented error", "yellow"))
    ok = (
        receipt["status"] == "cancelled" and not left and error["error"] == "Cannot cancel workflow"
    )
    console.print(
        f"\n[bold {'green' if ok else 'red'}]{'done' if ok else 'FAILED'}[/] in {time.monotonic() - started:.1f} s"
    )
    return 0 if ok else 1


@contextmanager
def scratch() -> Generator[Path]:
    """A temporary folder, removed when the worker has gone by itself."""
    folder = Path(tempfile.mkdtemp(prefix="bilt-demo-"))
    try:
        yield folder
    finally:
        lock = folder / "store" / "worker.lock"
        if lock.exists():
            with lock.open() as held:
                fcntl.flock(held, fcntl.LOCK_EX)  # the worker holds it for as long as it lives
        shutil.rmtree(folder, ignore_errors=True)


def save_picture(file: Path) -> None:
    """Keep what was shown as an SVG that fetches nothing."""
    svg = console.export_svg(title="make demo", theme=MONOKAI)
    file.write_text(re.sub(r"@font-face\s*\{.*?\}|<!--.*?-->", "", svg, flags=re.DOTALL), "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Build a real project, cancel it, count what is left alive."
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="also keep it as an SVG")
    given = parser.parse_args()
    with scratch() as folder:
        ignored = shutil.ignore_patterns("build", "__pycache__")
        shutil.copytree(STOREFRONT, folder / "storefront", ignore=ignored)
        code = anyio.run(demo, folder / "storefront", folder / "store")
    if given.picture:
        save_picture(given.picture)
    return code


if __name__ == "__main__":
    sys.exit(main())
