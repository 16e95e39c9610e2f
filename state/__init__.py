"""The rules and the store: the state machine, what is kept, and where. Knows no protocol and no process.

The store itself is loaded when it is used: a client's first answer, the list of tools, needs none.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .access import AccessStore, Account, Admission, ApiKey, Login, Window, limited_to
from .calls import MOST_CALLS, CalledStep, Refusal, RefusalCode
from .clock import Clock, SystemClock, boot_id
from .errors import (
    BiltError,
    CannotCancel,
    CannotPause,
    CannotResume,
    ConfirmationRequired,
    IdempotencyKeyReused,
    InvalidArguments,
    InvalidWorkflowFile,
    KeyAlreadyExists,
    KeyNotFound,
    NothingToConfirm,
    NoWorkflowConfigured,
    PermissionDenied,
    Problem,
    ProjectAlreadyExists,
    ProjectNotFound,
    RateLimitExceeded,
    SessionNotFound,
    StoreFull,
    StoreUnavailable,
    WorkflowAlreadyActive,
    WorkflowNotFound,
)
from .history import (
    History,
    IdKind,
    KeptFile,
    KeptText,
    LineRange,
    StepRun,
    Withheld,
)
from .invocations import (
    MAX_KEY_CHARS,
    MOST_INVOCATIONS,
    Invocation,
    InvocationPage,
    InvocationStatus,
    InvocationStore,
    message_of,
)
from .location import StoreLocation
from .models import (
    UNNAMED,
    AuditEntry,
    Caller,
    Cancelled,
    Claim,
    DeployState,
    Failure,
    FailureCode,
    Halted,
    LostStep,
    LostWorkflow,
    Message,
    MessagePage,
    MessageQuery,
    NewProject,
    Note,
    PendingAction,
    Plan,
    PlannedStep,
    Prepared,
    ProcessRecord,
    Project,
    Session,
    Side,
    Started,
    StepTicket,
    Stopped,
    Variant,
    Visibility,
    Workflow,
    iso,
)
from .settings import StoreSettings
from .store import SessionStore, Watch
from .transitions import ACTIVE, CANCELLABLE, FINAL, IDLE, TRANSITIONS, Event, Status, sources
from .version import IDLE_SECONDS, VERSION

if TYPE_CHECKING:
    from .driver import SQLITE_VERSION, WAL_RESET_NOTE
    from .keys import digest_of, looks_like_key, new_key
    from .sqlite import SqliteStore
    from .sqlite_access import SqliteAccess

__all__ = [
    "ACTIVE",
    "CANCELLABLE",
    "FINAL",
    "IDLE",
    "IDLE_SECONDS",
    "MAX_KEY_CHARS",
    "MOST_CALLS",
    "MOST_INVOCATIONS",
    "SQLITE_VERSION",
    "TRANSITIONS",
    "UNNAMED",
    "VERSION",
    "WAL_RESET_NOTE",
    "AccessStore",
    "Account",
    "Admission",
    "ApiKey",
    "AuditEntry",
    "BiltError",
    "CalledStep",
    "Caller",
    "Cancelled",
    "CannotCancel",
    "CannotPause",
    "CannotResume",
    "Claim",
    "Clock",
    "ConfirmationRequired",
    "DeployState",
    "Event",
    "Failure",
    "FailureCode",
    "Halted",
    "History",
    "IdKind",
    "IdempotencyKeyReused",
    "InvalidArguments",
    "InvalidWorkflowFile",
    "Invocation",
    "InvocationPage",
    "InvocationStatus",
    "InvocationStore",
    "KeptFile",
    "KeptText",
    "KeyAlreadyExists",
    "KeyNotFound",
    "LineRange",
    "Login",
    "LostStep",
    "LostWorkflow",
    "Message",
    "MessagePage",
    "MessageQuery",
    "NewProject",
    "NoWorkflowConfigured",
    "Note",
    "NothingToConfirm",
    "PendingAction",
    "PermissionDenied",
    "Plan",
    "PlannedStep",
    "Prepared",
    "Problem",
    "ProcessRecord",
    "Project",
    "ProjectAlreadyExists",
    "ProjectNotFound",
    "RateLimitExceeded",
    "Refusal",
    "RefusalCode",
    "Session",
    "SessionNotFound",
    "SessionStore",
    "Side",
    "SqliteAccess",
    "SqliteStore",
    "Started",
    "Status",
    "StepRun",
    "StepTicket",
    "Stopped",
    "StoreFull",
    "StoreLocation",
    "StoreSettings",
    "StoreUnavailable",
    "SystemClock",
    "Variant",
    "Visibility",
    "Watch",
    "Window",
    "Withheld",
    "Workflow",
    "WorkflowAlreadyActive",
    "WorkflowNotFound",
    "boot_id",
    "digest_of",
    "iso",
    "limited_to",
    "looks_like_key",
    "message_of",
    "new_key",
    "sources",
]


_HOMES = {
    "SqliteStore": "sqlite",
    "SqliteAccess": "sqlite_access",
    "digest_of": "keys",
    "looks_like_key": "keys",
    "new_key": "keys",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES.get(name, 'driver')}", __name__), name)
