"""Row 6: a flood of output, and how soon a line that a step wrote can be read."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from .figures import Row, Target, rounds
from .kernel import MS, PeakMemory, children, memory_mib, now
from .product import FLOODS, MIB, STEPS, Product

READ_EVERY_SECONDS = 0.005
MEMORY_MIB = 64.0


def measure_flood(product: Product, name: str, count: int) -> list[Row]:
    """A flood through a step (see `FLOODS`), from the call to completed."""
    size = FLOODS[name]
    told = f"{size // MIB} MiB of output, to completed"
    row = Row(name, told, "the same command into a file", target=Target(ratio=2))
    worker = _memory(f"{name} worker", "    memory of the worker above its own")
    keeper = _memory(f"{name} keeper", "    memory of the keeper above its own")
    for number in rounds(row.what, count):
        for ours in (True, False) if number % 2 else (False, True):
            if ours:
                pid = product.worker()
                # A spare keeper waits beside the worker: the next step is its.
                idle = [memory_mib(who) or 0.0 for who in (pid, *_keepers(pid)[:1])]
                workers = PeakMemory(lambda pid=pid: [pid])  # type: ignore[misc]
                keepers = PeakMemory(lambda pid=pid: _keepers(pid))  # type: ignore[misc]
                with workers, keepers:
                    began = now()
                    product.send(name)
                    product.finish()
                    row.ours.append((now() - began) / MS)
                worker.ours.append(max(0.0, workers.mib - idle[0]))
                keeper.ours.append(max(0.0, keepers.mib - idle[-1]))
            else:
                file = product.project / "flood.out"
                began = now()
                with file.open("wb") as out:
                    subprocess.run(STEPS[name], stdout=out, check=True)
                row.floor.append((now() - began) / MS)
                assert file.stat().st_size == size
                file.unlink()
    return [row, worker, keeper]


def _keepers(worker: int) -> list[int]:
    """The keepers of a worker; a child that is only about to become one still looks like the worker."""
    named: list[int] = []
    for pid in children(worker):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text("utf-8") == "bilt-keeper\n":
                named.append(pid)
    return named


def _memory(name: str, what: str) -> Row:
    return Row(name, what, "", unit="MiB", target=Target(p95=MEMORY_MIB))


def measure_lines(product: Product, count: int) -> list[Row]:
    """From a line being written to its being read with bilt_get_messages."""
    row = Row(
        "line",
        "line written, to readable",
        "the same lines, at the same time, read from a pipe",
        target=Target(p95=300),
    )
    message = f"lines {count}"
    after = product.newest_message()
    rounds(row.what, count)
    floor = subprocess.Popen(
        STEPS["lines"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, "BILT_MESSAGE": message},
        cwd=product.project,
        text=True,
        process_group=0,
    )
    reader = threading.Thread(target=_read_floor, args=(floor, row.floor))
    reader.start()
    try:
        product.send(message)
        deadline = time.monotonic() + 60 + count
        while len(row.ours) < count:
            page = product.messages(after)
            read = now()
            after = page["next_after"]
            for found in page["messages"]:
                if found["variant"] == "log":
                    row.ours += [(read - at) / MS for at in _moments(found["content"])]
            if time.monotonic() > deadline:
                raise TimeoutError(f"of {count} lines {len(row.ours)} could be read")
            time.sleep(READ_EVERY_SECONDS)
    except BaseException:
        floor.kill()
        raise
    finally:
        reader.join()
        floor.wait()
    product.finish()
    return [row]


def _read_floor(process: subprocess.Popen[str], samples: list[float]) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            read = now()
            samples += [(read - at) / MS for at in _moments(line)]


def _moments(text: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("line ")]
