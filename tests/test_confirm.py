"""`bilt-mcp confirm`: a person answers at a terminal, and nobody else can."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from bilt_mcp.state import Session, Status

from .support.builds import Build, build_in

pytestmark = pytest.mark.anyio

ASKING = (
    "[[step]]\nname = 'deploy'\nrun = 'touch deployed'\ndeploy = true\nconfirm = 'Really deploy?'\n"
)


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    async with build_in(tmp_path) as made:
        made.declare(ASKING)
        yield made


async def waiting(build: Build) -> Session:
    """The session, when the gate is open. It belongs to the account that the terminal acts as."""
    await build.start()
    return await build.until(Status.PAUSED)


def command(build: Build, session_id: str) -> list[str]:
    program = [sys.executable, "-m", "bilt_mcp.server", "--store", str(build.location.folder)]
    return [*program, "confirm", session_id]


def at_a_terminal(argv: list[str], answer: bytes) -> tuple[int, str]:
    """Run a program on a terminal of its own, answer its question, return its exit code and what it showed."""
    terminal, inside = pty.openpty()
    # Who has no controlling terminal gets the first one that it opens.
    start = "import os, sys; os.open(sys.argv[1], os.O_RDWR); os.execv(sys.argv[2], sys.argv[2:])"
    program = subprocess.Popen(
        [sys.executable, "-c", start, os.ttyname(inside), *argv],
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
    )
    os.close(inside)
    shown = b""
    answered = False
    while True:
        try:
            piece = os.read(terminal, 4096)
        except OSError:  # the terminal's other side is closed
            break
        if not piece:
            break
        shown += piece
        if not answered and b"declines: " in shown:
            os.write(terminal, answer + b"\n")
            answered = True
    os.close(terminal)
    return program.wait(), shown.decode()


@pytest.mark.parametrize(
    ("answer", "status", "deployed"),
    [(b"yes", Status.COMPLETED, True), (b"no", Status.CANCELLED, False)],
)
async def test_a_person_at_a_terminal_answers_the_gate(
    build: Build, answer: bytes, status: Status, deployed: bool
) -> None:
    session = await waiting(build)
    argv = command(build, session.id)
    code, shown = await anyio.to_thread.run_sync(at_a_terminal, argv, answer)
    assert "Really deploy?" in shown
    assert code == 0
    assert (await build.ended()).status == status
    assert (Path(build.project.root) / "deployed").exists() is deployed


async def test_without_a_terminal_nobody_is_asked_and_nothing_is_answered(build: Build) -> None:
    session = await waiting(build)
    ran = await anyio.to_thread.run_sync(
        lambda: subprocess.run(
            command(build, session.id),
            input="yes\n",
            capture_output=True,
            text=True,
            start_new_session=True,  # no terminal, as for an agent's own shell
            check=False,
        )
    )
    assert ran.returncode == 1
    assert "A person must answer at a terminal" in ran.stdout
    assert (await build.session()).status == "paused"


async def test_a_session_without_an_open_gate_says_so(build: Build) -> None:
    argv = command(build, build.session_id)
    code, shown = await anyio.to_thread.run_sync(at_a_terminal, argv, b"yes")
    assert code == 1
    assert "Nothing waits for an answer" in shown
