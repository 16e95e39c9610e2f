"""Rows 2 and 3: how long until a cancel is answered and true, and until a step starts."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

from .figures import Row, Target, rounds
from .hostile import COUNT
from .kernel import MS, Opened, Process, bearers, is_alive, kill, now, until
from .product import STEPS, Product, builds_beside


def measure_beside(
    product: Product, folder: Path, builds: int, count: int, hostile_count: int
) -> list[Row]:
    """Cancel and start again, while other projects build on the same store."""
    with builds_beside(folder, builds):
        beside = f", {builds} builds beside"
        rows = [*measure_cancel(product, count, hostile_count), *measure_start(product, count)]
    for row in rows:
        row.name += " beside"
        row.what += beside
    return rows


def measure_cancel(product: Product, count: int, hostile_count: int) -> list[Row]:
    """Cancel three processes, and 48 that do not want to die."""
    row = Row(
        "cancel",
        "cancel, to the verified answer",
        "the same three processes from Popen: killpg, kill the one that left, wait until all are gone",
        target=Target(p50=25, p95=60),
    )
    hostile = Row(
        "cancel 48",
        f"cancel of {COUNT} hostile processes",
        f"the same {COUNT} from Popen: kill each, wait until all are gone",
        target=Target(p95=100),
    )
    _alternate(product, row, "tree", 3, count)
    _alternate(product, hostile, "hostile", COUNT, hostile_count)
    return [row, hostile]


def _alternate(product: Product, row: Row, step: str, processes: int, count: int) -> None:
    row.counts["survivors"] = 0
    for number in rounds(row.what, count):
        turns = [_floor, _ours]
        for turn in turns if number % 2 else turns[::-1]:
            turn(product, row, f"{step} {uuid4().hex}", processes)


def _floor(product: Product, row: Row, message: str, processes: int) -> None:
    grown = Opened(product.project / "grown")
    leader = subprocess.Popen(
        STEPS[message.split()[0]],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "BILT_MESSAGE": message},
        cwd=product.project,
        start_new_session=True,
    )
    tree: list[Process] = []
    try:
        tree = tree_of(grown, message, processes)
        began = now()
        os.killpg(leader.pid, 9)
        for process in tree:
            with suppress(ProcessLookupError):
                os.kill(process.pid, 9)
        leader.wait()
        while any(is_alive(process) for process in tree):
            pass
        row.floor.append((now() - began) / MS)
    finally:
        for process in tree or bearers(message):
            kill(process)
        leader.wait()


def _ours(product: Product, row: Row, message: str, processes: int) -> None:
    product.warm_up()
    grown = Opened(product.project / "grown")
    product.send(message)
    tree = tree_of(grown, message, processes)
    began = now()
    answer = product.cancel()
    row.ours.append((now() - began) / MS)
    row.counts["survivors"] += killed(tree, message)
    if answer["status"] != "cancelled" or not answer["stopped"]["verified"]:
        raise RuntimeError(f"a cancel was answered with {answer}")


def killed(tree: Sequence[Process], message: str) -> int:
    """How many of a step's processes outlived their cancel; now they are dead."""
    # The tree first, which takes microseconds: then whoever has joined it unseen.
    survivors = {process for process in tree if is_alive(process)} | set(bearers(message))
    for process in survivors:
        kill(process)
    return len(survivors)


def tree_of(grown: Opened, message: str, processes: int) -> list[Process]:
    """The processes of a step, as soon as it has said that all are there and they are."""
    grown.moment()
    tree: list[Process] = []

    def complete() -> bool:
        tree[:] = bearers(message)
        return len(tree) == processes

    until(complete, f"{processes} processes of {message.split()[0]!r} are alive")
    # Not in step with anybody's polling.
    time.sleep(random.uniform(0.02, 0.08))
    return tree


def measure_start(product: Product, count: int) -> list[Row]:
    """From the call to the first thing that the step does: opening a FIFO."""
    row = Row(
        "start",
        "start, to the step's first instruction",
        "Popen of the same command",
        target=Target(p50=50),
    )
    answered = Row("start answer", "start, to its answer", "")
    fifo = product.project / "started"
    for number in rounds(row.what, count):
        for ours in (True, False) if number % 2 else (False, True):
            # A spare keeper is ready 35 ms after the last was taken; people are slower than that.
            product.warm_up()
            time.sleep(random.uniform(0.08, 0.12))
            opened = Opened(fifo)
            began = now()
            if ours:
                product.send("start")
                answered.ours.append((now() - began) / MS)
                row.ours.append((opened.moment() - began) / MS)
                product.finish()
            else:
                step = subprocess.Popen(
                    STEPS["start"],
                    stdin=subprocess.DEVNULL,
                    cwd=product.project,
                    start_new_session=True,
                )
                row.floor.append((opened.moment() - began) / MS)
                step.wait()
    return [row, answered]
