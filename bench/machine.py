"""What was measured, and on what."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from bilt_mcp.state import SQLITE_VERSION, VERSION


def machine() -> dict[str, str]:
    """The versions and the machine, as names and words; nothing that tells whose machine it is."""
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "CPU": _cpu(),
        "memory": f"{_memory_gib():.0f} GiB",
        "kernel": platform.release().partition("-")[0],
        "file system": _file_system(),
        "Python": platform.python_version(),
        "MCP SDK": version("mcp"),
        "SQLite": SQLITE_VERSION,
        "bilt-mcp": VERSION,
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
        "load before": load(),
    }


def load() -> str:
    """How many processes wanted a core, on average of the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def _file_system() -> str:
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", tempfile.gettempdir()],
        capture_output=True,
        text=True,
        check=False,
    )
    return kind.stdout.strip()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()
