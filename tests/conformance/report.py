"""What the suite said, in lines for a person."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from .expected import PACKAGE, Kind, Verdict

PROPERTY = "conformance"
"""Lines that a test hands over under this name are printed when all tests are over."""
WIDTH = 110


def headline(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """How many passed and how many are wrong, at each revision; and what is wrong."""
    for revision in sorted({each.outcome.revision for each in verdicts}):
        of = [each for each in verdicts if each.outcome.revision == revision]
        good = [each for each in of if each.kind is Kind.PASSED]
        wrong = [each for each in of if each.kind is Kind.WRONG]
        checks = sum(each.checks for each in of)
        yield (
            f"{revision}: {len(good)} scenarios apply and pass, {len(wrong)} are wrong, "
            f"{len(of) - len(good) - len(wrong)} do not count; {checks} checks pass"
        )
        for each in wrong:
            yield from _wrapped(f"WRONG: {each.outcome.scenario}: {each.why}")


def summary(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """All that is to be said of one revision: what passed, what did not apply and why, and what is wrong."""
    yield from headline(verdicts)
    passed = (each for each in verdicts if each.kind is Kind.PASSED)
    names = ", ".join(f"{each.outcome.scenario} {each.checks}" for each in passed)
    yield from _wrapped(f"passed: {names or 'none'}")
    for each in verdicts:
        if each.kind is Kind.PARTLY:
            yield from _wrapped(f"partly: {each.outcome.scenario} {each.checks}: {each.why}")
    for kind in (Kind.VACUOUS, Kind.NOT_APPLICABLE):
        for why in dict.fromkeys(each.why for each in verdicts if each.kind is kind):
            names = ", ".join(each.outcome.scenario for each in verdicts if each.why == why)
            yield from _wrapped(f"{kind}, {why}: {names}")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def say_conformance(reporter: Any) -> None:
    """At the end of a run of the tests: what the suite said, or why it was not asked."""
    said: dict[str, None] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in reporter.stats.get(outcome, ()):
            found: dict[str, str] = dict(getattr(report, "user_properties", ()))
            if PROPERTY in found:
                said[found[PROPERTY]] = None
    if said:
        reporter.section(f"the official conformance suite, {PACKAGE.name} {PACKAGE.version}")
        for text in sorted(said):
            reporter.write_line(text)
