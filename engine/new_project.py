"""The folder of a new project, with a `bilt.toml` that runs."""

from __future__ import annotations

import json
from pathlib import Path

from bilt_mcp.state import ProjectAlreadyExists, StoreUnavailable

from .workflow_file import FILE_NAME

_STARTER = """\
# What bilt-mcp can run for this project. Each [[step]] is a process; they run one after the other.

[project]
name = {name}
{description}
[[step]]
name = "build"
run = 'echo "This is where {project} gets built. The request was: $BILT_MESSAGE"'
timeout = "10m"

# A step that runs only if the message asks for it, and only after a person has said yes:
#
# [[step]]
# name = "deploy"
# run = ["./deploy.sh"]
# when = "deploy|publish|go live"
# deploy = true
# confirm = "Deploy {project} to production?"
# secrets = ["DEPLOY_TOKEN"]
"""


def starter(name: str, description: str) -> str:
    """The `bilt.toml` of a new project: one step that works at once, and how to go on."""
    told = "".join(ch for ch in " ".join(description.split()) if ch.isprintable())
    return _STARTER.format(
        name=json.dumps(name),
        project=name,
        # A JSON string is a TOML string, as long as nothing in it is escaped that is no character.
        description=f"description = {json.dumps(told, ensure_ascii=False)}\n" if told else "",
    )


def make_project(root: Path, name: str, description: str) -> None:
    """Make the folder `root` with a starter file; may be repeated.

    Raises `ProjectAlreadyExists` when there is something else of this name, `StoreUnavailable` when nothing can be
    written there.
    """
    text = starter(name, description)
    file = root / FILE_NAME
    try:
        root.mkdir(parents=True, exist_ok=True)
        try:
            with file.open("x", encoding="utf-8") as made:
                made.write(text)
        except FileExistsError:
            # A process that was killed half-way may have made it; nothing is ever written over.
            if file.read_text("utf-8", "replace") != text:
                raise _taken(root) from None
    except FileExistsError:
        raise _taken(root) from None
    except OSError as error:
        raise StoreUnavailable(
            f"Nothing was created: cannot write to {root}: {error.strerror}. Make room or change the permissions, or "
            "set another folder for new projects (BILT_PROJECTS where bilt-mcp runs)."
        ) from error


def _taken(root: Path) -> ProjectAlreadyExists:
    return ProjectAlreadyExists(
        f"Nothing was created: {root} is there already and is not a new project. Choose another name."
    )
