"""Tests that cannot run on somebody's machine: said at the end in full, and in CI a failure."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

PROPERTY = "not run"


def cannot_run(record_property: Callable[[str, object], None], why: str) -> NoReturn:
    """End the test: skipped, with `why` among the last lines of the run; failed where CI is set."""
    if os.environ.get("CI"):
        pytest.fail(f"NOT RUN: {why}", pytrace=False)
    record_property(PROPERTY, why)
    pytest.skip(why)


def say_not_run(reporter: Any) -> None:
    """At the end of a run of the tests: what was not run, and why."""
    said: dict[str, int] = {}
    for report in reporter.stats.get("skipped", ()):
        found: dict[str, str] = dict(getattr(report, "user_properties", ()))
        if PROPERTY in found:
            said[found[PROPERTY]] = said.get(found[PROPERTY], 0) + 1
    if said:
        reporter.section("not run on this machine")
        for why, count in sorted(said.items()):
            reporter.write_line(f"{count} tests: {why}")
