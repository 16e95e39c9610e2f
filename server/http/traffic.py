"""What the gate has let through and refused, counted in plain numbers: `/metrics` makes families of them."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 300.0)
"""Upper bounds of the histogram's buckets, seconds; a wait is held for up to 300."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

Kind = tuple[str, str, str]
"""Surface, template of the route, method: nothing that a caller makes up."""


@dataclass
class Latency:
    """How long the requests of one kind took."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds


class Traffic:
    """The counts of one server since it began."""

    def __init__(self) -> None:
        self.answered: Counter[tuple[Kind, int]] = Counter()
        """By kind and status."""
        self.latency: dict[Kind, Latency] = {}
        self.refused: Counter[tuple[str, str]] = Counter()
        """By surface and code: what the gate itself refused."""
        self.streams = 0
        """Answers that are open now and have no fixed end."""

    def count(
        self, surface: str, route: str, method: str, status: int, seconds: float | None
    ) -> None:
        """One more answer; `seconds` None: a stream, whose length says nothing."""
        kind = (surface, route, method if method in METHODS else "other")
        self.answered[kind, status] += 1
        if seconds is not None:
            latency = self.latency.get(kind)
            if latency is None:
                latency = self.latency[kind] = Latency()
            latency.add(seconds)
