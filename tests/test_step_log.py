"""The output of a step in its bounded files and on its way to the worker, in floods and when its keeper is killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import time
from pathlib import Path

import anyio.lowlevel
import pytest

from bilt_mcp.engine import step_log
from bilt_mcp.engine.keeper_output import LIVE_BURST, LIVE_RATE, Output, pipe_size
from bilt_mcp.engine.step_log import log_paths, read_log

from .support.steps import NAME, keeper, run, step
from .support.waiting import wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_flood_keeps_its_exact_head_and_tail_in_bounded_files(tmp_path: Path) -> None:
    lines, kept = 300_000, 1 << 20
    code = f"import sys\nfor i in range({lines}): sys.stdout.write(f'line {{i:08d}} of many\\n')"
    full = b"".join(b"line %08d of many\n" % i for i in range(lines))
    result, _ = await run(step(tmp_path, sys.executable, "-c", code, log_bytes=kept))
    assert result.code == 0
    log = read_log(tmp_path, NAME)
    head, tail = log.split("[… ".encode())
    left_out, _, tail = tail.partition(" bytes left out …]\n".encode())
    assert kept // 4 - 22 < len(head) <= kept // 4
    assert head.endswith(b"many\n")
    assert tail.startswith(b"line ")  # whole lines on both sides of the gap
    assert full.startswith(head)
    assert full.endswith(tail)
    assert len(tail) >= 3 * kept // 8
    assert len(head) + int(left_out) + len(tail) == len(full)
    sizes = [path.stat().st_size for path in log_paths(tmp_path, NAME)]
    assert sum(sizes) <= kept + 80  # two of them say where they belong


@pytest.mark.parametrize("lines", [4_000, 20_000, 20_500, 400_000])
async def test_a_log_read_while_it_is_written_or_after_its_keeper_was_killed_mixes_nothing(
    lines: int, tmp_path: Path
) -> None:
    """Each length ends in another place: in the head, in either segment, long after they were written over."""
    code = (
        f"import sys, signal\nfor i in range({lines}): sys.stdout.write(f'line {{i:08d}} of many\\n')\n"
        "sys.stdout.flush(); open('done', 'w').close(); signal.pause()"
    )

    def check(log: bytes) -> list[int]:
        parts = [
            [int(line[5:13]) for line in part.splitlines() if len(line) == 21]
            for part in re.split("\\[… [0-9]+ bytes left out …\\]".encode(), log)
        ]
        for part in parts:
            assert part == [part[0] + number for number in range(len(part))]
        return parts[-1]

    async with keeper() as process:
        await process.start(step(tmp_path, sys.executable, "-c", code, log_bytes=1 << 18))
        while not (tmp_path / "done").exists():
            check(read_log(tmp_path, NAME))
            await anyio.lowlevel.checkpoint()
        last = b"line %08d of many\n" % (lines - 1)
        await wait_until(lambda: read_log(tmp_path, NAME).endswith(last), "the log has all")
        os.kill(process.identity.pid, signal.SIGKILL)
        assert (await process.wait()).lost
    left = check(read_log(tmp_path, NAME))
    assert left[-1] == lines - 1
    assert len(left) * 22 >= min(3 * (1 << 18) // 8 - 22, lines * 22 // 2)


def test_a_kill_while_the_tail_is_written_over_leaves_nothing_of_before_under_a_new_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, step_end = os.pipe()
    worker_end, forward = os.pipe()
    os.set_blocking(source, False)
    paths = [os.fspath(path) for path in log_paths(tmp_path, NAME)]
    sizes = {"head_bytes": 1000, "tail_bytes": 4000}
    output = Output(source, forward, {"head_path": paths[0], "tail_paths": paths[1:], **sizes})
    text = b"".join(b"line %04d\n" % number for number in range(900))
    os.write(step_end, text[:7000])  # a head and three segments
    assert output.pump() == 7000
    write = os.write

    def killed_after(fd: int, data: memoryview) -> int:
        write(fd, data[:1500])
        raise KeyboardInterrupt

    os.write(step_end, text[7000:])
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", killed_after)
        with pytest.raises(KeyboardInterrupt):
            output.pump()
    log = read_log(tmp_path, NAME)
    left_out = re.search(rb"\n\[\D+ ([0-9]+) bytes.*\]\n", log)
    assert left_out is not None
    assert log[: left_out.start() + 1] == text[:1000]
    end = log[left_out.end() :]
    assert end == text[1000 + int(left_out[1]) :][: len(end)]
    assert len(end) > 1900
    for fd in (source, step_end, worker_end, forward, *output.segments):
        os.close(fd)


def test_a_segment_that_is_turned_over_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, tail, _ = log_paths(tmp_path, NAME)
    head.write_bytes(b"head\n")
    tail.write_bytes(b"%019d %019d\nx\nold\n" % (5, 11))
    read = step_log.read_part

    def turned_over(path: Path, most: int = -1) -> bytes:
        text = read(path, most)
        if path == tail and b"old" in text:
            tail.write_bytes(b"%019d %019d\nx\nnew\nold" % (11, 17))
        return text

    monkeypatch.setattr(step_log, "read_part", turned_over)
    assert read_log(tmp_path, NAME).endswith(b"new\n")


def test_live_output_goes_on_at_the_start_of_a_line_after_a_gap(tmp_path: Path) -> None:
    source, step_end = os.pipe()
    worker_end, forward = os.pipe()
    for fd in (source, worker_end, forward):
        os.set_blocking(fd, False)
    room = pipe_size(forward)
    assert pipe_size(source, 1 << 20) > room
    paths = [os.fspath(path) for path in log_paths(tmp_path, NAME)]
    sizes = {"head_bytes": 1 << 20, "tail_bytes": 1 << 20}
    plan = {"head_path": paths[0], "tail_paths": paths[1:], **sizes}
    output = Output(source, forward, plan)

    def prints(data: bytes) -> None:
        os.write(step_end, data)
        assert output.pump() == len(data)

    prints(b"x" * room + b"1234")
    assert output.dropped == 4
    prints(b" more\nnext line\n")
    assert output.dropped == 4 + 16
    assert os.read(worker_end, 2 * room) == b"x" * room
    prints(b"the end of a line nobody saw the start of")
    prints(b"\nwhole again\n")
    prints(b"and on")
    output.finish()
    assert os.read(worker_end, 2 * room) == b"\x18\nwhole again\nand on"  # CAN: cut
    assert os.read(worker_end, 1) == b""  # the end of the live output
    assert output.dropped == 4 + 16 + 41 + 1
    for fd in (source, step_end, worker_end, output.file):
        os.close(fd)


def test_a_reader_that_keeps_up_is_told_a_bounded_part_of_a_flood_in_whole_lines(
    tmp_path: Path,
) -> None:
    source, step_end = os.pipe()
    worker_end, forward = os.pipe()
    for fd in (source, worker_end, forward):
        os.set_blocking(fd, False)
    paths = [os.fspath(path) for path in log_paths(tmp_path, NAME)]
    sizes = {"head_bytes": 1 << 16, "tail_bytes": 1 << 16}
    began = time.monotonic()
    output = Output(source, forward, {"head_path": paths[0], "tail_paths": paths[1:], **sizes})
    block = b"just one line\n" * 2048
    told = bytearray()

    def prints(text: bytes) -> None:
        os.write(step_end, text)
        assert output.pump() == len(text)
        with contextlib.suppress(BlockingIOError):
            told.extend(os.read(worker_end, 1 << 20))

    while output.bytes < 3 * LIVE_BURST:
        prints(block)
    assert len(told) >= LIVE_BURST
    assert len(told) <= LIVE_BURST + LIVE_RATE * (time.monotonic() - began)
    output.allowance = LIVE_BURST  # as after a silence
    prints(block)
    prints(b"and more\n")
    lines = set(bytes(told).replace(b"\x18\n", b"\n").split(b"\n"))
    assert b"and more" in lines
    assert {line for line in lines if not b"just one line".startswith(line)} == {b"and more"}
    assert output.bytes + 2 * told.count(b"\x18") == len(told) + output.dropped
    output.finish()
    for fd in (source, step_end, worker_end, output.file):
        os.close(fd)
