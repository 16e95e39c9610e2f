"""How the artifacts of a workflow are told in its history."""

from __future__ import annotations

import os
from pathlib import Path

from bilt_mcp.state import Note

from .safe_text import Redactor, clean

MOST_ARTIFACTS = 20
"""How many artifacts are listed in the message at the end."""
MOST_NAME = 180


def artifact_notes(folder: Path, redactor: Redactor) -> list[Note]:
    """What the history says of the files in the artifacts folder of a workflow: nothing where there are none."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if not found:
        return []
    listed = [
        f"{_shown(path.relative_to(folder), redactor)} ({_size(path)} bytes)"
        for path in found[:MOST_ARTIFACTS]
    ]
    if len(found) > MOST_ARTIFACTS:
        listed.append(f"… and {len(found) - MOST_ARTIFACTS} more")
    return [Note("\n".join([f"Artifacts in {folder}:", *listed]), "info")]


def _shown(path: Path, redactor: Redactor) -> str:
    """A name that a step has given, which is untrusted text like all that it prints."""
    text = clean(os.fsencode(path).decode("utf-8", "replace")).replace("\n", " ")
    return redactor.redact(text)[:MOST_NAME]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
