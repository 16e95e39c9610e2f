"""What stands in `bilt.toml`: its tables, and the rules for each key (README, "bilt.toml").

A rule that is broken is a ValueError whose text completes the sentence "<key> ...".
"""

from __future__ import annotations

import posixpath
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, TypeAlias, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from .safe_text import clean

MAX_STEPS = 100
MAX_SECONDS = 30 * 86_400.0
"""Longest duration, 30 days: timers and selectors overflow on absurd ones."""
MAX_GRACE = 300.0
MAX_STRING_BYTES = 131_071
"""Longest string that Linux passes to a program (MAX_ARG_STRLEN without its NUL), in bytes."""

_DURATION = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?(?:(\d{1,9})ms)?", re.ASCII)
_STEP_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._ -]{0,62}[A-Za-z0-9_-])?")
_PROJECT_NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def quoted(text: str, limit: int = 60) -> str:
    """Return `text` in quotes, in one line, without what a terminal would act on."""
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    return '"' + clean(short).replace("\n", " ") + '"'


def slug(name: str) -> str:
    """Return a step's name as part of a file name, also where case does not count."""
    return name.replace(" ", "-").lower()


def _text(value: str) -> str:
    """Return `value` if an operating system and a database can take it; ValueError if not."""
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ValueError("must not contain half of a surrogate pair") from None
    if size > MAX_STRING_BYTES:
        raise ValueError(f"must be at most {MAX_STRING_BYTES:,} bytes long")
    return value


def _shown(value: str) -> str:
    """Text that people read before they decide: nothing invisible may stay in it."""
    text = clean(_text(value))
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _duration(value: object) -> float:
    """Return seconds for `"1h30m"` or a number of seconds, from 0 on; ValueError if neither."""
    if isinstance(value, str) and value and (found := _DURATION.fullmatch(value)):
        h, m, s, ms = (int(part or 0) for part in found.groups())
        return h * 3600 + m * 60 + s + ms / 1000
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:  # not NaN
        return float(min(value, MAX_SECONDS + 1))  # an int may be too large for a float
    raise ValueError('must be like "10m", "90s", "1h30m", "500ms" or a number of seconds')


def _timeout(value: object) -> float:
    seconds = _duration(value)
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError("must be more than 0 and at most 30 days (720h); without it: no limit")
    return seconds


def _grace(value: object) -> float:
    seconds = _duration(value)
    if seconds > MAX_GRACE:
        raise ValueError(f"must be at most {MAX_GRACE:g} seconds (5m)")
    return seconds


def _step_name(value: str) -> str:
    if not _STEP_NAME.fullmatch(value):
        raise ValueError(
            "must be 1 to 64 characters: letters, digits, space, - _ and ., beginning with a"
            " letter or digit and not ending with a space or a full stop"
        )
    return value


def _project_name(value: str) -> str:
    if not _PROJECT_NAME.fullmatch(value):
        raise ValueError("must be 1 to 255 characters: letters, digits, hyphens, underscores")
    return value


def _command(value: object) -> str | tuple[str, ...]:
    if isinstance(value, str):
        if not value.strip():
            raise ValueError("must not be empty")
        return _text(value)
    words: Sequence[object] = cast("Sequence[object]", value) if _is_list(value) else ()
    if not words or not all(isinstance(word, str) for word in words):
        raise ValueError(
            'must be a command like "npm run build" or a list of strings like ["npm", "run"]'
        )
    argv = tuple(_text(str(word)) for word in words)
    if not argv[0].strip():
        raise ValueError("must name a program first")
    return argv


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple)


def _folder(value: str) -> str:
    _text(value)
    normal = posixpath.normpath(value)
    if not value or normal == ".." or normal.startswith(("/", "../")):
        raise ValueError("must be a folder inside the project, relative to bilt.toml")
    return value


