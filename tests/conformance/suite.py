"""The official conformance suite of MCP: installing it, and running its scenarios against a URL."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import npm
from .expected import PACKAGE
from .npm import Unavailable as Unavailable

BUILD = Path(__file__).resolve().parents[2] / "build"
FOLDER = "BILT_CONFORMANCE_FOLDER"
"""The variable that says where the suite is installed instead of build/conformance."""
REVISIONS = ("2025-11-25", "2026-07-28")
SCENARIO_SECONDS = 30

BEGUN = re.compile(r"(?:=== Running scenario: (\S+) ===|Running client scenario '(\S+)' against )")
SAVED = re.compile(r"Results saved to (.+)")


class SuiteFailed(Exception):
    """The suite itself did not run; the text is the end of what it said."""


@dataclass(frozen=True)
class Check:
    """One thing that a scenario looked at."""

    id: str
    status: str
    """SUCCESS, FAILURE, WARNING, SKIPPED or INFO."""
    message: str = ""


@dataclass(frozen=True)
class Outcome:
    """What one scenario found, at one revision of the protocol."""

    scenario: str
    revision: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> int:
        """How many checks succeeded; what was skipped does not count."""
        return sum(check.status == "SUCCESS" for check in self.checks)

    @property
    def failures(self) -> dict[str, str]:
        """What failed: the check's name and what the suite says of it."""
        return {check.id: check.message for check in self.checks if check.status == "FAILURE"}


Told = Callable[[Outcome], None]


def install() -> Path:
    """The suite's program, installed where it is not yet. Raises `Unavailable`."""
    folder = Path(os.environ.get(FOLDER) or BUILD / "conformance")
    modules = npm.installed(folder, {PACKAGE.name: PACKAGE.version}, PACKAGE.day)
    return modules / PACKAGE.name / "dist" / "index.js"


def scenarios(revision: str) -> set[str]:
    """What the suite has for servers of this revision. Raises `Unavailable`, `SuiteFailed`."""
    said = "".join(_lines("list", "--requirements", revision))
    required = said.partition("Server scenarios")[2].partition("Client scenarios")[0]
    found = re.findall(r"^ +- (\S+)$", required, re.MULTILINE)
    if not found:
        raise SuiteFailed(said[-1000:])
    return {*found, *re.findall(r"^ +- (\S+) \[server\]$", said, re.MULTILINE)}


def run_scenarios(
    url: str,
    revision: str,
    only: Sequence[str] | None = None,
    *,
    told: Told = lambda outcome: None,
) -> list[Outcome]:
    """Run the suite's scenarios for servers against `url`, one after the other: those named, or all of the revision.

    `told` is called as each ends. A scenario that could not be run to its end has a failure that says so.
    Raises `Unavailable` where the suite cannot be installed, `SuiteFailed` when it runs nothing.
    """
    runs: list[tuple[str, ...]] = [("--requirements", revision)]
    if only is not None:
        # --force, or what belongs to an extension is not run, and that is called a success.
        runs = [("--scenario", name, "--spec-version", revision, "--force") for name in only]
    found: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="bilt-conformance-") as folder:
        for run in runs:
            for outcome in _outcomes(revision, ("--url", url, "-o", folder, *run)):
                found.append(outcome)
                told(outcome)
    return found


def _outcomes(revision: str, arguments: Sequence[str]) -> Iterator[Outcome]:
    said: list[str] = []
    running: str | None = None
    ended = 0
    limit = ("--timeout", str(SCENARIO_SECONDS * 1000))
    for line in _lines("server", *arguments, *limit):
        said.append(line)
        if match := BEGUN.match(line):
            begun = match[1] or match[2]
            if running is not None and running != begun:
                yield _unfinished(running, revision)
            running = begun
        elif (match := SAVED.match(line)) and running is not None:
            yield Outcome(running, revision, _checks(Path(match[1].strip())))
            running, ended = None, ended + 1
    if running is not None:
        yield _unfinished(running, revision)
    elif not ended:
        raise SuiteFailed("".join(said[-20:]) or "it said nothing")


def _checks(folder: Path) -> tuple[Check, ...]:
    kept = json.loads((folder / "checks.json").read_text("utf-8"))
    return tuple(
        Check(str(each["id"]), str(each["status"]), str(each.get("errorMessage") or ""))
        for each in kept
    )


def _unfinished(scenario: str, revision: str) -> Outcome:
    return Outcome(scenario, revision, (Check("no result", "FAILURE", "it left no result"),))


def _lines(*arguments: str) -> Iterator[str]:
    """What the suite says, as it says it; it is ended when nobody reads on."""
    process = subprocess.Popen(
        [str(npm.node()), str(install()), *arguments],
        env={**os.environ, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield from process.stdout
    finally:
        process.kill()
        process.communicate()
