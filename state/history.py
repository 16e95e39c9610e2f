"""What is kept of a workflow, as values: its steps in the store, and its files beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .models import AuditEntry, Plan, Workflow

IdKind = Literal["session", "workflow"]


@dataclass(frozen=True)
class StepRun:
    """One attempt of a step. Times are milliseconds since 1970; `outcome` is None while it runs."""

    position: int
    attempt: int
    name: str
    started_at: int
    finished_at: int | None
    exit_code: int | None
    outcome: str | None


@dataclass(frozen=True)
class History:
    """A workflow with its plan and everything that its steps did."""

    workflow: Workflow
    project_id: str
    plan: Plan
    runs: Sequence[StepRun]
    """In the order in which they were begun."""
    decisions: Sequence[AuditEntry]
    """What was decided about it, and by whom, in that order."""

    def runs_of(self, position: int) -> Sequence[StepRun]:
        """The attempts of the step at `position`, from 1; none when it was never begun."""
        return [run for run in self.runs if run.position == position]


@dataclass(frozen=True)
class LineRange:
    """Which lines of a kept text to read: `lines` from line `first`, from 1; a negative `first` counts from the end."""

    first: int = 1
    lines: int = 100_000
    max_chars: int = 50_000


@dataclass(frozen=True)
class KeptText:
    """Lines of a kept text, safe to show, each with its newline."""

    text: str
    first: int
    """The number of its first line, from 1."""
    last: int
    """The number of its last line; `first` - 1 when there is none."""
    total: int
    """How many lines there are now."""


@dataclass(frozen=True)
class KeptFile:
    """A file that a workflow's steps left as an artifact."""

    path: bytes
    """Below the artifacts folder, parts joined by `/`, as the file system has it: untrusted, and maybe no UTF-8."""
    shown: str
    """The same, safe to show."""
    size: int
    """In bytes."""
    readable: bool
    """Whether it may be read: its name tells no secret."""


class Withheld(Exception):
    """A kept file is there and is not given out; the text says why."""
