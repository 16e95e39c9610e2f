"""One `[[step]]` of `bilt.toml`: its keys, its stored snapshot and its environment."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from bilt_mcp.engine.environment import capture_environment, missing_secrets, step_environment
from bilt_mcp.engine.workflow_step import Step


def step(**keys: object) -> Step:
    return Step.model_validate({"name": "build", "run": "make", **keys})


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59), st.integers(0, 999))
def test_a_duration_is_the_sum_of_its_parts(h: int, m: int, s: int, ms: int) -> None:
    parts = [f"{n}{unit}" for n, unit in ((h, "h"), (m, "m"), (s, "s"), (ms, "ms")) if n]
    seconds = h * 3600 + m * 60 + s + ms / 1000
    if parts:
        assert step(timeout="".join(parts)).timeout == pytest.approx(seconds)
        assert step(timeout=seconds).timeout == seconds


@given(
    st.builds(
        dict[str, object],
        st.fixed_dictionaries(
            {"run": st.text(min_size=1) | st.lists(st.text(min_size=1), min_size=1)},
            optional={
                "env": st.dictionaries(
                    st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True), st.text()
                ),
                "timeout": st.floats(0.001, 1e6),
                "grace": st.floats(0, 300),
                "retries": st.integers(0, 10),
                "deploy": st.booleans(),
                "confirm": st.text(min_size=1, max_size=500),
                "on_decline": st.sampled_from(["cancel", "skip"]),
                "secrets": st.lists(st.from_regex(r"[A-Z][A-Z0-9_]*", fullmatch=True)),
            },
        ),
    )
)
@settings(max_examples=100, deadline=None)
def test_a_snapshot_gives_the_step_back(keys: dict[str, object]) -> None:
    try:
        made = step(**keys)
    except ValidationError:
        return
    snapshot = json.loads(json.dumps(made.model_dump(mode="json")))
    assert Step.model_validate(snapshot) == made
    assert Step.model_validate(snapshot).argv == made.argv


def test_reading_a_snapshot_does_not_look_at_files() -> None:
    assert step(cwd="gone/long/ago").cwd == "gone/long/ago"


def test_a_step_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        step().retries = 3


BAD: dict[str, list[object]] = {
    "name": ["", "a/b", "..", ".a", "a.", "a ", "-a", "a" * 65, "é", "a\nb", "a\n", "a\0", 3],
    "run": ["", " ", [], [1], [""], [" "], "a\0b", ["a", "\0"], ["a", "\ud800"], 3, {}, True],
    "cwd": ["", "/tmp", "..", "../x", "a/../../b", "a\0", 1],
    "env": ["A=1", {"A": 1}, {"": "x"}, {"1": ""}, {"A B": ""}, {"BILT_X": ""}, {"A": "\0"}],
    "timeout": [
        *(0, -1, True, math.nan, math.inf, 10**400, [1], "", "10", "1m1h", "-1s", "0s", "31d"),
        *("999h", "1 m", "٣s", "1.5h", "10m\n", "1" * 5000 + "s"),
    ],
    "grace": [-1, 300.5, "6m", True, math.nan, "soon"],
    "when": ["", "(", "*", "a{2,1}", "a\0", "a" * 1001, 3],
    "retries": [-1, 11, True, 1.0, "1"],
    "deploy": [1, "true", "yes"],
    "confirm": ["", " ", "\u200b", "a\0", "a" * 501, True],
    "on_decline": ["stop", "", True],
    "secrets": ["A", [1], ["a b"], ["BILT_X"], [""], {"A": "B"}],
}


@pytest.mark.parametrize(("key", "value"), [(key, v) for key, vs in BAD.items() for v in vs])
def test_a_bad_value_is_refused_once_and_by_its_key(key: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        step(**{key: value})
    (error,) = caught.value.errors()
    assert error["loc"] == (key,)


def test_a_string_longer_than_a_program_can_take_is_refused() -> None:
    assert step(run="x" * 131_071)
    assert step(env={"A": "x" * 131_069})
    for keys in ({"run": "x" * 131_072}, {"run": ["é" * 65_536]}, {"env": {"A": "x" * 131_070}}):
        with pytest.raises(ValidationError):
            step(**keys)


@pytest.mark.parametrize("cwd", [".", "a", "a/b", "a/../b", "./a/", "..a"])
def test_a_folder_inside_the_project_is_accepted(cwd: str) -> None:
    assert step(cwd=cwd).cwd == cwd


def test_a_step_gets_what_is_allowed_its_own_secrets_its_env_and_the_bilt_variables() -> None:
    one = step(secrets=["TOKEN_1"], env={"LANG": "C", "MODE": "fast"})
    two = step(name="two", secrets=["TOKEN_2"])
    caller = {"PATH": "/bin", "LANG": "de", "LC_ALL": "C", "TOKEN_1": "1", "TOKEN_2": "2", "X": "y"}
    captured = capture_environment([one, two], caller)
    assert captured == {name: value for name, value in caller.items() if name != "X"}
    assert step_environment(one, captured, {"BILT_STEP": "build"}) == {
        "PATH": "/bin",
        "LANG": "C",
        "LC_ALL": "C",
        "TOKEN_1": "1",
        "MODE": "fast",
        "BILT_STEP": "build",
    }
    assert step_environment(two, captured, {}) == {
        "PATH": "/bin",
        "LANG": "de",
        "LC_ALL": "C",
        "TOKEN_2": "2",
    }


@pytest.mark.parametrize(
    "name",
    [
        *("AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "NODE_AUTH_TOKEN", "npm_config__authToken"),
        *(
            "SSH_AUTH_SOCK",
            "PIP_INDEX_URL",
            "LD_PRELOAD",
            "PYTHONPATH",
            "BILT_KEY",
            "path",
            "PATHX",
        ),
    ],
)
def test_a_variable_that_is_not_allowed_does_not_reach_a_step(name: str) -> None:
    assert capture_environment([step()], {name: "value"}) == {}


def test_a_value_that_is_not_text_is_left_out() -> None:
    assert capture_environment([step(secrets=["A"])], {"A": "\udcff", "HOME": "/\udcff"}) == {}


def test_secrets_that_are_unset_or_empty_are_missing() -> None:
    steps = [step(secrets=["A", "B"]), step(name="deploy", secrets=["A", "C"])]
    assert missing_secrets(steps, {"A": "x", "C": ""}) == (("build", "B"), ("deploy", "C"))
    assert missing_secrets(steps, {"A": "x", "B": "y", "C": "z"}) == ()
