"""Programs of Debian's packages, unpacked below build/: they need no root and change nothing of the machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "debian"
SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where daemons are, which is not on everybody's PATH."""
PATIENCE_SECONDS = 240


class Unavailable(Exception):
    """Why a program is not to be had here, and how to get it, in one line."""


def program(name: str, package: str) -> Path:
    """A program: the machine's own, or else that of Debian's package, downloaded once. Raises `Unavailable`.

    What the package depends on must be there already: this is for programs that need only common libraries.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM}")
    return Path(found) if found else unpacked(package, name)


def unpacked(package: str, name: str) -> Path:
    """A program of Debian's package, downloaded once. Raises `Unavailable`."""
    how = f"install it: apt install {package}"
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise Unavailable(f"{name} is not installed, and this is not Debian; install {package}")
    folder = FOLDER / package
    folder.mkdir(parents=True, exist_ok=True)
    files, stamp = folder / "files", folder / "ready"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            try:
                _unpack(package, folder, files)
            except (OSError, subprocess.SubprocessError) as error:
                raise Unavailable(f"{package} could not be had ({_why(error)}); {how}") from error
            stamp.touch()
    for place in ("usr/sbin", "usr/bin", "sbin", "bin"):
        if (files / place / name).is_file():
            return files / place / name
    raise Unavailable(f"Debian's {package} has no {name}; {how}")


def _unpack(package: str, folder: Path, files: Path) -> None:
    """Lists of its own, so that nobody needs to be root, or to have run apt-get update."""
    shutil.rmtree(files, ignore_errors=True)
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    own = (f"Dir::State::Lists={folder}/lists", f"Dir::Cache={folder}/cache")
    apt = ["apt-get", "-qq", *(word for option in own for word in ("-o", option))]
    _run(folder, *apt, "update")
    _run(folder, *apt, "download", package)
    for archive in folder.glob("*.deb"):
        _run(folder, "dpkg-deb", "-x", str(archive), str(files))
        archive.unlink()
    shutil.rmtree(folder / "lists")
    shutil.rmtree(folder / "cache")


def _run(folder: Path, *command: str) -> None:
    subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS
    )


def _why(error: Exception) -> str:
    said = (getattr(error, "stderr", None) or str(error)).strip()
    return said.splitlines()[-1] if said else type(error).__name__
