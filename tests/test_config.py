"""How the program is told where its project and its store are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bilt_mcp.server import Config, ConfigError
from bilt_mcp.state import IDLE_SECONDS


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_anything_it_is_the_current_folder_and_the_home(tmp_path: Path) -> None:
    config = Config.from_environ({"HOME": "/home/ada"})
    assert config.project == tmp_path.resolve()
    assert config.store == Path("/home/ada/.bilt")
    assert config.account == "local"
    assert config.worker_idle_seconds == IDLE_SECONDS


def test_without_a_home_variable_the_store_is_in_the_users_home() -> None:
    assert Config.from_environ({}).store == Path("~/.bilt")


def test_variables_win_over_defaults_and_arguments_over_variables(tmp_path: Path) -> None:
    for name in ("said", "given"):
        (tmp_path / name).mkdir()
    environ = {"BILT_PROJECT": "said", "BILT_STORE": "said.db", "BILT_WORKER_IDLE": "2.5"}
    told = Config.from_environ(environ)
    assert (told.project, told.store) == (tmp_path.resolve() / "said", Path("said.db"))
    assert told.worker_idle_seconds == 2.5
    given = Config.from_environ(environ, project="given", store="given.db")
    assert (given.project, given.store) == (tmp_path.resolve() / "given", Path("given.db"))


def test_an_empty_value_counts_as_not_given(tmp_path: Path) -> None:
    empty = {"HOME": "/h", "BILT_PROJECT": "", "BILT_STORE": "", "BILT_WORKER_IDLE": ""}
    config = Config.from_environ(empty, project="", store="")
    assert (config.project, config.store) == (tmp_path.resolve(), Path("/h/.bilt"))
    assert config.worker_idle_seconds == IDLE_SECONDS


def test_two_names_of_a_folder_are_one_project(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    named = [Config.from_environ({}, project=name).project for name in ("real", "link", "link/.")]
    assert named == [(tmp_path / "real").resolve()] * 3


def test_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Config.from_environ({}, project="~").project == tmp_path.resolve()


def test_it_keeps_its_own_copy_of_the_variables_and_never_shows_them() -> None:
    environ = {"HOME": "/h", "DEPLOY_TOKEN": "hunter2"}
    config = Config.from_environ(environ)
    environ["DEPLOY_TOKEN"] = "changed"
    assert config.environ["DEPLOY_TOKEN"] == "hunter2"
    assert "hunter2" not in repr(config)


@pytest.mark.parametrize(
    "named",
    [
        "missing",
        "a-file",
        "a-file/below",
        "~no-such-user/project",
        "n" * 300,
        "loop",
        os.fsdecode(b"bad-\xff"),
    ],
)
def test_a_project_that_is_no_folder_is_refused_by_name(named: str, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / os.fsdecode(b"bad-\xff")).mkdir()
    with pytest.raises(ConfigError) as refused:
        Config.from_environ({}, project=named)
    assert str(refused.value) == f"the project {named} is not a folder (--project, BILT_PROJECT)"


@pytest.mark.parametrize("idle", ["soon", "-1", "nan", "inf", "86401", "1e400"])
def test_an_idle_time_that_is_none_is_refused(idle: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Config.from_environ({"BILT_WORKER_IDLE": idle})
    expected = f"BILT_WORKER_IDLE is {idle!r}; it must be seconds, from 0 to 86400"
    assert str(refused.value) == expected


@pytest.mark.parametrize(("idle", "seconds"), [("0", 0.0), ("86400", 86400.0), (" 1 ", 1.0)])
def test_the_limits_of_the_idle_time_are_allowed(idle: str, seconds: float) -> None:
    assert Config.from_environ({"BILT_WORKER_IDLE": idle}).worker_idle_seconds == seconds


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as refused:
        Config.from_environ(
            {"BILT_WORKER_IDLE": "x"}, project="missing", store="~no-such-user/store"
        )
    assert str(refused.value).split("; ", 1)[0].startswith("the project missing")
    assert "BILT_WORKER_IDLE is 'x'" in str(refused.value)
    assert "the store ~no-such-user/store is in no known home folder" in str(refused.value)


def test_a_person_is_told_how_to_reach_a_store_that_is_not_the_default(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    assert Config.from_environ(home).terminal == "bilt-mcp"
    assert Config.from_environ(home, store=tmp_path / ".bilt").terminal == "bilt-mcp"
    elsewhere = Config.from_environ(home, store=tmp_path / "my store")
    assert elsewhere.terminal == f"bilt-mcp --store '{tmp_path}/my store'"
