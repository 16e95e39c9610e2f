"""`bilt.toml`: what a project's workflow is made of (README, "bilt.toml").

    load(root)            the file, checked; every problem is reported at once
    WorkflowFile.select   the steps that a message asks for
    Step                  one step; `model_dump(mode="json")` is its stored snapshot

Steps are numbered from 1 wherever a person reads them, as in `progress.step` of the contract.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import stat
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from bilt_mcp.state import InvalidWorkflowFile, NoWorkflowConfigured, Problem

from .workflow_step import MAX_STEPS, Limits, ProjectTable, Step, WorkflowTables, quoted, slug

FILE_NAME = "bilt.toml"
MAX_FILE_BYTES = 1_048_576
MAX_MESSAGE_CHARS = 5_000
"""Longest part of a message that `when` is searched in (CONTRACT: the longest message)."""
SEARCH_SECONDS = 2.0
"""How long searching one message for all the `when`s may take."""

_MAX_PROBLEMS = 100
_TOML_PLACE = re.compile(r" \(at (line \d+, column \d+|end of document)\)\Z")
_NO_STEP = 'at least one step is needed, under "[[step]]" with two brackets'
_EXAMPLE = '[[step]]\nname = "build"\nrun = "npm run build"\ntimeout = "10m"\n'

_SEARCHER = """
import json, re, sys, warnings
warnings.simplefilter("ignore")
patterns, text = json.load(sys.stdin)
for pattern in patterns:
    print(int(re.search(pattern, text, re.IGNORECASE) is not None), flush=True)
"""


@dataclass(frozen=True)
class WorkflowFile:
    """A `bilt.toml` that can be used."""

    path: str
    project: ProjectTable
    limits: Limits
    steps: tuple[Step, ...]

    def select(self, message: str) -> tuple[Step, ...]:
        """Return the steps without a `when` and those whose `when` is found in `message`.

        Reads the first 5000 characters. May block for up to `SEARCH_SECONDS`.

        Raises:
            NoWorkflowConfigured: no step applies; `details` has `file` and `when`.
            InvalidWorkflowFile: a `when` takes too long to search for.

        """
        asked = [step for step in self.steps if step.when is not None]
        found = self._search(asked, message)
        unwanted = {step.name for step, hit in zip(asked, found, strict=True) if not hit}
        chosen = tuple(step for step in self.steps if step.name not in unwanted)
        if not chosen:
            whens = [str(step.when) for step in asked]
            told = ", ".join(quoted(when, 40) for when in whens[:6])
            raise NoWorkflowConfigured(
                f"No step of {FILE_NAME} applies to this message; nothing was started. The steps"
                f" look for {told}{', …' if len(whens) > 6 else ''}. Call bilt_send_message with a"
                " message that names one of them.",
                file=self.path,
                when=whens,
            )
        return chosen

    def _search(self, steps: Sequence[Step], message: str) -> list[bool]:
        text = message[:MAX_MESSAGE_CHARS]
        patterns = [str(step.when) for step in steps]
        if all(map(_is_cheap, patterns)):
            return [re.search(when, text, re.IGNORECASE) is not None for when in patterns]
        answers = _search_apart(patterns, text)
        if len(answers) < len(patterns):
            step = steps[len(answers)]
            problem = Problem(
                f"{_step_place(self.steps.index(step), step.name)}.when",
                f"searching the message for it takes more than {SEARCH_SECONDS:g} seconds;"
                ' write it with fewer repeats, for example "deploy.{0,40}prod"',
            )
            raise InvalidWorkflowFile(self.path, [problem])
        return answers


def _is_cheap(pattern: str) -> bool:
    """Whether a search takes no time to speak of: no repeats, and few ways to try."""
    return not any(c in pattern for c in "*+{") and sum(map(pattern.count, "?(|")) <= 8


def _search_apart(patterns: Sequence[str], text: str) -> list[bool]:
    r"""Return what each pattern finds; fewer answers than patterns if the time was up.

    A search in this process cannot be interrupted and holds the interpreter lock: one
    `(a+)+b` would stop a server from answering a cancel. So it runs in a program of its own,
    some tens of milliseconds, and only for patterns that can be slow.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _SEARCHER],
            input=json.dumps([patterns, text]).encode(),
            capture_output=True,
            timeout=SEARCH_SECONDS,
            env={},
        )
        if done.returncode:
            raise RuntimeError(f"the search for `when` ended with {done.returncode}")
        output = done.stdout
    except subprocess.TimeoutExpired as late:
        output = cast("bytes", late.output or b"")
    return [answer == b"1" for answer in output.split()]


def load(root: Path) -> WorkflowFile:
    """Read and check the `bilt.toml` of the project in the folder `root`.

    Raises:
        NoWorkflowConfigured: there is none; `details` has `file`.
        InvalidWorkflowFile: it cannot be used; every problem names its table and key.

    """
    path = root / FILE_NAME
    shown = os.fsencode(path).decode("utf-8", "replace")  # a surrogate would end a stdio server
    try:
        data = _read(path)
        raw = _parse(data)
    except FileNotFoundError:
        folder = shown.removesuffix(f"/{FILE_NAME}")
        raise NoWorkflowConfigured(
            f"There is no {FILE_NAME} in {folder if len(folder) < 150 else '…' + folder[-149:]}."
            f" Create one there, for example:\n\n{_EXAMPLE}\nThen call bilt_send_message again.",
            file=shown,
        ) from None
    except _Unreadable as error:
        raise InvalidWorkflowFile(shown, [error.problem]) from None
    tables, problems = _check(raw, root)
    if tables is None or problems:
        if len(problems) > _MAX_PROBLEMS:
            more = len(problems) - _MAX_PROBLEMS
            problems = [*problems[:_MAX_PROBLEMS], Problem(FILE_NAME, f"and {more} more")]
        raise InvalidWorkflowFile(shown, problems)
    return WorkflowFile(shown, tables.project, tables.workflow, tables.step)


