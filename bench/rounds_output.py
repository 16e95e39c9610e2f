"""Row 6: a flood of output, and how soon a line that a step wrote can be read."""

from __future__ import annotations

import os
import subprocess
import threading
import time

from .figures import Row, Target, rounds
from .kernel import MS, PeakMemory, children, now
from .product import STEPS, Product

MIB = 1024 * 1024
READ_EVERY_SECONDS = 0.005


def measure_flood(product: Product, count: int, size: int) -> list[Row]:
    """Some bytes of output through a step, from the call to completed."""
    message = f"flood {size}"
    row = Row(
        "flood",
        f"{size // MIB:,} MiB of output, to completed",
        "the same command into a file",
        target=Target(ratio=2),
    )
    worker = Row("flood worker", "    peak memory of the worker", "", unit="MiB")
    keeper = Row("flood keeper", "    peak memory of the keeper", "", unit="MiB")
    for number in rounds(row.what, count):
        for ours in (True, False) if number % 2 else (False, True):
            if ours:
                pid = product.worker()
                workers = PeakMemory(lambda pid=pid: [pid])  # type: ignore[misc]
                keepers = PeakMemory(lambda pid=pid: children(pid))  # type: ignore[misc]
                with workers, keepers:
                    began = now()
                    product.send(message)
                    product.finish()
                    row.ours.append((now() - began) / MS)
                worker.ours.append(workers.mib)
                keeper.ours.append(keepers.mib)
            else:
                file = product.project / "flood.out"
                began = now()
                with file.open("wb") as out:
                    subprocess.run(
                        STEPS["flood"],
                        stdout=out,
                        env={**os.environ, "BILT_MESSAGE": message},
                        check=True,
                    )
                row.floor.append((now() - began) / MS)
                assert file.stat().st_size == size
                file.unlink()
    return [row, worker, keeper]


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
    )
    reader = threading.Thread(target=_read_floor, args=(floor, row.floor))
    reader.start()
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
