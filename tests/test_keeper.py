"""A step under its keeper: what it printed, how it ended, and that nothing outlives it."""

from __future__ import annotations

import os
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from bilt_mcp.engine.processes import ProcessId, identify, is_alive
from bilt_mcp.engine.step_log import log_paths, pids_path, read_log
from bilt_mcp.engine.step_process import (
    StepCommand,
    StepProcess,
    StepResult,
    keeper_pids,
)

from .support.hostile import SHAPES, alive, command, end, python
from .support.steps import NAME, keeper, modes, run, said, step, until_exists

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def marker() -> Iterator[str]:
    """A word that only the processes of one test have among their arguments."""
    word = f"bilt-test-{uuid.uuid4().hex}"
    yield word
    left = alive(word)
    end(left)
    assert left == []


@pytest.mark.parametrize("grace", [0.0, 10.0], ids=["at once", "politely"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_a_cancelled_step_leaves_nobody_alive(
    shape: str, grace: float, tmp_path: Path, marker: str
) -> None:
    for _ in range(3):
        async with keeper() as process:
            await process.start(step(tmp_path, *command(shape, marker)))
            await said(process, b"grown")
            assert alive(marker)
            process.cancel(grace)
            result = await process.wait()
            assert alive(marker) == []
            assert result.stopped
            assert result.survivors == 0
            assert result.killed >= 2
            assert result.took_ms < 5000
            assert result.signal == (signal.SIGTERM if grace else signal.SIGKILL)


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_finished_step_leaves_nobody_in_the_background(
    shape: str, tmp_path: Path, marker: str
) -> None:
    result, _ = await run(step(tmp_path, *command(shape, marker, then="os._exit(7)")))
    assert alive(marker) == []
    assert (result.code, result.signal, result.stopped) == (7, None, False)
    assert result.survivors == 0
    assert result.killed >= 1


@pytest.mark.parametrize("shape", ["three children", "a daemon without environment"])
async def test_exactly_the_processes_that_were_alive_are_counted(
    shape: str, tmp_path: Path, marker: str
) -> None:
    async with keeper() as process:
        await process.start(step(tmp_path, *command(shape, marker)))
        await said(process, b"grown")
        expected = 4 if shape == "three children" else 2
        process.cancel()
        assert (await process.wait()).killed == expected


@pytest.mark.parametrize("code", [0, 1, 3, 126, 255])
async def test_the_exit_code_is_exact(code: int, tmp_path: Path) -> None:
    result, _ = await run(step(tmp_path, "sh", "-c", f"exit {code}"))
    assert result == StepResult(code=code, took_ms=result.took_ms)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE])
async def test_the_signal_that_ended_a_step_is_exact(
    number: signal.Signals, tmp_path: Path
) -> None:
    result, _ = await run(step(tmp_path, "sh", "-c", f"kill -{int(number)} $$"))
    assert result == StepResult(signal=int(number), took_ms=result.took_ms)


async def test_a_step_starts_like_any_program_does(tmp_path: Path) -> None:
    """Its own session, no inherited descriptors, no ignored or blocked signals, no input."""
    code = """if True:
        import os, signal, sys
        own = sorted(os.listdir("/proc/self/fd"), key=int)
        status = dict(l.split(":", 1) for l in open("/proc/self/status"))
        print(os.getsid(0) == os.getpid(), own, sys.stdin.read(), os.getcwd())
        print(int(status["SigBlk"], 16), int(status["SigIgn"], 16) & ~0x181001000, end="")
    """
    # Python itself ignores SIGPIPE and SIGXFSZ, and has the listing open as descriptor 3. 32 and 33 belong
    # to the C library, which lets nobody change what was inherited of them.
    _, text = await run(step(tmp_path, sys.executable, "-I", "-S", "-c", code))
    assert text.decode() == f"True ['0', '1', '2', '3']  {tmp_path}\n0 0"