class _Unreadable(Exception):
    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.problem = Problem(field, message)


def _read(path: Path) -> bytes:
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _Unreadable(FILE_NAME, "is not a file")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_FILE_BYTES + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _Unreadable(FILE_NAME, f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise _Unreadable(FILE_NAME, "is larger than 1 MiB")
    return data


def _parse(data: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Unreadable(f"line {line}", "is not UTF-8 text") from None
    except RecursionError:
        raise _Unreadable(FILE_NAME, "is nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and int() on a number of 5000 digits
        told = str(error)
        found = _TOML_PLACE.search(told)
        place = found[1] if found else FILE_NAME
        raise _Unreadable(place, f"is not TOML: {_TOML_PLACE.sub('', told)}") from None


def _check(raw: dict[str, Any], root: Path) -> tuple[WorkflowTables | None, list[Problem]]:
    """Return the tables, or None, and everything that is wrong with them."""
    project = raw.setdefault("project", {})
    if isinstance(project, dict):
        cast("dict[str, Any]", project).setdefault("name", _name_of(root))
    tables: WorkflowTables | None = None
    errors: list[ErrorDetails] = []
    try:
        tables = WorkflowTables.model_validate(raw)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
    wrong = {error["loc"] for error in errors}
    return tables, [
        *(Problem(_place(error["loc"], raw), _told(error)) for error in errors),
        *_clashes(_steps_of(raw), wrong, root),
    ]


def _name_of(root: Path) -> str:
    """Return the folder's name as a project name."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", os.path.basename(os.path.realpath(root))).strip("-")
    return name[:255] or "project"


def _steps_of(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    steps: object = raw.get("step")
    if not isinstance(steps, list):
        return []
    return [
        cast("dict[str, Any]", step) if isinstance(step, dict) else {}
        for step in cast("list[object]", steps)
    ]


def _clashes(
    steps: Sequence[dict[str, Any]], wrong: set[tuple[int | str, ...]], root: Path
) -> Iterable[Problem]:
    """Yield what is wrong between steps and with their folders, for keys that are sound alone.

    It goes by the parsed text and not by the models, so that one bad key hides nothing else.
    """
    if not steps and ("step",) not in wrong:
        yield Problem("step", _NO_STEP)
    if len(steps) > MAX_STEPS:
        yield Problem("step", f"at most {MAX_STEPS} steps are allowed, these are {len(steps)}")
    first: dict[str, int] = {}
    top = os.path.realpath(root)
    for index, step in enumerate(steps[:MAX_STEPS]):

        def sound(key: str, index: int = index, step: dict[str, Any] = step) -> Any:
            return None if ("step", index, key) in wrong else step.get(key)

        place = _step_place(index, step.get("name"))
        if name := sound("name"):
            other = first.setdefault(slug(name), index)
            if other != index:
                told = f"step[{other + 1}] has this name too, or one with the same file name"
                yield Problem(f"{place}.name", f"{told} ({slug(name)})")
        if cwd := sound("cwd"):
            folder = os.path.realpath(os.path.join(top, cwd))
            if os.path.commonpath([top, folder]) != top:
                yield Problem(f"{place}.cwd", "leads outside the project")
            elif not os.path.isdir(folder):
                yield Problem(f"{place}.cwd", f"{quoted(cwd)} is not a folder of the project")
        both = set(sound("env") or ()) & set(sound("secrets") or ())
        if both:
            yield Problem(f"{place}.secrets", f"{', '.join(sorted(both))} is also set in env")


def _step_place(index: int, name: object) -> str:
    number = f"step[{index + 1}]"
    return f"{number} {quoted(name)}" if isinstance(name, str) and name else number


def _place(loc: Sequence[int | str], raw: Mapping[str, Any]) -> str:
    """Return where an error is, as a person would look for it: `step[2] "deploy".timeout`."""
    parts = list(loc)
    place = ""
    if len(parts) > 1 and parts[0] == "step" and isinstance(parts[1], int):
        place = _step_place(parts[1], _steps_of(raw)[parts[1]].get("name"))
        parts = parts[2:]
    keys = [
        str(p) if re.fullmatch(r"[A-Za-z0-9_-]{1,60}", str(p)) else quoted(str(p)) for p in parts
    ]
    return ".".join([place, *keys] if place else keys)


_TABLES: Mapping[object, type[BaseModel]] = {
    "project": ProjectTable,
    "workflow": Limits,
    "step": Step,
}
_WORDS = {
    "missing": "is required",
    "string_type": "must be a string",
    "string_unicode": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "model_type": "must be a table",
}


def _told(error: ErrorDetails) -> str:
    """Return what is wrong, as the rest of a sentence that begins with the key."""
    loc, kind = error["loc"], error["type"]
    if kind == "extra_forbidden":
        table = WorkflowTables if len(loc) == 1 else _TABLES[loc[0]]
        known = list(table.model_fields)
        near = difflib.get_close_matches(str(loc[-1])[:60], known, 1)
        hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(known)}"
        return f"unknown key; {hint}"
    if loc == ("step",):
        return _NO_STEP
    if kind == "value_error":
        return str(error.get("ctx", {}).get("error", error["msg"]))
    told = _WORDS.get(kind) or error["msg"]
    return re.sub(r"^(Input|String) should", "must", told)
