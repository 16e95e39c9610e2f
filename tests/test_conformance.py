"""The official conformance suite of MCP, run against our server over HTTP; and that its results are judged rightly."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from .conformance.expected import CONTENT, EXPECTED, EXTENSION, Expected, Kind
from .conformance.report import PROPERTY, summary
from .conformance.serving import bilt, serving
from .conformance.suite import (
    FOLDER,
    REVISIONS,
    Check,
    Outcome,
    Unavailable,
    install,
    run_scenarios,
    scenarios,
)
from .support.places import Place
from .support.places import place as place  # a fixture

ROOT = Path(__file__).parent.parent

LATER = "2026-07-28"
OK = Check("a", "SUCCESS")
BAD = Check("b", "FAILURE", "it does not")
WIRE = Check("wire-schema-valid", "SUCCESS")

# What is not installed yet comes over the network, once.
installs = pytest.mark.timeout(600)


@pytest.fixture
def suite(record_property: Callable[[str, object], None]) -> None:
    """Installed; a test is skipped without it where somebody has no network, and says so. Where CI is set, it fails."""
    try:
        install()
    except Unavailable as why:
        line = f"NOT RUN, because the suite cannot be installed here: {why}"
        if os.environ.get("CI"):
            pytest.fail(line, pytrace=False)
        record_property(PROPERTY, line)
        pytest.skip(line)


@pytest.fixture
def url(suite: None, place: Place, tmp_path: Path) -> Generator[str]:
    """Our server as it is, gate and all."""
    with bilt(place, tmp_path / "log") as found:
        yield found


@installs
@pytest.mark.parametrize("revision", REVISIONS)
def test_the_official_suite_finds_nothing_but_what_is_written_down(
    revision: str, url: str, record_property: Callable[[str, object], None]
) -> None:
    verdicts = [EXPECTED.judge(outcome) for outcome in run_scenarios(url, revision)]
    record_property(PROPERTY, "\n".join(summary(verdicts)))
    ran = {verdict.outcome.scenario for verdict in verdicts}
    assert ran >= EXPECTED.passes[revision].keys()
    wrong = [verdict.line for verdict in verdicts if verdict.kind is Kind.WRONG]
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


@installs
@pytest.mark.usefixtures("suite")
def test_our_tasks_extension_passes_with_the_suites_own_tools_as_tasks(
    record_property: Callable[[str, object], None],
) -> None:
    with serving("tests.conformance.tasks", environ=os.environ) as url:
        found = run_scenarios(url, LATER, list(EXTENSION.passes[LATER]))
    verdicts = [EXTENSION.judge(outcome) for outcome in found]
    record_property(PROPERTY, "\n".join(("The tasks extension:", *summary(verdicts))))
    assert {each.outcome.scenario for each in verdicts} == EXTENSION.passes[LATER].keys()
    assert [each.line for each in verdicts if each.kind is not Kind.PASSED] == []


@installs
@pytest.mark.usefixtures("suite")
def test_every_scenario_of_the_suite_stands_in_one_place_of_the_file_and_no_others_do() -> None:
    known = {revision: scenarios(revision) for revision in REVISIONS}
    for revision in REVISIONS:
        places = (EXPECTED.passes[revision], EXPECTED.partly, EXPECTED.vacuous, EXPECTED.needs)
        for name in known[revision]:
            assert sum(name in place for place in places) == 1, (revision, name)
        assert EXPECTED.passes[revision].keys() <= known[revision]
    named = {*EXPECTED.partly, *EXPECTED.vacuous, *EXPECTED.needs}
    assert named <= set[str]().union(*known.values())
    assert EXTENSION.passes[LATER].keys() <= EXPECTED.needs.keys()
    listed = [name for names in CONTENT["needs"].values() for name in names]
    assert len(listed) == len(set(listed))


@installs
@pytest.mark.usefixtures("suite")
def test_what_is_not_counted_passes_on_a_server_that_has_nothing() -> None:
    with serving("tests.conformance.empty", environ=os.environ) as url:
        found = run_scenarios(url, LATER, list(EXPECTED.vacuous))
    assert {outcome.scenario for outcome in found} == EXPECTED.vacuous.keys()
    assert [outcome.scenario for outcome in found if outcome.failures] == []


@installs
@pytest.mark.usefixtures("suite")
def test_a_server_that_is_not_there_passes_nothing() -> None:
    told: list[Outcome] = []
    found = run_scenarios("http://127.0.0.1:1/mcp", LATER, ["tools-list"], told=told.append)
    assert told == found
    assert [EXPECTED.judge(outcome).kind for outcome in found] == [Kind.WRONG]


BOOK = Expected(
    {
        "passes": {LATER: {"good": 2}},
        "partly": {"half": {"passes": 2, "fails": ["b"], "why": "b has no fixture"}},
        "vacuous": {"hollow": "it would pass anywhere"},
        "needs": {"a fixture": ["foreign"]},
    }
)


@pytest.mark.parametrize(
    ("scenario", "checks", "kind", "why"),
    [
        ("good", [OK, WIRE], Kind.PASSED, ""),
        ("good", [OK, BAD, WIRE], Kind.WRONG, "b: it does not"),
        ("good", [WIRE, Check("c", "SKIPPED")], Kind.WRONG, "only 1 checks pass, where 2 did"),
        ("half", [OK, BAD, WIRE], Kind.PARTLY, "b has no fixture"),
        ("half", [OK, OK, WIRE], Kind.WRONG, "other checks fail than those that are named: none"),
        ("half", [BAD, WIRE], Kind.WRONG, "only 1 checks pass, where 2 did"),
        ("hollow", [OK, WIRE], Kind.VACUOUS, "it would pass anywhere"),
        ("hollow", [BAD], Kind.WRONG, "belongs to [needs]"),
        ("foreign", [BAD, WIRE], Kind.NOT_APPLICABLE, "needs a fixture"),
        ("foreign", [WIRE, Check("c", "SKIPPED")], Kind.NOT_APPLICABLE, "needs a fixture"),
        ("foreign", [OK, WIRE], Kind.WRONG, f"passes: it belongs to [passes.{LATER}]"),
        ("foreign", [Check(WIRE.id, "FAILURE", "no")], Kind.WRONG, "wire-schema-valid: no"),
        ("new", [OK, WIRE], Kind.WRONG, "does not know it (2 checks pass)"),
    ],
)
def test_an_outcome_is_compared_with_what_is_written_down(
    scenario: str, checks: list[Check], kind: Kind, why: str
) -> None:
    verdict = BOOK.judge(Outcome(scenario, LATER, tuple(checks)))
    assert verdict.kind is kind
    assert why in verdict.why
    assert verdict.checks == (2 if kind in {Kind.PASSED, Kind.PARTLY} else 0)


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)], ids=["at home", "in CI"])
def test_without_the_suite_the_tests_say_so_at_home_and_fail_in_ci(
    ci: str, code: int, tmp_path: Path
) -> None:
    unreachable = {"npm_config_registry": "http://127.0.0.1:1/", "npm_config_fetch_retries": "0"}
    empty = {"npm_config_cache": str(tmp_path / "cache"), FOLDER: str(tmp_path / "suite")}
    chosen = (__file__, "-k", "stands_in_one_place")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "no:cacheprovider", *chosen],
        cwd=ROOT,
        env={**os.environ, **unreachable, **empty, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    (said,) = (line for line in done.stdout.splitlines() if line.startswith("NOT RUN, because"))
    assert "npm says: " in said
