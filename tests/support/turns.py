"""Who waits for the turn to count, and on which thread: seen, so that nobody needs to measure how long."""

from __future__ import annotations

import threading
from typing import NamedTuple

import pytest

from bilt_mcp.state.turn import BriefTurn


class Wait(NamedTuple):
    """One wait for another process."""

    holds_up_all: bool
    """Whether it was on the thread of the test, which is the event loop's."""
    patience: float
    """Seconds."""


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[Wait]:
    """Every wait for the turn from now on, as it begins."""
    here = threading.get_ident()
    found: list[Wait] = []
    really = BriefTurn._wait  # pyright: ignore[reportPrivateUsage]

    def wait(turn: BriefTurn, kept: int, seconds: float) -> int:
        found.append(Wait(threading.get_ident() == here, seconds))
        return really(turn, kept, seconds)

    monkeypatch.setattr(BriefTurn, "_wait", wait)
    return found
