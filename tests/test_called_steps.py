"""Calls of steps: what can be run is planned, and what cannot be run is refused with words that help."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bilt_mcp.engine.called_steps import CallPlan, plan_calls
from bilt_mcp.state import MOST_CALLS, CalledStep, Refusal, RefusalCode

FILE = """
[workflow]
timeout = "1h"
max_parallel = 1

[[step]]
name = "build"
run = "make"
timeout = "10m"

[[step]]
name = "unit tests"
run = "make test"
when = "test"

[[step]]
name = "deploy"
run = "./deploy.sh"
deploy = true
confirm = "Deploy it?"
secrets = ["DEPLOY_TOKEN"]
"""
ENVIRON = {"DEPLOY_TOKEN": "s3cret-Value-42"}
BUILD = CalledStep("build")
REQUEST = {"steps": "as it came"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "bilt.toml").write_text(FILE, "utf-8")
    return tmp_path


def plan(root: Path, *calls: CalledStep, environ: dict[str, str] = ENVIRON) -> CallPlan:
    return plan_calls(root, calls, REQUEST, environ)


def refused(root: Path, *calls: CalledStep, environ: dict[str, str] = ENVIRON) -> Sequence[Refusal]:
    found = plan(root, *calls, environ=environ)
    assert found.plan.refused
    assert not found.steps
    assert not found.args
    assert found.plan.request == REQUEST
    assert len(found.plan.steps) == len(calls)
    for refusal in found.plan.refused:
        assert refusal.diagnostic["id"]
        assert refusal.diagnostic["code"] == refusal.code.value
        assert refusal.diagnostic["category"] in ("arg-shape", "semantic", "runtime")
        assert refusal.diagnostic["call"] == refusal.call
        assert json.loads(json.dumps(refusal.diagnostic)) == refusal.diagnostic
        refusal.message.encode()
        assert len(refusal.message) < 500
    return found.plan.refused


# -- what is planned -------------------------------------------------------------------------------


def test_steps_are_planned_in_the_order_of_the_calls_whatever_their_when(root: Path) -> None:
    calls = [CalledStep("deploy"), CalledStep("unit tests"), BUILD, CalledStep("deploy")]
    found = plan(root, *calls)
    assert [step.name for step in found.plan.steps] == ["deploy", "unit tests", "build", "deploy"]
    assert [step.deploy for step in found.plan.steps] == [True, False, False, True]
    assert found.plan.steps[0].confirm == "Deploy it?"
    assert (found.plan.timeout, found.plan.max_parallel) == (3600.0, 1)
    assert found.plan.limits
    assert found.plan.request == REQUEST
    assert not found.plan.refused


@pytest.mark.parametrize(
    ("asked", "limit"),
    [(None, 600.0), (500, 0.5), (600_000, 600.0), (900_000, 600.0), (1, 0.001)],
)
def test_of_two_limits_the_smaller_one_counts(root: Path, asked: int | None, limit: float) -> None:
    found = plan(root, CalledStep("build", timeout_ms=asked))
    assert found.plan.steps[0].spec["timeout"] == limit


def test_a_step_without_a_limit_gets_the_caller_s(root: Path) -> None:
    calls = [CalledStep("unit tests", timeout_ms=1500), CalledStep("unit tests", timeout_ms=10**12)]
    found = plan(root, *calls, CalledStep("unit tests"))
    limits = [step.spec["timeout"] for step in found.plan.steps]
    assert limits == [1.5, 30 * 86_400.0, None]


def test_arguments_are_kept_as_json_only_where_there_are_some(root: Path) -> None:
    given = ["größer", 1, None, {"a": [True, 1.5]}, "line\nbreak"]
    found = plan(root, BUILD, CalledStep("build", given), CalledStep("build", []))
    assert set(found.args) == {2}
    assert json.loads(found.args[2]) == given
    assert "größer" in found.args[2]


def test_arguments_may_fill_what_linux_has_room_for(root: Path) -> None:
    room = 131_072 - len("BILT_ARGS=") - 1
    fits = "x" * (room - len('[""]'))
    assert len(plan(root, CalledStep("build", [fits])).args[1]) == room
    (refusal,) = refused(root, CalledStep("build", [fits + "x"]))
    assert refusal.code is RefusalCode.INVALID_ARGS
    (refusal,) = refused(root, CalledStep("build", ["ü" * (room // 2)]))
    assert refusal.code is RefusalCode.INVALID_ARGS


def test_a_step_may_refer_to_what_an_earlier_one_was_bound_to(root: Path) -> None:
    calls = [replace(BUILD, bind="first"), replace(BUILD, bind="second", ref="first")]
    found = plan(root, *calls, replace(BUILD, ref="first", dry_run=True))
    told = [(step.bind, step.ref, step.dry_run) for step in found.plan.steps]
    assert told == [("first", None, False), ("second", "first", False), (None, "first", True)]


def test_a_hundred_calls_are_planned_and_not_one_more(root: Path) -> None:
    assert len(plan(root, *[BUILD] * MOST_CALLS).plan.steps) == MOST_CALLS
    for wrong in ([], [BUILD] * (MOST_CALLS + 1)):
        with pytest.raises(ValueError, match="1 to 100 calls"):
            plan(root, *wrong)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "closest"),
    [("biuld", "build"), ("BUILD", "build"), ("deploi", "deploy"), ("unit-tests", "unit tests")],
)
def test_a_misspelled_call_names_the_closest_and_says_how_to_call_it(
    root: Path, call: str, closest: str
) -> None:
    (refusal,) = refused(root, BUILD, CalledStep(call))
    assert (refusal.index, refusal.call, refusal.code) == (1, call, RefusalCode.UNKNOWN_CALL)
    assert refusal.diagnostic["closest"][0] == closest
    assert f'Did you mean "{closest}"?' in refusal.message
    assert json.loads(refusal.diagnostic["fixes"][0]["example"]) == {"call": closest}
    assert refusal.diagnostic["received"] == call


def test_a_call_that_resembles_nothing_is_told_what_there_is(root: Path) -> None:
    (refusal,) = refused(root, CalledStep("zzz"))
    assert refusal.diagnostic["closest"] == []
    assert "build, unit tests, deploy" in refusal.message
    assert refusal.diagnostic["fixes"]


@pytest.mark.parametrize("call", ["", "\n", "\ud800", "x" * 100_000, "\x1b[31mbuild", "a\nb\0"])
def test_a_name_that_is_no_name_is_told_without_what_would_harm(root: Path, call: str) -> None:
    found = plan(root, CalledStep(call))
    (refusal,) = refused(root, CalledStep(call))
    for shown in (refusal.call, found.plan.steps[0].name):
        assert 1 <= len(shown) <= 64
        assert shown.isprintable()
        shown.encode()


@pytest.mark.parametrize(
    ("bound", "ref", "closest"),
    [
        ("output", "outptu", ["output"]),
        ("output", "zzz", []),
        ("Output", "output", ["Output"]),
    ],
)
def test_a_ref_to_nothing_names_the_closest(
    root: Path, bound: str, ref: str, closest: list[str]
) -> None:
    (refusal,) = refused(root, replace(BUILD, bind=bound), replace(BUILD, ref=ref))
    assert (refusal.index, refusal.code) == (1, RefusalCode.UNKNOWN_REF)
    assert refusal.diagnostic["closest"] == closest


def test_a_step_cannot_refer_to_itself_or_to_a_later_one(root: Path) -> None:
    itself = refused(root, replace(BUILD, bind="x", ref="x"))
    later = refused(root, replace(BUILD, ref="x"), replace(BUILD, bind="x"))
    for (refusal,) in (itself, later):
        assert (refusal.index, refusal.code) == (0, RefusalCode.UNKNOWN_REF)
        assert "earlier ones only" in refusal.message


@pytest.mark.parametrize("alias", ["", "a b", "a" * 65, "ü", "a\n", "../x", "a.b"])
def test_an_alias_that_is_none_is_refused(root: Path, alias: str) -> None:
    (refusal,) = refused(root, replace(BUILD, bind=alias))
    assert refusal.code is RefusalCode.INVALID_ARGS
    assert "letters, digits" in refusal.message


def test_an_alias_is_given_once(root: Path) -> None:
    (refusal,) = refused(root, replace(BUILD, bind="x"), replace(BUILD, bind="x"))
    assert (refusal.index, refusal.code) == (1, RefusalCode.INVALID_ARGS)


def nested() -> list[Any]:
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


@pytest.mark.parametrize(
    "args",
    [
        ["a\0b"],
        [{"\0": 1}],
        ["\ud800"],
        [{"\udfff": [1]}],
        [float("nan")],
        [float("inf")],
        nested(),
    ],
    ids=["NUL", "NUL in a key", "surrogate", "in a key", "NaN", "Infinity", "nested"],
)
def test_arguments_that_no_program_can_be_given_are_refused(root: Path, args: list[Any]) -> None:
    (refusal,) = refused(root, BUILD, CalledStep("build", args))
    assert (refusal.index, refusal.code) == (1, RefusalCode.INVALID_ARGS)


@pytest.mark.parametrize("milliseconds", [0, -1])
def test_no_time_at_all_is_refused(root: Path, milliseconds: int) -> None:
    (refusal,) = refused(root, CalledStep("build", timeout_ms=milliseconds))
    assert refusal.code is RefusalCode.INVALID_ARGS


def test_a_step_whose_variable_is_missing_is_refused_also_for_a_dry_run(root: Path) -> None:
    for environ in ({}, {"DEPLOY_TOKEN": ""}):
        calls = (BUILD, CalledStep("deploy", dry_run=True))
        (refusal,) = refused(root, *calls, environ=environ)
        assert (refusal.index, refusal.code) == (1, RefusalCode.CAPABILITY_NOT_AVAILABLE)
        assert "DEPLOY_TOKEN" in refusal.message
        assert "DEPLOY_TOKEN" in refusal.diagnostic["fixes"][0]["title"]
    assert not plan(root, BUILD, environ={}).plan.refused


def test_every_call_that_is_wrong_is_told(root: Path) -> None:
    calls = [CalledStep("biuld", bind="b"), BUILD, replace(BUILD, ref="c"), replace(BUILD, ref="b")]
    assert [refusal.index for refusal in refused(root, *calls)] == [0, 2]


def test_a_project_that_is_gone_is_no_runtime(root: Path, tmp_path: Path) -> None:
    (root / "bilt.toml").unlink()
    for gone in (root, tmp_path / "nothing", Path("/dev/null")):
        (refusal,) = refused(gone, BUILD, BUILD)
        assert (refusal.index, refusal.code) == (0, RefusalCode.RUNTIME_NOT_FOUND)


def test_a_file_that_cannot_be_used_is_told_with_its_problems(root: Path) -> None:
    (root / "bilt.toml").write_text('[[step]]\nname = "build"\nrnu = "make"\n', "utf-8")
    (refusal,) = refused(root, BUILD)
    assert refusal.code is RefusalCode.CAPABILITY_NOT_AVAILABLE
    assert "did you mean" in refusal.message
    assert any("rnu" in fix["title"] for fix in refusal.diagnostic["fixes"])


def test_a_refused_plan_waits_for_nobody(root: Path) -> None:
    assert plan(root, CalledStep("biuld")).plan.max_parallel is None
