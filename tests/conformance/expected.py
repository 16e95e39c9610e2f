"""What the suite is expected to say of our server: expected.toml, and whether an outcome is what it says."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .suite import Outcome

FILE = Path(__file__).with_name("expected.toml")
WIRE = "wire-schema-valid"
"""The check that every scenario has: what was sent has the form that the revision's schema says."""


@dataclass(frozen=True)
class Package:
    """The suite: which, which version, and the day as of which its dependencies are resolved."""

    name: str
    version: str
    day: str


class Kind(StrEnum):
    """What became of a scenario."""

    PASSED = "passed"
    PARTLY = "partly"
    VACUOUS = "vacuous"
    NOT_APPLICABLE = "not applicable"
    WRONG = "WRONG"


@dataclass(frozen=True)
class Verdict:
    """An outcome, and what is to be thought of it."""

    outcome: Outcome
    kind: Kind
    why: str = ""

    @property
    def checks(self) -> int:
        """The checks that count: of what passes on any server, or does not apply, none."""
        return self.outcome.passed if self.kind in {Kind.PASSED, Kind.PARTLY} else 0

    @property
    def line(self) -> str:
        """A line of the table: scenario, revision, what became of it, checks, why."""
        one = self.outcome
        checks = f"{self.checks:3}" if self.checks else "   "
        return f"{one.revision}  {one.scenario:45} {self.kind:14} {checks}  {self.why}".rstrip()


class Expected:
    """The file. A scenario must stand in one place of it, and only there."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.passes: dict[str, dict[str, int]] = content["passes"]
        self.partly: dict[str, dict[str, Any]] = content.get("partly", {})
        self.vacuous: dict[str, str] = content.get("vacuous", {})
        self.needs: dict[str, str] = {
            name: f"needs {reason}"
            for reason, names in content.get("needs", {}).items()
            for name in names
        }

    def judge(self, outcome: Outcome) -> Verdict:
        """Whether it is as the file says."""
        kind, why = self._judge(outcome)
        return Verdict(outcome, kind, why)

    def _judge(self, outcome: Outcome) -> tuple[Kind, str]:
        name, failures = outcome.scenario, outcome.failures
        failed = "; ".join(f"{check}: {message}" for check, message in failures.items())
        if WIRE in failures:
            return Kind.WRONG, failed
        if (least := self.passes[outcome.revision].get(name)) is not None:
            return (Kind.WRONG, failed) if failures else _enough(outcome, least)
        if name in self.partly:
            known = self.partly[name]
            if set(failures) != set(known["fails"]):
                return (
                    Kind.WRONG,
                    f"other checks fail than those that are named: {failed or 'none'}",
                )
            return _enough(outcome, known["passes"], Kind.PARTLY, known["why"])
        if name in self.vacuous:
            if failures:
                return Kind.WRONG, f"fails, so it can fail: it belongs to [needs]. {failed}"
            return Kind.VACUOUS, self.vacuous[name]
        if name in self.needs:
            real = outcome.passed - any(check.id == WIRE for check in outcome.checks)
            if not failures and real > 0:
                return Kind.WRONG, f"passes: it belongs to [passes.{outcome.revision}]"
            return Kind.NOT_APPLICABLE, self.needs[name]
        return Kind.WRONG, f"{FILE.name} does not know it ({outcome.passed} checks pass) {failed}"


def _enough(
    outcome: Outcome, least: int, kind: Kind = Kind.PASSED, why: str = ""
) -> tuple[Kind, str]:
    if outcome.passed < least:
        return Kind.WRONG, f"only {outcome.passed} checks pass, where {least} did"
    return kind, why


CONTENT: dict[str, Any] = tomllib.loads(FILE.read_text("utf-8"))
PACKAGE = Package(**CONTENT["package"])
EXPECTED = Expected(CONTENT)
EXTENSION = Expected({"passes": CONTENT["extension"]})
"""Of our tasks extension with the suite's own tools."""
