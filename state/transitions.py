"""The state machine of a workflow: one table, everything else derived (CONTRACT section 1).

`FINAL`, `CANCELLABLE` and every `WHERE status IN (...)` of the stores come from `TRANSITIONS`.
The SQL migrations repeat it as triggers, and a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Status(StrEnum):
    """Where a workflow stands."""

    PENDING = "pending"
    """Accepted and durable, not started."""
    RUNNING = "running"
    """A step is executing, or about to."""
    PAUSED = "paused"
    """Waiting at a gate or by request; nothing of it is alive and no worker holds it."""
    CANCELLING = "cancelling"
    """The outcome is decided: it will be cancelled. Its processes are being killed."""
    CANCELLED = "cancelled"
    """Nothing of it is alive (verified), and nothing of it can come back."""
    COMPLETED = "completed"
    """Every step succeeded."""
    FAILED = "failed"
    """A step failed or timed out, or its worker was lost; the failure's code says which."""


class Event(StrEnum):
    """Why a workflow's status changes: one verb a reason."""

    CLAIM = "claim"
    """A worker takes it and will run its next step."""
    PAUSE = "pause"
    """It reached a gate, or a step boundary after somebody asked for a pause."""
    CONFIRM = "confirm"
    """A person said yes to the open gate."""
    SKIP = "skip"
    """A person said no, and the step says `on_decline = "skip"`."""
    DECLINE = "decline"
    """A person said no: the planned step, and with it the workflow, is cancelled."""
    RESUME = "resume"
    """Somebody ended a requested pause."""
    COMPLETE = "complete"
    """The last step ended well."""
    FAIL = "fail"
    """A step failed, timed out, or was lost."""
    CANCEL = "cancel"
    """Somebody cancelled it."""
    STOPPED = "stopped"
    """Everything that a cancelled workflow had started is verified dead."""


TRANSITIONS: Final[Mapping[tuple[Status, Event], Status]] = MappingProxyType(
    {
        (Status.PENDING, Event.CLAIM): Status.RUNNING,
        (Status.PENDING, Event.CANCEL): Status.CANCELLED,
        (Status.RUNNING, Event.CLAIM): Status.RUNNING,  # after a pause: running, held by nobody yet
        (Status.RUNNING, Event.PAUSE): Status.PAUSED,
        (Status.RUNNING, Event.COMPLETE): Status.COMPLETED,
        (Status.RUNNING, Event.FAIL): Status.FAILED,
        (Status.RUNNING, Event.CANCEL): Status.CANCELLING,
        (Status.PAUSED, Event.CONFIRM): Status.RUNNING,
        (Status.PAUSED, Event.SKIP): Status.RUNNING,
        (Status.PAUSED, Event.RESUME): Status.RUNNING,
        (Status.PAUSED, Event.DECLINE): Status.CANCELLED,
        (Status.PAUSED, Event.CANCEL): Status.CANCELLED,
        (Status.CANCELLING, Event.STOPPED): Status.CANCELLED,
    }
)


def sources(event: Event) -> tuple[Status, ...]:
    """The statuses in which `event` may happen, in the order of `Status`."""
    return tuple(status for status in Status if (status, event) in TRANSITIONS)


FINAL: Final = frozenset(
    status for status in Status if not any(source is status for source, _ in TRANSITIONS)
)
"""Statuses that nothing leaves."""

ACTIVE: Final = frozenset(Status) - FINAL
"""Statuses of which a session can have one workflow at most."""

CANCELLABLE: Final = frozenset(sources(Event.CANCEL))
"""Statuses in which a cancel decides the outcome; in `cancelling` it joins the first one."""

IDLE: Final = "idle"
"""The status of a session that never had a workflow."""
