"""What has happened in a workflow, in one order: for whoever follows it, leaves, and reads on where he left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from .history import StepRun
from .models import Message, Session, Workflow

GateAnswer = Literal["confirmed", "declined", "skipped", "cancelled"]


@dataclass(frozen=True, order=True)
class Place:
    """Where something stands in the order of a session. Of what comes later it is higher, and it never changes."""

    message: int
    """The id of the message that it is, or of the newest one when it happened."""
    position: int = 0
    """Of the step; 0 for a message."""
    attempt: int = 0
    kind: int = 0


@dataclass(frozen=True)
class AskedGate:
    """A gate, whether or not it still waits. `answer` is `skipped` when it was declined and the rest went on."""

    action_id: str
    position: int
    step: str
    message: str
    created_at: int
    expires_at: int | None
    answer: GateAnswer | None


@dataclass(frozen=True)
class StepBegan:
    """An attempt of a step was begun."""

    run: StepRun


@dataclass(frozen=True)
class StepEnded:
    """An attempt of a step ended; everything that it said is before this."""

    run: StepRun


@dataclass(frozen=True)
class Over:
    """The workflow is final. Nothing of it comes after this."""

    workflow: Workflow


What = Message | StepBegan | StepEnded | AskedGate | Over


@dataclass(frozen=True)
class Happening:
    """One thing that happened."""

    place: Place
    at: int
    """Milliseconds since 1970."""
    what: What


@dataclass(frozen=True)
class Timeline:
    """A piece of what happened in one workflow of a session, of one moment."""

    session: Session
    """With its newest workflow, which need not be that of the happenings."""
    workflow: Workflow | None
    """Whose happenings these are; None in a session that never had one."""
    happenings: Sequence[Happening]
    has_more: bool
    """Whether there is already more of it."""
    pulse: int
    """For `SessionStore.watch(..., messages=True)`: passed as soon as there may be more."""


class TimelineStore(Protocol):
    """A part of `SessionStore`: what a person's chat asks. Its rules hold."""

    async def new_session(self, account: str, project_id: str) -> Session:
        """A session that was never used: the project's newest, or else a new one. Raises `ProjectNotFound`."""
        ...

    async def timeline(
        self, account: str, session_id: str, after: Place | None = None, limit: int = 500
    ) -> Timeline | None:
        """What happened after a place, in its order: the rest of its workflow, or where that was all, the next one.

        Without a place, the newest workflow from its beginning. At most `limit` messages come at once. None when there
        is no such place in this session. Raises `SessionNotFound`.
        """
        ...
