"""What happened in a workflow as the chat's events, and the events as text.

Each has the id of what it tells, which is kept in the store: so it is the same for everybody who follows, after
whatever restart, and who comes back with the last id that he saw goes on behind it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bilt_mcp.state import (
    AskedGate,
    Happening,
    Message,
    Over,
    Place,
    StepBegan,
    StepEnded,
    What,
    iso,
    iso_or_none,
)

from .chat_answers import Report, response

EventType = Literal["node_start", "node_end", "token", "complete", "confirmation_required", "error"]
KEEP_ALIVE = b": still here\n\n"
RETRY = b"retry: 1000\n\n"
"""How long a browser waits before it comes back, in milliseconds."""

_ID = re.compile(r"(\d{1,18})(?:-(\d{1,9})-(\d{1,9})-(\d))?", re.ASCII)


@dataclass(frozen=True)
class ChatEvent:
    """One event. Without an id where it tells of nothing that is kept."""

    event_type: EventType
    data: Mapping[str, Any]
    timestamp: str
    id: str | None

    def encoded(self) -> bytes:
        """The event as it stands in a stream. JSON of one line: nothing in it can begin another event."""
        told = {
            "event_type": self.event_type,
            "data": dict(self.data),
            "timestamp": self.timestamp,
        }
        text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
        head = "" if self.id is None else f"id: {self.id}\n"
        return f"{head}event: {self.event_type}\ndata: {text}\n\n".encode("utf-8", "replace")


def id_of(place: Place) -> str:
    """The id of what stands there."""
    if place == Place(place.message):
        return str(place.message)
    return f"{place.message}-{place.position}-{place.attempt}-{place.kind}"


def place_of(event_id: str) -> Place | None:
    """The place that an id names; None for what is no id."""
    found = _ID.fullmatch(event_id)
    if found is None:
        return None
    return Place(*(int(part or 0) for part in found.groups()))


def events_of(
    thread_id: str, happening: Happening, after: Place, report: Report | None
) -> Sequence[tuple[Place, ChatEvent]]:
    """The events that tell of it and stand behind `after`. `report`: how the workflow ended, where this is its end."""
    place, what = happening.place, happening.what
    told = [(place, *_told(what, report))]
    if isinstance(what, Over) and (failure := what.workflow.failure) is not None:
        data = {"code": failure.code.value, "message": failure.message, "node": failure.step}
        told.insert(0, (replace(place, kind=place.kind - 1), "error", data))
    return [
        (there, ChatEvent(kind, {"thread_id": thread_id, **data}, iso(happening.at), id_of(there)))
        for there, kind, data in told
        if there > after
    ]


def _told(what: What, report: Report | None) -> tuple[EventType, dict[str, Any]]:
    match what:
        case Message():
            return "token", {
                "content": what.content,
                "side": what.side,
                "variant": what.variant,
                "node": what.step,
                # Who shows it must not take it for ours: what steps print, and what others call their files and
                # themselves, says whatever they like.
                "untrusted": what.step is not None or what.variant in ("info", "log"),
            }
        case StepBegan(run):
            return "node_start", {
                "node": run.name,
                "step": run.position,
                "attempt": run.attempt,
            }
        case StepEnded(run):
            return "node_end", {
                "node": run.name,
                "step": run.position,
                "attempt": run.attempt,
                "ok": run.outcome == "succeeded",
                "outcome": run.outcome,
                "exit_code": run.exit_code,
            }
        case AskedGate():
            return "confirmation_required", {
                "message": what.message,
                "action_id": what.action_id,
                "node": what.step,
                "step": what.position,
                "expires_at": iso_or_none(what.expires_at),
                "open": what.answer is None,
            }
        case Over(workflow):
            assert report is not None
            return "complete", {"status": workflow.status.value, "response": response(report)}
