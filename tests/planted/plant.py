"""What a planted bug is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plant:
    """A bug: in `file`, `right` becomes `wrong`; one of the tests must then fail."""

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]
    """Modules (`test_schema`) or single tests (`test_schema.py::test_x`)."""


Place = tuple[str, tuple[str, ...]]


def within(file: str, *tests: str) -> Place:
    """Where the bug is put, and who must notice it."""
    return file, tests


def plant(name: str, place: Place, right: str, wrong: str) -> Plant:
    """A planted bug: every `right` in the file becomes `wrong`."""
    return Plant(name, place[0], right, wrong, place[1])
