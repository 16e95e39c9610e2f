"""The environments of the peers: build/peers/NAME, made once from the pins in bench/peers/constraints/NAME.txt."""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from known import HERE, Known

PLACE = HERE.parents[1] / "build" / "peers"
PATIENCE_SECONDS = 900


class Unavailable(Exception):
    """Why a peer cannot be measured here, in one line."""


def pins(environment: str) -> Path:
    """The pinned packages of an environment, one `name==version` a line."""
    return HERE / "constraints" / f"{environment}.txt"


def version(known: Known) -> str | None:
    """The pinned version of a peer's package."""
    if known.environment is None:
        return None
    for line in pins(known.environment).read_text("utf-8").splitlines():
        name, _, found = line.partition("==")
        if name == known.package:
            return found
    raise ValueError(f"{known.package} is not among the pins of {known.environment}")


def installed(known: Known, *, may_install: bool = True) -> Path:
    """The interpreter of a peer's environment, made first where it is not there. Raises `Unavailable`."""
    if known.environment is None:
        return Path(sys.executable)
    folder = PLACE / known.environment
    python = folder / "bin" / "python"
    stamp = folder / f"ready-{_key(known)}"
    if stamp.exists() and python.exists():
        return python
    if not may_install:
        raise Unavailable("not installed")
    base = _interpreter(known.newer)
    print(f"installing {known.environment} into {folder}, once ...", file=sys.stderr, flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    _run([str(base), "-m", "venv", str(folder)])
    # All of it is pinned, so nothing is left to resolve.
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    _run([*pip, "-r", str(pins(known.environment))])
    _run([str(python), "-m", "compileall", "-q", str(folder / "lib")], check=False)
    stamp.touch()
    return python


def _key(known: Known) -> str:
    assert known.environment is not None
    facts = (
        pins(known.environment).read_bytes(),
        str(PLACE).encode(),
        str(_interpreter(known.newer)).encode(),
    )
    return hashlib.sha256(b"\0".join(facts)).hexdigest()[:12]


def _run(argv: list[str], *, check: bool = True) -> None:
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"{argv[0]} {argv[2]}: not within {PATIENCE_SECONDS} s") from error
    if check and done.returncode != 0:
        said = [line for line in (done.stderr + done.stdout).splitlines() if "ERROR" in line]
        raise Unavailable(f"cannot be installed: {(said or ['no reason given'])[0][:200]}")


@functools.cache
def _interpreter(newer: tuple[int, int]) -> Path:
    """Our own interpreter, or another on this machine if ours is too old. Raises `Unavailable`."""
    if sys.version_info[:2] >= newer:
        return Path(sys.executable)
    found = [shutil.which(f"python3.{minor}") for minor in (14, 13, 12)]
    for candidate in filter(None, found):
        wanted = f"import sys, venv; sys.exit(sys.version_info[:2] < {newer!r})"
        # A name on PATH may be a shim for an interpreter that is switched off.
        done = subprocess.run([candidate, "-c", wanted], capture_output=True, check=False)
        if done.returncode == 0:
            return Path(candidate)
    raise Unavailable(f"needs Python {newer[0]}.{newer[1]} or newer, and there is none here")
