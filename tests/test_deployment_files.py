"""Our recipes for deployment, as far as files can be checked: by the linters of those who run them, and by rules."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from .support.debian import ROOT
from .support.loud import cannot_run
from .support.recipes import (
    COMPOSE,
    DOCKERFILE,
    IGNORED,
    PROGRAM,
    UNIT,
    container_health,
    given,
    instructions,
    service,
    unit,
)

MOST_EXPOSED = 50
"""Of `systemd-analyze security`, which says 96 of a unit that says nothing: 10 times its figure."""
TAKES_FROM_BUILDS = {
    *(
        "PrivateTmp",
        "RuntimeDirectory",
        "LimitCORE",
        "MemoryDenyWriteExecute",
        "RestrictNamespaces",
    ),
    *("SystemCallFilter", "DynamicUser", "ProcSubset", "PrivateNetwork", "IPAddressDeny"),
}


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


# -- the image -----------------------------------------------------------------------------------


def test_hadolint_has_nothing_to_say_about_the_dockerfile() -> None:
    done = run(Path(sysconfig.get_path("scripts"), "hadolint"), DOCKERFILE)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_image_is_made_of_every_package_that_is_installed_and_of_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    folders = {name.split(".")[1] for name in project["tool"]["setuptools"]["packages"]}
    files = {project["project"]["readme"], *project["project"]["license-files"]}
    copied = {
        source.rstrip("/")
        for rest in given("COPY")
        if not rest.startswith("--from=")
        for source in rest.split()[:-1]
    }
    assert copied == {*folders, *files, "pyproject.toml", "constraints.txt"}
    lines = IGNORED.read_text("utf-8").split("\n")
    assert {line[1:] for line in lines if line.startswith("!")} == copied
    assert lines[lines.index("*") - 1].startswith("#")  # first everything is left out


@pytest.mark.parametrize("path", ["tools/__pycache__/x.pyc", "bench/peers/run.py", "a.db", ".git"])
def test_nothing_that_lies_in_a_checkout_by_chance_gets_into_the_image(path: str) -> None:
    """As the engine reads .dockerignore: the last line that fits decides, and a folder means what is in it."""
    out = False
    for line in IGNORED.read_text("utf-8").splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        parts = path.split("/")
        ways = [
            "/".join(parts[first:last])
            for last in range(1, len(parts) + 1)
            for first in (0, last - 1)
        ]
        if line and not line.startswith("#") and any(fnmatch.fnmatch(way, pattern) for way in ways):
            out = not line.startswith("!")
    assert out


def test_what_the_image_installs_is_pinned_and_comes_from_no_host_that_we_name() -> None:
    installs = [
        command.strip()
        for rest in given("RUN")
        for command in rest.split("&&")
        if " install " in command and "pip" in command
    ]
    assert len(installs) == 2
    assert all(" -c constraints.txt " in command for command in installs)
    bases = given("FROM")
    assert bases
    assert not any("/" in base or "@" in base for base in bases)
    assert not [
        rest for _, rest in instructions() if re.search(r"--index|--find-links|://(?!127)", rest)
    ]


def test_the_image_runs_as_a_user_who_is_not_root_and_keeps_its_store_in_a_volume() -> None:
    names = [name for name, _ in instructions()]
    (user,) = given("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert names.index("USER") > max(at for at, name in enumerate(names) if name == "RUN")
    (volumes,) = given("VOLUME")
    assert "/data" in json.loads(volumes)
    (environ,) = given("ENV")
    assert "BILT_STORE=/data/" in environ


# -- compose -------------------------------------------------------------------------------------


def test_compose_yaml_is_what_the_specification_allows() -> None:
    check = (sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec")
    done = run(*check, COMPOSE)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_container_has_no_more_rights_than_builds_need() -> None:
    bilt = service()
    assert bilt["read_only"] is True
    assert bilt["cap_drop"] == ["ALL"]
    assert bilt["security_opt"] == ["no-new-privileges:true"]
    assert all(str(port).startswith("127.0.0.1:") for port in bilt["ports"])
    assert not {"privileged", "cap_add", "pid", "network_mode", "user"} & bilt.keys()
    assert "core" not in bilt.get("ulimits", {})  # what hides itself is found by it
    (tmp,) = bilt["tmpfs"]
    assert ":exec," in tmp  # builds run what they have made there


def test_the_image_and_compose_ask_for_the_health_in_the_same_way() -> None:
    of_image, of_compose = container_health()
    assert of_image == of_compose


def test_everything_that_is_written_to_is_in_a_volume_of_the_container() -> None:
    bilt = service()
    mounted = {str(volume).rpartition(":")[2] for volume in bilt["volumes"]}
    (environ,) = given("ENV")
    wanted = set(re.findall(r"(?:HOME|BILT_\w+)=(/\w+)", environ))
    assert wanted == mounted


# -- systemd -------------------------------------------------------------------------------------


@pytest.fixture
def analyze(record_property: Callable[[str, object], None]) -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        cannot_run(record_property, "systemd-analyze is not installed: apt install systemd")
    return found


@pytest.fixture
def verified(tmp_path: Path) -> Path:
    """The unit, with a program and a user that this machine has: what is asked about is the rest."""
    text = UNIT.read_text("utf-8").replace(PROGRAM, sys.executable)
    text = re.sub(r"^(User|Group)=bilt$", r"\1=daemon", text, flags=re.MULTILINE)
    (tmp_path / UNIT.name).write_text(text, "utf-8")
    return tmp_path / UNIT.name


def test_systemd_understands_every_line_of_the_unit(analyze: str, verified: Path) -> None:
    done = run(analyze, "verify", "--man=no", verified)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    verified.write_text(verified.read_text("utf-8") + "Wanted=by\n", "utf-8")
    assert "Wanted" in run(analyze, "verify", "--man=no", verified).stderr


def test_the_unit_gives_the_service_few_rights(analyze: str, verified: Path) -> None:
    ask = ("security", "--offline=true", "--no-pager")
    done = run(analyze, *ask, f"--threshold={MOST_EXPOSED}", verified)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_unit_leaves_builds_alone_when_the_server_is_restarted() -> None:
    settings = unit()
    assert settings["KillMode"] == ["process"]
    assert settings["OOMPolicy"] == ["continue"]
    assert not TAKES_FROM_BUILDS & settings.keys()
    stores = [value for value in settings["Environment"] if "BILT_STORE=" in value]
    assert f"BILT_STORE=/var/lib/{settings['StateDirectory'][0]}/" in stores[0]
