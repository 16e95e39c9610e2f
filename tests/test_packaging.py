"""What users install: the wheel is built from the source archive, installed and run."""

import email
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("bench", "engine", "server", "state", "tools")
NOT_INSTALLED = Path("bench", "peers")
"""Scripts that only a checkout has."""
UNWANTED = re.compile(r"__pycache__|\..+_cache")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def ours(root: Path) -> set[str]:
    """All files of the five folders, as the wheel should name them."""
    return {
        f"bilt_mcp/{file.relative_to(root)}"
        for folder in FOLDERS
        for file in (root / folder).rglob("*")
        if file.is_file()
        and root / NOT_INSTALLED not in file.parents
        and not any(UNWANTED.match(part) for part in file.parts)
    }


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as for a release but in a copy: `build/` here may hold what is gone."""
    copy = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        unwanted = shutil.ignore_patterns("__pycache__", ".*_cache")
        shutil.copytree(ROOT / folder, copy / folder, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", cwd=copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_our_files_and_no_others(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {name for name in names if ".dist-info/" not in name}
    (script,) = (name for name in code if name.endswith(".data/scripts/bilt-mcp"))
    assert code - {script} == ours(ROOT) - {"bilt_mcp/server/bilt-mcp"}
    assert {name for name in code if name.endswith(".sql")}
    assert {f"bilt_mcp/{folder}/py.typed" for folder in FOLDERS} <= code
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_the_wheel_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    needs = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert sorted(re.split(r"[<>=[]", need)[0] for need in needs) == [
        "aiosqlite",
        "anyio",
        "mcp",
        "prometheus-client",
        "pydantic",
        "pyjwt",
        "starlette",
        "uvicorn",
    ]
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"


def test_the_installed_command_runs(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", python, *install, wheel, cwd=tmp_path)
    # What we depend on is lent by the environment of the tests. The editable install that is in
    # there too is not: the .pth files of a lent folder are not read.
    site = next(home.glob("lib/python*/site-packages"))
    (site / "lent.pth").write_text(sysconfig.get_paths()["purelib"])

    where = run(python, "-c", "import bilt_mcp.server as s; print(s.__file__)", cwd=tmp_path)
    version = run(home / "bin" / "bilt-mcp", "--version", cwd=tmp_path)

    assert Path(where.strip()).is_relative_to(home)
    assert version.split()[:2] == ["bilt-mcp", PROJECT["version"]]
    script = (home / "bin" / "bilt-mcp").read_text()
    assert script.startswith(f"#!{home}/bin/python")
    assert "import re" not in script, "it is a third of the time of a warm start"


def test_everything_we_ask_for_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    pinned = {re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in lines}
    extras: dict[str, list[str]] = PROJECT["optional-dependencies"]
    wanted: list[str] = [*PROJECT["dependencies"], *(n for needs in extras.values() for n in needs)]
    names = {re.split(r"[\[<>=]", need)[0] for need in wanted} - {PROJECT["name"]}
    assert names - pinned == set()
