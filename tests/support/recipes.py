"""What our recipes for deployment say: Dockerfile, compose.yaml and the unit of systemd, read as their readers do."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import yaml

from .debian import ROOT

UNIT = ROOT / "examples" / "bilt-mcp.service"
COMPOSE = ROOT / "compose.yaml"
DOCKERFILE = ROOT / "Dockerfile"
IGNORED = ROOT / ".dockerignore"
PROGRAM = "/opt/bilt-mcp/bin/bilt-mcp"


def unit() -> dict[str, list[str]]:
    """The settings of the service: what is set more than once has more than one value."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in UNIT.read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and not line.startswith(("#", ";")) and "=" in line:
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def exec_start() -> list[str]:
    """What the unit gives `bilt-mcp serve`."""
    (command,) = unit()["ExecStart"]
    program, verb, *arguments = shlex.split(command)
    assert (program, verb) == (PROGRAM, "serve")
    return arguments


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions and what follows each, continued lines as one, without comments."""
    lines = [
        line for line in DOCKERFILE.read_text("utf-8").splitlines() if not line.startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (name, rest.strip())
        for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def given(instruction: str) -> list[str]:
    """What follows each of one kind of instruction."""
    return [rest for name, rest in instructions() if name == instruction]


def image_command() -> list[str]:
    """What the image runs when nobody says otherwise: arguments of `bilt-mcp`."""
    (entry,), (command,) = given("ENTRYPOINT"), given("CMD")
    assert json.loads(entry) == ["tini", "--", "bilt-mcp"]
    words: list[str] = json.loads(command)
    return words


def service() -> dict[str, Any]:
    """The one service of compose.yaml."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
    (only,) = found.values()
    service: dict[str, Any] = only
    return service


def compose_command(public_url: str) -> list[str]:
    """What compose.yaml gives `bilt-mcp`, with BILT_PUBLIC_URL set."""
    words: list[str] = service()["command"]
    return [re.sub(r"\$\{BILT_PUBLIC_URL:\?[^}]*\}", public_url, word) for word in words]


def container_health() -> list[list[str]]:
    """The commands by which the image and compose.yaml find out whether the server is well."""
    (asked,) = given("HEALTHCHECK")
    of_image: list[str] = json.loads(asked.partition("CMD ")[2])
    kind, *of_compose = service()["healthcheck"]["test"]
    assert kind == "CMD"
    return [of_image, of_compose]
