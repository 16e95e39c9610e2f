"""Whoever interrupts `bilt-mcp bench` gets his machine back as it was: no process and no file is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bilt_mcp.bench.kernel import bearers, until

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the benchmark counts processes in /proc"),
    pytest.mark.timeout(120),
]


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """A shell starts what runs in its background deaf to Ctrl-C, and children inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def tell_again(process: int, number: int) -> None:
    """As somebody does who cannot wait."""
    os.kill(process, number)
    os.kill(process, number)


@pytest.mark.parametrize(
    ("tell", "number"),
    # Ctrl-C in a terminal goes to the whole group.
    [(os.killpg, signal.SIGINT), (tell_again, signal.SIGTERM)],
    ids=["ctrl-c", "term"],
)
def test_nothing_of_it_outlives_an_interruption(
    tell: Callable[[int, int], None], number: signal.Signals, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "bilt_mcp.bench", "--quick", "--only", "cancel"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    ) as bench:
        # What it cancels never ends by itself.
        until(lambda: len(list(tmp_path.glob("*/store/runs/*"))) > 2, "it measures")
        tell(bench.pid, number)
        _, said = bench.communicate(timeout=60)
    assert bench.returncode == 130
    assert said.endswith("interrupted; what was started is stopped\n")
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []
    assert bearers(str(tmp_path)) == []


LEAVING = """
import subprocess, sys
from bilt_mcp.bench.product import scratch
with scratch() as folder:
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)", folder])
    print("leaving", flush=True)
"""


def test_who_interrupts_it_while_it_waits_for_the_last_ones_to_leave_has_them_stopped(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEAVING],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as bench:
        assert bench.stdout is not None
        assert bench.stdout.readline() == "leaving\n"
        bench.send_signal(signal.SIGINT)
        assert bench.wait(60) == -signal.SIGINT
    assert list(tmp_path.iterdir()) == []
    assert bearers(str(tmp_path)) == []
