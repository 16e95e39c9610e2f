"""Running one step under a keeper, as short as a test wants to say it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import anyio
import pytest

from bilt_mcp.engine.step_process import StepCommand, StepProcess, StepResult

NAME = "01-build.1"


@contextlib.asynccontextmanager
async def keeper() -> AsyncGenerator[StepProcess, None]:
    process = await StepProcess.spawn()
    try:
        yield process
    finally:
        await process.aclose()


def step(folder: Path, *argv: str, grace: float = 10.0, log_bytes: int = 1 << 20) -> StepCommand:
    return StepCommand(argv, folder, dict(os.environ), folder, NAME, grace, log_bytes)


async def said(process: StepProcess, word: bytes) -> None:
    """Return when the step has printed a word."""
    text = b""
    async for chunk in process.chunks():
        text += chunk.data
        if word in text:
            return
    pytest.fail(f"the step ended without saying {word!r}: {text!r}")


async def run(command: StepCommand) -> tuple[StepResult, bytes]:
    async with keeper() as process:
        await process.start(command)
        text = b"".join([chunk.data async for chunk in process.chunks()])
        return await process.wait(), text


async def until_exists(path: Path) -> None:
    """Return when somebody made this file."""
    with anyio.fail_after(20):
        while not os.path.exists(path):  # noqa: ASYNC110, ASYNC240 - a file sets no Event
            await anyio.sleep(0.01)


def modes(folder: Path) -> set[int]:
    """The types and permissions of the files in a folder."""
    return {path.stat().st_mode for path in folder.iterdir()}
