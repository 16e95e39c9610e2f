"""The addresses of resources: `bilt://…`, and what each names.

Written with `str()`, read with `parse`. The templates are those of `resources/templates/list`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote, unquote_to_bytes

from .arguments import as_id

SESSION = "bilt://sessions/{session_id}"
WORKFLOW = "bilt://workflows/{workflow_id}"
LOG = "bilt://workflows/{workflow_id}/steps/{step}/log{?from,lines,attempt}"
ARTIFACTS = "bilt://workflows/{workflow_id}/artifacts"
ARTIFACT = "bilt://workflows/{workflow_id}/artifacts/{+path}{?from,lines}"
TEMPLATES = (SESSION, WORKFLOW, LOG, ARTIFACTS, ARTIFACT)

MAX_URI = 8192
"""Characters; a longer one names nothing of ours."""
MOST_LINES = 1_000_000_000
_NUMBER = re.compile(r"-?[0-9]{1,10}", re.ASCII)


class NoResource(Exception):
    """Nothing of ours has this address; the text says why, where it is the address that is wrong."""


@dataclass(frozen=True)
class SessionUri:
    """A session, as bilt_get_session shows it."""

    session_id: str

    def __str__(self) -> str:
        return f"bilt://sessions/{self.session_id}"


@dataclass(frozen=True)
class WorkflowUri:
    """A workflow with its steps."""

    workflow_id: str

    def __str__(self) -> str:
        return f"bilt://workflows/{self.workflow_id}"


@dataclass(frozen=True)
class LogUri:
    """Lines of what a step printed. `first` counts from 1, or from the end where it is negative."""

    workflow_id: str
    step: str
    """Its name, or its number from 1."""
    first: int | None = None
    lines: int | None = None
    attempt: int | None = None
    """From 1; None for the newest."""

    def __str__(self) -> str:
        asked = _query({"from": self.first, "lines": self.lines, "attempt": self.attempt})
        return f"bilt://workflows/{self.workflow_id}/steps/{quote(self.step, safe='')}/log{asked}"


@dataclass(frozen=True)
class ArtifactsUri:
    """The list of what a workflow's steps left."""

    workflow_id: str

    def __str__(self) -> str:
        return f"bilt://workflows/{self.workflow_id}/artifacts"


@dataclass(frozen=True)
class ArtifactUri:
    """One file of these."""

    workflow_id: str
    path: bytes
    first: int | None = None
    lines: int | None = None

    def __str__(self) -> str:
        asked = _query({"from": self.first, "lines": self.lines})
        return f"bilt://workflows/{self.workflow_id}/artifacts/{quote(self.path, safe='/')}{asked}"


Uri: TypeAlias = SessionUri | WorkflowUri | LogUri | ArtifactsUri | ArtifactUri


def parse(text: str) -> Uri:
    """What an address names. Raises `NoResource`."""
    if len(text) > MAX_URI or not text.startswith("bilt://") or "#" in text:
        raise NoResource("Resource not found")
    path, _, asked = text.removeprefix("bilt://").partition("?")
    match path.split("/", 3):
        case ["sessions", session_id] if not asked:
            return SessionUri(known_id(session_id))
        case ["workflows", workflow_id] if not asked:
            return WorkflowUri(known_id(workflow_id))
        case ["workflows", workflow_id, "artifacts"] if not asked:
            return ArtifactsUri(known_id(workflow_id))
        case ["workflows", workflow_id, "artifacts", rest]:
            given = _given(asked, "from", "lines")
            return ArtifactUri(known_id(workflow_id), unquote_to_bytes(rest), *given)
        case ["workflows", workflow_id, "steps", rest]:
            step, _, log = rest.partition("/")
            if log == "log":
                first, lines, attempt = _given(asked, "from", "lines", "attempt")
                name = unquote_to_bytes(step).decode("utf-8", "replace")
                return LogUri(known_id(workflow_id), name, first, lines, attempt)
        case _:
            pass
    raise NoResource("Resource not found")


def known_id(text: str) -> str:
    """An id in lower case. Raises `NoResource` for what can be none."""
    known = as_id(text)
    if known is None:
        raise NoResource("Resource not found")
    return known


def _given(asked: str, *names: str) -> list[int | None]:
    """The numbers of a query in the order of `names`; one that is empty or not there is None."""
    found: dict[str, int] = {}
    for part in filter(None, asked.split("&")):
        name, _, value = part.partition("=")
        if name not in names:
            raise NoResource(f"There is no {name[:20]!r} here; known: {', '.join(names)}")
        if not value:
            continue
        if not _NUMBER.fullmatch(value) or abs(int(value)) > MOST_LINES or int(value) == 0:
            raise NoResource(f"{name} must be a number of lines, counted from 1")
        if name != "from" and int(value) < 0:
            raise NoResource(f"{name} must be a number from 1")
        found[name] = int(value)
    return [found.get(name) for name in names]


def _query(given: dict[str, int | None]) -> str:
    parts = [f"{name}={value}" for name, value in given.items() if value is not None]
    return f"?{'&'.join(parts)}" if parts else ""
