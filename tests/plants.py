"""Planted bugs: each is put into a copy of the code, and the tests it names must notice it.

    make plants                      all of them (an hour and a half)
    make plants ARGS="-k deploy"     those whose name contains a word

A test that cannot fail is worth nothing; this is how we know of ours. `tests/test_plants.py` sees to it that
every plant still fits the code.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .planted.plant import Plant

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("bench", "engine", "server", "state", "tools")
LIMIT_SECONDS = 300
AREAS = tuple(sorted(file.stem for file in (ROOT / "tests/planted").glob("*.py")))
PLANTS: tuple[Plant, ...] = tuple(
    plant
    for area in AREAS
    for plant in getattr(importlib.import_module(f".planted.{area}", __package__), "PLANTS", ())
)


def planted(plant: Plant | None, folder: Path) -> None:
    """Make `folder`/bilt_mcp a copy of the code with the bug in it, if any."""
    for name in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "bilt_mcp" / name, ignore=ignored)
    if plant is None:
        return
    file = folder / "bilt_mcp" / plant.file
    file.write_text(file.read_text("utf-8").replace(plant.right, plant.wrong), "utf-8")


def file_of(test: str) -> str:
    """`test_schema` is a module, `test_schema.py::test_x` one test of it."""
    return test if "::" in test else f"{test}.py"


def outcome(plant: Plant | None, modules: tuple[str, ...]) -> str:
    """What the test modules say of a copy with the bug in it: `passed`, `failed`, `hung` or `broken`."""
    with tempfile.TemporaryDirectory(prefix="bilt-plant-") as folder:
        planted(plant, Path(folder))
        files = [f"tests/{file_of(name)}" for name in modules]
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
        environ = {**os.environ, "PYTHONPATH": folder}
        try:
            run = subprocess.run(
                command, cwd=ROOT, env=environ, capture_output=True, timeout=LIMIT_SECONDS
            )
        except subprocess.TimeoutExpired:
            return "hung"
        return {0: "passed", 1: "failed"}.get(run.returncode, "broken")


def main() -> int:
    """Plant every bug, one after the other; 1 when one was not noticed, or a sound copy does not pass."""
    parser = argparse.ArgumentParser(
        description="Put bugs into a copy of the code; the tests must notice."
    )
    parser.add_argument(
        "-k", metavar="WORD", default="", help="only plants whose name has this word"
    )
    parser.add_argument("--control", action="store_true", help="only the copies without a bug")
    given = parser.parse_args()
    chosen = [plant for plant in PLANTS if given.k in plant.name]
    wrong = 0
    # Without this a module that fails for another reason would seem to notice everything.
    for module in sorted({name for plant in chosen for name in plant.tests}):
        said = outcome(None, (module,))
        wrong += said != "passed"
        print(f"control: {said:7} {module}", flush=True)
    for plant in [] if given.control else chosen:
        began = time.monotonic()
        said = outcome(plant, plant.tests)
        wrong += said not in ("failed", "hung")
        print(f"{said:7} {time.monotonic() - began:5.1f} s  {plant.name}", flush=True)
    print(f"{wrong} wrong: a control must have passed, a plant must have failed")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
