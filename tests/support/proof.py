"""Proof programmes: a claim of the contract, tried in many random rounds, with a figure at the end.

A short form runs in `make test`, the long form in `make soak` (`ROUNDS=3` there is three times the short form).
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import pytest
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LONGEST_SECONDS = 4 * 3600
SHORT_SECONDS = 300


def add_options(parser: pytest.Parser) -> None:
    """`--soak`, `--rounds`, `--seed`."""
    group = parser.getgroup("proof programmes")
    group.addoption("--soak", action="store_true", help="the long form of every programme")
    group.addoption(
        "--rounds",
        type=int,
        default=0,
        metavar="N",
        help="N times the short form of every programme",
    )
    group.addoption(
        "--seed", type=int, default=None, metavar="N", help="repeat what was drawn with this seed"
    )


ONLY_JOINED = frozenset(
    {
        "test_offers_stdio",
        "test_tasks_survive",
        "test_tracing",
        "test_tracing_trouble",
        "test_waiting_processes",
    }
)
"""Modules of real processes whose tests run both ways, with and without the resident, in the long form only."""

IN_MAKE_CLIENTS = "test_a_client_that_is_in_wide_use_can_do_everything"
"""What `make clients` does as well."""


def shorten(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out of the short form what only repeats it without the resident, as most clients are not served."""
    if config.option.soak or config.option.rounds:
        return
    left_out = [
        item
        for item in items
        if (
            item.nodeid.partition(".py")[0].rpartition("/")[2] in ONLY_JOINED
            and "alone" in item.name.partition("[")[2]
        )
        or item.name.startswith(IN_MAKE_CLIENTS)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        gone = set(left_out)
        items[:] = [item for item in items if item not in gone]


def factor(config: pytest.Config) -> int:
    """How many times as long randomised tests search that have no long form of their own."""
    return int(config.option.rounds) or (10 if config.option.soak else 1)


def seed(config: pytest.Config) -> int:
    """The seed of this run, drawn once."""
    if config.option.seed is None:
        config.option.seed = random.SystemRandom().randrange(2**32)
    return int(config.option.seed)


def mark(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Mark what draws at random as a `programme`, and give it time where it is to go on for longer."""
    longer = config.option.soak or config.option.rounds
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "proof" in names or "soak_factor" in names:
            item.add_marker("programme")
            # Before what a test says itself; the short form of most takes some 20 s alone on two cores.
            item.add_marker(
                pytest.mark.timeout(LONGEST_SECONDS if longer else SHORT_SECONDS), append=False
            )


@dataclass(frozen=True)
class Figure:
    """What a programme measured, for the list at the end of the run."""

    name: str
    seconds: float
    text: str


FIGURES = pytest.StashKey[list[Figure]]()


class Proof:
    """One programme: how many rounds, what is drawn, and the figure that it prints."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._config: pytest.Config = request.config
        self._name = request.node.name
        self._began = time.monotonic()
        self.seed = seed(request.config)
        """Printed at the end; `--seed` gives the same draws again."""
        self.random = random.Random(f"{self.seed} {request.node.nodeid}")

    def size(self, short: int, long: int) -> int:
        """How many rounds, seconds or MiB: of the short form, of the long form, or N times the short one."""
        if self._config.option.rounds:
            return short * int(self._config.option.rounds)
        return long if self._config.option.soak else short

    def rounds(self, short: int, long: int) -> Iterator[int]:
        """Count the rounds, with a progress bar where somebody looks."""
        with self.progress(self.size(short, long)) as bar:
            for number in range(self.size(short, long)):
                yield number
                bar.advance()

    def progress(self, total: float) -> Bar:
        """A bar for a programme that is no loop of rounds: `with proof.progress(60) as bar: bar.advance(2)`."""
        return Bar(self._config, self._name, total)

    def figure(self, text: str) -> None:
        """Say what was measured; it is printed when all tests are over."""
        seconds = time.monotonic() - self._began
        self._config.stash.setdefault(FIGURES, []).append(Figure(self._name, seconds, text))


class Bar:
    """A line that shows how far a programme is, on a terminal only."""

    def __init__(self, config: pytest.Config, name: str, total: float) -> None:
        capture: Any = config.pluginmanager.getplugin("capturemanager")
        self._uncaptured: AbstractContextManager[None] = (
            capture.global_and_fixture_disabled() if capture else nullcontext()
        )
        self._name, self._total = name, total
        self._progress: Progress | None = None

    def __enter__(self) -> Bar:
        with self._uncaptured:
            console = Console(stderr=True)
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            self._progress = Progress(*columns, console=console, transient=True, auto_refresh=False)
            self._progress.add_task(self._name.removeprefix("test_")[:60], total=self._total)
        return self

    def advance(self, by: float = 1) -> None:
        """So much more is done."""
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], advance=by)
            with self._uncaptured:
                self._progress.refresh()

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            with self._uncaptured:
                self._progress.stop()


def say_figures(reporter: Any, config: pytest.Config) -> None:
    """The list of figures at the end of the run."""
    if FIGURES not in config.stash:
        return
    figures = config.stash[FIGURES]
    form = f"{config.option.rounds} x short" if config.option.rounds else "long"
    form = form if config.option.rounds or config.option.soak else "short"
    reporter.section(f"what the programmes measured ({form} form, --seed {seed(config)})")
    for figure in figures:
        reporter.write_line(f"{figure.seconds:7.1f} s  {figure.name.removeprefix('test_')}")
        reporter.write_line(f"{'':11}{figure.text}")
    total = sum(figure.seconds for figure in figures)
    reporter.write_line(f"{total:7.1f} s  together")