@pytest.mark.parametrize(
    ("argv", "cwd", "told"),
    [
        (["no-such-program"], ".", "cannot run 'no-such-program': not found in PATH (/bin:/nix)"),
        (["./gone"], ".", "cannot run './gone': No such file or directory"),
        (["./plain"], ".", "cannot run './plain': Permission denied (./plain: is it executable?)"),
        (["./odd"], ".", "the interpreter that its first line (./odd) names was not found"),
        (["./noise"], ".", "Exec format error (./noise)"),
        (["true"], "nowhere", "nowhere': No such file or directory"),
        (["true", "x" * 200_000], ".", "Argument list too long"),
    ],
)
async def test_a_step_that_cannot_start_says_why(
    argv: list[str], cwd: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_text("#!/bin/sh\n")
    for name, text in (("odd", "#!/no/such/shell\n"), ("noise", "\0\1\2")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    env = {"PATH": "/bin:/nix"}
    async with keeper() as process:
        wanted = StepCommand(tuple(argv), tmp_path / cwd, env, tmp_path, NAME)
        assert await process.start(wanted) is None
        result = await process.wait()
    assert result.start_error is not None
    assert told in result.start_error
    assert result == StepResult(start_error=result.start_error, took_ms=result.took_ms)


async def test_a_leader_that_ignores_term_dies_after_the_grace_and_not_before(
    tmp_path: Path, marker: str
) -> None:
    async with keeper() as process:
        code = "signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); sleep()"
        await process.start(step(tmp_path, *python(code, marker), grace=0.4))
        await said(process, b"deaf")
        began = time.monotonic()
        process.cancel()
        result = await process.wait()
        assert 0.4 <= time.monotonic() - began < 2
        assert result.stopped
        assert result.signal == signal.SIGKILL
        assert 400 <= result.took_ms < 2000


async def test_a_leader_may_use_its_grace_to_end_well(tmp_path: Path, marker: str) -> None:
    async with keeper() as process:
        code = (
            "def bye(*_):\n    os.write(1, b'goodbye\\n')\n    os._exit(5)\n"
            "signal.signal(15, bye); print('ready', flush=True); sleep()"
        )
        await process.start(step(tmp_path, *python(code, marker)))
        await said(process, b"ready")
        process.cancel()
        result = await process.wait()
        assert (result.code, result.signal, result.stopped) == (5, None, True)
    assert read_log(tmp_path, NAME) == b"ready\ngoodbye\n"


async def test_a_second_cancel_shortens_the_grace(tmp_path: Path, marker: str) -> None:
    async with keeper() as process:
        code = "signal.signal(15, lambda *_: os.write(1, b'no')); print('up', flush=True)"
        await process.start(step(tmp_path, *python(f"{code}; sleep()", marker), grace=60))
        await said(process, b"up")
        process.cancel()
        await said(process, b"no")
        process.cancel(30)
        process.cancel(0)
        result = await process.wait()
        assert result.signal == signal.SIGKILL
        assert result.took_ms < 5000


async def test_a_step_that_ended_by_itself_was_not_stopped(tmp_path: Path) -> None:
    async with keeper() as process:
        await process.start(step(tmp_path, "true"))
        first = await process.wait()
        process.cancel(0)
        assert await process.wait() == first
        assert (first.code, first.stopped, first.killed) == (0, False, 0)


async def test_a_cancel_before_the_start_is_a_stop_without_a_process(tmp_path: Path) -> None:
    async with keeper() as process:
        process.cancel()
        touch = step(tmp_path, "touch", os.fspath(tmp_path / "ran"))
        assert await process.start(touch) is None
        result = await process.wait()
        assert (result.stopped, result.killed, result.code, result.start_error) == (
            True,
            0,
            None,
            None,
        )
    assert not (tmp_path / "ran").exists()


async def test_a_cancel_right_after_the_start_is_never_slow(tmp_path: Path, marker: str) -> None:
    for _ in range(5):
        async with keeper() as process, anyio.create_task_group() as tasks:
            tasks.start_soon(process.start, step(tmp_path, *python("sleep()", marker), grace=60))
            await anyio.lowlevel.checkpoint()
            process.cancel()
            result = await process.wait()
            assert result.stopped
            assert result.took_ms < 5000


async def test_everybody_who_waits_gets_the_same_result(tmp_path: Path) -> None:
    results: list[StepResult] = []

    async def one() -> None:
        results.append(await process.wait())

    async with keeper() as process, anyio.create_task_group() as tasks:
        await process.start(step(tmp_path, "sh", "-c", "echo out; exit 4"))
        for _ in range(5):
            tasks.start_soon(one)
        await process.wait_gone()
    assert [r.code for r in results] == [4] * 5
    assert len(set(results)) == 1


async def test_closing_ends_a_running_step_and_a_spare(tmp_path: Path, marker: str) -> None:
    spare = await StepProcess.spawn()
    assert is_alive(spare.identity)
    await spare.aclose()
    await spare.aclose()
    assert not spare.alive
    busy = await StepProcess.spawn()
    leader = await busy.start(step(tmp_path, *command("a mix of 48", marker)))
    assert isinstance(leader, ProcessId)
    assert identify(leader.pid) == leader
    await said(busy, b"grown")
    await busy.aclose()
    assert alive(marker) == []
    assert not is_alive(leader)
    assert not is_alive(busy.identity)
    assert not {spare.identity.pid, busy.identity.pid} & keeper_pids()


async def test_output_arrives_live_and_in_the_log(tmp_path: Path) -> None:
    result, text = await run(step(tmp_path, "sh", "-c", "echo one; echo two >&2; printf three"))
    assert text == b"one\ntwo\nthree"
    assert read_log(tmp_path, NAME) == text
    assert result.log_error is None
    assert modes(tmp_path) == {0o100600}
    assert not pids_path(tmp_path, NAME).exists()


async def test_a_slow_reader_never_holds_up_a_build_and_resumes_at_a_line(tmp_path: Path) -> None:
    code = (
        "import os\n"
        "block = b''.join(b'%07d|\\n' % (i % 10**7) for i in range(100_000))\n"
        "for _ in range(8): os.write(1, block[:450_000]); os.write(1, block[450_000:])\n"
        "os.close(1); os.close(2)\n"
        "open('done', 'w').close()\n"
        "import signal; signal.pause()\n"
    )
    async with keeper() as process:
        await process.start(step(tmp_path, sys.executable, "-c", code, log_bytes=1 << 24))
        await until_exists(tmp_path / "done")
        process.cancel()
        chunks = [chunk async for chunk in process.chunks()]
        assert (await process.wait()).stopped
    text = b"".join(chunk.data for chunk in chunks)
    dropped = sum(chunk.dropped for chunk in chunks)
    assert len(read_log(tmp_path, NAME)) == 8 * 900_000
    assert dropped > 0
    assert len(text) + dropped >= 8 * 900_000
    broken = [line for line in text.split(b"\n")[:-1] if len(line) != 8]
    assert all(len(line) < 8 for line in broken)  # cut short at a gap, never joined over one


async def test_a_log_that_cannot_be_written_is_told_and_the_build_goes_on(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("untouched")
    log_paths(tmp_path, NAME)[0].symlink_to(target)
    result, text = await run(step(tmp_path, "sh", "-c", "echo fine"))
    assert (result.code, text) == (0, b"fine\n")
    assert result.log_error is not None
    assert target.read_text() == "untouched"


async def test_a_log_that_stops_half_way_does_not_end_the_build(tmp_path: Path) -> None:
    argv = ("sh", "-c", "read go < go; head -c 100000 /dev/zero; echo fine; exit 6")
    os.mkfifo(tmp_path / "go")
    async with keeper() as process:
        await process.start(step(tmp_path, *argv, log_bytes=1 << 16))
        blocked = log_paths(tmp_path, NAME)[1]
        blocked.mkdir()  # where the log must go on after its head
        await anyio.to_thread.run_sync((tmp_path / "go").write_text, "go\n")
        text = b"".join([chunk.data async for chunk in process.chunks()])
        result = await process.wait()
    assert result.code == 6
    assert text == b"\0" * 100_000 + b"fine\n"
    assert result.log_error is not None
    assert "Is a directory" in result.log_error
    blocked.rmdir()
    assert read_log(tmp_path, NAME) == b"\0" * (1 << 14)


async def test_a_stray_that_holds_the_output_open_does_not_delay_the_end(
    tmp_path: Path, marker: str
) -> None:
    """A process that is no descendant has the pipe: the end of file never comes."""
    code = "import os, time\nprint('up', flush=True)\ntime.sleep(1000)"
    async with keeper() as process:
        leader = await process.start(step(tmp_path, sys.executable, "-c", code))
        assert leader is not None
        await said(process, b"up")
        held = os.open(f"/proc/{leader.pid}/fd/1", os.O_WRONLY)
        try:
            process.cancel()
            with anyio.fail_after(5):
                result = await process.wait()
        finally:
            os.close(held)
        assert result.survivors == 0
