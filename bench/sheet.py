"""A few lines of SVG: text as text, readable in light and in dark, and nothing fetched."""

from __future__ import annotations

import math
from html import escape

STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; fill: #1f2328 }
.paper { fill: #ffffff; stroke: #d1d9e0 }
.title { font-size: 17px; font-weight: 600 }
.head { font-weight: 600 }
.quiet { fill: #59636e }
.small { font-size: 11.5px }
.number { font-variant-numeric: tabular-nums }
.strong { font-weight: 600 }
.bad { fill: #b3261e; font-weight: 600 }
.grid { stroke: #e4e8ec }
.one { stroke: #818b98 }
.band { fill: #f6f8fa }
.reached { fill: #12806a }
.missed { fill: #d1582b }
.plain { fill: #8c99a8 }
.whisker { stroke: #59636e }
.limit { stroke: #1f2328; stroke-width: 2 }
.tail { stroke-dasharray: 3 2 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.paper { fill: #0d1117; stroke: #30363d }
.quiet { fill: #9198a1 }
.bad { fill: #ff8a7a }
.grid { stroke: #21262d }
.one { stroke: #6e7681 }
.band { fill: #151b23 }
.reached { fill: #2fb394 }
.missed { fill: #ec7a4c }
.plain { fill: #66717e }
.whisker { stroke: #9198a1 }
.limit { stroke: #f0f6fc }
}
"""
WIDE = 6.9
"""How wide a character of 13 px is at most, on the average of a line."""


class Sheet:
    """What has been drawn so far, and the picture of it."""

    def __init__(self, width: float) -> None:
        self.width = width
        self._parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        said: str,
        kind: str = "",
        *,
        anchor: str = "start",
        warning: str = "",
    ) -> None:
        """A line of text whose foot is at `y`, and perhaps a warning behind it."""
        behind = f'<tspan dx="8" class="bad">{escape(warning)}</tspan>' if warning else ""
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        self._parts.append(f'<text {place} class="{kind}">{escape(said)}{behind}</text>')

    def line(self, x: float, y: float, to_x: float, to_y: float, kind: str) -> None:
        """A straight line."""
        ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"'
        self._parts.append(f'<line {ends} class="{kind}"/>')

    def box(
        self, x: float, y: float, width: float, height: float, kind: str, round_: float = 0
    ) -> None:
        """A filled box."""
        size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
        self._parts.append(f'<rect {size} rx="{round_:g}" class="{kind}"/>')

    def picture(self, height: float, title: str) -> str:
        """All of it as a file, on a paper of this height; the title is for those who cannot see it."""
        size = f'viewBox="0 0 {self.width:g} {height:g}" width="{self.width:g}" height="{height:g}"'
        paper = (
            f'<rect x="0.5" y="0.5" width="{self.width - 1:g}" height="{height - 1:g}" rx="8"'
            ' class="paper"/>'
        )
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
                f"<title>{escape(title)}</title>",
                f"<style>{STYLE}</style>",
                paper,
                *self._parts,
                "</svg>\n",
            ]
        )


class LogAxis:
    """Numbers on a line on which each power of ten is as long as the next."""

    def __init__(self, low: float, high: float, left: float, right: float) -> None:
        """From `left` to `right`, at least from `low` to `high`, and to whole or half powers of ten."""
        steps = 2
        self._low = math.floor(math.log10(low) * steps) / steps
        self._high = max(math.ceil(math.log10(high) * steps) / steps, self._low + 1 / steps)
        self.left, self.right = left, right

    def at(self, value: float) -> float:
        """Where a number is; beyond an end, the end."""
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self.left + (self.right - self.left) * min(max(share, 0), 1)

    def marks(self) -> list[float]:
        """The powers of ten that are on it."""
        return [10.0**power for power in range(math.ceil(self._low), math.floor(self._high) + 1)]