def _regex(value: str) -> str:
    _text(value)
    if not value or len(value) > 1000:
        raise ValueError("must be 1 to 1000 characters; leave it out to run the step always")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(value, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return value


def _variable(name: str) -> None:
    if not _VARIABLE.fullmatch(name):
        raise ValueError(f"{quoted(name)} is not a variable name (letters, digits, _)")
    if name.startswith("BILT_"):
        raise ValueError(f"{name} is reserved: bilt sets the BILT_ variables itself")


def _variables(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict):
        raise ValueError('must be a table like { NODE_ENV = "production" }')
    wrong: list[str] = []
    for name, text in cast("dict[str, object]", value).items():
        try:
            _variable(name)
            if not isinstance(text, str):
                raise ValueError(f"{name} must be a string, in quotes")
            _text(f"{name}={text}")
        except ValueError as error:
            told = str(error)
            wrong.append(told if name in told else f"{quoted(name)} {told}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return dict(cast("dict[str, str]", value))


def _secrets(value: object) -> tuple[str, ...]:
    names: Sequence[object] = cast("Sequence[object]", value) if _is_list(value) else (None,)
    wrong: list[str] = []
    for name in names:
        try:
            if not isinstance(name, str):
                raise ValueError('must be a list of variable names like ["DEPLOY_TOKEN"]')
            _variable(name)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        raise ValueError("; ".join(dict.fromkeys(wrong)))
    return tuple(dict.fromkeys(cast("Sequence[str]", names)))


Seconds: TypeAlias = Annotated[float, BeforeValidator(_timeout)]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ProjectTable(_Table):
    """`[project]`: what the project is called (CONTRACT "bilt_create_project")."""

    name: Annotated[str, AfterValidator(_project_name)]
    description: Annotated[str, Field(max_length=1000), AfterValidator(_shown)] | None = None


class Limits(_Table):
    """`[workflow]`: bounds of a workflow as a whole.

    `timeout` is in seconds; `max_parallel` counts workflows of this project that run at once;
    `log_bytes` is what is kept of one step's log; `max_messages` bounds its log messages.
    """

    timeout: Seconds | None = None
    max_parallel: Annotated[int, Field(ge=1, le=10_000)] | None = None
    log_bytes: Annotated[int, Field(ge=64 * 1024, le=64 * 1024 * 1024)] = 1_310_720
    max_messages: Annotated[int, Field(ge=10, le=10_000)] = 200


class Step(_Table):
    """`[[step]]`: one process, and when and how it runs. Durations are in seconds.

    `Step.model_validate(snapshot)` reads what `model_dump(mode="json")` wrote and looks at no file.
    """

    name: Annotated[str, AfterValidator(_step_name)]
    run: Annotated[str | tuple[str, ...], BeforeValidator(_command)]
    cwd: Annotated[str, AfterValidator(_folder)] = "."
    env: Annotated[Mapping[str, str], BeforeValidator(_variables)] = Field(
        default_factory=lambda: dict[str, str]()
    )
    timeout: Seconds | None = None
    grace: Annotated[float, BeforeValidator(_grace)] = 2.0
    when: Annotated[str, AfterValidator(_regex)] | None = None
    retries: Annotated[int, Field(ge=0, le=10)] = 0
    deploy: bool = False
    confirm: Annotated[str, Field(max_length=500), AfterValidator(_shown)] | None = None
    on_decline: Literal["cancel", "skip"] = "cancel"
    confirm_timeout: Seconds | None = None
    secrets: Annotated[tuple[str, ...], BeforeValidator(_secrets)] = ()

    @property
    def argv(self) -> tuple[str, ...]:
        """The program and its arguments; a command given as one string goes to the shell."""
        return ("/bin/sh", "-c", self.run) if isinstance(self.run, str) else self.run

    @property
    def slug(self) -> str:
        """The name as part of a file name; no two steps of a workflow share it."""
        return slug(self.name)


class WorkflowTables(_Table):
    """The whole file."""

    project: ProjectTable
    workflow: Limits = Limits()
    step: Annotated[tuple[Step, ...], Field(strict=False)]
