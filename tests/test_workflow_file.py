"""`bilt.toml`: what is accepted, what is refused and in which words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bilt_mcp.engine.workflow_file import WorkflowFile, load
from bilt_mcp.state import InvalidWorkflowFile, NoWorkflowConfigured

BUILD = '[[step]]\nname = "build"\nrun = "make"\n'


def written(root: Path, text: str) -> WorkflowFile:
    (root / "bilt.toml").write_bytes(text.encode())
    return load(root)


def problems(root: Path, text: str | bytes) -> dict[str, str]:
    """Return what is wrong with a `bilt.toml` that has `text`, by field."""
    (root / "bilt.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InvalidWorkflowFile) as caught:
        load(root)
    error = caught.value
    assert error.details["file"] == str(root / "bilt.toml")
    assert len(error.details["message"]) < 500
    assert len({p.field for p in error.problems}) == len(error.problems)
    return {p.field: p.message for p in error.problems}


# what is accepted


def test_a_full_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    file = written(
        tmp_path,
        """
        [project]
        name = "storefront"
        description = "The shop"

        [workflow]
        timeout = "1h"
        max_parallel = 2
        log_bytes = 65536
        max_messages = 10

        [[step]]
        name = "Build 1.0"
        run = "npm run build"
        cwd = "web"
        env = { NODE_ENV = "production" }
        timeout = "10m"
        grace = 0
        retries = 2

        [[step]]
        name = "deploy"
        run = ["./deploy.sh", "--now"]
        when = "deploy|publish"
        deploy = true
        confirm = "Deploy? ⚠\ufe0f"
        on_decline = "skip"
        secrets = ["TOKEN"]
        """,
    )
    build, deploy = file.steps
    assert file.path == str(tmp_path / "bilt.toml")
    assert (file.project.name, file.project.description) == ("storefront", "The shop")
    assert file.limits.model_dump() == {
        "timeout": 3600.0,
        "max_parallel": 2,
        "log_bytes": 65536,
        "max_messages": 10,
    }
    assert build.argv == ("/bin/sh", "-c", "npm run build")
    assert (build.cwd, build.env, build.timeout) == ("web", {"NODE_ENV": "production"}, 600.0)
    assert (build.grace, build.retries, build.slug) == (0.0, 2, "build-1.0")
    assert deploy.argv == ("./deploy.sh", "--now")
    assert (deploy.deploy, deploy.confirm, deploy.on_decline) == (True, "Deploy? ⚠", "skip")
    assert deploy.secrets == ("TOKEN",)


def test_what_is_left_out_has_the_documented_default(tmp_path: Path) -> None:
    root = tmp_path / "my shop (v2)"
    root.mkdir()
    file = written(root, "\ufeff" + BUILD)
    assert file.project.name == "my-shop-v2"
    assert (file.limits.log_bytes, file.limits.max_messages) == (1_310_720, 200)
    assert (file.limits.timeout, file.limits.max_parallel) == (None, None)
    assert file.steps[0].model_dump() == {
        "name": "build",
        "run": "make",
        "cwd": ".",
        "env": {},
        "timeout": None,
        "grace": 2.0,
        "when": None,
        "retries": 0,
        "deploy": False,
        "confirm": None,
        "on_decline": "cancel",
        "confirm_timeout": None,
        "secrets": (),
    }


@pytest.mark.parametrize(
    ("folder", "name"),
    [("日本", "project"), ("a" * 250, "a" * 250), ("..x", "x"), ("a_b-C", "a_b-C")],
)
def test_a_project_without_a_name_has_that_of_its_folder(
    tmp_path: Path, folder: str, name: str
) -> None:
    (tmp_path / folder).mkdir()
    assert written(tmp_path / folder, BUILD).project.name == name


# what is refused


def test_without_a_file_the_caller_is_told_how_to_make_one(tmp_path: Path) -> None:
    root = tmp_path / ("long" * 50) / ("name" * 50)
    root.mkdir(parents=True)
    for folder in (tmp_path, root, tmp_path / "gone"):
        with pytest.raises(NoWorkflowConfigured) as caught:
            load(folder)
        message = caught.value.details["message"]
        assert len(message) < 500
        assert '[[step]]\nname = "build"\nrun = "npm run build"\ntimeout = "10m"\n' in message
        assert message.endswith("Then call bilt_send_message again.")
        assert caught.value.details["file"] == str(folder / "bilt.toml")


def test_the_example_in_the_message_is_a_workflow(tmp_path: Path) -> None:
    with pytest.raises(NoWorkflowConfigured) as caught:
        load(tmp_path)
    example = caught.value.details["message"].split("\n\n")[1]
    assert written(tmp_path, example).steps[0].timeout == 600.0


def test_a_path_that_is_not_utf_8_can_be_sent_to_the_caller(tmp_path: Path) -> None:
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    with pytest.raises(NoWorkflowConfigured) as caught:
        load(Path(folder))
    json.dumps(caught.value.details, ensure_ascii=False).encode()


def test_all_problems_are_told_at_once_with_table_and_key(tmp_path: Path) -> None:
    told = problems(
        tmp_path,
        """
        [project]
        name = "my shop"
        [workflow]
        max_parallel = true
        timeot = 3
        [[step]]
        run = ""
        timout = "10m"
        [[step]]
        name = "deploy"
        run = ["./deploy.sh", 3]
        timeout = "soon"
        when = "a("
        cwd = "gone"
        env = { BILT_X = "1", N = 1, "a b" = "" }
        secrets = ["1X", "BILT_Y", 3]
        [[step]]
        name = "DEPLOY"
        run = "x"
        secrets = ["A"]
        env = { A = "" }
        [steps]
        """,
    )
    assert told.keys() == {
        "project.name",
        "workflow.max_parallel",
        "workflow.timeot",
        "step[1].name",
        "step[1].run",
        "step[1].timout",
        'step[2] "deploy".run',
        'step[2] "deploy".timeout',
        'step[2] "deploy".when',
        'step[2] "deploy".cwd',
        'step[2] "deploy".env',
        'step[2] "deploy".secrets',
        'step[3] "DEPLOY".name',
        'step[3] "DEPLOY".secrets',
        "steps",
    }
    assert told["step[1].name"] == "is required"
    assert told["step[1].timout"] == 'unknown key; did you mean "timeout"?'
    assert told["workflow.timeot"] == 'unknown key; did you mean "timeout"?'
    assert told["steps"] == 'unknown key; did you mean "step"?'
    assert told["workflow.max_parallel"] == "must be a whole number"
    assert '"10m", "90s", "1h30m", "500ms" or a number' in told['step[2] "deploy".timeout']
    assert "unterminated subpattern at position 1" in told['step[2] "deploy".when']
    assert "step[2] has this name too" in told['step[3] "DEPLOY".name']
    assert "A is also set in env" in told['step[3] "DEPLOY".secrets']
    for part in ("BILT_X is reserved", "N must be a string", '"a b" is not a variable name'):
        assert part in told['step[2] "deploy".env']
    for part in ("BILT_Y is reserved", '"1X" is not a variable name', "must be a list"):
        assert part in told['step[2] "deploy".secrets']


@pytest.mark.parametrize(
    ("cwd", "why"),
    [
        ("gone", '"gone" is not a folder of the project'),
        ("bilt.toml", '"bilt.toml" is not a folder of the project'),
        ("outside", "leads outside the project"),
    ],
)
def test_a_folder_that_a_step_cannot_run_in_is_refused(tmp_path: Path, cwd: str, why: str) -> None:
    (tmp_path / "outside").symlink_to("/")
    assert problems(tmp_path, f'{BUILD}cwd = "{cwd}"\n') == {'step[1] "build".cwd': why}


@pytest.mark.parametrize(
    ("table", "field"),
    [
        *((f"[project]\nname = {name}", "project.name") for name in ('""', '"a b"', "1")),
        (f'[project]\nname = "{"a" * 256}"', "project.name"),
        (f'[project]\ndescription = "{"a" * 1001}"', "project.description"),
        ("project = 3", "project"),
        ("workflow = []", "workflow"),
        *((f"[workflow]\ntimeout = {t}", "workflow.timeout") for t in ('"x"', "0", "true")),
        *((f"[workflow]\nmax_parallel = {n}", "workflow.max_parallel") for n in ("0", "1.5")),
        *((f"[workflow]\nlog_bytes = {n}", "workflow.log_bytes") for n in (65535, 67108865)),
        *((f"[workflow]\nmax_messages = {n}", "workflow.max_messages") for n in (9, 10001)),
        ("colour = 1", "colour"),
        ('"a\\u001b[31mb" = 1', '"ab"'),
    ],
)
def test_a_bad_value_of_another_table_is_refused_by_its_key(
    tmp_path: Path, table: str, field: str
) -> None:
    assert problems(tmp_path, f"{table}\n{BUILD}").keys() == {field}


@pytest.mark.parametrize("text", ["", "step = []", "step = 3", "[step]\nname = 'a'", "step = [1]"])
def test_a_file_without_steps_is_refused(tmp_path: Path, text: str) -> None:
    told = problems(tmp_path, text)
    assert told.keys() <= {"step", "step[1]"}
    assert told.get("step", "[[step]]").find("[[step]]") >= 0


def test_more_than_a_hundred_steps_are_refused(tmp_path: Path) -> None:
    steps = [f'[[step]]\nname = "s{n}"\nrun = "x"\n' for n in range(101)]
    assert len(written(tmp_path, "".join(steps[:100])).steps) == 100
    assert problems(tmp_path, "".join(steps)) == {
        "step": "at most 100 steps are allowed, these are 101"
    }


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (b"[project]\nname = \n", "line 2, column 8", "is not TOML: Invalid value"),
        (b"a = '", "end of document", "is not TOML"),
        (b"ok = 1\n# caf\xe9\n", "line 2", "is not UTF-8 text"),
        (b"#" * 1_048_577, "bilt.toml", "is larger than 1 MiB"),
        (b"a = " + b"9" * 5000, "bilt.toml", "is not TOML"),
        (b"a = " + b"[" * 100_000, "bilt.toml", "is nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_refused_with_the_place(
    tmp_path: Path, text: bytes, place: str, message: str
) -> None:
    (told,) = problems(tmp_path, text).items()
    assert told[0] == place
    assert told[1].startswith(message)


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, make_loop])
def test_what_is_not_a_readable_file_is_refused_and_never_waited_for(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "bilt.toml")
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(InvalidWorkflowFile) as caught:
        load(tmp_path)
    assert [problem.field for problem in caught.value.problems] == ["bilt.toml"]
    assert len(os.listdir("/dev/fd")) == before


def test_a_thousand_problems_are_told_in_a_bounded_list(tmp_path: Path) -> None:
    told = problems(tmp_path, BUILD + "".join(f"k{n} = 1\n" for n in range(1000)))
    assert len(told) == 101
    assert told["bilt.toml"] == "and 900 more"


# select


STEPS = """
[[step]]
name = "build"
run = "x"
when = "build|deploy"
[[step]]
name = "deploy"
run = "x"
when = "\\\\bdeploy\\\\b"
"""


@pytest.mark.parametrize(
    ("message", "names"),
    [
        ("Please BUILD it", ["build"]),
        ("deploy, please", ["build", "deploy"]),
        ("redeployed", ["build"]),
    ],
)
def test_a_message_selects_the_steps_whose_when_it_has(
    tmp_path: Path, message: str, names: list[str]
) -> None:
    assert [step.name for step in written(tmp_path, STEPS).select(message)] == names


def test_a_step_without_when_runs_always(tmp_path: Path) -> None:
    file = written(tmp_path, BUILD + STEPS.replace('"build"', '"build 2"'))
    assert [step.name for step in file.select("anything")] == ["build"]


def test_if_no_step_applies_the_caller_is_told_what_the_steps_look_for(tmp_path: Path) -> None:
    with pytest.raises(NoWorkflowConfigured) as caught:
        written(tmp_path, STEPS).select("hello")
    details = caught.value.details
    assert details["when"] == ["build|deploy", r"\bdeploy\b"]
    assert '"build|deploy"' in details["message"]
    assert "bilt_send_message" in details["message"]


def test_a_message_is_searched_up_to_its_longest_allowed_length(tmp_path: Path) -> None:
    file = written(tmp_path, STEPS)
    assert file.select("x" * 4995 + "build")
    with pytest.raises(NoWorkflowConfigured):
        file.select("x" * 5000 + "build")


def test_searching_for_plain_words_starts_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere")
    assert written(tmp_path, STEPS + BUILD.replace("build", "c") + 'when = "(go )?live|x"').select(
        "X"
    )


def test_a_when_that_would_be_searched_for_forever_ends_with_an_error(tmp_path: Path) -> None:
    text = f'{BUILD}when = "ma+ke"\n[[step]]\nname = "trap"\nrun = "x"\nwhen = "(a+)+b"\n'
    file = written(tmp_path, text)
    assert [step.name for step in file.select("maaake aab")] == ["build", "trap"]
    with pytest.raises(InvalidWorkflowFile) as caught:
        file.select("a" * 60)
    assert caught.value.problems[0].field == 'step[2] "trap".when'
