"""The example project does what its bilt.toml says, also without bilt, also after a stop."""

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest

STOREFRONT = Path(__file__).parent.parent / "examples" / "storefront"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the example as a user has it: nothing built yet."""
    made = shutil.ignore_patterns("build", "__pycache__")
    return Path(shutil.copytree(STOREFRONT, tmp_path / "storefront", ignore=made))


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    return folder


def start(project: Path, artifacts: Path, step: dict[str, Any]) -> subprocess.Popen[str]:
    """Start a step's command in a session of its own, much as a keeper does."""
    python3 = str(Path(sys.executable).parent)
    return subprocess.Popen(
        step["run"],
        shell=isinstance(step["run"], str),
        cwd=project / step.get("cwd", "."),
        env={
            "PATH": os.pathsep.join([python3, os.environ["PATH"]]),
            "BILT_ARTIFACTS": str(artifacts),
            **step.get("env", {}),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def run(project: Path, artifacts: Path, step: dict[str, Any]) -> tuple[int, str]:
    with start(project, artifacts, step) as process:
        output, _ = process.communicate()
    return process.returncode, output


def test_a_build_that_was_stopped_is_built_again(project: Path, artifacts: Path) -> None:
    steps = tomllib.loads((project / "bilt.toml").read_text())["step"]
    by_name = {step["name"]: step for step in steps}
    assert list(by_name) == ["check", "compile", "test", "package", "deploy"]

    with start(project, artifacts, by_name["compile"]) as process:
        assert process.stdout is not None
        for line in process.stdout:  # until the second pot, so that one was drawn
            if line.startswith("::progress 8::Rendering"):
                break
        os.killpg(process.pid, signal.SIGTERM)
        process.stdout.read()  # ends when the last process that could write to it is gone
    assert process.returncode == -signal.SIGTERM
    code, output = run(project, artifacts, by_name["package"])
    assert (code, output) == (1, "::error::there is no site yet: python3 -m shop compile\n")

    said = ""
    for step in steps:
        code, output = run(project, artifacts, step)
        assert code == 0, output
        said += output

    assert "::warning::moon-jar.md: only 2 left in stock\n" in said
    assert said.count("::Rendering ") == 12
    assert "\nOK\n" in said
    assert "::notice::Packaged storefront.tar.gz (27 files, sha256 " in said
    assert "::notice::Deployed to " in said
    with tarfile.open(artifacts / "storefront.tar.gz") as package:
        packed = set(package.getnames())
    shown = {file.name for file in (project / "build" / "production" / "current").iterdir()}
    assert packed == shown
    assert {"index.html", "moon-jar.html", "moon-jar.png", "SHA256SUMS"} <= shown


def test_a_mistake_in_a_product_fails_the_check(project: Path, artifacts: Path) -> None:
    product = project / "products" / "moon-jar.md"
    product.write_text(product.read_text().replace("price: 120.00", "price: free"))

    check = {"run": ["python3", "-m", "shop", "check"]}
    code, output = run(project, artifacts, check)

    assert code == 1
    assert "::error::moon-jar.md: price and profile must be numbers\n" in output
