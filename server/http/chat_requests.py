"""What every chat route does with a request: read it, and turn what goes wrong into the documented errors."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar
from uuid import uuid4

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from bilt_mcp.state import (
    BiltError,
    InvalidArguments,
    InvalidWorkflowFile,
    NothingToConfirm,
    NoWorkflowConfigured,
    ProjectNotFound,
    SessionNotFound,
    StoreFull,
    StoreUnavailable,
    WorkflowAlreadyActive,
)
from bilt_mcp.tools import as_id, clip

from .errors import Refused
from .identity import Identity, identity_of
from .parsing import invalid

log = logging.getLogger("bilt_mcp.server")

MOST_NAMED = 6
"""Words that steps look for, of those that are told."""
_CODES: dict[type[BiltError], tuple[int, str]] = {
    InvalidArguments: (400, "invalid_request"),
    ProjectNotFound: (404, "project_not_found"),
    NoWorkflowConfigured: (409, "no_workflow_configured"),
    InvalidWorkflowFile: (409, "invalid_workflow_file"),
}

Asked = TypeVar("Asked", bound=BaseModel)


async def read(request: Request, model: type[Asked]) -> Asked:
    """The body of a request. Raises `InvalidArguments`."""
    try:
        return model.model_validate_json(await request.body())
    except ValidationError as error:
        known = model.model_fields
        raise invalid(error, lambda place: known if len(place) == 1 else ()) from None


def thread_id_of(text: str) -> str:
    """The session that a thread id names. Raises `SessionNotFound` for what can be none."""
    known = as_id(text)
    if known is None:
        raise SessionNotFound("No such thread.")
    return known


def thread_not_found() -> Refused:
    """The answer about a thread that is not there, or not the caller's: one for both."""
    told = "No thread with this thread_id. Leave it out to begin a new one."
    return Refused(404, "thread_not_found", told)


def nothing_pending() -> Refused:
    """The answer where nothing waits for a person, whosever thread it is, and if there is none: one for all."""
    told = "No action of this thread waits for a confirmation: nothing was changed."
    return Refused(404, "no_pending_action", told)


@contextmanager
def told_as(code: str, what: str) -> Generator[None]:
    """Everything that goes wrong inside as the chat's errors: as `code` where it is the server's own trouble.

    Of a store that fails a caller is told that, and not where it is: he may be anywhere.
    """
    try:
        yield
    except Refused:
        raise
    except SessionNotFound:
        raise thread_not_found() from None
    except NothingToConfirm:
        raise nothing_pending() from None
    except WorkflowAlreadyActive as error:
        raise _busy(error) from None
    except StoreUnavailable as error:
        error_id = _logged(error, code)
        why = (
            "the store is full" if isinstance(error, StoreFull) else "the store cannot be used now"
        )
        raise Refused(500, code, f"{what}: {why}; error_id {error_id}") from error
    except BiltError as error:
        status, name = _CODES.get(type(error), (409, "refused"))
        raise Refused(status, name, _told(error)) from None
    except Exception as error:
        error_id = _logged(error, code)
        raise Refused(500, code, f"{what}: internal error; error_id {error_id}") from error


def person_of(request: Request) -> Identity:
    """Who asks, where it has to be a person. Raises `Refused`."""
    identity = identity_of(request.scope)
    if not identity.person:
        raise Refused(403, "person_required", "Only a person who is logged in may answer.")
    return identity


def _told(error: BiltError) -> str:
    """What a person is told: no call of another surface, and no place on the server."""
    if isinstance(error, ProjectNotFound):
        return "There is no project yet. An agent makes one with bilt_create_project."
    if isinstance(error, InvalidWorkflowFile):
        told = "; ".join(f"{problem.field}: {problem.message}" for problem in error.problems)
        return f"Nothing was started. The project's bilt.toml has to be corrected: {told}"
    if isinstance(error, NoWorkflowConfigured):
        whens = error.details.get("when")
        if not whens:
            return "Nothing was started. The project has no bilt.toml yet."
        named = ", ".join(f'"{clip(str(when))}"' for when in whens[:MOST_NAMED])
        return f"Nothing was started. No step applies to this message; they look for {named}."
    return error.message


def _busy(error: WorkflowAlreadyActive) -> Refused:
    status = error.details.get("current_status")
    then = "Wait for its end on /chat/stream"
    if status == "paused":
        then = "Answer what it asks with /chat/confirm or /chat/cancel"
    told = (
        f"The workflow of this thread is {status}. {then}, or send the message without a thread_id."
    )
    return Refused(409, "already_active", told)


def _logged(error: Exception, code: str) -> str:
    error_id = str(uuid4())
    log.error("chat: %s, error_id %s", code, error_id, exc_info=error)
    return error_id
