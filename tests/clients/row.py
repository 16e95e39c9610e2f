"""What came of one client: a line of the table, and a record of the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .check import ABILITIES
from .known import Known


@dataclass
class Row:
    """What one client could do."""

    client: str
    package: str
    version: str
    sdk: str
    """The version of the Python SDK that it stands on; empty for JavaScript."""
    protocol: str | None = None
    """The protocol's revision that it spoke, where it tells."""
    success: str = ""
    """How an answer reaches its caller."""
    failure: str = ""
    """How a failed call's JSON reaches its caller."""
    asks: bool = False
    """Whether a gate was answered through it; if not, it was refused, as JSON."""
    wrong: dict[str, str] = field(default_factory=dict[str, str])
    """What it could not do, and what happened instead."""
    seconds: float | None = None
    """For all of it, less the start of the client."""
    skipped: str | None = None
    """Why it was not run."""

    @classmethod
    def of(cls, known: Known) -> Row:
        """The row of a client that has done nothing yet."""
        return cls(known.name, known.called(), known.version(), known.sdk())

    @property
    def fine(self) -> bool:
        """Whether it could do everything; one that was not run could not do anything wrong."""
        return not self.wrong

    def marks(self) -> list[str]:
        """yes or no for each ability; nothing where it was not run. A gate is asked about, or refused."""
        if self.skipped:
            return [""] * len(ABILITIES)
        yes = {"gate": "asked" if self.asks else "refused"}
        return ["no" if ability in self.wrong else yes.get(ability, "yes") for ability in ABILITIES]

    def record(self) -> dict[str, Any]:
        """As it is kept, for `make figures`."""
        did = {} if self.skipped else {each: each not in self.wrong for each in ABILITIES}
        return {**asdict(self), "did": did}

    def told(self) -> str:
        """In a line, as soon as it is known."""
        if self.skipped:
            return f"SKIPPED {self.client}: {self.skipped}"
        if self.fine:
            return f"ok      {self.client} {self.version} ({self.seconds} s)"
        wrong = "; ".join(f"{ability}: {what}" for ability, what in self.wrong.items())
        return f"FAILED  {self.client} {self.version}: {wrong}"


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table."""
    table = Table(*("client", "version", "mcp", "protocol", *ABILITIES), box=SIMPLE_HEAD)
    table.add_column("an error arrives as", overflow="fold")
    for row in rows:
        marks = [f"[{'bold red' if mark == 'no' else 'green'}]{mark}" for mark in row.marks()]
        last = f"skipped: {row.skipped}" if row.skipped else row.failure
        table.add_row(row.client, row.version, row.sdk, row.protocol or "", *marks, last)
    for column in table.columns[:-1]:
        column.no_wrap = True
    console.print(table)
