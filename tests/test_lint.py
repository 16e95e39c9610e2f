"""Style, types and import rules are tests like any other: plain `pytest` says what is wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

CHECKS = {
    "ruff format": ["-m", "ruff", "format", "--check", "--quiet"],
    "ruff check": ["-m", "ruff", "check", "--quiet"],
    "mypy": ["-m", "mypy", "--no-error-summary"],
    # The node that came with pyright[nodejs], whatever is on PATH: never a download, never a skip.
    # --project, or a pyrightconfig.json in any folder above this one would come first.
    "pyright": ["-m", "pyright", "--project", str(ROOT), "--pythonpath", sys.executable],
    "import-linter": ["-c", "from importlinter.cli import lint_imports_command as m; m()"],
}


@pytest.mark.timeout(400)  # on a busy machine a type checker takes minutes
@pytest.mark.parametrize("check", CHECKS)
def test_the_code_passes(check: str) -> None:
    done = subprocess.run(
        [sys.executable, *CHECKS[check]],
        cwd=ROOT,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(f"{check} says:\n{done.stdout}{done.stderr}", pytrace=False)
