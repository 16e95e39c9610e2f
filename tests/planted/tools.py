"""Bugs to plant in the tools and the front door."""

from __future__ import annotations

from .plant import Plant, plant, within

PLANTS: tuple[Plant, ...] = (
    plant(
        "a null argument is an error",
        within("tools/registry.py", "test_tools"),
        "if value is not None}",
        "}",
    ),
    plant(
        "an answer is longer than max_chars",
        within("tools/get_messages.py", "test_tool_messages"),
        "        if size > room:",
        "        if size > room + 200:",
    ),
    plant(
        "a line has no bound",
        within("server/framing.py", "test_framing"),
        "        if len(self._held) + len(part) > MAX_LINE_BYTES:",
        "        if False:",
    ),
)
