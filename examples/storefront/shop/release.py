"""What leaves the house: the package, and the roll-out to production, which here is a folder."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

# Seconds between two files of a roll-out. A real one waits for a network and for health checks;
# a copy on one disk would be over before anybody could watch it, or stop it.
PACE = 0.08


def pack(site: Path, target: Path) -> tuple[int, str]:
    """Pack the site with a list of checksums; the same site always gives the same bytes."""
    files = {file.name: file.read_bytes() for file in sorted(site.iterdir())}
    sums = "".join(f"{_sha256(data)}  {name}\n" for name, data in files.items())
    files["SHA256SUMS"] = sums.encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    data = gzip.compress(packed.getvalue(), mtime=0)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(data)
    partial.replace(target)
    return len(files), _sha256(data)


def deploy(package: Path, production: Path) -> Iterator[tuple[str, int, int]]:
    """Roll a package out, yielding each file's name, its number, and how many there are.

    Customers see `production/current`, a link that changes hands in one step when every file is
    there and has been read back. Whoever stops a roll-out half-way leaves the old shop open, and
    a folder with `.partial` in its name, which the next roll-out removes.
    """
    release = _sha256(package.read_bytes())[:12]
    partial = production / f"{release}.partial"
    production.mkdir(parents=True, exist_ok=True)
    for left in production.glob("*.partial"):
        shutil.rmtree(left)
    partial.mkdir()
    with tarfile.open(package) as tar:
        members = tar.getmembers()
        for number, member in enumerate(members, start=1):
            source = tar.extractfile(member)
            if source is None or "/" in member.name:
                raise ValueError(f"{package.name} has an entry that is not ours: {member.name}")
            data = source.read()
            (partial / member.name).write_bytes(data)
            yield member.name, number, len(members)
            time.sleep(PACE)
    for line in (partial / "SHA256SUMS").read_text().splitlines():
        checksum, name = line.split("  ")
        if _sha256((partial / name).read_bytes()) != checksum:
            raise ValueError(f"{name} did not arrive as it was packed")
    if (production / release).exists():
        shutil.rmtree(partial)
    else:
        partial.replace(production / release)
    link = production / "current.next"
    link.unlink(missing_ok=True)
    link.symlink_to(release)
    os.replace(link, production / "current")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
