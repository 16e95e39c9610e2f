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
        within("tools/get_messages.py", "test_messages_fit", "test_tool_messages"),
        "        if size > room:",
        "        if size > room + 200:",
    ),
    plant(
        "a line has no bound",
        within("server/lines.py", "test_framing"),
        "        if len(self._held) + len(part) > MAX_LINE_BYTES:",
        "        if False:",
    ),
    plant(
        "a tool that exits ends the server",
        within("tools/registry.py", "test_tools"),
        "    except (SystemExit, KeyboardInterrupt) as error:\n",
        "    except KeyboardInterrupt as error:\n",
    ),
    plant(
        "every failure is told alike",
        within("tools/next_call.py", "test_tool_session"),
        'return f"{workflow.failure.message} {_AFTER[workflow.failure.code]}"',
        "return workflow.failure.message",
    ),
    plant(
        "a database is opened and closed beside the store",
        within("state/location.py", "test_store_places"),
        "os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC",
        "os.O_RDWR | os.O_CREAT | os.O_CLOEXEC",
    ),
)
