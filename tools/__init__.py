"""What a model sees: one tool a file. No SQL, no transport, no processes."""

from typing import TYPE_CHECKING

from mcp.server.mcpserver.tools import Tool

from . import (
    cancel_action,
    cancel_workflow,
    confirm_action,
    create_project,
    get_messages,
    get_project,
    get_session,
    list_projects,
    pause_workflow,
    resume_workflow,
    send_message,
)
from .arguments import Text, as_id, storable
from .cancelling import Unrecorded, cancel, cancel_and_verify
from .desk import Desk, Engine, Office, ToolContext, caller_of, shown_name, user_of
from .gate import Decision, can_ask, consequence, question, settled
from .problems import clip, problem_of, unknown
from .registry import ToolSpec, call
from .results import StartedResult, failure, session_result, success
from .starting import start_calls, start_workflow
from .waiting import expires_in, is_answered, is_over, needs_worker, wait_until

TOOLS: tuple[ToolSpec, ...] = (
    get_session.TOOL,
    send_message.TOOL,
    get_messages.TOOL,
    cancel_workflow.TOOL,
    confirm_action.TOOL,
    cancel_action.TOOL,
    pause_workflow.TOOL,
    resume_workflow.TOOL,
    list_projects.TOOL,
    get_project.TOOL,
    create_project.TOOL,
)
"""Every tool, in the order in which an agent meets them."""


def build_tools() -> dict[str, Tool]:
    """The tools as the SDK serves them, by name."""
    return {spec.name: spec.build() for spec in TOOLS}


if TYPE_CHECKING:
    from . import completion, prompts, resources, uris, watching

__all__ = [
    "TOOLS",
    "Decision",
    "Desk",
    "Engine",
    "Office",
    "StartedResult",
    "Text",
    "ToolContext",
    "ToolSpec",
    "Unrecorded",
    "as_id",
    "build_tools",
    "call",
    "caller_of",
    "can_ask",
    "cancel",
    "cancel_and_verify",
    "clip",
    "completion",
    "consequence",
    "expires_in",
    "failure",
    "is_answered",
    "is_over",
    "needs_worker",
    "problem_of",
    "prompts",
    "question",
    "resources",
    "session_result",
    "settled",
    "shown_name",
    "start_calls",
    "start_workflow",
    "storable",
    "success",
    "unknown",
    "uris",
    "user_of",
    "wait_until",
    "watching",
]


def __getattr__(name: str) -> object:
    # What few clients ask for is loaded by the first who does.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module(f"{__name__}.{name}")
